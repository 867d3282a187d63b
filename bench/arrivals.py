"""Open-loop load: requests are due at fixed times, whatever happened to those before them.

A closed loop waits for an answer before it asks again, so a server that stands still for a second is asked nothing
in that second, and one bad latency is all that is seen of it ("coordinated omission"). Here each latency counts from
the time at which its request was due: everything that had to wait behind the stall shows.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
UNANSWERED = "unanswered "
"""Before a status in a summary: how many requests ended with it."""
LOST = "LOST"
"""Stands for the status of a request that neither was answered nor failed in all the time it was waited for."""
_LEAD_S = 0.1


def percentiles(seconds: npt.NDArray[np.float64]) -> dict[str, float]:
    """Summarise latencies in ms."""
    if not len(seconds):
        return {}
    found = np.percentile(seconds, list(PERCENTILES.values())) * 1e3
    return dict(zip(PERCENTILES, found.tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class Arrivals:
    """`count` requests, one every 1/`rate` seconds from `start` on; the first `warm` of them are not measured."""

    start: float
    rate: float
    count: int
    warm: int = 0

    @classmethod
    def soon(cls, *, rate: float, seconds: float, warm_s: float, clock: Callable[[], float]) -> Self:
        """Plan requests for some seconds, after those of a warm-up, from a moment after now on."""
        warm = round(rate * warm_s)
        return cls(start=clock() + _LEAD_S, rate=rate, count=warm + round(rate * seconds), warm=warm)

    def due(self, number: int) -> float:
        """Say when a request is due."""
        return self.start + number / self.rate


@dataclass(slots=True)
class Outcomes:
    """What became of each request: when its answer came, counted from when it was due, or with which status it ended.

    A refusal is a result too: a server that refuses what it cannot do is measured, and the figures say how much it
    refused. Latencies are of what was answered, so they mean nothing without that number.
    """

    arrivals: Arrivals
    seconds: npt.NDArray[np.float64] = field(init=False)
    statuses: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.seconds = np.full(self.arrivals.count, np.nan)

    def answered(self, number: int, at: float) -> None:
        """Note that a request was answered."""
        self.seconds[number] = at - self.arrivals.due(number)

    def failed(self, number: int, status: str) -> None:
        """Note that a request ended without an answer."""
        self.statuses[number] = status

    def summary(self) -> dict[str, float]:
        """Summarise without the warm-up: answers per second, latencies in ms, how many were asked and not answered.

        Raises ValueError if none was answered: that is no measurement.
        """
        measured = self.seconds[self.arrivals.warm :]
        missing = np.flatnonzero(np.isnan(measured)) + self.arrivals.warm
        statuses = Counter(self.statuses.get(number, LOST) for number in missing.tolist())
        if len(missing) == len(measured):
            raise ValueError(f"none of {len(measured)} requests was answered: {dict(statuses)}")
        found = measured[~np.isnan(measured)]
        return {
            "rate": len(found) * self.arrivals.rate / len(measured),
            "asked": len(measured),
            **percentiles(found),
            **{UNANSWERED + status: count for status, count in sorted(statuses.items())},
        }


def pace(
    arrivals: Arrivals, send: Callable[[int], None], clock: Callable[[], float], sleep: Callable[[float], None]
) -> None:
    """Send each request when it is due; one that is late already (since sending blocked) at once."""
    for number in range(arrivals.count):
        wait = arrivals.due(number) - clock()
        if wait > 0:
            sleep(wait)
        send(number)
