"""What a walk through a stream claims, whatever the feed, the network and the clocks do."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.store.layout import SourceState
from loader.iys.faults import IysFault, RefusedFault, SlowedFault, TransientFault
from loader.iys.messages import FeedSource
from loader.sources.pull import coverage
from loader.sources.pull.passes import fetch
from loader.sources.pull.steps import Stream
from loader.sources.pull.terms import SLACK_S, VISIBLE_S, WINDOW_S, Doubt
from loader.sources.pull.walk import Walk
from tests.dice import often
from tests.loader.sources.pull.feed import Feed

STREAM: Final = Stream(iys_code=600_000, brand=1, source=FeedSource.HS)
PAGE: Final = 4
FAULTS: Final = (
    lambda: TransientFault("cut", status=502),
    lambda: SlowedFault("slow", status=429, code="H124"),
    lambda: RefusedFault("no", status=422, code="H507"),
)


@dataclass
class Pulled:
    """A stream that is pulled in pages of four rows, from a feed that keeps its promise to the second."""

    feed: Feed = field(default_factory=Feed)
    state: SourceState = field(default_factory=lambda: SourceState(name=STREAM.name))
    read: set[int] = field(default_factory=set)

    def pull(
        self,
        *,
        sweep: bool = False,
        stops_after: int = 999,
        pause_s: float = 0.0,
        failing: Sequence[Callable[[], IysFault]] = (),
    ) -> None:
        """Walk so many steps, each of which takes a while; what is committed is kept, and nothing else."""
        self.feed.faults = [make() for make in failing]
        walk = Walk(self.state, now_s=self.feed.now - self.feed.ahead_s, sweep=sweep, rows=PAGE, chance=lambda: 0.0)
        for _ in range(stops_after):
            ask = walk.ask
            if ask is None:
                break
            answer = fetch(self.feed, STREAM, ask)
            commit = walk.failed(answer) if isinstance(answer, IysFault) else walk.answered(answer)
            if commit is not None:
                self.read |= {int(str(row["recipient"])[6:]) for row in commit.rows}
                self.state = coverage.after(self.state, commit, None)
                self.claims_only_what_was_read()
            self.feed.now += pause_s

    def claims_only_what_was_read(self) -> None:
        """Compare the claim with what was registered, shown or not."""
        covered = range(self.state.covered_from, self.state.covered_until)
        assert [row for row in self.feed.rows if row.created in covered and row.number not in self.read] == []


moved = st.tuples(
    st.integers(0, 3), st.sampled_from(["", "", "ab" * 32]), st.sampled_from([0, 1, 1800, 3599, 3600, 3600])
)
moves = st.builds(
    lambda rows: (
        lambda pulled: [
            pulled.feed.move(age_s=age_s, transaction=transaction, shown_after_s=max(shown_after_s, age_s))
            for age_s, transaction, shown_after_s in rows
        ]
    ),
    st.lists(moved, min_size=1, max_size=7),
)
waits = st.builds(
    lambda seconds: lambda pulled: setattr(pulled.feed, "now", pulled.feed.now + seconds),
    st.sampled_from([0.4, 1, 2, 59, 600, 3540, 3600, 3661, 3720, 3722, 86_400, WINDOW_S - 3600, WINDOW_S + 9]),
)
pulls = st.builds(
    lambda sweep, stops_after, pause_s, failing: (
        lambda pulled: pulled.pull(sweep=sweep, stops_after=stops_after, pause_s=pause_s, failing=failing)
    ),
    st.sampled_from([False] * 4 + [True]),
    st.sampled_from([999, 999, 999, 1, 2, 3]),
    st.sampled_from([0, 0, 0.3, 1, 30, 200]),
    st.just([]) | st.just([]) | st.lists(st.sampled_from(FAULTS), max_size=5),
)


def _clock(ahead_s: float, dated: bool) -> Callable[[Pulled], None]:  # noqa: FBT001 - drawn
    def differs(pulled: Pulled) -> None:
        pulled.feed.dated = dated
        pulled.feed.ahead_s = ahead_s if dated else 0.0

    return differs


clocks = st.builds(
    _clock, st.sampled_from([-7200, -61, -60, -30, 0, 0, 30, 60, 600]), st.sampled_from([True, True, False])
)
steps = st.one_of(moves, waits, pulls, moves, waits, pulls, clocks)


@settings(max_examples=often(3000), deadline=None)
@given(st.lists(steps, max_size=40))
def test_claims(chosen: list[Callable[[Pulled], None]]) -> None:
    """No claim ever holds a row that was not read. In the end all that is shown is read and claimed.

    Only more twins than a page holds leave a doubt, which no look at the feed can end.
    """
    pulled = Pulled()
    for step in chosen:
        step(pulled)
        pulled.claims_only_what_was_read()
    pulled.feed.dated, pulled.feed.ahead_s = True, 0.0

    for _ in range(3):
        pulled.feed.now += 3722
        pulled.pull(sweep=bool(pulled.state.doubt))

    pulled.claims_only_what_was_read()
    if pulled.state.doubt:
        keys = Counter((row.created, row.transaction) for row in pulled.feed.rows)
        assert (pulled.state.doubt, max(keys.values()) >= PAGE) == (Doubt.CURSOR_TWINS, True)
        return
    assert {row.number for row in pulled.feed.visible()} <= pulled.read
    assert pulled.state.covered_until == int(pulled.feed.now) - VISIBLE_S - SLACK_S
