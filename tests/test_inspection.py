"""What is told of a store to whoever operates it: states, pages, what holds a brand back, and which rows wait."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.consent import CLOCK_TOLERANCE_S, Channel, Policy, Status
from iyscheck.engine import Engine, inspection
from iyscheck.engine.inspection import Inspection
from iyscheck.errors import StoreError, StoreReplacedError
from iyscheck.overview import BRAND_STATES, AfterBrand, BrandOrder, BrandOverview, BrandState, Loaded, SourceOverview
from iyscheck.store.layout import RejectedRow, SourceState
from tests.builders import NOW, STORE_KEY, StoreBuilder, a_batch, a_change
from tests.dice import often

LIMIT = 1_000
POLICY = Policy(freshness_limit_s=LIMIT)
MANY = 60
MOST_PAGES = 200


@pytest.fixture(name="builder")
def _builder(tmp_path: Path) -> Iterator[StoreBuilder]:
    with StoreBuilder(tmp_path / "store") as store:
        yield store


def inspect(builder: StoreBuilder, *, now: float = NOW) -> Inspection:
    """Look at a store whose clock stands still."""
    return builder.engine(policy=POLICY, now=now).inspection()


def a_source(name: str, **fields: object) -> SourceState:
    """Make a source of which a test names only what it is about."""
    return SourceState(name=name, **fields)  # type: ignore[arg-type] # its fields, passed on


def held(name: str, *brands: int, rejected: int = 1, watermarks: tuple[tuple[int, int], ...] = ()) -> SourceState:
    """Make a source that lost rows of some brands."""
    rejects = tuple(RejectedRow(line + 1, "recipient", "INVALID_ADDRESS") for line in range(rejected))
    return a_source(
        name,
        rows=9,
        skipped=2,
        rejected=rejected,
        rejected_brands=brands,
        watermarks=watermarks,
        first_rejects=rejects,
    )


def all_brands(
    looked: Inspection, most: int, *, state: BrandState | None = None, order: BrandOrder = BrandOrder.CODE
) -> list[list[BrandOverview]]:
    """Read all pages of brands."""
    pages, after = [], None
    while True:
        page, after = looked.brands(state=state, order=order, after=after, most=most)
        pages.append(page)
        assert len(pages) < MOST_PAGES, "it never ends"
        if after is None:
            return pages


def all_sources(looked: Inspection, most: int, state: Loaded | None = None) -> list[list[SourceOverview]]:
    """Read all pages of sources."""
    pages, after = [], None
    while True:
        page, after = looked.sources(state=state, after=after, most=most)
        pages.append(page)
        assert len(pages) < MOST_PAGES, "it never ends"
        if after is None:
            return pages


class TestStates:
    """A brand's state is what its commercial messages meet, or soon will."""

    @pytest.mark.parametrize(
        ("watermark", "state"),
        [
            (NOW, BrandState.FRESH),
            (NOW - 800, BrandState.FRESH),
            (NOW - 801, BrandState.LATE),
            (NOW - LIMIT, BrandState.LATE),
            (NOW - LIMIT - 1, BrandState.STALE),
            (0, BrandState.STALE),
            (NOW + CLOCK_TOLERANCE_S, BrandState.FRESH),
            (NOW + CLOCK_TOLERANCE_S + 1, BrandState.STALE),
            (None, BrandState.NONE),
        ],
    )
    def test_by_watermark(self, builder: StoreBuilder, watermark: int | None, state: BrandState) -> None:
        """Late is older than 80 % of the limit, stale older than all of it or ahead of the clock."""
        builder.brand(7, watermark=watermark).commit()
        looked = inspect(builder)

        ((brand,),) = all_brands(looked, 5)

        assert (brand.state, brand.watermark) == (state, watermark)
        assert brand.stale_from == (None if watermark is None else watermark + LIMIT)
        assert {found: number for found, number in looked.store().brands.items() if number} == {state: 1}

    def test_inactive(self, builder: StoreBuilder) -> None:
        """An inactive brand is that, however fresh its data is."""
        builder.brand(7, active=False, channels=[Channel.MESAJ]).commit()

        ((brand,),) = all_brands(inspect(builder), 5)

        assert (brand.state, brand.channels, brand.watermark) == (BrandState.INACTIVE, (Channel.MESAJ,), NOW)

    def test_unregistered(self, builder: StoreBuilder) -> None:
        """A brand of which only consents, or only a watermark, were loaded is there, and is not registered."""
        builder.consent(brand=2**32 - 1).consent(brand=8, status=Status.RET).commit()
        builder.writer.apply(a_batch(), a_source("w", watermarks=((9, NOW),)), finished=True)

        (brands,) = all_brands(inspect(builder), 5)

        assert [(brand.brand, brand.state, brand.iys_code) for brand in brands] == [
            (code, BrandState.UNREGISTERED, None) for code in (8, 9, 2**32 - 1)
        ]
        assert [brand.records for brand in brands] == [1, 0, 1]


