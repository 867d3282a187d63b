"""Reading a whole store again: do values decode, do counts add up, does the index say what the records say?"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Final

import numpy as np
import numpy.typing as npt

from iyscheck.change import TAG_BYTES
from iyscheck.errors import StoreCorruptError
from iyscheck.kernel import Kernel
from iyscheck.store import layout
from iyscheck.store.environment import translated
from iyscheck.store.index import PageTable, pages, states_of_records
from iyscheck.store.log import digest_of, sums_of
from iyscheck.store.snapshot import Snapshot, Store
from iyscheck.store.view import View

_BATCH: Final = 10_000
_REBUILD = "run 'iyscheck-loader rebuild-index'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was read, and every fault found (no addresses, no tags)."""

    records: int
    faults: list[str]


def verify(
    store: Store, *, kernel: Kernel | None = None, progress: Callable[[int], None] = lambda _: None
) -> Verification:
    """Read everything in one snapshot; `progress` is told the number of records read now and then."""
    with translated(store.environment.path):
        view = View(store.environment, None)
        try:
            with view.records() as snapshot:
                return _verified(snapshot, view, kernel or Kernel.best(), progress)
        finally:
            view.close()


def verify_sample(store: Store, dice: Random, *, places: int = 50, records: int = 100) -> Verification:
    """Read some records at places by chance, and compare them with the index. They say nothing of others."""
    with translated(store.environment.path):
        view = View(store.environment, None)
        try:
            with view.records() as snapshot:
                return _sampled(snapshot, view, dice, places, records)
        finally:
            view.close()


def _sampled(snapshot: Snapshot, view: View, dice: Random, places: int, records: int) -> Verification:
    index = _IndexComparison(view.table, Kernel.NUMPY)
    kinds = sorted({group[:3] for group, number in snapshot.counts().items() if number})
    read = damaged = 0
    for brand, channel, recipient_type in dice.choices(kinds, k=places) if kinds else ():
        first = layout.encode_key(brand, channel, recipient_type, dice.randbytes(TAG_BYTES))
        batch = list(islice(snapshot.items(layout.RECORDS, first), records))
        whole = [(key, value) for key, value in batch if _is_whole(key, value)]
        read, damaged = read + len(batch), damaged + len(batch) - len(whole)
        if whole:
            index.compare_records(snapshot, [key for key, _ in whole], [value for _, value in whole])
    faults = [f"{damaged} records of a sample are damaged"] if damaged else []
    if index.differing:
        faults.append(f"{index.differing} records of a sample are not what the index says: {_REBUILD}")
    return Verification(records=read, faults=faults)


def _is_whole(key: bytes, value: bytes) -> bool:
    try:
        layout.decode_record(key, value)
    except StoreCorruptError:
        return False
    return True


def _verified(snapshot: Snapshot, view: View, kernel: Kernel, progress: Callable[[int], None]) -> Verification:
    faults: list[str] = []
    counted: Counter[tuple[int, int, int, int]] = Counter()
    index = _IndexComparison(view.table, kernel)
    records = 0
    items = snapshot.items(layout.RECORDS)
    while batch := list(islice(items, _BATCH)):
        keys, values = [key for key, _ in batch], [value for _, value in batch]
        for number, (key, value) in enumerate(batch, records + 1):
            try:
                change = layout.decode_record(key, value)
            except StoreCorruptError:
                faults.append(f"record {number} is damaged")
                continue
            counted[change.brand, change.channel, change.recipient_type, change.status] += 1
            if change.sequence > snapshot.position.sequence:
                faults.append(f"record {number} is from position {change.sequence}, beyond the store's")
        index.compare_records(snapshot, keys, values)
        records += len(batch)
        if len(batch) == _BATCH:
            progress(records)
    faults += _count_faults(snapshot, counted)
    faults += _registry_faults(snapshot)
    faults += _log_faults(snapshot)
    faults += index.faults(snapshot)
    return Verification(records=records, faults=faults)


