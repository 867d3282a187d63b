"""Keeps most requests successful: İYS takes senders of whom many requests fail off its list.

İYS looks at senders of 20,000 requests a day or more, of which less than 70 % succeed. The guard stays far from both:
from 10,000 on with less than 90 %, what failed last time is asked once an hour; and not at all while a quarter of at
least 5,000 failed. What is held back gets the same fault as the last time.
"""

import threading
from dataclasses import dataclass
from typing import Final

from loader.iys.clock import Clock
from loader.iys.faults import ForbiddenFault, IysFault, RefusedFault
from loader.iys.limits import DAY_S, HOUR_S, HourCount, Limited, Limits

COUNTED: Final = frozenset({400, 401, 403, 404, 422})
"""The statuses that İYS counts as failures. "Too fast" and its own faults are none."""
_OF_THE_ACCOUNT: Final = 401
"""Says something of the token, nothing of what was asked: with a new one it may be asked again at once."""
WATCHED_FROM: Final = 10_000
WORST_SHARE: Final = 0.1
FAILED_MOST: Final = 5_000
FAILED_SHARE_MOST: Final = 0.25
PROBE_EVERY_S: Final = 3600.0


@dataclass(slots=True)
class _Failing:
    fault: IysFault
    asked_s: float


class Guard:
    """Counts what İYS counts. May be used by several threads; processes share the counts, not what fails."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._failing: dict[str, _Failing] = {}
        self._lock = threading.Lock()

    def counts(self) -> tuple[int, int]:
        """Return how many requests were made in the last 24 hours, and how many of them failed."""
        return _counts(self._limits.seen(), self._clock.now())

    def is_holding(self) -> bool:
        """Say whether so much fails that what fails is held back."""
        return _is_bad(*self.counts())

    def admit(self, stream: str) -> None:
        """Let a request of a stream pass, or raise the fault that its last one got.

        Args:
            stream: what is asked for, without what changes from request to request; no address. Empty where it is
                never held back.
        """
        now = self._clock.now()
        with self._lock:
            failing = self._failing.get(stream)
            if failing is None:
                return
            asked, failed = self.counts()
            is_due = not 0 <= now - failing.asked_s < PROBE_EVERY_S
            is_too_bad = failed >= max(FAILED_MOST, FAILED_SHARE_MOST * asked)
            if is_too_bad or (_is_bad(asked, failed) and not is_due):
                raise _held_back(failing.fault)
            failing.asked_s = now

    def answered(self, stream: str, status: int, fault: IysFault | None) -> None:
        """Count an answer. `fault` is what it means, None where it is a good one."""
        now = self._clock.now()
        is_failure = status in COUNTED
        with self._limits.held() as limited:
            _count(limited, int(now // HOUR_S), failed=is_failure)
        with self._lock:
            if is_failure and status != _OF_THE_ACCOUNT and stream and fault is not None:
                self._failing[stream] = _Failing(fault, now)
            elif fault is None:
                self._failing.pop(stream, None)


def _is_bad(asked: int, failed: int) -> bool:
    return asked >= WATCHED_FROM and failed > WORST_SHARE * asked


def _counts(limited: Limited, now: float) -> tuple[int, int]:
    recent = [count for count in limited.hours if _is_recent(count, int(now // HOUR_S))]
    return sum(count.asked for count in recent), sum(count.failed for count in recent)


def _is_recent(count: HourCount, hour: int) -> bool:
    return hour - DAY_S // HOUR_S <= count.hour <= hour


def _count(limited: Limited, hour: int, *, failed: bool) -> None:
    limited.hours = [count for count in limited.hours if _is_recent(count, hour)]
    this = next((count for count in limited.hours if count.hour == hour), None)
    if this is None:
        this = HourCount(hour)
        limited.hours.append(this)
    this.asked += 1
    this.failed += failed


def _held_back(fault: IysFault) -> IysFault:
    message = f"Not asked, since too many requests fail: {fault.message}"
    if isinstance(fault, RefusedFault):
        return RefusedFault(message, status=fault.status, code=fault.code, location=fault.location)
    kind = type(fault) if isinstance(fault, ForbiddenFault) else ForbiddenFault
    return kind(message, status=fault.status, code=fault.code)
