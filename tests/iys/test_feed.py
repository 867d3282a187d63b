import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.iys.messages import FeedSource
from tests.iys.asking import Asker
from tests.iys.clock import VirtualClock
from tests.iys.days import day_of
from tests.iys.fake import FakeIys
from tests.iys.movements import Feed, Movements
from tests.iys.quirks import Quirks

HOUR_S = 3600.0
CHANNELS = frozenset({"MESAJ"})


class TestVisibility:
    """What pull sees, and when."""

    def test_after_sixty_minutes(self, fake: FakeIys, asker: Asker) -> None:
        """A movement is seen from exactly sixty minutes after its registration on, and not before."""
        asker.sign_in()
        moved = fake.move(600_001)
        clock = fake.clock
        assert isinstance(clock, VirtualClock)
        clock.set(moved.registered_s + HOUR_S - 1.001)
        assert asker.changes(source="HS").status_code == httpx.codes.NO_CONTENT
        clock.set(moved.registered_s + HOUR_S - 1)
        assert [row["transactionId"] for row in asker.changes(source="HS").json()["list"]] == [moved.transaction_id]

    def test_inside_a_second(self, fake: FakeIys, asker: Asker) -> None:
        """Two movements of one second may become visible apart, though their registration reads the same."""
        clock = fake.clock
        assert isinstance(clock, VirtualClock)
        begin_s = float(int(clock.now()))
        for part, recipient in ((0.2, "+905321000002"), (0.8, "+905321000008")):
            fake.move(600_001, recipient=recipient, created_s=begin_s + part)
        asker.sign_in()
        clock.set(begin_s + HOUR_S - 0.5)
        assert len(asker.changes(source="HS").json()["list"]) == len(fake.visible_rows(600_001, "HS")) == 1
        assert len(asker.changes(source="HS").json()["list"]) == len(fake.visible_rows(600_001, "HS")) == 2

    def test_seven_days(self, fake: FakeIys, asker: Asker) -> None:
        """Pull looks back seven days."""
        fake.move(600_001, created_s=fake.clock.now() - 7 * 86_400 - 10, recipient="+905321000001")
        fake.move(600_001, created_s=fake.clock.now() - 7 * 86_400 + 60, recipient="+905321000002")
        assert asker.recipients(source="HS") == ["+905321000002"]

    def test_first_second(self, fake: FakeIys, asker: Asker) -> None:
        """The window begins inside a second, too: what was registered earlier in that second is outside."""
        asker.sign_in()
        fake.advance(1.0 - fake.clock.now() % 1.0)
        begin_s = fake.clock.now() - 7 * 86_400 + 1.5
        for early_s, recipient in ((0.4, "+905321000001"), (0.0, "+905321000002")):
            fake.move(600_001, created_s=begin_s - early_s, recipient=recipient)
        fake.advance(0.5)
        assert [row["recipient"] for row in asker.changes(source="HS").json()["list"]] == ["+905321000002"]

    def test_two_streams(self, fake: FakeIys, asker: Asker) -> None:
        """The two sources are two feeds, and who names none gets that of the citizens."""
        fake.move(600_001, "HS", created_s=fake.clock.now() - HOUR_S, recipient="+905321000001")
        fake.move(600_001, "IYS", created_s=fake.clock.now() - HOUR_S, recipient="+905321000002")
        assert asker.recipients(source="HS") == ["+905321000001"]
        assert asker.recipients() == asker.recipients(source="IYS") == ["+905321000002"]

    def test_readable_channels(self, fake: FakeIys, asker: Asker) -> None:
        """An integrator sees only the channels that it may read."""
        fake.integrator(900_001, "partner", "secret", manages=[600_001])
        fake.rights("partner", 600_001, {"MESAJ": "write"})
        for channel, recipient in (("MESAJ", "+905321000001"), ("EPOSTA", "a@example.com")):
            fake.move(600_001, created_s=fake.clock.now() - HOUR_S, channel=channel, recipient=recipient)
        asker.username = "partner"
        assert asker.recipients(source="HS") == ["+905321000001"]


