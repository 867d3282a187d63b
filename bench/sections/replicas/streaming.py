"""A real log in NATS: how fast a replica that is far behind comes back, and how late replicas are that follow."""

import shutil
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import numpy as np

from bench import product
from bench.arrivals import percentiles
from bench.measures import Row, Run, Section
from bench.nats import nats
from bench.processes import HERE, Remote, running, serving
from bench.sections.loading import timed
from bench.sections.replicas.parts import key_flags, loader, primary_of, replica_of, wait
from bench.session import Session, only_command, peer, short

NAME = "replicas-stream"
ROWS = 5_000
FOLLOWERS = 4
CHANGES_PER_S = 5_000
COMMITS_PER_S = 5


def measure(session: Session) -> Section:
    """Measure with one server of NATS and with three, all on this machine."""
    section = session.section(NAME)
    for servers in (1, 3):
        if not peer(section, f"NATS, {servers}", lambda servers=servers: _catch_up(session, section, servers)):  # type: ignore[misc] # mypy knows no defaults of lambdas
            return section
        _lag(session, section, servers)
        for folder in session.folder.glob(f"{NAME}-*"):  # copies of the largest store
            shutil.rmtree(folder)
    return section


def _catch_up(session: Session, section: Section, servers: int) -> None:
    """Publish a backlog, then start the replica's process and see when how much is in its store."""
    size, folder = session.plan.largest, session.clean(f"{NAME}-behind-{servers}")
    batches = 100 if session.plan.kind != "quick" else 20
    primary = primary_of(session, size, folder)
    begun = replica_of(primary, folder, "begun")
    keys, cores = session.stores.keys, session.cores
    with (
        nats(folder, servers=servers, cores=cores, keys=keys, snapshots="") as log,
        session.remote(
            "bench.replication:Loading",
            {"store": str(primary), "keys": session.keys, "consents": size, "primary": True},
            core=cores[0],
        ) as writer,
    ):
        _create(primary, keys, log.cluster, servers, cores)
        made = [writer.call("timed", size=ROWS, number=number) for number in range(1, batches + 1)]
        newest = int(made[-1]["batch"])
        started = time.monotonic()
        with running(loader(primary, log.cluster, "publish"), core=cores, log=folder / "publish.log"):
            published = wait("everything is published", lambda: _acknowledged(primary) >= newest) - started
        behind, whole = [], []
        for _ in range(min(3, session.plan.rounds)):
            replica = replica_of(begun, folder, "replica")
            arguments = {"stores": [str(replica)]}
            with session.remote("bench.replication:Watching", arguments, core=cores) as watcher:
                watcher.send("until", batch=newest, seconds=900.0)
                started_at = time.time()
                command = loader(replica, log.cluster, "replicate")
                with running(command, core=cores, log=folder / "replicate.log"):
                    seen = np.array(watcher.receive()["seen"]).reshape(-1, 2)
            moved = (seen[-1] - seen[0]).tolist()
            behind.append(Run(moved[0] * ROWS / moved[1]))
            whole.append(Run(batches * ROWS / (float(seen[-1][1]) - started_at)))
    what, setting = f"R{servers}, {short(size)}", {"consents": size, "rows": batches * ROWS, "changes_per_commit": ROWS}
    command_again = only_command(NAME)
    commits = [Run(ROWS / each["seconds"]) for each in made]
    middle = [Run(float(np.median([run.value for run in commits])))] * len(behind)
    section.measure(f"commits at the primary, {what}", "rows/s", middle, command_again, **setting)
    section.measure(f"published, {what}", "rows/s", [Run(batches * ROWS / published)], command_again, **setting)
    section.measure(f"catching up, {what}", "rows/s", behind, command_again, **setting)
    section.measure(f"catching up, start of the process included, {what}", "rows/s", whole, command_again, **setting)
    section.rows += [
        Row(name=f"Catching up, {what}", ours=f"catching up, {what}", unit="rows/s"),
        Row(name=f"Publishing a backlog, {what}", ours=f"published, {what}", unit="rows/s"),
        Row(
            name=f"Catching up ÷ commits at the primary, {what}",
            ours=f"catching up, {what}",
            peer=f"commits at the primary, {what}",
        ),
    ]


