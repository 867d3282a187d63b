"""PostgreSQL: one table, one index, `k = ANY($1)` prepared and binary over a unix socket."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bench.arrivals import percentiles
from bench.machine import on_core
from bench.peers.programs import AbsentError, program
from bench.processes import ProcessError

PORT = 26_432
COPY_ROWS = 200_000
_SETTINGS = "shared_buffers=4GB\nmax_wal_size=8GB\nfsync=off\nsynchronous_commit=off\nlisten_addresses=''\n"


@contextmanager
def serving(*, consents: int, core: int) -> Iterator[str]:
    """Make a cluster in a new folder, fill it, give its connection string. Raises AbsentError where it cannot be."""
    binaries = _binaries()
    try:
        import psycopg
    except ImportError as error:
        raise AbsentError("the Python package psycopg is missing (pip install 'psycopg[binary]')") from error
    runuser = _as_other_user()
    data = Path(tempfile.mkdtemp(prefix="iyscheck-postgres-"))  # another user must be able to reach it
    if runuser:
        shutil.chown(data, "postgres")
    _run([*runuser, str(binaries / "initdb"), "-D", str(data), "-U", "bench", "-A", "trust"])
    with (data / "postgresql.conf").open("a") as settings:
        settings.write(f"{_SETTINGS}port={PORT}\nunix_socket_directories='{data}'\n")
    control = [*runuser, str(binaries / "pg_ctl"), "-D", str(data)]
    try:
        with on_core(core):
            _run([*control, "-l", str(data / "log"), "-w", "start"])
        where = f"host={data} port={PORT} user=bench dbname=postgres"
        with psycopg.connect(where) as connection:
            connection.execute("CREATE TABLE consents (k bytea, v smallint NOT NULL)")
            with connection.cursor().copy("COPY consents FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["bytea", "int2"])
                for number in range(consents):
                    copy.write_row((_key(number), 1))
            connection.execute("ALTER TABLE consents ADD PRIMARY KEY (k)")
        with psycopg.connect(where, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE consents")
        yield where
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], cwd="/", capture_output=True, check=False)
        shutil.rmtree(data, ignore_errors=True)


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        raise AbsentError("PostgreSQL is not installed (on Debian and Ubuntu: sudo apt-get install postgresql)")
    return found[-1].parent


def _as_other_user() -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid():
        return []
    try:
        pwd.getpwnam("postgres")
    except KeyError as error:
        raise AbsentError("PostgreSQL does not run as root, and there is no user postgres") from error
    return [program("runuser", "util-linux"), "-u", "postgres", "--"]


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        cwd="/",
    )  # fmt: skip - what is run, and how
    if done.returncode:
        raise ProcessError(f"{command[-6:]}: {done.stderr[-500:]}")


def _key(number: int) -> bytes:
    return b"key:%012d" % number


class PostgresAsker:
    """Asks for many keys in one prepared statement over one connection."""

    def __init__(self, where: str, consents: int) -> None:
        import psycopg

        self._connection = psycopg.connect(where, autocommit=True)
        self._connection.prepare_threshold = 1
        self._consents = consents

    def any(self, keys: int, seconds: float, hit_rate: float, seed: int) -> dict[str, float]:
        """Ask `= ANY($1)` with so many keys each time; keys per second, hits, and latencies."""
        random = np.random.default_rng(seed)
        bound = round(self._consents / hit_rate)
        asked = [[_key(number) for number in random.integers(0, bound, keys).tolist()] for _ in range(500)]
        taken: list[float] = []
        hits = 0
        with self._connection.cursor(binary=True) as cursor:
            started = time.perf_counter()
            while time.perf_counter() < started + seconds:
                began = time.perf_counter()
                cursor.execute("SELECT k, v FROM consents WHERE k = ANY(%b)", (asked[len(taken) % len(asked)],))
                hits += len(cursor.fetchall())
                taken.append(time.perf_counter() - began)
            total = time.perf_counter() - started
        answered = keys * len(taken)
        return {"rate": answered / total, "hits": hits / answered, **percentiles(np.array(taken))}
