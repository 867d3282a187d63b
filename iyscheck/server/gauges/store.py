"""The store's state, read when a scrape comes. Nothing here ever holds an address or token.

A brand code is a label only where the operator has named the brand.
"""

from collections.abc import Iterable, Iterator, Sequence
from time import time
from typing import Final, Protocol

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from iyscheck.change import LogStanding, Position
from iyscheck.consent import Policy
from iyscheck.engine.inventory import Holdings
from iyscheck.errors import StoreError
from iyscheck.kernel import Kernel
from iyscheck.server.gauges.brands import BrandGauges
from iyscheck.server.gauges.build import build_info
from iyscheck.server.gauges.feeds import feed_gauges

_READABLE: Final = "consent_store_readable"


class _Freshness(Protocol):
    """What a scrape reads of an engine's freshness."""

    @property
    def position(self) -> Position: ...
    def standing(self, now: float, /) -> LogStanding | None: ...


class _StoreStats(Protocol):
    """What a scrape reads of a store's size."""

    @property
    def size_bytes(self) -> int: ...
    @property
    def free_bytes(self) -> int: ...
    @property
    def readers(self) -> int: ...
    @property
    def max_readers(self) -> int: ...
    @property
    def records(self) -> int: ...


class Observed(Protocol):
    """What a scrape asks of the engine; what reads the store raises StoreError where it cannot be read."""

    @property
    def kernel(self) -> Kernel:
        """What runs the inner loops."""

    @property
    def policy(self) -> Policy:
        """The choices that are part of the rule."""

    def freshness(self) -> _Freshness:
        """Where the log stands; what health asks, too."""

    def stats(self) -> _StoreStats:
        """How full the store is."""

    def holdings(self) -> Holdings:
        """Brands, watermarks, sources and feeds from one snapshot."""


class StoreState(Collector):
    """Reads the store when a scrape comes; a store that cannot be read is itself a metric."""

    def __init__(self, engine: Observed, named: Sequence[int] = ()) -> None:
        """`named` are the brands whose watermarks have a metric each."""
        self._engine = engine
        self._brands = BrandGauges(limit_s=engine.policy.freshness_limit_s, named=named, clock=time)

    def describe(self) -> Iterable[Metric]:
        """Name nothing before the first scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Show versions, position, size, brands and feeds."""
        yield build_info(self._engine.kernel)
        try:
            freshness = self._engine.freshness()  # which health asks, too: the two must say the same
        except StoreError:
            yield GaugeMetricFamily(_READABLE, "Whether the store can be read.", 0)
            return
        yield GaugeMetricFamily(_READABLE, "Whether the store can be read.", 1)
        yield GaugeMetricFamily(
            "consent_store_sequence", "Feed rows that the store has consumed.", freshness.position.sequence
        )
        yield from _replica_gauges(freshness.standing(time()))
        try:
            yield from _store_gauges(self._engine.stats())
            holdings = self._engine.holdings()
        except StoreError:
            return  # what is missing here no check needs: `verify` tells of damage
        yield from self._brands.of(holdings)
        yield from feed_gauges(holdings)


def _replica_gauges(standing: LogStanding | None) -> Iterable[Metric]:
    """Show how a replica follows; of what is no replica only that there are such gauges."""
    lag = GaugeMetricFamily("consent_replica_lag_seconds", "How long ago the newest batch of the replica was made.")
    untrusted = GaugeMetricFamily("consent_replica_untrusted", "Whether nothing commercial is answered from here.")
    if standing is not None and standing.lag_s is not None:
        lag.add_metric((), standing.lag_s)
        untrusted.add_metric((), standing.untrusted)
    return lag, untrusted


def _store_gauges(stats: _StoreStats) -> Iterable[Metric]:
    yield GaugeMetricFamily("consent_store_size_bytes", "Size of the store's file.", stats.size_bytes)
    yield GaugeMetricFamily("consent_store_disk_free_bytes", "Free space of the store's disk.", stats.free_bytes)
    yield GaugeMetricFamily("consent_store_records", "Consents in the store.", stats.records)
    yield GaugeMetricFamily("consent_store_readers", "Places of reading transactions in use.", stats.readers)
    yield GaugeMetricFamily("consent_store_readers_max", "Places of reading transactions.", stats.max_readers)
