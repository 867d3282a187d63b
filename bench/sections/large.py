"""100 M consents, only in a full run: the rate of its token stream beside the next smaller store, and its start."""

from contextlib import ExitStack
from functools import partial

from bench import product
from bench.measures import Row, Run, Section, alternate
from bench.sections.embedded import start
from bench.session import WINDOW, Session, keep_frames, only_command, short

NAME = "large"
CONSENTS = 100_000_000


def measure(session: Session) -> Section:
    """Alternate streams over 100 M and over the largest store of the plan."""
    section = session.section(NAME)
    names = {size: f"stream, tokens, {short(size)}" for size in (CONSENTS, session.plan.largest)}
    with ExitStack() as parts:
        callers = {
            name: parts.enter_context(session.streamer(session.ours(size), "tokens", consents=size))
            for size, name in names.items()
        }
        for caller in callers.values():
            caller.call("verify")
        sides = {name: partial(session.closed, caller, window=WINDOW) for name, caller in callers.items()}
        runs = alternate(session.plan.rounds, sides)
    for size, name in names.items():
        keep_frames(section, name, runs[name], size)
    ours, peer = names.values()
    row = f"StreamCheck with tokens, {short(CONSENTS)} ÷ {short(session.plan.largest)}"
    section.rows.append(Row(name=row, ours=ours, peer=peer, at_least=0.6))
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
