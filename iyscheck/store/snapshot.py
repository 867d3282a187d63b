"""Reading a store: a snapshot is one LMDB read transaction, so everything it shows belongs together.

A snapshot is opened for each check, batch or frame and sees all that was committed before; none is kept while
nobody asks, so old pages are free to be reused. Brands and watermarks are kept decoded per transaction id.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import lmdb
import msgspec
import numpy as np
import numpy.typing as npt

from iyscheck.change import Brand, Position
from iyscheck.consent import states
from iyscheck.question import MAX_BRAND_CODE, Facts
from iyscheck.store import layout, outbox
from iyscheck.store.environment import (
    SYSTEM_ERRORS,
    Environment,
    check_keys,
    files_translated,
    open_reader,
    read,
    translated,
    translation,
    walk,
)
from iyscheck.store.index import read_state
from iyscheck.store.layout import FeedState, Gap, IndexState, LogState, SourceState, Span, Waiting
from iyscheck.store.registries import (
    read_feeds,
    read_gaps,
    read_holds,
    read_log_state,
    read_position,
    read_spans,
    read_watermarks,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrandView:
    """A brand and its watermark (seconds UTC), each None if the store has none."""

    brand: Brand | None
    watermark: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStats:
    """How full a store is: bytes of its file and free ones of its disk, reader slots, consents."""

    size_bytes: int
    free_bytes: int
    readers: int
    max_readers: int
    records: int


class Decoded:
    """What has been decoded of one transaction's registries."""

    def __init__(self, transaction_id: int, position: Position, log: LogState | None = None) -> None:
        self.transaction_id = transaction_id
        self.position = position
        self.log = log
        self.brands: dict[int, BrandView] = {}

    @classmethod
    def read(cls, txn: lmdb.Transaction, environment: Environment) -> Self:
        """Begin with the position, and how the store stands in its log."""
        meta = environment.databases[layout.META]
        return cls(txn.id(), read_position(txn, meta), read_log_state(txn, meta))


