"""What a figure was taken on, and which core a process runs on."""

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("grpcio", "protobuf", "lmdb", "numpy", "numba", "cryptography", "msgspec", "redis", "hiredis", "psycopg")
ROOT = Path(__file__).parent.parent
_DROP_CACHES = Path("/proc/sys/vm/drop_caches")


def facts() -> dict[str, str]:
    """Describe machine, system, versions, commit and time."""
    return {
        "cpu": _named("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": str(os.cpu_count()),
        "memory": _named("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        "commit": commit(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def commit(revision: str = "HEAD") -> str:
    """Name a commit of this repository; with `+changes` where HEAD is not what is being run."""
    done = _git("rev-parse", "--short=12", revision)
    dirty = revision == "HEAD" and _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results")
    return (done or "unknown") + ("+changes" if dirty else "")


def cores() -> tuple[int, int]:
    """Return the cores of server and client: the first two that this process may use, or one for both."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[min(1, len(allowed) - 1)]


@contextmanager
def on_core(*cores: int) -> Iterator[None]:
    """Run this thread on one core (or a few) for a while; processes started meanwhile stay there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def drop_cache(folder: Path) -> str:
    """Make the system forget the files of a folder; returns how it was done, or why it could not be."""
    os.sync()
    try:
        _DROP_CACHES.write_text("1")
    except OSError as error:
        for path in folder.iterdir():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return f"posix_fadvise only ({error.strerror} on drop_caches): pages that are mapped elsewhere stay warm"
    return "echo 1 > /proc/sys/vm/drop_caches"


def _git(*arguments: str) -> str:
    done = subprocess.run(["/usr/bin/env", "git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _named(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
