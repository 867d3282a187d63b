import csv
import io
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from iyscheck.consent import Status
from iyscheck.server.app import Server
from iyscheck.server.log import open_log
from iyscheck.server.settings import Settings
from tests.builders import ADDRESS_KEY, STORE_KEY, StoreBuilder

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
    """A server over a store, and the files it was made of."""

    folder: Path
    server: str

    def run(self, name: str, *arguments: str, text: str = "") -> "subprocess.CompletedProcess[str]":
        """Run an example as a user would."""
        command = [sys.executable, "-m", f"iyscheck.examples.{name}", *arguments]
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)

    @property
    def flags(self) -> list[str]:
        """What all senders are told."""
        return [f"--brand={BRAND}", f"--address-key={self.folder / 'address-key'}"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A small store behind a real server."""
    folder = tmp_path_factory.mktemp("site")
    for key in (ADDRESS_KEY, STORE_KEY):
        file = folder / key.kind
        file.touch(0o600)
        file.write_text(f"iyscheck {key.kind} 1 {key._secret.hex()}\n")
    with StoreBuilder(folder / "store") as store:
        store.brand(BRAND, now=True)
        store.consent(brand=BRAND, recipient="+905321000001")
        store.consent(brand=BRAND, recipient="+905321000002", status=Status.RET).commit()
    settings = Settings.read(
        store=folder / "store",
        address_key=folder / "address-key",
        store_key=folder / "store-key",
        listen="127.0.0.1:0",
        metrics_listen="",
        drain_seconds=0,
    )
    with Server.start(settings, open_log("error", io.StringIO())) as server:
        yield Site(folder=folder, server=server.address)


class TestExamples:
    """Each example runs, and says what the store says."""

    @pytest.mark.parametrize("name", ["threaded_sender", "asyncio_sender"])
    def test_senders(self, site: Site, name: str) -> None:
        """Senders answer line by line, in order, and print no address."""
        text = "".join(f"{address}\n" for address in ASKED)

        ran = site.run(name, *site.flags, f"--server={site.server}", text=text)

        assert ran.stdout.splitlines() == VERDICTS, ran.stderr
        assert ran.stderr == ""

    def test_unanswered(self, site: Site) -> None:
        """Without a server nothing is sent."""
        ran = site.run("asyncio_sender", *site.flags, "--server=127.0.0.1:1", "--timeout=0.5", text="+905321000001\n")

        assert ran.stdout == "1\tskip\tUNAVAILABLE\n", ran.stderr

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
        """A CSV comes out with its rows in order, all their columns, and the verdict of each."""
        rows = [(f"name {number}, {number}", address) for number, address in enumerate(list(ASKED) * 6_000)]
        with (tmp_path / "in.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("name", "phone"), *rows])

        ran = site.run(
            "batch_job", str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), *site.flags, f"--server={site.server}"
        )

        assert ran.returncode == 0, ran.stderr
        with (tmp_path / "out.csv").open(newline="") as file:
            written = list(csv.reader(file))
        assert written[0] == ["name", "phone", "permitted", "reason"]
        expected = [
            [name, address, "yes" if ASKED[address][0] == "send" else "no", ASKED[address][1]] for name, address in rows
        ]
        assert written[1:] == expected

    def test_batch_job_wrong_column(self, site: Site, tmp_path: Path) -> None:
        """A file without the column is refused by the column's name."""
        (tmp_path / "in.csv").write_text("name\nsomebody\n")

        ran = site.run("batch_job", str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), *site.flags)

        assert ran.returncode == 2
        assert "phone" in ran.stderr