class Snapshot(msgspec.Struct, eq=False, gc=False):  # a struct: each check makes one, a class takes 0.1 µs longer
    """One consistent view; valid inside the `with` block that gave it, and only in its thread.

    `position` says where the log stands; it is the same object in all snapshots of one transaction.
    """

    _txn: lmdb.Transaction
    _path: Path
    _databases: Mapping[bytes, lmdb._Database]
    _decoded: Decoded
    position: Position

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._txn.abort()
        if error is not None and isinstance(error, SYSTEM_ERRORS):
            raise translation(self._path, error) from error

    def brand(self, code: int) -> BrandView:
        """Return a brand's registration and watermark; of a store that is not to be believed no watermark."""
        view = self._decoded.brands.get(code)
        if view is None:
            key = layout.encode_code(code)
            row = read(self._txn, key, self._databases[layout.BRANDS])
            watermark = None if self.untrusted else read(self._txn, key, self._databases[layout.WATERMARKS])
            view = BrandView(
                brand=None if row is None else layout.decode_brand(key, row),
                watermark=None if watermark is None else layout.decode_watermark(key, watermark),
            )
            if view.brand is not None:  # made-up brand codes must not fill the memory
                self._decoded.brands[code] = view
        return view

    @property
    def log(self) -> LogState | None:
        """How the store stands in its log; None in none."""
        return self._decoded.log

    @property
    def untrusted(self) -> str:
        """Why nothing commercial may be answered from here; empty if it may."""
        return "" if self._decoded.log is None else self._decoded.log.untrusted

    def record(self, key: bytes) -> tuple[int, Facts] | None:
        """Return state byte and facts of the consent at `key`; None without one. Raises StoreCorruptError."""
        value = read(self._txn, key, self._databases[layout.RECORDS])
        return None if value is None else layout.decode_facts(key, value)

    def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the raw records at N keys, None where there is none.

        They are read as they come: tags are as good as random, and to put thousands in order gains nothing.
        """
        database, get = self._databases[layout.RECORDS], self._txn.get
        return [get(key, None, database) for key in keys]  # type: ignore[misc] # as in `read`

    def states(
        self, brand: int, channel: int, recipient_type: int, tags: npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.uint8]:
        """Return the state byte of each of N recipients, 0 where there is no record; tags uint8 (N, 16).

        Retailer bits are not looked up here: `retailer_listed` is asked for the few that need it.
        """
        return self.states_at(layout.column_keys(brand, channel, recipient_type, tags))

    def states_at(self, keys: Sequence[bytes]) -> npt.NDArray[np.uint8]:
        """Return what `states` does, of the consents at N keys of any contexts."""
        values = self.values(keys)
        found = [at for at, value in enumerate(values) if value is not None]
        column = np.zeros(len(keys), np.uint8)
        if found:
            rows = layout.decode_columns([keys[at] for at in found], [values[at] or b"" for at in found])
            column[found] = states(
                rows["status"],
                rows["consented"].astype(np.int64),
                rows["registered"].astype(np.int64),
                layout.by_citizen(rows, lambda row: (values[found[row]] or b"")[layout.RECORD_BYTES :]),
                np.zeros(len(found), np.bool_),
            )
        return column

    def retailer_listed(
        self, brand: int, channel: int, recipient_type: int, tags: npt.NDArray[np.uint8], retailer: int
    ) -> npt.NDArray[np.bool_]:
        """Say for each of N recipients whether the retailer may use the consent; no list means nobody may."""
        keys = layout.column_keys(brand, channel, recipient_type, tags)
        return np.array([retailer in self.retailers(key) for key in keys], np.bool_)

    def retailers(self, key: bytes) -> frozenset[int]:
        """Return the retailers that may use the consent at `key`."""
        value = read(self._txn, key, self._databases[layout.ACCESS])
        if value is None:
            return frozenset()
        _, list_id = layout.decode_access(key, value)
        entry = read(self._txn, list_id, self._databases[layout.LISTS])
        return frozenset() if entry is None else layout.decode_list(list_id, entry).retailers

    def brands(self) -> Iterator[Brand]:
        """Walk all registered brands by code."""
        for key, value in self.items(layout.BRANDS):
            yield layout.decode_brand(key, value)

    def watermarks(self) -> dict[int, int]:
        """Return the watermarks of all brands that have one, seconds UTC by brand code; none of an untrusted store."""
        if self.untrusted:
            return {}
        return read_watermarks(self._txn, self._databases[layout.WATERMARKS])

    def withheld(self) -> dict[int, int]:
        """Return the watermarks that wait for accept-rejects."""
        return read_watermarks(self._txn, self._databases[layout.WITHHELD])

    def holds(self) -> dict[str, tuple[int, ...]]:
        """Return the brands held back by rejects that nobody has accepted, by source."""
        return read_holds(self._txn, self._databases[layout.HOLDS])

    def spans(self) -> list[Span]:
        """Return the proved spans that no watermark has reached yet."""
        database = self._databases.get(layout.SPANS)
        return [] if database is None else read_spans(self._txn, database)

    def gaps(self) -> list[Gap]:
        """Return the gaps that somebody accepted."""
        database = self._databases.get(layout.GAPS)
        return [] if database is None else read_gaps(self._txn, database)

    def outbox_messages(self, batch: int) -> list[bytes]:
        """Return the messages of a batch that is in the outbox, in their order; none of another. StoreCorruptError."""
        return outbox.messages_of(self._txn, self._databases, batch) if layout.OUTBOX in self._databases else []

    def outbox_batches(self, first: int = 0) -> Iterator[tuple[int, Waiting]]:
        """Walk the batches of the outbox from one on, without their messages."""
        if layout.OUTBOX in self._databases:
            yield from outbox.waiting(self._txn, self._databases, first)

    def outbox_bytes(self) -> int:
        """Return how many bytes of the file the outbox takes."""
        return outbox.size_bytes(self._txn, self._databases) if layout.OUTBOX in self._databases else 0

    def sums(self) -> dict[int, int]:
        """Return the digest by brand, 0 of what is of none, as it was kept; nothing of a store that is in no log."""
        if layout.SUMS not in self._databases:
            return {}
        return {layout.decode_code(key): layout.decode_sum(key, value) for key, value in self.items(layout.SUMS)}

    def counts(self) -> dict[tuple[int, int, int, int], int]:
        """Return the number of records by (brand, channel, recipient type, status)."""
        return {layout.decode_count_key(key): layout.decode_number(value) for key, value in self.items(layout.COUNTS)}

    def sources(self) -> Iterator[SourceState]:
        """Walk all sources ever loaded."""
        for key, value in self.items(layout.SOURCES):
            yield layout.decode_source(key, value)

    def source(self, name: str) -> SourceState | None:
        """Return how far a source was loaded; None if it never was."""
        key = layout.source_key(name)
        value = read(self._txn, key, self._databases[layout.SOURCES])
        return None if value is None else layout.decode_source(key, value)

    def unfinished_sources(self) -> int:
        """Count the sources that were not loaded to their end, without reading all of each."""
        return sum(not layout.is_finished(value) for _, value in self.items(layout.SOURCES))

    def feeds(self) -> list[FeedState]:
        """Return what is known of the feeds."""
        return read_feeds(self._txn, self._databases[layout.META])

    def entries(self, database: bytes) -> int:
        """Count the keys of one named database."""
        return int(self._txn.stat(self._databases[database])["entries"])

    def records_of(self, brand: int) -> int:
        """Count the records of a brand."""
        first = layout.encode_code(brand)
        own = takewhile(lambda item: item[0].startswith(first), self.items(layout.COUNTS, first))
        return sum(layout.decode_number(value) for _, value in own)

    def recorded_brands(self) -> Iterator[int]:
        """Walk the brands that have records, registered or not, by code; the time is that of their number."""
        first = layout.encode_code(0)
        while (found := next(self.items(layout.COUNTS, first), None)) is not None:
            brand = layout.decode_count_key(found[0])[0]
            yield brand
            if brand == MAX_BRAND_CODE:
                return
            first = layout.encode_code(brand + 1)

    def index_state(self) -> IndexState | None:
        """Return what the decision index consists of; None if there is none. Raises StoreCorruptError."""
        return read_state(self._txn, self._databases[layout.META])

    def page(self, generation: int, shard: int) -> bytes | None:
        """Return a page of the decision index."""
        return read(self._txn, layout.encode_shard(generation, shard), self._databases[layout.INDEX])

    def keys_between(self, database: bytes, first: bytes, last: bytes) -> set[bytes]:
        """Return the keys of one named database from `first` to `last`, both included."""
        with self._txn.cursor(self._databases[database]) as cursor:
            if not cursor.set_range(first):
                return set()
            keys = cast("Iterator[bytes]", cursor.iternext(keys=True, values=False))
            return set(takewhile(lambda key: key <= last, keys))

    def items(self, database: bytes, first: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Walk the raw keys and values of one named database in key order, from a key on."""
        return walk(self._txn, self._databases[database], first)


