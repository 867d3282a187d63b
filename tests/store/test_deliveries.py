"""What the store remembers of its feeds: when they came, how often they should, and how late refusals were."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iyscheck.consent import Status
from iyscheck.errors import StoreCorruptError
from iyscheck.store import layout
from iyscheck.store.deliveries import DAY_S, HISTORY_S, MOST_FEEDS, OTHER, Delivery, rhythm_after
from iyscheck.store.layout import FeedState, SourceState
from iyscheck.store.snapshot import Store
from iyscheck.store.verification import verify
from iyscheck.times import local_seconds
from loader.loading.options import FeedTerms
from tests.builders import NOW, StoreBuilder, a_batch, a_brand, a_change
from tests.loader.feeds import Desk, brand_row, consent, watermark_row

LOCAL_NOW = NOW + 3 * 3600
"""İYS's clocks at NOW, as they show it."""
DELIVERY = Delivery(feed="daily", now_s=NOW, local_s=LOCAL_NOW)
HOUR_S = 3600


def feeds_of(store: Store) -> dict[str, FeedState]:
    """Read all feeds."""
    with store.snapshot() as snapshot:
        return {feed.name: feed for feed in snapshot.feeds()}


def refused(*ages_s: int, brand: int = 1, status: Status = Status.RET) -> list[object]:
    """Make refusals of different people that were registered so long ago."""
    return [
        a_change(
            brand=brand,
            recipient=f"+9053210{age * 7919 % 100_000:05}",
            status=status,
            registered=LOCAL_NOW - age,
            consented=0,
        )
        for age in ages_s
    ]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A place to load at."""
    return Desk(tmp_path)


class TestLive:
    """Which refusals count, and by what."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> StoreBuilder:
        """A store of a brand that is complete until an hour ago, and one that is complete until nobody knows when."""
        store = StoreBuilder(tmp_path / "store")
        store.brand(1, watermark=NOW - HOUR_S).brand(2, watermark=None).commit()
        return store

    @pytest.mark.parametrize(
        ("changes", "counted"),
        [
            (refused(60), 1),
            (refused(HOUR_S + HISTORY_S - 1), 1),
            (refused(HOUR_S + HISTORY_S), 0),
            (refused(60, brand=2), 0),
            (refused(60, brand=3), 0),
            (refused(60, status=Status.ONAY), 0),
            (refused(60, status=Status.UNKNOWN), 0),
            (refused(60) + refused(70, brand=2) + refused(80), 2),
        ],
        ids=["new", "a week behind", "an archive's", "first load", "no brand", "consent", "unknown", "several"],
    )
    def test_rule(self, store: StoreBuilder, changes: list[object], counted: int) -> None:
        """A refusal counts that is registered after its brand's watermark or in the week before it, and no other."""
        store.writer.apply(a_batch(changes), SourceState(name="a"), delivery=DELIVERY)  # type: ignore[arg-type] # changes

        assert feeds_of(store.store)["daily"].refusals == counted

    def test_own_watermark(self, store: StoreBuilder) -> None:
        """The watermark that a commit itself moves does not make a first load live."""
        source = SourceState(name="a", watermarks=((2, NOW),))
        store.writer.apply(a_batch(refused(60, brand=2)), source, finished=True, delivery=DELIVERY)  # type: ignore[arg-type] # changes

        assert feeds_of(store.store)["daily"].refusals == 0

    def test_replay(self, store: StoreBuilder) -> None:
        """What is in the store already does not become visible a second time."""
        for name in ("a", "b"):
            store.writer.apply(a_batch(refused(60, 70)), SourceState(name=name), delivery=DELIVERY)  # type: ignore[arg-type] # changes

        assert feeds_of(store.store)["daily"].refusals == 2

    def test_delays(self, store: StoreBuilder) -> None:
        """Each is counted by its delay, and as late where that is more than was promised."""
        ages = (0, 60, 61, 5_400, 5_401, 129_600, 129_601)
        promised = replace(DELIVERY, promise_s=5_400)
        store.writer.apply(a_batch(refused(*ages)), SourceState(name="a"), delivery=promised)  # type: ignore[arg-type] # changes

        feed = feeds_of(store.store)["daily"]
        assert feed.delays == (2, 1, 0, 1, 1, 0, 1, 1, 0)
        assert feed.late == 3
        assert feed.delay_sum == sum(ages)

    def test_ahead(self, store: StoreBuilder) -> None:
        """A refusal whose time is ahead of our clock took no time."""
        store.writer.apply(a_batch(refused(-500)), SourceState(name="a"), delivery=DELIVERY)  # type: ignore[arg-type] # changes

        assert feeds_of(store.store)["daily"].delay_sum == 0


