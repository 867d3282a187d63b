"""The embedded engine in one process, beside Redis GET from Python and plain py-lmdb gets; how long a reader starts."""

from contextlib import ExitStack
from itertools import count

from bench.measures import Row, Run, Section, alternate
from bench.processes import Remote
from bench.session import HIT_RATE, Session, only_command, peer, run_of, short

NAME = "embedded"
UNIT = "checks/s"


def measure(session: Session) -> Section:
    """Measure single checks, gets, and the start of a reader at each size."""
    section = session.section(NAME)
    plan = session.plan
    seeds = count(1)
    single = f"embedded check, {short(plan.largest)}"
    with ExitStack() as parts:
        engine = parts.enter_context(_engine(session, plan.largest))
        plain = parts.enter_context(
            session.remote(
                "bench.peers.plain:PlainReader",
                {"path": str(session.stores.plain(plan.largest))},
                core=session.cores[0],
            )
        )
        plain.call("draw", count=plan.singles, hit_rate=HIT_RATE, seed=3)
        sides = {
            single: lambda: run_of(engine.call("singles", count=plan.singles, seed=next(seeds), hit_rate=HIT_RATE)),
            "py-lmdb get": lambda: run_of(plain.call("gets")),
        }

        def redis() -> None:
            server = session.redis()
            name = "bench.peers.redis:RedisGetter"
            getter = parts.enter_context(session.remote(name, {"socket": server.socket, "consents": server.consents}))
            gets = {"count": min(20_000, plan.singles), "hit_rate": HIT_RATE}
            sides["Redis GET, unix socket"] = lambda: run_of(getter.call("gets", seed=next(seeds), **gets))

        peer(section, "Redis", redis)
        runs = alternate(plan.rounds, sides)
    for name, taken in runs.items():
        section.measure(name, UNIT, taken, only_command(NAME), consents=plan.largest, hit_rate=HIT_RATE, concurrency=1)
    section.rows += [
        Row(
            name=f"Embedded single check, {short(plan.largest)}, ÷ Redis GET over a unix socket from Python",
            ours=single,
            peer="Redis GET, unix socket",
            at_least=10,
        ),
        Row(name=f"Embedded single check, {short(plan.largest)}, ÷ plain py-lmdb get", ours=single, peer="py-lmdb get"),
    ]  # fmt: skip - a table
    for size in plan.sizes:
        start(session, section, size)
    return section


def _engine(session: Session, consents: int) -> Remote:
    store = str(session.stores.store(consents))
    return session.remote(
        "bench.product:Embedded", {"store": store, "keys": session.keys, "consents": consents}, core=session.cores[0]
    )


def start(session: Session, section: Section, size: int) -> None:
    """Open a store in a new process, again and again, and answer one frame."""
    starts = []
    for _ in range(session.plan.rounds):
        with _engine(session, size) as engine:
            taken = engine.call("start")
            starts.append(Run((taken["open"] + taken["first_frame"]) * 1e3))
    name = f"reader start to first frame answered, {short(size)}"
    section.measure(name, "ms", starts, only_command(NAME), consents=size, frame=10_000)
    section.rows.append(Row(name=f"Reader start to its first frame of 10,000, {short(size)}", ours=name, unit="ms"))
