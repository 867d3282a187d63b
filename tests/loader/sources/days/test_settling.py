"""From what İYS said of a day to the store: what is loaded, what is proved, and what is told of it."""

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.store import layout
from iyscheck.store.layout import SourceState, Span
from iyscheck.store.snapshot import Store
from iyscheck.store.writer import Writer
from loader.archive.container import Content
from loader.archive.folder import Archive
from loader.iys.messages import Agreement, AgreementState, FeedSource, SummaryLine
from loader.loading.loader import Loader
from loader.loading.options import Options
from loader.loading.progress import Progress
from loader.reading import times
from loader.reports.days import DayReport, DayReports, DayState, lines_of
from loader.sources.days.asking import Answers
from loader.sources.days.reconciling import out_of_reach
from loader.sources.days.settling import LATENESS_MAX_S, Settler
from loader.sources.days.stamp import Stamp
from loader.sources.files.source import FileSource
from loader.sources.names import day_name, stream_name
from loader.sources.pull.terms import Doubt
from tests.builders import ADDRESS_KEY, STORE_KEY, a_batch, a_brand, content
from tests.dice import often
from tests.loader.sources.days.clocks import StandingClock
from tests.loader.sources.days.days import DAY, HEADER, MORNING, agreement, evidence, facts, row, summary

BRAND, IYS_CODE = 600_001, 700_001
START = times.watermark(f"{DAY} 00:00:00")
END = START + 86_400


class Days:
    """A store with a brand, and what settles its days."""

    def __init__(self, path: Path, *, watermark: int | None = START, now_s: float = MORNING) -> None:
        self.path = path
        self.clock = StandingClock(now_s)
        self.writer = Writer.open(path / "store", address_key_id=ADDRESS_KEY.key_id, store_key_id=STORE_KEY.key_id)
        self.reports = DayReports(path / "days")
        asked = () if watermark is None else ((BRAND, watermark),)
        self.writer.apply(a_batch(brands=[a_brand(BRAND)]), SourceState(name="seed", watermarks=asked), finished=True)

    def settler(self, **fields: object) -> Settler:
        """Make what settles days."""
        settler = Settler(
            writer=self.writer,
            keys=(ADDRESS_KEY, STORE_KEY),
            rejects=self.path / "rejects",
            reports=self.reports,
            clock=self.clock,
            source_of=lambda path, name: FileSource(path, name=name),
        )
        return replace(settler, **fields)  # type: ignore[arg-type] # its fields, passed on

    def stream(self, half: FeedSource, start: int = START, end: int = END) -> None:
        """Let a half of the feed claim a span."""
        name = stream_name(IYS_CODE, BRAND, half)
        self.writer.apply(a_batch(), SourceState(name=name, covered_from=start, covered_until=end))

    def pulled(self, rows: Sequence[str], name: str = "pulled") -> None:
        """Load rows as if they had been pulled."""
        path = self.path / f"{name}.csv"
        path.write_text("".join(rows))
        options = Options(rejects=self.path / "rejects", brand=BRAND)
        loader = Loader(
            self.writer, address_key=ADDRESS_KEY, store_key=STORE_KEY, options=options, clock=self.clock.now
        )
        loader.load([FileSource(str(path), name=name)])

    def settle(
        self,
        rows: Sequence[str] | None,
        said: Agreement | None = None,
        counted: Sequence[SummaryLine] | None = None,
        *,
        text: str | None = None,
        **fields: object,
    ) -> DayReport:
        """Settle the day of which İYS gives this file, by default with its digest."""
        file = self.path / f"{BRAND}-{DAY}.csv"
        data = text.encode() if text is not None else None if rows is None else (HEADER + "".join(rows)).encode()
        found = None if data is None else facts(file, data)
        said = said or agreement(data)
        answers = Answers(
            iys_code=IYS_CODE,
            brand=BRAND,
            evidence=evidence(
                found, said, summary(rows or []) if counted is None else counted, asked_s=self.clock.now()
            ),
            path=None if data is None else file,
            stamp=Stamp(),
        )
        report = self.settler(**fields).settle(answers)
        assert self.reports.all(BRAND)[DAY] == report
        return report

    @property
    def watermark(self) -> int | None:
        """The brand's watermark."""
        return self.writer.coverage(BRAND)[0]

    def records(self) -> int:
        """Count what is in the store."""
        with Store(self.writer.environment).snapshot() as snapshot:
            return sum(snapshot.counts().values())


