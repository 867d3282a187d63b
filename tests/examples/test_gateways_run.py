import asyncio
import csv
import io
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from iyscheck.consent import Status
from iyscheck.examples.asyncio_sender import send_all
from iyscheck.keys import ADDRESS_FORM
from iyscheck.server.app import Server
from iyscheck.server.log import open_log
from iyscheck.server.settings import Settings
from tests.builders import ADDRESS_KEY, SECRETS, StoreBuilder

BRAND = 600_123
ASKED = {
    "+905321000001": ("send", "CONSENTED"),
    "0 532 100 00 02": ("skip", "REFUSED"),
    "5321000009": ("skip", "NO_CONSENT"),
    "nobody": ("skip", "INVALID_ADDRESS"),
}
VERDICTS = [f"{number}\t{verdict}\t{reason}" for number, (verdict, reason) in enumerate(ASKED.values(), 1)]


@dataclass(frozen=True)
class Site:
    """A server over a store, and the files it was made of; where it counts what it is asked."""

    folder: Path
    server: str
    metrics: str

    def run(self, name: str, *arguments: str, text: str = "") -> "subprocess.CompletedProcess[str]":
        """Run an example as a user would."""
        command = [sys.executable, "-m", f"iyscheck.examples.{name}", *arguments]
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)

    def calls(self) -> dict[str, float]:
        """Count the calls of each method so far."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=20) as page:
            text = page.read().decode()
        return {
            sample.labels["grpc_method"]: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "grpc_server_started_total"
        }

    @property
    def flags(self) -> list[str]:
        """What all senders are told."""
        return [f"--brand={BRAND}", f"--address-key={self.folder / 'address-key'}"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A small store behind a real server, which takes no addresses: it has no address key."""
    folder = tmp_path_factory.mktemp("site")
    for kind, secret in SECRETS.items():
        file = folder / kind
        file.touch(0o600)
        file.write_text(f"iyscheck {kind} {ADDRESS_FORM} {secret.hex()}\n")
    with StoreBuilder(folder / "store") as store:
        store.brand(BRAND, now=True)
        store.consent(brand=BRAND, recipient="+905321000001")
        store.consent(brand=BRAND, recipient="+905321000002", status=Status.RET).commit()
    settings = Settings.read(
        store=folder / "store",
        store_key=folder / "store-key",
        listen="127.0.0.1:0",
        metrics_listen="127.0.0.1:0",
        drain_seconds=0,
    )
    with Server.start(settings, open_log("error", io.StringIO())) as server:
        yield Site(folder=folder, server=server.address, metrics=str(server.metrics_address))


