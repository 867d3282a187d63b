"""A store open for writing: by one process, in one durable transaction after the other.

Each transaction that changes what replicas share becomes a batch of the log, if the store is in one: the messages are
made inside the transaction, and lie in its outbox with it.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

import lmdb

from iyscheck.change import LOG_ID_BYTES, Position
from iyscheck.errors import StoreMissingError, StoreRoleError
from iyscheck.kernel import Kernel
from iyscheck.store import layout, log, records
from iyscheck.store.acknowledged import NOT_THE_PRIMARY, read_acknowledged
from iyscheck.store.environment import (
    Environment,
    WriterLock,
    check_keys,
    newest_in_file,
    open_writer,
    read,
    translated,
    walk,
)
from iyscheck.store.index import Index, check_contexts, pages, read_state
from iyscheck.store.journal import Journal
from iyscheck.store.layout import PRIMARY, IndexState, LogState
from iyscheck.store.log_batch import Kind, Sealer
from iyscheck.store.registries import Registries, read_log_state, read_position

REBUILD_SLICE: Final = 250_000
"""Consents built into the index in one transaction."""
DROPPED_AT_ONCE: Final = 20_000
"""Pages of an old index deleted in one transaction."""


class WritableStore:
    """A store open for writing; make one with `open`. `clock` tells UTC seconds."""

    def __init__(
        self,
        environment: Environment,
        lock: WriterLock,
        kernel: Kernel,
        *,
        sealer: Sealer | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._environment = environment
        self._lock = lock
        self._kernel = kernel
        self._sealer = sealer
        self._clock = clock
        self.upgraded_from: int | None = None
        """The older format that the store had when it was opened, None if it had this one or was made."""
        self._contexts: dict[tuple[int, int], tuple[int, int, int]] = {}

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        address_key_id: bytes,
        store_key_id: bytes,
        kernel: Kernel = Kernel.NUMPY,
        make_index: bool = True,
        sealer: Sealer | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Open a store for writing, making it if there is none; one without a decision index is given one.

        With `make_index` false it is left as it is, for who will rebuild it. What changes a primary needs its `sealer`.

        Raises StoreBusyError, StoreKeysError, StoreFormatError, StoreFullError, StoreUnreadableError.
        """
        return cls._opened(
            path, (address_key_id, store_key_id), kernel, make_index=make_index, sealer=sealer, clock=clock
        )

    @classmethod
    def reopen(
        cls,
        path: str | os.PathLike[str],
        *,
        kernel: Kernel = Kernel.NUMPY,
        sealer: Sealer | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Open a store for writing that is there, whatever keys it was written with.

        Raises StoreMissingError, and what `open` raises.
        """
        if not newest_in_file(Path(path)):
            raise StoreMissingError(
                f"There is no store at '{path}'.", fix="Correct the path, or let 'iyscheck-loader replicate' fill it."
            )
        return cls._opened(path, None, kernel, make_index=True, sealer=sealer, clock=clock)

    @classmethod
    def _opened(
        cls,
        path: str | os.PathLike[str],
        key_ids: tuple[bytes, bytes] | None,
        kernel: Kernel,
        *,
        make_index: bool,
        sealer: Sealer | None,
        clock: Callable[[], float],
    ) -> Self:
        lock = WriterLock(path)
        try:
            environment = open_writer(path)
            try:
                address_key_id, store_key_id = key_ids or _key_ids(environment)
                older = _initialise(environment, address_key_id, store_key_id)
                check_keys(environment, address_key_id=address_key_id, store_key_id=store_key_id)
                store = cls(environment, lock, kernel, sealer=sealer, clock=clock)
                store.upgraded_from = older
                store._know_contexts()
                if make_index and not store._has_index():
                    store.rebuild_index()
            except BaseException:
                environment.close()
                raise
        except BaseException:
            lock.release()
            raise
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the store and let the next writer in."""
        self._environment.close()
        self._lock.release()

    @property
    def path(self) -> Path:
        """The store's directory."""
        return self._environment.path

    @property
    def environment(self) -> Environment:
        """The open environment, for a reader in the same process."""
        return self._environment

    @property
    def position(self) -> Position:
        """Where the log stands."""
        with self._reading() as txn:
            return read_position(txn, self._environment.databases[layout.META])

    @property
    def key_ids(self) -> tuple[bytes, bytes]:
        """The ids of the address key and of the store key that it is written with."""
        return _key_ids(self._environment)

    @property
    def log(self) -> LogState | None:
        """How the store stands in its log; None in none."""
        with self._reading() as txn:
            return read_log_state(txn, self._environment.databases[layout.META])

    def seal_with(self, sealer_of: Callable[[LogState], Sealer]) -> None:
        """Take what seals the batches of a primary; of a store that is in no log nothing is asked.

        Raises StoreRoleError where the store is a replica, which its log alone changes, or the primary no more.
        """
        if (state := self.log) is not None:
            self._refuse_replica(state)
            self._acknowledged()
            self._sealer = sealer_of(state)

    def rebuild_index(self, progress: Callable[[int, int], None] = lambda _, __: None) -> IndexState:
        """Build the decision index anew from the records and use it; readers go on with the old one until then.

        `progress` is told how many of how many pages are built. It may be stopped at any moment and begun again.
        Raises StoreFullError.
        """
        with self._writing() as txn:
            index = Index.whatever_it_is(txn.txn, txn.databases, self._kernel)
            index.forget()
            index.start_for(txn.txn.stat(txn.databases[layout.RECORDS])["entries"])
            total = index.state.building_shards
            index.save()
        finished = False
        while not finished:
            with self._writing() as txn:
                index = Index(txn.txn, txn.databases, self._kernel)
                finished = index.advance(REBUILD_SLICE)
                index.save()
            progress(total if finished else index.state.frontier, total)
        more = True
        while more:
            with self._writing() as txn:
                more = Index(txn.txn, txn.databases, self._kernel).drop(DROPPED_AT_ONCE)
        return index.state

    def _know_contexts(self) -> None:
        """Collect the contexts that have records, so that a new one can be told from them."""
        with self._reading() as txn:
            for key, _ in walk(txn, self._environment.databases[layout.COUNTS]):
                context = layout.decode_count_key(key)[:3]
                self._contexts[pages.salts(*context)] = context

    def _has_index(self) -> bool:
        """Say whether there is an index in use. Raises StoreCorruptError where that cannot be told."""
        with self._reading() as txn:
            state = read_state(txn, self._environment.databases[layout.META])
        return state is not None and state.generation > 0

    def _index(self, txn: Registries, written: records.Written, listed: Sequence[bytes]) -> None:
        """Bring the decision index up to date with what a batch wrote; `listed` are keys of lists of retailers."""
        if not len(written.changes) and not listed:
            return
        check_contexts(self._contexts, written.changes)
        index = Index(txn.txn, txn.databases, self._kernel)
        index.record(written.changes, listed, added=int(written.added.sum()))
        index.save()

    @contextmanager
    def _reading(self) -> Iterator[lmdb.Transaction]:
        with translated(self._environment.path), self._environment.lmdb.begin() as txn:
            yield txn

    @contextmanager
    def _writing(self, kind: Kind = Kind.CHANGES) -> Iterator[Registries]:
        """Change the store in one transaction, and tell its log what it changed.

        It is not committed where its files were replaced meanwhile. Raises StoreRoleError where a replica would be
        changed, a primary without its sealer, or one that is it no more.
        """
        with self._transaction() as txn:
            state = txn.log_state()
            if state is None:
                yield txn
                return
            txn.journal.kept = True
            before = read_position(txn.txn, txn.databases[layout.META])
            yield txn
            if kind is Kind.CHANGES and txn.journal.is_empty and txn.advance(0) == before:
                return
            self._refuse_replica(state)
            acknowledged = self._acknowledged()
            if self._sealer is None:
                raise StoreRoleError(
                    f"The store at '{self.path}' is the primary of a log, and what changes it has to be sealed.",
                    fix="Name the cluster file in IYSCHECK_CLUSTER.",
                )
            log.tell(
                txn,
                state,
                self._sealer,
                kind=kind,
                before=before,
                now_ms=int(self._clock() * 1000),
                acknowledged=acknowledged,
            )

    @contextmanager
    def _transaction(self, journal: Journal | None = None) -> Iterator[Registries]:
        environment = self._environment
        with translated(environment.path):
            environment.refuse_replaced()
            with environment.lmdb.begin(write=True) as txn:
                yield Registries(txn, environment.databases, journal)
                environment.refuse_replaced()

    def _refuse_replica(self, state: LogState) -> None:
        if state.role != PRIMARY:
            raise StoreRoleError(
                f"The store at '{self.path}' is a replica: only its log changes it.",
                fix="Load on the primary, or make this one the primary with 'iyscheck-loader promote'.",
            )

    def _acknowledged(self) -> int:
        """Return up to which batch the log has it; 0 where nobody said.

        Raises StoreRoleError where the log has another primary: what came in now would lie where that one's changes do.
        """
        batch = read_acknowledged(self.path)
        if batch == NOT_THE_PRIMARY:
            raise StoreRoleError(
                f"The store at '{self.path}' is the primary of its log no more: 'iyscheck-loader publish' found there "
                "what another primary has made, or batches of this store that are not in it.",
                fix="Its log says what. If another machine is the primary, let this one follow it: 'iyscheck-loader "
                "replicate' with a store of its own. If this one is to go on, stop 'publish' and run 'iyscheck-loader "
                "promote', or 'promote --rebase'.",
            )
        return batch


def _key_ids(environment: Environment) -> tuple[bytes, bytes]:
    """Return the ids of the keys that a store was written with."""
    meta = environment.databases[layout.META]
    with environment.lmdb.begin() as txn:
        found = tuple(read(txn, name, meta) for name in (layout.META_ADDRESS_KEY_ID, layout.META_STORE_KEY_ID))
    if found[0] is None or found[1] is None:
        raise StoreMissingError(
            f"The store at '{environment.path}' was never filled.", fix="Remove the directory and begin anew."
        )
    return found[0], found[1]


def _initialise(environment: Environment, address_key_id: bytes, store_key_id: bytes) -> int | None:
    """Give a new store its format, log and key ids, all at once; an older one the newest format, and return its own."""
    meta = environment.databases[layout.META]
    with environment.lmdb.begin(write=True) as txn:
        stored = read(txn, layout.META_FORMAT, meta)
        older = None if stored is None else layout.decode_number(stored)
        if older is None or older < layout.FORMAT_VERSION:
            txn.put(layout.META_FORMAT, layout.encode_number(layout.FORMAT_VERSION), db=meta)
        if stored is None:
            txn.put(layout.META_LOG_ID, os.urandom(LOG_ID_BYTES), db=meta)
            txn.put(layout.META_SEQUENCE, layout.encode_number(0), db=meta)
            txn.put(layout.META_ADDRESS_KEY_ID, address_key_id, db=meta)
            txn.put(layout.META_STORE_KEY_ID, store_key_id, db=meta)
    return None if older == layout.FORMAT_VERSION else older
