"""Snapshots that replicas need at once, because the log does not tell what a primary holds: made beside the publisher.

They need one where a log begins with a store that is not empty, after a first load, and after a promotion that gave up
continuity. Else makers make them.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from iyscheck.errors import ClusterError, IyscheckError, SnapshotError
from iyscheck.store.log_batch import Kind
from iyscheck.store.snapshot import Snapshot, Store
from loader.replication.cluster import Cluster
from loader.replication.cluster_place import maker_at, makers_place_of
from loader.replication.codec import header_of
from loader.replication.manifest import manifests_at

_RETRY_S: Final = 30.0
_SMALL_BYTES: Final = 4096
"""A batch that tells nothing is smaller: larger ones need not be looked at."""


class Copier:
    """Makes a snapshot of a primary at or past the batch that it is told of, unless the place has one."""

    def __init__(
        self, cluster: Cluster, store: Path, log_id: bytes, stop: threading.Event, *, retry_s: float = _RETRY_S
    ) -> None:
        """Raise ClusterError where this machine may or can make none, KeyFileError."""
        import structlog

        self._cluster = cluster
        self._store = store
        self._log_id = log_id.hex()
        self._stop = stop
        self._retry_s = retry_s
        self._signing_key = cluster.signing_key("snapshots")
        self._signers = cluster.signers("snapshots")
        self._needed = threading.Event()
        self._batch = 0
        self._failed = ""
        self._lines = structlog.get_logger("publisher")
        with makers_place_of(cluster):
            pass

    def need(self, batch: int) -> None:
        """Tell that only a snapshot leads past a batch."""
        self._batch = max(self._batch, batch)
        self._needed.set()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work in a thread of its own meanwhile."""
        thread = threading.Thread(target=self._run, name="copier")
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._needed.set()
            thread.join()

    def _run(self) -> None:
        while self._needed.wait() and not self._stop.is_set():
            self._needed.clear()
            try:
                self.make()
            except IyscheckError as error:
                if self._stop.is_set():
                    return
                if error.reason != self._failed:
                    self._lines.error("snapshot_not_made", reason=error.reason, message=str(error))
                self._failed = error.reason
                self._needed.set()
                self._stop.wait(self._retry_s)

    def make(self) -> None:
        """Make a snapshot, if the place has none that is new enough.

        Raises SnapshotError, PlaceAwayError, StoreError.
        """
        batch = self._batch
        with makers_place_of(self._cluster) as place:
            found, _ = manifests_at(place, self._signers)
            if any(each.manifest.log_id == self._log_id and each.manifest.batch >= batch for each in found):
                return
            made = maker_at(place, self._cluster, self._store, self._signing_key).make(self._go_on)
        self._failed = ""
        self._lines.info("snapshot_made", batch=made.batch, bytes=made.sent_bytes)

    def _go_on(self, _done: int, _total: int) -> None:
        if self._stop.is_set():
            raise SnapshotError("It was stopped, and nothing of it is at the place.")


def newest_untold(snapshot: Snapshot) -> int:
    """Return the newest batch of an outbox that only a copy leads past; 0 if it has none."""
    small = [batch for batch, waiting in snapshot.outbox_batches() if waiting.bytes < _SMALL_BYTES]
    for batch in reversed(small):
        if header_of(snapshot.outbox_messages(batch)[0]).kind == Kind.REBASE:
            return batch
    return 0


def copier_of(cluster: Cluster, store: Store, stop: threading.Event) -> Copier | None:
    """Make the copier of a primary, which looks at once whether a snapshot is missing; None where it may make none.

    Raises KeyFileError.
    """
    if cluster.snapshots is None or cluster.snapshots.url is not None:
        return None
    with store.snapshot() as snapshot:
        log_id, untold = snapshot.position.log_id, newest_untold(snapshot)
    try:
        copier = Copier(cluster, store.environment.path, log_id, stop)
    except ClusterError:
        return None  # its key is for changes only: makers make them
    copier.need(untold)
    return copier
