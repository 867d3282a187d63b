"""How fast a replica applies what its primary commits, beside those commits."""

import shutil

from bench.measures import Row, Run, Section
from bench.sections.replicas.parts import primary_of, replica_of
from bench.session import Session, only_command, short

NAME = "replicas-apply"
GROUP = 50_000
SMALL, STEADY = 1_000, 5_000
COMMITS = (SMALL, STEADY, GROUP)
_SIDES = ("commit at the primary", "applied at once", "applied in groups")


def measure(session: Session) -> Section:
    """Commit a group of batches; one replica applies each by itself, another all of them in one transaction.

    A round is one group: 50,000 changes, drawn anew. All three run on one core, none while another does.
    """
    section = session.section(NAME)
    size, folder = session.plan.largest, session.clean(NAME)
    primary = primary_of(session, size, folder)
    keys, core = session.keys, session.cores[0]
    each, grouped = (str(replica_of(primary, folder, name)) for name in ("each", "grouped"))
    loading = {"store": str(primary), "keys": keys, "consents": size, "primary": True}
    following = {"primary": str(primary), "keys": keys}
    name = "bench.replication:Applying"
    with (
        session.remote("bench.replication:Loading", loading, core=core) as writer,
        session.remote(name, following | {"store": each}, core=core) as at_once,
        session.remote(name, following | {"store": grouped}, core=core) as in_groups,
    ):
        number = 0
        for commit in COMMITS:
            taken: dict[str, list[dict[str, float]]] = {side: [] for side in _SIDES}
            for again in range(session.plan.rounds + 1):
                batches, made, applied = [], [], []
                for _ in range(GROUP // commit):
                    number += 1
                    made.append(writer.call("timed", size=commit, number=number))
                    batches.append(int(made[-1]["batch"]))
                    applied.append(at_once.call("follow", first=batches[-1], last=batches[-1]))
                together = in_groups.call("follow", first=batches[0], last=batches[-1])
                if again:  # the first warms up
                    for side, done in zip(_SIDES, (_summed(made), _summed(applied), together), strict=True):
                        taken[side].append(done)
            _keep(section, taken, size, commit)
    shutil.rmtree(folder)
    return section


def _summed(done: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(each[name] for each in done) for name in ("seconds", "processor_s", "changes")}


def _keep(section: Section, taken: dict[str, list[dict[str, float]]], size: int, commit: int) -> None:
    what = f"{commit:,} a commit, {short(size)}"
    for by, field, unit in (
        ("", "seconds", "changes/s"),
        (", by processor time", "processor_s", "changes/processor s"),
    ):
        for side in _SIDES:
            runs = [Run(GROUP / each[field]) for each in taken[side]]
            section.measure(
                f"{side}, {what}{by}", unit, runs, only_command(NAME), consents=size, changes_per_commit=commit
            )
        for side, least in zip(_SIDES[1:], (1.0, 2.0), strict=True):
            is_wanted = commit == STEADY or (commit == GROUP and least == 1.0)
            section.rows.append(
                Row(
                    name=f"{side.capitalize()} ÷ commit at the primary, {what}{by}",
                    ours=f"{side}, {what}{by}",
                    peer=f"{_SIDES[0]}, {what}{by}",
                    at_least=least if is_wanted else None,
                )
            )
