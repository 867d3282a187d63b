"""Which change wins, and how registries merge: laws that make any order of arrival give the same store."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.change import (
    KNOWN_SOURCES,
    Brand,
    ConsentChange,
    ConsentColumns,
    RetailerAccess,
    merge_access,
    merge_brand,
)
from iyscheck.consent import Channel, RecipientType, Status
from iyscheck.times import local_seconds, local_text
from tests.builders import a_brand, a_change, an_access, supersedes
from tests.dice import often
from tests.strategies import brands, consent_changes, retailer_accesses

LAWS = settings(max_examples=often(300), deadline=None)
FACTS = ("registered", "status", "consented", "source", "transaction_id")


def facts(change: ConsentChange) -> tuple[object, ...]:
    """What a change says, without its key and place in the feed."""
    return tuple(getattr(change, name) for name in FACTS)


class TestPrecedence:
    """The order of changes is total on their content."""

    @LAWS
    @given(consent_changes, consent_changes)
    def test_antisymmetric(self, one: ConsentChange, other: ConsentChange) -> None:
        """Of two changes that say different things exactly one supersedes the other; of two equal ones neither."""
        winners = supersedes(one, other) + supersedes(other, one)

        assert winners == (facts(one) != facts(other))

    @LAWS
    @given(consent_changes, consent_changes, consent_changes)
    def test_transitive(self, one: ConsentChange, two: ConsentChange, three: ConsentChange) -> None:
        """What supersedes a change also supersedes all that this one supersedes."""
        if supersedes(one, two) and supersedes(two, three):
            assert supersedes(one, three)

    @LAWS
    @given(consent_changes, st.integers(0, 2**40))
    def test_arrival_is_ignored(self, change: ConsentChange, sequence: int) -> None:
        """The place of a row in the feed never decides."""
        assert replace(change, sequence=sequence).precedence == change.precedence

    @LAWS
    @given(st.lists(consent_changes, min_size=1, max_size=4))
    def test_any_order_of_arrival(self, changes: list[ConsentChange]) -> None:
        """Changes that come one by one leave the same facts in every order of arrival."""
        left = set()
        for order in itertools.permutations(changes):
            stored = order[0]
            for change in order[1:]:
                stored = change if supersedes(change, stored) else stored
            left.add(facts(stored))

        assert len(left) == 1


class TestTraps:
    """The cases of İYS's notes that a simpler order gets wrong."""

    ONAY = a_change(
        status=Status.ONAY,
        registered=local_seconds("2023-10-01 10:00:00"),
        consented=local_seconds("2023-09-30 18:00:00"),
    )

    @pytest.mark.parametrize("consented", [ONAY.consented, 0], ids=["same consentDate", "empty consentDate"])
    def test_line_closure(self, consented: int) -> None:
        """A closed line refuses although its consentDate is the old one, or empty."""
        closure = replace(
            self.ONAY,
            status=Status.RET,
            registered=self.ONAY.registered + 86_400,
            consented=consented,
            source="IYS_AHS_HAT_KAPATMA",
        )

        assert supersedes(closure, self.ONAY)
        assert not supersedes(self.ONAY, closure)

    def test_closure_in_the_same_second(self) -> None:
        """A closure without consentDate wins over an ONAY registered in the same second."""
        closure = replace(self.ONAY, status=Status.RET, consented=0, source="IYS_AHS_HAT_KAPATMA")

        assert supersedes(closure, self.ONAY)

    def test_tie_within_a_second(self) -> None:
        """Of movements of one second with one transactionId RET wins over unknown and unknown over ONAY."""
        tied = [replace(self.ONAY, status=status, transaction_id="ab" * 32) for status in Status if status]

        ranked = sorted(tied, key=lambda change: change.precedence)

        assert [change.status for change in ranked] == [Status.ONAY, Status.UNKNOWN, Status.RET]

    def test_onay_to_onay(self) -> None:
        """A renewed ONAY with a later registration replaces the older one and its evidence."""
        renewed = replace(self.ONAY, registered=self.ONAY.registered + 1, consented=self.ONAY.consented + 1)

        assert supersedes(renewed, self.ONAY)

    def test_registration_rules(self) -> None:
        """A later consentDate does not save a change that was registered earlier."""
        late_consent = replace(self.ONAY, consented=self.ONAY.consented + 10**6)
        refusal = replace(self.ONAY, status=Status.RET, registered=self.ONAY.registered + 1, consented=0)

        assert supersedes(refusal, late_consent)

    @pytest.mark.parametrize(
        "change",
        [
            {"consented": ONAY.consented + 1},
            {"source": "HS_WEB2"},
            {"transaction_id": "0"},
        ],
    )
    def test_last_resorts(self, change: dict[str, int | str]) -> None:
        """Same second and status: the later consent time, then the greater source, then the greater id wins."""
        other = replace(self.ONAY, **change)  # type: ignore[arg-type]  # one field of three types

        assert supersedes(other, self.ONAY)

    def test_replay(self) -> None:
        """The same row again keeps what is stored."""
        assert not supersedes(replace(self.ONAY, sequence=99), self.ONAY)

    def test_order_of_resorts(self) -> None:
        """Each fact decides only where all facts before it are equal."""
        ladder = [
            replace(self.ONAY, transaction_id="z" * 64),
            replace(self.ONAY, source="IYS_WEB", transaction_id="a"),
            replace(self.ONAY, consented=self.ONAY.consented + 1, source=""),
            replace(self.ONAY, status=Status.UNKNOWN, consented=0),
            replace(self.ONAY, status=Status.RET, consented=0),
            replace(self.ONAY, registered=self.ONAY.registered + 1, consented=0, source=""),
        ]

        assert sorted(ladder, key=lambda change: change.precedence) == ladder