@pytest.fixture
def days(tmp_path: Path) -> Iterator[Days]:
    """A store whose brand is complete until the day."""
    days = Days(tmp_path)
    yield days
    days.writer.close()


ROWS = [row(0), row(1, status="RET"), row(2, status="RET", source="IYS_WEB"), row(3, status="?", time="23:59:59")]


class TestProved:
    """Days that are proved."""

    def test_proved(self, days: Days, tmp_path: Path) -> None:
        """The rows are in, the watermark is at the day's end, the file is kept, and no address is in the report."""
        with Archive(tmp_path / "archive", ADDRESS_KEY, clock=days.clock.now) as archive:
            report = days.settle(ROWS, archive=archive)

        assert (report.state, report.proved_by, report.why) == (DayState.PROVED, "hash", ())
        assert report.rows == {"HS": 3, "IYS": 1}
        assert report.channels == {"ARAMA": 0, "MESAJ": 4, "EPOSTA": 0, "other": 0}
        assert (report.applied.total, report.missed.total, report.archived) == (4, 0, True)
        assert (days.watermark, report.watermark) == (END, "2025-06-01T21:00:00Z")
        assert (report.hash.algorithm, report.hash.equal, report.hash.contradicts) == ("sha384", True, False)
        kept = next((tmp_path / "archive").iterdir())
        with kept.open("rb") as file:
            assert Content(file, ADDRESS_KEY, "").read(10**6) == (HEADER + "".join(ROWS)).encode()
        assert b"532100" not in msgspec.json.encode(report)
        assert (tmp_path / "days" / f"{BRAND}.json").stat().st_mode & 0o777 == 0o600

    def test_healed(self, days: Days) -> None:
        """What the streams claimed and lacked is told as missed, and makes their claims wait longer, to a bound."""
        days.stream(FeedSource.HS)
        days.stream(FeedSource.IYS, end=START + 43_200)
        days.pulled(ROWS[:1])

        report = days.settle([*ROWS, row(4, status="RET", source="IYS_CM", time="11:00:00")])

        assert report.state is DayState.HEALED
        assert (report.missed.refusals, report.missed.approvals, report.missed.unknown) == (2, 0, 1)
        assert report.missed.by_source == {"HS": 2, "IYS": 1}
        assert report.applied.total == 4
        assert report.latest_lateness_s == 20 * 3600
        for half in FeedSource:
            state = days.writer.source(stream_name(IYS_CODE, BRAND, half))
            assert state is not None
            assert (state.lateness, state.covered_from) == (LATENESS_MAX_S, START)

    def test_lateness(self, days: Days) -> None:
        """A stream that missed nothing is not made to wait, and one that did waits for what was late beyond an hour."""
        days.stream(FeedSource.HS, end=END)
        days.stream(FeedSource.IYS)
        days.clock.now_s = times.watermark("2025-06-02 01:10:00")

        report = days.settle([row(0, time="23:40:00")])

        states = [days.writer.source(stream_name(IYS_CODE, BRAND, half)) for half in FeedSource]
        assert report.latest_lateness_s == 5400
        assert [state and state.lateness for state in states] == [1800, 0]

    def test_feed_silent(self, days: Days) -> None:
        """A stream that showed no citizens' movement of the day, though İYS has some, is believed no more."""
        days.stream(FeedSource.IYS)
        name = stream_name(IYS_CODE, BRAND, FeedSource.IYS)
        loud = days.settle([row(0)])
        silent = days.settle(ROWS)
        state = days.writer.source(name)

        assert state is not None
        assert (state.doubt, state.doubted_at) == (Doubt.IYS_FEED_SILENT, int(MORNING))
        assert (loud.iys_feed_silent, silent.iys_feed_silent) == (False, True)
        for shown in ({"latest": times.local_now(START)}, {"covered_until": END - 1}, {"covered_from": START + 1}):
            days.writer.apply(a_batch(), msgspec.structs.replace(state, doubt="", **shown))
            assert not days.settle(ROWS).iys_feed_silent

    def test_silent(self, days: Days) -> None:
        """A day without movements moves the watermark like any other, and the feed of days has come."""
        report = days.settle(None, agreement(state=AgreementState.ABSENT))
        with Store(days.writer.environment).snapshot() as snapshot:
            (feed,) = snapshot.feeds()

        assert (feed.name, feed.succeeded) == ("days", int(MORNING))

        assert (report.state, report.proved_by, days.watermark) == (DayState.NO_MOVEMENTS, "no movements", END)

    def test_again(self, days: Days) -> None:
        """A day may be settled again, and then nothing is new; only then may it be agreed to."""
        first, second = days.settle(ROWS), days.settle(ROWS)

        assert (first.applied.total, first.may_be_agreed) == (4, False)
        assert (second.state, second.applied.total, second.may_be_agreed) == (DayState.PROVED, 0, True)

    def test_next(self, days: Days) -> None:
        """Each file begins anew under the name that all of a brand have."""
        days.settle(ROWS)

        assert days.settle([row(7), row(8)]).state is DayState.PROVED
        assert len([*days.writer.sources()]) == 2

    def test_by_count(self, days: Days) -> None:
        """A day that is proved by counts moves the watermark, and is not agreed to."""
        report = days.settle(ROWS, agreement(state=AgreementState.ERROR), counted=_counted(ROWS))
        again = days.settle(ROWS, agreement(state=AgreementState.ERROR), counted=_counted(ROWS))

        assert (report.state, report.proved_by, days.watermark) == (DayState.PROVED, "count", END)
        assert not again.may_be_agreed

    def test_gap(self, tmp_path: Path) -> None:
        """Proved days in any order close a gap to what pull proved behind it."""
        days = Days(tmp_path, watermark=START - 86_400 + 7)
        pulled = days.writer.source("pulled") or SourceState(name="pulled")
        days.writer.apply(a_batch(), pulled, finished=True, proved=_span(START + 50_000, END + 50_000))

        later = days.settle(ROWS)
        assert days.watermark == START - 86_400 + 7
        assert later.state is DayState.PROVED

        days.writer.apply(a_batch(), pulled, finished=True, proved=_span(START - 86_400, START))
        assert days.watermark == END + 50_000


