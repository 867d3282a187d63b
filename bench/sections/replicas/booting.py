"""From nothing to a fresh replica: a snapshot is made, taken, caught up with the log, and followed."""

import json
import shutil
import time

from bench.measures import Row, Run, Section
from bench.nats import nats
from bench.processes import running
from bench.replication import age_s
from bench.sections.loading import timed
from bench.sections.replicas.parts import key_flags, loader, primary_of, wait
from bench.session import Session, only_command, peer, short

NAME = "replicas-boot"
ROWS = 5_000
BEHIND = 60
"""Batches of 5,000 made after the snapshot: a minute at 5,000 changes a second."""
FRESH_S = 5.0


def measure(session: Session) -> Section:
    """Boot from a directory at each size, and from a bucket of NATS at the smallest, while the primary goes on."""
    section = session.section(NAME)
    for size in session.plan.sizes:
        for place in ("directory", "bucket") if size == session.plan.sizes[0] else ("directory",):
            if not peer(section, "NATS", lambda size=size, place=place: _boot(session, section, size, place)):  # type: ignore[misc] # mypy knows no defaults of lambdas
                return section
    return section


def _boot(session: Session, section: Section, size: int, place: str) -> None:
    folder = session.clean(f"{NAME}-{place}-{size}")
    primary = primary_of(session, size, folder)
    keys, cores = session.stores.keys, session.cores
    snapshots = f'directory = "{folder / "snapshots"}"' if place == "directory" else 'bucket = "SNAPSHOTS"'
    (folder / "snapshots").mkdir()
    arguments = {"store": str(primary), "keys": session.keys, "consents": size, "primary": True}
    what = f"{short(size)}, {place}"
    found: dict[str, float] = {}
    with (
        nats(folder, servers=1, cores=cores, keys=keys, snapshots=snapshots) as log,
        session.remote("bench.replication:Loading", arguments, core=cores) as writer,
    ):
        timed(loader(primary, log.cluster, "create-log", *key_flags(keys), "--replicas=1", "--kept-gb=10"), cores)
        found["made"], said = timed(loader(primary, log.cluster, "snapshot", "--json"), cores)
        sent, plain = _sizes(said)
        with running(loader(primary, log.cluster, "publish"), core=cores, log=folder / "publish.log"):
            for number in range(1, BEHIND + 1):
                writer.call("timed", size=ROWS, number=number)
            commits = 900 if size > 10**6 else 400
            writer.send("paced", size=1_000, first=BEHIND + 1, commits=commits, every_s=0.2)
            replica = folder / "replica"
            began = time.monotonic()
            with running(loader(replica, log.cluster, "replicate"), core=cores, log=folder / "replicate.log"):
                taken = folder / "replica.next" / "store" / "data.mdb"
                served = replica / "data.mdb"
                found["fetched"] = wait("it has a copy", lambda: taken.exists() or served.exists()) - began
                wait("it has a store", served.exists)
                found["fresh"] = wait("it is fresh", lambda: age_s(replica) < FRESH_S) - began
            found["caught up"] = found["fresh"] - found["fetched"]
    shutil.rmtree(folder)
    command = only_command(NAME)
    setting = {"consents": size, "behind": f"{BEHIND} batches of {ROWS:,}", "file_bytes": plain, "sent_bytes": sent}
    for name, title in (
        ("made", "snapshot made"),
        ("fetched", "start of the process until the copy is there"),
        ("caught up", "from there until fresh"),
        ("fresh", "start of the process until fresh"),
    ):
        section.measure(f"{title}, {what}", "s", [Run(found[name])], command, **setting)
        section.rows.append(Row(name=f"{title.capitalize()}, {what}", ours=f"{title}, {what}", unit="s"))
    section.measure(f"sent, {what}", "bytes", [Run(float(sent))], command, **setting)
    section.rows.append(Row(name=f"Bytes sent, {what}", ours=f"sent, {what}", unit="bytes"))


def _sizes(said: str) -> tuple[int, int]:
    """Read bytes that are sent, and those of the file, from what `snapshot --json` says."""
    told = json.loads(said)
    return int(told["sent_bytes"]), int(told["bytes"])
