"""What Prometheus sees: RPCs under the names of go-grpc-middleware, decisions, and the state of the store.

The store's gauges are read when a scrape comes. Nothing here ever holds an address, token or brand.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from platform import python_version
from time import time
from typing import Final, Protocol

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import iyscheck
from iyscheck.change import Position
from iyscheck.consent import RULE_VERSION, Channel, Reason, permits
from iyscheck.errors import StoreError
from iyscheck.kernel import Kernel
from iyscheck.keys import ADDRESS_FORM

LATENCY_BUCKETS_S: Final = (
    # gRFC A66 below a millisecond, where our answers are; the usual defaults begin at 5 ms and show nothing.
    *(10e-6, 50e-6, 100e-6, 300e-6, 600e-6, 800e-6),
    *(1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 100e-3, 200e-3, 500e-3),
    *(1.0, 2.0, 5.0, 10.0),
)
BATCH_BUCKETS: Final = (1, 10, 100, 1_000, 2_000, 5_000, 10_000, 20_000, 40_000, 65_536)
_METHOD_LABELS: Final = ("grpc_type", "grpc_service", "grpc_method")


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


class _IndexStats(Protocol):
    """What a scrape reads of the decision index."""

    @property
    def pages(self) -> int: ...
    @property
    def pages_not_taken(self) -> int: ...
    @property
    def recipients_from_records(self) -> int: ...


class Observed(Protocol):
    """What a scrape asks of the engine; both raise StoreError where the store cannot be read."""

    def freshness(self) -> _Freshness:
        """Position and watermarks from one snapshot."""

    def stats(self) -> _StoreStats:
        """How full the store is."""

    def index_stats(self) -> _IndexStats:
        """How whole the decision index is."""


@dataclass(frozen=True, slots=True)
class MethodMetrics:
    """The metrics of one RPC with its labels resolved, since resolving costs more than counting."""

    started: Counter
    received: Counter
    sent: Counter
    _seconds: Histogram
    _handled: dict[grpc.StatusCode, Counter]

    def handled(self, code: grpc.StatusCode, seconds: float) -> None:
        """Count a finished call."""
        self._handled[code].inc()
        self._seconds.observe(seconds)


class Metrics:
    """All metrics of one server, in a registry of their own."""

    def __init__(self, kernel: Kernel) -> None:
        self.registry = registry = CollectorRegistry()
        self._started = Counter("grpc_server_started", "RPCs started.", _METHOD_LABELS, registry=registry)
        self._handled = Counter("grpc_server_handled", "RPCs ended.", (*_METHOD_LABELS, "grpc_code"), registry=registry)
        self._received = Counter("grpc_server_msg_received", "Messages received.", _METHOD_LABELS, registry=registry)
        self._sent = Counter("grpc_server_msg_sent", "Messages sent.", _METHOD_LABELS, registry=registry)
        self._seconds = Histogram(
            "grpc_server_handling_seconds",
            "Time from the first byte of a call in our hands to its last.",
            _METHOD_LABELS,
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.refresh_seconds = Histogram(
            "consent_snapshot_refresh_seconds",
            "Time to open a snapshot of the store.",
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.decisions = Decisions(registry)
        build = Gauge(
            "consent_build_info",
            "Versions, as labels of a 1.",
            ("version", "kernel", "rule_version", "address_form", "grpc_version", "python_version"),
            registry=registry,
        )
        build.labels(
            iyscheck.__version__, kernel.value, RULE_VERSION, ADDRESS_FORM, grpc.__version__, python_version()
        ).set(1)

    def method(self, kind: str, service: str, method: str) -> MethodMetrics:
        """Resolve the metrics of one RPC; `kind` is unary or bidi_stream."""
        labels = (kind, service, method)
        return MethodMetrics(
            self._started.labels(*labels),
            self._received.labels(*labels),
            self._sent.labels(*labels),
            self._seconds.labels(*labels),
            {code: self._handled.labels(*labels, _code_name(code)) for code in grpc.StatusCode},
        )

    def observe_store(self, engine: Observed) -> None:
        """Let scrapes show an engine's store."""
        self.registry.register(_StoreCollector(engine))


class Decisions:
    """Counts recipients by decision, reason and channel, and the sizes of batches and frames."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = Counter(
            "consent_check_decisions",
            "Recipients answered.",
            ("decision", "reason", "channel"),
            registry=registry,
        )
        self._recipients: dict[tuple[int, int], Counter] = {
            (channel, reason): counter.labels("permit" if permits(reason) else "deny", reason.name, channel.name)
            for channel in Channel
            for reason in Reason
            if reason is not Reason.UNSPECIFIED
        }
        self._sizes = Histogram(
            "consent_check_batch_size", "Recipients per batch or frame.", buckets=BATCH_BUCKETS, registry=registry
        )

    def count(self, channel: Channel, reason: Reason, recipients: int = 1) -> None:
        """Count recipients with the same answer."""
        self._recipients[channel, reason].inc(recipients)

    def count_column(self, channel: Channel, tally: Iterable[tuple[int, int]]) -> None:
        """Count a frame, given how many recipients got each reason number."""
        total = 0
        for number, recipients in tally:
            self._recipients[channel, number].inc(recipients)
            total += recipients
        self.observe_size(total)

    def observe_size(self, recipients: int) -> None:
        """Note the size of a batch or frame."""
        self._sizes.observe(recipients)


class _StoreCollector(Collector):
    """Reads the store when a scrape comes; a store that cannot be read is itself a metric."""

    def __init__(self, engine: Observed) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
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
        yield from _index_metrics(self._engine.index_stats())


def _store_gauges(stats: _StoreStats) -> Iterable[Metric]:
    yield GaugeMetricFamily("consent_store_size_bytes", "Size of the store's file.", stats.size_bytes)
    used = stats.size_bytes / stats.map_bytes
    yield GaugeMetricFamily("consent_store_map_used_ratio", "Share of the map that is in use.", used)
    yield GaugeMetricFamily("consent_store_records", "Consents in the store.", stats.records)
    slots = GaugeMetricFamily("consent_store_reader_slots", "Reader slots of the store.", labels=("kind",))
    slots.add_metric(["used"], stats.readers)
    slots.add_metric(["max"], stats.max_readers)
    yield slots


def _index_metrics(stats: _IndexStats) -> Iterable[Metric]:
    yield GaugeMetricFamily("consent_index_pages", "Pages of the decision index in use.", stats.pages)
    yield GaugeMetricFamily(
        "consent_index_pages_not_taken", "Pages that are damaged or missing: rebuild the index.", stats.pages_not_taken
    )
    yield CounterMetricFamily(
        "consent_index_fallback_recipients",
        "Recipients of columns answered from the records because of such pages.",
        stats.recipients_from_records,
    )


def _code_name(code: grpc.StatusCode) -> str:
    """Write a code as go-grpc-middleware does, for whose names dashboards are made: InvalidArgument, Canceled, OK."""
    if code is grpc.StatusCode.OK:
        return "OK"
    return "Canceled" if code is grpc.StatusCode.CANCELLED else code.name.title().replace("_", "")
