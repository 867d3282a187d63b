"""Load shedding: a call that can no longer be answered in time is refused before any work is done for it.

A server that is asked more than it can do has a line of calls, and takes the oldest first: those whose deadline is
about to pass. Answered late, each of them costs as much as one in time, so that nobody is answered at all. Refused,
they cost little, and those behind them are answered.
"""

from typing import Final

from iyscheck.errors import OverloadedError

HASTY_S: Final = 0.2
"""Who gives a call less time than this has no answer by its own fault: nobody is to be woken for made-up deadlines."""
STANDING_S: Final = 0.002
"""A call that waited less than this found no line: it is always tried, whatever calls took lately."""

_UP: Final = 1.2
_DOWN: Final = 1.2 ** (1 / 19)


class Shedding:
    """Knows how long calls of one kind take from their turn to their end. Safe to share between threads.

    `takes_s` is what nineteen of twenty took no longer than, lately: each moves it a step, the twentieth up as far as
    the others down. So one that stood still hardly counts. Two threads at once may lose a step, which nobody notices.
    """

    __slots__ = ("takes_s",)

    def __init__(self) -> None:
        self.takes_s = 0.001

    def took(self, seconds: float) -> None:
        """Note how long a call took that was answered."""
        self.takes_s = self.takes_s * _UP if seconds > self.takes_s else self.takes_s / _DOWN

    def ensure_in_time(self, waited_s: float, remaining_s: float | None) -> None:
        """Hold a call that waited for its turn to its deadline. Raises OverloadedError."""
        if waited_s > STANDING_S and remaining_s is not None and remaining_s < self.takes_s:
            raise OverloadedError(
                "The server has more to do than it can, and this call can no longer be answered in time.",
                of_caller=waited_s + remaining_s < HASTY_S,
                fix="Send fewer calls at once or to more servers, or allow each more time.",
            )
