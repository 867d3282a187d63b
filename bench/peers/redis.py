"""Redis: one server on the server's core without persistence, asked by its own C client on the other core.

Keys are 16 bytes (`key:` and twelve digits), values one byte; as many keys as the store has consents. redis-benchmark
draws each key of an MGET at random below a bound, so the bound gives the hit rate.
"""

import csv
import io
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.arrivals import percentiles
from bench.machine import on_core
from bench.measures import Run
from bench.peers.programs import AbsentError, program
from bench.processes import ProcessError, running

_FILL = """
for i = tonumber(ARGV[1]), tonumber(ARGV[2]) - 1 do
  redis.call('SET', string.format('key:%012d', i), '1')
end
"""
FILL_KEYS = 200_000
PORT = 26_379


@dataclass(frozen=True, slots=True)
class Setting:
    """How redis-benchmark asks: keys per MGET, connections, requests on their way per connection, transport."""

    keys: int
    clients: int
    pipeline: int
    unix: bool = True

    def __str__(self) -> str:
        transport = "unix socket" if self.unix else "TCP"
        return f"MGET of {self.keys}, {self.clients} connections, pipeline {self.pipeline}, {transport}"


@dataclass(frozen=True, kw_only=True)
class Redis:
    """A Redis that runs and holds `consents` keys."""

    socket: str
    consents: int
    benchmark: str
    client_core: int

    def command(self, setting: Setting, requests: int, hit_rate: float) -> list[str]:
        """Write the command line of the C client."""
        where = ["-s", self.socket] if setting.unix else ["-h", "127.0.0.1", "-p", str(PORT)]
        bound = round(self.consents / hit_rate)
        how = ["-c", str(setting.clients), "-P", str(setting.pipeline), "-n", str(requests), "-r", str(bound), "--csv"]
        return [self.benchmark, *where, *how, "MGET", *["key:__rand_int__"] * setting.keys]

    def rate(self, setting: Setting, *, keys: int, hit_rate: float) -> Run:
        """Ask for about so many keys; keys answered per second, and latencies of requests."""
        requests = max(setting.clients * setting.pipeline * 4, keys // setting.keys)
        with on_core(self.client_core):
            done = subprocess.run(
                self.command(setting, requests, hit_rate), capture_output=True, text=True, check=False
            )
        found = [row for row in csv.reader(io.StringIO(done.stdout)) if row and row[0].startswith("MGET")]
        if done.returncode or not found:
            raise ProcessError(f"redis-benchmark: {done.stderr or done.stdout}")
        latency = {"p50": float(found[0][4]), "p99": float(found[0][6]), "max": float(found[0][7])}
        return Run(float(found[0][1]) * setting.keys, latency)

    def gets(self, *, clients: int, seconds: float, hit_rate: float, expected: float = 60_000) -> Run:
        """Get single keys over so many TCP connections, each after the other: what one call at a time comes to."""
        where = [self.benchmark, "-h", "127.0.0.1", "-p", str(PORT)]
        how = ["-c", str(clients), "-n", str(round(expected * seconds)), "-r", str(round(self.consents / hit_rate))]
        with on_core(self.client_core):
            done = subprocess.run(
                [*where, *how, "--csv", "GET", "key:__rand_int__"], capture_output=True, text=True, check=False
            )
        found = [row for row in csv.reader(io.StringIO(done.stdout)) if row and row[0].startswith("GET")]
        if done.returncode or not found:
            raise ProcessError(f"redis-benchmark: {done.stderr or done.stdout}")
        return Run(float(found[0][1]), {"p50": float(found[0][4]), "p99": float(found[0][6])})

    def for_seconds(self, setting: Setting, *, seconds: float, hit_rate: float, expected: float) -> Run:
        """Ask for about so long, given about how fast it will be."""
        return self.rate(setting, keys=round(expected * seconds), hit_rate=hit_rate)

    def best(self, *, hit_rate: float, seconds: float) -> tuple[Setting, dict[str, float]]:
        """Find its best setting: MGET size first, then connections, pipeline and transport around the best size."""
        tried: dict[Setting, float] = {}

        def attempt(setting: Setting) -> None:
            tried[setting] = self.rate(setting, keys=round(1.5e6 * seconds), hit_rate=hit_rate).value

        def leader() -> Setting:
            return max(tried, key=lambda setting: tried[setting])

        for keys in (50, 100, 200, 500, 1000):
            attempt(Setting(keys, 16, 1))
        for clients, pipeline in ((1, 1), (4, 1), (50, 1), (4, 4), (16, 4), (16, 16)):
            attempt(Setting(leader().keys, clients, pipeline))
        found = leader()
        attempt(Setting(found.keys, found.clients, found.pipeline, unix=False))
        return leader(), {str(setting): rate for setting, rate in tried.items()}


@contextmanager
def serving(*, consents: int, folder: Path, server_core: int, client_core: int) -> Iterator[Redis]:
    """Run a Redis and fill it. Raises AbsentError where it cannot be had."""
    server, benchmark = program("redis-server", "redis-server"), program("redis-benchmark", "redis-tools")
    client = _client()
    socket = folder / "redis.sock"
    command = [
        server,
        "--port",
        str(PORT),
        "--bind",
        "127.0.0.1",
        "--unixsocket",
        str(socket),
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        str(folder),
    ]  # fmt: skip - flags and their values
    log = folder / "redis.log"
    with running(command, core=server_core, log=log) as process:
        deadline = time.monotonic() + 30
        while not socket.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if process.poll() is not None:
            raise AbsentError(f"redis-server ended: {log.read_text()[-300:]}")
        connection = client(unix_socket_path=str(socket))
        script = connection.register_script(_FILL)
        for at in range(0, consents, FILL_KEYS):
            script(args=[at, min(at + FILL_KEYS, consents)])
        if connection.dbsize() != consents:
            raise ProcessError(f"Redis holds {connection.dbsize()} keys, not {consents}")
        connection.close()
        yield Redis(socket=str(socket), consents=consents, benchmark=benchmark, client_core=client_core)


def statistics(socket: str) -> tuple[str, int, float]:
    """Return the version of Redis, the bytes of memory that it uses, and the share of hits since it was started."""
    connection = _client()(unix_socket_path=socket)
    info = connection.info()
    connection.close()
    hits, misses = info["keyspace_hits"], info["keyspace_misses"]
    return info["redis_version"], info["used_memory"], hits / max(1, hits + misses)


def _client() -> Callable[..., Any]:  # Any: redis is of the extra `bench`, its types are not checked
    try:
        import redis
    except ImportError as error:
        raise AbsentError("the Python package redis is missing (pip install 'redis[hiredis]')") from error
    client: Callable[..., Any] = redis.Redis
    return client


class RedisGetter:
    """Gets single keys from Python over one unix-socket connection (redis-py with hiredis)."""

    def __init__(self, socket: str, consents: int) -> None:
        self._connection = _client()(unix_socket_path=socket)
        self._consents = consents

    def gets(self, count: int, hit_rate: float, seed: int) -> dict[str, float]:
        """Get distinct keys one by one; returns gets per second and latencies."""
        random = np.random.default_rng(seed)
        keys = [f"key:{number:012d}" for number in random.integers(0, round(self._consents / hit_rate), count).tolist()]
        get = self._connection.get
        taken = np.empty(count)
        hits = 0
        started = time.perf_counter()
        for at, key in enumerate(keys):
            began = time.perf_counter()
            hits += get(key) is not None
            taken[at] = time.perf_counter() - began
        return {"rate": count / (time.perf_counter() - started), "hits": hits / count, **percentiles(taken)}
