"""The log of a command, in NATS, and the cluster file that names it. Other commands import nothing of replication."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from iyscheck.errors import LogUnavailableError, SettingsError
from iyscheck.store.layout import LogState
from iyscheck.store.snapshot import Store

if TYPE_CHECKING:
    from loader.replication.cluster import Cluster
    from loader.replication.log import NatsLog


def cluster_of(given: Path | None, state: LogState | None = None) -> "Cluster":
    """Read the cluster file that is given; else the one of IYSCHECK_CLUSTER, or with which a store was made a primary.

    Raises SettingsError where none of them is there, ClusterError.
    """
    from loader.replication.cluster import Cluster

    named = given or os.environ.get("IYSCHECK_CLUSTER") or (state.settings if state is not None else "")
    if not named:
        raise SettingsError(
            "IYSCHECK_CLUSTER",
            "it is not set, and the store does not say which cluster file is its own.",
            fix="Set it to the path of that file, or give it with --cluster.",
        )
    return Cluster.read(named)


def cluster_of_store(given: Path | None, store: Store) -> "Cluster":
    """Read the cluster file of an open store, as `cluster_of` does.

    Raises ClusterError too where it names another stream key than the one that a primary has told its log with.
    """
    with store.snapshot() as snapshot:
        state = snapshot.log
        newest = snapshot.outbox_messages(state.batch) if state is not None else []
    cluster = cluster_of(given, state)
    if newest:
        cluster.check_stream_key(newest[0])
    return cluster


@contextmanager
def connected(cluster: "Cluster") -> Iterator["NatsLog"]:
    """Give the log that a cluster file names; while it is given, that nobody answers for it is an error for people.

    Raises SettingsError where a package is missing or a file of the cluster file cannot be used, LogUnavailableError.
    """
    from loader.replication.messages import LogAwayError, LogMissingError

    try:
        from loader.replication.log import NatsLog
    except ModuleNotFoundError as error:
        raise SettingsError(
            "--cluster",
            f"NATS is asked by means of the package '{error.name}', which is not installed.",
            fix="Run: pip install 'iyscheck[replicas]'",
        ) from None
    log = NatsLog.connect(cluster.nats)
    try:
        yield log
    except LogMissingError as error:
        raise LogUnavailableError(str(error), fix="Make it with 'iyscheck-loader create-log'.") from None
    except LogAwayError as error:
        servers = ", ".join(cluster.nats.servers)
        raise LogUnavailableError(
            f"NATS ({servers}) did not do what it was asked for: {str(error) or 'it gives no answer'}",
            fix="Try again when it is there.",
        ) from None
    finally:
        log.close()
