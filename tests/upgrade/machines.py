"""A store, its keys and its feed in a folder, over which processes of any version run; the right answers are known."""

import hashlib
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from bench.cluster.changes import Changes
from bench.soak.model import REASONS, Ask
from bench.soak.world import World
from iyscheck.keys import AddressKey, StoreKey
from tests.server.conftest import Site
from tests.server.processes.running import Running, running
from tests.upgrade.versions import Version

ASKS = Path(__file__).with_name("asks.py")
_SEED = 7
_CONSENTS = 2_000
_ROWS = 400
_QUESTIONS = 120


@dataclass(kw_only=True)
class Machine:
    """What is in one folder; `changes` knows what was written, and so which answers are right."""

    folder: Path
    world: World
    changes: Changes
    started: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @classmethod
    def make(cls, folder: Path) -> Self:
        """Make keys, and the first file of the feed."""
        folder.mkdir(exist_ok=True)
        AddressKey.create(folder / "address.key")
        StoreKey.create(folder / "store.key")
        return cls._at(folder)

    def copied(self, folder: Path) -> Self:
        """Copy the store and its keys. Nothing of it may be running. The rows are the same, those to come as well."""
        (folder / "store").mkdir(parents=True)
        for name in ("address.key", "store.key", "store/data.mdb"):
            shutil.copy(self.folder / name, folder / name)
        return self._at(folder)

    @classmethod
    def _at(cls, folder: Path) -> Self:
        world = World(_SEED, _CONSENTS)
        changes = Changes(folder, world, rows_per_s=4 * _ROWS)
        changes.write_first(folder / "first.jsonl")
        return cls(folder=folder, world=world, changes=changes)

    @property
    def store(self) -> Path:
        """Where the store is."""
        return self.folder / "store"

    @property
    def settings(self) -> dict[str, str]:
        """What the loader's commands are told by their environment."""
        return {
            "IYSCHECK_STORE": str(self.store),
            "IYSCHECK_ADDRESS_KEY": str(self.folder / "address.key"),
            "IYSCHECK_STORE_KEY": str(self.folder / "store.key"),
        }

    def stored(self) -> str:
        """Return the SHA-256 of the data file."""
        return hashlib.sha256((self.store / "data.mdb").read_bytes()).hexdigest()

    def loader(self, version: Version, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of the loader to its end."""
        return version.python("-m", "loader", *arguments, settings=self.settings)

    def load(self, version: Version, name: str = "first.jsonl") -> "subprocess.CompletedProcess[str]":
        """Load a file of the feed."""
        done = self.loader(version, "load", str(self.folder / name))
        assert done.returncode == 0, done.stderr
        return done

    def write(self) -> str:
        """Write the next file of the feed, and return its name."""
        self.changes.write_next()
        return f"{self.changes.files - 1:06}.jsonl"

    def start(self, version: Version, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start a command of the loader that stays; what it says is added to a file of its name."""
        with self.said_at(arguments[0]).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "loader", *arguments],
                env=version.environment | self.settings,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.started.append(process)
        return process

    def said_at(self, name: str) -> Path:
        """Where a command of the loader that stays says what it has to say."""
        return self.folder / f"{name}.log"

    def stop(self) -> None:
        """Kill what still runs."""
        for process in self.started:
            process.kill()
            process.wait()

    @contextmanager
    def serving(self, version: Version, *flags: str, store: Path | None = None) -> Iterator[Running]:
        """Run a server of a version."""
        where = ["--workers=1", f"--store={store or self.store}", *flags]
        names = ("PYTHONPATH", "PYTHONSAFEPATH")
        with running(Site(self.folder), *where, **{name: version.environment[name] for name in names}) as server:
            yield server

    def asks(self) -> list[Ask]:
        """Return questions of all kinds, always the same ones."""
        dice = random.Random(_SEED)
        return [self.world.ask(dice) for _ in range(_QUESTIONS)]

    def right(self, sequence: int | None = None) -> list[int]:
        """Return the numbers of the right answers to them where so many rows are in; default: all that were written."""
        numbers = {name: number for number, name in REASONS.items()}
        model = self.changes.model
        return [numbers[model.reason(ask, model.rows if sequence is None else sequence)] for ask in self.asks()]

    def told(self, version: Version, target: str) -> dict[str, Any]:
        """Ask a server in every way that a version's client has, and return what it was told."""
        asked = [[ask.brand, ask.channel, ask.kind, ask.spelt, ask.retailer, ask.exempt] for ask in self.asks()]
        done = version.python(str(ASKS), target, str(self.folder / "address.key"), json.dumps(asked))
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def assert_right(self, told: dict[str, Any], sequence: int | None = None) -> None:
        """See that all answers are the right ones, in every way of asking, and that the server says it gives them."""
        right = self.right(sequence)
        ways = {way: reasons for way, reasons in told.items() if way not in {"info", "health"}}
        assert len(ways) == 9, sorted(ways)
        for way, reasons in ways.items():
            assert reasons == right[: len(reasons)], way
        assert told["info"]["sequence"] == (self.changes.model.rows if sequence is None else sequence)
        assert told.get("health", [True, True])[:2] == [True, True]
