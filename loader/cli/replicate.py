"""`replicate`: a store that follows its log, on a machine that serves, makes snapshots or waits."""

from typing import TYPE_CHECKING, Annotated

import typer

from iyscheck.errors import SettingsError
from iyscheck.kernel import Kernel
from iyscheck.log import STANDARD_ERROR, LogLines
from iyscheck.service_manager import ServiceManager
from loader.cli.failures import errors
from loader.cli.nats import cluster_of, connected
from loader.cli.options import ClusterOption, JsonOption, MetricsOption, StoreOption
from loader.cli.staying import listening, log_json, ready
from loader.cli.stopping import stop_on_signals

if TYPE_CHECKING:  # no other command is to import it
    from loader.replication.replicating import KeyIds

_ID_BYTES = 8
_SnapshotsOption = Annotated[
    bool, typer.Option("--snapshots", help="Make snapshots for other replicas, by turns with other makers.")
]
_RejoinOption = Annotated[
    bool,
    typer.Option(
        "--rejoin", help="Let a copy take the place of a store that went another way than its log, or of a primary."
    ),
]
_AddressKeyIdOption = Annotated[
    str | None,
    typer.Option(
        "--address-key-id", metavar="HEX", help="Id of the address key, for a store that begins with nothing."
    ),
]
_StoreKeyIdOption = Annotated[
    str | None,
    typer.Option("--store-key-id", metavar="HEX", help="Id of the store key, for a store that begins with nothing."),
]


def replicate(
    store: StoreOption,
    cluster: ClusterOption,
    snapshots: _SnapshotsOption = False,  # noqa: FBT002 - a flag of the command line
    rejoin: _RejoinOption = False,  # noqa: FBT002 - the same
    address_key_id: _AddressKeyIdOption = None,
    store_key_id: _StoreKeyIdOption = None,
    metrics_listen: MetricsOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - the same
) -> None:
    """Keep a store what the primary's is, until SIGTERM; it holds neither the address key nor the store key.

    A store that is not there yet begins with a snapshot, or with the first batch of the log if key ids are given.

    Example:
        iyscheck-loader replicate --store /var/lib/iyscheck/store --cluster /etc/iyscheck/cluster.toml
    """
    with errors(as_json=as_json):
        from loader.replication.copies import ClusterCopies, ClusterMakers
        from loader.replication.replica_metrics import ReplicaMetrics
        from loader.replication.replicating import Replica, ReplicaOptions

        settings = cluster_of(cluster)
        key_ids = _key_ids(address_key_id, store_key_id)
        stop = stop_on_signals()
        lines = LogLines(STANDARD_ERROR)
        log_json(lines)
        manager = ServiceManager.of_this_process()
        metrics = ReplicaMetrics(manager, lost_lines=lambda: lines.lost)
        opener = settings.opener()
        with connected(settings) as log, listening(metrics.registry, metrics_listen):
            replica = Replica(
                store,
                log,
                opener,
                metrics,
                copies=ClusterCopies(settings, _tell) if settings.snapshots is not None else None,
                options=ReplicaOptions(
                    key_ids=key_ids,
                    rejoin=rejoin,
                    kernel=Kernel.best().usable(),
                    makers=ClusterMakers(settings, store, metrics.snapshot_age) if snapshots else None,
                ),
                stop=stop,
                alive=manager.alive,
            )
            try:
                replica.open()
                ready(manager, f"following {settings.nats.stream}")
                replica.run()
                manager.stopping("closing the store")
            finally:
                replica.close()


def _tell(text: str) -> None:
    import structlog

    structlog.get_logger("replica").warning("snapshot_refused", message=text)


def _key_ids(address: str | None, store: str | None) -> "KeyIds | None":
    """Read with which keys a store begins. Raises SettingsError."""
    if address is None and store is None:
        return None
    from loader.replication.replicating import KeyIds

    return KeyIds(address_key_id=_key_id("--address-key-id", address), store_key_id=_key_id("--store-key-id", store))


def _key_id(flag: str, text: str | None) -> bytes:
    try:
        found = bytes.fromhex(text or "")
    except ValueError:
        found = b""
    if len(found) != _ID_BYTES:
        raise SettingsError(flag, "it is no id of a key.", fix="Write the 16 digits that 'iyscheck keys show' prints.")
    return found
