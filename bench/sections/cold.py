"""The first frames of a server whose store is not in memory, beside the same frames again; only in a full run."""

from bench import product
from bench.machine import drop_cache
from bench.measures import Row, Run, Section
from bench.processes import HERE, serving
from bench.session import FRAME, HIT_RATE, WINDOW, Session, only_command, run_of, short
from bench.stores import copied

NAME = "cold"
FRAMES = 20


def measure(session: Session) -> Section:
    """Drop the file from memory, start the server, and stream at once."""
    section = session.section(NAME)
    size, folder = session.plan.largest, session.clean("cold")
    store = copied(session.stores.store(size), folder)
    runs: dict[str, list[Run]] = {"cold": [], "warm": []}
    for _ in range(session.plan.rounds):
        how = drop_cache(store)
        command = HERE.command(*product.serve_arguments(store, session.stores.keys))
        with (
            serving(command, core=session.cores[0], log=session.folder / "cold.log") as server,
            session.streamer(server, "tokens") as caller,
        ):
            for state in ("cold", "warm"):
                runs[state].append(run_of(caller.call("once", frames=FRAMES, window=WINDOW)))
    for state, taken in runs.items():
        section.measure(
            f"stream, tokens, {state} store, {short(size)}",
            "recipients/s",
            taken,
            only_command(NAME),
            consents=size,
            hit_rate=HIT_RATE,
            frame=FRAME,
            frames=FRAMES,
            cache=how if state == "cold" else "warm",
        )  # fmt: skip - name, runs, setting
    section.notes.append(f"Cold: {how}")
    section.rows.append(
        Row(
            name=f"First {FRAMES} frames of a server over a cold store ÷ the same frames again, {short(size)}",
            ours=f"stream, tokens, cold store, {short(size)}",
            peer=f"stream, tokens, warm store, {short(size)}",
        )
    )  # fmt: skip - a table
    return section
