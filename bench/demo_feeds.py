"""The mirror filled from İYS, shown for real but for İYS itself, which a fake plays: scripts/demo --feeds.

A list is the seed. Then the mirror pulls what has changed, is killed and goes on, a citizen's refusal is pushed and
denied, a day is compared with İYS's file and proved, and a hole is shown and mended.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import trustme
import typer
from rich.console import Console
from rich.table import Table

from bench.demo import Demo, serving
from bench.population import Population
from iyscheck.client import Client
from iyscheck.consent import Channel, Reason, RecipientType
from loader.reading.times import ISTANBUL
from tests.iys.clock import RunningClock
from tests.iys.fake import FakeIys

IYS_CODE: Final = 700_001
WAIT_S: Final = 120.0
HOUR_S: Final = 3_600.0
DAY_S: Final = 24 * HOUR_S
_BRANDS: Final = 40
_MOVED: Final = 5_000


class Feeds:
    """The demo's parts: a folder with keys and a store, and a fake İYS with the brands of the seed."""

    def __init__(self, demo: Demo, fake: FakeIys, brands: Sequence[int]) -> None:
        self.demo = demo
        self.fake = fake
        self.brands = list(brands)
        self.authority = trustme.CA()

    @property
    def config(self) -> Path:
        """The feeds file."""
        return self.demo.folder / "feeds.toml"

    def configure(self, port: int) -> None:
        """Write the feeds file, the password and the receiver's certificate; only their owner can read them."""
        folder = self.demo.folder
        certificate = self.authority.issue_cert("127.0.0.1", "localhost")
        certificate.private_key_pem.write_to_path(folder / "receiver.key")
        chain = b"".join(each.bytes() for each in certificate.cert_chain_pems)
        (folder / "receiver.pem").write_bytes(chain)
        self.authority.cert_pem.write_to_path(folder / "authority.pem")
        self.fake.trust(folder / "authority.pem")
        (folder / "acme.password").write_text("made-up\n")
        self.config.write_text(
            f'[mirror]\nurl = "{self.fake.url}"\ninterval = "60s"\nrate = 9\n\n'
            f'[receive]\nlisten = "127.0.0.1:{port}"\npublic_url = "https://127.0.0.1:{port}/push"\n'
            'certificate = "receiver.pem"\nkey = "receiver.key"\n\n'
            f'[[account]]\nname = "acme"\nkind = "provider"\ncode = {IYS_CODE}\nusername = "acme-api"\n'
            'password_file = "acme.password"\n'
        )
        for name in ("receiver.key", "acme.password", "feeds.toml"):
            (folder / name).chmod(0o600)

    def run(self, *arguments: str, quiet: bool = False) -> tuple[int, str]:
        """Run a command of the loader; gives its exit code and what it printed."""
        environment = os.environ | {
            "IYSCHECK_STORE": str(self.demo.store),
            "IYSCHECK_ADDRESS_KEY": str(self.demo.folder / "keys" / "address.key"),
            "IYSCHECK_STORE_KEY": str(self.demo.folder / "keys" / "store.key"),
            "IYSCHECK_FEEDS": str(self.config),
        }
        shown = " ".join(arguments)
        if not quiet:
            self.demo.console.print(f"[dim]$ iyscheck-loader {shown}[/]", highlight=False, soft_wrap=True)
        command = [sys.executable, "-m", "loader", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if not quiet:
            self.demo.console.print((done.stdout + done.stderr).rstrip(), highlight=False, soft_wrap=True, markup=False)
        return done.returncode, done.stdout

    @contextmanager
    def process(
        self, name: str, event: str, *flags: str
    ) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, object]]]:
        """Run `mirror` or `receive` until the end of the block; gives it and what it said when it had begun."""
        log = self.demo.folder / f"{name}-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "loader", name, f"--config={self.config}", *flags]
        with log.open("wb") as stderr:
            process = subprocess.Popen(command, stderr=stderr)
        try:
            yield process, self._begun(process, log, event)
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                if process.wait(WAIT_S):
                    raise SystemExit(f"{name} ended with exit code {process.returncode}; see {log}")
        finally:
            process.kill()
            process.wait()

    def _begun(self, process: subprocess.Popen[bytes], log: Path, event: str) -> dict[str, object]:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline and process.poll() is None:
            for line in log.read_text().splitlines():
                said = json.loads(line) if line.startswith("{") else {}
                if not event or said.get("event") == event:
                    return said
            if not event and log.exists():
                return {}
            time.sleep(0.05)
        raise SystemExit(f"it did not begin:\n{log.read_text()}")


def ask(client: Client, brand: int, address: str) -> Reason:
    """Ask about a message."""
    return client.check(
        brand=brand, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, address=address
    ).reason


