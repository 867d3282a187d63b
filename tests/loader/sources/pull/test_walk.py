"""One pass through a stream, step by step: what it asks for, what it commits and how it ends."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec
import pytest

from iyscheck.store.layout import SourceState, Span
from loader.iys.faults import (
    AuthFailedFault,
    ForbiddenFault,
    IysFault,
    LockedFault,
    RefusedFault,
    SlowedFault,
    TransientFault,
)
from loader.iys.messages import FeedSource, Page
from loader.loading.holes import hole_of
from loader.sources.pull import coverage
from loader.sources.pull.passes import fetch
from loader.sources.pull.steps import Commit, Ending, Stream
from loader.sources.pull.terms import (
    GAP_MARGIN_S,
    LATENESS_MAX_S,
    SLACK_S,
    SLACK_UNDATED_S,
    START_MARGIN_S,
    VISIBLE_S,
    WINDOW_S,
    Doubt,
)
from loader.sources.pull.walk import Walk
from tests.loader.sources.pull.feed import Feed, Movement

STREAM = Stream(iys_code=600_000, brand=1, source=FeedSource.HS)
DAY_S = 24 * 3600
TOO_OLD = "2025-12-27 00:00:00"
"""Older than whatever a test registers."""
Row = dict[str, object]


class Walked:
    """A stream and what was read of it. `between` is done after each answer."""

    def __init__(self, feed: Feed, state: SourceState | None = None) -> None:
        self.feed = feed
        self.state = state or SourceState(name=STREAM.name)
        self.commits: list[Commit] = []
        self.rows: list[Row] = []
        self.walk = self._walk(sweep=False)

    def _walk(self, *, sweep: bool) -> Walk:
        return Walk(self.state, now_s=self.feed.now, sweep=sweep, chance=lambda: 1.0)

    def pull(
        self,
        *,
        sweep: bool = False,
        watermark: int | None = None,
        between: Callable[[Page], Page] = lambda page: page,
        late: Sequence[int] = (),
    ) -> Ending | None:
        """Walk to the end; `late` are times of rows that are new to the store though they were covered."""
        self.feed.asked.clear()
        self.commits.clear()
        self.rows.clear()
        self.walk = self._walk(sweep=sweep)
        while (ask := self.walk.ask) is not None:
            answer = fetch(self.feed, STREAM, ask)
            if isinstance(answer, IysFault):
                self._keep(self.walk.failed(answer), watermark)
            else:
                commit = self.walk.answered(between(answer))
                self._keep(commit, watermark)
                for created in late if commit is not None else ():
                    self.walk.committed(created)
        return None if self.walk.end is None else self.walk.end.ending

    def _keep(self, commit: Commit | None, watermark: int | None) -> None:
        if commit is not None:
            self.commits.append(commit)
            self.rows += commit.rows
            self.state = coverage.after(self.state, commit, watermark)

    @property
    def recipients(self) -> list[int]:
        """Who was read, as often as was."""
        return [int(str(row["recipient"])[6:]) for row in self.rows]


@pytest.fixture(name="feed")
def _feed() -> Feed:
    return Feed()


@pytest.fixture(name="walked")
def _walked(feed: Feed) -> Walked:
    return Walked(feed)


def claim(feed: Feed) -> int:
    """What is claimed at once."""
    return int(feed.now) - VISIBLE_S - SLACK_S


def fill(feed: Feed, rows: int, *, age_s: int = 2 * DAY_S, a_second: int = 10) -> None:
    """Register rows, so many of them in each second."""
    for row in range(rows):
        feed.move(age_s=age_s - row // a_second)


class TestEnd:
    """A claim needs the end of the feed, and goes as far as İYS promises."""

    def test_nothing(self, feed: Feed, walked: Walked) -> None:
        """Of a feed without rows everything is claimed that the window held for sure."""
        assert walked.pull() is Ending.COMPLETE
        assert feed.asked == [(None, 1000)]
        assert walked.state.covered_from == int(feed.now) - WINDOW_S + START_MARGIN_S
        assert walked.state.covered_until == claim(feed)
        assert walked.state.polled_at == int(feed.now)

    def test_asked_again(self, feed: Feed, walked: Walked) -> None:
        """A page that is not full is not the end: only an answer without rows is."""
        last = [feed.move(age_s=DAY_S - each) for each in range(3)][-1]

        walked.pull()

        assert feed.asked == [(None, 1000), (last.cursor, 1000)]
        assert walked.state.cursor == last.cursor

    def test_time_of_the_request(self, feed: Feed, walked: Walked) -> None:
        """What is claimed is measured from when the request left that proved the end."""
        feed.move(age_s=DAY_S)

        def slowly(page: Page) -> Page:
            feed.now += 50
            return page

        walked.pull(between=slowly)

        assert walked.state.covered_until == claim(feed) - 50

    def test_kept(self, feed: Feed, walked: Walked) -> None:
        """An empty page without a cursor leaves the one that is there."""
        row = feed.move(age_s=DAY_S)
        walked.pull()
        feed.now += 600

        walked.pull()

        assert feed.asked == [(row.cursor, 1000)]
        assert walked.state.cursor == row.cursor
        assert walked.state.covered_until == claim(feed)

    @pytest.mark.parametrize("cursor", ["1604423100000_x", "1597740617_x", "ş/+ =&\u2028"])
    def test_opaque(self, feed: Feed, walked: Walked, cursor: str) -> None:
        """A cursor is sent back as it came."""
        feed.move(age_s=DAY_S)
        walk = Walk(walked.state, now_s=feed.now)
        page = replace(feed.changes(0, 0, FeedSource.HS, after=None, limit=1000), after=cursor)
        commit = walk.answered(page)

        assert commit is not None
        assert (commit.cursor, walk.ask and walk.ask.after) == (cursor, cursor)


class TestCut:
    """Twins: two movements of one second and one transaction, of which a cursor behind the first skips the second."""

    def test_cut(self, feed: Feed, walked: Walked) -> None:
        """Of a full page the last second is asked for again, and each row is read once."""
        fill(feed, 1000)

        assert walked.pull() is Ending.COMPLETE

        before = feed.rows[989].cursor
        assert feed.asked == [(None, 1000), (None, 990), (before, 1000), (feed.rows[-1].cursor, 1000)]
        assert walked.recipients == [*range(1000)]
        assert walked.state.covered_until == claim(feed)

    @pytest.mark.parametrize("before", [997, 998, 999, 1000])
    def test_twins(self, feed: Feed, walked: Walked, before: int) -> None:
        """Both of two twins are read, wherever the page ends."""
        fill(feed, before, a_second=1, age_s=3 * DAY_S)
        twins = [feed.move(age_s=DAY_S, transaction="ab" * 32) for _ in range(2)]
        fill(feed, 20, age_s=3600)

        walked.pull()

        assert {twin.number for twin in twins} <= {*walked.recipients}
        assert walked.state.doubt == ""

    def test_one_second(self, feed: Feed, walked: Walked) -> None:
        """Where a whole page is one second, it is cut between two transactions."""
        fill(feed, 1010, a_second=2000)

        walked.pull()

        assert feed.asked[1] == (None, 999)
        assert (len(set(walked.recipients)), walked.state.doubt) == (1010, "")

    def test_one_transaction(self, feed: Feed, walked: Walked) -> None:
        """Where a whole page is one second and one transaction, what follows is read and nothing is claimed."""
        for _ in range(1005):
            feed.move(age_s=DAY_S, transaction="ab" * 32)
        after = feed.move(age_s=3700)

        assert walked.pull() is Ending.COMPLETE

        assert walked.recipients == [*range(1000), after.number]
        assert (walked.state.doubt, walked.state.covered_until) == (Doubt.CURSOR_TWINS, 0)

    def test_refused(self, feed: Feed, walked: Walked) -> None:
        """Where İYS refuses the shorter page, rows flow on and nothing is claimed."""
        fill(feed, 1000)

        def refuses(page: Page) -> Page:
            feed.faults = [RefusedFault("no", status=422, code="H507")] if len(page.rows) == 1000 else []
            return page

        assert walked.pull(between=refuses) is Ending.COMPLETE
        assert (len(walked.rows), walked.state.doubt) == (1000, Doubt.CURSOR_TWINS)

    def test_changed(self, feed: Feed, walked: Walked) -> None:
        """A page that has changed meanwhile is asked for again."""
        fill(feed, 1000)
        changed: list[int] = []

        def changes(page: Page) -> Page:
            if len(page.rows) == 1000 and not changed:
                changed.append(feed.move(age_s=3 * DAY_S).number)
            return page

        walked.pull(between=changes)

        assert [limit for _, limit in feed.asked[:4]] == [1000, 990, 1000, 991]
        assert (len(set(walked.recipients)), walked.state.doubt) == (1001, "")

    def test_always_changed(self, feed: Feed, walked: Walked) -> None:
        """One that is never the same twice is taken as it is, and nothing is claimed."""
        fill(feed, 1000)

        def changes(page: Page) -> Page:
            return replace(page, rows=tuple(reversed(page.rows))) if len(page.rows) == 990 else page

        assert walked.pull(between=changes) is Ending.COMPLETE
        assert (len(walked.rows), walked.state.doubt) == (1000, Doubt.CURSOR_TWINS)

    @pytest.mark.parametrize("kind", ["that of the page", "the one asked behind", "one that was before", "none"])
    def test_cursor_of_a_cut(self, feed: Feed, walked: Walked, kind: str) -> None:
        """If the shorter page has no cursor of its own, no row is skipped, and nothing is claimed."""
        first = feed.move(age_s=5 * DAY_S)
        fill(feed, 10, age_s=4 * DAY_S)
        walked.state = msgspec.structs.replace(walked.state, cursor=first.cursor, covered_from=first.created)
        fill(feed, 2500)
        full: list[str | None] = []

        def other(page: Page) -> Page:
            full.append(page.after)
            cursors = {
                "that of the page": full[-2:][0],
                "the one asked behind": feed.asked[-1][0],
                "one that was before": feed.asked[0][0],
            }
            return replace(page, after=cursors.get(kind)) if 900 < len(page.rows) < 1000 else page

        assert walked.pull(between=other) is Ending.COMPLETE
        assert {*walked.recipients} == {*range(1, 2511)}
        assert walked.state.doubt == Doubt.CURSOR_TWINS

    def test_tail_is_missing(self, feed: Feed, walked: Walked) -> None:
        """The last second must be there again: else the cursor skips more than it says."""
        fill(feed, 1000)

        def skips(page: Page) -> Page:
            return replace(page, rows=page.rows[1:]) if len(page.rows) == 10 else page

        walked.pull(between=skips)

        assert walked.state.doubt == Doubt.CURSOR_TWINS

    def test_tail_is_gone(self, feed: Feed, walked: Walked) -> None:
        """The same where nothing is there any more."""
        fill(feed, 1000)

        walked.pull(between=lambda page: replace(page, rows=(), after=None) if len(page.rows) == 10 else page)

        assert (walked.state.doubt, walked.state.covered_until) == (Doubt.CURSOR_TWINS, 0)

    @pytest.mark.parametrize("cap", [50, 500, 999])
    def test_capped(self, feed: Feed, walked: Walked, cap: int) -> None:
        """If İYS gives fewer rows than are asked for, twins are read all the same."""
        feed.cap = cap
        fill(feed, cap - 1, a_second=1, age_s=3 * DAY_S)
        for _ in range(2):
            feed.move(age_s=DAY_S, transaction="ab" * 32)
        fill(feed, 3, age_s=3700)

        assert walked.pull() is Ending.COMPLETE
        assert {*walked.recipients} == {*range(cap + 4)}
        assert (walked.state.doubt, walked.state.covered_until) == ("", claim(feed))


class TestEdge:
    """What is young may have something older behind it that is not shown yet."""

    def test_half_a_second(self, feed: Feed, walked: Walked) -> None:
        """A second that is shown in part is read again with the next pass."""
        whole = feed.move(age_s=2 * VISIBLE_S)
        first = feed.move(age_s=VISIBLE_S)
        second = feed.move(age_s=VISIBLE_S, transaction="0" * 64, shown_after_s=VISIBLE_S + 0.5)
        walked.pull()
        before = (walked.recipients, walked.state.cursor, walked.state.covered_until)
        feed.now += 600

        walked.pull()

        assert before == ([whole.number, first.number], "", claim(feed) - 600)
        assert second.number in walked.recipients
        assert walked.state.cursor == first.cursor

    def test_shown_early(self, feed: Feed, walked: Walked) -> None:
        """The cursor waits behind what is shown before its time, until all that is older is shown for sure."""
        late = feed.move(age_s=3, shown_after_s=VISIBLE_S)
        early = feed.move(shown_after_s=0)
        walked.pull()
        before = walked.recipients
        feed.now += VISIBLE_S + SLACK_S + 1

        walked.pull()

        assert before == [early.number]
        assert walked.recipients == [late.number, early.number]
        assert walked.state.cursor == early.cursor

    def test_many_shown_early(self, feed: Feed, walked: Walked) -> None:
        """More of them than a page holds are read at once, and again later."""
        fill(feed, 2500, age_s=1000)
        for at, row in enumerate(feed.rows):
            feed.rows[at] = shown_at_once(row)

        walked.pull()

        assert walked.recipients == [*range(2500)]
        assert (walked.state.cursor, walked.state.covered_until) == ("", claim(feed))

    def test_slow(self, feed: Feed, walked: Walked) -> None:
        """A pass that goes on for long beyond the edge claims what was sure when it came there."""
        fill(feed, 1000, age_s=1000)
        for at, row in enumerate(feed.rows):
            feed.rows[at] = shown_at_once(row)
        hidden = feed.move(age_s=1000)
        asked_at = feed.now

        def slowly(page: Page) -> Page:
            feed.now = max(feed.now, hidden.visible + SLACK_S)
            return page

        walked.pull(between=slowly)

        assert walked.state.covered_until == int(asked_at) - VISIBLE_S - SLACK_S
        assert walked.state.covered_until <= hidden.created


class TestClocks:
    """No clock of ours is trusted further than İYS's own clock agrees."""

    @pytest.mark.parametrize("ahead_s", [61, -61, 600, -600])
    def test_skewed(self, feed: Feed, walked: Walked, ahead_s: int) -> None:
        """Clocks that differ by more than a minute claim nothing, and read on."""
        feed.move(age_s=DAY_S)
        feed.ahead_s = ahead_s

        assert walked.pull() is Ending.COMPLETE

        reached = walked.commits[-1].reached
        assert reached is not None
        assert reached.skewed
        assert (len(walked.rows), walked.state.covered_until, walked.state.doubt) == (1, 0, "")

    @pytest.mark.parametrize("ahead_s", [60, 5, 0, -5, -60])
    def test_careful(self, feed: Feed, walked: Walked, ahead_s: int) -> None:
        """Of two clocks that differ less, the one that is behind counts."""
        feed.ahead_s = ahead_s

        walked.pull()

        assert walked.state.covered_until == claim(feed) - max(ahead_s, 0)

    def test_undated(self, feed: Feed, walked: Walked) -> None:
        """Where İYS does not say what time it is there, less is claimed."""
        feed.dated = False

        walked.pull()

        assert walked.state.covered_until == int(feed.now) - VISIBLE_S - SLACK_UNDATED_S

    def test_back(self, feed: Feed, walked: Walked) -> None:
        """A clock that goes back takes nothing back."""
        walked.pull()
        before = walked.state
        feed.now -= 3600

        walked.pull()

        assert walked.state.covered_until == before.covered_until

    def test_start(self, feed: Feed, walked: Walked) -> None:
        """Coverage begins where both clocks agree that everything was shown."""
        feed.ahead_s = 9000
        walked.pull()

        assert walked.state.covered_from == int(feed.now) - WINDOW_S + START_MARGIN_S


