"""`create-log`: a store becomes the primary of a log, and the log is made in NATS."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iyscheck import output
from iyscheck.errors import ClusterError, MessageRejectedError, SettingsError, StoreMissingError, StoreRoleError
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.store.layout import PRIMARY, LogState
from iyscheck.store.log_batch import Kind, Sealer
from iyscheck.store.log_writer import LogWriter
from iyscheck.store.snapshot import Store
from loader.cli.failures import errors
from loader.cli.nats import cluster_of, cluster_of_store, connected
from loader.cli.options import AddressKeyOption, ClusterOption, JsonOption, StoreKeyOption, StoreOption
from loader.cli.staying import log_nothing
from loader.cli.stores import tell_upgrade
from loader.reports.summary import print_json

if TYPE_CHECKING:
    from loader.replication.cluster import Cluster
    from loader.replication.jetstream import JetStreamError


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

    Run it again where the stream was lost: the publisher then goes on by itself. What is refused changes no store.

    Example:
        iyscheck-loader create-log --store /var/lib/iyscheck --cluster /etc/iyscheck/cluster.toml
    """
    with errors(as_json=as_json):
        settings, state, log_id = _found(store, cluster)
        begins, untold = state is None, False
        if state is None:
            keys = AddressKey.load(address_key), StoreKey.load(store_key)
        sealer = settings.sealer()
        created = "" if local else _made(settings, log_id, replicas=replicas, kept_gb=kept_gb)
        if state is None:  # only now: what is refused leaves the store as it was
            state, untold = _begun(store, keys, sealer, settings)
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


def _found(store: Path, cluster: Path) -> tuple["Cluster", LogState | None, bytes]:
    """Return the cluster file, how a store stands in its log, None in none, and which log that is, empty without store.

    Whoever writes it. Raises StoreRoleError for a replica.
    """
    try:
        with Store.open(store) as opened:
            with opened.snapshot() as snapshot:
                state, log_id = snapshot.log, snapshot.position.log_id
            if state is not None and state.role != PRIMARY:
                raise StoreRoleError(
                    f"The store at '{store}' is a replica.", fix="Make it the primary with 'iyscheck-loader promote'."
                )
            return cluster_of_store(cluster, opened), state, log_id
    except StoreMissingError:
        return cluster_of(cluster), None, b""


def _made(settings: "Cluster", log_id: bytes, *, replicas: int, kept_gb: int) -> str:
    """Make the stream, if it is not there; return what names it.

    Raises ClusterError where another log lies in it, SettingsError where NATS cannot keep so much, or so often.
    """
    from loader.replication.jetstream import JetStreamError
    from loader.replication.messages import LogMissingError

    log_nothing()
    with connected(settings) as log:
        try:
            ends = log.ends()  # to make it again would ask for its room again
        except LogMissingError:
            try:
                log.create_stream(replicas=replicas, kept_bytes=kept_gb * 10**9)
            except JetStreamError as error:
                if (refusal := _refusal(error, replicas=replicas, kept_gb=kept_gb)) is None:
                    raise
                raise refusal from None
            return log.ends().created
        _refuse_other(settings, log.get(ends.last), log_id)
        return ends.created


def _refusal(error: "JetStreamError", *, replicas: int, kept_gb: int) -> SettingsError | None:
    """Say which flag it is because of that NATS does not make the stream; None where it is because of none."""
    from loader.replication import jetstream

    code = error.failure.err_code
    if code == jetstream.ALONE:
        return SettingsError(
            "--replicas",
            f"this NATS is one server, and {replicas} were asked for.",
            fix="Say --replicas 1, or name the servers of a cluster of NATS under [nats] servers.",
        )
    if code == jetstream.NO_PLACE:
        return SettingsError(
            "--replicas",
            f"NATS does not have {replicas} servers with {kept_gb} GB to set aside ({error.failure.description}).",
            fix="Say a smaller --replicas or --kept-gb, or let all servers of NATS be there and have the room.",
        )
    if code in jetstream.FULL:
        return SettingsError(
            "--kept-gb",
            f"NATS does not have {kept_gb} GB to set aside ({error.failure.description}).",
            fix="Say less than max_file_store of its servers leaves beside other streams, or raise that.",
        )
    return None


def _refuse_other(settings: "Cluster", newest: bytes | None, log_id: bytes) -> None:
    """Refuse a stream whose newest message is of another log."""
    from loader.replication.codec import header_of

    if newest is None:
        return
    try:
        found = header_of(newest).log_id
    except MessageRejectedError:
        return  # no log of ours: whoever publishes and reads says so
    if found != log_id:
        own = f"that of this store is {log_id.hex()}" if log_id else "this store is a new one"
        raise ClusterError(
            "nats.stream",
            f"in {settings.nats.stream} lies the log {found.hex()}, and {own} ({settings.path}).",
            fix="Is it the right store? If so, name another stream under [nats] stream.",
        )


def _begun(
    store: Path, keys: tuple[AddressKey, StoreKey], sealer: Sealer, settings: "Cluster"
) -> tuple[LogState, bool]:
    """Make the store a primary; also say whether replicas need a copy of it."""
    with LogWriter.open(store, address_key_id=keys[0].key_id, store_key_id=keys[1].key_id) as writer:
        tell_upgrade(writer)
        beginning = writer.begin_term(sealer)
        state = writer.take_over(beginning, settings=str(settings.path))
    return state, beginning.batch.kind is Kind.REBASE