def _lag(session: Session, section: Section, servers: int) -> None:
    """Commit 1,000 changes five times a second; see in each replica's file when they are there."""
    size, folder = session.plan.sizes[0], session.clean(f"{NAME}-lag-{servers}")
    commits = int(COMMITS_PER_S * (120 if session.plan.kind != "quick" else 20))
    primary = primary_of(session, size, folder)
    replicas = [replica_of(primary, folder, f"replica-{number}") for number in range(FOLLOWERS)]
    keys, cores = session.stores.keys, session.cores
    arguments = {"store": str(primary), "keys": session.keys, "consents": size, "primary": True}
    with ExitStack() as parts:
        enter = parts.enter_context
        log = enter(nats(folder, servers=servers, cores=cores, keys=keys, snapshots=""))
        _create(primary, keys, log.cluster, servers, cores)
        writer = enter(session.remote("bench.replication:Loading", arguments, core=cores))
        enter(running(loader(primary, log.cluster, "publish"), core=cores, log=folder / "publish.log"))
        for replica in replicas:
            command = loader(replica, log.cluster, "replicate")
            enter(running(command, core=cores, log=folder / f"{replica.name}.log"))
        serve = HERE.command(*product.serve_arguments(replicas[0], keys))
        server = enter(serving(serve, core=cores, log=folder / "serve.log"))
        stores = {"stores": [str(each) for each in replicas]}
        watcher = enter(session.remote("bench.replication:Watching", stores, core=cores))
        _once(writer, watcher)
        first = int(writer.call("state")["batch"]) + 1
        watcher.send("until", batch=first + commits - 1, seconds=commits / COMMITS_PER_S + 60.0)
        timing = {"size": CHANGES_PER_S // COMMITS_PER_S, "first": 2, "commits": commits}
        writer.send("paced", every_s=1 / COMMITS_PER_S, **timing)
        gauge = _scraped(server.metrics, commits / COMMITS_PER_S)
        made, seen = writer.receive(), watcher.receive()["seen"]
    batches, ats = (cast("list[float]", made[name]) for name in ("batches", "ats"))
    committed = dict(zip(batches, ats, strict=True))
    lags = np.concatenate([_late(committed, pairs) for pairs in cast("list[list[float]]", seen)])
    _keep_lag(section, lags, gauge, commits, size, servers)


def _once(writer: Remote, watcher: Remote) -> None:
    """Let one batch through, so that everybody has started."""
    batch = int(writer.call("timed", size=10, number=1)["batch"])
    watcher.call("until", batch=batch, seconds=120.0)


def _late(committed: dict[float, float], pairs: list[float]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Return for each batch how long after its commit it was seen; a group is seen with its newest batch."""
    late = []
    due = iter(sorted(committed))
    waiting = next(due, None)
    for batch, at in np.array(pairs).reshape(-1, 2).tolist():
        while waiting is not None and waiting <= batch:
            late.append(at - committed[waiting])
            waiting = next(due, None)
    return np.array(late)


def _scraped(metrics: str, seconds: float) -> list[float]:
    """Ask a server's metrics twice a second how late its replica is."""
    found, deadline = [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        found += [float(line.split()[-1]) for line in lines if line.startswith("consent_replica_lag_seconds")]
        time.sleep(0.5)
    return found


def _keep_lag(
    section: Section,
    lags: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    gauge: list[float],
    commits: int,
    size: int,
    servers: int,
) -> None:  # fmt: skip - one line
    what = f"R{servers}, {FOLLOWERS} followers, {short(size)}"
    setting = {"consents": size, "changes_per_s": CHANGES_PER_S, "commits": commits, "followers": FOLLOWERS}
    seen = f"commit until it is in a replica's file, {what}"
    late = percentiles(lags)
    run = Run(float(np.median(lags)) * 1e3, late, asked=commits * FOLLOWERS)
    missing = commits * FOLLOWERS - len(lags)
    if missing:
        section.notes.append(f"{what}: {missing} of {commits * FOLLOWERS} batches were not seen in time")
    section.measure(seen, "ms", [run], only_command(NAME), **setting, longest=f"{lags.max() * 1e3:.0f} ms")
    section.rows += [
        Row(name=f"{of} of a commit until it is in a replica, {what}", ours=seen, of=of, unit="ms")
        for of in ("p50", "p99")
    ]
    if gauge:
        told = f"lag as a server tells it, {what}"
        run = Run(float(np.median(gauge)) * 1e3, percentiles(np.array(gauge)))
        section.measure(told, "ms", [run], only_command(NAME), **setting, scrapes=len(gauge))
        section.rows.append(Row(name=f"p99 of the lag as a server tells it, {what}", ours=told, of="p99", unit="ms"))


def _create(primary: Path, keys: Path, cluster: Path, servers: int, cores: tuple[int, int]) -> None:
    """Make the stream."""
    arguments = [*key_flags(keys), f"--replicas={servers}", "--kept-gb=10", "--json"]
    timed(loader(primary, cluster, "create-log", *arguments), cores)


def _acknowledged(store: Path) -> int:
    file = store / "acknowledged"
    return int.from_bytes(file.read_bytes()) if file.exists() else 0