def same_consent(access: RetailerAccess) -> RetailerAccess:
    """The same register of one consent, so that any two can be merged."""
    return replace(access, brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, tag=bytes(16))


accesses = retailer_accesses.map(same_consent)
rows_of_one_brand = brands.map(lambda brand: replace(brand, brand=1))


class TestMergeAccess:
    """Newest wins, on a tie only what both allow stays."""

    @LAWS
    @given(accesses, accesses)
    def test_commutative(self, one: RetailerAccess, other: RetailerAccess) -> None:
        """It does not matter which came first."""
        assert merge_access(one, other) == merge_access(other, one)

    @LAWS
    @given(accesses, accesses, accesses)
    def test_associative(self, one: RetailerAccess, two: RetailerAccess, three: RetailerAccess) -> None:
        """It does not matter how arrivals are split into batches."""
        assert merge_access(merge_access(one, two), three) == merge_access(one, merge_access(two, three))

    @LAWS
    @given(accesses)
    def test_idempotent(self, access: RetailerAccess) -> None:
        """A replay changes nothing."""
        assert merge_access(access, access) == access

    @LAWS
    @given(accesses, accesses)
    def test_never_wider(self, one: RetailerAccess, other: RetailerAccess) -> None:
        """The newest register stays as it is; a tie allows exactly what both allow."""
        merged = merge_access(one, other)

        newest = [each for each in (one, other) if each.registered == max(one.registered, other.registered)]
        assert merged.retailers == frozenset.intersection(*[each.retailers for each in newest])

    def test_stored_is_kept(self) -> None:
        """Where the merge changes nothing the stored register itself comes back, so that nothing is written."""
        stored = an_access(a_change(), [1])

        assert merge_access(stored, an_access(a_change(), [1, 2])) is stored


