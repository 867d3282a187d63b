"""Single checks that travel together: the batching client from tasks and threads, beside a unary call for each."""

from functools import partial

from bench.measures import Row, Run, Section, alternate
from bench.processes import Remote
from bench.session import HIT_RATE, Session, only_command, run_of

NAME = "reach"
UNIT = "checks/s"
TASKS = {1_000: 30, 64: 12}
"""Callers in one asyncio process, and how many times the plain rate they must reach."""
THREADS = {16: 5}
"""The same for threads."""
KINDS = {"tasks": TASKS, "threads": THREADS}
PLAIN, UNARY, BATCHING = "echo, unary", "Check", "batching client"
WOKEN = "threads woken, nothing asked"


def measure(session: Session) -> Section:
    """Measure many callers and a lone one, in tasks and in threads, all in one process."""
    section = session.section(NAME)
    plan = session.plan
    setting: dict[str, object] = {
        "target": session.ours(plan.largest).target,
        "echo_target": session.echo().target,
        "consents": plan.largest,
        "keys": session.keys,
        "hit_rate": HIT_RATE,
    }
    with session.remote("bench.gateways:Gateway", setting) as gateway:
        verified = gateway.call("verify")["questions"]
        section.notes.append(f"batching client: {verified:.0f} answers verified, asked all at once")
        for kind, targets in KINDS.items():
            for callers in targets:
                _many(session, section, gateway, kind, callers)
            _alone(session, section, gateway, kind)
    for kind, targets in KINDS.items():
        section.rows += [
            Row(
                name=f"Batching client ÷ unary calls to the echo server, {callers:,} {kind}",
                ours=named(BATCHING, callers, kind),
                peer=named(PLAIN, callers, kind),
                at_least=at_least,
            )
            for callers, at_least in targets.items()
        ]
        section.rows += [
            Row(
                name=f"p50 of a lone call ÷ p50 of Check, {kind}",
                ours=named(BATCHING, 1, kind),
                peer=named(UNARY, 1, kind),
                of="p50",
                at_most=1.15,
            )
        ]  # fmt: skip - a table
        section.rows += [
            Row(
                name=f"Merely waking {callers:,} threads ÷ unary calls to the echo server",
                ours=named(WOKEN, callers, kind),
                peer=named(PLAIN, callers, kind),
            )
            for callers in targets
            if kind == "threads"
        ]
        section.rows += [
            Row(
                name=f"p99 of the batching client, {callers:,} {kind}",
                ours=named(BATCHING, callers, kind),
                of="p99",
                unit="ms",
            )
            for callers in targets
        ]
    return section


def named(what: str, callers: int, kind: str) -> str:
    """Name a measure."""
    return f"{what}, {callers:,} {kind if callers > 1 else kind.removesuffix('s')}"


def _many(session: Session, section: Section, gateway: Remote, kind: str, callers: int) -> None:
    bare = {WOKEN: "woken"} if kind == "threads" else {}
    _sides(session, section, gateway, kind, callers, {PLAIN: "plain", BATCHING: "batching", **bare})


def _alone(session: Session, section: Section, gateway: Remote, kind: str) -> None:
    _sides(session, section, gateway, kind, 1, {UNARY: "unary", BATCHING: "batching"})


def _sides(
    session: Session, section: Section, gateway: Remote, kind: str, callers: int, methods: dict[str, str]
) -> None:
    sides = {
        named(what, callers, kind): partial(_run, session, gateway, f"{kind}_{method}", callers)
        for what, method in methods.items()
    }
    for name, runs in alternate(session.plan.rounds, sides).items():
        section.measure(
            name,
            UNIT,
            runs,
            only_command(NAME),
            consents=session.plan.largest,
            hit_rate=HIT_RATE,
            concurrency=callers,
            processes=1,
        )


def _run(session: Session, gateway: Remote, method: str, callers: int) -> Run:
    return run_of(gateway.call(method, callers=callers, **session.timing()))
