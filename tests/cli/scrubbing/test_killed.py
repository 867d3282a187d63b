import subprocess
import sys
from pathlib import Path

import pytest

from tests.dice import often, thrown

ROOT = Path(__file__).parents[3]


@pytest.mark.crash
def test_killed(tmp_path: Path) -> None:
    """Killed at every call that changes a file, or by chance again and again: what comes out is the same bytes."""
    dice, times = thrown(), str(often(60, least=6))
    done = subprocess.run(
        [sys.executable, "-m", "tests.cli.scrubbing.killed", tmp_path, str(dice.randrange(10**9)), times],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    calls, kills = map(int, done.stdout.split())
    assert calls > 30
    assert kills > calls
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert sorted(whole) == ["list.csv.izinli.csv", "list.csv.izinsiz.csv", "list.csv.okunamayan.csv"]
    for folder in tmp_path.iterdir():
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole, folder.name
        assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
