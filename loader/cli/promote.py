"""`promote`: a replica becomes the primary of its log."""

from typing import TYPE_CHECKING, Annotated

import typer

from iyscheck.errors import SettingsError, StoreBusyError
from iyscheck.log import STANDARD_ERROR, LogLines
from iyscheck.service_manager import ServiceManager
from iyscheck.store.environment import PublisherLock
from iyscheck.store.log_writer import LogWriter
from loader.cli.failures import errors
from loader.cli.nats import cluster_of, connected
from loader.cli.options import ClusterOption, JsonOption, StoreOption
from loader.cli.staying import log_json
from loader.reports.summary import print_json

if TYPE_CHECKING:  # no other command is to import it
    from loader.replication.promote import Promoted

_RebaseOption = Annotated[
    bool, typer.Option("--rebase", help="Go on with the store as it is; all replicas take a copy of it.")
]
_NewLogOption = Annotated[
    bool,
    typer.Option("--new-log", help="Begin another log with the store as it is; positions of the old one are void."),
]
_YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask before --rebase and --new-log.")]
_SAID = {
    "continue": "Replicas go on following.",
    "rebase": "Replicas take a copy of this store: make a snapshot now.",
    "new_log": "Replicas take a copy of this store: make a snapshot now. Positions of the old log are void.",
}


def promote(
    store: StoreOption,
    cluster: ClusterOption,
    rebase: _RebaseOption = False,  # noqa: FBT002 - a flag of the command line
    new_log: _NewLogOption = False,  # noqa: FBT002 - the same
    yes: _YesOption = False,  # noqa: FBT002 - the same
    as_json: JsonOption = False,  # noqa: FBT002 - the same
) -> None:
    """Make a replica the primary: it comes to the end of the log, and whoever was the primary can append no more.

    Stop 'replicate' on this store first. Then run 'publish' here, and load: the feed's rows since then are read again.
    """
    with errors(as_json=as_json):
        from loader.replication.promote import How, Promotion
        from loader.replication.replica_metrics import ReplicaMetrics

        if rebase and new_log:
            raise SettingsError("--rebase", "it goes not with --new-log.", fix="Choose one.")
        how = How.REBASE if rebase else How.NEW_LOG if new_log else How.CONTINUE
        settings = cluster_of(cluster)
        if how is not How.CONTINUE and not yes:
            typer.confirm(f"{_SAID[how]} What the log has beyond this store is given up. Go on?", abort=True, err=True)
        log_json(LogLines(STANDARD_ERROR))
        sealer, opener = settings.sealer(), settings.opener()
        with connected(settings) as log, _opened(store) as writer, _unpublished(store):
            watch = ReplicaMetrics(ServiceManager())
            promoted = Promotion(writer, log, opener, sealer, watch, settings=str(settings.path)).promote(how)
        _report(promoted, as_json=as_json)


def _opened(store: StoreOption) -> LogWriter:
    try:
        return LogWriter.reopen(store)
    except StoreBusyError as error:
        raise StoreBusyError(
            error.message,
            fix="Stop 'iyscheck-loader replicate' on this machine first: systemctl stop iyscheck-replica.",
        ) from None


def _unpublished(store: StoreOption) -> PublisherLock:
    """Keep publishers away: what they took for the log's end would be of the term before."""
    try:
        return PublisherLock(store)
    except StoreBusyError as error:
        raise StoreBusyError(
            error.message,
            fix="Stop 'iyscheck-loader publish' on this machine first: systemctl stop iyscheck-publisher.",
        ) from None


def _report(promoted: "Promoted", *, as_json: bool) -> None:
    state = promoted.state
    if as_json:
        print_json({"how": promoted.how, "term": state.term, "batch": state.batch, "drained": promoted.drained})
        return
    typer.echo(
        f"This store is the primary of term {state.term}, from batch {state.batch:,} on; {promoted.drained:,} batches "
        f"came from the log before. {_SAID[promoted.how]}"
    )
