"""What a log costs who loads: the same loads into a store that is in no log, and into the primary of one."""

import resource
import shutil
from collections.abc import Sequence
from functools import partial
from itertools import count
from pathlib import Path

from bench import product, replication
from bench.feed import write_changes
from bench.measures import Row, Run, Section, alternate
from bench.nats import cluster_file
from bench.processes import HERE
from bench.sections.loading import make_feed, timed
from bench.sections.replicas.parts import copy_of, primary_of
from bench.session import Session, only_command, short

NAME = "replicas-outbox"
COMMITS = (5_000, 50_000)
FILL = 1_000_000
_LEAST = 0.9
_SIDES = ("in no log", "primary")


def measure(session: Session) -> Section:
    """Alternate both: whole processes of the loader, a first fill among them, and commits of the largest store."""
    section = session.section(NAME)
    folder = session.clean(NAME)
    session.stores.store(session.plan.sizes[0])  # and the keys
    replication.make_log_keys(session.stores.keys)
    cluster = cluster_file(folder / "cluster.toml", ["nats://127.0.0.1:4222"], session.stores.keys)
    _loads(session, section, folder, cluster)
    _fills(session, section, folder, cluster)
    _commits(session, section, folder)
    shutil.rmtree(folder)
    return section


def _loads(session: Session, section: Section, folder: Path, cluster: Path) -> None:
    """Load files of changes into kept stores of the smallest size: a round is one file, the same for both."""
    size = session.plan.sizes[0]
    primary = primary_of(session, size, folder)
    alone = copy_of(session.stores.store(size), folder / "alone")
    files = count(1)  # seconds, too, that each is newer than the one before
    for commit in COMMITS:
        rows = 4 * commit
        runs: dict[str, list[tuple[float, float]]] = {side: [] for side in _SIDES}
        for number in range(session.plan.rounds + 1):
            feed = write_changes(folder / f"changes-{commit}-{number}.jsonl", size, next(files), rows)
            for side in _SIDES[:: 1 if number % 2 else -1]:
                store = primary if side == "primary" else alone
                run = _load(session, store, cluster, [str(feed), f"--commit-rows={commit}"])
                if number:  # the first warms up
                    runs[side].append(run)
            feed.unlink()
        _keep(
            section, f"load, {commit:,} a commit, {short(size)}", runs, rows, consents=size, changes_per_commit=commit
        )


def _fills(session: Session, section: Section, folder: Path, cluster: Path) -> None:
    """Fill an empty store, and one that is the primary already."""
    feed, rows = make_feed(folder, FILL if session.plan.kind != "quick" else FILL // 5)

    def fill(side: str) -> Run:
        store = folder / "filled"
        shutil.rmtree(store, ignore_errors=True)
        shutil.rmtree(folder / "filled.rejects", ignore_errors=True)
        if side == "primary":
            replication.make_primary(store, session.stores.keys, settings=str(cluster))
        else:  # a store that is there already is filled more slowly than one that is not
            replication.make_empty(store, session.stores.keys)
        runs[side].append(_load(session, store, cluster, [str(feed)]))
        return Run(runs[side][-1][0])

    runs: dict[str, list[tuple[float, float]]] = {side: [] for side in _SIDES}
    alternate(session.plan.rounds, {side: partial(fill, side) for side in _SIDES})
    _keep(section, "first fill", runs, rows)


def _load(session: Session, store: Path, cluster: Path, arguments: Sequence[str]) -> tuple[float, float]:
    """Load as an operator does; seconds of the whole process, and of processors."""
    files = product.loader_arguments(store, session.stores.keys, "load", *arguments, "--json")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = ["/usr/bin/env", f"IYSCHECK_CLUSTER={cluster}", *HERE.command(*files)]
    seconds, _ = timed(command, session.cores)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _commits(session: Session, section: Section, folder: Path) -> None:
    """Commit the same changes to both, in process: nothing of the loader's other work is in it."""
    size = session.plan.largest
    shutil.rmtree(folder / "primary")
    primary = primary_of(session, size, folder)
    alone = copy_of(session.stores.store(size), folder / "alone")
    arguments = {"keys": session.keys, "consents": size}
    name, core = "bench.replication:Loading", session.cores[0]
    with (
        session.remote(name, {"store": str(alone), "primary": False} | arguments, core=core) as without,
        session.remote(name, {"store": str(primary), "primary": True} | arguments, core=core) as within,
    ):
        sides, number = dict(zip(_SIDES, (without, within), strict=True)), 0
        for commit in COMMITS:
            runs: dict[str, list[tuple[float, float]]] = {side: [] for side in _SIDES}
            for again in range(2 * session.plan.rounds + 1):
                number += 1
                for side in _SIDES[:: 1 if again % 2 else -1]:
                    done = sides[side].call("timed", size=commit, number=number)
                    if again:
                        runs[side].append((done["seconds"], done["processor_s"]))
            what = f"Writer.apply, {commit:,} a commit, {short(size)}"
            _keep(section, what, runs, commit, bound=False, consents=size, changes_per_commit=commit)


def _keep(
    section: Section,
    what: str,
    runs: dict[str, list[tuple[float, float]]],
    rows: int,
    *,
    bound: bool = True,
    **setting: int,
) -> None:  # fmt: skip - one line
    command = only_command(NAME)
    for at, (by, unit) in enumerate((("", "rows/s"), (", by processor time", "rows/processor s"))):
        for side in _SIDES:
            taken = [Run(rows / run[at]) for run in runs[side]]
            section.measure(f"{what}, {side}{by}", unit, taken, command, rows=rows, **setting)
        section.rows.append(
            Row(
                name=f"{what}{by}: primary ÷ in no log",
                ours=f"{what}, primary{by}",
                peer=f"{what}, in no log{by}",
                at_least=_LEAST if bound else None,
            )
        )
