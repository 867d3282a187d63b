"""100 M consents, only in a full run: the rate of its token stream beside the next smaller store, and its start."""

from bench import product
from bench.measures import Row, Run, Section, alternate
from bench.sections.embedded import start
from bench.session import FRAME, HIT_RATE, WINDOW, Session, only_command, run_of, short

NAME = "large"
CONSENTS = 100_000_000


def measure(session: Session) -> Section:
    """Alternate streams over 100 M and over the largest store of the plan."""
    section = session.section(NAME)
    sizes = (CONSENTS, session.plan.largest)
    callers = {
        f"stream, tokens, {short(size)}": session.streamer(session.ours(size), "tokens", consents=size)
        for size in sizes
    }  # fmt: skip - one each
    try:
        for caller in callers.values():
            caller.call("verify")
        sides = {
            name: lambda caller=caller: run_of(caller.call("closed", window=WINDOW, **session.timing()))
            for name, caller in callers.items()
        }
        runs = alternate(session.plan.rounds, sides)
    finally:
        for caller in callers.values():
            caller.close()
    for size, (name, taken) in zip(sizes, runs.items(), strict=True):
        section.measure(
            f"{name} (beside {short(CONSENTS)})",
            "recipients/s",
            taken,
            only_command(NAME),
            consents=size,
            hit_rate=HIT_RATE,
            frame=FRAME,
        )  # fmt: skip - name, runs, setting
    ours, peer = (measure.name for measure in section.measures)
    section.rows.append(
        Row(name=f"StreamCheck with tokens, {short(CONSENTS)} ÷ {short(sizes[1])}", ours=ours, peer=peer, at_least=0.6)
    )
    start(session, section, CONSENTS)
    _size(session, section)
    return section


def _size(session: Session, section: Section) -> None:
    store = session.stores.store(CONSENTS)
    index = product.index_bytes(str(store))
    if index is not None:
        name = f"index bytes per consent, after bulk load, {short(CONSENTS)}"
        section.measure(name, "bytes", [Run(index / CONSENTS)], only_command(NAME), consents=CONSENTS)
        section.rows.append(
            Row(name=f"Index, bytes per consent, {short(CONSENTS)}", ours=name, at_least=10, at_most=18, unit="bytes")
        )
