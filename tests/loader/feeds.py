"""Feed rows and loads that the loader's tests share."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from iyscheck.errors import StoreCorruptError, StoreMissingError
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.store.snapshot import Store
from iyscheck.store.writer import Writer
from loader.loading.loader import Loader
from loader.loading.options import Options
from loader.loading.progress import Report
from loader.sources.files.given import sources_of
from tests.builders import ADDRESS_KEY, NOW, STORE_KEY

ROOT = Path(__file__).parents[2]


def consent(brand: object = 1, recipient: object = "+905321000001", **fields: object) -> dict[str, object]:
    """Make a consent row as İYS spells it; a field given as None is absent."""
    row: dict[str, object] = {
        "brandCode": brand,
        "recipient": recipient,
        "recipientType": "BIREYSEL",
        "type": "MESAJ",
        "status": "ONAY",
        "source": "HS_WEB",
        "consentDate": "2025-05-31 09:30:00",
        "creationDate": "2025-06-01 12:00:00",
        "transactionId": "ab" * 32,
    } | fields
    return {name: value for name, value in row.items() if value is not None}


def brand_row(brand: int = 1, **fields: object) -> dict[str, object]:
    """Make a brand row."""
    return {
        "kind": "brand",
        "brandCode": brand,
        "iysCode": 600_000,
        "active": True,
        "creationDate": "2020-06-01 00:00:00",
    } | fields


def watermark_row(until: str = "2026-01-01 03:00:00", **fields: object) -> dict[str, object]:
    """Make a watermark row of all brands; NOW is 2026-01-01 03:00:00 in Turkey."""
    return {"kind": "watermark", "completeUntil": until} | fields


def lines(rows: Iterable[Mapping[str, object] | bytes]) -> bytes:
    """Write rows as JSON Lines; bytes stay as they are."""
    return b"".join(
        (row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode()) + b"\n" for row in rows
    )


def position(path: Path) -> int:
    """Return how far a store has come; 0 while there is none."""
    try:
        with Store.open(path) as store, store.snapshot() as snapshot:
            return snapshot.position.sequence
    except (StoreMissingError, StoreCorruptError):
        return 0


class Desk:
    """A store with its loader in one directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = path / "store"
        self.rejects = path / "rejects"

    def file(self, name: str, *rows: Mapping[str, object] | bytes) -> str:
        """Write a feed file and return its path."""
        (self.path / name).write_bytes(lines(rows))
        return str(self.path / name)

    def load(self, *paths: str, now: float = NOW, source: str | None = None, **options: object) -> Report:
        """Load paths with the clock at `now`; `source` is the name of the only one."""
        chosen = Options(rejects=self.rejects, **options)  # type: ignore[arg-type] # the options, passed on
        with self.writer() as writer:
            loader = Loader(writer, address_key=ADDRESS_KEY, store_key=STORE_KEY, options=chosen, clock=lambda: now)
            return loader.load(sources_of(paths, name=source))

    def writer(self) -> Writer:
        """Open the store for writing."""
        return Writer.open(self.store, address_key_id=ADDRESS_KEY.key_id, store_key_id=STORE_KEY.key_id)

    def watermarks(self) -> dict[int, int]:
        """Return the watermarks in the store."""
        with Store.open(self.store) as store, store.snapshot() as snapshot:
            return snapshot.watermarks()

    def rejected(self) -> list[dict[str, object]]:
        """Return all entries of all rejects files."""
        files = sorted(self.rejects.glob("*")) if self.rejects.exists() else []
        return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]


class Command:
    """The command in a process of its own, with a store and keys in one directory."""

    def __init__(self, path: Path, program: tuple[str, ...] = ("-m", "loader")) -> None:
        self.path = path
        self._program = program
        self._started: list[subprocess.Popen[bytes]] = []
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "IYSCHECK_STORE": str(path / "store"),
            "IYSCHECK_ADDRESS_KEY": str(path / "address.key"),
            "IYSCHECK_STORE_KEY": str(path / "store.key"),
        }
        AddressKey.create(path / "address.key")
        StoreKey.create(path / "store.key")

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start it."""
        process = subprocess.Popen(
            [sys.executable, *self._program, *arguments],
            env=self.environment,
            cwd=self.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._started.append(process)
        return process

    def stop(self) -> None:
        """Kill what still runs of that which was started."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.communicate()

    def run(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run it to its end."""
        return subprocess.run(
            [sys.executable, *self._program, *arguments],
            env=self.environment,
            cwd=self.path,
            input=stdin,
            capture_output=True,
            check=False,
            timeout=60,
        )