def until(client: Client, brand: int, address: str, reason: Reason) -> float:
    """Ask until the answer is another one; gives how many seconds that took."""
    began = time.monotonic()
    while ask(client, brand, address) is not reason:
        if time.monotonic() - began > WAIT_S:
            raise SystemExit(f"the answer did not become {reason.name}")
        time.sleep(0.002)
    return time.monotonic() - began


def seed(feeds: Feeds, population: Population) -> str:
    """Load a full list, which says until when it is complete: pull shows a week only."""
    demo = feeds.demo
    demo.say(
        f"Loading a list of {population.consents:,} consents as the seed: İYS's feed shows the last seven days only"
    )
    now = datetime.now(UTC) - timedelta(hours=3)
    population.write_feed(demo.folder / demo.feed, now=now)
    demo.numbers["the seed, with the loader's start"] = f"{population.consents / demo.load(demo.feed):,.0f} consents/s"
    return str(now.astimezone(ISTANBUL))


def moved(feeds: Feeds, brand: int, *, first: int, rows: int, created_s: float, source: str, status: str) -> list[str]:
    """Let consents move at İYS, at a time that is long enough ago to be shown."""
    addresses = [f"+90539{first + number:07}" for number in range(rows)]
    for number, address in enumerate(addresses):
        feeds.fake.move(brand, source, recipient=address, status=status, created_s=created_s + number * 0.2)
    return addresses


