"""`publish`: what a primary has committed, into its log, until SIGTERM."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Final

import typer
from prometheus_client import CollectorRegistry

from iyscheck.errors import LogFencedError, LogRestoredError
from iyscheck.log import STANDARD_ERROR, LogLines
from iyscheck.service_manager import ServiceManager
from iyscheck.store.environment import PublisherLock
from iyscheck.store.snapshot import Store
from loader.cli.failures import errors
from loader.cli.nats import cluster_of_store, connected
from loader.cli.options import MetricsOption, StoreOption
from loader.cli.staying import listening, log_json, ready
from loader.cli.stopping import stop_on_signals
from loader.reports.outbox import OutboxMetrics

_SIGN_S: Final = 1.0
"""How often one that has stopped for good gives a sign of life."""


def publish(
    store: StoreOption,
    cluster: Annotated[
        Path | None,
        typer.Option("--cluster", envvar="IYSCHECK_CLUSTER", help="The cluster file; default: that of create-log."),
    ] = None,
    metrics_listen: MetricsOption = None,
    snapshots: Annotated[  # noqa: FBT002 - a flag of the command line
        bool,
        typer.Option(
            "--snapshots/--no-snapshots", help="Make the snapshots without which no replica could begin or go on."
        ),
    ] = True,
) -> None:
    """Put what the loader commits into the log, beside the loader, until SIGTERM.

    Exit code 3 says that this store may not be published any more, and why: to start it again does not help. Where
    metrics are served it stays until SIGTERM even so, and shows its state.

    Example:
        iyscheck-loader publish --store /var/lib/iyscheck --metrics-listen 127.0.0.1:9466
    """
    with errors(as_json=False):
        from loader.replication.publish import AckFile, Publisher, State  # not for every other command
        from loader.replication.rebased import copier_of

        stop, manager, registry = stop_on_signals(), ServiceManager.of_this_process(), CollectorRegistry()
        log_json(LogLines(STANDARD_ERROR))
        with Store.open(store) as opened, PublisherLock(store):
            with opened.snapshot() as snapshot:
                state = snapshot.log
            settings = cluster_of_store(cluster, opened)
            copier = copier_of(settings, opened, stop) if snapshots and state is not None else None
            with (
                connected(settings) as log,
                listening(registry, metrics_listen),
                nullcontext() if copier is None else copier.working(),
            ):
                publisher = Publisher(
                    opened,
                    log,
                    settings.opener(),
                    AckFile(store),
                    metrics=OutboxMetrics(registry, opened, states=list(State)),
                    rebased=(lambda _: None) if copier is None else copier.need,
                )
                ready(manager, f"publishing to {settings.nats.stream}")
                try:
                    publisher.run(stop, manager.alive)
                except (LogFencedError, LogRestoredError):
                    # Who is gone cannot be asked why: an alert would only tell of a process that is down.
                    while metrics_listen is not None and not stop.wait(_SIGN_S):
                        manager.alive(publisher.state)
                    raise
                manager.stopping("closing the log")
