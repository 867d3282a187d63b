import os
from pathlib import Path

import pytest

from iyscheck.server.processes.cores import usable_cores

UNLIMITED = {"cpu.max": "max 100000\n"}


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of eight cores, all of which the affinity allows."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def groups(folder: Path, membership: str, files: dict[str, str]) -> dict[str, Path]:
    """Make a file system of control groups."""
    (folder / "membership").write_text(membership)
    for name, text in files.items():
        path = folder / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return {"membership": folder / "membership", "groups": folder / "groups"}


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "300000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "1600000 100000\n"}, 8),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "600000 100000\n"}, 4),
        ("3:cpu,cpuacct:/x\n", {"cpu/x/cpu.cfs_quota_us": "250000\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, 3),
        ("3:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, 8),
        ("3:cpuset:/\n0::/\n", {"cpu.max": "nonsense\n"}, 8),
        ("3:cpuset:/x\n4:cpu:/y\n", {"cpu/x/cpu.cfs_quota_us": "100000\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, 8),
        ("0::/a\n", {"../cpu.max": "100000 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "0 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "100000 0\n"}, 8),
    ],
)  # fmt: skip - a table
def test_quota(tmp_path: Path, membership: str, files: dict[str, str], cores: int) -> None:
    """The tightest quota of a group or one around it counts, in either version; a part of a core is one."""
    assert usable_cores(**groups(tmp_path, membership, files)) == cores


def test_affinity(tmp_path: Path) -> None:
    """Cores that the process may not run on do not count."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert usable_cores(**groups(tmp_path, "", {})) == 1
    finally:
        os.sched_setaffinity(0, before)


def test_no_control_groups(tmp_path: Path) -> None:
    """Where there are none, the affinity alone counts."""
    nowhere = tmp_path / "nowhere"

    assert usable_cores(membership=nowhere, groups=nowhere) == len(os.sched_getaffinity(0))
