"""A process that pulls may be killed at any moment: the next one goes on, and the store is as if nothing had been."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

import pytest

from iyscheck.store import layout
from iyscheck.store.layout import SourceState
from iyscheck.store.snapshot import Store
from loader.iys.messages import FeedSource
from tests.builders import a_batch, a_brand, content
from tests.dice import thrown
from tests.iys.clock import SharedClock
from tests.iys.fake import FakeIys
from tests.loader.feeds import ROOT, Desk, position
from tests.loader.sources.pull.mirrored import BRAND, IYS_CODE, PASSWORD, USERNAME
from tests.loader.sources.pull.puller import pull

ROWS, PAGE, DAY_S = 200, 60, 86_400
OF_TIME: Final = (layout.SOURCES, layout.META, layout.SPANS, layout.WATERMARKS)
"""What says when something was asked, and how often."""


class Killed:
    """Processes that pull the same feed into stores of their own."""

    def __init__(self, fake: FakeIys, url: str, time_file: Path) -> None:
        self.fake = fake
        self._url = url
        self._time_file = time_file

    def desk(self, path: Path) -> Desk:
        """Make a store that is complete up to where the feed begins."""
        desk = Desk(path)
        path.mkdir()
        with desk.writer() as writer:
            state = SourceState(name="seed", watermarks=((BRAND, int(self.fake.clock.now()) - 3 * DAY_S),))
            writer.apply(a_batch(brands=[a_brand(BRAND)]), state, finished=True)
        return desk

    def move(self, rows: int) -> None:
        """Let consents move, of which some cannot be loaded."""
        begin = self.fake.clock.now() - 2 * DAY_S
        first = len(self.fake.movements)
        for row in range(first, first + rows):
            self.fake.move(
                BRAND,
                FeedSource.IYS if row % 3 == 0 else FeedSource.HS,
                recipient="kimse" if row % 97 == 0 else f"+90532{row:07}",
                status="RET" if row % 7 == 0 else "ONAY",
                created_s=begin + row // 5,
            )

    def start(self, desk: Desk) -> subprocess.Popen[bytes]:
        """Begin to pull."""
        arguments = (str(desk.path), self._url, str(self._time_file), str(PAGE))
        program = (sys.executable, "-m", "tests.loader.sources.pull.puller")
        return subprocess.Popen([*program, *arguments], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})

    def kill(self, desk: Desk, dice: Random) -> None:
        """Begin to pull, and kill the process some moments after some request."""
        asked = len(self.fake.requests) + dice.randint(4, 12)
        with self.start(desk) as process:
            while not self.fake.until(lambda: len(self.fake.requests) >= asked, timeout_s=0.2):
                if process.poll() is not None:
                    break
            time.sleep(dice.uniform(0, 0.01))  # not for anything to happen, but for it to be any moment
            process.send_signal(signal.SIGKILL)

    def finish(self, desk: Desk) -> None:
        """Pull to the end."""
        pull(desk.path, self._url, self._time_file, PAGE)


@pytest.fixture(name="killed")
def _killed(tmp_path: Path) -> Iterator[Killed]:
    clock = SharedClock(tmp_path / "time")
    fake = FakeIys(clock=clock)
    fake.set_quirks(requests_per_s=None, tokens_per_hour=None)
    fake.provider(IYS_CODE, USERNAME, PASSWORD, brands=[BRAND])
    with fake.running() as url:
        yield Killed(fake, url, tmp_path / "time")


def same_as_undisturbed(killed: Killed, tmp_path: Path, kills: int) -> None:
    """Kill again and again, then pull to the end, and compare with a store for which nobody was killed."""
    dice = thrown()
    whole, torn = killed.desk(tmp_path / "whole"), killed.desk(tmp_path / "torn")
    seen = set()
    for _ in range(kills):
        killed.move(ROWS)
        killed.kill(torn, dice)
        seen.add(position(torn.store))
    killed.finish(torn)
    killed.finish(whole)

    with Store.open(whole.store) as one, Store.open(torn.store) as other:
        contents = [
            {name: values for name, values in content(store).items() if name not in OF_TIME} for store in (one, other)
        ]
    assert contents[0] == contents[1]
    assert len(seen) == kills
    assert rejects(torn) == rejects(whole)


def rejects(desk: Desk) -> list[str]:
    """What was rejected, each once, wherever it stood in what was read."""
    return sorted(str(entry | {"line": 0}) for entry in desk.rejected())


@pytest.mark.crash
def test_killed(killed: Killed, tmp_path: Path) -> None:
    """Killed a few times, it leaves the store that it would have left (case 27)."""
    same_as_undisturbed(killed, tmp_path, 2)


@pytest.mark.crash
@pytest.mark.thorough
def test_killed_often(killed: Killed, tmp_path: Path) -> None:
    """The same when it is killed sixty times (case 27)."""
    same_as_undisturbed(killed, tmp_path, 60)
