"""What a server counts: RPCs under the names of go-grpc-middleware, decisions, and how it uses the index.

What a scrape reads when it comes is in `gauges`. Nothing here ever holds an address, token or brand.
One server shows everything itself. Of several workers each counts its calls and its use of the index, in files (see
`tally`), and the supervisor shows their sums beside the one store's state.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from iyscheck.consent import Channel, Reason, permits
from iyscheck.server.refusals import CODES, Code
from iyscheck.server.unanswered import CallsGivenUp, NotAnswered

LATENCY_BUCKETS_S: Final = (
    # gRFC A66 below a millisecond, where our answers are; the usual defaults begin at 5 ms and show nothing.
    *(10e-6, 50e-6, 100e-6, 300e-6, 600e-6, 800e-6),
    *(1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 100e-3, 200e-3, 500e-3),
    *(1.0, 2.0, 5.0, 10.0),
)
WAITING_BUCKETS_S: Final = (
    # Of waiting nobody asks for less than it takes to wake a thread.
    *(100e-6, 300e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 100e-3, 200e-3, 500e-3),
    *(1.0, 2.0, 5.0, 10.0),
)
PAUSE_BUCKETS_S: Final = (100e-6, 1e-3, 10e-3, 100e-3, 1.0)
BATCH_BUCKETS: Final = (1, 10, 100, 1_000, 2_000, 5_000, 10_000, 20_000, 40_000, 65_536)
LOST_LINES: Final = "consent_log_lines_lost"
LOST_LINES_HELP: Final = "Lines of the log that could not be written."
SERVING: Final = "consent_serving"
SERVING_HELP: Final = "1 where health says SERVING of the name."
_METHOD_LABELS: Final = ("grpc_type", "grpc_service", "grpc_method", "front")
_UNTIMED: Final = frozenset({"GetServerInfo"})
"""Nobody waits for it, and a histogram is 22 series in each front."""
_CODES: Final = (Code.OK, *sorted(set(CODES.values()), key=lambda code: code.value))
"""How calls end. A series of each is there from the start, and none of what cannot be."""


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
    """The metrics of one RPC of one request, with its labels resolved, since resolving costs more than counting."""

    started: Counter
    received: Counter
    sent: Counter
    _seconds: Histogram | None
    _waited: Histogram
    _handled: dict[Code, Counter]

    def handled(self, code: Code, seconds: float | None, waited_s: float = 0.0) -> None:
        """Count a finished call, which took so long since it was given to us, of which it waited for its turn.

        None is for a call whose time says nothing of this server.
        """
        self._handled[code].inc()
        if self._seconds is not None and seconds is not None:
            self._seconds.observe(seconds)
        self._waited.observe(waited_s)

    def handled_together(self, codes: Mapping[Code, int], seconds: float, waited_s: float = 0.0) -> None:
        """Count calls that finished together."""
        for code, calls in codes.items():
            self._handled[code].inc(calls)
        calls = sum(codes.values())
        if self._seconds is not None:
            observe_often(self._seconds, seconds, calls)
        observe_often(self._waited, waited_s, calls)


@dataclass(frozen=True, slots=True)
class StreamMetrics:
    """The metrics of one RPC of many requests. How long it is open says nothing; how long its frames take does."""

    started: Counter
    received: Counter
    sent: Counter
    frame_seconds: Histogram
    open: Gauge
    _handled: dict[Code, Counter]

    def handled(self, code: Code) -> None:
        """Count a stream that has ended."""
        self._handled[code].inc()


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
            "Time from when a call's request was given to us until its answer.",
            _METHOD_LABELS,
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self._waited = Histogram(
            "consent_queue_seconds",
            "How long calls waited for their turn.",
            buckets=WAITING_BUCKETS_S,
            registry=registry,
        )
        self._frame_seconds = Histogram(
            "consent_frame_seconds",
            "Time from when a frame was given to us until its answer.",
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self._streams = Gauge("consent_streams_open", "Open streams.", registry=registry, multiprocess_mode="livesum")
        self.streams_limit = Gauge(
            "consent_streams_limit", "Streams that may be open.", registry=registry, multiprocess_mode="livesum"
        )
        self.ticker_delay_seconds = Histogram(
            "consent_ticker_delay_seconds",
            "How late a thread runs that is due twenty times a second.",
            buckets=WAITING_BUCKETS_S,
            registry=registry,
        )
        self.pause_seconds = Histogram(
            "consent_gc_pause_seconds",
            "How long collections of garbage stopped everything.",
            buckets=PAUSE_BUCKETS_S,
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
        self.not_answered = NotAnswered(registry)
        self.serving = Serving(registry)
        self.given_up = CallsGivenUp(registry, self.not_answered)
        self.decisions = Decisions(registry)
        self.callers = CallerCounts(registry)
        self.ended = EndedCalls(registry)
        self.index = IndexUse()
        self.log = LostLines(lost_lines)

    def method(self, service: str, method: str, front: str) -> MethodMetrics:
        """Resolve the metrics of one unary RPC of one front."""
        labels = ("unary", service, method, front)
        return MethodMetrics(
            self._started.labels(*labels),
            self._received.labels(*labels),
            self._sent.labels(*labels),
            self._seconds.labels(*labels) if method not in _UNTIMED else None,
            self._waited,
            {code: self._handled.labels(*labels, _code_name(code)) for code in _CODES},
        )

    def stream(self, service: str, method: str, front: str) -> StreamMetrics:
        """Resolve the metrics of one RPC of frames of one front."""
        labels = ("bidi_stream", service, method, front)
        return StreamMetrics(
            self._started.labels(*labels),
            self._received.labels(*labels),
            self._sent.labels(*labels),
            self._frame_seconds,
            self._streams,
            {code: self._handled.labels(*labels, _code_name(code)) for code in (*_CODES, Code.CANCELLED)},
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


class Serving:
    """Shows what the health says of each name."""

    def __init__(self, registry: CollectorRegistry) -> None:
        # Of several workers the one that is worst; see `tally` for those that leave, and for when there is none.
        self._names = Gauge(SERVING, SERVING_HELP, ("service",), registry=registry, multiprocess_mode="livemin")
        self._told: set[str] = set()

    def tell(self, service: str, serving: bool) -> None:  # noqa: FBT001 - the value that is told
        """Note what is said of a name."""
        self._told.add(service)
        self._names.labels(service).set(float(serving))

    def drain(self) -> None:
        """Say of all names that nothing is served any more."""
        for service in tuple(self._told):
            self.tell(service, False)


class Outcome(Enum):
    """What became of recipients that a caller asked about."""

    ANSWERED = "answered"
    QUOTA = "quota"
    SCOPE = "scope"


class Stranger(Enum):
    """What somebody presented who was not let in."""

    NOTHING = "nothing"
    KEY = "key"
    CERTIFICATE = "certificate"
    TWO_CALLERS = "two_callers"


class CallerCounts:
    """Counts what callers ask, what is refused to them, and who is not let in. Whoever counts bounds the labels."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._recipients = Counter(
            "consent_caller_recipients",
            "Recipients that a caller asked about.",
            ("caller", "outcome"),
            registry=registry,
        )
        self._strangers = Counter(
            "consent_auth_failures", "Calls that were not let in, by what they presented.", ("kind",), registry=registry
        )
        self._answered: dict[str, Counter] = {}

    def expect(self, callers: Iterable[str]) -> None:
        """Show callers, and strangers of each kind, before there is anything to count."""
        for kind in Stranger:
            self._strangers.labels(kind.value)
        for caller in callers:
            for outcome in Outcome:
                self._recipients.labels(caller, outcome.value)

    def answered(self, caller: str, recipients: int) -> None:
        """Count recipients of a frame, a batch or a check that were answered."""
        child = self._answered.get(caller)
        if child is None:  # finding one by its labels takes ten times as long
            child = self._answered[caller] = self._recipients.labels(caller, Outcome.ANSWERED.value)
        child.inc(recipients)

    def refused(self, caller: str, outcome: Outcome, recipients: int) -> None:
        """Count recipients that were refused for who asked."""
        self._recipients.labels(caller, outcome.value).inc(recipients)

    def stranger(self, kind: Stranger) -> None:
        """Count a call that was not let in."""
        self._strangers.labels(kind.value).inc()


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


def observe_often(histogram: Histogram, value: float, times: int) -> None:
    """Do as `observe` does, so many times at once: one by one it would take a tenth of a single check."""
    histogram._sum.inc(value * times)  # noqa: SLF001 - there is no other way; a test compares it with `observe`
    histogram._buckets[bisect_left(histogram._upper_bounds, value)].inc(times)  # noqa: SLF001 - the same


def _code_name(code: Code) -> str:
    """Write a code as go-grpc-middleware does, for whose names dashboards are made: InvalidArgument, Canceled, OK."""
    if code is Code.OK:
        return "OK"
    return "Canceled" if code is Code.CANCELLED else code.name.title().replace("_", "")
