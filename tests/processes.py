"""Real processes for end-to-end tests: the loader and the server, started as an operator starts them."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from iyscheck.keys import AddressKey, StoreKey

START_S = 60.0


def turkish_now() -> str:
    """Return now as İYS writes it."""
    return datetime.now(ZoneInfo("Europe/Istanbul")).strftime("%Y-%m-%d %H:%M:%S")


@dataclass(frozen=True, kw_only=True)
class Site:
    """A folder with keys and a store, and what its processes printed."""

    folder: Path
    printed: list[str] = field(default_factory=list)

    @classmethod
    def make(cls, folder: Path) -> "Site":
        """Make the folder's keys."""
        AddressKey.create(folder / "address.key")
        StoreKey.create(folder / "store.key")
        return cls(folder=folder)

    @property
    def store(self) -> Path:
        """Where the store is."""
        return self.folder / "store"

    @property
    def flags(self) -> list[str]:
        """Store and keys as flags, the same for loader and server."""
        keys = [f"--address-key={self.folder / 'address.key'}", f"--store-key={self.folder / 'store.key'}"]
        return [f"--store={self.store}", *keys]

    def feed(self, name: str, rows: Sequence[Mapping[str, object] | str]) -> Path:
        """Write rows as JSON Lines; a text is written as it is."""
        path = self.folder / name
        lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    def loader(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the loader."""
        command = [sys.executable, "-m", "loader", *arguments, *self.flags]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def load(self, *arguments: str) -> int:
        """Run `load` to its end, keep what it printed, and return its exit code."""
        process = self.loader("load", *arguments)
        self.printed.extend(process.communicate(timeout=120))
        return process.returncode

    @contextmanager
    def serving(self, *arguments: str) -> Iterator[dict[str, str]]:
        """Run the server on free ports; gives what it said of itself when it was ready. Ends it with SIGTERM."""
        log = self.folder / "server.log"
        command = [sys.executable, "-m", "iyscheck", "serve", *self.flags, "--listen=127.0.0.1:0"]
        command += ["--metrics-listen=127.0.0.1:0", *arguments]
        with log.open("w") as stderr:
            process = subprocess.Popen(command, stderr=stderr, stdout=stderr)
        try:
            yield self.ready(process, log)
            process.send_signal(signal.SIGTERM)
            assert process.wait(START_S) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
            self.printed.append(log.read_text())

    def ready(self, process: "subprocess.Popen[bytes]", log: Path) -> dict[str, str]:
        """Wait until a server says that it serves; gives what it says."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and process.poll() is None:
            for line in log.read_text().splitlines():
                if '"event": "serving"' in line:
                    said: dict[str, str] = json.loads(line)
                    return said
            time.sleep(0.05)
        raise AssertionError(log.read_text())