class TestExamples:
    """Each example runs, and says what the store says."""

    @pytest.mark.parametrize("name", ["threaded_sender", "asyncio_sender"])
    def test_senders(self, site: Site, name: str) -> None:
        """Senders answer line by line, in order, print no address, and their checks travel together."""
        text, before = "".join(f"{address}\n" for address in ASKED), site.calls()

        ran = site.run(name, *site.flags, f"--server={site.server}", text=text)

        assert ran.stdout.splitlines() == VERDICTS, ran.stderr
        assert ran.stderr == ""
        asked = {method: count - before.get(method, 0) for method, count in site.calls().items()}
        assert asked.pop("StreamCheck") == 1
        assert asked.get("Check", 0) == asked.get("BatchCheck", 0) == 0

    @pytest.mark.parametrize("command", [("threaded_sender",), ("asyncio_sender", "--timeout=0.5")], ids=lambda c: c[0])
    def test_unanswered(self, site: Site, command: tuple[str, ...]) -> None:
        """Without a server nothing is sent."""
        name, *flags = command

        ran = site.run(name, *flags, *site.flags, "--server=127.0.0.1:1", text="+905321000001\n+905321000002\n")

        assert ran.stdout == "1\tskip\tUNAVAILABLE\n2\tskip\tUNAVAILABLE\n", ran.stderr

    def test_out_of_time(self) -> None:
        """A check has as much time as the sender is told."""
        started = time.monotonic()

        outcomes = asyncio.run(send_all("127.0.0.1:1", ADDRESS_KEY, BRAND, ["+905321000001"], 0.05))

        assert outcomes[0].startswith("1\tskip\t")
        assert time.monotonic() - started < 10  # which it has if nothing is said

    @pytest.mark.parametrize("how", [(), ("--column",)], ids=["singly", "columns"])
    def test_embedded(self, site: Site, how: tuple[str, ...]) -> None:
        """The embedded sender says the same without a server, singly and in columns, beside the one that runs."""
        text = "".join(f"{address}\n" for address in ASKED)
        files = [f"--store={site.folder / 'store'}", f"--store-key={site.folder / 'store-key'}"]

        ran = site.run("embedded", *site.flags, *files, *how, text=text)

        assert ran.stdout.splitlines() == VERDICTS, ran.stderr

    def test_embedded_options(self, site: Site) -> None:
        """Channel, recipient type and policy are options of the embedded sender, and their mistakes are named."""
        files = [f"--store={site.folder / 'store'}", f"--store-key={site.folder / 'store-key'}"]
        merchants = ["--recipient-type=TACIR", "--merchants-need-record"]

        ran = site.run("embedded", *site.flags, *files, *merchants, text="+905321000009\n")
        wrong = site.run("embedded", *site.flags, *files, "--channel=SMS")

        assert ran.stdout == "1\tskip\tMERCHANT_NOT_RECORDED\n", ran.stderr
        assert wrong.returncode == 2
        assert "SMS is not one of" in wrong.stderr

    def test_embedded_nowhere(self, site: Site) -> None:
        """Without a store the embedded sender says so in one sentence, and sends nothing."""
        files = [f"--store={site.folder / 'nothing'}", f"--store-key={site.folder / 'store-key'}"]

        ran = site.run("embedded", *site.flags, *files, text="+905321000001\n")

        assert (ran.returncode, ran.stdout) == (2, "")
        assert ran.stderr.startswith("There is no store at")

    def test_batch_job(self, site: Site, tmp_path: Path) -> None:
        """A CSV comes out with its rows in order, all their columns, and the verdict of each, short rows too."""
        rows = [(f"name {number},\r\n{number}", address) for number, address in enumerate(list(ASKED) * 6_000)]
        with (tmp_path / "in.csv").open("w", newline="", encoding="utf-8-sig") as file:
            csv.writer(file).writerows([("number", "name"), *((phone, name) for name, phone in rows)])
            file.write("+90\r\n")

        ran = site.run(
            "batch_job",
            str(tmp_path / "in.csv"),
            str(tmp_path / "out.csv"),
            *site.flags,
            f"--server={site.server}",
            "--column=number",
        )

        assert ran.returncode == 0, ran.stderr
        with (tmp_path / "out.csv").open(newline="") as file:
            written = list(csv.reader(file))
        assert written[0] == ["number", "name", "permitted", "reason"]
        expected = [
            [address, name, "yes" if ASKED[address][0] == "send" else "no", ASKED[address][1]] for name, address in rows
        ]
        assert written[1:] == [*expected, ["+90", "", "no", "INVALID_ADDRESS"]]

    def test_batch_job_short_row(self, site: Site, tmp_path: Path) -> None:
        """A row that ends before the column of the phones is a no."""
        (tmp_path / "in.csv").write_text("name,phone\nsomebody\n")

        ran = site.run(
            "batch_job", str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), *site.flags, f"--server={site.server}"
        )

        assert ran.returncode == 0, ran.stderr
        assert (tmp_path / "out.csv").read_text().splitlines()[1] == "somebody,,no,INVALID_ADDRESS"

    def test_batch_job_wrong_column(self, site: Site, tmp_path: Path) -> None:
        """A file without the column is refused by the column's name."""
        (tmp_path / "in.csv").write_text("name\nsomebody\n")

        ran = site.run("batch_job", str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), *site.flags)

        assert ran.returncode == 2
        assert "phone" in ran.stderr
