"""The whole path, for real: keys, feed files, loader, server, questions, a campaign, a second wave, a summary.

Run by scripts/demo. Every step is done by the real commands in real processes; this program only starts them, asks,
and tells what happens.
"""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from bench.population import Example, Flip, Population
from iyscheck.client import Client
from iyscheck.consent import Channel, MessageClass, Reason, RecipientType
from iyscheck.question import Answer

SINGLE_CHECKS = 2_000
WAIT_S = 60.0
WAVES_APART = timedelta(minutes=30)


@dataclass(kw_only=True)
class Demo:
    """One run: where its files are, and what it has measured so far."""

    folder: Path
    console: Console
    feed: str = "consents.jsonl"
    changes: str = "second-wave.jsonl"
    numbers: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        """Where the loader keeps the store."""
        return self.folder / "store"

    @property
    def keys(self) -> list[str]:
        """The flags that name store and keys, the same for loader and server."""
        return [
            f"--store={self.store}",
            f"--address-key={self.folder / 'keys' / 'address.key'}",
            f"--store-key={self.folder / 'keys' / 'store.key'}",
        ]

    def say(self, text: str) -> None:
        """Tell what comes next."""
        self.console.print(f"\n[bold cyan]==>[/] [bold]{text}[/]")

    def load(self, name: str, *, quiet: bool = False) -> float:
        """Load one feed file with the real loader and return the seconds it took, its start included."""
        command = [sys.executable, "-m", "loader", "load", str(self.folder / name), *self.keys]
        started = time.monotonic()
        done = subprocess.run(command, stdout=subprocess.PIPE if quiet else None, check=False)
        if done.returncode:
            raise SystemExit(f"loading {name} ended with exit code {done.returncode}")
        return time.monotonic() - started


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server and where it listens."""

    process: subprocess.Popen[bytes]
    target: str
    metrics: str
    native: str
    """Where its native front listens; empty where the package for that is not installed."""


@contextmanager
def serving(demo: Demo) -> Iterator[Server]:
    """Start the real server on free ports; at the end stop it as an operator would and check that it went well."""
    command = [sys.executable, "-m", "iyscheck", "serve", *demo.keys, "--listen=127.0.0.1:0"]
    command.append("--metrics-listen=127.0.0.1:0")
    if find_spec("pygrpc_native"):
        command.append("--native-listen=127.0.0.1:0")
    log = demo.folder / "server.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr)
    try:
        yield _started(process, log)
        process.send_signal(signal.SIGTERM)
        if process.wait(WAIT_S):
            raise SystemExit(f"the server ended with exit code {process.returncode}; see {log}")
    finally:
        process.kill()


def _started(process: subprocess.Popen[bytes], log: Path) -> Server:
    """Wait until the server has logged where it listens."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().splitlines():
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("event") == "serving":
                return Server(
                    process=process,
                    target=event["listen"],
                    metrics=event["metrics_listen"],
                    native=event["native_listen"],
                )
        time.sleep(0.05)
    raise SystemExit(f"the server did not start:\n{log.read_text()}")


