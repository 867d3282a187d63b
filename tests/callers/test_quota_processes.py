"""Rates shared by real processes, some of which are killed."""

import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iyscheck.callers.table import Table
from tests.callers.asking import WORDS

ROOT = Path(__file__).parent.parent.parent
RATE = 50_000


class Asking:
    """One process of asking.py."""

    def __init__(self, folder: Path, name: str, *, seconds: float, size: int) -> None:
        self.count = folder / name
        command = [sys.executable, str(Path(__file__).with_name("asking.py")), str(folder / "table"), str(self.count)]
        self.process = subprocess.Popen(
            [*command, str(RATE), str(seconds), str(size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT)},
        )

    def go(self) -> None:
        """Wait until it can begin, and let it."""
        assert self.process.stdout is not None
        assert self.process.stdin is not None
        assert self.process.stdout.readline() == b"ready\n"
        self.process.stdin.write(b"\n")
        self.process.stdin.close()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        assert self.process.wait() == -signal.SIGKILL

    def result(self) -> tuple[int, int, int]:
        """Wait for its end; give what it took, and its first and last moment."""
        self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        taken, first, last = struct.unpack(f"{WORDS}q", self.count.read_bytes())
        return taken, first, last


def share_of_allowed(results: list[tuple[int, int, int]]) -> float:
    """Divide what all took by what a bucket gives in the time that passed from the first moment to the last."""
    begin, end = min(first for _, first, _ in results if first), max(last for _, _, last in results)
    return sum(taken for taken, _, _ in results) / (RATE * ((end - begin) / 1e9 + 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "sizes",
    [
        (1,),
        pytest.param((1, 1), marks=pytest.mark.thorough),
        (1, 1_000),
        pytest.param((1_000, 10_000), marks=pytest.mark.thorough),
    ],
    ids=str,
)
def test_together(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    """One or two processes, by singles and by frames, get all of the rate and never more."""
    asking = [Asking(tmp_path, f"count-{at}", seconds=3, size=size) for at, size in enumerate(sizes)]
    for each in asking:
        each.go()

    share = share_of_allowed([each.result() for each in asking])

    assert 0.95 <= share <= 1 + 1e-3


@pytest.mark.slow
@pytest.mark.crash
def test_killed(tmp_path: Path) -> None:
    """While others are killed again and again, one process goes on, and all together get no more than the rate."""
    steady = Asking(tmp_path, "steady", seconds=4, size=50)
    victims = [Asking(tmp_path, f"victim-{at}", seconds=60, size=1) for at in range(8)]
    steady.go()
    for victim in victims:
        victim.go()
        time.sleep(0.1)  # not to wait for something: to be in the middle of asking
        victim.kill()

    results = [each.result() for each in (steady, *victims)]

    assert 0.85 <= share_of_allowed(results) <= 1 + 1e-3
    assert results[0][0] > 0


@pytest.mark.crash
def test_killed_with_the_lock(tmp_path: Path) -> None:
    """A process that dies while it holds the lock of a caller leaves nobody waiting."""
    code = """
import sys, time
from iyscheck.callers.table import Table
table = Table.open(sys.argv[1])
with table.locked(table.number("acme", exempt=False)):
    print("held", flush=True)
    time.sleep(600)
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "table")],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    other = Asking(tmp_path, "other", seconds=1, size=1)
    other.go()
    time.sleep(0.5)
    waiting = struct.unpack(f"{WORDS}q", other.count.read_bytes())[0]

    holder.kill()
    holder.wait()
    holder.stdout.close()
    taken, _, _ = other.result()

    assert waiting == 0
    assert taken > 0
    table = Table.open(tmp_path / "table")
    assert table.sold(table.number("acme", exempt=False)) > 0
    table.close()
