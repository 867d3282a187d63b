"""The only writer of a store: one process, one thread, one durable transaction per batch.

Everything of a batch is in its transaction: records, registries, counts, position and the source's resume point.
So whatever kills the process, the store is as after some whole batch, and says which.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

import msgspec

from iyscheck.change import Brand, ConsentColumns, Position, RetailerAccess
from iyscheck.errors import GapError, SourceUnknownError
from iyscheck.store import layout, records
from iyscheck.store.deliveries import Delivery
from iyscheck.store.encoded import EncodedChanges
from iyscheck.store.environment import read, walk
from iyscheck.store.index import Index, PlaceOrder, check_contexts
from iyscheck.store.layout import PRIMARY, Gap, SourceState, Span
from iyscheck.store.log_batch import Kind
from iyscheck.store.registries import Registries
from iyscheck.store.writable import WritableStore

HEARTBEAT_S = 2.0
"""How long a primary may be silent before it says that it lives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one commit brings. `rows` counts the feed rows consumed, rejects and skipped ones included."""

    consents: ConsentColumns
    access: Sequence[RetailerAccess]
    brands: Sequence[Brand]
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What a commit did. Watermarks map brand codes to seconds UTC: moved, and withheld because of rejects.

    `changes` are the consents that were really written, None after a fill.
    """

    applied: int
    superseded: int
    position: Position
    watermarks: dict[int, int]
    withheld: dict[int, int]
    changes: ConsentColumns | None = field(default=None, repr=False, compare=False)

    @property
    def earliest(self) -> int:
        """The first local second at which a change of a batch was registered that took effect, 0 if none did."""
        return int(self.changes.registered.min()) if self.changes is not None and len(self.changes) else 0


class Filling:
    """The one transaction in which an empty store is filled; take it from `Writer.filling`."""

    def __init__(
        self,
        registries: Registries,
        index: Index,
        entries: PlaceOrder,
        contexts: dict[tuple[int, int], tuple[int, int, int]],
    ) -> None:
        self._registries = registries
        self._index = index
        self._entries = entries
        self._contexts = contexts
        self._counts: Counter[tuple[int, int, int, int]] = Counter()
        self._applied = 0
        self.finished = False

    def register(self, brands: Sequence[Brand], access: Sequence[RetailerAccess]) -> None:
        """Write what stands beside the records, in any order. Raises ValueError for lists behind a record."""
        if access and self._applied:
            raise ValueError("lists of retailers come before the records of a fill")  # the index has a bit of them
        for brand in brands:
            self._registries.put_brand(brand)
        self._registries.put_access(access)

    def append(self, changes: EncodedChanges) -> None:
        """Write records whose keys rise and lie beyond those written before. Raises ValueError where they do not."""
        registries = self._registries
        facts = changes.facts()
        check_contexts(self._contexts, facts)
        database = registries.databases[layout.RECORDS]
        self._counts.update(records.append(registries.txn, database, changes, facts, registries.journal))
        self._applied += len(changes)
        self._entries.add(self._index.entries(facts))

    def finish(
        self,
        source: SourceState,
        *,
        rows: int,
        taken: int | None = None,
        finished: bool = False,
        proved: Span | None = None,
        delivery: Delivery | None = None,
    ) -> Applied:
        """Write index, counts, position and resume point, as `Writer.apply` does after a batch of `rows` feed rows.

        `taken` changes went into the sorting, by default as many as came out. No refusal of a first load is live.
        """
        superseded = 0 if taken is None else taken - self._applied
        self._index.load(self._entries.parts(), self._applied)
        self._index.save()
        self._registries.add_counts(self._counts)
        self.finished = True
        applied = _concluded(
            self._registries,
            source,
            rows=rows,
            applied=self._applied,
            superseded=superseded,
            finished=finished,
            proved=proved,
        )
        if delivery is not None:
            delivery.note(self._registries, None, finished=finished)
        return applied


