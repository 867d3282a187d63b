"""`follow`: whatever appears in a directory, into a store."""

from functools import partial
from pathlib import Path
from typing import Annotated

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
    MetricsOption,
    PromiseOption,
    RejectsOption,
    StoreKeyOption,
    StoreOption,
    feed_terms,
)
from loader.cli.staying import listening, log_json, ready, upgraded, warn, watch
from loader.cli.stopping import stop_on_signals
from loader.cli.stores import loader_of, opened, rejects_directory
from loader.loading.memory import memory_left
from loader.loading.options import COMMIT_ROWS, Options
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
    metrics_listen: MetricsOption = None,
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
        log_json(lines)
        metrics = FeedMetrics(lost_lines=lambda: lines.lost)
        manager = ServiceManager.of_this_process()
        with opened(store, keys, options.kernel, tell=upgraded) as writer, listening(metrics.registry, metrics_listen):
            writer.expect(terms.name, terms.every_s or 0)
            ready(manager, f"following {directory}")
            report = Follower(
                str(directory),
                source_of=partial(FileSource, archive_key=keys[0]),
                loader=loader_of(writer, keys, options, stop=stop, watch=watch(metrics, manager), tell=warn),
                writer=writer,
                metrics=metrics,
                stop=stop,
                tell=manager.alive,
                poll_s=poll_seconds,
                settle_s=settle_seconds,
            ).run()
            manager.stopping("closing the store")
        print_report(report, as_json=as_json)