class TestDoubt:
    """What İYS's feed does not do as we understand it: rows are read, and nothing is claimed."""

    def test_disorder(self, feed: Feed, walked: Walked) -> None:
        """Rows out of order are read; a sweep that sees everything at once ends the doubt."""
        for age_s in (3000, 9000, 8000):
            feed.move(age_s=age_s + DAY_S)
        assert walked.pull(between=turned_round) is Ending.COMPLETE
        before = walked.state
        feed.now += 60

        walked.pull(between=turned_round, sweep=True)

        assert (before.doubt, before.doubted_at) == (Doubt.DISORDER, int(feed.now) - 60)
        assert (before.covered_until, len(walked.rows)) == (0, 3)
        assert (walked.state.doubt, walked.state.covered_until) == ("", claim(feed))

    def test_young_in_disorder(self, feed: Feed, walked: Walked) -> None:
        """A sweep that sees everything at once waits behind a young row wherever that stands, and asks to the end."""
        feed.move(age_s=DAY_S)
        feed.move(age_s=2, shown_after_s=2)
        hidden = feed.move(age_s=3, shown_after_s=VISIBLE_S)
        walked.pull(sweep=True, between=turned_round)
        before, asked = walked.state, len(feed.asked)
        feed.now += DAY_S

        walked.pull()

        assert (before.cursor, before.doubt, asked) == ("", "", 2)
        assert hidden.number in walked.recipients

    def test_between_pages(self, feed: Feed, walked: Walked) -> None:
        """A page may not begin before the last one ended."""
        fill(feed, 1030)

        def older(page: Page) -> Page:
            if len(page.rows) != 40:
                return page
            first = page.rows[0] | {"creationDate": TOO_OLD, "transactionId": "x"}
            return replace(page, rows=(first, *page.rows))

        walked.pull(between=older)

        assert walked.state.doubt == Doubt.DISORDER

    def test_large_sweep(self, feed: Feed, walked: Walked) -> None:
        """A sweep of several pages that finds disorder ends no doubt, and makes it no younger.

        That its first page sees much at once is not enough.
        """
        fill(feed, 1200)

        def disordered(page: Page) -> Page:
            if len(page.rows) < 900:
                return page
            return replace(page, rows=(page.rows[0], page.rows[1] | {"creationDate": TOO_OLD}, *page.rows[2:]))

        walked.pull(between=disordered)
        before = walked.state
        feed.now += 60

        walked.pull(between=disordered, sweep=True)

        assert before.doubt == Doubt.DISORDER
        assert (walked.state.doubt, walked.state.doubted_at) == (before.doubt, before.doubted_at)

    def test_stuck(self, feed: Feed, walked: Walked) -> None:
        """A page that comes again with the same cursor ends the pass; a sweep that ends goes on behind it."""
        row = feed.move(age_s=DAY_S)
        page = feed.changes(0, 0, FeedSource.HS, after=None, limit=1)

        def again(_: Page) -> Page:
            return page

        assert walked.pull(between=again) is Ending.STUCK
        assert len(feed.asked) == 2
        assert (walked.state.doubt, walked.state.covered_until) == (Doubt.CURSOR_STUCK, 0)
        feed.now += 1
        walked.pull(sweep=True)
        assert (walked.state.doubt, walked.state.cursor) == ("", row.cursor)

    def test_circle(self, feed: Feed, walked: Walked) -> None:
        """Cursors that go round in a circle end the pass."""
        first, second = feed.move(age_s=DAY_S), feed.move(age_s=DAY_S - 1)
        cursors = iter([first.cursor, second.cursor, first.cursor])
        pages = iter(feed.changes(0, 0, FeedSource.HS, after=None, limit=each) for each in (1, 2, 2))

        assert walked.pull(between=lambda _: replace(next(pages), after=next(cursors))) is Ending.STUCK

    def test_no_cursor(self, feed: Feed, walked: Walked) -> None:
        """Rows without a cursor are read, and nothing more is asked."""
        feed.move(age_s=DAY_S)

        assert walked.pull(between=lambda page: replace(page, after=None)) is Ending.STUCK
        assert (len(walked.rows), walked.state.doubt) == (1, Doubt.CURSOR_STUCK)

    @pytest.mark.parametrize("behind_s", [0, 1])
    def test_proved_elsewhere(self, feed: Feed, behind_s: int) -> None:
        """A watermark that others moved past a doubt ends it: what may be missing was registered before."""
        doubted_at = int(feed.now) - DAY_S
        first, until = doubted_at - DAY_S, doubted_at - VISIBLE_S
        state = SourceState(name="x", covered_from=first, covered_until=until)
        walked = Walked(feed, coverage.doubted(state, Doubt.DISORDER, doubted_at))
        walked.pull(watermark=doubted_at + SLACK_S - behind_s)

        expected = (Doubt.DISORDER, first) if behind_s else ("", doubted_at + SLACK_S)
        assert (walked.state.doubt, walked.state.covered_from) == expected
        assert walked.state.covered_until == (until if behind_s else claim(feed))

    def test_not_by_its_own(self, feed: Feed, walked: Walked) -> None:
        """A pass that raises a doubt ends none, however far the watermark is."""
        for age_s in (3000, 9000):
            feed.move(age_s=age_s + DAY_S)

        walked.pull(between=turned_round, watermark=int(feed.now) + 300)

        assert walked.state.doubt == Doubt.DISORDER

    @pytest.mark.parametrize("rows", [0, 1])
    def test_silent(self, feed: Feed, rows: int) -> None:
        """That a half of the feed is silent is not doubted any more when it shows a row."""
        fill(feed, rows)
        state = coverage.doubted(SourceState(name="x"), Doubt.IYS_FEED_SILENT, int(feed.now) - 60)
        walked = Walked(feed, state)

        walked.pull(sweep=True)

        assert walked.state.doubt == ("" if rows else Doubt.IYS_FEED_SILENT)

    def test_doubt_during_a_sweep(self, feed: Feed, walked: Walked) -> None:
        """A doubt that came up while a sweep was under way is not ended by it."""
        feed.move(age_s=DAY_S)

        def meanwhile(page: Page) -> Page:
            walked.state = coverage.doubted(walked.state, Doubt.CURSOR_TWINS, int(feed.now))
            return page

        walked.pull(sweep=True, between=meanwhile)

        assert walked.state.doubt == Doubt.CURSOR_TWINS


