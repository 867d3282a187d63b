"""A mirror that compares days at night: rows that came late, and times for which it was down."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from iyscheck.store.snapshot import Store
from loader.iys.messages import FeedSource
from loader.reports.days import DayReports, DayState
from loader.sources.names import stream_name
from tests.iys.clock import VirtualClock
from tests.iys.days import day_of
from tests.iys.fake import FakeIys
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
