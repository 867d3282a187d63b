"""The loop of the mirror: İYS is asked by a crew, and one thread takes the answers and writes."""

import threading
from collections.abc import Callable, Sequence
from typing import Final

from loader.iys.clock import Clock
from loader.mirror.crew import Answer, Crew
from loader.mirror.tasks import Part, Task

POLL_S: Final = 0.2
"""At most so long nothing is looked at: what was pushed, a directory, the wish to end."""
_ENDING_S: Final = 2.0
"""So long a request that is under way may take when the mirror ends."""


class Often:
    """Does something every so many seconds; an error is its own business."""

    def __init__(self, seconds: float, do: Callable[[], None], clock: Clock) -> None:
        self._seconds = seconds
        self._do = do
        self._clock = clock
        self._next_s = 0.0

    def __call__(self) -> None:
        """Do it, if it is due."""
        now = self._clock.now()
        if not self._next_s - self._seconds <= now < self._next_s:
            self._next_s = now + self._seconds
            self._do()


class Mirror:
    """Parts ask, chores are done in between. `poll_s` is the longest that it waits at a time, and chores with it."""

    def __init__(
        self,
        parts: Sequence[Part],
        chores: Sequence[Often],
        *,
        crew: Crew[Task],
        clock: Clock,
        stop: threading.Event,
        poll_s: float = POLL_S,
    ) -> None:
        self._parts = parts
        self._chores = chores
        self._crew = crew
        self._clock = clock
        self._stop = stop
        self._poll_s = poll_s

    def run(self) -> None:
        """Go on until told to stop. Raises what the store raises where no other try can help."""
        while not self._stop.is_set():
            self.step()
        self.close()

    def close(self) -> None:
        """Wait a moment for what is under way, and ask for nothing more."""
        self._crew.close(_ENDING_S)

    def step(self) -> None:
        """Do what is due, and wait for what comes next."""
        for chore in self._chores:
            chore()
        self._send()
        answer = self._crew.take(0)
        if answer is None and not self._stop.is_set():
            answer = self._waited()
        while answer is not None:
            self._took(answer)
            answer = None if self._stop.is_set() else self._crew.take(0)

    def _send(self) -> None:
        """Give the crew what is due, each part in its turn."""
        for part in self._parts:
            while self._crew.has_room and not self._stop.is_set() and (task := part.next()) is not None:
                self._crew.send(task)

    def _took(self, answer: Answer[Task]) -> None:
        follows = answer.task.take(answer.value if answer.error is None else answer.error)
        if follows is not None:
            self._crew.send(follows)

    def _waited(self) -> Answer[Task] | None:
        """Wait for the next answer, or for what is due next."""
        dues = [each.next_s for each in self._parts] if self._crew.has_room else []
        now = self._clock.now()
        wait_s = min([self._poll_s, *(due - now for due in dues if due is not None)])
        if wait_s <= 0:
            return None
        if not self._crew.is_idle:
            return self._crew.take(min(wait_s, POLL_S))
        self._clock.wait(wait_s, self._stop)
        return None


def do(task: Task) -> object:
    """Ask, for a crew."""
    return task.ask()
