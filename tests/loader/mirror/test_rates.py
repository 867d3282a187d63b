"""İYS's limits, as İYS itself counts them, over whole days of many brands."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from loader.iys.messages import FeedSource
from tests.iys.fake import FakeIys
from tests.iys.faults import Fault
from tests.iys.quirks import Quirks
from tests.loader.mirror.town import BRAND, DAY_S, HOUR_S, Town


@pytest.fixture(name="served", scope="module")
def _served() -> Iterator[FakeIys]:
    fake = FakeIys()
    with fake.running():
        yield fake


@pytest.fixture(name="town")
def _town(served: FakeIys, tmp_path: Path) -> Iterator[Town]:
    served.reset(Quirks(tokens_per_hour=10, evenly=True))
    memory = Path("/dev/shm")  # noqa: S108 - thousands of commits, each through to the disk elsewhere
    with TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Town(Path(folder), served)


def run(town: Town, brands: int, seconds: float) -> None:
    """Mirror so many brands for so long; some of them have movements all the time."""
    codes = tuple(range(BRAND, BRAND + brands))
    town.provider(brands=codes)
    town.seeded(*codes)
    with town.running() as mirror:
        end_s, number = town.clock.now() + seconds, 0
        while town.clock.now() < end_s:
            for brand in codes[:: max(1, brands // 10)]:
                number += 1
                town.fake.move(brand, FeedSource.IYS, status="RET", recipient=f"+90532{number % 10**7:07}")
            town.pass_time(mirror, HOUR_S)


def tokens_an_hour(town: Town) -> int:
    """Say how many tokens were asked for in the worst hour."""
    asked = [seen.at_s for seen in town.fake.asked("token")]
    return max(sum(start <= at < start + HOUR_S for at in asked) for start in asked)


def test_some_hours(town: Town) -> None:
    """A few brands over hours: no limit is broken, though İYS wants each request at its distance."""
    run(town, 3, 3 * HOUR_S)

    assert not town.fake.broken_limits
    assert tokens_an_hour(town) <= 2
    assert are_fresh(town, range(BRAND, BRAND + 3))


@pytest.mark.thorough
@pytest.mark.parametrize(("interval_s", "seconds"), [(600, 2 * HOUR_S), (3_600, DAY_S)])
def test_500_brands(town: Town, interval_s: int, seconds: float) -> None:
    """500 brands: no limit is ever broken, no more than ten tokens an hour are asked for, and all stay fresh."""
    town.mirror = replace(town.mirror, interval_s=interval_s, idle_interval_s=max(interval_s, 1_800))
    run(town, 500, seconds)

    assert not town.fake.broken_limits
    assert tokens_an_hour(town) <= 10
    assert len(town.fake.asked("changes")) >= 500 * 2 * seconds / interval_s * 0.8
    assert are_fresh(town, range(BRAND, BRAND + 500), more_s=interval_s)


@pytest.mark.thorough
@pytest.mark.parametrize("brands", [10, 500])
def test_forbidden(town: Town, brands: int) -> None:
    """While İYS forbids three brands of ten, it finds more than 70 % of all requests good; the others stay fresh."""
    forbidden = brands * 3 // 10
    for brand in range(BRAND, BRAND + forbidden):
        town.fake.plan("changes", Fault.forbidden("H353"), count=None, brand=brand)
    run(town, brands, 2 * HOUR_S)

    asked, good = town.fake.success
    assert asked > 100
    assert good > 0.7
    assert not town.fake.broken_limits
    assert are_fresh(town, range(BRAND + forbidden, BRAND + brands))


def are_fresh(town: Town, brands: range, more_s: float = 600.0) -> bool:
    """Say whether brands are no further behind than İYS makes them, and one pause and a bit."""
    lags = [town.lag_s(brand) for brand in brands]
    return all(lag is not None and lag < HOUR_S + 20 * 60 + more_s for lag in lags)
