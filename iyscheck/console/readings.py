"""What one page of metrics says, and what was counted between two of them.

Names and labels are those of docs/metrics.md. A server may lack some of them, being older or started without: what is
not there is not known, and is never taken for zero.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from iyscheck.consent import Reason

REASONS: Final = tuple(reason.name for reason in Reason if reason is not Reason.UNSPECIFIED)

CALLS, CALLS_FAILED = "calls", "calls_failed"
CHECK, FRAME, PROBE = "check", "frame", "probe"
HISTOGRAMS: Final = (CHECK, FRAME, PROBE)
BOUNDS_S: Final = (
    *(10e-6, 50e-6, 100e-6, 300e-6, 600e-6, 800e-6),
    *(1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 100e-3, 200e-3, 500e-3),
    *(1.0, 2.0, 5.0, 10.0, math.inf),
)
"""The upper bounds of the server's histograms. What comes under another bound counts under the next one here."""

_SERVICE: Final = "iyscheck.v1.ConsentCheckService"
_NOT_ANSWERED: Final = "consent_not_answered_total"
_SERVER_FAULTS: Final = frozenset(
    {"Unknown", "DeadlineExceeded", "Unimplemented", "Internal", "Unavailable", "DataLoss"}
)
"""Codes that are not the caller's doing; the same as in the alerts."""
_MOST: Final = 2.0**64
"""More than this nobody has counted; neither it, nor less than nothing, nor what is no number is taken."""
_SECONDS: Final = {
    "consent_frame_seconds_bucket": FRAME,
    "consent_probe_seconds_bucket": PROBE,
}


def bucket(histogram: str, place: int) -> str:
    """Name the column that counts what fell under one bound of a histogram."""
    return f"{histogram}_le_{place}"


def columns() -> list[str]:
    """Name all that is kept of each look: the seconds it covers, and what was counted in them."""
    buckets = [bucket(name, place) for name in HISTOGRAMS for place in range(len(BOUNDS_S))]
    return ["seconds", CALLS, CALLS_FAILED, *REASONS, *buckets]


@dataclass(slots=True)
class Reading:
    """What a page of metrics says: totals since the server's start by name, and histograms by their bounds."""

    totals: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, dict[float, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, page: str) -> "Reading":
        """Read a page. Raises ValueError where it is none."""
        reading = cls()
        try:
            for family in text_string_to_metric_families(page):
                for sample in family.samples:
                    reading._take(sample)
        except Exception as error:
            raise ValueError("no page of metrics") from error  # the parser is content with less, or ends oddly
        # Whose fault it was a newer server says itself; of an older one the code has to tell.
        told = reading.totals.pop(_NOT_ANSWERED, None)
        if told is not None:
            reading.totals[CALLS_FAILED] = told
        return reading

    def _take(self, sample: Sample) -> None:
        name, labels, value = sample.name, sample.labels, sample.value
        if not 0 <= value <= _MOST:
            return
        if name == "consent_check_decisions_total":
            self._count(labels.get("reason", ""), value)
        elif name == "grpc_server_handled_total" and labels.get("grpc_service") == _SERVICE:
            self._count(CALLS, value)
            if labels.get("grpc_code") in _SERVER_FAULTS:
                self._count(CALLS_FAILED, value)
        elif name == _NOT_ANSWERED:
            if labels.get("unit") == "call" and labels.get("fault") == "server":
                self._count(name, value)
        elif name == "grpc_server_handling_seconds_bucket" and labels.get("grpc_method") == "Check":
            self._observe(CHECK, labels, value)
        elif name in _SECONDS:
            self._observe(_SECONDS[name], labels, value)

    def _count(self, name: str, value: float) -> None:
        self.totals[name] = self.totals.get(name, 0.0) + value

    def _observe(self, name: str, labels: Mapping[str, str], value: float) -> None:
        bounds = self.histograms.setdefault(name, {})
        bound = float(labels.get("le", "inf"))
        if math.isnan(bound):
            return
        bounds[bound] = bounds.get(bound, 0.0) + value

    def since(self, before: "Reading") -> dict[str, float]:
        """Say what was counted since an earlier page of the same server, by the names of `columns`.

        A total that is smaller than before began anew with a server's start: then all of it is new.
        """
        counted = {
            name: _more(total, before.totals.get(name, 0.0))
            for name, total in self.totals.items()
            if name in {CALLS, CALLS_FAILED, *REASONS}
        }
        for name, bounds in self.histograms.items():
            cumulated = before.histograms.get(name, {})
            restarted = any(count < cumulated.get(bound, 0.0) for bound, count in bounds.items())
            under, below = dict.fromkeys(range(len(BOUNDS_S)), 0.0), 0.0
            for bound in sorted(bounds):
                more = bounds[bound] - (0.0 if restarted else cumulated.get(bound, 0.0))
                under[_place(bound)] += more - below
                below = more
            counted |= {bucket(name, place): count for place, count in under.items()}
        return counted


def together(counted: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Add up what several servers counted in the same time; a name that none of them has stays away."""
    totals: dict[str, float] = {}
    for numbers in counted:
        for name, number in numbers.items():
            totals[name] = totals.get(name, 0.0) + number
    return totals


def quantile(share: float, counts: Sequence[float]) -> float | None:
    """Give the seconds that a share of observations did not exceed, as finely as the bounds tell it.

    `counts` are those under each of BOUNDS_S. None where nothing was observed; what lies beyond the last finite
    bound counts as that bound.
    """
    known = [0.0 if math.isnan(count) else max(count, 0.0) for count in counts]
    total = sum(known)
    if total <= 0:
        return None
    wanted, below = share * total, 0.0
    for place, count in enumerate(known):
        if below + count >= wanted and count > 0:
            lower = BOUNDS_S[place - 1] if place else 0.0
            upper = BOUNDS_S[place]
            return lower if math.isinf(upper) else lower + (upper - lower) * (wanted - below) / count
        below += count
    return BOUNDS_S[-2]


def _more(total: float, before: float) -> float:
    return total - before if total >= before else total


def _place(bound: float) -> int:
    """Find the bound that something is put under: the first that is not below it."""
    return next(place for place, upper in enumerate(BOUNDS_S) if upper >= bound or math.isclose(upper, bound))
