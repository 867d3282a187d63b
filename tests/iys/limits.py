"""İYS's limits, which hold for an address and so for all accounts of a caller together."""

from collections import deque
from dataclasses import dataclass, field

from tests.iys.quirks import Quirks

HOUR_S = 3600.0
_A_MOMENT_S = 1e-6
"""Times are added up as binary fractions: ten tenths are not quite a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenLimit:
    """Somebody asked too fast: when (seconds UTC), which limit by its code, and whether a lock began anew by it."""

    at_s: float
    code: str
    restarted: bool = False


@dataclass(slots=True)
class Limits:
    """What was asked lately, counted by the fake itself."""

    broken: list[BrokenLimit] = field(default_factory=list)
    tokens_locked_until_s: float = 0.0
    _requests: deque[float] = field(default_factory=deque)
    _tokens: deque[float] = field(default_factory=deque)
    _statuses: deque[float] = field(default_factory=deque)
    _histories: deque[float] = field(default_factory=deque)

    def request(self, now_s: float, quirks: Quirks) -> bool:
        """Count a request; say whether it may be."""
        rate = quirks.requests_per_s
        if rate is None:
            return True
        if quirks.evenly:
            most, span_s = 1, 1 / rate
        else:
            most, span_s = max(1, int(rate)), 1.0
        return self._count(self._requests, now_s, span_s, most, "H124")

    def token(self, now_s: float, quirks: Quirks, *, is_refresh: bool) -> bool:
        """Count a token asked for; say whether it may be. Asking while locked begins the hour anew."""
        if now_s < self.tokens_locked_until_s:
            self.lock(now_s)
            self.broken.append(BrokenLimit(at_s=now_s, code="H084", restarted=True))
            return False
        if quirks.tokens_per_hour is None or (is_refresh and not quirks.refreshes_count):
            return True
        if self._count(self._tokens, now_s, HOUR_S, quirks.tokens_per_hour, "H084"):
            return True
        self.lock(now_s)
        return False

    def lock(self, now_s: float) -> None:
        """Give no token for an hour."""
        self.tokens_locked_until_s = now_s + HOUR_S
        self._tokens.clear()

    def status(self, now_s: float, quirks: Quirks) -> bool:
        """Count a question about a single consent; say whether it may be."""
        return self._count(self._statuses, now_s, HOUR_S, quirks.statuses_per_hour, "H086")

    def history(self, now_s: float, quirks: Quirks) -> bool:
        """Count a question about history; say whether it may be."""
        return self._count(self._histories, now_s, HOUR_S, quirks.histories_per_hour, "H089")

    def _count(self, times: deque[float], now_s: float, span_s: float, most: int | None, code: str) -> bool:
        if most is None:
            return True
        while times and (times[0] <= now_s - span_s + _A_MOMENT_S or times[0] > now_s):
            times.popleft()  # a clock that was set back forgets what is now in its future
        if len(times) >= most:
            self.broken.append(BrokenLimit(at_s=now_s, code=code))
            return False
        times.append(now_s)
        return True