class TestCursors:
    """Paging."""

    @pytest.mark.parametrize("cursor", ["s", "ms"])
    def test_pages(self, fake: FakeIys, asker: Asker, cursor: str) -> None:
        """Pages of any size give all rows in order and none twice, whichever way cursors are spelled."""
        fake.set_quirks(cursor=cursor)
        expected = [f"+9053210000{number:02}" for number in range(7)]
        for number, recipient in enumerate(expected):
            fake.move(600_001, created_s=fake.clock.now() - 2 * HOUR_S + number, recipient=recipient)
        assert asker.recipients(source="HS", limit=3) == expected

    def test_twins(self, fake: FakeIys, asker: Asker) -> None:
        """The end of a page between two movements of one second and transaction hides the second of them."""
        for status in ("ONAY", "RET"):
            fake.move(600_001, created_s=fake.clock.now() - HOUR_S, status=status, transaction_id="twin")
        assert len(asker.recipients(source="HS", limit=1)) == 1
        assert len(asker.recipients(source="HS", limit=2)) == 2
        fake.set_quirks(twins_skipped=False)
        assert len(asker.recipients(source="HS", limit=1)) == 2

    def test_late_row(self, fake: FakeIys, asker: Asker) -> None:
        """A row that becomes visible behind a cursor is seen only by who begins anew."""
        early_s = fake.clock.now() - 2 * HOUR_S
        fake.move(600_001, created_s=early_s, visible_after_s=3 * HOUR_S, recipient="+905321000001")
        fake.move(600_001, created_s=early_s + 60, recipient="+905321000002")
        after = asker.changes(source="HS").json()["after"]
        fake.advance(HOUR_S)
        assert asker.recipients(source="HS", after=after) == []
        assert asker.recipients(source="HS") == ["+905321000001", "+905321000002"]

    @pytest.mark.parametrize(("how", "status"), [("resume", 200), ("restart", 200), ("refuse", 422)])
    def test_old_cursor(self, fake: FakeIys, asker: Asker, how: str, status: int) -> None:
        """A cursor from before the window shows what is in the window, or is refused."""
        fake.set_quirks(old_cursor=how)
        fake.move(600_001, created_s=fake.clock.now() - HOUR_S)
        after = asker.changes(source="HS").json()["after"]
        fake.advance(8 * 86_400.0)
        asker.sign_in()
        fake.move(600_001, created_s=fake.clock.now() - HOUR_S)
        assert asker.changes(source="HS", after=after).status_code == status

    @pytest.mark.parametrize(("how", "status"), [("restart", 200), ("refuse", 422)])
    def test_strange_cursor(self, fake: FakeIys, asker: Asker, how: str, status: int) -> None:
        """A cursor that İYS never gave begins the window anew, or is refused."""
        fake.set_quirks(bad_cursor=how)
        fake.move(600_001, created_s=fake.clock.now() - HOUR_S)
        assert asker.changes(source="HS", after="yesterday").status_code == status

    def test_arrival(self, fake: FakeIys, asker: Asker) -> None:
        """Where rows come as they came to İYS, an early registration may stand behind a later one, and none is lost."""
        fake.set_quirks(order="arrival")
        for ago_s, recipient in ((HOUR_S, "+905321000001"), (2 * HOUR_S, "+905321000002")):
            fake.move(600_001, created_s=fake.clock.now() - ago_s, recipient=recipient)
        assert asker.recipients(source="HS", limit=1) == ["+905321000001", "+905321000002"]

    def test_smaller_pages(self, fake: FakeIys, asker: Asker) -> None:
        """Pages may be shorter than asked for, though there is more; a feed may end with an empty list."""
        fake.set_quirks(page_cap=2, empty="list")
        for number in range(5):
            fake.move(600_001, created_s=fake.clock.now() - HOUR_S - number)
        assert len(asker.changes(source="HS").json()["list"]) == 2
        assert len(asker.recipients(source="HS")) == 5
        assert asker.changes(source="IYS").json() == {"after": None, "list": []}

    def test_silence(self, fake: FakeIys, asker: Asker) -> None:
        """A source may be silent, though its movements are in daily files."""
        fake.set_quirks(silent=frozenset({"IYS"}))
        moved = fake.move(600_001, "IYS", created_s=fake.clock.now() - HOUR_S)
        assert asker.changes(source="IYS").status_code == httpx.codes.NO_CONTENT
        assert moved.line().encode() in fake.file(600_001, day_of(moved.registered_s))

    @pytest.mark.parametrize(("name", "value", "code"), [("source", "SH", "H506"), ("limit", 1001, "H507")])
    def test_refused(self, asker: Asker, name: str, value: object, code: str) -> None:
        """What İYS does not know is refused with its code and the field."""
        answer = asker.changes(**{name: value})
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, code)
        assert answer.json()["errors"][0]["location"] == [name]

    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 9)), max_size=20), st.integers(1, 7))
    def test_nothing_but_twins_is_lost(self, moves: list[tuple[int, int, int]], limit: int) -> None:
        """Whatever the pages: each transaction of a second is seen, if all of it is visible when paging begins."""
        movements, quirks = Movements(), Quirks()
        for second, transaction, late in moves:
            movements.add(
                brand=1,
                source=FeedSource.HS,
                registered_s=1_000_000.0 + second + late / 10,
                visible_s=1_000_000.0,
                transaction_id=f"{transaction}",
                row={"type": "MESAJ"},
            )
        feed = Feed(movements.of(1, FeedSource.HS), 1_000_100.0, quirks, CHANNELS)
        seen, after = [], None
        while rows := feed.page(after, limit):
            seen += [row.key for row in rows]
            after = feed.cursor(rows[-1])
        assert seen == sorted(set(seen))
        assert {key[:2] for key in seen} == {(1_000_000 + second, f"{transaction}") for second, transaction, _ in moves}
