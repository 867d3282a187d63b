"""Replies that were handed to a transport and are not taken yet: each for a while, all together up to a size.

A caller that does not read keeps the memory of its reply, and in a stream a thread. The transport ends neither by
itself. So a front notes a reply when it hands it over, and again when it has left.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from iyscheck.server.metrics import EndedCalls

CALL_BYTES: Final = 25_000
"""What a call takes that is not over, beside its reply."""
_LOOK_S: Final = 1.0
NOT_READ: Final = "not_read"
TOO_MUCH_UNREAD: Final = "too_much_unread"
REASONS: Final = (NOT_READ, TOO_MUCH_UNREAD)


class Leaving:
    """A reply on its way: equal to none but itself. `end` ends its call."""

    __slots__ = ("bytes", "end", "since_s")

    def __init__(self, size: int, end: Callable[[], object], since_s: float) -> None:
        self.bytes = size
        self.end = end
        self.since_s = since_s


class Unread:
    """The replies on their way, oldest first. Safe to share between threads."""

    def __init__(
        self,
        ended: EndedCalls,
        *,
        most_s: float,
        most_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ended = ended
        for why in REASONS:
            ended.count(why, 0)
        self._most_s = most_s
        self._most_bytes = most_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._leaving: OrderedDict[Leaving, None] = OrderedDict()  # a dict would search its oldest for ever longer
        self._bytes = 0
        self._over = threading.Event()
        self.thread = threading.Thread(target=self._run, name="unread", daemon=True)

    def handed(self, size: int, end: Callable[[], object]) -> Leaving:
        """Note that a reply was handed over. Where all are too much, the calls of the oldest are ended."""
        leaving = Leaving(size + CALL_BYTES, end, self._clock())
        with self._lock:
            self._leaving[leaving] = None
            self._bytes += leaving.bytes
            crowded = []
            while self._bytes > self._most_bytes:
                crowded.append(self._oldest_out())
        self._end(crowded, TOO_MUCH_UNREAD)
        return leaving

    def left(self, leaving: Leaving) -> None:
        """Note that it is taken, or that its call is over."""
        with self._lock:
            if leaving in self._leaving:
                del self._leaving[leaving]
                self._bytes -= leaving.bytes

    def look(self) -> None:
        """End the calls whose replies were not taken in time."""
        due_s = self._clock() - self._most_s
        late = []
        with self._lock:
            while self._leaving and next(iter(self._leaving)).since_s < due_s:
                late.append(self._oldest_out())
        self._end(late, NOT_READ)

    def stop(self) -> None:
        """End the thread."""
        self._over.set()
        if self.thread.is_alive():
            self.thread.join()

    def _oldest_out(self) -> Leaving:
        oldest, _ = self._leaving.popitem(last=False)
        self._bytes -= oldest.bytes
        return oldest

    def _end(self, calls: list[Leaving], why: str) -> None:
        for each in calls:
            self._ended.count(why)
            each.end()

    def _run(self) -> None:
        while not self._over.wait(_LOOK_S):
            self.look()
