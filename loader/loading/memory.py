"""How much memory a load may take: what the system and its control groups have left.

Who takes more than its control group allows is killed, without a word, and a first source that was being sorted
begins again from nothing.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

FILL_NEEDS: Final = 750 * 2**20
"""What sorting a first source and writing it in one transaction takes at most.

LMDB keeps up to 512 MiB of pages that are not written yet. Measured with 719 MB of feed, which fill 281 MB: goes on in
a control group of 512 MiB, and is killed in one of 480.
"""
COMMIT_BYTES: Final = 200 * 2**20
"""What loading takes beside the rows of a commit."""
COMMIT_ROW_BYTES: Final = 4 * 2**10
"""What a row of a commit takes: a page of the store, which it may have for itself.

Measured with 300 MB of feed: commits of 50,000 rows go on in 350 MiB, and of 10,000 in 250.
"""


def memory_left(root: Path = Path("/")) -> int | None:
    """Say how many bytes this process may still take; None where nobody says. `root` is where /proc and /sys are."""
    return min((left for left in _all_left(root) if left is not None), default=None)


def commit_needs(rows: int) -> int:
    """Say how many bytes commits of so many rows may take."""
    return COMMIT_BYTES + rows * COMMIT_ROW_BYTES


def _all_left(root: Path) -> Iterator[int | None]:
    yield _available(root)
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield from _groups(root / "sys/fs/cgroup", path, "memory.max", "memory.current", ("file", "shmem"))
        elif "memory" in controllers.split(","):
            cache = ("total_cache", "total_shmem")
            mount = root / "sys/fs/cgroup/memory"
            yield from _groups(mount, path, "memory.limit_in_bytes", "memory.usage_in_bytes", cache)


def _available(root: Path) -> int | None:
    """What the whole system has left."""
    for line in _text(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def _groups(mount: Path, path: str, limit: str, usage: str, cache: tuple[str, str]) -> Iterator[int | None]:
    """Say what a control group has left, and each that it is in. Inside a container its own is at the top."""
    group = mount / path.lstrip("/")
    for each in (group, *group.parents):
        yield _left(each, limit, usage, cache)
        if each == mount:
            return
    yield _left(mount, limit, usage, cache)


def _left(group: Path, limit: str, usage: str, cache: tuple[str, str]) -> int | None:
    """Say what a group has left. Its cache can be taken back, but for what is in memory only (tmpfs)."""
    most, used = _text(group / limit).strip(), _text(group / usage).strip()
    if not most.isdecimal() or not used.isdecimal():  # "max", or no such group here
        return None
    facts = dict(line.split(maxsplit=1) for line in _text(group / "memory.stat").splitlines() if " " in line)
    cached, kept = (int(facts[name]) if facts.get(name, "").strip().isdecimal() else 0 for name in cache)
    return max(int(most) - int(used) + max(cached - kept, 0), 0)


def _text(path: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text()
    return ""
