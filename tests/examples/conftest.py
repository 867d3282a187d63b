"""What the tests from outside Python share: Node.js, its example with fresh stubs, and a server with its process."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes import Site, turkish_now

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "iyscheck" / "examples" / "node"
PACKAGES = EXAMPLE / "node_modules"
BRAND, INACTIVE, STALE = 600_123, 600_124, 600_125
EARLY = "2024-01-01 09:00:00"


def environment() -> dict[str, str]:
    """The environment of a shell in which this virtual environment is active."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def in_environment(*command: str, folder: Path = ROOT, text: bytes = b"") -> "subprocess.CompletedProcess[str]":
    """Run a command as from a shell in which this virtual environment is active."""
    ran = subprocess.run(
        ["/usr/bin/env", *command],
        cwd=folder,
        input=text,
        capture_output=True,
        env=environment(),
        timeout=120,
        check=False,
    )
    return subprocess.CompletedProcess(ran.args, ran.returncode, ran.stdout.decode(), ran.stderr.decode())


@dataclass(frozen=True)
class Gateway:
    """A copy of the Node.js example, set up as its README says."""

    folder: Path

    def run(self, mode: str, *arguments: str, lines: list[str] | bytes = b"") -> "subprocess.CompletedProcess[str]":
        """Run it over lines, or over bytes as they are."""
        text = lines if isinstance(lines, bytes) else "".join(f"{line}\n" for line in lines).encode()
        return in_environment("node", "gateway.js", mode, *arguments, folder=self.folder, text=text)

    def started(self, mode: str, server: str, *arguments: str) -> "subprocess.Popen[str]":
        """Start it; what it is to ask about comes later."""
        command = ["/usr/bin/env", "node", "gateway.js", mode, f"--brand={BRAND}", f"--server={server}", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.folder, env=environment(), stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )

    def asked(self, mode: str, server: str, *arguments: str, lines: list[str]) -> "subprocess.CompletedProcess[str]":
        """Ask a server about the brand of these tests, or what the arguments name instead."""
        return self.run(mode, f"--brand={BRAND}", f"--server={server}", *arguments, lines=lines)


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Gateway:
    """The example in a folder of its own, its stubs generated from the contract."""
    assert PACKAGES.is_dir(), "scripts/test installs the example's packages: run it once"
    clone = tmp_path_factory.mktemp("clone")
    folder = clone / EXAMPLE.relative_to(ROOT)
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules", "generated"))
    shutil.copytree(ROOT / "proto", clone / "proto")
    (folder / "node_modules").symlink_to(PACKAGES)
    generated = in_environment("npm", "run", "generate", folder=folder)
    assert generated.returncode == 0, generated.stderr
    return Gateway(folder)


@dataclass(frozen=True)
class Served:
    """A server process: where it listens, and the file of the address key."""

    target: str
    address_key: Path


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server over a store with something of every kind, loaded and started as an operator does it."""
    site = Site.make(tmp_path_factory.mktemp("outside"))
    exit_code = site.load(str(site.feed("feed.jsonl", _rows())))
    assert exit_code == 0, site.printed
    with site.serving("--workers=1", "--drain-seconds=0") as said:
        yield Served(target=said["listen"], address_key=site.folder / "address.key")


def _rows() -> list[dict[str, object]]:
    brands = [
        {"kind": "brand", "brandCode": brand, "iysCode": 1, "active": brand != INACTIVE, "creationDate": EARLY}
        for brand in (BRAND, INACTIVE, STALE)
    ]
    watermarks = [
        {"kind": "watermark", "brandCode": brand, "completeUntil": turkish_now()} for brand in (BRAND, INACTIVE)
    ]
    return [
        *brands,
        _consent("+905321234567"),
        _consent("+905321234567", brandCode=STALE),
        _consent("+905321000002", status="RET", source="IYS_WEB", transactionId="a" * 64),
        _consent("+905321000003", status="BEKLEMEDE"),
        _consent("+905321000004", consentDate="2019-05-02 10:00:00"),
        _consent("+905321000006", status="RET", recipientType="TACIR"),
        _consent("someone@example.org", type="EPOSTA"),
        *watermarks,
    ]


def _consent(recipient: str, **fields: object) -> dict[str, object]:
    """A row such as README.md loads in its five minutes, but for what is named."""
    row = {"brandCode": BRAND, "recipientType": "BIREYSEL", "type": "MESAJ", "status": "ONAY", "source": "HS_WEB"}
    times = {"consentDate": "2024-05-02 10:00:00", "creationDate": "2024-05-02 10:05:00"}
    return {**row, **times, "recipient": recipient, **fields}


def json_lines(text: str) -> list[dict[str, object]]:
    """Read one object a line."""
    return [json.loads(line) for line in text.splitlines()]
