"""How large the files of a primary and its replica become while the outbox fills for its first hour, and afterwards."""

from pathlib import Path

from bench.measures import Row, Run, Section
from bench.sections.replicas.parts import primary_of, replica_of
from bench.session import Session, only_command, short

NAME = "replicas-hour"
ROWS = 1_000
EVERY_S = 0.2
COMMITS = 27_000
"""An hour and a half, of which the outbox keeps one."""
AT_ONCE = 300
FILES = ("primary's file", "replica's file", "outbox in the primary's file")


def measure(session: Session) -> Section:
    """Commit 1,000 updates of random consents 27,000 times, 0.2 seconds apart by a clock that is moved by hand."""
    section = session.section(NAME)
    size, folder = session.plan.sizes[0], session.clean(NAME)
    commits = COMMITS if session.plan.kind != "quick" else 2 * AT_ONCE
    primary = primary_of(session, size, folder)
    replica = replica_of(primary, folder, "replica")
    arguments = {"store": str(primary), "replica": str(replica), "keys": session.keys, "consents": size}
    points = [{"primary": _bytes(primary), "replica": _bytes(replica), "outbox": 0.0}]
    pace = {"rows": ROWS, "every_s": EVERY_S}
    with session.remote("bench.replication:Hour", arguments | pace, core=session.cores) as hour:
        while AT_ONCE * len(points) <= commits:
            points.append(hour.call("run", commits=AT_ONCE))
            session.say(f"{AT_ONCE * (len(points) - 1):,} of {commits:,} commits")
    keep(section, points, size)
    return section


def keep(section: Section, points: list[dict[str, float]], size: int) -> None:
    """Keep the sizes by minutes of the clock, and what they were after the first hour and at the end."""
    minutes = AT_ONCE * EVERY_S / 60
    setting = {"consents": size, "changes_per_commit": ROWS, "minutes_between": f"{minutes:g}"}
    for name, field in zip(FILES, ("primary", "replica", "outbox"), strict=True):
        runs = [Run(point[field]) for point in points]
        section.measure(name, "bytes", runs, only_command(NAME), **setting)
        hour = round(60 / minutes)
        for what, at in (("at first", 0), ("after an hour", hour), ("at the end", len(runs) - 1)):
            if at < len(runs):
                section.measure(f"{name} {what}", "bytes", [runs[at]], only_command(NAME), **setting)
        section.rows.append(
            Row(name=f"{name} after an hour, {short(size)}", ours=f"{name} after an hour", unit="bytes")
        )
    for name in FILES:
        section.rows.append(
            Row(
                name=f"{name} at the end ÷ after an hour, {short(size)}",
                ours=f"{name} at the end",
                peer=f"{name} after an hour",
                at_most=1.02,
            )
        )
    section.notes.append(
        "Commits are real, time between them is not: the writer's clock is moved 0.2 s before each. Each batch counts "
        "as published when the next is made, and is applied by the replica at once."
    )


def _bytes(store: Path) -> float:
    return float((store / "data.mdb").stat().st_size)
