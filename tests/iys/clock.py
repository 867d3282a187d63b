"""Clocks that tests hold in their hands: one for the threads of a process, one that several processes share."""

import fcntl
import mmap
import threading
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_S = 1_767_258_000.0
"""When these clocks begin: noon of the first day of 2026 in Türkiye, seconds UTC."""

LOOK_S = 0.02
"""How often somebody who waits looks whether he is to stop: `stop` is an event of its own, nothing wakes for it."""


class VirtualClock:
    """A clock for threads of one process. Times are seconds UTC.

    By itself it runs as fast as it is waited for: who waits moves it at once. A held one moves only by `advance`, and
    who waits for it stands still until then.
    """

    def __init__(self, start_s: float = START_S, *, held: bool = False) -> None:
        self._now_s = start_s
        self._held = held
        self._waiting = 0
        self._moved = threading.Condition()

    def now(self) -> float:
        """Return the time."""
        return self._now_s

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Wait so long, or until `stop` is set; say whether it is."""
        with self._moved:
            until_s = self._now_s + max(seconds, 0.0)
            if not self._held and not stop.is_set():
                self._move(until_s)
            self._waiting += 1
            self._moved.notify_all()
            while self._held and self._now_s < until_s and not stop.is_set():
                self._moved.wait(LOOK_S)
            self._waiting -= 1
        return stop.is_set()

    def advance(self, seconds: float) -> float:
        """Let so much time pass; gives the time then."""
        with self._moved:
            self._move(self._now_s + seconds)
            return self._now_s

    def set(self, now_s: float) -> None:
        """Set the clock, back too."""
        with self._moved:
            self._now_s = now_s
            self._moved.notify_all()

    def hold(self) -> None:
        """From now on the clock moves only by `advance`."""
        with self._moved:
            self._held = True

    def release(self) -> None:
        """From now on who waits moves the clock; who is waiting is let go."""
        with self._moved:
            self._held = False
            self._moved.notify_all()

    def until_waiting(self, threads: int, timeout_s: float = 30.0) -> bool:
        """Block until so many threads wait for this held clock; say whether they do."""
        with self._moved:
            return self._moved.wait_for(lambda: self._waiting >= threads, timeout_s)

    def _move(self, to_s: float) -> None:
        self._now_s = max(self._now_s, to_s)
        self._moved.notify_all()


class SharedClock:
    """A clock in a file, for several processes: what one moves all see. Times are seconds UTC.

    The file holds two doubles: the time, and whether the clock is held. It is made where it is not there.
    """

    _BYTES = 16

    def __init__(self, path: Path, *, start_s: float = START_S, held: bool = False) -> None:
        self._path = path
        path.touch()
        with self._alone():
            if path.stat().st_size < self._BYTES:
                path.write_bytes(array("d", (start_s, held)).tobytes())
            with path.open("r+b") as file:
                # Doubles of the machine, each read and written by one instruction: nobody sees half a time.
                self._seen = memoryview(mmap.mmap(file.fileno(), self._BYTES)).cast("d")

    def now(self) -> float:
        """Return the time."""
        return self._seen[0]

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Wait so long, or until `stop` is set; say whether it is."""
        until_s = self.now() + max(seconds, 0.0)
        while not stop.is_set() and self.now() < until_s:
            if self._is_held():
                stop.wait(LOOK_S)
            else:
                self._store(until_s, held=False)
        return stop.is_set()

    def advance(self, seconds: float) -> float:
        """Let so much time pass for all; gives the time then."""
        with self._alone():
            now_s = self.now() + seconds
            self._seen[0] = now_s
        return now_s

    def set(self, now_s: float) -> None:
        """Set the clock, back too."""
        with self._alone():
            self._seen[0] = now_s

    def hold(self) -> None:
        """From now on the clock moves only by `advance`."""
        self._store(self.now(), held=True)

    def release(self) -> None:
        """From now on who waits moves the clock."""
        self._store(self.now(), held=False)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep all others out, processes and threads: each opens the file for itself, and the lock is of that."""
        with self._path.open("rb") as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
            yield

    def _is_held(self) -> bool:
        return self._seen[1] != 0.0

    def _store(self, now_s: float, *, held: bool) -> None:
        with self._alone():
            self._seen[0], self._seen[1] = max(now_s, self.now()), float(held)


class RunningClock:
    """The machine's clock from another time on: for demonstrations, where time should pass."""

    def __init__(self, start_s: float | None = None) -> None:
        self._ahead_s = 0.0 if start_s is None else start_s - time.time()

    def now(self) -> float:
        """Return the time."""
        return time.time() + self._ahead_s

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Wait so long, or until `stop` is set; say whether it is."""
        return stop.wait(max(seconds, 0.0))

    def advance(self, seconds: float) -> float:
        """Jump ahead; gives the time then."""
        self._ahead_s += seconds
        return self.now()

    def set(self, now_s: float) -> None:
        """Jump to a time, back too."""
        self._ahead_s = now_s - time.time()