class Writer(WritableStore):
    """Writes batches of feed rows into a store; make one with `open`."""

    def source(self, name: str) -> SourceState | None:
        """Return how far a source was loaded; None if it never was."""
        key = layout.source_key(name)
        with self._reading() as txn:
            value = read(txn, key, self._environment.databases[layout.SOURCES])
        return None if value is None else layout.decode_source(key, value)

    def sources(self) -> Iterator[SourceState]:
        """Walk all sources ever loaded."""
        with self._reading() as txn:
            stored = walk(txn, self._environment.databases[layout.SOURCES])
            yield from [layout.decode_source(key, value) for key, value in stored]

    def coverage(self, brand: int) -> tuple[int | None, list[Span], bool]:
        """Return a brand's watermark (seconds UTC), its proved spans beyond it, and whether rejects hold it."""
        with self._reading() as txn:
            registries = Registries(txn, self._environment.databases)
            held = any(brand in brands for brands in registries.holds().values())
            return registries.watermark(brand), registries.spans(brand), held

    def apply(
        self,
        batch: Batch,
        source: SourceState,
        *,
        finished: bool = False,
        proved: Span | None = None,
        delivery: Delivery | None = None,
    ) -> Applied:
        """Commit a batch with its source's new resume point; `finished` also moves the source's watermarks.

        `proved` says that with it everything of a brand in a span of time is in; `delivery` of which feed it is.

        When this returns the batch is on disk. Raises StoreFullError, and then nothing of it is.
        """
        with self._writing() as txn:
            for brand in batch.brands:
                txn.put_brand(brand)
            database = txn.databases[layout.RECORDS]
            written = records.apply(txn.txn, database, batch.consents, self._kernel, txn.journal)
            txn.add_counts(written.counts)
            txn.put_access(batch.access)
            listed = [
                layout.encode_key(each.brand, each.channel, each.recipient_type, each.tag) for each in batch.access
            ]
            self._index(txn, written, listed)
            delays = None if delivery is None else delivery.delays(txn, written.changes)
            applied = _concluded(
                txn,
                source,
                rows=batch.rows,
                applied=written.applied,
                superseded=written.superseded,
                finished=finished,
                proved=proved,
            )
            if delivery is not None:
                delivery.note(txn, delays, finished=finished)
        return replace(applied, changes=written.changes)

    def expect(self, feed: str, every_s: int) -> None:
        """Note how many seconds may lie between two successes of a feed, 0 if nobody says."""
        with self._reading() as txn:
            known = Registries(txn, self._environment.databases).feed(feed)
        if known.every != every_s:
            with self._writing() as txn:
                txn.put_feed(msgspec.structs.replace(known, every=every_s))

    def heartbeat(self, after_s: float = HEARTBEAT_S) -> bool:
        """Tell the log that this primary lives, where it has heard nothing for so long; say whether it was told.

        In a store that is no primary there is nobody to tell.
        """
        state = self.log
        if state is None or state.role != PRIMARY or self._clock() * 1000 - state.created_ms < after_s * 1000:
            return False
        with self._writing(Kind.HEARTBEAT):
            pass
        return True

    @property
    def is_empty(self) -> bool:
        """Say whether there is no record yet; there may be brands and all else."""
        with self._reading() as txn:
            return not txn.stat(self._environment.databases[layout.RECORDS])["entries"]

    @contextmanager
    def filling(self) -> Iterator[Filling]:
        """Fill a store without records in one transaction: all of it is on disk at the end, or nothing.

        Nothing is written unless `finish` is called. Raises ValueError for a store with records, StoreFullError.
        """
        if not self.is_empty:
            raise ValueError("only a store without records can be filled")
        with suppress(_NotFinishedError), self._writing() as txn, PlaceOrder(self.path) as entries:
            filling = Filling(txn, Index(txn.txn, txn.databases, self._kernel), entries, self._contexts)
            yield filling
            if not filling.finished:
                raise _NotFinishedError

    def accept_rejects(self, source_name: str) -> Applied:
        """Accept that a source's rejected rows are lost, and move the watermarks that waited for it.

        Raises SourceUnknownError where nothing of that source is waiting.
        """
        source = self.source(source_name)
        with self._writing() as txn:
            if source is None or source_name not in txn.holds():
                raise SourceUnknownError(
                    "No rejects of that source wait for acceptance.",
                    fix="'iyscheck-loader status' lists the sources that do.",
                )
            txn.put_source(_accepted(source))
            txn.put_hold(source_name, ())
            moved = txn.release_withheld()
            position = txn.advance(0)
            withheld = txn.withheld()
        return Applied(applied=0, superseded=0, position=position, watermarks=moved, withheld=withheld)

    def accept_gap(self, brand: int, *, until: int, reason: str, now_s: int) -> Applied:
        """Accept that a brand's rows between its watermark and `until` (seconds UTC) are missing; move it there.

        Raises GapError where there is nothing to accept: no watermark, one that is not older, or a brand whose
        watermark waits for rejects.
        """
        with self._writing() as txn:
            watermark = txn.watermark(brand)
            if watermark is None:
                raise GapError(
                    f"Brand {brand} has no watermark, so nothing is known of what is before the gap.",
                    fix="Load a full list with --complete-until first.",
                )
            if any(brand in brands for brands in txn.holds().values()):
                raise GapError(
                    f"Rejected rows hold the watermark of brand {brand}.",
                    fix="Mend them, or accept that they are lost with 'iyscheck-loader accept-rejects SOURCE'.",
                )
            if until <= watermark:
                raise GapError(f"The watermark of brand {brand} is not before that.", fix="Nothing need be done.")
            txn.accept_gap(Gap(brand=brand, start=watermark, end=until, accepted=now_s, reason=reason))
            moved = {brand: until} | txn.advance_over_spans([brand])
            position, withheld = txn.advance(0), txn.withheld()
        return Applied(applied=0, superseded=0, position=position, watermarks=moved, withheld=withheld)


class _NotFinishedError(Exception):
    """Nothing of a filling is to be kept."""


def _concluded(
    txn: Registries,
    source: SourceState,
    *,
    rows: int,
    applied: int,
    superseded: int,
    finished: bool,
    proved: Span | None,
) -> Applied:
    """Move the position, the source's resume point and, for a finished one, its watermarks."""
    position = txn.advance(rows)
    txn.put_hold(source.name, txn.held_brands(source))
    moved: dict[int, int] = {}
    withheld: dict[int, int] = {}
    if finished:
        moved, withheld = txn.move_watermarks(source.watermarks)
        if proved is not None:
            txn.put_span(proved)
            moved |= txn.advance_over_spans([proved.brand])
    txn.put_source(_finished(source) if finished else source)
    return Applied(applied=applied, superseded=superseded, position=position, watermarks=moved, withheld=withheld)


def _finished(source: SourceState) -> SourceState:
    return msgspec.structs.replace(source, finished=True, watermarks=())


def _accepted(source: SourceState) -> SourceState:
    return msgspec.structs.replace(source, accepted=True, rejected_brands=(), rejected_unknown=False, first_rejects=())
