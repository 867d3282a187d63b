"""The store that an engine reads: looked after, waited for, and opened anew where other files came to its path."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final
from weakref import finalize

from iyscheck.change import LogStanding, Position
from iyscheck.errors import NotYetAtPositionError, PositionOfOtherLogError, StoreError, StoreReplacedError
from iyscheck.store import layout
from iyscheck.store.environment import translated
from iyscheck.store.mapping import FileMapping
from iyscheck.store.snapshot import Store
from iyscheck.store.view import Views

LOOK_S: Final = 0.5
"""How often it is looked whether the store's files were replaced, while anybody asks."""
_POLL_S: Final = 0.005
_REPLICA_SHARE: Final = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """How fresh the store is: position, and the newest and oldest watermark of its brands (seconds UTC).

    `log` says how it stands in its log, None if it is in none.
    """

    position: Position
    newest_watermark: int | None
    oldest_watermark: int | None
    log: layout.LogState | None = None

    def standing(self, now: float) -> LogStanding | None:
        """Say how the store stands in its log, at a time in seconds UTC."""
        return None if self.log is None else standing_of(self.log, now)

    def lag_s(self, now: float) -> float | None:
        """How far a replica is behind its primary; None of what is no replica."""
        standing = self.standing(now)
        return None if standing is None else standing.lag_s


def standing_of(log: layout.LogState, now: float) -> LogStanding:
    """Say how a store stands in its log, at a time in seconds UTC."""
    lag_s = max(now - log.created_ms / 1_000, 0.0) if log.role == layout.REPLICA else None
    return LogStanding(role=log.role, term=log.term, batch=log.batch, lag_s=lag_s, untrusted=bool(log.untrusted))


class OpenedStore:
    """One store for any number of threads; after `close` what is asked raises StoreClosedError.

    `store` gives snapshots and `views` columns; both change with the files at the path. `seen` is the newest position
    that was met. `replaced` says why nothing can be read: the open files are no longer those of the path, and what is
    there cannot be opened. Then nothing that is open is believed to be fresh. From `look_again_s` on, of the monotonic
    clock, whoever asks calls `look` first.
    """

    def __init__(self, store: Store, *, store_key_id: bytes, address_key_id: bytes) -> None:
        self.store = store
        self.views = Views(store.environment)
        self.replaced: StoreError | None = None
        self.look_again_s = 0.0
        self._key_ids = {"store_key_id": store_key_id, "address_key_id": address_key_id}
        self._looking = threading.Lock()
        self._see_lock = threading.Lock()
        self._mapping: FileMapping | None = None
        with store.snapshot() as snapshot:
            self.seen = snapshot.position

    def map_ahead(self) -> None:
        """Have the page tables filled by a thread, until `close` or until nobody holds this any more."""
        self._mapping = FileMapping(self.store.environment)
        finalize(self, self._mapping.stop)

    def close(self) -> None:
        """Close the store: what is open stays good until its end. Twice does no harm."""
        if self._mapping is not None:
            self._mapping.close()
        self.views.close()
        self.store.close()

    def see(self, position: Position) -> None:
        """Remember the newest position, for the answers that do not read the store."""
        if position.sequence > self.seen.sequence:
            with self._see_lock:
                self.seen = max(self.seen, position, key=lambda seen: seen.sequence)

    def look(self) -> None:
        """See whether the open files are still those at the path, and open these where they are not.

        Where that fails, nothing open is believed to be fresh until it succeeds: everything commercial is DATA_STALE.
        """
        if monotonic() < self.look_again_s or not self._looking.acquire(blocking=False):
            return  # another thread is just looking
        try:
            environment = self.store.environment
            if environment.files is None:
                return  # closed
            try:
                with translated(environment.path):
                    environment.refuse_replaced()
                self.replaced = None
            except StoreReplacedError as error:
                self._reopen(environment.path, error)
            except StoreError:
                pass  # as all reader slots taken: who asks meets it, and is told
            self.look_again_s = monotonic() + LOOK_S
        finally:
            self._looking.release()

    def wait_for(self, position: Position, timeout_s: float) -> None:
        """Wait until the store has come to a position; a replica not for all of the time: another may have come so far.

        Raises PositionOfOtherLogError, and NotYetAtPositionError when the time is over.
        """
        began = time.monotonic()
        while True:
            with self.store.snapshot() as snapshot:
                here, log = snapshot.position, snapshot.log
            if here.log_id != position.log_id:
                raise PositionOfOtherLogError(
                    "min_position belongs to another store's log.", fix="Use positions that this store's answers gave."
                )
            if here.sequence >= position.sequence:
                return
            replica = log is not None and log.role == layout.REPLICA
            if time.monotonic() + _POLL_S >= began + timeout_s * (_REPLICA_SHARE if replica else 1):
                raise NotYetAtPositionError(
                    f"The store is at {here.sequence}, not yet at {position.sequence}.",
                    fix="Ask again in a moment.",
                    elsewhere=replica,
                )
            time.sleep(_POLL_S)

    def freshness(self) -> Freshness:
        """Return position and watermarks from one snapshot. Raises StoreError, as `replaced` is one."""
        self.look()
        if self.replaced is not None:
            raise self.replaced
        with self.store.snapshot() as snapshot:
            watermarks = snapshot.watermarks().values()
            return Freshness(
                position=snapshot.position,
                newest_watermark=max(watermarks, default=None),
                oldest_watermark=min(watermarks, default=None),
                log=snapshot.log,
            )

    def _reopen(self, path: Path, error: StoreError) -> None:
        """Take the store that is at the path now, or remember why not. Whoever reads the old files ends undisturbed."""
        try:
            store = Store.open(path, **self._key_ids)
            with store.snapshot() as snapshot:
                position = snapshot.position
        except (StoreError, OSError) as refused:
            self.replaced = refused if isinstance(refused, StoreError) else error
            return
        mapping = self._mapping
        if mapping is not None:
            mapping.stop()
        self.store, self.views = store, Views(store.environment)  # the old ones end with their last use
        with self._see_lock:
            self.seen = position  # of another log perhaps
        self.replaced = None
        if mapping is not None:
            self.map_ahead()
