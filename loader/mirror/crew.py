"""Who waits for İYS while one thread writes: asking in several threads, and what comes of it in the order it comes.

What is asked never touches the store. Everything that does is done by the one thread that takes the answers.
"""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

HANDS: Final = 4
"""Threads. İYS allows so few requests a second that more would only wait."""

TaskT = TypeVar("TaskT")


@dataclass(frozen=True, slots=True)
class Answer(Generic[TaskT]):
    """What came of a task: either a value, or what was raised."""

    task: TaskT
    value: object = None
    error: Exception | None = None


class Crew(Generic[TaskT]):
    """So many threads. With none, each task is done by whoever sends it: then nothing runs beside anything else.

    The threads are daemons: who ends need not wait for a request that may take a minute. Nothing is lost by that, as
    only what was answered and taken counts.
    """

    def __init__(self, do: Callable[[TaskT], object], *, hands: int = HANDS) -> None:
        self._do = do
        self._tasks: queue.SimpleQueue[TaskT | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer[TaskT]] = queue.SimpleQueue()
        self._room = max(hands, 1)
        self._under_way = 0
        self._threads = [
            threading.Thread(target=self._work, name=f"asking-{number}", daemon=True) for number in range(hands)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, nor waits to be taken."""
        return not self._under_way

    @property
    def has_room(self) -> bool:
        """Whether one more task would be done at once."""
        return self._under_way < self._room

    def send(self, task: TaskT) -> None:
        """Have a task done."""
        self._under_way += 1
        if self._threads:
            self._tasks.put(task)
        else:
            self._answers.put(self._done(task))

    def take(self, wait_s: float) -> Answer[TaskT] | None:
        """Take the next answer; wait so long for one. Only what is taken makes room."""
        try:
            answer = self._answers.get(timeout=wait_s) if wait_s > 0 else self._answers.get_nowait()
        except queue.Empty:
            return None
        self._under_way -= 1
        return answer

    def close(self, wait_s: float) -> None:
        """Give no more tasks, and wait so long in all for the threads that are doing one."""
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join(wait_s / len(self._threads))

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            self._answers.put(self._done(task))

    def _done(self, task: TaskT) -> Answer[TaskT]:
        try:
            return Answer(task, self._do(task))
        except Exception as error:  # noqa: BLE001 - whatever it is, who writes must hear of it
            return Answer(task, error=error)
