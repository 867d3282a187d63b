"""A receiver as an operator runs it: a process of its own, over TLS, beside a store."""

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import trustme

from iyscheck.keys import AddressKey
from loader.push.credentials import Credentials, Made
from loader.push.journal import Journal, Place
from tests.processes import START_S, Site

IYS_CODE, BRAND = 700_001, 600_001


def row(number: int, **changes: object) -> dict[str, object]:
    """Make a refusal by a citizen, as İYS pushes it."""
    return {
        "iysCode": IYS_CODE,
        "brandCode": BRAND,
        "consentDate": "2026-01-05 10:00:00",
        "creationDate": "2026-01-05 10:00:00",
        "source": "IYS_MOBIL",
        "recipientType": "BIREYSEL",
        "recipient": f"+90532{number:07}",
        "status": "RET",
        "type": "MESAJ",
        "transactionId": f"{number:064x}",
    } | changes


@dataclass(kw_only=True)
class Receiving:
    """A folder with keys and a store to be, certificates, and the receiver's feeds file."""

    site: Site
    authority: trustme.CA = field(default_factory=trustme.CA)
    url: str = ""
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def make(cls, folder: Path) -> "Receiving":
        """Make all of it."""
        made = cls(site=Site.make(folder))
        made.renew()
        (folder / "acme.password").write_text("secret\n")
        (folder / "acme.password").chmod(0o600)
        made.configure()
        return made

    @property
    def push(self) -> Path:
        """Where what is pushed lies."""
        return self.site.folder / "store.iys" / "push"

    @property
    def config(self) -> Path:
        """The feeds file."""
        return self.site.folder / "feeds.toml"

    @property
    def key(self) -> AddressKey:
        """The address key."""
        return AddressKey.load(self.site.folder / "address.key")

    def renew(self) -> None:
        """Give the receiver a new certificate."""
        certificate = self.authority.issue_cert("127.0.0.1", "localhost")
        for name, content in (
            ("receiver.key", certificate.private_key_pem.bytes()),
            ("receiver.pem", b"".join(each.bytes() for each in certificate.cert_chain_pems)),
        ):
            path = self.site.folder / name
            new = path.with_name(name + ".new")
            new.write_bytes(content)
            new.chmod(0o600)
            new.rename(path)

    def configure(self, url: str = "http://127.0.0.1:1", **receive: object) -> None:
        """Write the feeds file, for an İYS at an address."""
        settings = {
            "listen": f"127.0.0.1:{self.port}",
            "public_url": f"https://127.0.0.1:{self.port}/push",
            "certificate": "receiver.pem",
            "key": "receiver.key",
        } | receive
        lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in settings.items())
        self.config.write_text(
            f'[mirror]\nurl = "{url}"\ninterval = "60s"\nrate = 9\n[receive]\n{lines}\n'
            f'[[account]]\nname = "acme"\nkind = "provider"\ncode = {IYS_CODE}\nusername = "acme"\n'
            'password_file = "acme.password"\n'
        )
        self.config.chmod(0o600)

    @property
    def flags(self) -> list[str]:
        """What every command of `receive` is told."""
        return [
            f"--config={self.config}",
            f"--store={self.site.store}",
            f"--address-key={self.site.folder / 'address.key'}",
        ]

    def start(self) -> None:
        """Start the receiver and wait until it listens."""
        log = self.site.folder / "receiver.log"
        begun = len(_events(log, "receiving"))
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "loader", "receive", *self.flags, "--metrics-listen=127.0.0.1:0"], stderr=stderr
            )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            if len(told := _events(log, "receiving")) > begun:
                self.url = told[-1]["listen"]
                self.port = int(self.url.rstrip("/").rpartition(":")[2])
                return
            time.sleep(0.02)
        raise AssertionError(log.read_text())

    def stop(self) -> int:
        """End the receiver as an operator does; gives its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(START_S)

    def kill(self) -> None:
        """End the receiver as a crash does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(START_S)

    def credential(self, *brands: int) -> Made:
        """Make credentials that may bring rows of brands."""
        return Credentials.of(self.push).make("acme", IYS_CODE, brands or (BRAND,), key=self.key, now_s=time.time())

    @contextmanager
    def client(self, made: Made | None = None) -> Iterator[httpx.Client]:
        """Give a client that trusts the receiver, and shows credentials."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        auth = None if made is None else (made.credential.name, made.password)
        with httpx.Client(verify=context, auth=auth, base_url=self.url, timeout=START_S) as client:
            yield client

    def journalled(self) -> list[dict[str, object]]:
        """Read all rows of the journal."""
        taken = Journal(self.push / "journal", self.key).read(Place(), most_rows=10**9)
        return [row for entry in taken.entries for row in entry.rows]

    def log(self) -> str:
        """Read what the receiver logged."""
        return (self.site.folder / "receiver.log").read_text()

    def said(self, *arguments: str) -> tuple[int, str]:
        """Run a command of `receive`; gives its exit code, and what it printed."""
        keys = {"IYSCHECK_STORE": str(self.site.store), "IYSCHECK_ADDRESS_KEY": str(self.site.folder / "address.key")}
        command = [sys.executable, "-m", "loader", "receive", *arguments, f"--config={self.config}"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=START_S, env={**os.environ, **keys}
        )
        return done.returncode, done.stdout + done.stderr


@contextmanager
def received(folder: Path) -> Iterator[Receiving]:
    """Run a receiver; ends it with SIGTERM, and sees that this went well."""
    receiving = Receiving.make(folder)
    receiving.start()
    try:
        yield receiving
        assert receiving.stop() == 0, receiving.log()
    finally:
        with suppress(ProcessLookupError):
            receiving.kill()


def body(rows: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Make the body of a push."""
    return {"list": list(rows)}


def _events(log: Path, name: str) -> list[dict[str, str]]:
    """Read the lines of a log that are of an event; the last line may be under way."""
    if not log.exists():
        return []
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{") and line.endswith("}")]
    return [line for line in lines if line.get("event") == name]
