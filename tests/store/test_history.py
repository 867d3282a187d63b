"""Histories against a model of plain dictionaries, and every order of arrival against every other."""

import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck import address
from iyscheck.change import Brand, ConsentChange, RetailerAccess
from iyscheck.consent import Channel, LegacyDeadline, MessageClass, Policy, RecipientType, Status
from iyscheck.engine import Engine
from iyscheck.errors import SourceUnknownError
from iyscheck.question import Answer, Context, Question
from iyscheck.store import layout
from iyscheck.store.layout import SourceState
from iyscheck.store.verification import verify
from iyscheck.store.writer import Batch
from iyscheck.times import local_seconds
from tests.builders import ADDRESS_KEY, NOW, STORE_KEY, StoreBuilder, a_batch, a_change, content
from tests.dice import often
from tests.strategies import brands, consent_changes, retailer_accesses

LIMIT = 26 * 3600
BRANDS = (1, 2, 2**32 - 1)
ADDRESSES = {
    Channel.ARAMA: ("+905321000001", "+902121230000"),
    Channel.MESAJ: ("+905321000001", "+33612345678"),
    Channel.EPOSTA: ("ayse@example.com", "ali+spor@example.com.tr"),
}
RETAILERS = (None, 1, 2)
Row = ConsentChange | RetailerAccess | Brand
Key = tuple[int, int, int, bytes]


def tokens_and_tags() -> dict[tuple[Channel, str], tuple[bytes, bytes]]:
    """The token and tag of each address that is asked about."""
    found = {}
    for channel, recipients in ADDRESSES.items():
        tokens = address.tokens(recipients, channel, ADDRESS_KEY)
        tags = STORE_KEY.tags(tokens)
        for at, recipient in enumerate(recipients):
            found[channel, recipient] = (tokens[at].tobytes(), tags[at].tobytes())
    return found


KNOWN = tokens_and_tags()


@st.composite
def on_known_tags(draw: st.DrawFn, rows: st.SearchStrategy[ConsentChange | RetailerAccess]) -> Row:
    """Rows about the addresses that are asked about, and seldom about others."""
    row = draw(rows)
    recipient = draw(st.sampled_from([*ADDRESSES[row.channel], None]))
    return row if recipient is None else replace(row, tag=KNOWN[row.channel, recipient][1])


feed_rows = st.lists(
    on_known_tags(consent_changes) | on_known_tags(consent_changes) | on_known_tags(retailer_accesses) | brands,
    max_size=12,
)
brand_or_all = st.sampled_from([0, *BRANDS])
watermarks = st.lists(
    st.tuples(brand_or_all, st.sampled_from([NOW, NOW - 1, NOW - LIMIT, NOW - LIMIT - 1, NOW + 300, NOW + 301])),
    max_size=3,
).map(tuple)


@dataclass(frozen=True, kw_only=True)
class Load:
    """One commit of a source: rows, what was rejected, whether it finishes the source."""

    source: str
    rows: list[Row]
    rejected_brands: tuple[int, ...]
    rejected_unknown: bool
    watermarks: tuple[tuple[int, int], ...]
    finished: bool


@dataclass(frozen=True)
class Accept:
    """Somebody runs accept-rejects."""

    source: str


source_names = st.sampled_from(["a.jsonl", "b.csv", "ş\udce9.gz"])
loads = st.builds(
    Load,
    source=source_names,
    rows=feed_rows,
    rejected_brands=st.sampled_from([(), (), (1,), (1, 2)]),
    rejected_unknown=st.sampled_from([False, False, False, True]),
    watermarks=watermarks,
    finished=st.booleans(),
)
steps = st.lists(loads | loads | st.builds(Accept, source_names), max_size=6)


@st.composite
def histories(draw: st.DrawFn) -> list[Load | Accept]:
    """Steps in any order, then a replay from any point."""
    history = draw(steps)
    replay = draw(st.integers(0, len(history)))
    return history + history[replay:]