class TestUnproved:
    """Days that are not."""

    def test_other_hash(self, days: Days) -> None:
        """Of a file that is not İYS's nothing is loaded, and the watermark stays."""
        before = content(Store(days.writer.environment))

        report = days.settle(ROWS, agreement(b"other"))

        assert (report.state, report.why) == (DayState.UNPROVED, ("OTHER_HASH",))
        assert (report.hash.equal, report.is_settled, report.archived) == (False, False, None)
        assert content(Store(days.writer.environment)) == before

    def test_cut(self, days: Days) -> None:
        """Of a file that was cut nothing is loaded."""
        report = days.settle(ROWS, agreement(state=AgreementState.ERROR), text="".join(ROWS)[:-3])

        assert report.why == ("LINE_CUT", "MISSHAPEN")
        assert (days.records(), days.watermark) == (0, START)

    def test_pending(self, days: Days) -> None:
        """What proves nothing is loaded once, and what pull had missed is told when the day is proved."""
        days.stream(FeedSource.HS)
        said = agreement(state=AgreementState.ERROR)

        first = days.settle(ROWS, said, summary(ROWS, pending=2))
        position = days.writer.position
        second = days.settle(ROWS, said, summary(ROWS, pending=2))
        assert days.writer.position == position
        third = days.settle([*ROWS, row(9)])

        for report in (first, second):
            assert (report.state, report.missed.refusals, report.applied.total) == (DayState.UNPROVED, 1, 4)
        assert (third.state, third.missed.refusals, third.missed.approvals) == (DayState.HEALED, 1, 2)
        assert (third.applied.total, days.watermark) == (5, END)

    def test_rejects(self, days: Days) -> None:
        """A row that cannot be loaded holds the brand; the day is not asked for again, nor agreed to."""
        rows = [*ROWS, row(5).replace("+90532", "x")]

        report = days.settle(rows)

        assert (report.state, report.why, report.rejects) == (DayState.UNPROVED, ("REJECTS",), 1)
        assert (days.watermark, report.is_settled, report.may_be_agreed) == (START, True, False)
        days.writer.accept_rejects(day_name(IYS_CODE, BRAND))
        assert days.watermark == END

    def test_other_day(self, days: Days) -> None:
        """A file with a row of another day proves none, whatever its digest."""
        rows = [*ROWS, row(5).replace(f"{DAY}", f"{DAY - timedelta(days=1)}", 1)]

        report = days.settle(rows)

        assert (report.why, days.watermark) == (("OTHER_DAY",), START)

    def test_refused(self, days: Days) -> None:
        """A file that the loader refuses whole is told, and the watermark stays."""
        text = HEADER.replace("status", "stat") + "".join(ROWS)

        report = days.settle(ROWS, agreement(text.encode()), text=text)

        assert (report.state, report.why) == (DayState.UNPROVED, ("SOURCE_UNREADABLE",))
        assert days.watermark == START

    def test_changed_behind(self, days: Days) -> None:
        """A file that is another one when it is loaded than when it was judged proves nothing."""
        file = days.path / f"{BRAND}-{DAY}.csv"
        data = "".join(ROWS).encode()
        found = facts(file, data)
        answers = Answers(
            iys_code=IYS_CODE,
            brand=BRAND,
            evidence=evidence(found, agreement(data), summary(ROWS)),
            path=file,
            stamp=Stamp(),
        )
        file.write_text("".join(ROWS[:-1]))

        report = days.settler().settle(answers)

        assert (report.why, days.watermark) == (("OTHER_HASH",), START)

    @pytest.mark.parametrize(("watermark", "state"), [(START, DayState.HOLE), (END, DayState.UNPROVED)])
    def test_out_of_reach(self, tmp_path: Path, watermark: int, state: DayState) -> None:
        """A day that İYS has forgotten is a hole, unless the watermark covers it."""
        days = Days(tmp_path, watermark=watermark)

        assert out_of_reach(days.settler(), iys_code=IYS_CODE, brand=BRAND, day=DAY).state is state


