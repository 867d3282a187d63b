"""Which pages there are: what a write transaction does to the index, and how the index grows."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final, Self

import lmdb
import numpy as np

from iyscheck.change import ConsentColumns
from iyscheck.consent import STATE_VERSION
from iyscheck.errors import StoreCorruptError
from iyscheck.kernel import Kernel
from iyscheck.store import layout
from iyscheck.store.encoded import Facts
from iyscheck.store.environment import Databases, walk
from iyscheck.store.index import pages
from iyscheck.store.index.building import Generation
from iyscheck.store.index.entries import Entries, joined
from iyscheck.store.index.recorded import Recorded
from iyscheck.store.index.state import REVISIONS_KEPT, read_state
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
DROPPED_PER_COMMIT: Final = 4096


class Index:
    """The index inside one write transaction; `save` at its end writes what the transaction did to it."""

    def __init__(
        self,
        txn: lmdb.Transaction,
        databases: Databases,
        kernel: Kernel,
        state: IndexState | None = None,
    ) -> None:
        self._txn = txn
        self._databases = databases
        self._kernel = kernel
        self._recorded = Recorded(txn, databases)
        self._generations: dict[int, Generation] = {}
        self.state = state or read_state(txn, databases[layout.META]) or IndexState()

    @classmethod
    def whatever_it_is(cls, txn: lmdb.Transaction, databases: Databases, kernel: Kernel) -> Self:
        """Begin a rebuild: a state that is damaged counts as no index at all."""
        try:
            return cls(txn, databases, kernel)
        except StoreCorruptError:
            return cls(txn, databases, kernel, IndexState())

    # --- Changes ----------------------------------------------------------------------------------------------

    def record(self, changes: ConsentColumns, listed: Sequence[bytes], *, added: int) -> None:
        """Bring the index up to date with what was just written: changes of different consents, and access lists.

        `listed` are the keys of the consents whose lists were written.
        """
        found = self.entries(changes)
        if listed:
            others = set(listed).difference(layout.column_of_keys(changes))
            found = joined([found, *self._recorded.listed_at(sorted(others))])
        self.apply(found, added=added)

    def entries(self, changes: ConsentColumns | Facts) -> Entries:
        """Turn N changes that are written, sorted by key, into entries."""
        return self._recorded.entries(changes)

    def apply(self, entries: Entries, *, added: int) -> None:
        """Put entries of different consents in, whose records are written already; `added` of them are new.

        Grows by as much as that asks for.
        """
        state = self.state
        if len(entries):
            grown = self._generation(state.generation, state.shards).put(entries)
            self.state = state = replace(state, entries=state.entries + grown)
        if state.building and len(entries):
            built = pages.shards_of(entries.places, state.building_shards) < state.frontier
            some = Entries(entries.places[built], entries.words[built])
            grown = self._generation(state.building, state.building_shards).put(some)
            self.state = replace(state, building_entries=state.building_entries + grown)
        self._grow(added)

    def _grow(self, added: int) -> None:
        records, words = self._recorded.count(), self.state.shards * pages.CAPACITY
        if records > FULL_AT * words:  # a batch far larger than what was there: too late for slices
            self.rebuild(1 / GROW_AT)
        elif not self.state.building and max(self.state.entries, records) > GROW_AT * words:
            if records <= AT_ONCE:
                self.rebuild(1 / GROW_AT)
            else:
                self.start(round(self.state.shards * GROWTH))
        if self.state.building:
            self.advance(min(max(SLICE_PER_ADDED * added, SLICE_LEAST), SLICE_MOST))

    # --- Growth -----------------------------------------------------------------------------------------------

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
        share = max(round(state.building_shards * consents / max(self._recorded.count(), 1)), 1)
        end = min(state.frontier + share, state.building_shards)
        grown = self._generation(state.building, state.building_shards).build(state.frontier, end)
        self.state = replace(state, frontier=end, building_entries=state.building_entries + grown)
        if end == state.building_shards:
            self._take_over()
        return end == state.building_shards

    def rebuild(self, room: float = 1.0) -> None:
        """Build a next generation for `room` times as many consents as there are, and use it, all at once."""
        self.start_for(round(self._recorded.count() * room))
        while not self.advance(SLICE_MOST):
            pass

    def load(self, parts: Iterable[Entries], consents: int) -> None:
        """Use a generation made of entries given in the order of their places, each consent once.

        For who has them at hand while the records are being written: nothing is read.
        """
        self.start_for(consents)
        shards = self.state.building_shards
        generation = self._generation(self.state.building, shards)
        first, total, rest = 0, 0, joined([])
        for part in parts:
            found = joined([rest, part])
            # The last shard that the part reaches may go on in the next one.
            end = int(pages.shards_of(found.places[-1:], shards)[0]) if len(found) else first
            cut = int(np.searchsorted(found.places, np.uint64(pages.first_place(end, shards))))
            total += generation.fill(first, end, Entries(found.places[:cut], found.words[:cut]))
            rest, first = Entries(found.places[cut:], found.words[cut:]), end
        total += generation.fill(first, shards, rest)
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

    def _generation(self, number: int, shards: int) -> Generation:
        """Return who writes the pages of a generation, and has done so in this transaction."""
        if number not in self._generations:
            self._generations[number] = Generation(self._txn, self._databases, self._kernel, number, shards)
        return self._generations[number]

    # --- The end of a transaction -----------------------------------------------------------------------------

    def save(self) -> None:
        """Write the state and which pages changed, and delete some pages of generations no longer used."""
        database = self._databases[layout.INDEX_CHANGES]
        written = {number: generation.written for number, generation in self._generations.items() if generation.written}
        if written:
            revision = self.state.revision + 1
            self.state = replace(self.state, revision=revision)
            used = (self.state.generation, self.state.building)
            changed = {
                number: np.unique(np.concatenate(shards)) for number, shards in written.items() if number in used
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