RANK = {Status.ONAY: 1, Status.UNKNOWN: 2, Status.RET: 3}


def strength(change: ConsentChange) -> tuple[object, ...]:
    """The order of changes, written again from the design."""
    texts = (change.source.encode(), change.transaction_id.encode())
    return (change.registered, RANK[change.status], change.consented, *texts)


@dataclass
class Model:
    """What a store should hold, in dictionaries."""

    consents: dict[Key, ConsentChange] = field(default_factory=dict)
    access: dict[Key, tuple[int, frozenset[int]]] = field(default_factory=dict)
    brands: dict[int, Brand] = field(default_factory=dict)
    watermarks: dict[int, int] = field(default_factory=dict)
    withheld: dict[int, int] = field(default_factory=dict)
    holds: dict[str, tuple[int, ...]] = field(default_factory=dict)
    sequence: int = 0

    def load(self, load: Load) -> None:
        """Apply one commit."""
        for row in load.rows:
            self.sequence += 1
            if isinstance(row, ConsentChange):
                self._consent(row)
            elif isinstance(row, RetailerAccess):
                self._access(row)
            else:
                self._brand(row)
        self._hold(load)
        if load.finished:
            for asked, seconds in load.watermarks:
                for brand in [asked] if asked else list(self.brands):
                    into = self.withheld if brand in self._held() else self.watermarks
                    into[brand] = max(seconds, into.get(brand, 0))

    def accept(self, source: str) -> bool:
        """Accept the rejects of a source; False if it has none."""
        if self.holds.pop(source, None) is None:
            return False
        for brand in set(self.withheld) - self._held():
            seconds = self.withheld.pop(brand)
            self.watermarks[brand] = max(seconds, self.watermarks.get(brand, 0))
        return True

    def counts(self) -> Counter[tuple[int, int, int, int]]:
        """Count the consents."""
        return Counter((each.brand, each.channel, each.recipient_type, each.status) for each in self.consents.values())

    def _held(self) -> set[int]:
        return set(itertools.chain.from_iterable(self.holds.values()))

    def _hold(self, load: Load) -> None:
        held = set(load.rejected_brands)
        if load.rejected_unknown:
            held |= {row.brand for row in load.rows} | {brand for brand, _ in load.watermarks if brand}
            if any(not brand for brand, _ in load.watermarks):
                held |= set(self.brands)
        self.holds.pop(load.source, None)
        if held:
            self.holds[load.source] = tuple(sorted(held))

    def _consent(self, row: ConsentChange) -> None:
        key = (row.brand, row.channel, row.recipient_type, row.tag)
        stored = self.consents.get(key)
        if stored is None or strength(row) > strength(stored):
            self.consents[key] = replace(row, sequence=self.sequence)

    def _access(self, row: RetailerAccess) -> None:
        key = (row.brand, row.channel, row.recipient_type, row.tag)
        registered, retailers = self.access.get(key, (-1, frozenset()))
        if row.registered > registered:
            self.access[key] = (row.registered, row.retailers)
        elif row.registered == registered:
            self.access[key] = (registered, retailers & row.retailers)

    def _brand(self, row: Brand) -> None:
        stored = self.brands.get(row.brand)
        if stored is None or row.registered > stored.registered:
            self.brands[row.brand] = row
        elif row.registered == stored.registered:
            deadlines = {row.legacy_deadline, stored.legacy_deadline} - {0}
            self.brands[row.brand] = replace(
                stored,
                iys_code=min(row.iys_code, stored.iys_code),
                active=row.active and stored.active,
                channels=row.channels & stored.channels,
                legacy_deadline=min(deadlines, default=0),
            )

    def reason(self, policy: Policy, context: Context, tag: bytes) -> int:  # noqa: PLR0911 - the table
        """Answer a commercial question, row by row of the published table."""
        brand = self.brands.get(context.brand)
        if brand is None:
            return 65
        if not brand.active or context.channel not in brand.channels:
            return 66
        watermark = self.watermarks.get(context.brand)
        if watermark is None or not NOW - policy.freshness_limit_s <= watermark <= NOW + 300:
            return 67
        key = (context.brand, context.channel, context.recipient_type, tag)
        record = self.consents.get(key)
        if record is None:
            if context.recipient_type == RecipientType.BIREYSEL:
                return 73
            return 72 if policy.merchants_need_record else 2
        if record.status != Status.ONAY:
            return {Status.UNKNOWN: 68, Status.RET: 69}[record.status]
        individual = context.recipient_type == RecipientType.BIREYSEL
        if individual and _too_late(record, brand.legacy_deadline or policy.legacy_deadline):
            return 70
        if context.retailer is not None and context.retailer not in self.access.get(key, (0, frozenset()))[1]:
            return 71
        return 1


