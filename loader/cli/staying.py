"""What the commands have in common that stay until they are told to end: their log, their metrics, who watches them."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO, cast

from prometheus_client import CollectorRegistry

from iyscheck.errors import StoreFullError
from iyscheck.log import LogLines
from iyscheck.service_manager import ServiceManager
from iyscheck.store.writer import Writer
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


def log_nothing() -> None:
    """Write no events: a command that ends soon says itself what went wrong."""
    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def warn(text: str) -> None:
    """Log a sentence of the loader."""
    import structlog

    structlog.get_logger("loader").warning("memory_short", message=text)


def upgraded(text: str) -> None:
    """Log that older versions cannot open the store any more."""
    import structlog

    structlog.get_logger("loader").warning("store_upgraded", message=text)


def beating(writer: Writer) -> Callable[[], None]:
    """Make what has a primary say that it lives. A full disk is logged once, until there is room again."""
    import structlog

    log = structlog.get_logger("loader")
    was_full = False

    def beat() -> None:
        nonlocal was_full
        why = None
        try:
            writer.heartbeat()
        except StoreFullError as error:
            why = error
        if why is not None and not was_full:
            log.error("heartbeat_failed", reason=why.reason, message=str(why))
        was_full = why is not None

    return beat


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
