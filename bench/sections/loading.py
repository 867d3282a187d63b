"""The real loader on a feed of the population into an empty store, beside merely parsing the same file."""

import json
import shutil
import subprocess
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from bench import product
from bench.machine import on_core
from bench.measures import Row, Run, Section, alternate
from bench.population import Population
from bench.processes import HERE, ProcessError
from bench.session import Session

NAME = "loading"
UNIT = "rows/s"


def measure(session: Session) -> Section:
    """Time whole processes, their start included, alternating: the loader on both cores, and on one like the parser."""
    section = session.section(NAME)
    folder = session.clean("loading")
    feed, rows = make_feed(folder, session.plan.feed_rows)
    own: list[Run] = []
    sides = {
        "load into an empty store": partial(_load, session, folder, feed, rows, own, session.cores),
        "load into an empty store, one core": partial(_load, session, folder, feed, rows, [], session.cores[:1]),
        "parse only, msgspec structs": partial(_parse, session, feed, rows, "struct"),
        "parse only, msgspec dicts": partial(_parse, session, feed, rows, "dict"),
    }
    commands = {
        "load into an empty store": "taskset -c 0,1 python -m loader load consents.jsonl --store ... --json",
        "load into an empty store, one core": "taskset -c 0 python -m loader load consents.jsonl --store ... --json",
        "parse only, msgspec structs": "taskset -c 0 python -m bench.peers.parse consents.jsonl struct",
        "parse only, msgspec dicts": "taskset -c 0 python -m bench.peers.parse consents.jsonl dict",
    }
    setting = {"rows": rows, "file_bytes": feed.stat().st_size, "brands": 220}
    for name, runs in alternate(session.plan.rounds, sides).items():
        section.measure(name, UNIT, runs, commands[name], **setting)
    loaded = commands["load into an empty store"]
    section.measure("load into an empty store, as the loader itself says", UNIT, own, loaded, **setting)
    section.rows += [
        Row(
            name="Loading JSON Lines into an empty store ÷ parsing them into structs",
            ours="load into an empty store",
            peer="parse only, msgspec structs",
            at_least=0.35,
        ),
        Row(
            name="Loading JSON Lines into an empty store ÷ parsing them into dicts",
            ours="load into an empty store",
            peer="parse only, msgspec dicts",
        ),
        Row(
            name="Loading on one core ÷ parsing into structs",
            ours="load into an empty store, one core",
            peer="parse only, msgspec structs",
        ),
    ]  # fmt: skip - a table
    return section


def make_feed(folder: Path, consents: int) -> tuple[Path, int]:
    """Write the population's first feed; returns the file and how many rows it has."""
    feed = folder / "consents.jsonl"
    now = datetime.now(UTC) - timedelta(hours=1)
    Population(seed=1, consents=consents, brands=220).write_feed(feed, now=now)
    with feed.open("rb") as file:
        return feed, sum(1 for _ in file)


def _load(session: Session, folder: Path, feed: Path, rows: int, own: list[Run], cores: tuple[int, ...]) -> Run:
    store = folder / "store"
    shutil.rmtree(store, ignore_errors=True)
    shutil.rmtree(folder / "store.rejects", ignore_errors=True)
    product.make_keys(session.stores.keys)
    command = HERE.command(*product.loader_arguments(store, session.stores.keys, "load", str(feed), "--json"))
    seconds, said = timed(command, cores)
    report = json.loads(said)
    own.append(Run(float(report["rows_per_second"])))
    return Run(rows / seconds)


def _parse(session: Session, feed: Path, rows: int, how: str) -> Run:
    seconds, said = timed(HERE.command("-m", "bench.peers.parse", str(feed), how), session.cores[:1])
    if int(said.split()[0]) != rows:
        raise ProcessError(f"{said.split()[0]} rows were parsed, not {rows}")
    return Run(rows / seconds)


def timed(command: list[str], cores: tuple[int, ...], folder: Path = HERE.folder) -> tuple[float, str]:
    """Run a command to its end on one core or some; its seconds, its start included, and what it printed."""
    started = time.perf_counter()
    with on_core(*cores):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise ProcessError(f"{command[1:5]}: {(done.stdout + done.stderr)[-1000:]}")
    return seconds, done.stdout
