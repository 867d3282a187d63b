"""Two workers beside one, for singles and streams, with servers and clients on the same cores.

On two cores a client takes from the workers what it needs itself, so two workers cannot be twice one. What a check
costs the server's processors says what more cores would give: where two workers pay as much for it as one does,
nothing is lost between them.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial

from bench import product
from bench.measures import Row, Run, Section, alternate
from bench.peers import h2load
from bench.processes import HERE, Serving, serving
from bench.session import FRAME, HIT_RATE, WINDOW, Session, only_command, peer, run_of

NAME = "workers"
WORKERS = (1, 2)
CONNECTIONS = 16
"""Many, since the kernel deals them out by chance."""
CONCURRENCY = 64


def measure(session: Session) -> Section:
    """Measure both servers in turn, and what they paid."""
    section = session.section(NAME)
    size = session.plan.largest
    kinds = ["StreamCheck"]
    with ExitStack() as parts:
        servers = {count: parts.enter_context(_serving(session, count)) for count in WORKERS}
        sides: dict[str, Callable[[], Run]] = {}
        paid: dict[str, list[Run]] = {}
        for count, server in servers.items():
            setting = {"target": server.target, "kind": "tokens", "keys": session.keys, "consents": size}
            setting |= {"size": FRAME, "hit_rate": HIT_RATE, "recipients": session.plan.recipients}
            caller = parts.enter_context(session.remote("bench.callers:StreamCaller", setting, core=session.cores))
            caller.call("verify")
            take = partial(caller.call, "closed", window=WINDOW, streams=CONNECTIONS, **session.timing())
            name = _named("StreamCheck", count)
            sides[name] = partial(_paying, server, lambda take=take: run_of(take()), paid.setdefault(name, []))  # type: ignore[misc] # mypy infers no lambda with a default
        if peer(section, "h2load", lambda: _singles(session, servers, sides, paid)):
            kinds.append("Check")
        runs = alternate(session.plan.rounds, sides)
    for name, taken in runs.items():
        kind = name.partition(",")[0]
        unit = "recipients/s" if kind == "StreamCheck" else "checks/s"
        how = {"consents": size, "hit_rate": HIT_RATE, "connections": CONNECTIONS}
        section.measure(name, unit, taken, only_command(NAME), **how)
        section.measure(f"{name}, paid", "µs of processor", paid[name], only_command(NAME), **how)
    for kind in kinds:
        one, two = (_named(kind, count) for count in WORKERS)
        section.rows += [
            Row(name=f"{kind}, two workers ÷ one, client on the same two cores", ours=two, peer=one),
            Row(name=f"{kind}, what the server pays, two workers ÷ one", ours=f"{two}, paid", peer=f"{one}, paid"),
        ]
    return section


def _named(kind: str, count: int) -> str:
    return f"{kind}, {count} worker{'s' if count > 1 else ''}"


def _serving(session: Session, count: int) -> AbstractContextManager[Serving]:
    store = session.stores.store(session.plan.largest)
    command = HERE.command(*product.serve_arguments(store, session.stores.keys), f"--workers={count}")
    return serving(command, core=session.cores, log=session.folder / f"workers-{count}.log")


def _singles(
    session: Session, servers: dict[int, Serving], sides: dict[str, Callable[[], Run]], paid: dict[str, list[Run]]
) -> None:
    """Add single checks. Raises AbsentError."""
    payload = session.folder / "question.grpc"
    with session.asker(servers[1]) as asker:
        asker.call("payload", folder=str(session.folder))
    for count, server in servers.items():
        take = partial(
            h2load.rate,
            server.target,
            payload,
            concurrency=CONCURRENCY,
            connections=CONNECTIONS,
            seconds=session.plan.seconds,
            core=session.cores,
        )
        take()  # so that an absent program is found before anything is measured
        name = _named("Check", count)
        sides[name] = partial(_paying, server, take, paid.setdefault(name, []))


def _paying(server: Serving, take: Callable[[], Run], paid: list[Run]) -> Run:
    """Take a run; note how much processor time the server paid for each answer, in µs."""
    cpu, clock = server.cpu_seconds(), time.perf_counter()
    run = take()
    busy = (server.cpu_seconds() - cpu) / (time.perf_counter() - clock)
    paid.append(Run(busy / run.value * 1e6))
    return run
