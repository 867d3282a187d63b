"""Open-loop load: requests are due at fixed times, whatever happened to those before them.

A closed loop waits for an answer before it asks again, so a server that stands still for a second is asked nothing
in that second, and one bad latency is all that is seen of it ("coordinated omission"). Here each latency counts from
the time at which its request was due: everything that had to wait behind the stall shows.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}


def percentiles(seconds: npt.NDArray[np.float64]) -> dict[str, float]:
    """Summarise latencies in ms."""
    if not len(seconds):
        return {}
    found = np.percentile(seconds, list(PERCENTILES.values())) * 1e3
    return dict(zip(PERCENTILES, found.tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class Arrivals:
    """`count` requests, one every 1/`rate` seconds from `start` on."""

    start: float
    rate: float
    count: int

    def due(self, number: int) -> float:
        """Say when a request is due."""
        return self.start + number / self.rate


@dataclass(slots=True)
class Latencies:
    """When each answer came, counted from when its request was due."""

    arrivals: Arrivals
    seconds: npt.NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.seconds = np.full(self.arrivals.count, np.nan)

    def answered(self, number: int, at: float) -> None:
        """Note that a request was answered."""
        self.seconds[number] = at - self.arrivals.due(number)

    def summary(self, skip: int = 0) -> dict[str, float]:
        """Summarise in ms, without the first `skip` (warm-up). Raises ValueError if one was never answered."""
        if np.isnan(self.seconds).any():
            raise ValueError(f"{int(np.isnan(self.seconds).sum())} requests were never answered")
        return percentiles(self.seconds[skip:])


def pace(
    arrivals: Arrivals, send: Callable[[int], None], clock: Callable[[], float], sleep: Callable[[float], None]
) -> None:
    """Send each request when it is due; one that is late already (since sending blocked) at once."""
    for number in range(arrivals.count):
        wait = arrivals.due(number) - clock()
        if wait > 0:
            sleep(wait)
        send(number)
