"""The model of a pull: whatever moves at İYS and whatever goes wrong, no watermark claims what the store lacks.

The fake's own log is the oracle. Everything goes over real sockets, through the real client, into a real store.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loader.iys.messages import FeedSource, Page
from loader.loading.holes import hole_of
from loader.sources.pull.terms import SLACK_S, VISIBLE_S, WINDOW_S
from tests.iys.fake import FakeIys
from tests.iys.faults import Fault
from tests.loader.sources.pull.mirrored import BRAND, USERNAME, Mirrored, change_of, model_of

PAGE: Final = 4
LATELY_S: Final = 120
"""So long the last pass may take."""
MEMORY: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a folder of its own is made in it
"""Where no commit waits for a disk: there are thousands, and no power cut is tried here."""
Step = Callable[[Mirrored], object]


class KilledError(Exception):
    """The process ends here."""


class Mortal:
    """A client that answers so many times, and then its process is killed."""

    def __init__(self, mirrored: Mirrored, answers: int) -> None:
        self._iys = mirrored.iys
        self._left = answers

    def changes(self, iys_code: int, brand: int, source: FeedSource, *, after: str | None, limit: int) -> Page:
        """Ask, and do not come back from the last time."""
        page = self._iys.changes(iys_code, brand, source, after=after, limit=limit)
        self._left -= 1
        if not self._left:
            raise KilledError
        return page


def moves(rows: list[tuple[FeedSource, int, str, str, float, bool, float]]) -> Step:
    """Let consents move: few recipients, so that movements meet; twins share second and transaction."""

    def step(mirrored: Mirrored) -> None:
        for source, recipient, channel, status, age_s, twin, shown_after_s in rows:
            mirrored.fake.move(
                BRAND,
                source,
                recipient=f"+9053210000{recipient:02}" if channel == "MESAJ" else f"a{recipient}@example.com",
                channel=channel,
                status=status,
                created_s=mirrored.time.now() - age_s,
                visible_after_s=max(shown_after_s, age_s),
                transaction_id="ab" * 32 if twin else None,
            )

    return step


def waits(seconds: float) -> Step:
    """Let time pass."""
    return lambda mirrored: mirrored.time.advance(seconds)


def pulls(source: FeedSource, sweep: bool, faults: list[tuple[int, Fault]], dies_after: int) -> Step:  # noqa: FBT001 - drawn
    """Walk through one half, while this or that goes wrong; maybe the process is killed on the way."""

    def step(mirrored: Mirrored) -> None:
        for nth, fault in faults:
            mirrored.fake.plan("changes", fault, nth=nth)
        with suppress(KilledError):
            mirrored.pull(source, sweep=sweep, rows=PAGE, iys=Mortal(mirrored, dies_after))
            return
        mirrored.restart()

    return step


def clock_is_wrong(ahead_s: float) -> Step:
    """Set our clock otherwise."""
    return lambda mirrored: setattr(mirrored.clock, "ahead_s", ahead_s)


def behaves(name: str, value: object) -> Step:
    """Let İYS do what its documentation leaves open."""
    return lambda mirrored: mirrored.fake.set_quirks(**{name: value})


def goes(mirrored: Mirrored) -> None:
    """The account loses the brand."""
    mirrored.fake.remove_brand(USERNAME, BRAND)


def comes_back(mirrored: Mirrored) -> None:
    """The account has the brand again."""
    goes(mirrored)
    mirrored.fake.add_brand(USERNAME, BRAND)


movement = st.tuples(
    st.sampled_from(FeedSource),
    st.integers(0, 3),
    st.sampled_from(["MESAJ", "EPOSTA"]),
    st.sampled_from(["ONAY", "RET"]),
    st.sampled_from([0, 0.3, 1, 2]),
    st.booleans(),
    st.sampled_from([3600, 3600, 3599.5, 1800, 0, 5400]),
)
# No page that is shown again an hour later: who gives an old answer as a new one does not show what he promises.
fault = st.sampled_from(
    [
        Fault.too_fast(),
        Fault.unauthorized(),
        Fault.broken_server(),
        Fault.login_page(),
        Fault.errors_in_200(),
        Fault.cut("length"),
        Fault.cut("chunk"),
        Fault.cut("close"),
        Fault.cut("gzip"),
        Fault.reset(),
        Fault.coded(422, "H507", "limit"),
        Fault.reverse(),
        Fault.time_passes(30),
        Fault.time_passes(200),
        Fault.time_passes(4000),
    ]
)
pulling = st.builds(
    pulls,
    st.sampled_from(FeedSource),
    st.sampled_from([False, False, False, True]),
    st.just([]) | st.just([]) | st.lists(st.tuples(st.integers(1, 4), fault), max_size=3),
    st.sampled_from([999, 999, 999, 1, 2, 3]),
)
moving = st.builds(moves, st.lists(movement, min_size=1, max_size=6))
waiting = st.builds(
    waits, st.sampled_from([0.5, 1, 60, 600, 3540, 3600, 3660, 3725, 86_400, WINDOW_S - 3600, WINDOW_S + 9])
)
others = st.one_of(
    st.builds(clock_is_wrong, st.sampled_from([0, 0, 30, -30, 59, -59, -240, 600, -600, 90_000])),
    st.builds(behaves, st.just("cursor"), st.sampled_from(["s", "ms"])),
    st.builds(behaves, st.just("empty"), st.sampled_from(["204", "list"])),
    st.builds(behaves, st.just("old_cursor"), st.sampled_from(["resume", "restart", "refuse"])),
    st.builds(behaves, st.just("gzip"), st.booleans()),
    st.sampled_from([goes, comes_back, Mirrored.load_full_list, Mirrored.restart]),
)
steps = st.lists(st.one_of(moving, waiting, pulling, moving, waiting, pulling, pulling, others), max_size=30)


@contextmanager
def fresh(fake: FakeIys) -> Iterator[Mirrored]:
    """A brand of which everything is known, and that is nothing."""
    fake.reset()
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, closing(Mirrored(fake, Path(folder))) as mirrored:
        mirrored.seed(mirrored.time.now() - 3)
        yield mirrored


@settings(max_examples=40, deadline=None)
@given(steps)
def test_model(running_iys: FakeIys, chosen: list[Step]) -> None:
    """At every moment what a watermark claims is in the store; in the end all that İYS shows is, and is claimed."""
    holds(running_iys, chosen)


@pytest.mark.thorough
@settings(max_examples=1000, deadline=None, report_multiple_bugs=False)
@given(steps)
def test_model_at_length(running_iys: FakeIys, chosen: list[Step]) -> None:
    """The same, very often."""
    holds(running_iys, chosen)


def holds(running_iys: FakeIys, chosen: list[Step]) -> None:
    """Do what was chosen, and compare with the log of the fake after each step."""
    with fresh(running_iys) as mirrored:
        for step in chosen:
            step(mirrored)
            assert mirrored.lost() == []

        mirrored.fake.clear_plans()
        mirrored.clock.ahead_s = 0.0
        comes_back(mirrored)
        for sweep in (False, True, False):
            mirrored.time.advance(3725)
            for source in FeedSource:
                mirrored.pull(source, sweep=sweep, rows=PAGE)
            assert mirrored.lost() == []

        stored = {key: change.precedence for key, change in mirrored.stored().items()}
        known = {change_of(each).precedence for each in mirrored.fake.movements}
        shown = [each for source in FeedSource for each in mirrored.fake.visible_rows(BRAND, source)]
        in_sight = [each for each in shown if each.registered_s > mirrored.time.now() - WINDOW_S + 1]
        assert {*stored.values()} <= known
        # Rows that seemed to come from the future, while our clock was a day behind, hold the watermark.
        states = [mirrored.state(source) for source in FeedSource]
        if not any(state.doubt for state in states):  # more twins than a page holds leave one
            assert all(stored.get(key, ()) >= precedence for key, precedence in model_of(in_sight).items())
            claimed = mirrored.time.now() - VISIBLE_S - SLACK_S - max(state.lateness for state in states) - LATELY_S
            watermark, spans, held = mirrored.writer.coverage(BRAND)
            assert held or hole_of(watermark, spans) or (watermark or 0) > claimed
