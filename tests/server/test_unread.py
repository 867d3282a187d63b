"""Replies on their way, by a clock of their own."""

from collections.abc import Callable
from typing import Any

from iyscheck.server.unread import CALL_BYTES, NOT_READ, TOO_MUCH_UNREAD, Leaving, Unread

MOST_S, MOST_BYTES = 30.0, 4 * (CALL_BYTES + 100)


class Clock:
    """A clock that is set by hand, and what was ended and counted."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.ended: list[str] = []
        self.counted: list[str] = []
        counts: Any = self
        self.unread = Unread(counts, most_s=MOST_S, most_bytes=MOST_BYTES, clock=lambda: self.now_s)

    def count(self, why: str, calls: int = 1) -> None:
        """Count."""
        self.counted.extend([why] * calls)

    def hand(self, name: str, size: int = 100) -> Leaving:
        """Hand a reply over."""
        return self.unread.handed(size, self._ending(name))

    def _ending(self, name: str) -> Callable[[], object]:
        return lambda: self.ended.append(name)


def test_late() -> None:
    """Only what was handed over longer ago than allowed is ended, once."""
    clock = Clock()
    clock.hand("early")
    clock.now_s = 10.0
    clock.hand("late")

    for now_s in (MOST_S, MOST_S + 1, MOST_S + 2):
        clock.now_s = now_s
        clock.unread.look()

    assert (clock.ended, clock.counted) == (["early"], [NOT_READ])


def test_taken() -> None:
    """What was taken is not ended, and may be said to be taken again."""
    clock = Clock()
    leaving = clock.hand("taken")
    clock.unread.left(leaving)
    clock.unread.left(leaving)
    clock.now_s = 100.0
    clock.unread.look()

    assert clock.ended == []


def test_crowded() -> None:
    """Where all together are too large the oldest go, as many as it takes, and others keep their places."""
    clock = Clock()
    for name in "abcd":
        clock.hand(name)
    assert clock.ended == []
    clock.hand("e")
    assert clock.ended == ["a"]
    clock.hand("large", CALL_BYTES + 200)

    assert clock.ended == ["a", "b", "c"]
    assert set(clock.counted) == {TOO_MUCH_UNREAD}


def test_room_comes_back() -> None:
    """Any number of replies may pass if they are taken, also where some were ended before."""
    clock = Clock()
    for name in "abcdef":
        clock.hand(name)
    ended = clock.ended.copy()
    for _ in range(1_000):
        clock.unread.left(clock.hand("passing"))

    assert ended == ["a", "b"]
    assert clock.ended == ["a", "b", "c"]  # for the first that passed
