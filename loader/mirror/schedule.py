"""Which stream is asked next: a fair queue by the time at which each is due. Pure: its time and its chance are given.

A stream that is due first is asked first. Who has much to bring gets a turn of so many pages and then stands behind all
who were due meanwhile, so that one brand that catches up a week does not let the others become stale.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from random import Random
from typing import Final, Generic, TypeVar

PAGES_A_TURN: Final = 10
JITTER: Final = 0.1
"""Which part of a pause is left to chance, so that streams do not stay in step."""
IDLE_AFTER_S: Final = 86_400.0
"""A stream that brought nothing for so long is idle."""
FORBIDDEN_PAUSE_S: Final = 3_600.0

KeyT = TypeVar("KeyT")


class Outcome(Enum):
    """What came of a turn."""

    ROWS = auto()
    """Read to the end, and there were new rows."""
    QUIET = auto()
    """Read to the end, and there was nothing new."""
    MORE = auto()
    """The turn is over, and there is more."""
    AGAIN = auto()
    """A request is to be made again, when it is said."""
    FAILED = auto()
    """No answer this time."""
    FORBIDDEN = auto()
    """The account may not ask that."""


@dataclass(slots=True)
class _Stream:
    """Seconds UTC. `turn` is the number of its entry in the queue: any other one is void."""

    brought_s: float
    next_s: float = 0.0
    turn: int = 0


class Schedule(Generic[KeyT]):
    """Streams by the time at which they are due. Not for several threads at once."""

    def __init__(self, *, interval_s: float, idle_interval_s: float, chance: Random) -> None:
        self._interval_s = interval_s
        self._idle_interval_s = idle_interval_s
        self._chance = chance
        self._streams: dict[KeyT, _Stream] = {}
        self._queue: list[tuple[float, int, KeyT]] = []
        self._out: set[KeyT] = set()
        self._numbers = 0

    def __len__(self) -> int:
        """Count the streams."""
        return len(self._streams)

    def __iter__(self) -> Iterator[KeyT]:
        """Give the streams."""
        return iter(self._streams)

    def __contains__(self, key: KeyT) -> bool:
        """Say whether a stream is in."""
        return key in self._streams

    def add(self, key: KeyT, now_s: float, *, asked_s: float = 0.0) -> None:
        """Take in a stream that was asked last at `asked_s`, 0 if never. One that is in already stays as it is."""
        if key in self._streams:
            return
        self._streams[key] = _Stream(brought_s=now_s)
        if key in self._out:
            return  # it left and came back during its turn: no second one beside that
        # A clock that was set back must not put a stream to sleep until the old time comes again.
        self._put(key, min(max(now_s, asked_s + self._interval_s), now_s + self._interval_s))

    def remove(self, key: KeyT) -> None:
        """Take out a stream; a turn that is under way may end, and changes nothing any more."""
        self._streams.pop(key, None)

    def take(self, now_s: float) -> KeyT | None:
        """Give a turn to the stream that is due for longest; None where none is due."""
        if (first := self._first()) is None or first[0] > now_s:
            return None
        key = heapq.heappop(self._queue)[2]
        self._out.add(key)
        return key

    def give_back(self, key: KeyT, now_s: float, outcome: Outcome, *, until_s: float = 0.0) -> None:
        """End a turn: the stream is due again by what came of it, and not before `until_s`."""
        self._out.remove(key)
        stream = self._streams.get(key)
        if stream is None:
            return
        if outcome in {Outcome.ROWS, Outcome.MORE}:
            stream.brought_s = now_s
        self._put(key, max(now_s + self._pause_s(stream, now_s, outcome), until_s))

    def hasten(self, key: KeyT, now_s: float) -> None:
        """Let a stream be due now, if it waits."""
        stream = self._streams.get(key)
        if stream is not None and key not in self._out and stream.next_s > now_s:
            self._put(key, now_s)

    @property
    def next_s(self) -> float | None:
        """When the next stream is due, seconds UTC; None while none waits."""
        first = self._first()
        return None if first is None else first[0]

    def late_s(self, now_s: float) -> float:
        """By how many seconds the stream that is due for longest is late: the rate is too low while that grows."""
        next_s = self.next_s
        return 0.0 if next_s is None else max(0.0, now_s - next_s)

    def _pause_s(self, stream: _Stream, now_s: float, outcome: Outcome) -> float:
        if outcome in {Outcome.MORE, Outcome.AGAIN}:
            return 0.0
        if outcome is Outcome.FORBIDDEN:
            pause_s = max(FORBIDDEN_PAUSE_S, self._interval_s)
        elif outcome is Outcome.QUIET and now_s - stream.brought_s >= IDLE_AFTER_S:
            pause_s = self._idle_interval_s
        else:
            pause_s = self._interval_s
        return pause_s * (1 + JITTER * (2 * self._chance.random() - 1))

    def _put(self, key: KeyT, next_s: float) -> None:
        stream = self._streams[key]
        self._numbers += 1
        stream.next_s, stream.turn = next_s, self._numbers
        heapq.heappush(self._queue, (next_s, stream.turn, key))

    def _first(self) -> tuple[float, int, KeyT] | None:
        while self._queue:
            first = self._queue[0]
            stream = self._streams.get(first[2])
            if stream is not None and stream.turn == first[1]:
                return first
            heapq.heappop(self._queue)
        return None
