"""`create-log`: a store becomes the primary of a log, and the log is made in NATS."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iyscheck import output
from iyscheck.errors import StoreMissingError, StoreRoleError
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.store.layout import PRIMARY, LogState
from iyscheck.store.log_batch import Kind
from iyscheck.store.log_writer import LogWriter
from iyscheck.store.snapshot import Store
from loader.cli.failures import errors
from loader.cli.nats import cluster_of, connected
from loader.cli.options import AddressKeyOption, ClusterOption, JsonOption, StoreKeyOption, StoreOption
from loader.cli.staying import log_nothing
from loader.cli.stores import tell_upgrade
from loader.reports.summary import print_json

if TYPE_CHECKING:
    from loader.replication.cluster import Cluster


def create_log(
    store: StoreOption,
    address_key: AddressKeyOption,
    store_key: StoreKeyOption,
    cluster: ClusterOption,
    replicas: Annotated[
        int, typer.Option("--replicas", min=1, max=5, help="On how many servers of NATS the log is kept.")
    ] = 3,
    kept_gb: Annotated[
        int, typer.Option("--kept-gb", min=1, help="How much the log keeps; NATS sets it aside on each of them.")
    ] = 60,
    local: Annotated[  # noqa: FBT002 - a flag of the command line
        bool, typer.Option("--local", help="Only make the store the primary; NATS is not asked.")
    ] = False,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Make a store the primary of a log, and the stream of NATS that keeps the log. What is there already stays.

    Run it again where the stream was lost: the publisher then goes on by itself.

    Example:
        iyscheck-loader create-log --store /var/lib/iyscheck --cluster /etc/iyscheck/cluster.toml
    """
    with errors(as_json=as_json):
        settings = cluster_of(cluster)
        state = _state_of(store)
        begins = state is None
        untold = False
        if state is None:
            keys = AddressKey.load(address_key), StoreKey.load(store_key)
            state, untold = _begun(store, keys, settings)
        created = ""
        if not local:
            created = _made(settings, replicas=replicas, kept_bytes=kept_gb * 10**9)
        if as_json:
            facts = {"term": state.term, "batch": state.batch, "begun": begins, "copy_needed": untold}
            print_json(facts | {"stream": None if local else settings.nats.stream, "stream_created": created or None})
            return
        where = output.visible(str(store))
        typer.echo(
            f"The store at '{where}' is now the primary of its log."
            if begins
            else f"The store at '{where}' is the primary of its log already: term {state.term}, batch {state.batch:,}."
        )
        if untold:
            typer.echo("What is in it is not told to the log: replicas begin with a snapshot.")
        if local:
            typer.echo("The log itself was not made: run this again without --local.")
        else:
            typer.echo(f"The stream {settings.nats.stream} is there. Next, and from now on beside the loader:")
            words = [output.shell_word(str(each)) for each in (store, cluster)]
            typer.echo(f"  iyscheck-loader publish --store {words[0]} --cluster {words[1]}")


def _state_of(store: Path) -> LogState | None:
    """Return how a store stands in its log, whoever writes it; None in none. Raises StoreRoleError for a replica."""
    try:
        with Store.open(store) as opened, opened.snapshot() as snapshot:
            state = snapshot.log
    except StoreMissingError:
        return None
    if state is not None and state.role != PRIMARY:
        raise StoreRoleError(
            f"The store at '{store}' is a replica.", fix="Make it the primary with 'iyscheck-loader promote'."
        )
    return state


def _made(settings: "Cluster", *, replicas: int, kept_bytes: int) -> str:
    """Make the stream, if it is not there; return what names it."""
    from loader.replication.messages import LogMissingError

    log_nothing()
    with connected(settings) as log:
        try:
            return log.ends().created  # to make it again would ask for its room again
        except LogMissingError:
            log.create_stream(replicas=replicas, kept_bytes=kept_bytes)
        return log.ends().created


def _begun(store: Path, keys: tuple[AddressKey, StoreKey], settings: "Cluster") -> tuple[LogState, bool]:
    """Make the store a primary; also say whether replicas need a copy of it."""
    sealer = settings.sealer()
    with LogWriter.open(store, address_key_id=keys[0].key_id, store_key_id=keys[1].key_id) as writer:
        tell_upgrade(writer)
        beginning = writer.begin_term(sealer)
        state = writer.take_over(beginning, settings=str(settings.path))
    return state, beginning.batch.kind is Kind.REBASE
