"""What the door costs: callers with keys, scopes and rates, and TLS."""

import time
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path

from bench import product
from bench.measures import Row, Run, Section, alternate
from bench.processes import HERE, Remote, Serving, serving
from bench.session import HIT_RATE, WINDOW, Session, only_command, run_of

NAME = "door"
CONCURRENCY = 32
RATE = 50_000


def measure(session: Session) -> Section:
    """Alternate an open door and one with a callers file, then ours and a bare server over TLS."""
    section = session.section(NAME)
    folder = session.clean(NAME)
    product.make_door(folder, rate=RATE)
    wide, ca = {"key_file": str(folder / "wide.key")}, {"tls_ca": str(folder / "ca.pem")}
    tls = [f"--tls-cert={folder / 'server.pem'}", f"--tls-key={folder / 'server.key'}"]
    paid: dict[str, list[Run]] = {}
    with ExitStack() as parts:
        plain = session.ours(session.plan.largest)
        with_callers = parts.enter_context(serving_callers(session, folder))
        over_tls = parts.enter_context(serving_callers(session, folder, *tls))
        log = session.folder / "echo-tls.log"
        echo = parts.enter_context(serving(HERE.command("-m", "bench.echo", *tls), core=session.cores[0], log=log))
        asked: dict[str, tuple[Serving, Remote, dict[str, int]]] = {}
        for name, server, way in (
            ("open", plain, {}),
            ("callers", with_callers, wide),
            ("callers, TLS", over_tls, wide | ca),
            ("echo, TLS", echo, ca),
        ):
            streamer = parts.enter_context(session.streamer(server, "tokens", **way))
            streamer.call("verify", exactly=server is not echo)
            asked[f"stream, {name}"] = server, streamer, {"window": WINDOW}
            if server is not echo:
                asker = parts.enter_context(session.asker(server, way=way))
                asker.call("verify")
                asked[f"Check, {name}"] = server, asker, {"concurrency": CONCURRENCY}
        sides = {
            name: partial(_paying, session, server, caller, how, paid.setdefault(name, []))
            for name, (server, caller, how) in asked.items()
        }
        runs = alternate(session.plan.rounds, sides)
    how = {"consents": session.plan.largest, "hit_rate": HIT_RATE}
    for name, taken in runs.items():
        unit = "recipients/s" if name.startswith("stream") else "checks/s"
        section.measure(name, unit, taken, only_command(NAME), **how)
        section.measure(f"{name}, paid", "µs of processor", paid[name], only_command(NAME), **how)
    _rows(section)
    return section


def serving_callers(session: Session, folder: Path, *flags: str, workers: int = 1) -> AbstractContextManager[Serving]:
    """Start the real server with the callers file of a folder."""
    store = session.stores.store(session.plan.largest)
    own = [f"--callers={folder / 'callers.toml'}", f"--workers={workers}", *flags]
    cores = session.cores[0] if workers == 1 else session.cores
    log = session.folder / f"callers-{len(flags)}-{workers}.log"
    return serving(HERE.command(*product.serve_arguments(store, session.stores.keys), *own), core=cores, log=log)


def _paying(session: Session, server: Serving, caller: Remote, how: dict[str, int], paid: list[Run]) -> Run:
    """Take a run; note how much processor time the server paid for each answer, in µs, warm-up included."""
    cpu, clock = server.cpu_seconds(), time.perf_counter()
    run = run_of(caller.call("closed", **how, **session.timing()))
    paid.append(Run((server.cpu_seconds() - cpu) / (time.perf_counter() - clock) / run.value * 1e6))
    return run


def _rows(section: Section) -> None:
    section.rows += [
        Row(
            name="Token stream with callers, scopes and rates ÷ open door",
            ours="stream, callers",
            peer="stream, open",
            at_least=0.97,
        ),
        Row(
            name="What a Check costs the server, with callers ÷ open door",
            ours="Check, callers, paid",
            peer="Check, open, paid",
            at_most=1.08,
        ),
        Row(
            name="What a recipient of a stream costs the server, with callers ÷ open door",
            ours="stream, callers, paid",
            peer="stream, open, paid",
        ),
        Row(
            name="Token stream over TLS ÷ a bare gRPC server over TLS",
            ours="stream, callers, TLS",
            peer="stream, echo, TLS",
        ),
        Row(name="Token stream over TLS ÷ without", ours="stream, callers, TLS", peer="stream, callers"),
        Row(name="Check over TLS ÷ without", ours="Check, callers, TLS", peer="Check, callers"),
    ]
