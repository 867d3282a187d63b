"""Single checks over gRPC with full evidence and metrics, beside the echo server."""

from functools import partial

from bench.measures import Row, Section, alternate
from bench.peers import h2load
from bench.session import HIT_RATE, Session, only_command, peer, run_of

NAME = "unary"
UNIT = "checks/s"
CONCURRENCY = 32


def measure(session: Session) -> Section:
    """Measure at concurrency 1 and 32, closed and open loop."""
    section = session.section(NAME)
    plan = session.plan
    servers = {"Check": session.ours(plan.largest), "echo": session.echo()}
    with session.asker(servers["Check"]) as ours, session.asker(servers["echo"]) as echo:
        callers = {"Check": ours, "echo": echo}
        for name, caller in callers.items():
            reply = caller.call("verify", exactly=name == "Check")
            section.notes.append(f"{name}: answers verified, {reply['reply_bytes']:.0f} bytes each")
        setting = {"consents": plan.largest, "hit_rate": HIT_RATE}
        alone = alternate(
            plan.rounds,
            {
                f"{name}, one at a time": lambda caller=caller: run_of(caller.call("one_by_one", **session.timing()))  # type: ignore[misc] # the lambda binds its caller
                for name, caller in callers.items()
            },
        )
        many = alternate(
            plan.rounds,
            {
                f"{name}, {CONCURRENCY} at once, Python client": lambda caller=caller: run_of(  # type: ignore[misc] # the same
                    caller.call("closed", concurrency=CONCURRENCY, **session.timing())
                )
                for name, caller in callers.items()
            },
        )
        for name, runs in alone.items():
            section.measure(name, UNIT, runs, only_command(NAME), concurrency=1, **setting)
        for name, runs in many.items():
            section.measure(name, UNIT, runs, only_command(NAME), concurrency=CONCURRENCY, **setting)
        ours.call("payload", folder=str(session.folder))
        for percent in (50, 80):
            for name, caller in callers.items():
                closed = f"{name}, {CONCURRENCY} at once, Python client"
                rate = next(each for each in section.measures if each.name == closed).median * percent / 100
                runs = [run_of(caller.call("paced", rate=rate, **session.timing())) for _ in range(plan.rounds)]
                section.measure(
                    f"open loop: {name}, at {percent} % of its closed rate",
                    UNIT,
                    runs,
                    only_command(NAME),
                    loop="open",
                    **setting,
                )  # fmt: skip - name, runs, setting
    compiled = peer(section, "h2load", partial(_h2load, session, section))
    client = "h2load" if compiled else "Python client"
    section.rows += [
        Row(
            name="Check ÷ echo, 32 at once",
            ours=f"Check, {CONCURRENCY} at once, {client}",
            peer=f"echo, {CONCURRENCY} at once, {client}",
            at_least=0.75,
        ),
        Row(
            name="p50 of Check ÷ p50 of echo, one at a time",
            ours="Check, one at a time",
            peer="echo, one at a time",
            of="p50",
            at_most=1.25,
        ),
        Row(name="p99 of Check, one at a time", ours="Check, one at a time", of="p99", unit="ms"),
        Row(
            name="p99 of Check, open loop at 50 %",
            ours="open loop: Check, at 50 % of its closed rate",
            of="p99",
            unit="ms",
        ),
    ]  # fmt: skip - a table
    if compiled:
        section.rows.append(
            Row(
                name="Check ÷ echo, 32 at once, asked from Python",
                ours=f"Check, {CONCURRENCY} at once, Python client",
                peer=f"echo, {CONCURRENCY} at once, Python client",
            )
        )  # fmt: skip - a table
    return section


def _h2load(session: Session, section: Section) -> None:
    payload = session.folder / "question.grpc"
    targets = {"Check": session.ours(session.plan.largest).target, "echo": session.echo().target}
    for concurrency in (CONCURRENCY,) if session.plan.kind == "quick" else (1, CONCURRENCY):
        names = {f"{name}, {concurrency} at once, h2load": target for name, target in targets.items()}
        sides = {
            name: partial(
                h2load.rate,
                target,
                payload,
                concurrency=concurrency,
                seconds=session.plan.seconds,
                core=session.cores[1],
            )
            for name, target in names.items()
        }  # fmt: skip - one side each
        for name, runs in alternate(session.plan.rounds, sides).items():
            command = session.shown(
                h2load.command("SERVER", payload, concurrency=concurrency, seconds=session.plan.seconds)
            )
            section.measure(
                name, UNIT, runs, command, consents=session.plan.largest, concurrency=concurrency, hit_rate="1 question"
            )