class _IndexComparison:
    """Compares the generations of the index with the records, one entry after the other."""

    def __init__(self, table: PageTable, kernel: Kernel) -> None:
        self._table = table
        self._kernel = kernel
        self._answered: Counter[int] = Counter()
        self._wrong: Counter[int] = Counter()

    @property
    def differing(self) -> int:
        """How many entries were not what their records say."""
        return sum(self._wrong.values())

    def compare_records(self, snapshot: Snapshot, keys: list[bytes], values: list[bytes]) -> None:
        """Look up consents that follow each other."""
        listed = snapshot.keys_between(layout.ACCESS, keys[0], keys[-1])
        self.compare(keys, states_of_records(keys, values, np.array([key in listed for key in keys], np.bool_)))

    def compare(self, keys: list[bytes], expected: npt.NDArray[np.uint8]) -> None:
        """Look consents up whose states are known; those of damaged pages are left out."""
        rows = np.frombuffer(b"".join(key for key in keys if len(key) == layout.KEY_BYTES), layout.KEY_DTYPE)
        if len(rows) < len(keys):
            return  # a key of another length is a fault already
        state = self._table.state
        for context in np.unique(rows[["brand", "channel", "recipient_type"]]):
            chosen = np.flatnonzero(rows[["brand", "channel", "recipient_type"]] == context)
            tags, salt = np.ascontiguousarray(rows["tag"][chosen]), pages.salts(*map(int, context))
            for generation, starts in self._table.starts.items():
                found = pages.look_up(self._table.memory, starts, tags, salt, self._kernel)
                asked = found != pages.UNANSWERED
                if generation == state.building:
                    where = pages.places(tags, np.uint64(salt[0]))
                    asked &= pages.shards_of(where, state.building_shards) < state.frontier
                self._answered[generation] += int(asked.sum())
                self._wrong[generation] += int((asked & (found != expected[chosen])).sum())

    def faults(self, snapshot: Snapshot) -> Iterator[str]:
        """Say what is wrong with the index, pages first."""
        try:
            state = snapshot.index_state()
        except StoreCorruptError as error:
            yield f"{error.message} {error.fix}"
            return
        if state is None:
            yield f"there is no decision index, or one of an older version: {_REBUILD}"
            return
        for generation, end, entries in (
            (state.generation, state.shards, state.entries),
            (state.building, state.frontier, state.building_entries),
        ):
            if generation:
                yield from self._generation_faults(snapshot, generation, end, entries)
        try:
            for key, value in snapshot.items(layout.INDEX_CHANGES):
                layout.decode_index_changes(key, value)
        except StoreCorruptError as error:
            yield f"{error.message} {_REBUILD}"

    def _generation_faults(self, snapshot: Snapshot, generation: int, end: int, entries: int) -> Iterator[str]:
        live = words = lost = 0
        for shard in range(end):
            value = snapshot.page(generation, shard)
            if value is None or not pages.sound(value, generation, shard):
                yield f"index page {shard} is {'missing' if value is None else 'damaged'}: {_REBUILD}"
                lost += 1
                continue
            words += pages.used_in(value)
            live += 0 if pages.overfull(value) else pages.live(value)
        if wrong := self._wrong[generation]:
            yield f"{wrong} entries of the index are not what the records say: {_REBUILD}"
        if live != self._answered[generation]:
            yield f"the index has {live} consents where the records have {self._answered[generation]}: {_REBUILD}"
        if words != entries and not lost:
            yield f"the index counts {entries} entries, its pages have {words}: {_REBUILD}"


def _log_faults(snapshot: Snapshot) -> Iterator[str]:
    """Sum up everything that is replicated, and read the messages that wait."""
    if snapshot.log is None:
        return
    try:
        stored, counted = snapshot.sums(), sums_of(snapshot.items)
        for brand in sorted({*stored, *counted}):
            if stored.get(brand, 0) != counted.get(brand, 0):
                whose = f"brand {brand}" if brand else "what is of no brand"
                yield f"{whose}: what is stored is not what the digest says"
        if digest_of(stored) != snapshot.log.digest:
            yield "the digest is not the sum of its brands"
        for batch, waiting in snapshot.outbox_batches():
            if len(snapshot.outbox_messages(batch)) != waiting.messages:
                yield f"batch {batch} of the outbox is not whole"
    except StoreCorruptError as error:
        yield f"log: {error.message}"


def _count_faults(snapshot: Snapshot, counted: Counter[tuple[int, int, int, int]]) -> Iterator[str]:
    try:
        stored = snapshot.counts()
    except StoreCorruptError as error:
        yield error.message
        return
    for group in sorted({*stored, *counted}):
        if stored.get(group, 0) != counted[group]:
            brand, channel, recipient_type, status = group
            yield (
                f"brand {brand}, channel {channel}, type {recipient_type}, status {status}: counted {counted[group]}, "
                f"the store says {stored.get(group, 0)}"
            )


def _registry_faults(snapshot: Snapshot) -> Iterator[str]:
    """Decode every registry; of the retailer lists compare the users too."""
    for name, read in (
        ("brands", snapshot.brands),
        ("watermarks", snapshot.watermarks),
        ("withheld watermarks", snapshot.withheld),
        ("holds", snapshot.holds),
        ("sources", snapshot.sources),
        ("proved spans", snapshot.spans),
        ("accepted gaps", snapshot.gaps),
        ("feeds", snapshot.feeds),
    ):
        try:
            list(read())
        except StoreCorruptError as error:
            yield f"{name}: {error.message}"
    try:
        users = Counter(layout.decode_access(key, value)[1] for key, value in snapshot.items(layout.ACCESS))
        lists = {key: layout.decode_list(key, value).users for key, value in snapshot.items(layout.LISTS)}
    except StoreCorruptError as error:
        yield f"retailer access: {error.message}"
        return
    if users != lists:
        yield f"retailer lists: {len(users)} are used, {len(lists)} are stored, or their numbers of users differ"
