"""The decision index in LMDB: kept with the records, in their transactions, and always derivable from them.

What a page is stands in `pages.py`. This module decides which pages there are:

- **apply** puts the changes of a batch into the pages they belong to, and notes which pages a commit changed, so
  that a reader's refresh looks at those only.
- **growth**: when the generation in use is fuller than GROW_AT, a next one with more shards is built beside it,
  some shards at each commit, from the records. Shards below the frontier get every change too; the others need
  none, since the records they will be built from have it. When the frontier arrives, the next generation takes
  over in that very transaction and the old one's pages are deleted, some at each commit. Nobody ever stops.
- **rebuild** is growth without waiting for commits. What was damaged in a page dies with its generation.

A shard's consents are, in each context, one run of neighbouring record keys. So shards are built in any order from
the records alone, a crash at any point needs no more than the frontier, and a page that is found damaged while it
is being changed is built anew on the spot.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, takewhile
from pathlib import Path
from typing import IO, Final, Self, cast

import lmdb
import numpy as np
import numpy.typing as npt

from iyscheck.change import TAG_BYTES, ConsentColumns, RetailerAccess
from iyscheck.consent import STATE_VERSION, Status, states
from iyscheck.errors import StoreCorruptError, StoreError
from iyscheck.kernel import Kernel
from iyscheck.store import layout, pages
from iyscheck.store.encoded import Facts
from iyscheck.store.environment import files_translated, read, walk
from iyscheck.store.layout import IndexState

GROW_AT: Final = 0.70
"""Share of words in use: 11.6 bytes a consent. Beyond 0.8 a page could be full before growth is done."""
FULL_AT: Final = 0.85
"""Share of words at which growth has not kept up, and is done at once."""
GROWTH: Final = 1.3
"""After it 0.54 of the words are in use: 15.1 bytes a consent."""
TARGET: Final = 0.60
"""Share of words in use after a bulk load or rebuild: 13.5 bytes a consent."""
LEAST_SHARDS: Final = 16
AT_ONCE: Final = 200_000
"""Up to so many consents growth is not worth slices: a rebuild takes as long as a commit."""
SLICE_PER_ADDED: Final = 16
"""Consents built into the next generation for each one added: done before another 16th is in."""
SLICE_LEAST: Final = 50_000
SLICE_MOST: Final = 500_000
REVISIONS_KEPT: Final = 64
"""A reader that is further behind takes all pages again."""
DROPPED_PER_COMMIT: Final = 4096

_GROUP: Final = 256
_PARTS: Final = 64
_PART_SHIFT: Final = np.uint64(58)
_PARTED_ROWS: Final = 2**22
"""Entries that wait in memory, 16 bytes each: 64 MB."""
_PREFIX_BYTES: Final = layout.KEY_BYTES - TAG_BYTES
_PLACES: Final = 2**64


@dataclass(frozen=True, slots=True)
class Entries:
    """N consents as the index sees them: places and words, uint64 of shape (N,)."""

    places: pages.Places
    words: pages.Words

    def __len__(self) -> int:
        """Count the consents."""
        return len(self.words)


def entries_of(changes: ConsentColumns | Facts, state: npt.NDArray[np.uint8]) -> Entries:
    """Turn N consents with their state bytes into entries."""
    runs, lengths = _context_runs(changes)
    salt = np.repeat(np.array([pages.salts(*context) for context in runs], np.uint64).reshape(-1, 2), lengths, axis=0)
    return Entries(pages.places(changes.tag, salt[:, 0]), pages.fingerprints(changes.tag, salt[:, 1]) | state)


def _context_runs(changes: ConsentColumns | Facts) -> tuple[list[tuple[int, int, int]], npt.NDArray[np.int64]]:
    """Return brand, channel and recipient type of each run of changes that share them, and how long the runs are."""
    prefix = changes.brand.astype(np.int64) << 16 | changes.channel.astype(np.int64) << 8 | changes.recipient_type
    begins = np.flatnonzero(np.diff(prefix, prepend=-1))
    runs = [(code >> 16, code >> 8 & 0xFF, code & 0xFF) for code in prefix[begins].tolist()]
    return runs, np.diff(begins, append=len(prefix))


def joined(parts: Sequence[Entries]) -> Entries:
    """Put entries together."""
    nothing = np.zeros(0, np.uint64)
    return Entries(
        np.concatenate([nothing, *(part.places for part in parts)]),
        np.concatenate([nothing, *(part.words for part in parts)]),
    )


def read_state(txn: lmdb.Transaction, meta: lmdb._Database) -> IndexState | None:
    """Read what the index consists of; None if the store has none. Raises StoreCorruptError.

    One whose state bytes were made as an older version made them counts as none: columns would be answered otherwise
    than single checks.
    """
    value = read(txn, layout.META_INDEX, meta)
    try:
        version = layout.decode_number(bytes(read(txn, layout.META_INDEX_STATES, meta) or layout.encode_number(1)))
        return None if value is None or version != STATE_VERSION else layout.decode_index_state(bytes(value))
    except StoreCorruptError as error:
        raise StoreCorruptError(error.message, fix="Run 'iyscheck-loader rebuild-index'.") from error


class Index:
    """The index inside one write transaction; `save` at its end writes what the transaction did to it."""

    def __init__(
        self,
        txn: lmdb.Transaction,
        databases: Mapping[bytes, lmdb._Database],
        kernel: Kernel,
        state: IndexState | None = None,
    ) -> None:
        self._txn = txn
        self._databases = databases
        self._kernel = kernel
        self._changed: dict[int, list[npt.NDArray[np.int64]]] = {}
        self.state = state or read_state(txn, databases[layout.META]) or IndexState()

    @classmethod
    def whatever_it_is(cls, txn: lmdb.Transaction, databases: Mapping[bytes, lmdb._Database], kernel: Kernel) -> Self:
        """Begin a rebuild: a state that is damaged counts as no index at all."""
        try:
            return cls(txn, databases, kernel)
        except StoreCorruptError:
            return cls(txn, databases, kernel, IndexState())

    # --- Changes ----------------------------------------------------------------------------------------------

    def record(self, changes: ConsentColumns, access: Sequence[RetailerAccess], *, added: int) -> None:
        """Bring the index up to date with what was just written: changes of different consents, and access lists."""
        found = self.entries(changes)
        if access:
            lists = {layout.encode_key(each.brand, each.channel, each.recipient_type, each.tag) for each in access}
            others = lists.difference(layout.column_of_keys(changes))
            found = joined([found, *self._listed_at(sorted(others))])
        self.apply(found, added=added)

    def entries(self, changes: ConsentColumns | Facts) -> Entries:
        """Turn N changes that are written, sorted by key, into entries."""
        has_list = np.zeros(len(changes), np.bool_)
        runs, lengths = _context_runs(changes)
        beyond = 0
        for context, length in zip(runs, lengths.tolist(), strict=True):
            first, beyond = beyond, beyond + length
            has_list[first:beyond] = self._have_lists(context, changes.tag[first:beyond])
        return entries_of(
            changes, states(changes.status, changes.consented, changes.registered, changes.by_citizen, has_list)
        )

    def _have_lists(self, context: tuple[int, int, int], tags: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """Say which consents of one context, whose tags rise, have a list of retailers."""
        database = self._databases[layout.ACCESS]
        first, last = (layout.encode_key(*context, tags[at].tobytes()) for at in (0, -1))
        # Where consents lie close together it is quicker to walk the lists between them than to look for each.
        with self._txn.cursor(database) as cursor:
            if not cursor.set_range(first):
                return np.zeros(len(tags), np.bool_)
            walked = takewhile(lambda key: key <= last, cast("Iterator[bytes]", cursor.iternext(values=False)))
            listed = list(islice(walked, len(tags) + 1))
        if len(listed) <= len(tags):
            return _among(tags, np.frombuffer(b"".join(listed), np.uint8).reshape(-1, layout.KEY_BYTES)[:, -TAG_BYTES:])
        get = self._txn.get
        return np.array([get(key, db=database) is not None for key in layout.column_keys(*context, tags)], np.bool_)

    def _listed_at(self, keys: Sequence[bytes]) -> Iterator[Entries]:
        """Read the consents at keys that have a list of retailers as entries, those that there are."""
        for key in keys:
            value = read(self._txn, key, self._databases[layout.RECORDS])
            if value is not None:
                brand, channel, recipient_type, tag = layout.decode_key(key)
                salt, print_salt = pages.salts(brand, channel, recipient_type)
                tags = np.frombuffer(tag, np.uint8).reshape(1, TAG_BYTES)
                state = states_of_records([key], [value], np.ones(1, np.bool_))
                yield Entries(
                    pages.places(tags, np.uint64(salt)), pages.fingerprints(tags, np.uint64(print_salt)) | state
                )

    def apply(self, entries: Entries, *, added: int) -> None:
        """Put entries of different consents in, whose records are written already; `added` of them are new.

        Grows by as much as that asks for.
        """
        state = self.state
        if len(entries):
            grown = self._put(state.generation, state.shards, entries)
            self.state = state = replace(state, entries=state.entries + grown)
        if state.building and len(entries):
            built = pages.shards_of(entries.places, state.building_shards) < state.frontier
            some = Entries(entries.places[built], entries.words[built])
            grown = self._put(state.building, state.building_shards, some)
            self.state = replace(state, building_entries=state.building_entries + grown)
        self._grow(added)

    def _grow(self, added: int) -> None:
        records, words = self._records(), self.state.shards * pages.CAPACITY
        if records > FULL_AT * words:  # a batch far larger than what was there: too late for slices
            self.rebuild(1 / GROW_AT)
        elif not self.state.building and max(self.state.entries, records) > GROW_AT * words:
            if records <= AT_ONCE:
                self.rebuild(1 / GROW_AT)
            else:
                self.start(round(self.state.shards * GROWTH))
        if self.state.building:
            self.advance(min(max(SLICE_PER_ADDED * added, SLICE_LEAST), SLICE_MOST))

    def _put(self, generation: int, shards: int, entries: Entries) -> int:
        """Put entries into the pages of a generation; returns by how much its words in use grew."""
        where = pages.shards_of(entries.places, shards)
        order = np.argsort(where, kind="stable")
        where = where[order]
        touched, first = np.unique(where, return_index=True)
        grown = 0
        # So many pages at a time that they stay in the processor's cache from the reading to the writing.
        for group in range(0, len(touched), _GROUP):
            some = touched[group : group + _GROUP]
            rows = slice(first[group], first[group + _GROUP] if group + _GROUP < len(touched) else None)
            found = Entries(entries.places[order[rows]], entries.words[order[rows]])
            grown += self._put_pages(generation, shards, some, np.searchsorted(some, where[rows]), found)
        return grown

    def _put_pages(
        self,
        generation: int,
        shards: int,
        touched: npt.NDArray[np.int64],
        number: npt.NDArray[np.int64],
        found: Entries,
    ) -> int:
        """Put entries into some pages, each into the one with its number among them."""
        get, database = self._txn.get, self._databases[layout.INDEX]
        values = [
            cast("bytes", get(key, b"", db=database)) for key in layout.encode_shards(generation, touched.tolist())
        ]
        named = zip(values, touched.tolist(), strict=True)
        sound = np.array([pages.sound(value, generation, shard) for value, shard in named], np.bool_)
        grown = 0
        if not sound.all():
            # Built from the records, which have the changes already.
            for shard in touched[~sound].tolist():
                grown += self._build(generation, shards, shard, shard + 1)
            keep = sound[number]
            found, number = Entries(found.places[keep], found.words[keep]), (np.cumsum(sound) - 1)[number[keep]]
            touched = touched[sound]
            values = [value for value, good in zip(values, sound.tolist(), strict=True) if good]
        if not touched.size:
            return grown
        memory = pages.working_copy(values)
        every = pages.starts_of(np.arange(len(touched)))
        before = int(pages.used(memory, every).sum())
        starts, buckets = pages.starts_of(number), pages.buckets_of(found.places)
        pages.mark_overfull(memory, starts[pages.put(memory, starts, buckets, found.words, self._kernel)])
        self._write(generation, touched, memory)
        return grown + int(pages.used(memory, every).sum()) - before

    def _write(self, generation: int, shards: npt.NDArray[np.int64], memory: pages.Words) -> None:
        values = pages.sealed(memory, generation, shards)
        keys = layout.encode_shards(generation, shards.tolist())
        with self._txn.cursor(self._databases[layout.INDEX]) as cursor:
            cursor.putmulti(list(zip(keys, values, strict=True)), overwrite=True)
        self._changed.setdefault(generation, []).append(shards)

    # --- Building from the records ----------------------------------------------------------------------------

    def start(self, shards: int) -> None:
        """Start to build a next generation of so many shards, in place of any that is being built."""
        with self._txn.cursor(self._databases[layout.INDEX]) as cursor:
            last = layout.decode_shard(bytes(cursor.key()))[0] if cursor.last() else 0
        self.state = replace(
            self.state,
            building=max(last, self.state.generation, self.state.building) + 1,
            building_shards=max(shards, LEAST_SHARDS),
            frontier=0,
            building_entries=0,
        )

    def start_for(self, consents: int) -> None:
        """Start to build a next generation that fits so many consents."""
        self.start(-(-consents // round(TARGET * pages.CAPACITY)))

    def advance(self, consents: int) -> bool:
        """Build about so many consents into the next generation; says whether it is in use now."""
        state = self.state
        share = max(round(state.building_shards * consents / max(self._records(), 1)), 1)
        end = min(state.frontier + share, state.building_shards)
        grown = self._build(state.building, state.building_shards, state.frontier, end)
        self.state = replace(state, frontier=end, building_entries=state.building_entries + grown)
        if end == state.building_shards:
            self._take_over()
        return end == state.building_shards

    def rebuild(self, room: float = 1.0) -> None:
        """Build a next generation for `room` times as many consents as there are, and use it, all at once."""
        self.start_for(round(self._records() * room))
        while not self.advance(SLICE_MOST):
            pass

    def load(self, parts: Iterable[Entries], consents: int) -> None:
        """Use a generation made of entries given in the order of their places, each consent once.

        For who has them at hand while the records are being written: nothing is read.
        """
        self.start_for(consents)
        generation, shards = self.state.building, self.state.building_shards
        first, total, rest = 0, 0, joined([])
        for part in parts:
            found = joined([rest, part])
            # The last shard that the part reaches may go on in the next one.
            end = int(pages.shards_of(found.places[-1:], shards)[0]) if len(found) else first
            cut = int(np.searchsorted(found.places, np.uint64(pages.first_place(end, shards))))
            total += self._fill(generation, shards, first, end, Entries(found.places[:cut], found.words[:cut]))
            rest, first = Entries(found.places[cut:], found.words[cut:]), end
        total += self._fill(generation, shards, first, shards, rest)
        self.state = replace(self.state, frontier=shards, building_entries=total)
        self._take_over()

    def _take_over(self) -> None:
        state = self.state
        self.state = IndexState(
            revision=state.revision,
            generation=state.building,
            shards=state.building_shards,
            entries=state.building_entries,
        )

    def _build(self, generation: int, shards: int, first: int, end: int) -> int:
        """Build shards from the records; returns their words in use."""
        found = joined([self._recorded(context, first, end, shards) for context in self._contexts()])
        order = np.argsort(found.places, kind="stable")
        return self._fill(generation, shards, first, end, Entries(found.places[order], found.words[order]))

    def _fill(self, generation: int, shards: int, first: int, end: int, entries: Entries) -> int:
        if end == first:
            return 0
        memory = pages.blank(end - first)
        starts = pages.starts_of(pages.shards_of(entries.places, shards) - first)
        without_room = pages.fill(memory, starts, pages.buckets_of(entries.places), entries.words, self._kernel)
        pages.mark_overfull(memory, starts[without_room])
        self._write(generation, np.arange(first, end), memory)
        return len(entries) - len(without_room)

    def _contexts(self) -> Iterator[bytes]:
        """Walk the contexts that have records, as the beginnings of their keys."""
        with self._txn.cursor(self._databases[layout.RECORDS]) as cursor:
            found = cursor.first()
            while found:
                prefix = bytes(cursor.key())[:_PREFIX_BYTES]
                yield prefix
                found = cursor.set_range(prefix + b"\xff" * (TAG_BYTES + 1))

    def _recorded(self, prefix: bytes, first: int, end: int, shards: int) -> Entries:
        """Read the consents of one context whose places are in a run of shards."""
        brand, channel, recipient_type, _ = layout.decode_key(prefix + bytes(TAG_BYTES))
        salt, print_salt = pages.salts(brand, channel, recipient_type)
        keys: list[bytes] = []
        values: list[bytes] = []
        listed: set[bytes] = set()
        for low, high in _runs(pages.first_place(first, shards), pages.first_place(end, shards), salt):
            for key, value in self._between(layout.RECORDS, prefix, low, high):
                keys.append(key)
                values.append(value)
            listed.update(key for key, _ in self._between(layout.ACCESS, prefix, low, high))
        tags = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, layout.KEY_BYTES)[:, _PREFIX_BYTES:]
        has_list = np.array([key in listed for key in keys], np.bool_) if listed else np.zeros(len(keys), np.bool_)
        return Entries(
            pages.places(tags, np.uint64(salt)),
            pages.fingerprints(tags, np.uint64(print_salt)) | states_of_records(keys, values, has_list),
        )

    def _between(self, database: bytes, prefix: bytes, low: int, high: int) -> Iterator[tuple[bytes, bytes]]:
        """Walk what a context has from tag half `low` to before `high`."""
        beyond = prefix + (high.to_bytes(8, "big") if high < _PLACES else b"\xff" * (TAG_BYTES + 1))
        with self._txn.cursor(self._databases[database]) as cursor:
            if not cursor.set_range(prefix + low.to_bytes(8, "big")):
                return
            for key, value in cast("Iterator[tuple[bytes, bytes]]", cursor.iternext()):
                if key >= beyond:
                    return
                yield key, value

    def _records(self) -> int:
        return int(self._txn.stat(self._databases[layout.RECORDS])["entries"])

    # --- The end of a transaction -----------------------------------------------------------------------------

    def save(self) -> None:
        """Write the state and which pages changed, and delete some pages of generations no longer used."""
        database = self._databases[layout.INDEX_CHANGES]
        if self._changed:
            revision = self.state.revision + 1
            self.state = replace(self.state, revision=revision)
            used = (self.state.generation, self.state.building)
            changed = {
                generation: np.unique(np.concatenate(shards))
                for generation, shards in self._changed.items()
                if generation in used
            }
            value = layout.encode_index_changes(revision, changed)
            self._txn.put(layout.encode_number(revision), value, db=database)
            self._txn.delete(layout.encode_number(max(revision - REVISIONS_KEPT, 0)), db=database)
        meta = self._databases[layout.META]
        self._txn.put(layout.META_INDEX, layout.encode_index_state(self.state), db=meta)
        self._txn.put(layout.META_INDEX_STATES, layout.encode_number(STATE_VERSION), db=meta)
        self.drop(DROPPED_PER_COMMIT)

    def drop(self, count: int) -> bool:
        """Delete at most so many pages of generations no longer used; says whether there are more."""
        with self._txn.cursor(self._databases[layout.INDEX]) as cursor:
            found = cursor.first()
            while found and layout.decode_shard(bytes(cursor.key()))[0] < self.state.generation:
                if not count:
                    return True
                cursor.delete()
                count -= 1
                found = bool(cursor.key())
        return False

    def forget(self) -> None:
        """Forget which pages earlier commits changed, so that readers take all of them again."""
        database = self._databases[layout.INDEX_CHANGES]
        revisions = [layout.decode_number(key) for key, _ in walk(self._txn, database) if len(key) == 8]  # noqa: PLR2004 - a number
        self.state = replace(self.state, revision=max([self.state.revision, *revisions]))
        self._txn.drop(database, delete=False)


class PlaceOrder:
    """Takes entries in any order and gives them back in that of their places. Close it in any case.

    More than fit into memory wait in files without names in the store's directory, parted by their places.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._waiting: list[list[npt.NDArray[np.uint64]]] = [[] for _ in range(_PARTS)]
        self._waiting_rows = 0
        self._files: list[IO[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def add(self, entries: Entries) -> None:
        """Take entries. Raises StoreFullError where there is no room for a file."""
        part = entries.places >> _PART_SHIFT
        order = np.argsort(part, kind="stable")
        rows = np.stack((entries.places, entries.words), axis=1)[order]
        ends = np.searchsorted(part[order], np.arange(_PARTS, dtype=np.uint64), side="right").tolist()
        for waiting, first, end in zip(self._waiting, [0, *ends], ends, strict=False):
            if first < end:
                waiting.append(rows[first:end])
        self._waiting_rows += len(entries)
        if self._waiting_rows >= _PARTED_ROWS:
            with files_translated(self._directory):
                self._spill()

    def parts(self) -> Iterator[Entries]:
        """Give all entries back, some at a time. Nothing may be added any more."""
        for number, waiting in enumerate(self._waiting):
            stored = np.zeros((0, 2), np.uint64)
            if self._files:
                with files_translated(self._directory):
                    self._files[number].seek(0)
                    stored = np.frombuffer(self._files[number].read(), np.uint64).reshape(-1, 2)
            rows = np.concatenate([stored, *waiting])
            waiting.clear()
            rows = rows[np.argsort(rows[:, 0], kind="stable")]
            yield Entries(np.ascontiguousarray(rows[:, 0]), np.ascontiguousarray(rows[:, 1]))

    def _spill(self) -> None:
        if not self._files:
            self._files += [tempfile.TemporaryFile(dir=self._directory) for _ in self._waiting]  # noqa: SIM115 - see __exit__
        for file, waiting in zip(self._files, self._waiting, strict=True):
            for rows in waiting:
                file.write(rows.tobytes())
            waiting.clear()
        self._waiting_rows = 0


def _runs(low: int, high: int, salt: int) -> list[tuple[int, int]]:
    """Turn places from `low` to before `high` into the runs of tag halves that have them: one, or two around 0."""
    if high - low == _PLACES:
        return [(0, _PLACES)]
    first, end = (low - salt) % _PLACES, (high - salt) % _PLACES
    if first < end:
        return [(first, end)]
    return [(first, _PLACES), (0, end)] if high > low else []


def states_of_records(
    keys: Sequence[bytes], values: Sequence[bytes], has_retailers: npt.NDArray[np.bool_]
) -> npt.NDArray[np.uint8]:
    """Return the state bytes of N records; a damaged one counts as an unknown status, which denies."""
    intact = np.fromiter(map(layout.intact, keys, values), np.bool_, len(keys))
    nothing = bytes(layout.RECORD_BYTES)
    fixed = b"".join(
        [value[: layout.RECORD_BYTES] if good else nothing for value, good in zip(values, intact.tolist(), strict=True)]
    )
    rows = np.frombuffer(fixed, layout.RECORD_DTYPE)
    found = states(
        rows["status"],
        rows["consented"].astype(np.int64),
        rows["registered"].astype(np.int64),
        layout.by_citizen(rows, lambda at: values[at][layout.RECORD_BYTES :] if intact[at] else b""),
        has_retailers,
    )
    found[~intact] = Status.UNKNOWN
    return found


def _among(tags: npt.NDArray[np.uint8], chosen: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Say of each of N rising tags, uint8 (N, 16), whether it is one of the chosen, uint8 (M, 16)."""
    found = np.zeros(len(tags), np.bool_)
    ours, theirs = (np.ascontiguousarray(some).view(">u8").astype(np.uint64) for some in (tags, chosen))
    at, beyond = (np.searchsorted(ours[:, 0], theirs[:, 0], side) for side in ("left", "right"))
    while (left := at < beyond).any():  # once, but for tags that no cipher made
        at, beyond, theirs = at[left], beyond[left], theirs[left]
        found[at[ours[at, 1] == theirs[:, 1]]] = True
        at = at + 1
    return found


def check_contexts(known: dict[tuple[int, int], tuple[int, int, int]], changes: ConsentColumns | Facts) -> None:
    """Refuse a context whose numbers are those of another: the index would take one's consents for the other's.

    `known` maps the numbers of contexts met before to the contexts; new ones are added. Raises StoreError.
    """
    for context in set(_context_runs(changes)[0]):
        if known.setdefault(pages.salts(*context), context) != context:
            raise StoreError("Two brands cannot be told apart in the decision index.", fix="Report this fault.")