class TestSuccess:
    """When a feed has succeeded."""

    TERMS = FeedTerms(name="files", learns=True)

    def feed(self, desk: Desk) -> FeedState:
        """Read what is known."""
        with Store.open(desk.store) as store:
            return feeds_of(store)["files"]

    def test_loaded(self, desk: Desk) -> None:
        """A source that is loaded to its end is a success, also one without rows; one that is passed over is none."""
        desk.load(desk.file("a", brand_row(), consent(), watermark_row()), feed=self.TERMS)
        first = self.feed(desk)
        desk.load(str(desk.path / "a"), now=NOW + 60, feed=self.TERMS)
        passed_over = self.feed(desk)
        desk.load(desk.file("b"), now=NOW + 120, feed=self.TERMS)

        assert first.succeeded == first.committed == NOW
        assert passed_over == first
        assert self.feed(desk).succeeded == NOW + 120

    def test_fill(self, desk: Desk) -> None:
        """A first load that is sorted as a whole is a success, and none of its refusals is live."""
        path = desk.file("a", brand_row(), watermark_row(), consent(status="RET"))
        desk.load(path, fill_bytes=0, feed=self.TERMS)

        assert self.feed(desk).succeeded == NOW
        assert self.feed(desk).refusals == 0

    def test_live_row(self, desk: Desk) -> None:
        """What a row's own text says is compared with the clock as İYS shows it."""
        desk.load(desk.file("a", brand_row(), watermark_row()), feed=self.TERMS)
        desk.load(
            desk.file("b", consent(status="RET", creationDate="2026-01-01 02:59:00")),
            feed=replace(self.TERMS, promise_s=59),
        )

        assert self.feed(desk).delays[:2] == (1, 0)
        assert self.feed(desk).late == 1

    def test_stopped(self, tmp_path: Path) -> None:
        """A commit in the middle of a source is none, but it is told when it was made."""
        with StoreBuilder(tmp_path / "store") as store:
            store.writer.apply(a_batch([a_change()]), SourceState(name="a"), delivery=DELIVERY)

            feed = feeds_of(store.store)["daily"]
            assert (feed.committed, feed.succeeded, feed.interval) == (NOW, 0, 0)


class TestInterval:
    """How often a feed should succeed."""

    def succeed(self, store: StoreBuilder, now_s: int, **fields: object) -> FeedState:
        """Finish a source at a time."""
        delivery = replace(DELIVERY, now_s=now_s, **fields)  # type: ignore[arg-type] # its fields, passed on
        store.writer.apply(a_batch(), SourceState(name=str(now_s)), finished=True, delivery=delivery)
        return feeds_of(store.store)["daily"]

    def test_said(self, tmp_path: Path) -> None:
        """What an operator said counts before what was seen, and stays until something else is said."""
        with StoreBuilder(tmp_path / "store") as store:
            assert self.succeed(store, NOW).interval == 0
            assert self.succeed(store, NOW + 1, learns=True).interval == DAY_S
            assert self.succeed(store, NOW + 2, every_s=HOUR_S).interval == HOUR_S
            assert self.succeed(store, NOW + 3, learns=True).interval == HOUR_S
            store.writer.expect("daily", 0)
            assert feeds_of(store.store)["daily"].interval == DAY_S
            store.writer.expect("new", HOUR_S)
            assert feeds_of(store.store)["new"].interval == HOUR_S

    @given(st.lists(st.integers(-5, 5 * DAY_S), min_size=1, max_size=20))
    def test_rhythm(self, pauses: list[int]) -> None:
        """It is never less than a day or the last pause, and never more than the longest one."""
        feed, now = FeedState(name="daily", succeeded=NOW, rhythm=DAY_S), NOW
        for pause in pauses:
            now += pause
            rhythm = rhythm_after(feed, now)
            assert max(pause, DAY_S) <= rhythm <= max(DAY_S, *pauses)
            feed = msgspec.structs.replace(feed, succeeded=now, rhythm=rhythm)

    def test_daily(self) -> None:
        """Hundreds of files in a minute of each working day are a feed of some days, not of seconds."""
        feed = FeedState(name="daily")
        days = [day for day in range(28) if day % 7 < 5]
        for day, next_day in pairwise(days):
            for second in range(60):
                now = NOW + day * DAY_S + second
                feed = msgspec.structs.replace(feed, rhythm=rhythm_after(feed, now), succeeded=now)
            assert 3 * feed.interval >= (next_day - day) * DAY_S
            assert day < 7 or feed.interval > 2 * DAY_S  # the weekend is not forgotten by Friday
        assert feed.interval <= 3 * DAY_S

    def test_outage(self) -> None:
        """A long silence does not make it wait for so long the next time, for good."""
        feed, now = FeedState(name="daily", succeeded=NOW, rhythm=DAY_S), NOW
        for pause in (20 * DAY_S, *[DAY_S] * 120):
            now += pause
            feed = msgspec.structs.replace(feed, rhythm=rhythm_after(feed, now), succeeded=now)

        assert feed.interval < 6 * DAY_S


