"""Copies of the store as a cluster file says: taken for a replica, and made by turns for the others."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Final

from iyscheck.store.snapshot import Store
from loader.replication.cluster import Cluster
from loader.replication.cluster_place import maker_at, makers_place_of, place_of
from loader.replication.finding import CopyNeeded
from loader.replication.manifest import maker_of, manifests_at
from loader.replication.replicating import KeyIds
from loader.replication.snapshot import Wanted, fetch, install

_OWN_TURN: Final = 1.25
"""How many times the interval a maker lets pass after its own snapshot: the next one is the other's, if it lives."""


class ClusterCopies:
    """Takes snapshots from the place that the cluster file names. `tell` is told what is wrong with one."""

    def __init__(self, cluster: Cluster, tell: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._tell = tell

    def take(self, into: Path, need: CopyNeeded, key_ids: KeyIds | None, alive: Callable[[], None]) -> None:
        """Take the newest one that fits. Raises SnapshotError, StoreError, KeyFileError, ClusterError."""
        wanted = Wanted(
            log_id=need.log_id,
            batch=need.batch,
            address_key_id=key_ids["address_key_id"] if key_ids else None,
            store_key_id=key_ids["store_key_id"] if key_ids else None,
        )
        with place_of(self._cluster) as place:
            manifest = fetch(
                place,
                into,
                wanted=wanted,
                stream_key=self._cluster.stream_key(),
                signers=self._cluster.signers("snapshots"),
                progress=lambda _done, _total: alive(),
                tell=self._tell,
            )
        install(into, manifest)


class ClusterMakers:
    """Makes snapshots at the place that the cluster file names, by turns with the other makers there.

    `age` is told the age in seconds of the newest one whenever it is looked at.
    """

    def __init__(
        self, cluster: Cluster, store: Path, age: Callable[[float], None], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._age = age
        self._clock = clock
        self._signing_key = cluster.signing_key("snapshots")
        self._signers = cluster.signers("snapshots")

    def is_due(self) -> bool:
        """Say whether it is this maker's turn."""
        settings = self._cluster.snapshots
        if settings is None:
            return False
        with makers_place_of(self._cluster) as place:
            found, _ = manifests_at(place, self._signers)
        newest = max((signed.manifest for signed in found), key=lambda manifest: manifest.made_ms, default=None)
        if newest is None:
            self._age(inf)  # a maker that can make none is to be noticed, too
            return True
        age_s = self._clock() - newest.made_ms / 1000
        self._age(max(0.0, age_s))
        is_own = newest.maker == maker_of(self._signing_key)
        return age_s >= settings.every_s * (_OWN_TURN if is_own else 1.0)

    @contextmanager
    def copying(self, store: Store) -> Iterator[Callable[[], None]]:
        """Copy the store; what is given puts the copy to its place."""
        with makers_place_of(self._cluster) as place:
            maker = maker_at(place, self._cluster, self._store, self._signing_key)
            with maker.copied(store) as copied:
                yield lambda: self._placed(maker.placed(copied).made_ms)

    def _placed(self, made_ms: int) -> None:
        self._age(max(0.0, self._clock() - made_ms / 1000))
