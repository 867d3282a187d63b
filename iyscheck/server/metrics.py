"""What a server counts: RPCs under the names of go-grpc-middleware, decisions, and how it uses the index.

What a scrape reads when it comes is in `gauges`. Nothing here ever holds an address, token or brand.
One server shows everything itself. Of several workers each counts its calls and its use of the index, in files (see
`tally`), and the supervisor shows their sums beside the one store's state.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from iyscheck.consent import Channel, Reason, permits
from iyscheck.server.refusals import Code

LATENCY_BUCKETS_S: Final = (
    # gRFC A66 below a millisecond, where our answers are; the usual defaults begin at 5 ms and show nothing.
    *(10e-6, 50e-6, 100e-6, 300e-6, 600e-6, 800e-6),
    *(1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 100e-3, 200e-3, 500e-3),
    *(1.0, 2.0, 5.0, 10.0),
)
BATCH_BUCKETS: Final = (1, 10, 100, 1_000, 2_000, 5_000, 10_000, 20_000, 40_000, 65_536)
LOST_LINES: Final = "consent_log_lines_lost"
LOST_LINES_HELP: Final = "Lines of the log that could not be written."
_METHOD_LABELS: Final = ("grpc_type", "grpc_service", "grpc_method", "front")


class _IndexStats(Protocol):
    """What a scrape reads of the decision index."""

    @property
    def pages(self) -> int: ...
    @property
    def pages_not_taken(self) -> int: ...
    @property
    def recipients_from_records(self) -> int: ...


class Indexed(Protocol):
    """What a scrape asks of the engine's index."""

    def index_stats(self) -> _IndexStats:
        """How whole the decision index is."""


@dataclass(frozen=True, slots=True)
class MethodMetrics:
    """The metrics of one RPC with its labels resolved, since resolving costs more than counting."""

    started: Counter
    received: Counter
    sent: Counter
    _seconds: Histogram
    _handled: dict[Code, Counter]

    def handled(self, code: Code, seconds: float) -> None:
        """Count a finished call."""
        self._handled[code].inc()
        self._seconds.observe(seconds)

    def handled_together(self, codes: Mapping[Code, int], seconds: float) -> None:
        """Count calls that finished together."""
        for code, calls in codes.items():
            self._handled[code].inc(calls)
        _observe_often(self._seconds, seconds, sum(codes.values()))


class Metrics:
    """What one server counts, in a registry of its own."""

    def __init__(self, lost_lines: Callable[[], int] = lambda: 0) -> None:
        """`lost_lines` says how many lines the log has lost."""
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
        self.watchers = Gauge(
            "consent_health_watchers", "Open watches of the health.", registry=registry, multiprocess_mode="livesum"
        )
        self.given_up = Counter(
            "consent_requests_given_up", "Calls that ended before they had a thread.", ("reason",), registry=registry
        )
        self.decisions = Decisions(registry)
        self.callers = CallerCounts(registry)
        self.ended = EndedCalls(registry)
        self.index = IndexUse()
        self.log = LostLines(lost_lines)

    def method(self, kind: str, service: str, method: str, front: str) -> MethodMetrics:
        """Resolve the metrics of one RPC of one front; `kind` is unary or bidi_stream."""
        labels = (kind, service, method, front)
        return MethodMetrics(
            self._started.labels(*labels),
            self._received.labels(*labels),
            self._sent.labels(*labels),
            self._seconds.labels(*labels),
            {code: self._handled.labels(*labels, _code_name(code)) for code in Code},
        )

    def observe_index(self, engine: Indexed) -> None:
        """Let scrapes show how this process uses an engine's index, and what its log has lost."""
        self.registry.register(_IndexNow(engine, self.index))
        self.registry.register(self.log)


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
        """Count an answer that one recipient got, or several."""
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