class TestGap:
    """What has left the window is lost to the feed."""

    def down(self, feed: Feed, seconds: int) -> Walked:
        """A stream that was last pulled so long ago, in the middle of a day with a row before and behind that."""
        walked = Walked(feed)
        feed.move(age_s=DAY_S)
        walked.pull()
        feed.move(age_s=1)
        feed.now += seconds
        return walked

    @pytest.mark.parametrize("days", [5, 7 * DAY_S - GAP_MARGIN_S - VISIBLE_S - SLACK_S])
    def test_none(self, feed: Feed, days: int) -> None:
        """Up to five minutes less than the window, a stream goes on."""
        walked = self.down(feed, days if days > 7 else days * DAY_S)
        before = walked.state

        walked.pull()

        assert walked.state.covered_from == before.covered_from
        assert walked.state.covered_until == claim(feed)
        assert walked.recipients == [1]

    def test_gap(self, feed: Feed) -> None:
        """Behind that, coverage begins anew at the window, and everything that is shown is read."""
        walked = self.down(feed, 7 * DAY_S - GAP_MARGIN_S - VISIBLE_S - SLACK_S + 1)

        assert walked.pull() is Ending.COMPLETE

        assert walked.commits[0].gap
        assert feed.asked[1][0] is None
        assert walked.state.covered_from == int(feed.now) - WINDOW_S + START_MARGIN_S
        assert walked.state.covered_until == claim(feed)
        assert 1 in walked.recipients

    def test_stopped(self, feed: Feed) -> None:
        """A pass that stops behind a gap covers nothing yet."""
        walked = self.down(feed, 9 * DAY_S)
        feed.move(age_s=DAY_S)
        walk = Walk(walked.state, now_s=feed.now)
        commit = walk.answered(feed.changes(0, 0, FeedSource.HS, after=None, limit=1000))

        assert commit is not None
        state = coverage.after(walked.state, commit, None)
        assert (state.covered_until, state.cursor) == (0, "")
        assert coverage.proved(1, state, walked.state) is None

    def test_slow_but_ahead(self, feed: Feed) -> None:
        """A pass that began in time goes on, however long it takes, while its rows are within the window."""
        walked = self.down(feed, 6 * DAY_S + 22 * 3600)
        for hour in range(6):
            fill(feed, 900, age_s=6 * DAY_S - hour * 3600)
        began = walked.state

        def slowly(page: Page) -> Page:
            feed.now += 1800
            return page

        assert walked.pull(between=slowly) is Ending.COMPLETE
        assert feed.now - began.covered_until > WINDOW_S
        assert walked.state.covered_from == began.covered_from

    def test_overtaken(self, feed: Feed, walked: Walked) -> None:
        """A sweep that is slower than the window is given up."""

        def slowly(page: Page) -> Page:
            feed.now += START_MARGIN_S
            return page

        fill(feed, 3000, age_s=WINDOW_S - 10)
        assert walked.pull(sweep=True, between=slowly) is Ending.OVERTAKEN
        assert walked.state.covered_until == 0

    def test_idle(self, feed: Feed, walked: Walked) -> None:
        """A stream without rows for ten days has no gap, and its old cursor is not sent."""
        feed.move(age_s=DAY_S)
        walked.pull()
        walked.state = msgspec.structs.replace(walked.state, latest=int(feed.now))
        for _ in range(10):
            feed.now += DAY_S
            walked.pull()

        assert feed.asked == [(None, 1000)]
        assert walked.state.covered_until == claim(feed)

    def test_old_cursor_refused(self, feed: Feed, walked: Walked) -> None:
        """A cursor that is refused is dropped: what the window shows is read again, and claimed."""
        row = feed.move(age_s=DAY_S)
        walked.pull()
        feed.faults = [RefusedFault("old", status=422, code="H505", location=("after",))]

        assert walked.pull() is Ending.COMPLETE
        assert [after for after, _ in feed.asked] == [row.cursor, None, row.cursor]
        assert (walked.commits[0].cursor, walked.state.cursor) == ("", row.cursor)

    def test_no_cursor_taken(self, feed: Feed, walked: Walked) -> None:
        """An İYS that takes no cursor at all is asked twice from the beginning, and no more."""
        feed.move(age_s=DAY_S)
        walked.pull()

        def refuses(page: Page) -> Page:
            feed.faults = [RefusedFault("no", status=422, code="H505")]
            return page

        feed.faults = [RefusedFault("no", status=422, code="H505")]
        assert walked.pull(between=refuses) is Ending.REFUSED
        assert len(feed.asked) == 3

    def test_refused_again(self, feed: Feed, walked: Walked) -> None:
        """That is done once in a pass."""
        feed.move(age_s=DAY_S)
        walked.pull()
        feed.faults = [RefusedFault("no", status=422, code="H506")] * 2

        assert walked.pull() is Ending.REFUSED


