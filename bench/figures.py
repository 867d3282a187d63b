"""The figures of the engine: loading, single and bulk checks, size on disk, time from commit to visible.

`python -m bench.figures --out FILE` runs the real loader and the real server on this machine, client and server
sharing its cores, and writes what it measured with the machine as JSON. Comparisons with peers come with the
Speed issue; a figure alone says little on a noisy machine.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console

from bench.demo import Demo, serving
from bench.population import Population
from iyscheck import address
from iyscheck.change import ConsentColumns
from iyscheck.client import Client
from iyscheck.consent import Channel, RecipientType
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.store.layout import SourceState
from iyscheck.store.writer import Batch, Writer

RUNS = 5
UNARY_S = 4.0
COMMITS = 40


def load(demo: Demo, name: str) -> float:
    """Load a file with the real loader; rows per second as it says itself."""
    command = [sys.executable, "-m", "loader", "load", str(demo.folder / name), *demo.keys, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)  # noqa: S603 - our own loader
    return float(json.loads(done.stdout)["rows_per_second"])


def unary_rps(client: Client, brand: int, addresses: list[str], threads: int) -> float:
    """Ask single questions from so many threads for some seconds; answers per second."""
    deadline = time.monotonic() + UNARY_S
    answered = [0] * threads

    def ask(mine: int) -> None:
        while time.monotonic() < deadline:
            text = addresses[(answered[mine] * threads + mine) % len(addresses)]
            client.check(brand=brand, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, address=text)
            answered[mine] += 1

    workers = [threading.Thread(target=ask, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(answered) / UNARY_S


def stream_rate(client: Client, brand: int, recipients: list[str] | npt.NDArray[np.uint8], key_id: bytes) -> float:
    """Stream a column in frames of 10,000; recipients per second."""
    started = time.perf_counter()
    client.check_column(
        brand=brand,
        channel=Channel.MESAJ,
        recipient_type=RecipientType.BIREYSEL,
        recipients=recipients,
        address_key_id=key_id if isinstance(recipients, np.ndarray) else None,
    )
    return len(recipients) / (time.perf_counter() - started)


def commit_to_visible(demo: Demo, client: Client, keys: tuple[AddressKey, StoreKey]) -> list[float]:
    """Commit empty batches and poll the server until it shows each; seconds from durable to answered."""
    empty = ConsentColumns.of([])
    seconds = []
    with Writer.open(demo.store, address_key_id=keys[0].key_id, store_key_id=keys[1].key_id) as writer:
        for _ in range(COMMITS):
            batch = Batch(consents=empty, access=[], brands=[], rows=1)
            position = writer.apply(batch, SourceState(name="figures")).position
            committed = time.perf_counter()
            while client.server_info().position.sequence < position.sequence:
                pass
            seconds.append(time.perf_counter() - committed)
    return seconds


def measured(run: Callable[[], float]) -> dict[str, float]:
    """Run five times; median, least and greatest."""
    values = sorted(run() for _ in range(RUNS))
    return {"median": round(median(values)), "least": round(values[0]), "greatest": round(values[-1])}


def main(
    out: Annotated[Path | None, typer.Option(help="Where to write the JSON; not at all if not given.")] = None,
    consents: Annotated[int, typer.Option(help="How many consents to load.", min=100_000)] = 1_000_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same population.")] = 1,
) -> None:
    """Measure the engine end to end on this machine and print the figures."""
    with tempfile.TemporaryDirectory(prefix="iyscheck-figures-") as folder:
        figures = measure(Demo(folder=Path(folder), console=Console()), consents, seed)
    text = json.dumps(figures, indent=1)
    typer.echo(text)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")


def measure(demo: Demo, consents: int, seed: int) -> dict[str, object]:
    """Take all figures in one run."""
    population = Population(seed=seed, consents=consents, brands=220)
    now = datetime.now(UTC)
    files = demo.folder / "keys"
    files.mkdir()
    keys = AddressKey.create(files / "address.key"), StoreKey.create(files / "store.key")
    population.write_feed(demo.folder / demo.feed, now=now - timedelta(hours=1))
    population.write_changes(demo.folder / demo.changes, now=now, changes=consents // 5)
    loaded = load(demo, demo.feed)
    bulk_bytes = demo.store.joinpath("data.mdb").stat().st_size / consents
    changed = load(demo, demo.changes)
    changed_bytes = demo.store.joinpath("data.mdb").stat().st_size / consents
    brand = population.largest_brand
    numbers = population.campaign(
        500_000, brand=brand, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, hit_rate=0.9
    )
    tokens = address.tokens(numbers, Channel.MESAJ, keys[0])
    with serving(demo) as server, Client(server.target, timeout_s=10) as client:
        figures: dict[str, object] = {
            "load_rows_per_s": round(loaded),
            "load_20_percent_changes_rows_per_s": round(changed),
            "bytes_per_consent_after_bulk_load": round(bulk_bytes, 1),
            "bytes_per_consent_after_changing_20_percent": round(changed_bytes, 1),
            "unary_rps_16_threads": measured(lambda: unary_rps(client, brand, numbers, 16)),
            "stream_addresses_per_s": measured(lambda: stream_rate(client, brand, numbers, b"")),
            "stream_tokens_per_s": measured(lambda: stream_rate(client, brand, tokens, keys[0].key_id)),
        }
        visible = np.array(commit_to_visible(demo, client, keys)) * 1e3
    p50, p99 = np.percentile(visible, (50, 99))
    figures["commit_to_visible_ms"] = {"p50": round(p50, 2), "p99": round(p99, 2)}
    figures["setting"] = {
        "command": f"python -m bench.figures --consents {consents} --seed {seed}",
        "at": now.isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "runs": RUNS,
        "hit_rate": 0.9,
        "frame": 10_000,
        "client": "one Python process on the same cores as the server",
    }
    return figures


if __name__ == "__main__":
    typer.run(main)
