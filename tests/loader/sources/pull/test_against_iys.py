"""What becomes of a brand that is pulled over real sockets, whatever İYS and the network do."""

import pytest

from iyscheck.store.layout import SourceState, Span
from iyscheck.store.snapshot import Store
from loader.iys.messages import FeedSource
from loader.loading.holes import hole_of
from loader.reading import times
from loader.sources.pull.steps import Commit, Ending, Reached
from loader.sources.pull.terms import SLACK_S, VISIBLE_S, Doubt
from tests.builders import a_batch
from tests.iys.faults import Fault
from tests.loader.sources.pull.mirrored import BRAND, Mirrored, model_of, stream

HS, IYS = FeedSource.HS, FeedSource.IYS
DAY_S = 86_400
HOUR_S = 3600


def fill(mirrored: Mirrored, rows: int, *, age_s: float = 2 * DAY_S, a_second: int = 10) -> None:
    """Let so many recipients consent, so many in each second."""
    begin = mirrored.time.now() - age_s
    for row in range(rows):
        mirrored.fake.move(BRAND, recipient=f"+90532{row:07}", created_s=begin + row // a_second)


def is_whole(mirrored: Mirrored) -> bool:
    """Say whether the store holds what moved, and nothing else."""
    stored = {key: change.precedence for key, change in mirrored.stored().items()}
    return stored == model_of(mirrored.fake.movements)


class TestClaims:
    """What moves the watermark."""

    def test_both_empty(self, mirrored: Mirrored) -> None:
        """Two halves without rows move it to 62 minutes before they were asked (case 6)."""
        mirrored.seed(mirrored.time.now() - DAY_S)
        asked_at = mirrored.time.now()

        mirrored.pull_both()

        assert mirrored.watermark is not None
        assert asked_at - 1 <= mirrored.watermark + VISIBLE_S + SLACK_S <= mirrored.time.now()

    @pytest.mark.parametrize("failing", [HS, IYS])
    def test_one_fails(self, mirrored: Mirrored, failing: FeedSource) -> None:
        """While one half fails, the watermark stays, whatever the other says (case 7)."""
        seeded = mirrored.seed(mirrored.time.now() - DAY_S)
        mirrored.fake.plan("changes", Fault.broken_server(), count=None, source=failing)

        mirrored.pull_both()

        assert mirrored.watermark == seeded
        mirrored.fake.clear_plans()
        mirrored.pull(failing)
        assert (mirrored.watermark or 0) > seeded

    def test_no_seed(self, mirrored: Mirrored) -> None:
        """Without a seed there is no watermark; one that reaches to where coverage begins is moved on at once."""
        mirrored.pull_both()
        before = mirrored.watermark

        mirrored.seed(max(mirrored.state(source).covered_from for source in FeedSource))

        assert before is None
        assert mirrored.watermark == min(mirrored.state(source).covered_until for source in FeedSource)

    def test_seed_is_too_old(self, mirrored: Mirrored) -> None:
        """A seed that ends before coverage begins leaves a hole, which an accepted gap closes."""
        mirrored.pull_both()
        first = max(mirrored.state(source).covered_from for source in FeedSource)
        seeded = mirrored.seed(first - 60)

        found = hole_of(mirrored.watermark, mirrored.writer.coverage(BRAND)[1])

        assert (found and (found.start, found.end)) == (seeded, first)
        mirrored.writer.accept_gap(BRAND, until=first, reason="nobody consented", now_s=int(mirrored.time.now()))
        assert (mirrored.watermark or 0) > first

    @pytest.mark.parametrize("empty", ["204", "list"])
    def test_kinds_of_nothing(self, mirrored: Mirrored, empty: str) -> None:
        """An empty list without a cursor is as good as no content, and the cursor stays (case 8)."""
        mirrored.fake.set_quirks(empty=empty)
        fill(mirrored, 1)
        mirrored.pull(HS)
        cursor, before = mirrored.state().cursor, mirrored.state().covered_until
        mirrored.time.advance(600)

        mirrored.pull(HS)

        assert mirrored.state().cursor == cursor != ""
        assert mirrored.state().covered_until >= before + 600

    def test_rejects(self, mirrored: Mirrored) -> None:
        """A row that cannot be loaded holds the watermark until it is accepted, and once, however often it is shown."""
        seeded = mirrored.seed(mirrored.time.now() - DAY_S)
        mirrored.fake.move(BRAND, recipient="kimse", created_s=mirrored.time.now() - DAY_S)
        mirrored.pull_both()
        held = mirrored.watermark
        mirrored.restart()
        mirrored.pull(HS, sweep=True)
        again = mirrored.state().rejected

        mirrored.writer.accept_rejects("iys:700001:600001:HS")
        accepted = mirrored.watermark
        mirrored.restart()
        mirrored.pull(HS, sweep=True)

        assert (held, again, mirrored.state().rejected) == (seeded, 1, 1)
        assert (accepted or 0) > seeded
        assert (mirrored.watermark or 0) >= (accepted or 0)
        assert mirrored.writer.coverage(BRAND)[2] is False
        assert len(mirrored.desk.rejected()) == 1

    def test_rejects_taken_away(self, mirrored: Mirrored) -> None:
        """Who takes the file of rejects away stops nothing: the next ones begin another."""
        mirrored.seed()
        for recipient in ("kimse", "hiçkimse"):
            mirrored.fake.move(BRAND, recipient=recipient, created_s=mirrored.time.now() - DAY_S)
            mirrored.pull(HS)
            for path in mirrored.desk.rejects.glob("*"):
                entries = path.read_bytes().splitlines()
                path.unlink()

        assert len(entries) == 1
        assert mirrored.state().rejected == 2

    @pytest.mark.parametrize("kind", ["watermark", "brand", "Watermark"])
    def test_only_consents(self, mirrored: Mirrored, kind: str) -> None:
        """Whatever stands in a page, it moves no watermark and registers no brand."""
        seeded = mirrored.seed(mirrored.time.now() - 9 * DAY_S)
        row = {"kind": kind, "completeUntil": "2026-01-01 00:00:00", "brandCode": BRAND, "iysCode": 1, "active": False}
        only = {"recipient": None, "recipientType": None, "type": None, "status": None, "source": None}
        mirrored.fake.move(BRAND, created_s=mirrored.time.now() - DAY_S, overrides={**only, **row})

        mirrored.pull_both()

        assert mirrored.watermark == seeded
        with Store(mirrored.writer.environment).snapshot() as snapshot:
            assert [(brand.brand, brand.active) for brand in snapshot.brands()] == [(BRAND, True)]


class TestPages:
    """Full pages, twins, edges and cursors."""

    def test_exactly_a_page(self, mirrored: Mirrored) -> None:
        """A thousand rows and nothing behind them are all read, each once (case 10)."""
        fill(mirrored, 1000)

        passed = mirrored.pull(HS)

        assert [limit for _, limit in mirrored.cursors()] == [1000, 990, 1000, 1000]
        assert mirrored.state().rows == 1000
        assert is_whole(mirrored)
        assert passed.end is not None
        assert passed.end.ending is Ending.COMPLETE

    @pytest.mark.parametrize("before", [998, 999, 1000])
    @pytest.mark.parametrize("page_cap", [None, 999, 400])
    def test_twins(self, mirrored: Mirrored, before: int, page_cap: int | None) -> None:
        """Of consent and refusal in one second and transaction the refusal is stored, wherever pages end (case 11)."""
        mirrored.fake.set_quirks(page_cap=page_cap)
        fill(mirrored, before, a_second=1)
        at = mirrored.time.now() - DAY_S
        for status in ("ONAY", "RET"):
            mirrored.fake.move(BRAND, status=status, created_s=at, transaction_id="ab" * 32)

        mirrored.pull(HS)

        assert is_whole(mirrored)
        assert mirrored.state().doubt == ""

    def test_half_a_second(self, mirrored: Mirrored) -> None:
        """A second of which İYS shows a part is read again with the next pass (case 12)."""
        begin = float(int(mirrored.time.now())) - VISIBLE_S
        for part, number in ((0.1, 1), (0.9, 0)):
            mirrored.fake.move(
                BRAND, recipient=f"+9053210000{number:02}", created_s=begin + part, transaction_id=f"{number:064}"
            )
        mirrored.time.set(begin + VISIBLE_S + 0.3)
        mirrored.pull(HS)
        before = len(mirrored.stored())
        mirrored.time.advance(600)

        mirrored.pull(HS)

        assert (before, len(mirrored.stored())) == (1, 2)

    @pytest.mark.parametrize("cursor", ["s", "ms"])
    def test_cursors(self, mirrored: Mirrored, cursor: str) -> None:
        """A cursor goes back as it came, across a restart too, whatever it counts (case 13)."""
        mirrored.fake.set_quirks(cursor=cursor)
        fill(mirrored, 5)
        mirrored.pull(HS)
        mirrored.restart()

        mirrored.pull(HS)

        second, _, transaction = mirrored.state().cursor.partition("_")
        assert (len(second), len(transaction)) == ({"s": 10, "ms": 13}[cursor], 64)
        assert [after for after, _ in mirrored.cursors()[1:]] == [mirrored.state().cursor] * 2

    def test_repeated(self, mirrored: Mirrored) -> None:
        """A page that comes again with its cursor ends the pass, and nothing is claimed (case 9)."""
        fill(mirrored, 3)
        mirrored.fake.plan("changes", Fault.repeat(), nth=2, count=None)

        passed = mirrored.pull(HS)

        assert passed.end is not None
        assert passed.end.ending is Ending.STUCK
        assert len(mirrored.cursors()) == 2
        assert (mirrored.state().doubt, mirrored.state().covered_until) == (Doubt.CURSOR_STUCK, 0)
        mirrored.fake.clear_plans()
        mirrored.time.advance(60)
        mirrored.pull(HS, sweep=True)
        assert mirrored.state().doubt == ""

    def test_disorder(self, mirrored: Mirrored) -> None:
        """Rows in the wrong order are stored as in the right one; a sweep ends the doubt (case 14)."""
        for status, age_s in (("ONAY", 300), ("RET", 200), ("ONAY", 100)):
            mirrored.fake.move(BRAND, status=status, created_s=mirrored.time.now() - DAY_S - age_s)
        mirrored.fake.plan("changes", Fault.reverse())

        mirrored.pull(HS)
        before = mirrored.state()
        mirrored.time.advance(60)
        mirrored.pull(HS, sweep=True)

        assert is_whole(mirrored)
        assert (before.doubt, before.covered_until) == (Doubt.DISORDER, 0)
        assert mirrored.state().doubt == ""
        assert mirrored.state().covered_until > 0


class TestLate:
    """Rows that İYS shows later than it promises."""

    def test_late(self, mirrored: Mirrored) -> None:
        """A row 30 minutes late lies behind the cursor: a sweep finds it, and then less is claimed (case 15)."""
        fill(mirrored, 1)
        mirrored.pull(HS)
        now = mirrored.time.now()
        mirrored.fake.move(BRAND, recipient="+905321000009", created_s=now, visible_after_s=90 * 60)
        mirrored.time.advance(2)
        mirrored.fake.move(BRAND, recipient="+905321000010")
        mirrored.time.advance(HOUR_S + 600)
        mirrored.pull(HS)
        mirrored.time.advance(HOUR_S)
        mirrored.pull(HS)
        missed = is_whole(mirrored)

        mirrored.pull(HS, sweep=True)

        state = mirrored.state()
        assert not missed
        assert is_whole(mirrored)
        assert state.lateness >= 30 * 60
        mirrored.time.advance(DAY_S)
        mirrored.pull(HS)
        behind_s = mirrored.time.now() - mirrored.state().covered_until
        assert behind_s >= VISIBLE_S + SLACK_S + state.lateness

    def test_waited_for(self, mirrored: Mirrored) -> None:
        """Once so much is waited for, the next row that is as late is found by a pass."""
        mirrored.streams.commit(stream(HS), Commit(reached=LATE))
        mirrored.fake.move(BRAND, created_s=mirrored.time.now(), visible_after_s=90 * 60)
        mirrored.time.advance(2)
        mirrored.fake.move(BRAND, recipient="+905321000010")
        for _ in range(3):
            mirrored.time.advance(HOUR_S)
            mirrored.pull(HS)

        assert is_whole(mirrored)


LATE = Reached(until=0, polled_at=0, began=0, sweep=False, since=0, rows=0, late=1800, clean=True, skewed=False)


class TestNetwork:
    """What is no answer."""

    def test_too_fast(self, mirrored: Mirrored) -> None:
        """Told that it asks too fast a pass goes on slower, and loses nothing (case 1)."""
        fill(mirrored, 1500)
        mirrored.fake.plan("changes", Fault.too_fast(), nth=2, count=2)

        mirrored.pull(HS)

        assert is_whole(mirrored)
        assert mirrored.state().rows == 1500

    def test_always_too_fast(self, mirrored: Mirrored) -> None:
        """A pass that is told so again and again ends without a claim (case 1)."""
        fill(mirrored, 1500)
        mirrored.fake.plan("changes", Fault.too_fast(), nth=4, count=None)

        passed = mirrored.pull(HS)

        assert passed.end is not None
        assert passed.end.ending is Ending.SLOWED
        assert mirrored.state().covered_until == 0
        mirrored.fake.clear_plans()
        mirrored.pull(HS)
        assert is_whole(mirrored)
        assert mirrored.state().covered_until > 0

    def test_token_gone(self, mirrored: Mirrored) -> None:
        """A token that İYS does not take any more is exchanged once, and no row is counted twice (case 3)."""
        fill(mirrored, 1500)
        mirrored.fake.plan("changes", Fault.unauthorized(), nth=3)

        mirrored.pull(HS)

        assert len(mirrored.fake.asked("token")) == 2
        asked = mirrored.cursors()
        assert asked[2] == asked[3]
        assert mirrored.state().rows == 1500
        assert is_whole(mirrored)

    @pytest.mark.parametrize(
        "fault",
        [
            pytest.param(Fault.cut("length"), id="cut short of its length (case 16)"),
            pytest.param(Fault.cut("chunk"), id="cut without last chunk (case 16)"),
            pytest.param(Fault.cut("gzip"), id="cut gzip (case 16)"),
            pytest.param(Fault.cut("close"), id="cut by closing (case 16)"),
            pytest.param(Fault.bomb(), id="bomb (case 17)"),
            pytest.param(Fault.login_page(), id="login page (case 18)"),
            pytest.param(Fault.broken_server(), id="502 in HTML (case 18)"),
            pytest.param(Fault.errors_in_200(), id="errors with 200 (case 19)"),
            pytest.param(Fault.busy(), id="busy"),
            pytest.param(Fault.reset(), id="reset"),
            pytest.param(Fault.refuse(), id="refused connection"),
            pytest.param(Fault.said(200, ""), id="200 without a body"),
            pytest.param(Fault.said(200, "{}"), id="200 with an empty object"),
            pytest.param(Fault.said(200, '{"list":[]}'), id="200 without a cursor"),
        ],
    )
    @pytest.mark.parametrize("lasting", [False, True])
    def test_no_answer(self, mirrored: Mirrored, fault: Fault, lasting: bool) -> None:  # noqa: FBT001 - a parameter
        """It is asked for again and never taken for the end; the cursor stays where it was."""
        fill(mirrored, 3)
        for nth in (1, 3):
            mirrored.fake.plan("changes", fault, nth=nth, count=None if lasting else 1)

        passed = mirrored.pull(HS)

        assert passed.end is not None
        assert passed.end.ending is (Ending.FAILED if lasting else Ending.COMPLETE)
        assert (mirrored.state().covered_until == 0) is lasting
        assert mirrored.cursors()[:2] == [(None, 1000)] * 2
        assert is_whole(mirrored) is not lasting

    def test_compressed(self, mirrored: Mirrored) -> None:
        """A compressed page is read (case 17)."""
        mirrored.fake.set_quirks(gzip=True)
        fill(mirrored, 1500)

        mirrored.pull(HS)

        assert is_whole(mirrored)

    @pytest.mark.parametrize("odd_code_key", [False, True])
    def test_forbidden(self, mirrored: Mirrored, odd_code_key: bool) -> None:  # noqa: FBT001 - a parameter
        """Where the account may not ask, nothing is claimed, and İYS's code is told (case 19)."""
        mirrored.fake.plan("changes", Fault.forbidden(odd_code_key=odd_code_key))

        passed = mirrored.pull(HS)

        assert passed.end is not None
        assert (passed.end.ending, passed.end.fault and passed.end.fault.code) == (Ending.FORBIDDEN, "H353")
        assert passed.commits == ()


class TestTime:
    """Clocks that differ, and streams that were down."""

    @pytest.mark.parametrize("ahead_s", [600, -600])
    def test_skewed(self, mirrored: Mirrored, ahead_s: float) -> None:
        """A clock that is ten minutes wrong claims nothing, and reads on; mended, it claims (case 20)."""
        seeded = mirrored.seed(mirrored.time.now() - DAY_S)
        fill(mirrored, 3)
        mirrored.clock.ahead_s = ahead_s
        mirrored.pull_both()
        skewed = mirrored.watermark
        read = is_whole(mirrored)
        mirrored.clock.ahead_s = 0.0

        mirrored.pull_both()

        assert (skewed, read) == (seeded, True)
        assert (mirrored.watermark or 0) > seeded

    def test_jump(self, mirrored: Mirrored) -> None:
        """A clock that jumps is not believed for one answer."""
        mirrored.seed(mirrored.time.now() - DAY_S)
        for _ in range(10):
            mirrored.time.advance(600)
            mirrored.pull_both()
        mirrored.clock.ahead_s = -240.0

        mirrored.pull_both()

        assert (mirrored.watermark or 0) <= mirrored.time.now() - VISIBLE_S - SLACK_S

    def test_five_days(self, mirrored: Mirrored) -> None:
        """Down for five days a stream goes on where it was (case 21)."""
        mirrored.seed()
        mirrored.pull_both()
        for day in range(5):
            mirrored.fake.move(BRAND, recipient=f"+9053210000{day:02}")
            mirrored.time.advance(DAY_S)
        mirrored.fake.move(BRAND, recipient="+905321000099", created_s=mirrored.time.now() - VISIBLE_S)

        mirrored.pull_both()

        assert is_whole(mirrored)
        assert (mirrored.watermark or 0) > mirrored.time.now() - VISIBLE_S - SLACK_S - 60

    def test_nine_days(self, mirrored: Mirrored) -> None:
        """Down for nine days rows are lost: others flow, and the watermark waits before the hole (case 21)."""
        mirrored.seed()
        mirrored.pull_both()
        before = mirrored.watermark
        mirrored.fake.move(BRAND, recipient="+905321000001")
        mirrored.time.advance(8 * DAY_S)
        mirrored.fake.move(BRAND, recipient="+905321000002")
        mirrored.time.advance(DAY_S)

        mirrored.pull_both()

        assert mirrored.watermark == before
        assert len(mirrored.stored()) == 1
        found = hole_of(mirrored.watermark, mirrored.writer.coverage(BRAND)[1])
        assert found is not None
        assert (found.start, found.end) == (before, max(mirrored.state(source).covered_from for source in FeedSource))

    def test_repaired(self, mirrored: Mirrored) -> None:
        """Days that are proved close a hole of nine hours by themselves (case 21)."""
        mirrored.time.set(times.watermark("2026-03-02 10:00:00"))
        mirrored.seed()
        mirrored.pull_both()
        mirrored.time.set(times.watermark("2026-03-09 19:00:00"))
        mirrored.pull_both()
        frozen = mirrored.watermark

        for day in (2, 3):
            start = times.watermark(f"2026-03-{day:02} 00:00:00")
            span = Span(brand=BRAND, start=start, end=start + DAY_S)
            mirrored.writer.apply(a_batch(), SourceState(name="days"), finished=True, proved=span)

        assert frozen == times.watermark("2026-03-02 10:00:00")
        assert (mirrored.watermark or 0) > mirrored.time.now() - 2 * VISIBLE_S

    @pytest.mark.parametrize("old_cursor", ["refuse", "restart", "resume"])
    def test_idle(self, mirrored: Mirrored, old_cursor: str) -> None:
        """A brand that was idle for ten days has no gap, its watermark moves, and its next row is read (case 22)."""
        mirrored.fake.set_quirks(old_cursor=old_cursor)
        mirrored.seed()
        fill(mirrored, 1)
        for _ in range(10):
            mirrored.pull_both()
            mirrored.time.advance(DAY_S)
        mirrored.fake.move(BRAND, recipient="+905321000099", created_s=mirrored.time.now() - 2 * HOUR_S)

        mirrored.pull_both()

        assert is_whole(mirrored)
        assert mirrored.state().doubt == ""
        assert (mirrored.watermark or 0) > mirrored.time.now() - 2 * VISIBLE_S

    def test_cursor_refused(self, mirrored: Mirrored) -> None:
        """A cursor that İYS does not take is dropped, and the window read anew (case 22)."""
        fill(mirrored, 2)
        mirrored.pull(HS)
        mirrored.fake.plan("changes", Fault.coded(422, "H507", "after"))

        passed = mirrored.pull(HS)

        assert passed.end is not None
        assert passed.end.ending is Ending.COMPLETE
        assert [after for after, _ in mirrored.cursors()[2:]] == [
            mirrored.state().cursor,
            None,
            mirrored.state().cursor,
        ]


def test_odd_rows(mirrored: Mirrored, caplog: pytest.LogCaptureFixture) -> None:
    """What İYS writes in fact is loaded, and nobody's name is kept anywhere (case 26)."""
    name = "Şükrü Adıgüzel"
    begin = mirrored.time.now() - DAY_S
    mirrored.fake.move(BRAND, created_s=begin, recipient="+905321000001", citizen_name=name)
    mirrored.fake.move(BRAND, created_s=begin, recipient="+9005321000002", code="HS_GELECEKTEN", citizen_name=name)
    mirrored.fake.move(
        BRAND,
        IYS,
        created_s=begin,
        recipient="+905321000003",
        recipient_type="TACIR",
        status="RET",
        code="IYS_AHS_HAT_KAPATMA",
        consent_date="",
        citizen_name=name,
    )
    mirrored.fake.move(BRAND, created_s=begin, recipient="kimse", citizen_name=name)

    mirrored.pull_both()

    stored = mirrored.stored().values()
    assert {change.source for change in stored} == {"HS_WEB", "HS_GELECEKTEN", "IYS_AHS_HAT_KAPATMA"}
    assert [entry["reason"] for entry in mirrored.desk.rejected()] == ["INVALID_ADDRESS"]
    kept = b"".join(path.read_bytes() for path in mirrored.desk.path.rglob("*") if path.is_file())
    for spelled in (name.encode(), "Adıgüzel".encode(), b"+905321000001", b"citizenName"):
        assert spelled not in kept
        assert spelled.decode() not in caplog.text
