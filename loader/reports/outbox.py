"""What the publisher of a primary tells Prometheus."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Enum, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from iyscheck.errors import StoreError
from iyscheck.store.snapshot import Store

_APPEND_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class _Outbox(Collector):
    """Looks into the outbox when a scrape comes."""

    def __init__(self, store: Store, acknowledged: Callable[[], int], clock: Callable[[], float]) -> None:
        self._store = store
        self._acknowledged = acknowledged
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        try:
            with self._store.snapshot() as snapshot:
                size = snapshot.outbox_bytes()
                waiting = next(snapshot.outbox_batches(self._acknowledged() + 1), None)
        except StoreError:
            return  # of a store that cannot be read nothing is known; who publishes it says why
        age_s = 0.0 if waiting is None else max(0.0, self._clock() - waiting[1].created_ms / 1000)
        yield GaugeMetricFamily("consent_outbox_bytes", "What the outbox takes of the store's file.", size)
        yield GaugeMetricFamily(
            "consent_outbox_oldest_seconds", "Age of the oldest batch that the log has not, 0 if it has all.", age_s
        )


class OutboxMetrics:
    """The numbers of one `publish`. `states` are all that a publisher may be in."""

    def __init__(
        self,
        registry: CollectorRegistry,
        store: Store,
        *,
        states: Sequence[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._batch = 0
        self._state = Enum("consent_publisher_state", "How the publisher is.", states=list(states), registry=registry)
        self._append = Histogram(
            "consent_publish_seconds",
            "Appending one message to the log, until the log said that it has it.",
            buckets=_APPEND_BUCKETS_S,
            registry=registry,
        )
        self._passed = Counter(
            "consent_publish_passed_over",
            "Messages at the end of the log that are none of a log, and were passed over.",
            registry=registry,
        )
        registry.register(_Outbox(store, lambda: self._batch, clock))

    def state(self, state: str) -> None:
        """Tell how the publisher is."""
        self._state.state(state)

    def appended(self, seconds: float) -> None:
        """Count one message that the log has."""
        self._append.observe(seconds)

    def passed_over(self, messages: int) -> None:
        """Count messages that were none of a log."""
        self._passed.inc(messages)

    def acknowledged(self, batch: int) -> None:
        """Tell up to which batch the log has everything."""
        self._batch = batch