class Store:
    """A store opened for reading. Safe from many threads: each snapshot is its own transaction."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._decoded = Decoded(-1, Position(b"", 0))

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, address_key_id: bytes | None = None, store_key_id: bytes | None = None
    ) -> Self:
        """Open a store and compare its keys with the given ids (None is not compared)."""
        environment = open_reader(path)
        with translated(environment.path):
            check_keys(environment, address_key_id=address_key_id, store_key_id=store_key_id)
        return cls(environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def environment(self) -> Environment:
        """The open environment, for column views of it."""
        return self._environment

    def close(self) -> None:
        """Close it: what is asked from now on is refused, open snapshots stay good. Once is enough, twice no harm.

        The files are closed as soon as no snapshot is open, in this store and others of this process that share it.
        """
        self._environment = self._environment.closed()

    def refuse_closed(self) -> None:
        """Raise StoreClosedError where the store was closed or this process forked; costs next to nothing."""
        _ = self._environment.lmdb.begin

    def snapshot(self) -> Snapshot:
        """Open a view of everything that is committed now; the end of its `with` block closes it.

        Raises StoreUnreadableError, StoreCorruptError, StoreClosedError; so does its use. No generator: those take
        longer to enter and leave than the check inside.
        """
        environment = self._environment
        try:
            txn = environment.lmdb.begin()
        except SYSTEM_ERRORS as error:
            if environment.swept(error):
                return self.snapshot()
            raise translation(environment.path, error) from error
        try:
            decoded = self._decoded
            transaction_id = txn.id()
            if decoded.transaction_id != transaction_id:
                decoded = self._decoded = Decoded.read(txn, environment)
            return Snapshot(txn, environment.path, environment.databases, decoded, decoded.position)
        except BaseException as error:
            txn.abort()
            if isinstance(error, SYSTEM_ERRORS):
                raise translation(environment.path, error) from error
            raise

    def transaction_id(self) -> int:
        """Return the number of the newest transaction: another one means that something was committed."""
        with translated(self._environment.path):
            return self._environment.last_transaction_id()

    def meta(self, field: bytes) -> bytes:
        """Return one field of the store's own description, empty if absent."""
        with translated(self._environment.path), self._environment.lmdb.begin() as txn:
            return read(txn, field, self._environment.databases[layout.META]) or b""

    def stats(self) -> StoreStats:
        """Return how full the store is."""
        environment = self._environment
        with files_translated(environment.path), environment.lmdb.begin() as txn:
            info = environment.lmdb.info()
            return StoreStats(
                size_bytes=environment.size_bytes(),
                free_bytes=shutil.disk_usage(environment.path).free,
                readers=info["num_readers"],
                max_readers=info["max_readers"],
                records=txn.stat(environment.databases[layout.RECORDS])["entries"],
            )

    def sweep_readers(self) -> int:
        """Free the slots of readers that died; returns how many."""
        with translated(self._environment.path):
            return int(self._environment.lmdb.reader_check())
