"""Everything beside the records: brands, watermarks and holds, retailer access, counts, sources, position.

Each registry keeps its own registration time: newest wins, on a tie the restrictive one.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import takewhile

import lmdb

from iyscheck.change import Brand, Position, RetailerAccess, merge_access, merge_brand
from iyscheck.errors import StoreCorruptError
from iyscheck.store import layout
from iyscheck.store.environment import read, walk
from iyscheck.store.journal import Journal
from iyscheck.store.layout import FeedState, Gap, LogState, RetailerList, SourceState, Span
from iyscheck.store.log_batch import Value


class Registries:
    """What may be changed in a write transaction besides the records.

    What replicas share is taken down in `journal`, which records are written into as well.
    """

    def __init__(
        self, txn: lmdb.Transaction, databases: Mapping[bytes, lmdb._Database], journal: Journal | None = None
    ) -> None:
        self.txn = txn
        self.databases = databases
        self.journal = journal or Journal(kept=False)

    def put_values(self, values: Iterable[Value]) -> None:
        """Write values of named databases as another store had them."""
        for name, key, value in values:
            self._put(name, key, value)

    def _put(self, name: bytes, key: bytes, value: bytes | None) -> None:
        """Write a value that replicas share; None takes it away."""
        database = self.databases[name]
        if self.journal.kept:
            self.journal.put(name, key, read(self.txn, key, database), value)
        if value is None:
            self.txn.delete(key, db=database)
        else:
            self.txn.put(key, value, db=database)

    def log_state(self) -> LogState | None:
        """Return how the store stands in its log; None in none."""
        return read_log_state(self.txn, self.databases[layout.META])

    def put_log_state(self, state: LogState) -> None:
        """Write how the store stands in its log."""
        self.txn.put(layout.META_LOG, layout.encode_log_state(state), db=self.databases[layout.META])

    def add_sums(self, sums: Mapping[int, int]) -> int:
        """Add to the brands' parts of the digest; return by how much the whole one changes."""
        database, total = self.databases[layout.SUMS], 0
        for brand, difference in sums.items():
            key = layout.encode_code(brand)
            stored = read(self.txn, key, database)
            new = (difference + (layout.decode_sum(key, stored) if stored is not None else 0)) % layout.DIGEST_MODULUS
            self.txn.put(key, layout.encode_sum(brand, new), db=database)
            total += difference
        return total % layout.DIGEST_MODULUS

    def move_to(self, sequence: int) -> Position:
        """Move the position to where the log's is."""
        meta = self.databases[layout.META]
        self.txn.put(layout.META_SEQUENCE, layout.encode_number(sequence), db=meta)
        return read_position(self.txn, meta)

    def advance(self, rows: int) -> Position:
        """Move the position forward; it never goes back."""
        meta = self.databases[layout.META]
        sequence = layout.decode_number(read(self.txn, layout.META_SEQUENCE, meta) or b"") + rows
        self.txn.put(layout.META_SEQUENCE, layout.encode_number(sequence), db=meta)
        return read_position(self.txn, meta)

    def put_source(self, source: SourceState) -> None:
        """Write how far the source has come."""
        self._put(layout.SOURCES, layout.source_key(source.name), layout.encode_source(source))

    def feed(self, name: str) -> FeedState:
        """Return what is known of a feed: nothing of a new one, nor of one that is damaged, for which no load fails."""
        key = layout.feed_field(name)
        value = read(self.txn, key, self.databases[layout.META])
        with suppress(StoreCorruptError):
            return FeedState(name=name) if value is None else layout.decode_feed(key, value)
        return FeedState(name=name)

    def feed_names(self) -> set[str]:
        """Return the names of all feeds."""
        return {layout.feed_name(key) for key, _ in _feeds(self.txn, self.databases[layout.META])}

    def put_feed(self, feed: FeedState) -> None:
        """Write what is known of a feed."""
        self._put(layout.META, layout.feed_field(feed.name), layout.encode_feed(feed))

    def put_brand(self, new: Brand) -> None:
        """Register or change a brand: newest wins, on a tie the restrictive value."""
        key, database = layout.encode_code(new.brand), self.databases[layout.BRANDS]
        stored = read(self.txn, key, database)
        merged = new if stored is None else merge_brand(layout.decode_brand(key, stored), new)
        self._put(layout.BRANDS, key, layout.encode_brand(merged))

    def put_access(self, accesses: Sequence[RetailerAccess]) -> None:
        """Register which retailers may use consents: newest wins, on a tie what both allow."""
        database = self.databases[layout.ACCESS]
        users: Counter[frozenset[int]] = Counter()
        ids: dict[frozenset[int], bytes] = {}  # many consents share few lists
        lists: dict[bytes, frozenset[int]] = {}
        for new in accesses:
            key = _access_key(new)
            value = read(self.txn, key, database)
            merged = new
            if value is not None:
                stored = self._stored_access(new, key, value, lists)
                merged = merge_access(stored, new)
                if merged is stored:
                    continue
                users[stored.retailers] -= 1
            if merged.retailers not in ids:
                ids[merged.retailers] = layout.list_id(merged.retailers)
                lists[ids[merged.retailers]] = merged.retailers
            users[merged.retailers] += 1
            access = layout.encode_access(key, merged.registered, ids[merged.retailers])
            self._put(layout.ACCESS, key, access)
        for retailers, more in users.items():
            if more:
                self._use_list(retailers, more)

    def _stored_access(
        self, new: RetailerAccess, key: bytes, value: bytes, lists: dict[bytes, frozenset[int]]
    ) -> RetailerAccess:
        """Read what is registered for a consent; `lists` are those known by id, to which those read are added."""
        registered, list_id = layout.decode_access(key, value)
        if list_id not in lists:
            lists[list_id] = self._list(list_id).retailers
        return replace(new, registered=registered, retailers=lists[list_id])

    def _list(self, list_id: bytes) -> RetailerList:
        value = read(self.txn, list_id, self.databases[layout.LISTS])
        if value is None:
            raise StoreCorruptError(
                "The store lacks a retailer list that a consent names.",
                fix="Run 'iyscheck-loader verify', then load the feed into a new store.",
            )
        return layout.decode_list(list_id, value)

    def _use_list(self, retailers: frozenset[int], users: int) -> None:
        """Count the users of a list; one that nobody uses is dropped."""
        list_id, database = layout.list_id(retailers), self.databases[layout.LISTS]
        stored = read(self.txn, list_id, database)
        total = users + (layout.decode_list(list_id, stored).users if stored is not None else 0)
        if total:
            self._put(layout.LISTS, list_id, layout.encode_list(RetailerList(users=total, retailers=retailers)))
        else:
            self._put(layout.LISTS, list_id, None)

    def add_counts(self, differences: Mapping[tuple[int, int, int, int], int]) -> None:
        """Add the differences to the counts; a count of nothing is not kept."""
        database = self.databases[layout.COUNTS]
        for group, difference in differences.items():
            key = layout.encode_count_key(*group)
            stored = read(self.txn, key, database)
            total = difference + (layout.decode_number(stored) if stored is not None else 0)
            if total:
                self.txn.put(key, layout.encode_number(total), db=database)
            else:
                self.txn.delete(key, db=database)

    def put_hold(self, source_name: str, brands: Sequence[int]) -> None:
        """Remember of which brands a source rejected rows that nobody has accepted."""
        key, database = layout.source_key(source_name), self.databases[layout.HOLDS]
        if brands:
            self._put(layout.HOLDS, key, layout.encode_hold(source_name, brands))
        elif read(self.txn, key, database) is not None:
            self._put(layout.HOLDS, key, None)

    def held_brands(self, source: SourceState) -> Sequence[int]:
        """Return the brands of which the source may have lost a row: all that it asks a watermark for."""
        asks_for_all = any(not brand for brand, _ in source.watermarks)
        if not (source.rejected_unknown and asks_for_all):
            return source.held_brands
        return sorted({*source.held_brands, *self._registered()})

    def holds(self) -> dict[str, tuple[int, ...]]:
        """Return the brands held back, by source."""
        return read_holds(self.txn, self.databases[layout.HOLDS])

    def withheld(self) -> dict[int, int]:
        """Return the watermarks that wait, by brand."""
        return read_watermarks(self.txn, self.databases[layout.WITHHELD])

    def move_watermarks(self, asked: Sequence[tuple[int, int]]) -> tuple[dict[int, int], dict[int, int]]:
        """Move the asked watermarks forward, or withhold those of held brands; brand 0 asks for all registered.

        A brand is held while any source has unaccepted rejects of it: its watermark would claim what is not in.
        """
        held = self._held()
        moved: dict[int, int] = {}
        withheld: dict[int, int] = {}
        for asked_brand, seconds in asked:
            for brand in (asked_brand,) if asked_brand else self._registered():
                into, name = (withheld, layout.WITHHELD) if brand in held else (moved, layout.WATERMARKS)
                if self._forward(name, brand, seconds):
                    into[brand] = seconds
        return moved | self.advance_over_spans(moved), withheld

    def put_span(self, span: Span) -> None:
        """Remember that everything between two moments is in; of two spans that begin together the longer one."""
        key, database = layout.encode_span_key(span.brand, span.start), self.databases[layout.SPANS]
        stored = read(self.txn, key, database)
        if stored is None or layout.decode_span(key, stored).end < span.end:
            self._put(layout.SPANS, key, layout.encode_span(span))

    def advance_over_spans(self, brands: Iterable[int]) -> dict[int, int]:
        """Move the watermarks of brands that nothing holds over the proved spans that they touch; say to when.

        A brand without a watermark has none to move: a span says nothing of what was before it.
        """
        held = self._held()
        moved: dict[int, int] = {}
        for brand in set(brands) - held:
            watermark = self.watermark(brand)
            if watermark is None:
                continue
            for span in self.spans(brand):
                if span.start > watermark:
                    break
                self._put(layout.SPANS, layout.encode_span_key(brand, span.start), None)
                if self._forward(layout.WATERMARKS, brand, span.end):
                    moved[brand] = watermark = span.end
        return moved

    def spans(self, brand: int) -> list[Span]:
        """Return the proved spans of a brand that its watermark has not reached, in the order of time."""
        return [span for span in read_spans(self.txn, self.databases[layout.SPANS]) if span.brand == brand]

    def watermark(self, brand: int) -> int | None:
        """Return a brand's watermark, seconds UTC; None if it has none."""
        key = layout.encode_code(brand)
        stored = read(self.txn, key, self.databases[layout.WATERMARKS])
        return None if stored is None else layout.decode_watermark(key, stored)

    def accept_gap(self, gap: Gap) -> None:
        """Remember that a brand's missing rows are accepted, and move its watermark to the end of the gap."""
        self._put(layout.GAPS, layout.encode_gap_key(gap.brand, gap.end), layout.encode_gap(gap))
        self._forward(layout.WATERMARKS, gap.brand, gap.end)

    def release_withheld(self) -> dict[int, int]:
        """Move the withheld watermarks of all brands that nothing holds any more."""
        held = self._held()
        moved: dict[int, int] = {}
        for brand, seconds in self.withheld().items():
            if brand in held:
                continue
            self._put(layout.WITHHELD, layout.encode_code(brand), None)
            if self._forward(layout.WATERMARKS, brand, seconds):
                moved[brand] = seconds
        waiting = {span.brand for span in read_spans(self.txn, self.databases[layout.SPANS])}
        return moved | self.advance_over_spans(waiting)

    def _held(self) -> set[int]:
        return {brand for brands in self.holds().values() for brand in brands}

    def _registered(self) -> list[int]:
        return [layout.decode_code(key) for key, _ in walk(self.txn, self.databases[layout.BRANDS])]

    def _forward(self, database_name: bytes, brand: int, seconds: int) -> bool:
        key, database = layout.encode_code(brand), self.databases[database_name]
        stored = read(self.txn, key, database)
        if stored is not None and layout.decode_watermark(key, stored) >= seconds:
            return False
        self._put(database_name, key, layout.encode_watermark(brand, seconds))
        return True


