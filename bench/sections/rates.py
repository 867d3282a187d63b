"""What a caller with a rate gets over a minute, and what its neighbour notices of it."""

from contextlib import ExitStack
from itertools import product as pairs

from bench import product
from bench.measures import Row, Run, Section
from bench.sections.door import RATE, serving_callers
from bench.session import HIT_RATE, Session, only_command, run_of

NAME = "rates"
WORKERS = (1, 2)
CONNECTIONS = (1, 8)
FRAME = 1_000
SECONDS = {"quick": 6.0, "standard": 30.0, "full": 60.0}


def measure(session: Session) -> Section:
    """For each number of workers and connections: all that the caller can get, while its neighbour asks one by one."""
    section = session.section(NAME)
    folder = session.clean(NAME)
    product.make_door(folder, rate=RATE)
    seconds = SECONDS[session.plan.kind]
    narrow, wide = ({"key_file": str(folder / f"{name}.key")} for name in ("narrow", "wide"))
    for workers, connections in pairs(WORKERS, CONNECTIONS):
        name = f"{workers} worker{'s' * (workers > 1)}, {connections} connection{'s' * (connections > 1)}"
        session.say(f"{name}: {2 * seconds:.0f} s")
        with ExitStack() as parts:
            server = parts.enter_context(serving_callers(session, folder, workers=workers))
            setting = {"target": server.target, "keys": session.keys, "frame": FRAME, "connections": connections}
            greedy = parts.enter_context(session.remote("bench.greedy:GreedyCaller", setting | narrow))
            neighbour = parts.enter_context(session.asker(server, way=wide))
            greedy.call("give_way", by=10)
            neighbour.call("verify")
            timing = {"seconds": seconds, "warm_s": 1.0}
            alone = run_of(neighbour.call("one_by_one", **timing))
            greedy.send("all", seconds=seconds + 2)
            beside = run_of(neighbour.call("one_by_one", **timing))
            got = greedy.receive()
        how = {"consents": session.plan.largest, "hit_rate": HIT_RATE, "rate": RATE}
        section.measure(f"{name}: got", "recipients/s", [Run(got["rate"] / RATE)], only_command(NAME), **how)
        section.measure(f"{name}: exempt", "share", [Run(got["exempt_answered"])], only_command(NAME), **how)
        section.measure(f"{name}: neighbour alone", "checks/s", [alone], only_command(NAME), **how)
        section.measure(f"{name}: neighbour beside", "checks/s", [beside], only_command(NAME), **how)
        section.notes.append(
            f"{name}: {got['frames']:.0f} frames and {got['singles']:.0f} single checks answered in {seconds + 2:.0f} s"
        )
        section.rows += [
            Row(
                name=f"{name}: got ÷ rate, one second's burst included",
                ours=f"{name}: got",
                at_least=0.97,
                at_most=1.03,
            )
            if seconds > 33
            else Row(name=f"{name}: got ÷ rate, one second's burst included", ours=f"{name}: got"),
            Row(
                name=f"{name}: exempt checks of the same caller that were answered", ours=f"{name}: exempt", at_least=1
            ),
            Row(
                name=f"{name}: p99 of a neighbour's Check ÷ alone",
                ours=f"{name}: neighbour beside",
                peer=f"{name}: neighbour alone",
                of="p99",
                at_most=1.2,
            ),
        ]
    return section