def _too_late(record: ConsentChange, deadline: int) -> bool:
    before = {1: "2020-12-01", 2: "2021-01-01", 3: "2021-06-01"}[deadline]
    old = record.consented < local_seconds("2020-12-01 00:00:00")
    return old and record.registered >= local_seconds(f"{before} 00:00:00")


@contextmanager
def new_store() -> Iterator[StoreBuilder]:
    """A store in a directory of its own: hypothesis wants a fresh one for each example."""
    with tempfile.TemporaryDirectory() as directory, StoreBuilder(Path(directory) / "store") as builder:
        yield builder


def apply(builder: StoreBuilder, load: Load) -> None:
    """Write one commit with the real writer."""
    first = builder.writer.position.sequence + 1
    numbered = [
        replace(row, sequence=first + at) if isinstance(row, ConsentChange) else row for at, row in enumerate(load.rows)
    ]
    state = SourceState(
        name=load.source,
        brands=tuple(sorted({row.brand for row in load.rows})),
        rejected_brands=load.rejected_brands,
        rejected_unknown=load.rejected_unknown,
        watermarks=load.watermarks,
    )
    builder.writer.apply(split(numbered), state, finished=load.finished)


def split(rows: Sequence[Row]) -> Batch:
    """Sort rows of all kinds into a batch."""
    return a_batch(
        [row for row in rows if isinstance(row, ConsentChange)],
        [row for row in rows if isinstance(row, RetailerAccess)],
        [row for row in rows if isinstance(row, Brand)],
    )


def assert_same_answers(engine: Engine, model: Model) -> None:
    """Ask about everybody on every channel for every brand and retailer."""
    contexts = itertools.product([*BRANDS, 3], Channel, RecipientType, RETAILERS)
    for brand, channel, recipient_type, retailer in contexts:
        context = Context(brand=brand, channel=channel, recipient_type=recipient_type, retailer=retailer)
        expected = []
        for recipient in ADDRESSES[channel]:
            tag = KNOWN[channel, recipient][1]
            answer = engine.check(Question(context=context, address=recipient))
            expected.append(model.reason(engine.policy, context, tag))
            assert answer.reason == expected[-1]
            assert answer.message_class is MessageClass.COMMERCIAL
            assert answer.envelope.as_of == model.watermarks.get(brand)
            assert_evidence(answer, model.consents.get((brand, channel, recipient_type, tag)))
        column = engine.check_column(context, addresses=ADDRESSES[channel])
        assert column.reasons.tolist() == expected


def assert_evidence(answer: Answer, record: ConsentChange | None) -> None:
    """The evidence is the record that the model holds."""
    evidence = answer.evidence
    assert (evidence is None) == (record is None)
    if evidence and record:
        found = (evidence.status, evidence.source, evidence.transaction_id)
        assert found == (record.status, record.source, record.transaction_id)
        assert local_seconds(evidence.registration_time) == record.registered
        assert (local_seconds(evidence.consent_time) if evidence.consent_time else 0) == record.consented


