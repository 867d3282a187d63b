"""The first frames of a server whose store is not in memory, beside the same frames again; only in a full run."""

from bench import product
from bench.machine import drop_cache
from bench.measures import Row, Run, Section
from bench.processes import HERE, serving
from bench.session import WINDOW, Session, keep_frames, run_of, short
from bench.stores import copied

NAME = "cold"
FRAMES = 20


def measure(session: Session) -> Section:
    """Drop the file from memory, start the server, and stream at once."""
    section = session.section(NAME)
    size = session.plan.largest
    store = copied(session.stores.store(size), session.clean(NAME))
    names = {state: f"stream, tokens, {state} store, {short(size)}" for state in ("cold", "warm")}
    runs: dict[str, list[Run]] = {state: [] for state in names}
    for _ in range(session.plan.rounds):
        how = drop_cache(store)
        command = HERE.command(*product.serve_arguments(store, session.stores.keys))
        with (
            serving(command, core=session.cores[0], log=session.folder / "cold.log") as server,
            session.streamer(server, "tokens") as caller,
        ):
            for state in names:
                runs[state].append(run_of(caller.call("once", frames=FRAMES, window=WINDOW)))
    for state, name in names.items():
        keep_frames(section, name, runs[state], size, frames=FRAMES)
    section.notes.append(f"Cold: {how}")
    row = f"First {FRAMES} frames of a server over a cold store ÷ the same frames again, {short(size)}"
    section.rows.append(Row(name=row, ours=names["cold"], peer=names["warm"]))
    return section
