"""What the commands have in common that stay until they are told to end: their log, their metrics, who watches them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO, cast

from prometheus_client import CollectorRegistry

from iyscheck.log import LogLines
from iyscheck.service_manager import ServiceManager
from loader.loading.progress import Progress
from loader.reports.metrics import FeedMetrics, listen


def log_json(lines: LogLines) -> None:
    """Write each event as a line of JSON."""
    import structlog

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", lines)),
    )


def warn(text: str) -> None:
    """Log a sentence of the loader."""
    import structlog

    structlog.get_logger("loader").warning("memory_short", message=text)


def ready(manager: ServiceManager, status: str) -> None:
    """Tell the service manager that the work has begun."""
    import structlog

    if not manager.ready(status):
        structlog.get_logger("loader").error("service_manager_not_told")


def watch(metrics: FeedMetrics, manager: ServiceManager) -> Callable[[Progress], None]:
    """Count each step of a load, and give a sign of life with it."""

    def watch(step: Progress) -> None:
        metrics.committed(step)
        manager.alive(f"loading, at {step.position.sequence:,} rows")

    return watch


@contextmanager
def listening(registry: CollectorRegistry, address: str | None) -> Iterator[None]:
    """Serve metrics to Prometheus, if an address is given. Raises SettingsError."""
    if address is None:
        yield
        return
    stop = listen(registry, address)
    try:
        yield
    finally:
        stop()