def pulled(feeds: Feeds, client: Client, brand: int, flags: Sequence[str]) -> None:
    """Pull what has moved; kill the mirror in the middle, and let it go on."""
    demo = feeds.demo
    now = feeds.fake.clock.now()
    demo.say(f"{_MOVED:,} consents and {_MOVED // 10} refusals have come to İYS since. The mirror pulls them")
    given = moved(feeds, brand, first=0, rows=_MOVED, created_s=now - 3 * HOUR_S, source="HS", status="ONAY")
    gone = given[: _MOVED // 10]
    for number, address in enumerate(gone):
        feeds.fake.move(brand, "IYS", recipient=address, status="RET", created_s=now - 1.5 * HOUR_S + number * 0.2)
    with feeds.process("mirror", "", *flags) as (process, _):
        until(client, brand, given[len(gone)], Reason.CONSENTED)
        process.kill()
        process.wait()
    demo.console.print("killed with SIGKILL after its first page; started again")
    began = time.monotonic()
    with feeds.process("mirror", "", *flags):
        until(client, brand, gone[-1], Reason.REFUSED)
        until(client, brand, given[-1], Reason.CONSENTED)
    demo.numbers["pulled to the end after the kill"] = f"{time.monotonic() - began:.1f} s at 9 requests/s"
    wrong = [address for address in gone if ask(client, brand, address) is not Reason.REFUSED]
    wrong += [address for address in given[len(gone) :] if ask(client, brand, address) is not Reason.CONSENTED]
    if wrong:
        raise SystemExit(f"{len(wrong)} answers are not what İYS says")
    demo.console.print(f"{len(given):,} answers, each as İYS says")


def pushed(feeds: Feeds, client: Client, brand: int, flags: Sequence[str]) -> None:
    """Have İYS push, and measure how long a refusal takes."""
    demo = feeds.demo
    demo.say("A citizen refuses at İYS, which pushes that to the receiver")
    address = "+905390000900"
    keys = [flag for flag in flags if not flag.startswith("--store-key")]
    with feeds.process("receive", "receiving", *keys), feeds.process("mirror", "", *flags):
        if feeds.run("receive", "register", "acme", "--brand", str(brand))[0]:
            raise SystemExit("İYS could not be told where to push")
        if ask(client, brand, address) is not Reason.CONSENTED:
            raise SystemExit("somebody has not consented who should have")
        feeds.fake.move(brand, "IYS", recipient=address, status="RET")
        began = time.monotonic()
        feeds.fake.push_all()
        until(client, brand, address, Reason.REFUSED)
        taken = time.monotonic() - began
    demo.numbers["from the push to a denied answer"] = f"{taken * 1e3:.0f} ms"
    demo.console.print(f"denied {taken * 1e3:.0f} ms after İYS sent it; by pull it would have taken more than an hour")


def proved(feeds: Feeds, brand: int) -> None:
    """Compare yesterday with İYS's file."""
    demo = feeds.demo
    day = (datetime.fromtimestamp(feeds.fake.clock.now(), ISTANBUL) - timedelta(days=1)).date()
    demo.say(f"Comparing {day} with İYS's own file of that day")
    code, _ = feeds.run("reconcile", str(brand), "--date", str(day))
    if code not in {0, 1}:
        raise SystemExit("the day could not be compared")
    code, said = feeds.run("reconcile", str(brand), "--date", str(day), "--json", quiet=True)
    state = json.loads(said)["days"][0]["state"]
    demo.numbers[f"{day} of brand {brand}"] = state
    if code or state != "proved":
        raise SystemExit(f"the day is {state}, not proved")


def hole(feeds: Feeds) -> None:
    """Show a brand that was not looked at for nine days: rows are lost to pull, and its watermark stays."""
    demo = feeds.demo
    brand = 699_001
    demo.say(f"Brand {brand} comes with a list that is nine days old: İYS shows seven, so there is a hole")
    feeds.fake.add_brand("acme-api", brand)
    now = datetime.fromtimestamp(feeds.fake.clock.now(), ISTANBUL)
    row = {"brandCode": brand, "recipient": "+905390009001", "recipientType": "BIREYSEL", "type": "MESAJ"}
    times = {"consentDate": "2026-01-02 10:00:00", "creationDate": "2026-01-02 10:00:00"}
    old = demo.folder / "old-list.jsonl"
    old.write_text(json.dumps(row | times | {"status": "ONAY", "source": "HS_WEB"}) + "\n")
    nine_days_ago = f"{now - timedelta(days=9):%Y-%m-%d %H:%M:%S}"
    feeds.run("load", str(old), "--brand", str(brand), "--complete-until", nine_days_ago, quiet=True)
    feeds.run("pull", quiet=True)
    _, said = feeds.run("status", quiet=True)
    line = next((line.strip() for line in said.splitlines() if line.strip().startswith(str(brand))), "")
    demo.console.print(line, highlight=False, soft_wrap=True, markup=False)
    if "HOLE" not in line:
        raise SystemExit("the hole is not shown")
    demo.say("It is mended by a newer list, which covers the days that İYS does not show any more")
    new = demo.folder / "new-list.jsonl"
    new.write_text(old.read_text())
    five_days_ago = f"{now - timedelta(days=5):%Y-%m-%d %H:%M:%S}"
    feeds.run("load", str(new), "--brand", str(brand), "--complete-until", five_days_ago, quiet=True)
    _, said = feeds.run("status", quiet=True)
    line = next((line.strip() for line in said.splitlines() if line.strip().startswith(str(brand))), "")
    demo.console.print(line, highlight=False, soft_wrap=True, markup=False)
    if "HOLE" in line:
        raise SystemExit("the hole is still there")


def main(
    consents: Annotated[int, typer.Option(help="How many consents the seed has.", min=10_000)] = 1_000_000,
    folder: Annotated[Path, typer.Option(help="Where to put the files; emptied first.")] = Path("demo-data"),
) -> None:
    """Show the mirror filled from a fake İYS: pull, SIGKILL, push, a day proved, a hole mended."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    demo = Demo(folder=folder, console=Console())
    population = Population(seed=1, consents=consents, brands=_BRANDS)
    fake = FakeIys(clock=RunningClock())
    brands = [each.code for each in population.directory if each.registered]
    demo.say(f"Starting a fake İYS, with an account of {len(brands)} brands")
    fake.provider(IYS_CODE, "acme-api", "made-up", brands=brands)
    keys = [sys.executable, "-m", "iyscheck", "keys", "create", str(folder / "keys")]
    subprocess.run(keys, check=True, capture_output=True)
    with fake.running():
        feeds = Feeds(demo, fake, brands)
        feeds.configure(_free_port())
        seed(feeds, population)
        feeds.run("config", "check")
        brand = population.largest_brand
        flags = demo.keys
        yesterday_s = fake.clock.now() - DAY_S
        moved(feeds, brand, first=9_000_000, rows=500, created_s=yesterday_s, source="HS", status="ONAY")
        with serving(demo) as server, Client(server.target, timeout_s=20) as client:
            pulled(feeds, client, brand, flags)
            pushed(feeds, client, brand, flags)
            proved(feeds, brand)
            hole(feeds)
            demo.say("What İYS saw of us")
            asked = len(fake.requests)
            limits = len(fake.broken_limits)
            tokens = len(fake.asked("token"))
            demo.numbers["requests to İYS"] = f"{asked:,}, {tokens} for tokens; limits broken: {limits}"
            if limits:
                raise SystemExit("a limit of İYS was broken")
    table = Table(show_header=False)
    for name, value in demo.numbers.items():
        table.add_row(name, value)
    demo.console.print(table)
    demo.say("Stopped cleanly")


def _free_port() -> int:
    """Find a port that is free now."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as port:
        return int(port.getsockname()[1])


if __name__ == "__main__":
    typer.run(main)
