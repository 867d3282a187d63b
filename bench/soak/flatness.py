"""Whether what processes and disks hold stays the same over a run, though processes come and go.

Two things are compared. *Over the run*: processes of the same role and about the same age, in the second quarter of
the run and in the last one; what a server leaves behind for the next one shows there. *Over a life*: the second
quarter of one process's life and its last; what a process leaks shows there, if it lives for a minute. The first
quarter warms up. Samples are taken while no fault is on and everybody is answered.
"""

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

YOUNG_S: Final = 15.0
"""Younger processes are still taking what they will have: modules, loops, threads, the first connections."""
_AGES_S: Final = (60.0, 180.0, 600.0, 1_800.0)
_LEAST_SAMPLES: Final = 5
_LIFE_S: Final = 60.0

BOUNDS: Final = {
    # Python's and gRPC's allocators keep what a burst of calls took. In 6.5 minutes and 2.5 million checks without
    # other faults than killed loaders one of two workers went from 83 to 95 MB, and stayed there from the fourth minute
    # on: quarters differ by up to 8 MB. A leak of twenty bytes a check would have been 25 MB.
    "memory": 16.0,
    # A connection of each caller may be at one worker in one quarter, at the other in the next one.
    "descriptors": 24.0,
    # All threads are started beforehand, but for those of gRPC's core, of which it keeps one to three for each core.
    "threads": 6.0,
}
BOUND_AFTER_RESETS: Final = 300.0
"""Megabytes more in workers that were flooded with resets. `docs/operating.md` tells of 200; the floods here last about
as long, and there may be two of them in one life."""
STORE_BOUND: Final = 0.5
"""The part by which the store's file may grow: the recipients stay the same, but a stopped or killed worker keeps the
pages of the state that it was reading, and the file never shrinks again."""
FILES_BOUND: Final = 4.0
"""Files in the temporary folder: counters and sockets of a worker more or less, at the moment when it is looked."""
_FIGURES: Final = ("memory", "descriptors", "threads")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one process holds: megabytes of its own, descriptors, threads."""

    at_s: float
    role: str
    pid: int
    age_s: float
    memory: float
    descriptors: float
    threads: float
    flooded: bool = False
    """Whether it has lived through a flood of resets."""

    def figure(self, name: str) -> float:
        """Return one of the three."""
        return float(getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """What the disks hold: bytes of the store's file, files in the temporary folder."""

    at_s: float
    store_bytes: float
    files: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """One comparison; None where there was too little to compare."""

    what: str
    before: float | None = None
    after: float | None = None
    bound: float
    unit: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether it stayed within its bound; None if nobody can tell."""
        if self.before is None or self.after is None:
            return None
        return self.after - self.before <= self.bound


def sample(pid: int, role: str, at_s: float, *, flooded: bool) -> Sample | None:
    """Look at a process; None if it has just ended."""
    folder = Path(f"/proc/{pid}")
    with suppress(OSError, KeyError, IndexError):
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        started = int((folder / "stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return Sample(
            at_s=at_s,
            role=role,
            pid=pid,
            age_s=time.clock_gettime(time.CLOCK_BOOTTIME) - started,
            memory=int(status["RssAnon"].split()[0]) / 1024,
            descriptors=sum(1 for _ in (folder / "fd").iterdir()),
            threads=int(status["Threads"]),
            flooded=flooded,
        )
    return None


def growths(samples: Sequence[Sample], folders: Sequence[Folders]) -> list[Growth]:
    """Compare everything that is to stay the same."""
    found = []
    for role in ("supervisor", "worker"):
        own = [each for each in samples if each.role == role and each.age_s >= YOUNG_S]
        calm = [each for each in own if not each.flooded]
        for name in _FIGURES:
            unit = "MB" if name == "memory" else ""
            found += [
                _over_run(f"{name} of {role}s, over the run", calm, name, unit),
                _over_lives(f"{name} of {role}s, over a life", calm, name, unit),
            ]
    workers = [each for each in samples if each.role == "worker" and each.age_s >= YOUNG_S]
    found.append(_after_floods(workers))
    found += _of_folders(folders)
    return found


def _of_folders(folders: Sequence[Folders]) -> list[Growth]:
    store = _quarters([(each.at_s, each.store_bytes / 2**20) for each in folders])
    files = _quarters([(each.at_s, each.files) for each in folders])
    return [
        _growth("file of the store", store, STORE_BOUND * (store[0] if store else 0.0), "MB"),
        _growth("files in the temporary folder", files, FILES_BOUND),
    ]


def _over_run(what: str, samples: Iterable[Sample], name: str, unit: str) -> Growth:
    """Compare processes of about one age; the age at which they differ most counts."""
    by_age: dict[int, list[tuple[float, float]]] = defaultdict(list)
    all_of = list(samples)
    for each in all_of:
        by_age[sum(each.age_s >= limit for limit in _AGES_S)].append((each.at_s, each.figure(name)))
    span = _span([each.at_s for each in all_of])
    pairs = [pair for points in by_age.values() if (pair := _quarters(points, span)) is not None]
    return _growth(what, max(pairs, key=lambda pair: pair[1] - pair[0], default=None), BOUNDS[name], unit)


def _over_lives(what: str, samples: Iterable[Sample], name: str, unit: str) -> Growth:
    """Compare each process with itself; of several the one in the middle counts, since a leak shows in all."""
    by_pid: dict[int, list[Sample]] = defaultdict(list)
    for each in samples:
        by_pid[each.pid].append(each)
    pairs = []
    for lived in by_pid.values():
        begin, end = _span([each.age_s for each in lived])
        pair = _quarters([(each.age_s, each.figure(name)) for each in lived])
        if pair is not None and end - begin >= _LIFE_S:
            pairs.append(pair)
    pairs.sort(key=lambda pair: pair[1] - pair[0])
    return _growth(what, pairs[len(pairs) // 2] if pairs else None, BOUNDS[name], unit)


def _after_floods(workers: Iterable[Sample]) -> Growth:
    calm = [each.memory for each in workers if not each.flooded]
    flooded = [each.memory for each in workers if each.flooded]
    enough = min(len(calm), len(flooded)) >= _LEAST_SAMPLES
    pair = (median(calm), max(flooded)) if enough else None
    return _growth("memory of workers, after floods of resets", pair, BOUND_AFTER_RESETS, "MB")


def _growth(what: str, pair: tuple[float, float] | None, bound: float, unit: str = "") -> Growth:
    before, after = pair or (None, None)
    return Growth(what=what, before=before, after=after, bound=bound, unit=unit)


def _quarters(
    points: Sequence[tuple[float, float]], span: tuple[float, float] | None = None
) -> tuple[float, float] | None:
    """Return the medians of the second quarter of a time and of its last one; None if there is too little in one."""
    begin, end = span or _span([at for at, _ in points])
    quarter = (end - begin) / 4
    second = [value for at, value in points if begin + quarter <= at < begin + 2 * quarter]
    last = [value for at, value in points if begin + 3 * quarter <= at]
    if min(len(second), len(last)) < _LEAST_SAMPLES:
        return None
    return median(second), median(last)


def _span(times: Sequence[float]) -> tuple[float, float]:
    return (min(times), max(times)) if times else (0.0, 0.0)
