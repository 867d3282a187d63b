"""Single checks over gRPC with full evidence and metrics, beside the echo server."""

from collections.abc import Mapping
from functools import partial

from bench.measures import Row, Run, Section, alternate
from bench.peers import h2load
from bench.processes import Remote
from bench.session import HIT_RATE, Session, only_command, peer, run_of

NAME = "unary"
UNIT = "checks/s"
CONCURRENCY = 32
SHARES = (50, 80)
"""Of what both servers sustain, in percent."""


def measure(session: Session) -> Section:
    """Measure at concurrency 1 and 32, closed and open loop."""
    section = session.section(NAME)
    largest = session.plan.largest
    servers = {"Check": session.ours(largest), "echo": session.echo()}
    with session.asker(servers["Check"]) as ours, session.asker(servers["echo"]) as echo:
        callers = {"Check": ours, "echo": echo}
        for name, caller in callers.items():
            reply = caller.call("verify", exactly=name == "Check")
            section.notes.append(f"{name}: answers verified, {reply['reply_bytes']:.0f} bytes each")
        closed = {
            1: {f"{name}, one at a time": partial(_alone, session, caller) for name, caller in callers.items()},
            CONCURRENCY: {
                f"{name}, {CONCURRENCY} at once, Python client": partial(
                    session.closed, caller, concurrency=CONCURRENCY
                )
                for name, caller in callers.items()
            },
        }
        for concurrency, sides in closed.items():
            for name, runs in alternate(session.plan.rounds, sides).items():
                setting = {"consents": largest, "hit_rate": HIT_RATE, "concurrency": concurrency}
                section.measure(name, UNIT, runs, only_command(NAME), **setting)
        ours.call("payload", folder=str(session.folder))
        _open_loop(session, section, callers)
    _rows(section, compiled=peer(section, "h2load", partial(_h2load, session, section)))
    return section


def _alone(session: Session, caller: Remote) -> Run:
    return run_of(caller.call("one_by_one", **session.timing()))


def _open_loop(session: Session, section: Section, callers: Mapping[str, Remote]) -> None:
    """Ask both at the same rates: shares of what the slower one answered for seconds on end, a moment ago.

    More than about 1,000 questions behind are refused, by both (gRPC's own limit). A burst's rate would get there,
    and so does a machine that slows down or stands still for a while: the rows say how many were not answered.
    """
    timing = {"seconds": session.plan.unary_s, "warm_s": session.plan.warm_s}
    found = {
        name: caller.call("closed", concurrency=CONCURRENCY, **timing)["rate"] for name, caller in callers.items()
    }  # fmt: skip - one each
    said = ", ".join(f"{name} {rate:,.0f}" for name, rate in found.items())
    section.notes.append(f"Open loops ask both at shares of what the slower one sustains ({UNIT}: {said})")
    for percent in SHARES:
        rate = min(found.values()) * percent / 100
        sides = {
            name: partial(_paced, caller, rate, timing, exactly=name == "Check") for name, caller in callers.items()
        }
        for name, runs in alternate(session.plan.rounds, sides).items():
            section.measure(
                _open_name(name, percent),
                UNIT,
                runs,
                only_command(NAME),
                consents=session.plan.largest,
                hit_rate=HIT_RATE,
                loop="open",
                asked_for=f"{rate:,.0f}/s",
            )  # fmt: skip - name, runs, setting


def _paced(caller: Remote, rate: float, timing: Mapping[str, float], *, exactly: bool) -> Run:
    return run_of(caller.call("paced", rate=rate, exactly=exactly, **timing))


def _open_name(name: str, percent: int) -> str:
    return f"open loop: {name}, at {percent} % of what both sustain"


def _rows(section: Section, *, compiled: bool) -> None:
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
    ]  # fmt: skip - a table
    for percent in SHARES:
        name = f"p99 of Check, open loop at {percent} %"
        section.rows.append(Row(name=name, ours=_open_name("Check", percent), of="p99", unit="ms"))
    if compiled:
        section.rows.append(
            Row(
                name="Check ÷ echo, 32 at once, asked from Python",
                ours=f"Check, {CONCURRENCY} at once, Python client",
                peer=f"echo, {CONCURRENCY} at once, Python client",
            )
        )  # fmt: skip - a table


def _h2load(session: Session, section: Section) -> None:
    payload = session.folder / "question.grpc"
    targets = {"Check": session.ours(session.plan.largest).target, "echo": session.echo().target}
    seconds = session.plan.seconds
    sides = {
        f"{name}, {CONCURRENCY} at once, h2load": partial(
            h2load.rate, target, payload, concurrency=CONCURRENCY, seconds=seconds, core=session.cores[1]
        )
        for name, target in targets.items()
    }
    command = session.shown(h2load.command("SERVER", payload, concurrency=CONCURRENCY, seconds=seconds))
    setting = {"consents": session.plan.largest, "concurrency": CONCURRENCY, "hit_rate": "1 question"}
    for name, runs in alternate(session.plan.rounds, sides).items():
        section.measure(name, UNIT, runs, command, **setting)