policies = st.builds(
    Policy,
    merchants_need_record=st.booleans(),
    legacy_deadline=st.sampled_from(LegacyDeadline),
    freshness_limit_s=st.sampled_from([LIMIT, LIMIT + 1]),
)


class TestModel:
    """A store answers as a model of dictionaries does."""

    @settings(max_examples=often(60), deadline=None)
    @given(histories(), policies)
    def test_any_history(self, history: list[Load | Accept], policy: Policy) -> None:
        """After any history answers, evidence, registries, counts and position are the model's, without faults."""
        model = Model()
        with new_store() as builder:
            for step in history:
                if isinstance(step, Load):
                    apply(builder, step)
                    model.load(step)
                elif model.accept(step.source):
                    builder.writer.accept_rejects(step.source)
                else:
                    with pytest.raises(SourceUnknownError):
                        builder.writer.accept_rejects(step.source)

            assert_same_answers(builder.engine(policy=policy), model)
            with builder.store.snapshot() as snapshot:
                assert snapshot.position.sequence == model.sequence
                assert snapshot.counts() == model.counts()
                assert snapshot.watermarks() == model.watermarks
                assert snapshot.withheld() == model.withheld
                assert snapshot.holds() == model.holds
                assert {brand.brand: brand for brand in snapshot.brands()} == model.brands
            assert verify(builder.store).faults == []


class TestAnyOrder:
    """Every order of arrival and every splitting into batches gives the same store."""

    @settings(max_examples=often(60), deadline=None)
    @given(st.data(), feed_rows)
    def test_permutations(self, data: st.DataObject, rows: list[Row]) -> None:
        """The same rows in two orders, differently split, partly replayed, leave the same bytes."""
        shuffled = data.draw(st.permutations(rows))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=3)))
        stores = []
        for arrival, places in ((rows, []), (shuffled, cuts)):
            with new_store() as builder:
                for start, end in itertools.pairwise([0, *places, len(arrival)]):
                    part = replace(split(arrival[start:end]), rows=0)
                    builder.writer.apply(part, SourceState(name="source"))
                # Of equal changes the first to arrive leaves its position: none may be beyond the store's.
                builder.writer.apply(replace(split(arrival), rows=1_000), SourceState(name="source"))
                stores.append(content(builder.store))

        assert stores[0] == stores[1]

    def test_all_permutations(self) -> None:
        """Five changes of one consent, ties and a closure among them, end alike in all 120 orders."""
        tag = KNOWN[Channel.MESAJ, "+905321000001"][1]
        moment = local_seconds("2025-06-01 12:00:00")
        base = ConsentChange(
            brand=1,
            channel=Channel.MESAJ,
            recipient_type=RecipientType.BIREYSEL,
            tag=tag,
            status=Status.ONAY,
            registered=moment,
            consented=moment - 60,
            source="HS_WEB",
            transaction_id="ab" * 32,
            sequence=1,
        )
        changes = [
            base,
            replace(base, status=Status.UNKNOWN),
            replace(base, source="HS_MOBIL"),
            replace(base, transaction_id=""),
            replace(base, status=Status.RET, consented=0, source="IYS_AHS_HAT_KAPATMA"),
        ]
        with new_store() as builder:
            for brand, order in enumerate(itertools.permutations(changes), 1):
                half = brand % len(changes)
                for part in (order[:half], order[half:]):
                    batch = a_batch([replace(change, brand=brand) for change in part])
                    builder.writer.apply(batch, SourceState(name="source"))
            with builder.store.snapshot() as snapshot:
                records = [layout.decode_record(*item) for item in snapshot.items(layout.RECORDS)]

        left = [replace(record, brand=1, sequence=0) for record in records]
        assert len(left) == 120
        assert set(left) == {replace(changes[-1], sequence=0)}

    @pytest.mark.parametrize(
        "facts",
        [
            {"registered": [1, 2, 3]},
            {"status": [Status.ONAY, Status.UNKNOWN, Status.RET]},
            {"consented": [0, 1, 2]},
            {"source": ["", "HS_WEB", "IYS_WEB"]},
            {"transaction_id": ["", "ab" * 32, "b"]},
        ],
        ids=lambda facts: next(iter(facts)),
    )
    def test_each_fact_decides(self, facts: dict[str, list[object]]) -> None:
        """Of changes that differ in one fact the greatest stays, in one batch or in several, in every order."""
        ((name, ranked),) = facts.items()
        base = a_change(registered=1, consented=0, source="", transaction_id="")
        changes = [replace(base, **{name: value}) for value in ranked]  # type: ignore[arg-type]  # any one fact
        for order in itertools.permutations(changes):
            for parts in ([order], [[change] for change in order]):
                with new_store() as builder:
                    for part in parts:
                        builder.writer.apply(a_batch(list(part)), SourceState(name="source"))
                    (record,) = content(builder.store)[b"records"]

                assert record[1] == replace(changes[-1], sequence=0)


