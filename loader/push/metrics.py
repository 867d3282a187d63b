"""What the receiver tells Prometheus. No label has content of a push."""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

OUTCOMES: Final = (*("kept", "empty", "malformed", "too_large", "slow", "unauthorised", "elsewhere", "unwritable"),)
ROWS: Final = ("kept", "foreign", "test")
_SYNC_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class ReceiverMetrics:
    """The numbers of one receiver."""

    def __init__(self, registry: CollectorRegistry, *, clock: Callable[[], float]) -> None:
        self.registry = registry
        self._clock = clock
        self._requests = Counter("consent_push_requests", "Requests to the receiver.", ["outcome"], registry=registry)
        self._rows = Counter("consent_push_rows", "Rows that were pushed.", ["outcome"], registry=registry)
        self._synced = Histogram(
            "consent_push_sync_seconds",
            "Writing pushed rows through to the disk.",
            buckets=_SYNC_BUCKETS_S,
            registry=registry,
        )
        self._last = Gauge(
            "consent_push_last_row_timestamp_seconds", "When the last row was kept; 0: none yet.", registry=registry
        )
        for outcome in OUTCOMES:
            self._requests.labels(outcome)
        for outcome in ROWS:
            self._rows.labels(outcome)

    def answered(self, outcome: str) -> None:
        """Count a request, by one of OUTCOMES."""
        self._requests.labels(outcome).inc()

    def rows(self, *, kept: int, foreign: int, test: int) -> None:
        """Count rows."""
        for outcome, rows in zip(ROWS, (kept, foreign, test), strict=True):
            self._rows.labels(outcome).inc(rows)
        if kept:
            self._last.set(self._clock())

    def synced(self, seconds: float) -> None:
        """Tell how long a sync of the disk took."""
        self._synced.observe(seconds)
