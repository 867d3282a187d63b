"""`snapshot`: one is made now of a store, or those that lie at the place are shown."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from iyscheck import output
from iyscheck.errors import SettingsError, SnapshotError
from iyscheck.store.snapshot import Store
from iyscheck.times import rfc3339
from loader.cli.bars import parts_bar
from loader.cli.failures import EXIT_REJECTS, errors
from loader.cli.nats import cluster_of, cluster_of_store
from loader.cli.options import ClusterOption, JsonOption
from loader.cli.staying import log_nothing
from loader.cli.stopping import stop_on_signals
from loader.reports.summary import print_json

if TYPE_CHECKING:  # no other command is to import it
    from loader.replication.cluster import Cluster
    from loader.replication.manifest import Manifest

_MILLION: Final = 1_000_000

_StoreOption = Annotated[
    Path | None, typer.Option("--store", envvar="IYSCHECK_STORE", help="Directory of the store that is copied.")
]
_ListOption = Annotated[bool, typer.Option("--list", help="Make none, but show those that lie at the place.")]


def snapshot(
    cluster: ClusterOption,
    store: _StoreOption = None,
    listed: _ListOption = False,  # noqa: FBT002 - a flag of the command line
    as_json: JsonOption = False,  # noqa: FBT002 - the same
) -> None:
    """Make a snapshot of a store of the log now, for replicas to begin with, at the place that the cluster file names.

    It works beside whatever writes or reads the store. With --list it makes none; exit code 1 then says that none of
    those that are there may be believed.
    """
    with errors(as_json=as_json):
        log_nothing()
        if listed:
            is_one = _show(cluster_of(cluster), as_json=as_json)
        elif store is None:
            raise SettingsError("--store", "it is not given.", fix="Name the directory of the store to copy.")
        else:
            with Store.open(store) as opened:
                settings = cluster_of_store(cluster, opened)
            is_one = _make(settings, store, as_json=as_json)
    if not is_one:
        raise typer.Exit(EXIT_REJECTS)


def _make(cluster: "Cluster", store: Path, *, as_json: bool) -> bool:
    from loader.replication.cluster_place import maker_at, makers_place_of

    stop, began = stop_on_signals(), time.monotonic()
    with makers_place_of(cluster) as place, parts_bar("snapshot", quiet=as_json) as bar:
        maker = maker_at(place, cluster, store, cluster.signing_key("snapshots"))

        def watch(done: int, total: int) -> None:
            if stop.is_set():
                raise SnapshotError("It was stopped, and nothing of it is at the place.")
            bar(done, total)

        made = maker.make(watch)
        where, seconds = str(place), time.monotonic() - began
    if as_json:
        print_json(_fields(made) | {"place": where, "seconds": round(seconds, 3)})
    else:
        typer.echo(output.visible(f"{_line(made)}; made in {seconds:.1f} s, at {where}."))
    return True


def _show(cluster: "Cluster", *, as_json: bool) -> bool:
    from loader.replication.cluster_place import place_of
    from loader.replication.manifest import manifests_at

    with place_of(cluster) as place:
        found, wrong = manifests_at(place, cluster.signers("snapshots"))
        where = str(place)
    if as_json:
        print_json({"place": where, "snapshots": [_fields(each.manifest) for each in found], "refused": wrong})
    else:
        for each in found:
            typer.echo(f"{_line(each.manifest)}.")
        for text in wrong:
            typer.echo(output.visible(f"Not to be believed: {text}."))
        if not found:
            typer.echo(output.visible(f"No snapshot lies at {where}."))
    return bool(found)


def _line(manifest: "Manifest") -> str:
    return (
        f"Batch {manifest.batch:,} of term {manifest.term}, of {rfc3339(manifest.created_ms // 1000)}: "
        f"{manifest.bytes / _MILLION:,.1f} MB, sent {manifest.sent_bytes / _MILLION:,.1f} MB "
        f"in {len(manifest.parts)} part(s), by {manifest.maker}"
    )


def _fields(manifest: "Manifest") -> dict[str, object]:
    parts = {"parts": len(manifest.parts), "sent_bytes": manifest.sent_bytes, "made_ms": manifest.made_ms}
    return msgspec.structs.asdict(manifest) | parts
