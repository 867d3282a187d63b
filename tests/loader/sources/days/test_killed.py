"""Days that are being settled by a process that is killed again and again."""

import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from iyscheck.store import layout
from iyscheck.store.snapshot import Store
from loader.reports.days import DayReports, DayState
from tests.builders import content
from tests.dice import often, thrown
from tests.loader.feeds import ROOT
from tests.loader.sources.days.days import DAY, HEADER, row
from tests.loader.sources.days.settled import BRAND

KILLS = often(12, least=4)


def start(folder: Path, store: Path) -> subprocess.Popen[bytes]:
    """Start the process."""
    command = [sys.executable, "-m", "tests.loader.sources.days.settled", str(folder), str(store)]
    return subprocess.Popen(command, cwd=ROOT)


def left(store: Path) -> dict[bytes, list[tuple[bytes, object]]]:
    """Return what is in a store, times and names of sources apart."""
    with Store.open(store) as opened:
        found = content(opened)
    return {name: found[name] for name in (layout.RECORDS, layout.COUNTS, layout.WATERMARKS, layout.SPANS)}


@pytest.mark.crash
@pytest.mark.slow
@pytest.mark.thorough
def test_killed(tmp_path: Path) -> None:
    """The store is as if nothing had happened, and of what was missed no more is untold than a commit a kill."""
    folder, calm, wild = tmp_path / "files", tmp_path / "calm", tmp_path / "wild"
    folder.mkdir()
    days = [DAY + timedelta(days=number) for number in range(3)]
    for number, day in enumerate(days):
        rows = [row(each + 500 * number, status="RET").replace(str(DAY), str(day)) for each in range(3_000)]
        (folder / f"{day}.csv").write_text(HEADER + "".join(rows))
    began = time.monotonic()
    assert start(folder, calm).wait() == 0
    undisturbed_s = time.monotonic() - began
    dice, kills = thrown(), 0

    while kills < KILLS:
        process = start(folder, wild)
        time.sleep(dice.uniform(0.3, 1.0) * undisturbed_s)  # any moment will do
        if process.poll() is None:
            process.kill()
            kills += 1
        if process.wait() == 0:
            break
    assert start(folder, wild).wait() == 0

    assert left(wild) == left(calm)
    told, expected = (DayReports(store.with_name(store.name + ".days")).all(BRAND) for store in (wild, calm))
    for day in days:
        assert expected[day].state is told[day].state is DayState.HEALED
        missed = expected[day].missed.refusals
        assert missed - 200 * kills <= told[day].missed.refusals <= missed
