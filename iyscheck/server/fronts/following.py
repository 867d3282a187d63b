"""Whether a replica follows its primary closely enough to be asked first.

It changes its mind slowly: one late batch, or a minute of being here and there, must not send all senders to and fro.
"""

from collections.abc import Callable
from time import monotonic
from typing import Final

MOST_LAG_S: Final = 30.0
CLOSE_S: Final = 5.0
OFF_AFTER_S: Final = 5.0
"""How long the lag must be too large until the replica is said not to follow."""
ON_AFTER_S: Final = 15.0
"""How long it must be close by until it is said to follow again."""


class Following:
    """Judges one lag after the other. At the beginning it takes the first one's word: close by, or not."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._follows: bool | None = None
        self._against_since: float | None = None

    def judged(self, lag_s: float | None) -> bool:
        """Take a lag, None of what is no replica, and say whether it follows."""
        if lag_s is None:
            self._follows = self._against_since = None
            return True
        if self._follows is None:
            self._follows = lag_s < CLOSE_S
        against = lag_s >= MOST_LAG_S if self._follows else lag_s < CLOSE_S
        if not against:
            self._against_since = None
            return self._follows
        now = self._clock()
        if self._against_since is None:
            self._against_since = now
        if now - self._against_since >= (OFF_AFTER_S if self._follows else ON_AFTER_S):
            self._follows, self._against_since = not self._follows, None
        return self._follows
