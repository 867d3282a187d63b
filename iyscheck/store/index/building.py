"""Writing the pages of a generation: entries put into them, or a run of shards made anew."""

from typing import Final, cast

import lmdb
import numpy as np
import numpy.typing as npt

from iyscheck.kernel import Kernel
from iyscheck.store import layout
from iyscheck.store.environment import Databases
from iyscheck.store.index import pages
from iyscheck.store.index.entries import Entries
from iyscheck.store.index.recorded import Recorded

_GROUP: Final = 256


class Generation:
    """Writes pages of one generation in a write transaction, and remembers which."""

    def __init__(self, txn: lmdb.Transaction, databases: Databases, kernel: Kernel, number: int, shards: int) -> None:
        self._txn = txn
        self._database = databases[layout.INDEX]
        self._recorded = Recorded(txn, databases)
        self._kernel = kernel
        self._number = number
        self._shards = shards
        self.written: list[npt.NDArray[np.int64]] = []

    def put(self, entries: Entries) -> int:
        """Put entries into their pages; returns by how much its words in use grew."""
        where = pages.shards_of(entries.places, self._shards)
        order = np.argsort(where, kind="stable")
        where = where[order]
        touched, first = np.unique(where, return_index=True)
        grown = 0
        # So many pages at a time that they stay in the processor's cache from the reading to the writing.
        for group in range(0, len(touched), _GROUP):
            some = touched[group : group + _GROUP]
            rows = slice(first[group], first[group + _GROUP] if group + _GROUP < len(touched) else None)
            found = Entries(entries.places[order[rows]], entries.words[order[rows]])
            grown += self._put_pages(some, np.searchsorted(some, where[rows]), found)
        return grown

    def build(self, first: int, end: int) -> int:
        """Build shards from the records; returns their words in use."""
        return self.fill(first, end, self._recorded.in_shards(first, end, self._shards))

    def fill(self, first: int, end: int, entries: Entries) -> int:
        """Make pages of a run of shards out of their entries, all of them; returns their words in use."""
        if end == first:
            return 0
        memory = pages.blank(end - first)
        starts = pages.starts_of(pages.shards_of(entries.places, self._shards) - first)
        without_room = pages.fill(memory, starts, pages.buckets_of(entries.places), entries.words, self._kernel)
        pages.mark_overfull(memory, starts[without_room])
        self._write(np.arange(first, end), memory)
        return len(entries) - len(without_room)

    def _put_pages(self, touched: npt.NDArray[np.int64], number: npt.NDArray[np.int64], found: Entries) -> int:
        """Put entries into some pages, each into the one with its number among them."""
        get, database = self._txn.get, self._database
        values = [
            cast("bytes", get(key, b"", db=database)) for key in layout.encode_shards(self._number, touched.tolist())
        ]
        named = zip(values, touched.tolist(), strict=True)
        sound = np.array([pages.sound(value, self._number, shard) for value, shard in named], np.bool_)
        grown = 0
        if not sound.all():
            # Built from the records, which have the changes already.
            for shard in touched[~sound].tolist():
                grown += self.build(shard, shard + 1)
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
        self._write(touched, memory)
        return grown + int(pages.used(memory, every).sum()) - before

    def _write(self, shards: npt.NDArray[np.int64], memory: pages.Words) -> None:
        values = pages.sealed(memory, self._number, shards)
        keys = layout.encode_shards(self._number, shards.tolist())
        with self._txn.cursor(self._database) as cursor:
            cursor.putmulti(list(zip(keys, values, strict=True)), overwrite=True)
        self.written.append(shards)