class CallerCounts:
    """Counts what callers ask, and why they are refused. Whoever counts bounds the labels."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._recipients = Counter(
            "consent_caller_recipients", "Recipients that a caller asked about.", ("caller",), registry=registry
        )
        self._refusals = Counter(
            "consent_caller_refusals",
            "Calls, frames, groups and questions of batches that were refused for who asked.",
            ("caller", "reason"),
            registry=registry,
        )
        self._children: dict[str, Counter] = {}

    def asked(self, caller: str, recipients: int) -> None:
        """Count recipients of a frame, a batch or a check."""
        child = self._children.get(caller)
        if child is None:  # finding one by its label takes ten times as long
            child = self._children[caller] = self._recipients.labels(caller)
        child.inc(recipients)

    def refused(self, caller: str, reason: str) -> None:
        """Count a refusal."""
        self._refusals.labels(caller, reason).inc()


class EndedCalls:
    """Counts calls that the server ended because their callers kept what belongs to all."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Counter(
            "consent_calls_ended", "Calls that were ended for what their callers kept.", ("why",), registry=registry
        )

    def count(self, why: str, calls: int = 1) -> None:
        """Count calls; none, so that a reason is seen before there is one."""
        self._calls.labels(why).inc(calls)


class IndexUse:
    """How whole a process found the decision index; `take` notes what it says now."""

    def __init__(self) -> None:
        # Whoever looked last knows best: a page may have been mended since others looked. In no registry: one server
        # takes them when a scrape comes, workers in a rhythm of their own.
        mode: Literal["livemostrecent"] = "livemostrecent"
        self._pages = Gauge(
            "consent_index_pages", "Pages of the decision index in use.", registry=None, multiprocess_mode=mode
        )
        self._not_taken = Gauge(
            "consent_index_pages_not_taken",
            "Pages that are damaged or missing: rebuild the index.",
            registry=None,
            multiprocess_mode=mode,
        )
        self._from_records = Counter(
            "consent_index_fallback_recipients",
            "Recipients of columns answered from the records because of such pages.",
            registry=None,
        )
        self._taken = (0, 0, 0)

    def take(self, stats: _IndexStats) -> None:
        """Note the state; what did not change is not set again, since that would make it the most recent."""
        before = self._taken
        self._taken = now = (stats.pages, stats.pages_not_taken, stats.recipients_from_records)
        if now[:2] != before[:2]:
            self._pages.set(stats.pages)
            self._not_taken.set(stats.pages_not_taken)
        self._from_records.inc(now[2] - before[2])

    def collect(self) -> Iterator[Metric]:
        """Show what was taken."""
        for metric in (self._pages, self._not_taken, self._from_records):
            yield from metric.collect()


class _IndexNow(Collector):
    """Takes the use of the index when a scrape comes."""

    def __init__(self, engine: Indexed, use: IndexUse) -> None:
        self._engine = engine
        self._use = use

    def collect(self) -> Iterator[Metric]:
        self._use.take(self._engine.index_stats())
        yield from self._use.collect()


class LostLines(Collector):
    """How many lines of the log were lost; `take` notes what the log says now, as a scrape does."""

    def __init__(self, lost: Callable[[], int]) -> None:
        self._lost = lost
        self._taken = 0
        self._counter = Counter(LOST_LINES, LOST_LINES_HELP, registry=None)

    def take(self) -> None:
        """Count those lost since it was last called."""
        before, self._taken = self._taken, self._lost()
        self._counter.inc(self._taken - before)

    def collect(self) -> Iterator[Metric]:
        """Show how many there are now."""
        self.take()
        yield from self._counter.collect()


def _observe_often(histogram: Histogram, value: float, times: int) -> None:
    """Do as `observe` does, so many times at once: one by one it would take a tenth of a single check."""
    histogram._sum.inc(value * times)  # noqa: SLF001 - there is no other way; a test compares it with `observe`
    histogram._buckets[bisect_left(histogram._upper_bounds, value)].inc(times)  # noqa: SLF001 - the same


def _code_name(code: Code) -> str:
    """Write a code as go-grpc-middleware does, for whose names dashboards are made: InvalidArgument, Canceled, OK."""
    if code is Code.OK:
        return "OK"
    return "Canceled" if code is Code.CANCELLED else code.name.title().replace("_", "")