class TestSweep:
    """Everything that is shown is read again, for rows that came behind the cursor."""

    def test_late(self, feed: Feed, walked: Walked) -> None:
        """A row that came 30 minutes too late is found, and from then on as much is waited for, and read again."""
        walked.pull()
        late = feed.move(age_s=2 * VISIBLE_S + 5400, shown_after_s=5400)
        feed.now += 600
        walked.pull(sweep=True, late=[late.created + 3 * 3600])

        assert walked.recipients[0] == late.number
        assert walked.state.lateness == int(feed.now) - late.created - VISIBLE_S
        before = walked.state
        feed.now += DAY_S
        young = feed.move(age_s=VISIBLE_S + 3600)
        walked.pull()
        assert walked.state.covered_until == claim(feed) - before.lateness
        assert (walked.state.cursor, walked.recipients) == (before.cursor, [young.number])

    def test_waited_for(self, feed: Feed, walked: Walked) -> None:
        """What is read again because of that is read to its end, however little İYS gives at once."""
        walked.state = msgspec.structs.replace(walked.state, lateness=3600)
        feed.cap = 60
        fill(feed, 100, age_s=VISIBLE_S + 1800, a_second=1)

        walked.pull()

        assert walked.recipients == [*range(100)]
        assert walked.state.cursor == ""

    def test_after_a_gap(self, feed: Feed) -> None:
        """Where a stream is too old, a sweep covers what it read itself, and no more."""
        old = int(feed.now) - 8 * DAY_S
        walked = Walked(feed, SourceState(name="x", covered_from=old - DAY_S, covered_until=old))

        walked.pull(sweep=True)

        assert walked.state.covered_from == int(feed.now) - WINDOW_S + START_MARGIN_S

    def test_never_too_much(self, feed: Feed, walked: Walked) -> None:
        """However late a row is, no more is waited for than a watermark may be old."""
        walked.pull()
        old = feed.move(age_s=3 * DAY_S)

        walked.pull(sweep=True, late=[old.created + 3 * 3600])

        assert walked.state.lateness == LATENESS_MAX_S

    def test_forgotten(self, walked: Walked) -> None:
        """Each sweep that finds nothing late halves what is waited for."""
        walked.state = msgspec.structs.replace(walked.state, lateness=1001)

        walked.pull(sweep=True)
        walked.pull()

        assert walked.state.lateness == 500

    def test_not_late(self, feed: Feed, walked: Walked) -> None:
        """What was registered before coverage began, or after what was claimed, is not late."""
        walked.pull()
        first, beyond = walked.state.covered_from, walked.state.covered_until
        feed.move(age_s=2 * VISIBLE_S)

        walked.pull(sweep=True, late=[first - 1 + 3 * 3600, beyond + 3 * 3600])

        assert walked.state.lateness == 0

    def test_other_pages(self, feed: Feed, walked: Walked) -> None:
        """Its pages end at other rows, and its cursor counts when all is read."""
        fill(feed, 1000)

        walked.pull(sweep=True)

        assert feed.asked[0] == (None, 997)
        assert {commit.cursor for commit in walked.commits[:-1]} == {None}
        assert walked.state.cursor == feed.rows[-1].cursor