def prepare(demo: Demo, population: Population, now: datetime) -> Flip:
    """Make keys and feed files."""
    demo.say("Making an address key and a store key")
    keys = [sys.executable, "-m", "iyscheck", "keys", "create", str(demo.folder / "keys")]
    subprocess.run(keys, check=True)
    demo.say(f"Generating {population.consents:,} consents of {population.brands} brands as an İYS feed file")
    started = time.monotonic()
    population.write_feed(demo.folder / demo.feed, now=now - WAVES_APART)
    changes = population.write_changes(demo.folder / demo.changes, now=now, changes=population.consents // 10)
    demo.console.print(f"written in {time.monotonic() - started:.1f} s, with a second wave of changes")
    return changes.flips[0]


def explain(demo: Demo, client: Client, examples: Sequence[Example]) -> None:
    """Ask one question for every reason and show the answers beside what was expected."""
    demo.say("Asking one question for every reason that the default policy can give")
    table = Table("question", "answer", Column("reason", no_wrap=True), "evidence")
    wrong = []
    for example in examples:
        answer = _ask(client, example)
        evidence = answer.evidence
        shown = f"{evidence.status.name} {evidence.source} {evidence.registration_time}" if evidence else "no record"
        verdict = "[green]permitted[/]" if answer.permitted else "[red]denied[/]"
        table.add_row(example.story, verdict, answer.reason.name, shown)
        if answer.reason is not example.reason:
            wrong.append(f"expected {example.reason.name}, got {answer.reason.name}")
    demo.console.print(table)
    missing = set(Reason) - {example.reason for example in examples} - NEVER_BY_DEFAULT
    if wrong or missing:
        raise SystemExit(f"wrong answers: {wrong}; reasons not shown: {[reason.name for reason in missing]}")


NEVER_BY_DEFAULT = {Reason.UNSPECIFIED, Reason.MERCHANT_NOT_RECORDED, Reason.LOCALLY_SUPPRESSED}


def single_checks(demo: Demo, client: Client, addresses: Sequence[str], brand: int) -> None:
    """Measure single checks one after the other."""
    demo.say(f"Asking {SINGLE_CHECKS:,} single questions, one after the other")
    taken = np.empty(SINGLE_CHECKS)
    for at in range(SINGLE_CHECKS):
        started = time.perf_counter()
        client.check(brand=brand, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, address=addresses[at])
        taken[at] = time.perf_counter() - started
    p50, p99 = np.percentile(taken, (50, 99)) * 1e3
    demo.numbers["single check, one at a time"] = f"p50 {p50:.2f} ms, p99 {p99:.2f} ms"


def gathered(demo: Demo, server: Server, examples: Sequence[Example]) -> int:
    """Ask all of them at once through the native front, if there is one; returns how many were asked."""
    if not server.native:
        demo.say("The native front is left out: pip install 'iyscheck[native]'")
        return 0
    demo.say("Asking the same questions all at once through the native front")
    with Client(server.native, timeout_s=20) as client, ThreadPoolExecutor(len(examples)) as pool:
        reasons = list(pool.map(lambda example: _ask(client, example).reason, examples))
    if reasons != [example.reason for example in examples]:
        raise SystemExit("the native front answers otherwise")
    demo.console.print(f"{len(reasons)} answers, each as before")
    return len(reasons)


def campaign(demo: Demo, client: Client, addresses: Sequence[str], brand: int, flip: Flip) -> Counter[str]:
    """Stream the campaign while the second wave is loaded, and watch one recipient's answer flip."""
    demo.say(f"Streaming a campaign of {len(addresses):,} recipients while the second wave is loaded")
    second_wave = threading.Thread(target=lambda: demo.load(demo.changes, quiet=True), name="second-wave")
    before = _ask(client, flip).reason
    counts: Counter[str] = Counter()
    columns = (TextColumn("recipients"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    started = time.monotonic()
    with Progress(*columns, console=demo.console) as progress:
        task = progress.add_task("", total=len(addresses))
        frames = client.stream_column(
            brand=brand, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, recipients=addresses
        )
        for number, frame in enumerate(frames):
            if not number:
                second_wave.start()
            counts.update({reason.name: count for reason, count in frame.counts.items()})
            progress.advance(task, len(frame.reasons))
    taken = time.monotonic() - started
    demo.numbers["campaign, plain addresses, loader writing"] = f"{len(addresses) / taken:,.0f} recipients/s"
    second_wave.join()
    after = _ask(client, flip).reason
    demo.console.print(f"one recipient of brand {flip.brand}: {before.name} before the second wave, {after.name} after")
    if before is not Reason.CONSENTED or after is not Reason.REFUSED:
        raise SystemExit("the second wave did not flip the answer from permitted to refused")
    if sum(counts.values()) != len(addresses):
        raise SystemExit("the answers do not add up to what was asked")
    return counts


def _ask(client: Client, example: Example | Flip) -> Answer:
    return client.check(
        brand=example.brand,
        channel=example.channel,
        recipient_type=example.recipient_type,
        message_class=example.message_class if isinstance(example, Example) else MessageClass.COMMERCIAL,
        retailer=example.retailer if isinstance(example, Example) else None,
        address=example.address,
    )


def scrape(server: Server) -> dict[str, float]:
    """Read the metrics endpoint: series name with labels → value."""
    with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


def metrics(demo: Demo, server: Server, asked: int, first: dict[str, float]) -> None:
    """Show what the metrics say, and check that decisions by reason add up to what was asked."""
    demo.say("Scraping the metrics")
    second = scrape(server)
    decided = sum(
        value - first.get(series, 0)
        for series, value in second.items()
        if series.startswith("consent_check_decisions_total")
    )
    position, newest = "consent_store_sequence", 'consent_watermark_timestamp_seconds{agg="newest"}'
    buckets = [
        name for name in second if name.startswith("grpc_server_handling_seconds_bucket") and 'le="5e-05"' in name
    ]
    demo.console.print(f"decisions by reason add up to {decided:,.0f} of {asked:,} asked")
    demo.console.print(f"position {first[position]:,.0f} before and {second[position]:,.0f} after the second wave")
    demo.console.print(f"latency histograms resolve 50 µs: {len(buckets)} series with that bucket")
    ahead = second[newest] - first[newest]
    demo.console.print(f"newest watermark {ahead:,.0f} s later after it")
    moved = second[position] > first[position] and ahead > 0
    if decided != asked or not moved or not buckets:
        raise SystemExit("the metrics do not agree with what happened")


def summary(demo: Demo, counts: Counter[str], client: Client) -> None:
    """Print what was measured."""
    demo.say("Summary")
    info = client.server_info()
    store_bytes = (demo.store / "data.mdb").stat().st_size
    demo.numbers["store"] = f"{store_bytes / 1e6:,.0f} MB"
    demo.numbers["position"] = f"{info.position.sequence:,} feed rows"
    if info.newest_watermark is not None:
        newest = datetime.fromtimestamp(info.newest_watermark, ZoneInfo("Europe/Istanbul"))
        demo.numbers["newest watermark"] = f"{newest:%Y-%m-%d %H:%M:%S} (Türkiye)"
    table = Table(show_header=False)
    for name, value in demo.numbers.items():
        table.add_row(name, value)
    for reason, recipients in counts.most_common():
        table.add_row(f"campaign: {reason}", f"{recipients:,}")
    demo.console.print(table)


def keep(demo: Demo, server: Server, example: Example) -> None:
    """Leave the server running until it is interrupted, with commands to try."""
    demo.say(f"The server goes on at {server.target}; press Ctrl-C to stop it. Try:")
    demo.console.print(
        f"  .venv/bin/iyscheck check '{example.address}' --brand {example.brand} "
        f"--channel {example.channel.name} --recipient-type {example.recipient_type.name} --server {server.target}\n"
        f"  .venv/bin/iyscheck info --server {server.target}\n"
        f"  .venv/bin/iyscheck-loader status {' '.join(demo.keys)}\n"
        f"  curl http://{server.metrics}/metrics",
        soft_wrap=True,
        highlight=False,
    )
    try:
        server.process.wait()
    except KeyboardInterrupt:
        demo.console.print("stopping")


def main(
    consents: Annotated[int, typer.Option(help="How many consents to generate.", min=10_000)] = 1_000_000,
    brands: Annotated[int, typer.Option(help="Of how many brands.", min=20)] = 220,
    recipients: Annotated[int, typer.Option(help="How many recipients the campaign has.", min=1_000)] = 1_000_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same population.")] = 1,
    folder: Annotated[Path, typer.Option(help="Where to put the files; emptied first.")] = Path("demo-data"),
    *,
    keep_running: Annotated[bool, typer.Option("--keep", help="Leave the server running at the end.")] = False,
) -> None:
    """Show iyscheck end to end: load a million consents, ask, stream, change while streaming, sum up."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    demo = Demo(folder=folder, console=Console())
    now = datetime.now(UTC)
    population = Population(seed=seed, consents=consents, brands=brands)
    flip = prepare(demo, population, now)
    demo.say("Loading the feed into a new store")
    demo.numbers["load, with the loader's start"] = f"{consents / demo.load(demo.feed):,.0f} consents/s"
    with serving(demo) as server, Client(server.target, timeout_s=5) as client:
        examples = population.examples()
        brand = population.largest_brand
        addresses = population.campaign(
            recipients, brand=brand, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, hit_rate=0.9
        )
        first = scrape(server)
        explain(demo, client, examples)
        again = gathered(demo, server, examples)
        single_checks(demo, client, addresses, brand)
        counts = campaign(demo, client, addresses, brand, flip)
        metrics(demo, server, len(examples) + again + SINGLE_CHECKS + len(addresses) + 2, first)
        summary(demo, counts, client)
        if keep_running:
            keep(demo, server, next(example for example in examples if example.reason is Reason.CONSENTED))
    demo.say("Stopped cleanly")


if __name__ == "__main__":
    typer.run(main)
