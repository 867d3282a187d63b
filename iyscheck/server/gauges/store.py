"""The store's state, read when a scrape comes. Nothing here ever holds an address, token or brand."""

from collections.abc import Iterable, Iterator
from time import time
from typing import Protocol

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from iyscheck.change import Position
from iyscheck.errors import StoreError
from iyscheck.kernel import Kernel
from iyscheck.server.gauges.build import build_info


class _Freshness(Protocol):
    """What a scrape reads of an engine's freshness."""

    @property
    def position(self) -> Position: ...
    @property
    def newest_watermark(self) -> int | None: ...
    @property
    def oldest_watermark(self) -> int | None: ...


class _StoreStats(Protocol):
    """What a scrape reads of a store's size."""

    @property
    def size_bytes(self) -> int: ...
    @property
    def map_bytes(self) -> int: ...
    @property
    def readers(self) -> int: ...
    @property
    def max_readers(self) -> int: ...
    @property
    def records(self) -> int: ...


class Observed(Protocol):
    """What a scrape asks of the engine; `freshness` and `stats` raise StoreError where the store cannot be read."""

    @property
    def kernel(self) -> Kernel:
        """What runs the inner loops."""

    def freshness(self) -> _Freshness:
        """Position and watermarks from one snapshot."""

    def stats(self) -> _StoreStats:
        """How full the store is."""


class StoreState(Collector):
    """Reads the store when a scrape comes; a store that cannot be read is itself a metric."""

    def __init__(self, engine: Observed) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """Show versions, position, watermarks and size."""
        yield build_info(self._engine.kernel)
        try:
            freshness, stats = self._engine.freshness(), self._engine.stats()
        except StoreError:
            yield GaugeMetricFamily("consent_store_readable", "Whether the store can be read.", 0)
            return
        yield GaugeMetricFamily("consent_store_readable", "Whether the store can be read.", 1)
        yield GaugeMetricFamily("consent_feed_applied_sequence", "Feed rows consumed.", freshness.position.sequence)
        ages = GaugeMetricFamily(
            "consent_feed_watermark_age_seconds", "Age of the newest and oldest watermark.", labels=("agg",)
        )
        for agg, watermark in (("newest", freshness.newest_watermark), ("oldest", freshness.oldest_watermark)):
            if watermark is not None:
                ages.add_metric([agg], time() - watermark)
        yield ages
        yield from _store_gauges(stats)


def _store_gauges(stats: _StoreStats) -> Iterable[Metric]:
    yield GaugeMetricFamily("consent_store_size_bytes", "Size of the store's file.", stats.size_bytes)
    used = stats.size_bytes / stats.map_bytes
    yield GaugeMetricFamily("consent_store_map_used_ratio", "Share of the map that is in use.", used)
    yield GaugeMetricFamily("consent_store_records", "Consents in the store.", stats.records)
    slots = GaugeMetricFamily("consent_store_reader_slots", "Reader slots of the store.", labels=("kind",))
    slots.add_metric(["used"], stats.readers)
    slots.add_metric(["max"], stats.max_readers)
    yield slots
