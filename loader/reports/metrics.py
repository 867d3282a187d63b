"""What `follow` tells Prometheus: a registry of its own, so that nothing else gets into it."""

import logging
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from iyscheck.change import Position
from iyscheck.errors import SettingsError, SourceChangedError, SourceUnreadableError, StoreFullError
from iyscheck.exposition import serve_metrics
from loader.loading.progress import Progress

OUTCOMES: Final = ("applied", "superseded", "skipped", "rejected")
STATES: Final = ("starting", "waiting", "loading", "failing", "stopped")
FAILURES: Final = tuple(error.reason for error in (SourceUnreadableError, SourceChangedError, StoreFullError))
"""Why a source of `follow` may not be loaded."""
_COMMIT_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class LostLines(Collector):
    """Asks the log how many of its lines were lost."""

    def __init__(self, lost: Callable[[], int]) -> None:
        self._lost = lost

    def collect(self) -> Iterator[Metric]:
        """Make the one metric."""
        yield CounterMetricFamily("consent_log_lines_lost", "Lines of the log that could not be written.", self._lost())


class FeedMetrics:
    """The numbers of one `follow`. No label holds content of a feed."""

    def __init__(self, lost_lines: Callable[[], int] = lambda: 0) -> None:
        """`lost_lines` says how many lines the log has lost."""
        self.registry = CollectorRegistry()
        self.registry.register(LostLines(lost_lines))
        self._rows = Counter("consent_feed_rows", "Feed rows consumed.", ["outcome"], registry=self.registry)
        for outcome in OUTCOMES:
            self._rows.labels(outcome)
        self._sequence = Gauge(
            "consent_feed_applied_sequence", "Feed rows consumed since the store was made.", registry=self.registry
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
        self._errors = Counter(
            "consent_feed_source_errors",
            "Attempts to load a source that failed.",
            ["reason"],
            registry=self.registry,
        )
        for reason in FAILURES:
            self._errors.labels(reason)
        self._waiting = Gauge(
            "consent_feed_files_waiting", "Files that are there and not loaded to their end.", registry=self.registry
        )

    def committed(self, step: Progress) -> None:
        """Count one commit; what is only read so far is not counted yet."""
        if not step.durable:
            return
        for outcome, rows in step.outcomes.items():
            self._rows.labels(outcome).inc(rows)
        self._sequence.set(step.position.sequence)
        self._commit.observe(step.seconds)

    def failed(self, reason: str) -> None:
        """Count an attempt to load a source that failed, by the reason of its error."""
        self._errors.labels(reason).inc()

    def waiting(self, files: int) -> None:
        """Tell how many files are there and not loaded to their end."""
        self._waiting.set(files)

    def state(self, state: str) -> None:
        """Tell what the loader is doing, one of STATES."""
        self._state.state(state)

    def at(self, position: Position) -> None:
        """Tell where the store stands."""
        self._sequence.set(position.sequence)

    def listen(self, address: str) -> Callable[[], None]:
        """Serve the metrics as `listen` does."""
        return listen(self.registry, address)


def listen(registry: CollectorRegistry, address: str) -> Callable[[], None]:
    """Serve metrics on HOST:PORT (the host may be left out: loopback) and return how to stop it.

    Raises SettingsError.
    """
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise SettingsError("--metrics-listen", "it is not HOST:PORT.", fix="Write for example 127.0.0.1:9465.")
    try:
        server, thread = serve_metrics(registry, host.strip("[]") or "127.0.0.1", int(port))
    except (OSError, OverflowError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or "no such port"
        raise SettingsError("--metrics-listen", f"cannot listen there: {why}.", fix="Choose another port.") from error
    # By itself it prints a trace to standard error, and where that is gone the thread ends.
    server.handle_error = lambda *_: logging.getLogger(__name__).warning("A scrape failed.")  # type: ignore[method-assign]

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
