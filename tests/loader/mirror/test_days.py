"""A mirror that compares days at night: rows that came late, and times for which it was down."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.store import layout
from iyscheck.store.snapshot import Store
from loader.iys.messages import FeedSource
from loader.reports.days import DayReports, DayState
from loader.sources.names import stream_name
from tests.builders import content
from tests.dice import often
from tests.iys.clock import VirtualClock
from tests.iys.days import day_of
from tests.iys.fake import FakeIys
from tests.iys.quirks import Quirks
from tests.loader.feeds import Desk
from tests.loader.mirror.town import BRAND, DAY_S, HOUR_S, IYS_CODE, Town


@pytest.fixture(name="served", scope="module")
def _served() -> Iterator[FakeIys]:
    fake = FakeIys(clock=VirtualClock())
    with fake.running():
        yield fake


@pytest.fixture(name="town")
def _town(served: FakeIys, tmp_path: Path) -> Town:
    served.reset()
    town = Town(tmp_path, served)
    town.mirror = replace(town.mirror, reconciles=True)
    town.provider()
    return town


def refusals(town: Town) -> int:
    """Count the refusals in the store."""
    with Store.open(town.desk.store) as store, store.snapshot() as snapshot:
        return sum(count for (_, _, _, status), count in snapshot.counts().items() if status == 2)


def test_late(town: Town) -> None:
    """A row that came late behind the cursor is found at night, told, and makes its stream wait longer from then on."""
    town.seeded(BRAND)
    moved_s = town.clock.now()
    town.fake.move(BRAND, "HS", status="RET", visible_after_s=5 * HOUR_S)
    with town.running() as mirror:
        town.pass_time(mirror, HOUR_S)
        town.fake.move(BRAND, "HS", recipient="+905321000009")  # the cursor goes behind this one
        town.pass_time(mirror, 7 * HOUR_S)
    pulled = refusals(town)
    with town.running() as mirror:
        town.pass_time(mirror, 12 * HOUR_S)

    report = DayReports(town.folder / "days").all(BRAND)[day_of(moved_s)]
    with Store.open(town.desk.store) as store, store.snapshot() as snapshot:
        states = {state.name: state for state in snapshot.sources()}
    assert (report.state, report.missed.refusals) == (DayState.HEALED, 1)
    assert states[stream_name(IYS_CODE, BRAND, FeedSource.HS)].lateness > 4 * HOUR_S
    assert states[stream_name(IYS_CODE, BRAND, FeedSource.IYS)].lateness == 0
    assert (pulled, refusals(town)) == (0, 1)


@pytest.mark.parametrize(("down_days", "is_repaired"), [(5.0, True), (7.0 + 9 / 24, True), (9.0, False)])
def test_down(town: Town, down_days: float, is_repaired: bool) -> None:  # noqa: FBT001 - pytest passes by name
    """A mirror that was down goes on, files repair what pull has lost; what they do not reach is a hole."""
    midnight_s = town.clock.now() // DAY_S * DAY_S + DAY_S - 3 * HOUR_S
    town.clock.set(midnight_s)
    town.seeded(BRAND)
    with town.running() as mirror:
        town.pass_time(mirror, 2 * HOUR_S)
    before = town.brand().watermark
    moved = 0
    while town.clock.now() < midnight_s + 2 * HOUR_S + down_days * DAY_S:
        town.fake.move(BRAND, "IYS", status="RET", recipient=f"+90532100{moved:04}")
        moved += 1
        town.clock.advance(2 * HOUR_S)

    with town.running() as mirror:
        town.pass_time(mirror, 3 * HOUR_S)
        holes = dict(mirror.holes)

    assert bool(holes) is not is_repaired
    if is_repaired:
        lag_s = town.lag_s()
        assert lag_s is not None
        assert lag_s < 9 * HOUR_S
        assert refusals(town) >= moved - 2  # the last ones are not visible yet
    else:
        assert town.brand().watermark == before


MOVES = st.lists(
    st.tuples(
        st.integers(0, 3),  # whose
        st.sampled_from(["HS", "IYS"]),
        st.sampled_from(["ONAY", "RET"]),
        st.integers(1, 5 * 3600),  # after how many seconds the next one is
        st.sampled_from([3600.0, 3600.0, 5400.0, 5 * 3600.0, 9 * 3600.0]),  # when it is visible
    ),
    min_size=1,
    max_size=12,
)


@pytest.mark.slow
@pytest.mark.thorough
@given(moves=MOVES, stops=st.lists(st.integers(1, 12), max_size=3))
@settings(max_examples=often(20), deadline=None)
def test_law(
    served: FakeIys,
    tmp_path_factory: pytest.TempPathFactory,
    moves: list[tuple[int, str, str, int, float]],
    stops: list[int],
) -> None:
    """However late rows come, and however often the mirror is stopped: after the night it has all that files have."""
    served.reset(Quirks(file_after_s=8 * HOUR_S))  # a file has all that came by then
    town = Town(tmp_path_factory.mktemp("town"), served)
    town.mirror = replace(town.mirror, reconciles=True)
    town.provider()
    begin_s = town.clock.now()
    town.seeded(BRAND)
    with contextlib.ExitStack() as stack:
        mirror = stack.enter_context(town.running())
        for at, (whose, source, status, pause_s, hidden_s) in enumerate(moves):
            town.fake.move(BRAND, source, status=status, recipient=f"+90532100000{whose}", visible_after_s=hidden_s)
            town.pass_time(mirror, pause_s)
            if at in stops:
                stack.close()
                mirror = stack.enter_context(town.running())
        town.pass_time(mirror, 36 * HOUR_S)

    lag_s = town.lag_s()
    assert lag_s is not None
    assert lag_s < 8 * HOUR_S
    days = [day_of(begin_s + n * DAY_S) for n in range(4)]
    expected = Desk(tmp_path_factory.mktemp("expected"))
    for day in days:
        file = expected.file(f"{day}.csv", *served.file(BRAND, day).splitlines())
        expected.load(file, brand=BRAND, now=town.clock.now())
    assert records(town.desk.store) == records(expected.store)


def records(store: Path) -> list[tuple[bytes, object]]:
    """Return the consents in a store."""
    with Store.open(store) as opened:
        return content(opened)[layout.RECORDS]