class TestInterrupted:
    """What a kill leaves."""

    def test_killed(self, days: Days) -> None:
        """What was loaded before a kill counts as missed all the same when the day is settled later."""
        days.stream(FeedSource.HS)

        def killed(step: Progress) -> None:
            if step.position.sequence > 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            days.settle([row(n, status="RET") for n in range(6)], commit_rows=2, watch=killed)
        report = days.settle([row(n, status="RET") for n in range(6)])

        assert report.state is DayState.HEALED
        assert (report.missed.refusals, days.watermark) == (6, END)

    def test_stopped(self, days: Days) -> None:
        """Who is told to stop stops after the commit under way, and has proved nothing."""
        stop = threading.Event()

        report = days.settle(ROWS, commit_rows=2, stop=stop, watch=lambda _: stop.set())

        assert (report.state, report.why) == (DayState.UNPROVED, ("INTERRUPTED",))
        assert (days.records(), days.watermark) == (1, START)
        assert days.settle(ROWS).state is DayState.PROVED

    def test_stopped_unproved(self, days: Days) -> None:
        """A file that proves nothing is loaded to its end the next time, if it was not."""
        stop = threading.Event()
        said, counted = agreement(state=AgreementState.ERROR), summary(ROWS, pending=1)

        first = days.settle(ROWS, said, counted, commit_rows=2, stop=stop, watch=lambda _: stop.set())
        assert first.why == ("PENDING", "INTERRUPTED")
        second = days.settle(ROWS, said, counted)

        assert (second.why, second.applied.total, days.records()) == (("PENDING",), 4, 4)


