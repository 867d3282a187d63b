"""`verify` reads everything again and names each fault."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import lmdb
import pytest

from iyscheck.consent import Channel, Status
from iyscheck.store import layout
from iyscheck.store.layout import SourceState, Span
from iyscheck.store.verification import verify, verify_sample
from tests.builders import NOW, StoreBuilder, a_batch, a_brand
from tests.logs import PlainSealer, begin

Damage = Callable[[lmdb.Transaction, lmdb._Database], None]


@pytest.fixture
def builder(tmp_path: Path) -> StoreBuilder:
    """A store with something in every database, the primary of a log."""
    begin(tmp_path / "store")
    builder = StoreBuilder(tmp_path / "store", sealer=PlainSealer()).brand(1).brand(2, watermark=None)
    for number, status in enumerate((Status.ONAY, Status.RET, Status.UNKNOWN)):
        builder.consent(recipient=f"+90532100000{number}", status=status, retailers=[1, number])
    builder.consent(recipient="ayse@example.com", channel=Channel.EPOSTA, brand=2, source="IYS_YENI", retailers=[])
    builder.commit()
    state = SourceState(name="held", rejected=1, rejected_brands=(2,), watermarks=((2, NOW),))
    later = Span(brand=1, start=NOW + 86_400, end=NOW + 2 * 86_400)
    builder.writer.apply(a_batch(rows=1), state, finished=True, proved=later)
    builder.writer.accept_gap(1, until=NOW + 3_600, reason="lost", now_s=NOW)
    return builder


def damage(builder: StoreBuilder, database: bytes, change: Callable[[bytes], bytes | None], *, row: int = 0) -> None:
    """Change or delete one value behind the writer's back."""
    environment = builder.writer.environment
    with environment.lmdb.begin(write=True) as txn, txn.cursor(environment.databases[database]) as cursor:
        key, value = list(cursor)[row]
        changed = change(value)
        if changed is None:
            txn.delete(key, db=environment.databases[database])
        else:
            txn.put(key, changed, db=environment.databases[database])


def flip_last(value: bytes) -> bytes:
    """Flip the lowest bit of the last byte."""
    return value[:-1] + bytes((value[-1] ^ 1,))


def test_whole(builder: StoreBuilder) -> None:
    """A store that nobody damaged has no faults, and each of its databases holds something."""
    found = verify(builder.store)

    assert found.records == 4
    assert found.faults == []
    with builder.store.snapshot() as snapshot:
        assert all(list(snapshot.items(name)) for name in layout.DATABASES)


@pytest.mark.parametrize("database", [name for name in layout.DATABASES if name != layout.META], ids=bytes.decode)
def test_flipped_bit(builder: StoreBuilder, database: bytes) -> None:
    """One flipped bit of any database is a fault, wherever it is."""
    damage(builder, database, flip_last)

    assert verify(builder.store).faults


@pytest.mark.parametrize(
    "database",
    [layout.RECORDS, layout.ACCESS, layout.LISTS, layout.COUNTS],
    ids=bytes.decode,
)
def test_lost_row(builder: StoreBuilder, database: bytes) -> None:
    """A lost record, register, list or count is a fault: something else says that it was there."""
    damage(builder, database, lambda _: None)

    assert verify(builder.store).faults


def test_wrong_count(builder: StoreBuilder) -> None:
    """A count that differs from the records is named with its brand and both numbers."""
    damage(builder, layout.COUNTS, lambda _: layout.encode_number(77))

    (fault,) = verify(builder.store).faults

    assert "brand 1, channel 2, type 1, status 1: counted 1, the store says 77" in fault


def test_count_of_nothing(builder: StoreBuilder) -> None:
    """A count without any record is a fault."""
    environment = builder.writer.environment
    with environment.lmdb.begin(write=True) as txn:
        key = layout.encode_count_key(9, 1, 1, 1)
        txn.put(key, layout.encode_number(1), db=environment.databases[layout.COUNTS])

    (fault,) = verify(builder.store).faults

    assert "brand 9" in fault


def test_position_behind(builder: StoreBuilder) -> None:
    """Records from beyond the store's position are faults: the position went back."""
    environment = builder.writer.environment
    with environment.lmdb.begin(write=True) as txn:
        txn.put(layout.META_SEQUENCE, layout.encode_number(0), db=environment.databases[layout.META])

    faults = verify(builder.store).faults

    assert len(faults) == 4
    assert all("beyond" in fault for fault in faults)


def test_every_damaged_record(builder: StoreBuilder) -> None:
    """Each damaged record is a fault of its own, and the others are still read."""
    damage(builder, layout.RECORDS, flip_last, row=0)
    damage(builder, layout.RECORDS, lambda value: value[:20], row=3)

    found = verify(builder.store)

    assert found.records == 4
    assert [fault for fault in found.faults if "damaged" in fault] == ["record 1 is damaged", "record 4 is damaged"]


def test_faults_are_anonymous(builder: StoreBuilder) -> None:
    """No fault shows a tag or address."""
    with builder.store.snapshot() as snapshot:
        tags = [key[6:].hex() for key, _ in snapshot.items(layout.RECORDS)]
    for database in layout.DATABASES[1:]:
        damage(builder, database, flip_last)

    faults = " ".join(verify(builder.store).faults)

    assert not [tag for tag in tags if tag in faults]
    assert "+90532" not in faults


def test_unused_list(builder: StoreBuilder) -> None:
    """A retailer list that nobody uses any more is dropped, so that lists and users stay equal."""
    builder.brand(1)
    for number in range(3):
        builder.consent(recipient=f"+90532100000{number}", retailers=[5], registered=a_brand().registered + 60)
    builder.commit()

    with builder.store.snapshot() as snapshot:
        lists = [layout.decode_list(key, value) for key, value in snapshot.items(layout.LISTS)]
    assert sorted((entry.users, sorted(entry.retailers)) for entry in lists) == [(1, []), (3, [5])]
    assert verify(builder.store).faults == []


def test_progress(builder: StoreBuilder) -> None:
    """Progress is told every ten thousand records."""
    rows = [f"+90532{number:07d}" for number in range(20_000)]
    for recipient in rows[:20_000:2]:
        builder.consent(recipient=recipient, brand=3)
    builder.commit()
    told: list[int] = []

    verify(builder.store, progress=told.append)

    assert told == [10_000]


class TestSample:
    """A sample says of some records what `verify` says of all."""

    def test_whole(self, builder: StoreBuilder) -> None:
        """Of a store that nobody damaged it reads records, and finds no fault."""
        found = verify_sample(builder.store, Random(1))

        assert found.records > 50
        assert found.faults == []

    def test_empty(self, tmp_path: Path) -> None:
        """In a store without records there is nothing to read."""
        assert verify_sample(StoreBuilder(tmp_path / "store").store, Random(1)).records == 0

    def test_damaged(self, builder: StoreBuilder) -> None:
        """A record that is damaged is a fault."""
        damage(builder, layout.RECORDS, flip_last)

        (fault,) = verify_sample(builder.store, Random(1)).faults

        assert "damaged" in fault

    def test_index(self, builder: StoreBuilder) -> None:
        """A record of which the index says something else is a fault."""
        damage(builder, layout.ACCESS, lambda _: None)

        (fault,) = verify_sample(builder.store, Random(1)).faults

        assert "not what the index says" in fault
