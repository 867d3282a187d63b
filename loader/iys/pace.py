"""How fast İYS may be asked: never two requests closer than the spacing, whoever of this machine sends them.

İYS allows so many a second and does not say how it counts them, so there are no bursts. Where it says "too fast" the
rate is halved; each minute without that gives a little back.
"""

import threading
from typing import Final

from loader.iys.clock import Clock
from loader.iys.faults import TransientFault
from loader.iys.limits import Limited, Limits

DEFAULT_RATE: Final = 5.0
"""Requests a second: half of what is printed."""
MIN_RATE: Final = 0.25
PAUSE_S: Final = 1.0
"""At least so long nothing is asked after "too fast"."""
MINUTE_S: Final = 60.0
REGAINED: Final = 0.5
"""Requests a second that a clean minute gives back."""


class Pace:
    """Lets requests pass one by one. May be used by several threads; processes share it through the file of limits."""

    def __init__(self, limits: Limits, clock: Clock, *, rate: float = DEFAULT_RATE) -> None:
        self._limits = limits
        self._clock = clock
        self._full_rate = rate

    def rate(self) -> float:
        """Return how many requests a second are allowed now."""
        return self._rate(self._limits.seen(), self._clock.now())

    def take_turn(self, stop: threading.Event) -> None:
        """Wait until a request may leave. Raises TransientFault where `stop` is set before that."""
        while (wait_s := self._until_turn()) > 0:
            if self._clock.wait(wait_s, stop):
                raise TransientFault("İYS was not asked: this process is ending.")

    def slow_down(self, sent_s: float) -> None:
        """İYS said "too fast" to a request that left at `sent_s` (seconds UTC): go on at half the rate.

        Several that were under way together are told so together; they halve it once.
        """
        now = self._clock.now()
        with self._limits.held() as limited:
            rate = self._rate(limited, now)
            if sent_s > limited.slowed_s or limited.slowed_s > now:
                limited.rate = max(rate / 2, min(MIN_RATE, self._full_rate))
                limited.slowed_s = now
            limited.clean_s = now
            limited.next_s = max(limited.next_s, now + self._pause_s(limited, now))

    def _until_turn(self) -> float:
        """Take the turn if it is there, and return 0; else say in how many seconds to look again."""
        with self._limits.held() as limited:
            now = self._clock.now()  # only here: who waits for the file must not take a time that has passed
            limited.rate, limited.clean_s = self._regained(limited, now)
            # Beyond this it was written by a clock that has been set back since.
            limited.next_s = min(limited.next_s, now + self._pause_s(limited, now))
            if limited.next_s > now:
                return limited.next_s - now
            limited.next_s = now + 1 / self._rate(limited, now)
            return 0.0

    def _pause_s(self, limited: Limited, now: float) -> float:
        return max(PAUSE_S, 1 / self._rate(limited, now))

    def _rate(self, limited: Limited, now: float) -> float:
        rate, _ = self._regained(limited, now)
        return self._full_rate if rate is None else rate

    def _regained(self, limited: Limited, now: float) -> tuple[float | None, float]:
        """Return the rate (None: the full one) after the clean minutes until now, and from when the next one counts."""
        if limited.rate is None:
            return None, limited.clean_s
        clean_s = min(limited.clean_s, now)
        minutes = int((now - clean_s) // MINUTE_S)
        rate = limited.rate + REGAINED * minutes
        return (None if rate >= self._full_rate else rate), clean_s + minutes * MINUTE_S