def _winners(rows: Sequence[str]) -> dict[str, tuple[str, bool, str]]:
    """Say which row of each recipient counts: the latest, of one second the refusal, else by source."""
    winners: dict[str, tuple[str, bool, str]] = {}
    for each in rows:
        time, _, recipient, _, _, status, _, source = each.strip().split(",")
        winners[recipient] = max((time, status == "RET", source), winners.get(recipient, ("", False, "")))
    return winners


class TestLaw:
    """Whatever pull had, after a proved day the store is as if it had had everything."""

    @given(data=st.data())
    @settings(max_examples=often(60), deadline=None)
    def test_same_store(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        """The store has the winner of all rows of the day, and missed are those that changed it in covered time."""
        moves = st.builds(
            row,
            st.integers(0, 2),
            time=st.sampled_from(["01:00:00", "11:59:59", "12:00:00", "23:59:59"]),
            status=st.sampled_from(["ONAY", "RET"]),
            source=st.sampled_from(["HS_WEB", "IYS_WEB"]),
        )
        rows = data.draw(st.lists(moves, min_size=1, max_size=8, unique=True))
        had = [each for each in rows if data.draw(st.booleans())]
        noon = START + 43_200
        until = data.draw(st.sampled_from([0, noon, END]))
        stores = []
        for name, pulled in (("some", had), ("all", rows)):
            days = Days(tmp_path_factory.mktemp(name))
            days.stream(FeedSource.HS, end=until)
            if pulled:
                days.pulled(pulled)
            report = days.settle(rows)
            found = content(Store(days.writer.environment))
            stores.append(({name: found[name] for name in (layout.RECORDS, layout.COUNTS, layout.WATERMARKS)}, report))
            days.writer.close()

        (some, report), (everything, quiet) = stores
        new = [won for recipient, won in _winners(rows).items() if _winners(had).get(recipient) != won]
        claimed = {0: "", noon: f"{DAY} 12:00:00", END: "9"}[until]
        missed = [won for won in new if won[2] == "HS_WEB" and won[0] < claimed]
        assert some == everything
        assert (quiet.state, quiet.applied.total) == (DayState.PROVED, 0)
        assert report.state is (DayState.HEALED if missed else DayState.PROVED)
        assert (report.applied.total, report.missed.total) == (len(new), len(missed))
        assert report.missed.refusals == sum(refuses for _, refuses, _ in missed)


class TestReports:
    """What is kept and told of days."""

    def test_kept(self, tmp_path: Path) -> None:
        """The last forty reports of a brand are kept; what cannot be read is nothing."""
        reports = DayReports(tmp_path / "days")
        for number in range(45):
            reports.keep(
                DayReport(
                    iys_code=IYS_CODE,
                    brand=BRAND,
                    date=date(2025, 1, 1) + timedelta(days=number),
                    state=DayState.PROVED if number % 2 else DayState.UNPROVED,
                )
            )

        assert len(reports.all(BRAND)) == 40
        assert len(reports.settled(BRAND)) == 20
        assert reports.all(7) == {}
        (tmp_path / "days" / f"{BRAND}.json").write_bytes(b"[{}]")
        assert reports.settled(BRAND) == frozenset()

    def test_lines(self, days: Days) -> None:
        """People are told state, rows, what was missed and until when the brand is complete."""
        days.stream(FeedSource.HS)

        assert "; ".join(lines_of([days.settle(ROWS)])) == (
            f"brand {BRAND}, {DAY}: healed; by hash; 4 rows; missed before: 1 refusals, 1 approvals, 1 others; "
            "complete until 2025-06-01T21:00:00Z"
        )
        assert json.loads(msgspec.json.encode(days.settle(ROWS)))["state"] == "proved"


def _counted(rows: Sequence[str]) -> tuple[SummaryLine, ...]:
    """Count rows as İYS does, those of unknown status too."""
    lines = list(summary(rows))
    missing = len(rows) - sum(line.total for line in lines)
    lines[0] = replace(lines[0], total=lines[0].total + missing)
    return tuple(lines)


def _span(start: int, end: int) -> Span:
    return Span(brand=BRAND, start=start, end=end)
