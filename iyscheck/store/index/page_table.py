"""Where the pages of the index are in a reader's map. A page is checked when it is taken."""

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import lmdb
import numpy as np
import numpy.typing as npt

from iyscheck.errors import StoreCorruptError
from iyscheck.store import layout
from iyscheck.store.environment import MAP_BYTES, Environment
from iyscheck.store.index import pages
from iyscheck.store.index.state import REVISIONS_KEPT, read_state
from iyscheck.store.layout import FILE_PAGE_BYTES, IndexState

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True, kw_only=True)
class PageTable:
    """Where the pages of the index are, at one revision.

    `starts` has for each generation the word of `memory` at which each shard's page begins, or NOT_TAKEN.
    """

    state: IndexState
    memory: pages.Words
    starts: dict[int, pages.Starts]

    @property
    def in_use(self) -> pages.Starts:
        """The pages of the generation in use; without an index, one that cannot be taken stands for all."""
        return self.starts[self.state.generation]

    @property
    def not_taken(self) -> int:
        """How many pages of the generation in use are missing or damaged."""
        return int(np.count_nonzero(self.in_use == pages.NOT_TAKEN))


class Taker:
    """Takes pages through one read transaction that was opened with buffers."""

    def __init__(self, txn: lmdb.Transaction, environment: Environment, before: PageTable | None) -> None:
        self._txn = txn
        self._databases = environment.databases
        self._before = before
        # Without an index there was no page to take, and what stands for the map then is none.
        self._memory = before.memory if before is not None and before.memory.size > pages.BUCKET_WORDS else None

    def table(self) -> PageTable:
        """Take what changed since the table before, or everything where that is not known."""
        try:
            state = read_state(self._txn, self._databases[layout.META]) or IndexState()
        except StoreCorruptError:
            state = IndexState()
        changed = self._changed_since(state)
        starts = {
            generation: self._starts(generation, shards, changed)
            for generation, shards in ((state.generation, state.shards), (state.building, state.building_shards))
            if generation
        }
        memory = self._memory if self._memory is not None else np.zeros(pages.BUCKET_WORDS, np.uint64)
        nothing = np.full(1, pages.NOT_TAKEN, np.int64)
        return PageTable(state=state, memory=memory, starts=starts or {0: nothing})

    def _changed_since(self, state: IndexState) -> dict[int, list[npt.NDArray[np.int64]]] | None:
        """Collect which shards changed, by generation; None where that cannot be told."""
        before = self._before.state.revision if self._before is not None else -1
        if before < 0 or not 0 <= state.revision - before <= REVISIONS_KEPT:
            return None
        changed: dict[int, list[npt.NDArray[np.int64]]] = {}
        for revision in range(before + 1, state.revision + 1):
            key = layout.encode_number(revision)
            value = self._txn.get(key, db=self._databases[layout.INDEX_CHANGES])
            if value is None:
                return None
            try:
                noted = layout.decode_index_changes(key, bytes(value))
            except StoreCorruptError:
                return None
            for generation, shards in noted.items():
                changed.setdefault(generation, []).append(shards)
        return changed

    def _starts(
        self, generation: int, shards: int, changed: dict[int, list[npt.NDArray[np.int64]]] | None
    ) -> pages.Starts:
        known = self._before.starts.get(generation) if self._before is not None and changed is not None else None
        if known is not None and known.size == shards and changed is not None:
            starts = known.copy()
            which = np.unique(np.concatenate([np.zeros(0, np.int64), *changed.get(generation, ())])).tolist()
            keys = layout.encode_shards(generation, which)
            get, database = self._txn.get, self._databases[layout.INDEX]
            starts[which] = [
                self.take(generation, shard, get(key, db=database)) for shard, key in zip(which, keys, strict=True)
            ]
            return starts
        return self._all(generation, shards)

    def _all(self, generation: int, shards: int) -> pages.Starts:
        starts = np.full(shards, pages.NOT_TAKEN, np.int64)
        with self._txn.cursor(self._databases[layout.INDEX]) as cursor:
            if not cursor.set_range(layout.encode_shard(generation, 0)):
                return starts
            for key, value in cast("Iterator[tuple[memoryview, memoryview]]", cursor.iternext()):
                found, shard = layout.decode_shard(bytes(key))
                if found != generation or shard >= shards:
                    break
                starts[shard] = self.take(generation, shard, value)
        return starts

    def take(self, generation: int, shard: int, value: memoryview | bytes | None) -> int:
        """Return where in memory a page begins; NOT_TAKEN where there is none that look-ups can read."""
        if value is None or not pages.sound(value, generation, shard) or pages.overfull(value):
            return pages.NOT_TAKEN
        address = int(np.frombuffer(value, np.uint8).__array_interface__["data"][0])
        if address % FILE_PAGE_BYTES != pages.LEAD_WORDS * 8:
            return (
                pages.NOT_TAKEN
            )  # look-ups go from its last bucket to its first by where these lie in the file's page
        if self._memory is None:
            # The whole map, wherever in it this page is. Nothing but taken pages is ever read through it.
            base = address - address % FILE_PAGE_BYTES - MAP_BYTES
            every = (ctypes.c_uint64 * (2 * MAP_BYTES // 8)).from_address(base)
            self._memory = np.ctypeslib.as_array(every)
        return (address - int(self._memory.__array_interface__["data"][0])) // 8