def _access_key(access: RetailerAccess) -> bytes:
    return layout.encode_key(access.brand, access.channel, access.recipient_type, access.tag)


def read_holds(txn: lmdb.Transaction, database: lmdb._Database) -> dict[str, tuple[int, ...]]:
    """Read the brands held back by unaccepted rejects, by source name."""
    return dict(layout.decode_hold(key, value) for key, value in walk(txn, database))


def read_spans(txn: lmdb.Transaction, database: lmdb._Database) -> list[Span]:
    """Read all proved spans, by brand and in the order of time."""
    return [layout.decode_span(key, value) for key, value in walk(txn, database)]


def read_gaps(txn: lmdb.Transaction, database: lmdb._Database) -> list[Gap]:
    """Read all accepted gaps, by brand and in the order of time."""
    return [layout.decode_gap(key, value) for key, value in walk(txn, database)]


def read_feeds(txn: lmdb.Transaction, database: lmdb._Database) -> list[FeedState]:
    """Read all feeds, by name."""
    return [layout.decode_feed(key, value) for key, value in _feeds(txn, database)]


def _feeds(txn: lmdb.Transaction, database: lmdb._Database) -> Iterator[tuple[bytes, bytes]]:
    return takewhile(lambda field: field[0].startswith(layout.META_FEED), walk(txn, database, layout.META_FEED))


def read_watermarks(txn: lmdb.Transaction, database: lmdb._Database) -> dict[int, int]:
    """Read all watermarks of a database: seconds UTC by brand code."""
    return {layout.decode_code(key): layout.decode_watermark(key, value) for key, value in walk(txn, database)}


def read_log_state(txn: lmdb.Transaction, database: lmdb._Database) -> LogState | None:
    """Read how the store stands in its log; None in none."""
    stored = read(txn, layout.META_LOG, database)
    return None if stored is None else layout.decode_log_state(stored)


def read_position(txn: lmdb.Transaction, database: lmdb._Database) -> Position:
    """Read where the log stands."""
    log_id = read(txn, layout.META_LOG_ID, database) or b""
    return Position(log_id, layout.decode_number(read(txn, layout.META_SEQUENCE, database) or b""))
