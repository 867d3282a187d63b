"""PostgreSQL `= ANY($1)`, only in a full run."""

from bench.measures import Run, Section
from bench.peers import postgres
from bench.session import HIT_RATE, Session, only_command, peer, run_of

NAME = "postgres"


def measure(session: Session) -> Section:
    """Ask for 100 and for 1,000 keys at once over one connection."""
    section = session.section(NAME)
    peer(section, "PostgreSQL", lambda: _ask(session, section))
    return section


def _ask(session: Session, section: Section) -> None:
    consents = session.plan.largest
    session.say(f"PostgreSQL with {consents:,} rows")
    with (
        postgres.serving(consents=consents, core=session.cores[0]) as where,
        session.remote("bench.peers.postgres:PostgresAsker", {"where": where, "consents": consents}) as asker,
    ):
        for keys in (100, 1_000):
            runs: list[Run] = [
                run_of(asker.call("any", keys=keys, seconds=session.plan.seconds, hit_rate=HIT_RATE, seed=number))
                for number in range(session.plan.rounds)
            ]
            section.measure(
                f"PostgreSQL = ANY($1) of {keys:,}",
                "keys/s",
                runs,
                only_command(NAME),
                consents=consents,
                hit_rate=HIT_RATE,
                connections=1,
            )  # fmt: skip - name, runs, setting