class TestMergeBrand:
    """Newest wins, on a tie the restrictive value of each field stays."""

    @LAWS
    @given(rows_of_one_brand, rows_of_one_brand)
    def test_commutative(self, one: Brand, other: Brand) -> None:
        """It does not matter which came first."""
        assert merge_brand(one, other) == merge_brand(other, one)

    @LAWS
    @given(rows_of_one_brand, rows_of_one_brand, rows_of_one_brand)
    def test_associative(self, one: Brand, two: Brand, three: Brand) -> None:
        """It does not matter how arrivals are split into batches."""
        assert merge_brand(merge_brand(one, two), three) == merge_brand(one, merge_brand(two, three))

    @LAWS
    @given(rows_of_one_brand)
    def test_idempotent(self, brand: Brand) -> None:
        """A replay changes nothing."""
        assert merge_brand(brand, brand) == brand

    def test_newest(self) -> None:
        """A later row replaces the brand as a whole, also with what permits more."""
        old = a_brand(active=False, channels=[], registered=1)
        new = a_brand(active=True, registered=2)

        assert merge_brand(old, new) == merge_brand(new, old) == new

    def test_tie(self) -> None:
        """Two rows of one second leave the brand inactive, with the channels and the deadline that both bear."""
        one = a_brand(active=True, channels=[Channel.MESAJ, Channel.ARAMA], legacy_deadline=3)
        other = a_brand(active=False, channels=[Channel.MESAJ, Channel.EPOSTA], legacy_deadline=1)

        merged = merge_brand(one, other)

        assert merged == a_brand(active=False, channels=[Channel.MESAJ], legacy_deadline=1)


class TestColumns:
    """Changes as columns hold what the changes hold."""

    @settings(max_examples=often(100), deadline=None)
    @given(st.lists(consent_changes, max_size=5))
    def test_round_trip(self, changes: list[ConsentChange]) -> None:
        """Each row of the columns is its change."""
        columns = ConsentColumns.of(changes)

        assert [columns.change(at) for at in range(len(columns))] == changes

    @settings(max_examples=often(100), deadline=None)
    @given(st.lists(st.lists(consent_changes, max_size=4), min_size=1, max_size=4))
    def test_join(self, parts: list[list[ConsentChange]]) -> None:
        """Columns behind one another hold all changes in that order, texts that no column can say included."""
        joined = ConsentColumns.join([ConsentColumns.of(part) for part in parts])

        assert [joined.change(at) for at in range(len(joined))] == [change for part in parts for change in part]

    @settings(max_examples=50, deadline=None)
    @given(st.lists(consent_changes, min_size=1, max_size=5), st.data())
    def test_take(self, changes: list[ConsentChange], data: st.DataObject) -> None:
        """Rows taken out of columns are the same changes, in the order asked for."""
        rows = data.draw(st.lists(st.integers(0, len(changes) - 1), max_size=5))

        taken = ConsentColumns.of(changes).take(np.array(rows, np.intp))

        assert [taken.change(at) for at in range(len(taken))] == [changes[at] for at in rows]


class TestTexts:
    """Times without zone are written as İYS writes them."""

    @pytest.mark.parametrize("text", ["2015-05-01 00:00:00", "2020-08-18 11:50:17", "2026-12-31 23:59:59"])
    def test_local_text(self, text: str) -> None:
        """The 19 characters survive."""
        assert local_text(local_seconds(text)) == text

    @given(st.integers(1, 2**32 - 1))
    @settings(max_examples=often(300), deadline=None)
    def test_every_second(self, seconds: int) -> None:
        """Every second that a record can hold reads back from its text."""
        assert local_seconds(local_text(seconds)) == seconds

    def test_absent(self) -> None:
        """An absent time is an empty text."""
        assert local_text(0) == ""

    def test_source_numbers(self) -> None:
        """A source code keeps its number on disk for ever: the list only grows."""
        assert KNOWN_SOURCES[:3] == ("HS_2015", "HS_KARAR", "HS_FIZIKSEL_ORTAM")
        assert KNOWN_SOURCES[19] == "IYS_AHS_HAT_KAPATMA"
        assert KNOWN_SOURCES[25] == "IYS_KISA_LINK"
        assert len(set(KNOWN_SOURCES)) == len(KNOWN_SOURCES)
