"""Reading while the real loader follows a directory and applies 5,000 changes a second from the client's core."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import product
from bench.feed import write_changes
from bench.measures import Row, Run, Section
from bench.processes import HERE, Remote, running, serving
from bench.session import HIT_RATE, WINDOW, Session, keep_frames, only_command, run_of, short
from bench.stores import copied

NAME = "writing"
CHANGES_PER_S = 5_000
UNARY_RATE = 500
POLL_S = 0.05


def measure(session: Session) -> Section:
    """Alternate idle runs and runs beside a loader: the rate of a token stream, the p99 of single checks."""
    section = session.section(NAME)
    plan = session.plan
    size, folder = plan.largest, session.clean("writing")
    session.say(f"copying the store of {size:,} consents")
    store = copied(session.stores.store(size), folder)
    spool, ready = folder / "spool", folder / "ready"
    spool.mkdir()
    ready.mkdir()
    seconds = plan.rounds * (plan.seconds + plan.warm_s + 2 * plan.unary_s + 8)
    files = [write_changes(ready / f"{number:06}.jsonl", size, number, CHANGES_PER_S) for number in range(int(seconds))]
    product.make_keys(session.stores.keys)
    with ExitStack() as parts:
        command = HERE.command(*product.serve_arguments(store, session.stores.keys))
        server = parts.enter_context(serving(command, core=session.cores[0], log=session.folder / "writing.log"))
        follow = product.loader_arguments(
            store, session.stores.keys, "follow", str(spool), "--poll-seconds", str(POLL_S)
        )
        log = session.folder / "follow.log"
        parts.enter_context(running(HERE.command(*follow), core=session.cores[1], log=log))
        streamer = parts.enter_context(session.streamer(server, "tokens"))
        asker = parts.enter_context(session.asker(server))
        streamer.call("verify")
        asker.call("verify")
        echo = parts.enter_context(session.asker(session.echo()))
        feeder = Feeder(spool, iter(files))
        watcher = parts.enter_context(
            session.remote("bench.callers:Watcher", {"target": server.target, "consents": 1, "keys": session.keys})
        )
        runs = _alternate(session, Callers(streamer=streamer, asker=asker, echo=echo, watcher=watcher), feeder)
    _keep(section, runs, size)
    return section


@dataclass(frozen=True, kw_only=True)
class Callers:
    """Who asks: frames and single checks of ours, single checks of the echo server, and the position."""

    streamer: Remote
    asker: Remote
    echo: Remote
    watcher: Remote


def _alternate(session: Session, callers: Callers, feeder: "Feeder") -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = defaultdict(list)
    for number in range(session.plan.rounds * 2):
        state = ("idle", "writing")[(number + number // 2) % 2]
        before, began = callers.watcher.call("sequence")["sequence"], time.perf_counter()
        with feeder.feeding(wanted=state == "writing"):
            runs[f"stream, {state}"].append(session.closed(callers.streamer, window=WINDOW))
            for who, caller in (("check", callers.asker), ("echo", callers.echo)):
                timing = {"seconds": session.plan.unary_s, "warm_s": 0.5}
                asked = caller.call("paced", rate=UNARY_RATE, exactly=False, **timing)  # the answers change meanwhile
                runs[f"{who}, {state}"].append(run_of(asked))
            seconds = time.perf_counter() - began
            applied = callers.watcher.call("sequence")["sequence"] - before
        if state == "writing":
            runs["applied"].append(Run(applied / seconds))
        time.sleep(1.0)  # what was dropped last is applied before the next run
    return runs


def _keep(section: Section, runs: dict[str, list[Run]], size: int) -> None:
    command, setting = only_command(NAME), {"consents": size, "hit_rate": HIT_RATE}
    for state in ("idle", "writing"):
        beside = f"loader {state}"
        keep_frames(section, f"stream, {beside}", runs[f"stream, {state}"], size)
        section.measure(
            f"Check at {UNARY_RATE}/s, {beside}", "checks/s", runs[f"check, {state}"], command, loop="open", **setting
        )
        section.measure(
            f"echo at {UNARY_RATE}/s, {beside}", "checks/s", runs[f"echo, {state}"], command, loop="open", **setting
        )
    section.measure("changes applied meanwhile", "changes/s", runs["applied"], command, asked_for=CHANGES_PER_S)
    section.rows += [
        Row(
            name=f"Token stream beside a loader of 5,000 changes/s, {short(size)}, ÷ idle",
            ours="stream, loader writing",
            peer="stream, loader idle",
            at_least=0.8,
        ),
        Row(
            name=f"p99 of Check beside a loader of 5,000 changes/s, {short(size)}, ÷ idle",
            ours=f"Check at {UNARY_RATE}/s, loader writing",
            peer=f"Check at {UNARY_RATE}/s, loader idle",
            of="p99",
            at_most=2.0,
        ),
        Row(
            name="The same of the echo server, which has no store: what the client's core shared with the loader costs",
            ours=f"echo at {UNARY_RATE}/s, loader writing",
            peer=f"echo at {UNARY_RATE}/s, loader idle",
            of="p99",
        ),
        Row(name="Changes applied per second meanwhile", ours="changes applied meanwhile", unit="changes/s"),
    ]  # fmt: skip - a table


class Feeder:
    """Moves a file of one second's changes into the loader's directory every second."""

    def __init__(self, spool: Path, files: Iterator[Path]) -> None:
        self._spool = spool
        self._files = files

    @contextmanager
    def feeding(self, *, wanted: bool) -> Iterator[None]:
        """Feed for the time of the block, or do nothing for as long."""
        over = threading.Event()
        feeder = threading.Thread(target=self._feed, args=(over,))
        if wanted:
            feeder.start()
        try:
            yield
        finally:
            over.set()
            if wanted:
                feeder.join()

    def _feed(self, over: threading.Event) -> None:
        due = time.monotonic()
        while not over.is_set():
            file = next(self._files)
            file.rename(self._spool / file.name)
            due += 1.0
            over.wait(max(0.0, due - time.monotonic()))