class TestFaults:
    """What is no answer proves nothing, and moves nothing."""

    @pytest.mark.parametrize(
        ("fault", "ending"),
        [
            (AuthFailedFault("x"), Ending.AUTH_FAILED),
            (ForbiddenFault("x", status=403, code="H353"), Ending.FORBIDDEN),
            (LockedFault("x", until_s=1.0), Ending.LOCKED),
            (RefusedFault("x", status=404), Ending.REFUSED),
        ],
    )
    def test_at_once(self, feed: Feed, walked: Walked, fault: IysFault, ending: Ending) -> None:
        """What does not pass by itself ends the pass."""
        feed.faults = [fault]

        assert walked.pull() is ending
        assert walked.walk.end is not None
        assert (walked.walk.end.fault, len(feed.asked), walked.commits) == (fault, 1, [])

    @pytest.mark.parametrize(
        ("fault", "ending", "least"),
        [(TransientFault("x"), Ending.FAILED, 0.0), (SlowedFault("x"), Ending.SLOWED, 1.0)],
    )
    def test_again(self, feed: Feed, fault: IysFault, ending: Ending, least: float) -> None:
        """What may pass is asked for four times, with growing pauses."""
        walk = Walk(SourceState(name="x"), now_s=feed.now, chance=lambda: 1.0)
        delays = []
        while (ask := walk.ask) is not None:
            delays.append(ask.delay_s)
            assert walk.failed(fault) is None

        assert walk.end is not None
        assert (walk.end.ending, delays) == (ending, [0.0, 1 + least, 2 + least, 4 + least])

    def test_passed(self, feed: Feed, walked: Walked) -> None:
        """When it has passed the same is asked for, and the next fault begins anew."""
        fill(feed, 1500)
        feed.faults = [TransientFault("x")] * 3

        def fails(page: Page) -> Page:
            feed.faults = [TransientFault("x")] * (3 if page.rows else 0)
            return page

        assert walked.pull(between=fails) is Ending.COMPLETE
        assert [after for after, _ in feed.asked[:4]] == [None] * 4
        assert walked.recipients == [*range(1500)]

    def test_in_a_cut(self, feed: Feed, walked: Walked) -> None:
        """A fault between a full page and its cut leaves the cursor where it was."""
        fill(feed, 1000)

        def fails(page: Page) -> Page:
            feed.faults = [TransientFault("x")] * 4
            return page

        assert walked.pull(between=fails) is Ending.FAILED
        assert (walked.state.cursor, walked.commits) == ("", [])


