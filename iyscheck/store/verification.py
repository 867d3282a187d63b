"""Reading a whole store again to find damage: codecs, counts, registries, lists, position."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from iyscheck.errors import StoreCorruptError
from iyscheck.store import layout
from iyscheck.store.snapshot import Snapshot, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was read, and every fault found (no addresses, no tags)."""

    records: int
    faults: list[str]


def verify(store: Store, *, progress: Callable[[int], None] = lambda _: None) -> Verification:
    """Read everything in one snapshot; `progress` is told the number of records read now and then."""
    with store.snapshot() as snapshot:
        faults: list[str] = []
        counted: Counter[tuple[int, int, int, int]] = Counter()
        records = 0
        for records, (key, value) in enumerate(snapshot.items(layout.RECORDS), 1):
            try:
                change = layout.decode_record(key, value)
            except StoreCorruptError:
                faults.append(f"record {records} is damaged")
                continue
            counted[change.brand, change.channel, change.recipient_type, change.status] += 1
            if change.sequence > snapshot.position.sequence:
                faults.append(f"record {records} is from position {change.sequence}, beyond the store's")
            if not records % 10_000:
                progress(records)
        faults += _count_faults(snapshot, counted)
        faults += _registry_faults(snapshot)
        return Verification(records=records, faults=faults)


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
