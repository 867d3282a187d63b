"""A log over a real nats-server for tests of upgrades: primary, publisher and replica, each of a version of its own."""

import json
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from iyscheck.store.layout import LogState
from iyscheck.store.snapshot import Store
from tests.loader.replication.sites import until, write_cluster
from tests.upgrade.machines import Machine
from tests.upgrade.versions import Version

SNAPSHOTS = '\n[snapshots]\ndirectory = "snapshots"\nevery = "60s"\n'


@dataclass(kw_only=True)
class Log:
    """One folder has it all; `machine` is the primary's."""

    machine: Machine
    cluster: Path

    @classmethod
    def make(cls, machine: Machine, url: str) -> Self:
        """Write the cluster file."""
        (machine.folder / "snapshots").mkdir()
        return cls(machine=machine, cluster=write_cluster(machine.folder, [url], more=SNAPSHOTS))

    @property
    def replica(self) -> Path:
        """Where the replica's store is."""
        return self.machine.folder / "replica" / "store"

    def begin(self, version: Version) -> str:
        """Make the store a primary, and return what that says beside its output."""
        done = self.run(version, "create-log", "--replicas=1", "--kept-gb=1")
        assert done.returncode == 0, done.stderr
        return done.stderr

    def run(self, version: Version, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return self.machine.loader(version, *arguments, f"--cluster={self.cluster}")

    def load(self, version: Version, files: int = 1, *flags: str) -> None:
        """Load the next files of the feed."""
        names = [str(self.machine.folder / self.machine.write()) for _ in range(files)]
        done = self.machine.loader(version, "load", *names, *flags)
        assert done.returncode == 0, done.stderr

    def publish(self, version: Version) -> subprocess.Popen[bytes]:
        """Start a publisher, which makes no snapshots."""
        return self.machine.start(version, "publish", f"--cluster={self.cluster}", "--no-snapshots")

    def follow(self, version: Version, *flags: str) -> subprocess.Popen[bytes]:
        """Start a replica."""
        return self.machine.start(version, "replicate", f"--store={self.replica}", f"--cluster={self.cluster}", *flags)

    def said(self, name: str) -> list[dict[str, Any]]:
        """Return the lines that a command has logged."""
        written = self.machine.said_at(name).read_text().rpartition("\n")[0]
        return [json.loads(line) for line in written.splitlines() if line.startswith("{")]

    def forget(self, name: str) -> None:
        """Let what a command has said be gone."""
        self.machine.said_at(name).unlink()

    def told_of(self, name: str, *words: str) -> bool:
        """Say whether a line of a command has all these words."""
        return any(all(word in json.dumps(line) for word in words) for line in self.said(name))

    def state(self, path: Path | None = None) -> LogState | None:
        """Return how a store stands in the log: the replica's, None if there is none yet."""
        where = path or self.replica
        if not (where / "data.mdb").exists():
            return None
        with Store.open(where) as store, store.snapshot() as snapshot:
            return snapshot.log

    def stands(self, version: Version, path: Path) -> dict[str, Any] | None:
        """Have a version say where a store stands, and what it holds; None if there is none yet."""
        done = self.machine.loader(version, "digest", f"--store={path}", "--json")
        said: dict[str, Any] = json.loads(done.stdout)
        return None if done.returncode else {name: said[name] for name in ("batch", "sequence", "digest")}

    def wait_level(self, version: Version | None = None) -> None:
        """Wait until the replica has what the primary has; `version` is of what has opened the replica's store."""

        def is_level() -> bool:
            if version is not None:
                return self.stands(version, self.replica) == self.stands(version, self.machine.store) is not None
            here, there = self.state(), self.state(self.machine.store)
            return here is not None and there is not None and here.chain == there.chain

        until(is_level, "a replica that is level")


def ended(process: subprocess.Popen[bytes]) -> int:
    """End a process as systemd does, and return its exit code."""
    process.send_signal(signal.SIGTERM)
    return process.wait(60)
