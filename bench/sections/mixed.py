"""The batching client over many brands beside the same client over one: what mixed frames are for."""

from functools import partial
from typing import Final, NamedTuple

from bench import product
from bench.brands import BRANDS
from bench.measures import Row, Run, Section, alternate
from bench.processes import HERE, Remote, serving
from bench.session import HIT_RATE, Session, only_command, run_of

NAME: Final = "mixed"
UNIT: Final = "checks/s"
CONSENTS: Final = 200_000


class Goal(NamedTuple):
    """So many callers ask for so many brands, and come to this share of their rate over one brand."""

    kind: str
    callers: int
    brands: int
    at_least: float


GOALS: Final = (Goal("tasks", 64, 16, 0.7), Goal("tasks", 1_000, BRANDS, 0.5), Goal("threads", 16, 16, 0.8))


def measure(session: Session) -> Section:
    """Measure each goal's callers over one brand and over many, in turn."""
    section = session.section(NAME)
    keys, store = session.stores.keys, session.clean(NAME) / "store"
    product.make_keys(keys)
    with session.remote("bench.product:Builder", {}) as builder:
        where = {"path": str(store), "keys": str(keys), "consents": CONSENTS}
        builder.call("fill", **where)
        builder.call("spread", **where, brands=BRANDS)
    setting: dict[str, object] = {"consents": CONSENTS, "keys": str(keys), "hit_rate": HIT_RATE}
    command = HERE.command(*product.serve_arguments(store, keys))
    with (
        serving(command, core=session.cores[0], log=session.folder / "server-mixed.log") as server,
        session.remote("bench.brands:Brands", setting | {"target": server.target, "echo_target": ""}) as gateway,
    ):
        for brands in sorted({1} | {goal.brands for goal in GOALS}):
            verified = gateway.call("verify_brands", brands=brands)["questions"]
            section.notes.append(f"{brands} brands: {verified:.0f} answers verified, asked all at once")
        for goal in GOALS:
            _measure(session, section, gateway, goal)
    return section


def named(goal: Goal, brands: int) -> str:
    """Name a measure."""
    return f"{goal.callers:,} {goal.kind} over {brands} brand{'s' if brands > 1 else ''}"


def _measure(session: Session, section: Section, gateway: Remote, goal: Goal) -> None:
    sides = {
        named(goal, brands): partial(_run, session, gateway, f"{goal.kind}_brands", goal.callers, brands)
        for brands in (1, goal.brands)
    }
    for name, runs in alternate(session.plan.rounds, sides).items():
        section.measure(
            name,
            UNIT,
            runs,
            only_command(NAME),
            consents=CONSENTS,
            hit_rate=HIT_RATE,
            concurrency=goal.callers,
            processes=1,
        )
    section.rows.append(
        Row(
            name=f"Batching client, {named(goal, goal.brands)} ÷ over one",
            ours=named(goal, goal.brands),
            peer=named(goal, 1),
            at_least=goal.at_least,
        )
    )


def _run(session: Session, gateway: Remote, method: str, callers: int, brands: int) -> Run:
    return run_of(gateway.call(method, callers=callers, brands=brands, **session.timing()))
