"""A thread that is due twenty times a second, and notes how late it runs.

It finds what no call can tell of: a stopped or starved process, and a thread that does not let go of Python's lock. It
also counts what the garbage collector did meanwhile.
"""

import gc
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Self

from prometheus_client import Histogram

from iyscheck.server.metrics import PAUSE_BUCKETS_S, observe_often
from iyscheck.server.threads import start

EVERY_S: Final = 0.05
_MOST: Final = 1_200
"""For a minute that it slept over every due time is noted, for all that was before none."""


class Ticker:
    """Notes delays and pauses from a thread of its own, in a `with` block.

    Its due times stand fixed: of a second without a turn it notes twenty, and not one. A share of delays is so a share
    of time.
    """

    def __init__(self, delay_seconds: Histogram, pauses: "Pauses", clock: Callable[[], float] = time.monotonic) -> None:
        self._delay_seconds = delay_seconds
        self._pauses = pauses
        self._clock = clock
        self._due_s = clock() + EVERY_S
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)

    def __enter__(self) -> Self:
        """Begin. Raises WorkersError where no thread can be started."""
        self._due_s = self._clock() + EVERY_S
        start(self._thread)
        self._pauses.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        self._pauses.end()

    def tick(self) -> None:
        """Note how late it is for each time that was due by now."""
        now_s = self._clock()
        self._due_s = max(self._due_s, now_s - _MOST * EVERY_S)
        while self._due_s <= now_s:
            self._delay_seconds.observe(now_s - self._due_s)
            self._due_s += EVERY_S
        self._pauses.show()

    def _run(self) -> None:
        while not self._over.wait(max(0.0, self._due_s - self._clock())):
            self.tick()


class Pauses:
    """How long the garbage collector stopped everything, between `begin` and `end`.

    It collects in the middle of anything, also of counting, whose lock is taken then. So its pauses are only noted, and
    counted by `show`.
    """

    def __init__(self, seconds: Histogram, clock: Callable[[], float] = time.perf_counter) -> None:
        self._seconds = seconds
        self._clock = clock
        self._began_s = 0.0
        self._short = 0
        self._short_s = 0.0
        self._long: list[float] = []
        self._shown = 0
        self._shown_s = 0.0

    def begin(self) -> None:
        """Note pauses from now on."""
        gc.callbacks.append(self._note)

    def end(self) -> None:
        """Note no more."""
        gc.callbacks.remove(self._note)

    def show(self) -> None:
        """Count what was noted since it was last called."""
        short, short_s = self._short, self._short_s
        if short > self._shown:
            pauses = short - self._shown
            observe_often(self._seconds, (short_s - self._shown_s) / pauses, pauses)
            self._shown, self._shown_s = short, short_s
        while self._long:
            self._seconds.observe(self._long.pop())

    def _note(self, phase: str, _: Mapping[str, Any]) -> None:
        now_s = self._clock()
        if phase == "start":
            self._began_s = now_s
            return
        took_s = now_s - self._began_s
        if took_s <= PAUSE_BUCKETS_S[0]:  # nearly all
            self._short += 1
            self._short_s += took_s
        else:
            self._long.append(took_s)