class TestBrands:
    """Pages of brands are, one after the other, all brands in the order that was asked for."""

    @pytest.fixture(name="many", scope="class")
    @staticmethod
    def _many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inspection]:
        """Sixty brands in all states, whose watermarks are few: many are equal."""
        dice = Random(5)
        with StoreBuilder(tmp_path_factory.mktemp("many") / "store") as store:
            for code in dice.sample(range(1, 2**32), MANY):
                ages = (0, 900, 2_000, None)
                age = dice.choice(ages)
                store.brand(code, watermark=None if age is None else NOW - age, active=dice.random() < 0.8)
            store.consent(brand=3).consent(brand=4).commit()
            yield inspect(store)

    @given(st.none() | st.sampled_from(BRAND_STATES), st.sampled_from(BrandOrder), st.integers(1, MANY + 5))
    @settings(max_examples=often(200), deadline=None)
    def test_pages(self, many: Inspection, state: BrandState | None, order: BrandOrder, most: int) -> None:
        """None is missing, none comes twice, each page but the last is full, and the state is the one asked for."""
        pages = all_brands(many, most, state=state, order=order)

        found = [brand for page in pages for brand in page]
        (whole,) = all_brands(many, 10_000)
        asked = [brand for brand in whole if state in (None, brand.state)]
        if order is BrandOrder.WATERMARK:
            asked.sort(key=lambda brand: (-1 if brand.watermark is None else brand.watermark, brand.brand))
        assert found == asked
        assert all(len(page) == most for page in pages[:-1])

    def test_counts(self, many: Inspection) -> None:
        """The numbers by state are those of the lists, and the watermarks those of all brands that have one."""
        (whole,) = all_brands(many, 10_000)
        store = many.store()
        watermarks = sorted(brand.watermark for brand in whole if brand.watermark is not None)

        assert len(whole) == MANY + 2
        assert store.brands == {
            state: len([brand for brand in whole if brand.state is state]) for state in BRAND_STATES
        }
        marks = store.watermarks
        assert (marks.oldest, marks.newest) == (watermarks[0], watermarks[-1])
        assert marks.median == watermarks[(len(watermarks) - 1) // 2]

    def test_between_pages(self, builder: StoreBuilder) -> None:
        """A page begins behind the last one also where that brand's watermark has moved, or others have come."""
        for code in (1, 2, 3):
            builder.brand(code, watermark=NOW - code)
        builder.commit()
        looked = inspect(builder)
        first, after = looked.brands(state=None, order=BrandOrder.WATERMARK, after=None, most=1)
        builder.brand(3, watermark=NOW).brand(4, watermark=NOW).commit()

        rest, end = looked.brands(state=None, order=BrandOrder.WATERMARK, after=after, most=5)

        assert [brand.brand for brand in first] == [3]
        assert after == AfterBrand(NOW - 3, 3)
        assert [brand.brand for brand in rest] == [2, 1, 3, 4]
        assert end is None

    def test_records(self, builder: StoreBuilder) -> None:
        """The consents of a brand are counted over all its channels and types, and no other's."""
        builder.brand(1).brand(2).brand(256)
        for channel in (Channel.MESAJ, Channel.ARAMA):
            builder.consent(brand=1, channel=channel).consent(brand=256, channel=channel, recipient="+905321000009")
        builder.consent(brand=1, recipient="+905321000002", status=Status.RET).commit()

        (brands,) = all_brands(inspect(builder), 5)

        assert [(brand.brand, brand.records) for brand in brands] == [(1, 3), (2, 0), (256, 2)]
        assert inspect(builder).store().size.records == 5

    def test_held_back(self, builder: StoreBuilder) -> None:
        """A brand says which watermark waits, and for which sources; twelve are counted and ten are named."""
        builder.brand(1, watermark=NOW - 5).brand(2).commit()
        for number in range(12):
            state = held(f"s{number:02}", 1, watermarks=((1, NOW), (2, NOW + 1)))
            builder.writer.apply(a_batch(rows=9), state, finished=True)

        (first, second), _ = inspect(builder).brands(state=None, order=BrandOrder.CODE, after=None, most=2)

        assert (first.watermark, first.withheld, first.sources_holding) == (NOW - 5, NOW, 12)
        assert first.held_by == tuple(f"s{number:02}" for number in range(10))
        assert (second.watermark, second.withheld, second.held_by) == (NOW + 1, None, ())


class TestSources:
    """What is told of a source: how far it is, and which of its rows wait."""

    def test_fields(self, builder: StoreBuilder) -> None:
        """Rows by what became of them, when they were registered, and the rejected ones by line, field and reason."""
        state = held("feed", 1, 2, rejected=3)
        builder.writer.apply(a_batch(rows=9), state, finished=True)

        ((source,),) = all_sources(inspect(builder), 5)

        assert (source.name, source.state, source.finished) == ("feed", Loaded.HELD, True)
        assert (source.rows, source.loaded, source.skipped, source.rejected) == (9, 4, 2, 3)
        assert (source.held_brands, source.brands_held) == ((1, 2), 2)
        assert [(row.line, row.field, row.reason) for row in source.rejects] == [
            (line, "recipient", "INVALID_ADDRESS") for line in (1, 2, 3)
        ]
        assert (source.earliest, source.latest) == ("", "")

    def test_accepted(self, builder: StoreBuilder) -> None:
        """When the rejected rows are accepted none waits, and the source is finished."""
        builder.brand(1).commit("brands")
        builder.writer.apply(a_batch(rows=9), held("feed", 1), finished=True)
        waiting = inspect(builder).store()
        builder.writer.accept_rejects("feed")

        sources = {source.name: source for page in all_sources(inspect(builder), 1) for source in page}

        assert (waiting.sources_held, waiting.rejected_rows_waiting) == (1, 1)
        assert (sources["feed"].state, sources["feed"].rejects) == (Loaded.FINISHED, ())
        assert sources["feed"].rejects_accepted
        assert (inspect(builder).store().sources_held, inspect(builder).store().rejected_rows_waiting) == (0, 0)

    @given(st.none() | st.sampled_from([Loaded.FINISHED, Loaded.UNFINISHED, Loaded.HELD]), st.integers(1, 15))
    @settings(max_examples=often(100), deadline=None)
    def test_pages(self, mixed: Inspection, state: Loaded | None, most: int) -> None:
        """Page after page gives each source of the state once; a page may be short, never too long."""
        pages = all_sources(mixed, most, state)

        found = [source.name for page in pages for source in page]
        wanted = {Loaded.FINISHED: "f", Loaded.UNFINISHED: "u", Loaded.HELD: "h"}
        expected = {
            f"{kind}{number}" for number in range(4) for kind in "fuh" if state is None or wanted[state] == kind
        }
        assert len(found) == len(set(found))
        assert set(found) == expected
        assert all(len(page) <= most for page in pages)

    @pytest.fixture(name="mixed", scope="class")
    @staticmethod
    def _mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inspection]:
        """Four sources of each state."""
        with StoreBuilder(tmp_path_factory.mktemp("mixed") / "store") as store:
            for number in range(4):
                store.writer.apply(a_batch(rows=1), a_source(f"f{number}", rows=1), finished=True)
                store.writer.apply(a_batch(rows=1), a_source(f"u{number}", rows=1))
                store.writer.apply(a_batch(rows=9), held(f"h{number}", 1), finished=number % 2 == 0)
            yield inspect(store)

    def test_bounded(self, mixed: Inspection, monkeypatch: pytest.MonkeyPatch) -> None:
        """A call looks at so many sources and no more: a page may be empty and yet not the last."""
        monkeypatch.setattr(inspection, "LOOKED_AT_MOST", 2)

        pages = all_sources(mixed, 10, Loaded.FINISHED)

        assert len(pages) >= 6
        assert sorted(source.name for page in pages for source in page) == ["f0", "f1", "f2", "f3"]
        assert all(len(page) <= 2 for page in pages)