class TestHolds:
    """A rejected row may be a lost refusal: what it may concern is not called fresh."""

    def test_unreadable_brand(self) -> None:
        """A source that asks for all brands and lost a row of an unreadable one moves no watermark, until accepted."""
        state = SourceState(name="source", rejected=1, rejected_unknown=True, brands=(1,), watermarks=((0, NOW),))
        with new_store() as builder:
            builder.brand(1, watermark=None).brand(2, watermark=None).commit()

            finished = builder.writer.apply(a_batch(rows=1), state, finished=True)
            accepted = builder.writer.accept_rejects("source")

        assert (finished.watermarks, finished.withheld) == ({}, {1: NOW, 2: NOW})
        assert (accepted.watermarks, accepted.withheld) == ({1: NOW, 2: NOW}, {})


class TestApplied:
    """What a commit reports is what it did."""

    @settings(max_examples=often(40), deadline=None)
    @given(st.lists(on_known_tags(consent_changes), max_size=20))
    def test_applied(self, rows: list[ConsentChange]) -> None:
        """Of N rows those that are kept are applied and the others superseded; a replay applies none."""
        with new_store() as builder:
            first = builder.writer.apply(a_batch(rows), SourceState(name="source"))
            second = builder.writer.apply(a_batch(rows), SourceState(name="source"))
            records = builder.store.stats().records

        assert (first.applied, first.superseded) == (records, len(rows) - records)
        assert (second.applied, second.superseded) == (0, len(rows))
        assert second.position.sequence == 2 * len(rows)

    def test_column_of_many(self) -> None:
        """Ten thousand consents in one batch are all found by a column, in the order asked."""
        rng = np.random.default_rng(5)
        numbers = [f"+90532{number:07d}" for number in rng.permutation(10_000)]
        tags = STORE_KEY.tags(address.tokens(numbers, Channel.MESAJ, ADDRESS_KEY))
        statuses = rng.choice([Status.ONAY, Status.RET], len(numbers))
        base = Load(
            source="s", rows=[], rejected_brands=(), rejected_unknown=False, watermarks=((0, NOW),), finished=True
        )
        rows: list[Row] = [
            ConsentChange(
                brand=1,
                channel=Channel.MESAJ,
                recipient_type=RecipientType.BIREYSEL,
                tag=tags[at].tobytes(),
                status=Status(status),
                registered=local_seconds("2025-01-01 00:00:00"),
                consented=local_seconds("2024-12-31 00:00:00"),
                source="HS_WEB",
                transaction_id="",
                sequence=at,
            )
            for at, status in enumerate(statuses.tolist())
        ]
        context = Context(brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)
        with new_store() as builder:
            builder.brand(1).commit()
            apply(builder, replace(base, rows=rows))

            reasons = builder.engine().check_column(context, addresses=numbers).reasons

        assert reasons.tolist() == [1 if status == Status.ONAY else 69 for status in statuses]
