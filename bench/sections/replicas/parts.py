"""What the sections on replicas share: copies of the kept store as primary and replicas, and the loader's commands."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from bench import product, replication
from bench.processes import HERE, ProcessError
from bench.session import Session

WAIT_S = 900.0


def primary_of(session: Session, size: int, folder: Path, name: str = "primary") -> Path:
    """Copy the kept store of a size and make the copy the primary of a log."""
    store = copy_of(session.stores.store(size), folder / name)
    replication.make_log_keys(session.stores.keys)
    replication.make_primary(store, session.stores.keys)
    return store


def replica_of(primary: Path, folder: Path, name: str) -> Path:
    """Copy a primary that nobody writes now, and make the copy a replica that stands where it stands."""
    store = copy_of(primary, folder / name)
    (store / "acknowledged").unlink(missing_ok=True)
    replication.make_replica(store)
    return store


def copy_of(source: Path, target: Path) -> Path:
    """Copy a store's files."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("lock.mdb", "writer.lock"))
    return target


def loader(store: Path, cluster: Path, command: str, *arguments: str) -> list[str]:
    """Return the command line of the real loader for a store in a log."""
    return HERE.command("-m", "loader", command, f"--store={store}", f"--cluster={cluster}", *arguments)


def key_flags(keys: Path) -> list[str]:
    """Name the two keys of a store."""
    return product.key_flags(Path(), keys)[1:]


def wait(what: str, happened: Callable[[], bool], *, every_s: float = 0.01) -> float:
    """Wait until something has happened; return when, in monotonic seconds. Raises ProcessError."""
    deadline = time.monotonic() + WAIT_S
    while not happened():
        if time.monotonic() > deadline:
            raise ProcessError(f"in {WAIT_S:.0f} s it did not come to this: {what}")
        time.sleep(every_s)
    return time.monotonic()
