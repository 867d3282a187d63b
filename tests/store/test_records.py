"""What a batch does to the records, and how it tells those who follow them."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.change import ConsentChange, ConsentColumns
from iyscheck.store import layout, records
from iyscheck.store.records import Written
from tests.builders import StoreBuilder, a_change, supersedes
from tests.dice import often
from tests.strategies import consent_changes

Key = tuple[int, int, int, bytes]
batches = st.lists(consent_changes, max_size=25)


def tied(sources: list[str], transaction_ids: list[str]) -> st.SearchStrategy[list[list[ConsentChange]]]:
    """Batches of changes of one consent that only their texts decide between."""
    change = st.builds(
        a_change,
        tag=st.just(bytes(16)),
        source=st.sampled_from(sources),
        transaction_id=st.sampled_from(transaction_ids),
    )
    return st.lists(st.lists(change, min_size=1, max_size=3), min_size=1, max_size=3)


KNOWN = ["HS_WEB", "HS_CAGRI_MERKEZI", "HS_ATM", "IYS_3338"]  # whose numbers are not in the order of their texts
UNKNOWN = ["", "HS_A", "IYS_ŞUBE"]
DIGITS = ["", "0" * 64, "1" + "0" * 63, "0" * 63 + "1", "0" * 16 + "1" + "0" * 47]
TEXTS = ["0", "1", "F" * 64, "short"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreBuilder]:
    """One store whose records each example empties."""
    with StoreBuilder(tmp_path_factory.mktemp("records") / "store") as builder:
        yield builder


def key_of(change: ConsentChange) -> Key:
    """The key of a consent."""
    return (change.brand, change.channel, change.recipient_type, change.tag)


def numbered(changes: list[ConsentChange], first: int) -> list[ConsentChange]:
    """Give changes the positions in which they arrive."""
    return [replace(change, sequence=first + at) for at, change in enumerate(changes)]


def winners(changes: list[ConsentChange], stored: dict[Key, ConsentChange]) -> dict[Key, ConsentChange]:
    """Apply changes one by one to a dictionary; return what differs afterwards."""
    after = dict(stored)
    for change in changes:
        if key_of(change) not in after or supersedes(change, after[key_of(change)]):
            after[key_of(change)] = change
    return {key: change for key, change in after.items() if stored.get(key) != change}


class TestApply:
    """Applying a batch tells exactly what was written."""

    @settings(max_examples=often(150), deadline=None)
    @given(st.lists(batches, min_size=1, max_size=3))
    def test_any_batches(self, shared: StoreBuilder, history: list[list[ConsentChange]]) -> None:
        """After any batches the written changes, in key order, are those of a dictionary, new ones marked."""
        environment = shared.writer.environment
        database = environment.databases[layout.RECORDS]
        stored: dict[Key, ConsentChange] = {}
        position = 1
        with environment.lmdb.begin(write=True) as txn:
            txn.drop(database, delete=False)
            for changes in history:
                arriving = numbered(changes, position)
                position += len(arriving)
                expected = winners(arriving, stored)

                written = records.apply(txn, database, ConsentColumns.of(arriving))

                told = [written.changes.change(at) for at in range(len(written.changes))]
                assert told == [expected[key] for key in sorted(expected)]
                assert written.added.tolist() == [key not in stored for key in sorted(expected)]
                assert (written.applied, written.superseded) == (len(expected), len(changes) - len(expected))
                assert written.counts == differences(written, stored)
                stored |= expected
            with txn.cursor(database) as cursor:
                kept = [layout.decode_record(key, value) for key, value in cursor]
        assert kept == [stored[key] for key in sorted(stored)]

    @settings(max_examples=often(150), deadline=None)
    @given(
        tied(KNOWN, DIGITS[:1])
        | tied(KNOWN[:1], DIGITS)
        | tied(UNKNOWN, DIGITS[:1])
        | tied(KNOWN + UNKNOWN, DIGITS + TEXTS)
    )
    def test_ties(self, shared: StoreBuilder, history: list[list[ConsentChange]]) -> None:
        """Of changes that tie in everything but their texts the one with the greater texts stays."""
        environment = shared.writer.environment
        with environment.lmdb.begin(write=True) as txn:
            database = environment.databases[layout.RECORDS]
            txn.drop(database, delete=False)
            for changes in history:
                records.apply(txn, database, ConsentColumns.of(changes))
            with txn.cursor(database) as cursor:
                (kept,) = [layout.decode_record(key, value) for key, value in cursor]

        assert kept.precedence == max(change.precedence for changes in history for change in changes)

    def test_replay(self, shared: StoreBuilder) -> None:
        """A batch that is in already writes nothing, whatever forms its texts have."""
        changes = ConsentColumns.of(
            [
                a_change(tag=bytes(16), source="HS_WEB", transaction_id="1f" * 32),
                a_change(tag=b"\1" * 16, source="HS_ŞUBE", transaction_id="short-1"),
                a_change(tag=b"\2" * 16, source="", transaction_id=""),
            ]
        )
        environment = shared.writer.environment
        with environment.lmdb.begin(write=True) as txn:
            database = environment.databases[layout.RECORDS]
            txn.drop(database, delete=False)
            first = records.apply(txn, database, changes)
            again = records.apply(txn, database, changes)

        assert (first.applied, first.superseded) == (3, 0)
        assert (again.applied, again.superseded, again.counts, len(again.changes)) == (0, 3, {}, 0)


def differences(written: Written, stored: dict[Key, ConsentChange]) -> dict[tuple[int, int, int, int], int]:
    """Count one by one what a batch changed."""
    found: dict[tuple[int, int, int, int], int] = {}
    for at in range(len(written.changes)):
        change = written.changes.change(at)
        old = stored.get(key_of(change))
        for status, step in ((change.status, 1), (old.status if old else None, -1)):
            if status is not None:
                group = (*key_of(change)[:3], int(status))
                found[group] = found.get(group, 0) + step
    return {group: total for group, total in found.items() if total}


class TestNewest:
    """Within a batch each consent's greatest change stays."""

    def test_many_contexts(self) -> None:
        """Keys of very many brands sort as their bytes do."""
        generator = np.random.default_rng(5)
        changes = [
            a_change(brand=int(brand), tag=generator.bytes(16))
            for brand in generator.permutation(np.arange(1, 2**32, 2**32 // 3000, dtype=np.int64))
        ]

        kept = records.newest(ConsentColumns.of(changes))

        keys = layout.rows_bytes(layout.encode_keys(kept))
        assert keys == sorted(keys)
        assert len(keys) == len(changes)

    def test_tags_alike(self) -> None:
        """Tags that differ only in their last byte are different consents, and sort by it."""
        changes = [a_change(tag=b"\xff" * 15 + bytes([last])) for last in (3, 1, 2, 1)]

        kept = records.newest(ConsentColumns.of(numbered(changes, 1)))

        assert [
            (tag[15], sequence) for tag, sequence in zip(kept.tag.tolist(), kept.sequence.tolist(), strict=True)
        ] == [
            (1, 2),
            (2, 3),
            (3, 1),
        ]