class TestStore:
    """What a glance shows."""

    def test_empty(self, builder: StoreBuilder) -> None:
        """An empty store has no watermarks, no brands and one page without anything."""
        looked = inspect(builder)
        store = looked.store()

        assert (store.watermarks.newest, store.watermarks.median, store.watermarks.oldest) == (None, None, None)
        assert store.brands == dict.fromkeys(BRAND_STATES, 0)
        assert (all_brands(looked, 1), all_sources(looked, 1)) == ([[]], [[]])
        assert (store.withheld_brands, store.sources_held, store.rejected_rows_waiting) == (0, 0, 0)

    def test_follows(self, builder: StoreBuilder) -> None:
        """Each look shows what is committed by then."""
        looked = inspect(builder)
        before = looked.store()
        builder.brand(1).consent().commit()

        after = looked.store()

        assert (before.position.sequence, after.position.sequence) == (0, 2)
        assert (before.brands[BrandState.FRESH], after.brands[BrandState.FRESH]) == (0, 1)
        assert after.size.disk_free_bytes > 0
        assert after.size.max_readers > after.size.readers > 0

    def test_replaced(self, tmp_path: Path) -> None:
        """Where the files at the path are gone, nothing is told of those that are open."""
        StoreBuilder(tmp_path / "store").close()
        with Engine.open(tmp_path / "store", store_key=STORE_KEY) as engine:
            looked = engine.inspection()
            looked.store()
            (tmp_path / "store").rename(tmp_path / "away")
            engine._opened.look_again_s = 0.0  # half a second later

            for look in (
                looked.store,
                lambda: looked.brands(state=None, order=BrandOrder.CODE, after=None, most=1),
                lambda: looked.sources(state=None, after=None, most=1),
            ):
                with pytest.raises((StoreReplacedError, StoreError)):
                    look()

    def test_a_change_between(self, builder: StoreBuilder) -> None:
        """What is told is of one moment, though consents are written all the time."""
        looked = inspect(builder)
        builder.brand(1).commit()
        for number in range(5):
            builder.writer.apply(a_batch([a_change(recipient=f"+90532100000{number}")]), a_source("s"), finished=True)
            (brand,), _ = looked.brands(state=None, order=BrandOrder.CODE, after=None, most=1)
            assert brand.records == number + 1