class TestStored:
    """The fields of `meta` that keep it."""

    def test_many(self, tmp_path: Path) -> None:
        """As many feeds are told apart as there is room for, and all others are one."""
        with StoreBuilder(tmp_path / "store") as store:
            for number in range(MOST_FEEDS + 3):
                delivery = replace(DELIVERY, feed=f"feed-{number}", now_s=NOW + number)
                store.writer.apply(a_batch(), SourceState(name="a"), delivery=delivery)

            feeds = feeds_of(store.store)
            assert sorted(feeds) == sorted([*(f"feed-{number}" for number in range(MOST_FEEDS)), OTHER])
            assert feeds[OTHER].committed == NOW + MOST_FEEDS + 2

    def test_older(self, tmp_path: Path) -> None:
        """A store of before has none; a load without terms writes none; the next one with terms does."""
        with StoreBuilder(tmp_path / "store") as store:
            store.brand().commit()
            assert feeds_of(store.store) == {}
            reader = store.store
            store.writer.apply(a_batch(), SourceState(name="a"), delivery=DELIVERY)
            assert list(feeds_of(reader)) == ["daily"]

    def test_damaged(self, tmp_path: Path) -> None:
        """Damage is found by `verify` and by readers, and no load fails for it: it begins anew."""
        with StoreBuilder(tmp_path / "store") as store:
            store.brand().commit()
            environment = store.writer.environment
            for value in (
                b"",
                b"\0" * 40,
                layout.checked(layout.feed_field("daily"), b'{"name":"daily","delays":[1]}'),
            ):
                with environment.lmdb.begin(write=True) as txn:
                    txn.put(layout.feed_field("daily"), value, db=environment.databases[layout.META])
                with pytest.raises(StoreCorruptError):
                    feeds_of(store.store)
                assert [fault for fault in verify(store.store).faults if fault.startswith("feeds: ")]

                store.writer.apply(a_batch(refused(60)), SourceState(name="a"), delivery=DELIVERY)  # type: ignore[arg-type] # changes
                assert feeds_of(store.store)["daily"].committed == NOW
                assert not verify(store.store).faults

    def test_round_trip(self) -> None:
        """What is written is read, and a field of a later version is passed over."""
        feed = FeedState(name="a-b_1", committed=1, succeeded=2, every=3, rhythm=4, refusals=5, late=6, delay_sum=7)
        key = layout.feed_field(feed.name)
        value = layout.encode_feed(feed)
        later = layout.checked(key, value[layout.CHECKED_FROM :].replace(b'{"name"', b'{"more":1,"name"'))

        assert layout.decode_feed(key, value) == layout.decode_feed(key, later) == feed
        assert layout.feed_name(key) == feed.name

    def test_clock(self) -> None:
        """The clock that the tests show as İYS's is the one that the loader takes."""
        delivery = FeedTerms(name="a").delivery(NOW)

        assert delivery.local_s == LOCAL_NOW == local_seconds("2026-01-01 03:00:00")
        assert a_brand(1).registered < LOCAL_NOW