class TestOddRows:
    """What a row says of itself is not believed further than it makes sense."""

    @pytest.mark.parametrize("odd", ["", "gestern", None, 7, "2099-01-01 00:00:00"])
    def test_creation_date(self, feed: Feed, walked: Walked, odd: object) -> None:
        """A row whose time cannot be read, or is a typo, is read and decides nothing."""
        for age_s in (300, 200, 100):
            feed.move(age_s=DAY_S + age_s)

        def oddly(page: Page) -> Page:
            rows = tuple(row | {"creationDate": odd} if at == 1 else row for at, row in enumerate(page.rows))
            return replace(page, rows=rows)

        assert walked.pull(between=oddly) is Ending.COMPLETE
        assert (len(walked.rows), walked.state.doubt, walked.state.covered_until) == (3, "", claim(feed))

    def test_all_of_them(self, feed: Feed, walked: Walked) -> None:
        """A full page without any readable time is cut between transactions."""
        fill(feed, 1010)

        def oddly(page: Page) -> Page:
            return replace(page, rows=tuple(row | {"creationDate": ""} for row in page.rows))

        walked.pull(between=oddly)

        assert feed.asked[1] == (None, 999)
        assert len({*walked.recipients}) == 1010


class TestCoverage:
    """What two halves prove together, and where a hole is."""

    @pytest.mark.parametrize(
        ("one", "other", "span"),
        [
            ((10, 30), (20, 40), (20, 30)),
            ((20, 40), (10, 30), (20, 30)),
            ((10, 20), (20, 30), None),
            ((10, 0), (10, 30), None),
            ((10, 30), (10, 0), None),
        ],
    )
    def test_proved(self, one: tuple[int, int], other: tuple[int, int], span: tuple[int, int] | None) -> None:
        """Only what both cover."""
        states = [SourceState(name="x", covered_from=each[0], covered_until=each[1]) for each in (one, other)]
        found = coverage.proved(7, *states)

        assert (found and (found.brand, found.start, found.end)) == (span and (7, *span))

    def test_alone(self) -> None:
        """One half alone proves nothing."""
        assert coverage.proved(7, SourceState(name="x", covered_from=1, covered_until=2), None) is None

    @pytest.mark.parametrize(
        ("watermark", "starts", "found"),
        [(None, [5], None), (5, [], None), (5, [5], None), (5, [4, 9], None), (5, [9, 7], (5, 7))],
    )
    def test_hole(self, watermark: int | None, starts: list[int], found: tuple[int, int] | None) -> None:
        """A hole is between the watermark and the first thing that is proved beyond it."""
        spans = [Span(brand=7, start=start, end=20) for start in starts]
        hole = hole_of(watermark, spans)

        assert (hole and (hole.start, hole.end)) == found


def turned_round(page: Page) -> Page:
    """The same page in the wrong order."""
    return replace(page, rows=tuple(reversed(page.rows)))


def shown_at_once(row: Movement) -> Movement:
    """The same row, which can be seen from the beginning."""
    return replace(row, visible=row.created)
