"""How many cores this process may use: what its affinity and its control group leave of the machine."""

import math
import os
from pathlib import Path
from typing import Final

_MEMBERSHIP: Final = Path("/proc/self/cgroup")
_GROUPS: Final = Path("/sys/fs/cgroup")


def usable_cores(*, membership: Path = _MEMBERSHIP, groups: Path = _GROUPS) -> int:
    """Count the cores this process may use; part of a core that a quota allows counts as one."""
    cores = len(os.sched_getaffinity(0))
    shares = [share for place in _places(membership, groups) if (share := _share(place)) is not None]
    return max(1, min(cores, *map(math.ceil, shares))) if shares else cores


def _places(membership: Path, groups: Path) -> list[Path]:
    """List the directories of this process's control groups and of all groups around them, of both versions."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    places = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = groups / "cpu" if controllers else groups  # version 2 names no controllers
        inner = root / path.lstrip("/")
        places += [inner, *(outer for outer in inner.parents if outer.is_relative_to(root))]
    return places


def _share(place: Path) -> float | None:
    """Return how many cores' time one group may use, None where it has no limit."""
    try:
        quota, period = (place / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((place / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        except OSError:
            return None
    return int(quota) / int(period) if quota.isdecimal() and int(period) else None  # "max" and -1: none
