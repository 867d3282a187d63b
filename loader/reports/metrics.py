"""What `follow` tells Prometheus: a registry of its own, so that nothing else gets into it."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from iyscheck.change import Position
from iyscheck.errors import SettingsError
from iyscheck.exposition import serve_metrics
from loader.loading.progress import Progress

OUTCOMES: Final = ("applied", "superseded", "skipped", "rejected")
STATES: Final = ("starting", "waiting", "loading", "failing", "stopped")
_COMMIT_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class _LostLines(Collector):
    """Asks the log how many of its lines were lost."""

    def __init__(self, lost: Callable[[], int]) -> None:
        self._lost = lost

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily("consent_log_lines_lost", "Lines of the log that could not be written.", self._lost())


class FeedMetrics:
    """The numbers of one `follow`. No label holds content of a feed."""

    def __init__(self, clock: Callable[[], float] = time.time, lost_lines: Callable[[], int] = lambda: 0) -> None:
        """`lost_lines` says how many lines the log has lost."""
        self.registry = CollectorRegistry()
        self.registry.register(_LostLines(lost_lines))
        self._clock = clock
        self._watermarks: dict[int, int] = {}
        self._rows = Counter("consent_feed_rows", "Feed rows consumed.", ["outcome"], registry=self.registry)
        for outcome in OUTCOMES:
            self._rows.labels(outcome)
        self._sequence = Gauge(
            "consent_feed_applied_sequence", "Feed rows consumed since the store was made.", registry=self.registry
        )
        self._applied_at = Gauge(
            "consent_feed_last_applied_timestamp_seconds", "When the last commit was made.", registry=self.registry
        )
        self._state = Enum(
            "consent_feed_state", "What the loader is doing.", states=list(STATES), registry=self.registry
        )
        self._commit = Histogram(
            "consent_feed_commit_seconds",
            "Parsing and committing one batch.",
            buckets=_COMMIT_BUCKETS_S,
            registry=self.registry,
        )
        self._rate = Gauge(
            "consent_feed_rows_per_second", "Rows per second of the last commit.", registry=self.registry
        )
        self._errors = Counter(
            "consent_feed_source_errors", "Sources that could not be loaded.", registry=self.registry
        )
        ages = Gauge(
            "consent_feed_watermark_age_seconds", "Age of the brands' watermarks.", ["agg"], registry=self.registry
        )
        ages.labels("newest").set_function(lambda: self._age(max))
        ages.labels("oldest").set_function(lambda: self._age(min))

    def committed(self, step: Progress) -> None:
        """Count one commit; what is only read so far is not counted yet."""
        if not step.durable:
            return
        for outcome, rows in step.outcomes.items():
            self._rows.labels(outcome).inc(rows)
        self._sequence.set(step.position.sequence)
        self._applied_at.set(self._clock())
        self._commit.observe(step.seconds)
        if step.seconds > 0:
            self._rate.set(sum(step.outcomes.values()) / step.seconds)

    def failed(self) -> None:
        """Count a source that could not be loaded."""
        self._errors.inc()

    def state(self, state: str) -> None:
        """Tell what the loader is doing, one of STATES."""
        self._state.state(state)

    def at(self, position: Position, watermarks: dict[int, int]) -> None:
        """Tell where the store stands; watermarks in seconds UTC by brand."""
        self._sequence.set(position.sequence)
        self._watermarks = dict(watermarks)

    def listen(self, address: str) -> Callable[[], None]:
        """Serve the metrics on HOST:PORT (the host may be left out: loopback) and return how to stop it.

        Raises SettingsError.
        """
        host, _, port = address.rpartition(":")
        if not port.isdecimal():
            raise SettingsError("--metrics-listen", "it is not HOST:PORT.", fix="Write for example 127.0.0.1:9465.")
        try:
            server, thread = serve_metrics(self.registry, host.strip("[]") or "127.0.0.1", int(port))
        except (OSError, OverflowError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or "no such port"
            raise SettingsError(
                "--metrics-listen", f"cannot listen there: {why}.", fix="Choose another port."
            ) from error
        # By itself it prints a trace to standard error, and where that is gone the thread ends.
        server.handle_error = lambda *_: logging.getLogger(__name__).warning("A scrape failed.")  # type: ignore[method-assign]

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return stop

    def _age(self, choose: Callable[[Iterable[int]], int]) -> float:
        """Return an age in seconds; NaN while no brand has a watermark."""
        return self._clock() - choose(self._watermarks.values()) if self._watermarks else float("nan")
