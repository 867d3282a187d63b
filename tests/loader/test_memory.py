"""How much memory is left, and what a load makes of it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import pytest

from iyscheck.store.snapshot import Store
from loader.loading.loader import Loader
from loader.loading.memory import FILL_NEEDS, commit_needs, memory_left
from loader.loading.options import FILL_BYTES, Options
from loader.sources.files.given import sources_of
from tests.builders import ADDRESS_KEY, NOW, STORE_KEY, content
from tests.loader.feeds import Desk, brand_row, consent, lines, watermark_row
from tests.processes import Site

MIB = 2**20
GROUP = "sys/fs/cgroup"


def machine(root: Path, **files: str) -> Path:
    """Write what the system says of memory; names have __ for / and the rest as it is."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


class TestLeft:
    """What is left is the least that the system and any group of ours have left."""

    def test_system(self, tmp_path: Path) -> None:
        """Without groups it is what the whole system has available."""
        root = machine(tmp_path, proc__meminfo="MemTotal: 9 kB\nMemAvailable:    2048 kB\n", proc__self__cgroup="")

        assert memory_left(root) == 2 * MIB

    def test_nobody_knows(self, tmp_path: Path) -> None:
        """Where nothing says how much there is, nothing is said."""
        assert memory_left(tmp_path) is None

    @pytest.mark.parametrize("inside", ["/a/b", "/"])
    def test_version_2(self, tmp_path: Path, inside: str) -> None:
        """A group's limit less what it uses, but for the cache that can be taken back: not files in memory."""
        root = machine(tmp_path, proc__meminfo="MemAvailable: 9999999 kB\n", proc__self__cgroup=f"0::{inside}\n")
        group = root / GROUP / inside.strip("/")
        group.mkdir(parents=True, exist_ok=True)
        for name, text in {
            "max": f"{100 * MIB}\n",
            "current": f"{70 * MIB}\n",
            "stat": f"anon 5\nfile {22 * MIB}\nshmem {2 * MIB}\n",
        }.items():
            (group / f"memory.{name}").write_text(text)

        assert memory_left(root) == 50 * MIB

    def test_group_above(self, tmp_path: Path) -> None:
        """A group without a limit of its own is bound by the one that it is in."""
        root = machine(tmp_path, proc__self__cgroup="0::/a/b\n")
        inner, outer = root / GROUP / "a/b", root / GROUP / "a"
        inner.mkdir(parents=True)
        (inner / "memory.max").write_text("max\n")
        (inner / "memory.current").write_text("7\n")
        (outer / "memory.max").write_text("100\n")
        (outer / "memory.current").write_text("60\n")

        assert memory_left(root) == 40

    def test_version_1(self, tmp_path: Path) -> None:
        """The older groups say it in files of other names; a path that is not here is that of the host."""
        root = machine(tmp_path, proc__self__cgroup="5:cpu:/x\n4:memory,hugetlb:/docker/1234\n0::/\n")
        group = root / GROUP / "memory"
        group.mkdir(parents=True)
        (group / "memory.limit_in_bytes").write_text("1000\n")
        (group / "memory.usage_in_bytes").write_text("1200\n")
        (group / "memory.stat").write_text("cache 1\ntotal_cache 300\n")

        assert memory_left(root) == 100

    def test_nothing_left(self, tmp_path: Path) -> None:
        """Less than nothing is nothing."""
        root = machine(tmp_path, proc__self__cgroup="0::/\n")
        (root / GROUP).mkdir(parents=True)
        (root / GROUP / "memory.max").write_text("10\n")
        (root / GROUP / "memory.current").write_text("60\n")

        assert memory_left(root) == 0

    def test_here(self) -> None:
        """On this machine it is known, and not nothing."""
        assert (memory_left() or 0) > 0


Loaded: TypeAlias = tuple[list[str], list[bool], dict[bytes, list[tuple[bytes, object]]]]

FEED = [brand_row(), *(consent(1, f"+90532{number:07}") for number in range(40)), watermark_row()]


def load(folder: Path, left: int | None, commit_rows: int = 10) -> Loaded:
    """Load a feed that is large enough to be sorted; give what was told, which steps were durable, and the store."""
    folder.mkdir()
    feed = folder / "feed.jsonl"
    feed.write_bytes(lines(FEED))
    told: list[str] = []
    durable: list[bool] = []
    desk = Desk(folder)
    with desk.writer() as writer:
        Loader(
            writer,
            address_key=ADDRESS_KEY,
            store_key=STORE_KEY,
            options=Options(rejects=folder / "rejects", fill_bytes=1, commit_rows=commit_rows, memory=left),
            clock=lambda: NOW,
            watch=lambda progress: durable.append(progress.durable),
            tell=told.append,
        ).load(sources_of([str(feed)]))
    with Store.open(desk.store) as store:
        held = dict(content(store))
    del held[b"sources"]  # which name the folder
    return told, durable, held


def test_which_way(tmp_path: Path) -> None:
    """A first source is sorted where there is the memory for it; else it is committed as it comes, and said before."""
    sorted_told, sorted_steps, sorted_store = load(tmp_path / "much", FILL_NEEDS)
    told, steps, store = load(tmp_path / "little", FILL_NEEDS - 1)
    unknown_told, unknown_steps, _ = load(tmp_path / "unknown", None)

    assert (sorted_told, unknown_told) == ([], [])
    assert sorted_steps == unknown_steps == [False] * 6 + [True]
    assert " ".join(told) == (
        "749 MiB of memory are left. Sorting a first source may take 750, so it is loaded in commits, "
        "which takes about four times as long."
    )
    assert steps == [True] * 5
    assert store == sorted_store


def test_too_little(tmp_path: Path) -> None:
    """Where not even commits may have room, it is said before, with what to lower."""
    enough, *_ = load(tmp_path / "enough", commit_needs(10))
    told, *_ = load(tmp_path / "little", commit_needs(10) - 1)

    assert len(enough) == 1
    assert " ".join(told[1:]) == (
        "200 MiB of memory are left. Commits of 10 rows may take 200, and who takes too much is killed. "
        "Lower --commit-rows if that happens."
    )


@contextmanager
def group(limit: int) -> Iterator[Path]:
    """A control group with so much memory; says aloud where none can be made."""
    mounts = ((Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"), (Path("/sys/fs/cgroup"), "memory.max"))
    made = None
    for mount, file in mounts:
        made = mount / f"iyscheck-test-{os.getpid()}"
        with suppress(OSError):
            made.mkdir()
            (made / file).write_text(str(limit))
            break
        with suppress(OSError):
            made.rmdir()
    else:
        pytest.skip("only root with control groups of its own may limit a loader's memory")
    try:
        yield made
    finally:
        made.rmdir()


def test_in_a_group(tmp_path: Path) -> None:
    """A loader in a small control group says that it will be slower, and loads what would have been sorted."""
    site = Site.make(tmp_path)
    rows = [json.dumps(consent(1, f"+90532{number:07}")) for number in range(60_000)]
    feed = site.feed("feed.jsonl", [brand_row(), *rows])
    assert feed.stat().st_size > FILL_BYTES
    with group(600 * MIB) as limited:
        command = (
            f"echo $$ > {limited}/cgroup.procs && exec {sys.executable} -m loader load {feed} {' '.join(site.flags)}"
        )
        done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False, timeout=120)

    assert done.returncode == 0, done.stderr
    assert "MiB of memory are left. Sorting a first source may take 750, so it is loaded in commits" in done.stderr
    assert "60,000 applied" in done.stdout
