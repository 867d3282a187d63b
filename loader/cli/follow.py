"""`follow`: whatever appears in a directory, into a store."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, TextIO, cast

import typer

from iyscheck.errors import SettingsError
from iyscheck.kernel import Kernel
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.log import STANDARD_ERROR, LogLines
from iyscheck.service_manager import ServiceManager
from loader.cli.failures import errors
from loader.cli.options import (
    PROMISE,
    AddressKeyOption,
    BrandOption,
    CommitRowsOption,
    EveryOption,
    FeedOption,
    JsonOption,
    PromiseOption,
    RejectsOption,
    StoreKeyOption,
    StoreOption,
    feed_terms,
)
from loader.cli.stopping import stop_on_signals
from loader.cli.stores import loader_of, opened, rejects_directory
from loader.loading.memory import memory_left
from loader.loading.options import COMMIT_ROWS, Options
from loader.loading.progress import Progress
from loader.reports.metrics import FeedMetrics
from loader.reports.summary import print_report
from loader.sources.directory import POLL_S, SETTLE_S, Follower
from loader.sources.files.source import FileSource


def follow(  # noqa: PLR0913, PLR0917 - each parameter is a flag of the command
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory in which feed files appear.")],
    store: StoreOption,
    address_key: AddressKeyOption,
    store_key: StoreKeyOption,
    brand: BrandOption = None,
    rejects: RejectsOption = None,
    commit_rows: CommitRowsOption = COMMIT_ROWS,
    feed: FeedOption = None,
    every: EveryOption = None,
    promise: PromiseOption = PROMISE,
    metrics_listen: Annotated[
        str | None, typer.Option("--metrics-listen", help="Serve Prometheus metrics on HOST:PORT.")
    ] = None,
    poll_seconds: Annotated[float, typer.Option("--poll-seconds", min=0.01, help="Pause between looks.")] = POLL_S,
    settle_seconds: Annotated[
        float, typer.Option("--settle-seconds", min=0, help="How long nobody may have written to a file.")
    ] = SETTLE_S,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Load whatever appears in a directory, in the order of its names, until SIGTERM.

    Move files into place under their final name; names that begin with a dot or end with .tmp or .part wait.

    Example:
        iyscheck-loader follow /var/spool/iys --metrics-listen 127.0.0.1:9465
    """
    with errors(as_json=as_json):
        if not directory.is_dir():
            raise SettingsError("DIR", f"'{directory}' is not a directory.", fix="Make it, or correct the path.")
        terms = feed_terms(feed or "follow", every or "0", promise, learns=True)
        options = Options(
            rejects=rejects or rejects_directory(store),
            brand=brand,
            commit_rows=commit_rows,
            memory=memory_left(),
            kernel=Kernel.best().usable(),
            feed=terms,
        )
        keys = AddressKey.load(address_key), StoreKey.load(store_key)
        stop = stop_on_signals()
        lines = LogLines(STANDARD_ERROR)
        _log_json(lines)
        metrics = FeedMetrics(lost_lines=lambda: lines.lost)
        manager = ServiceManager.of_this_process()
        with opened(store, keys, options.kernel) as writer, _listening(metrics, metrics_listen):
            writer.expect(terms.name, terms.every_s or 0)
            _ready(manager, f"following {directory}")
            report = Follower(
                str(directory),
                source_of=partial(FileSource, archive_key=keys[0]),
                loader=loader_of(writer, keys, options, stop=stop, watch=_watch(metrics, manager), tell=_warn),
                writer=writer,
                metrics=metrics,
                stop=stop,
                tell=manager.alive,
                poll_s=poll_seconds,
                settle_s=settle_seconds,
            ).run()
            manager.stopping("closing the store")
        print_report(report, as_json=as_json)


def _log_json(lines: LogLines) -> None:
    import structlog

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", lines)),
    )


def _warn(text: str) -> None:
    import structlog

    structlog.get_logger("loader").warning("memory_short", message=text)


def _ready(manager: ServiceManager, status: str) -> None:
    import structlog

    if not manager.ready(status):
        structlog.get_logger("loader").error("service_manager_not_told")


def _watch(metrics: FeedMetrics, manager: ServiceManager) -> Callable[[Progress], None]:
    """Count each step of a load, and give a sign of life with it."""

    def watch(step: Progress) -> None:
        metrics.committed(step)
        manager.alive(f"loading, at {step.position.sequence:,} rows")

    return watch


@contextmanager
def _listening(metrics: FeedMetrics, address: str | None) -> Iterator[None]:
    if address is None:
        yield
        return
    stop = metrics.listen(address)
    try:
        yield
    finally:
        stop()
