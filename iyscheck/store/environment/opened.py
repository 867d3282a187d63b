"""An open store, for those who read or write it, until it is closed or its process is forked."""

import ctypes
from pathlib import Path
from typing import NoReturn, Protocol, cast
from weakref import WeakSet

import lmdb

from iyscheck.errors import StoreClosedError, StoreReplacedError
from iyscheck.store.environment.databases import Databases
from iyscheck.store.environment.files import DATA_FILE, Files, check_pair


class Inheritor(Protocol):
    """What keeps threads, locks or transactions of an environment, and must forget them in a forked process."""

    def after_fork(self) -> None:
        """Forget what only the parent has."""


class Gone:
    """Stands where an LMDB environment stood that must not be used any more: whatever is asked of it is refused."""

    def __init__(self, message: str, fix: str) -> None:
        self._why = message, fix

    def __getattr__(self, _: str) -> NoReturn:
        message, fix = self._why
        raise StoreClosedError(message, fix=fix)


class Environment:
    """An open LMDB environment with its named databases.

    Readers of one file share LMDB's: they drop this, and take `closed` in its place; the files are closed when the
    last one and the last transaction are gone. A writer has its own, and calls `close`.
    """

    def __init__(self, path: Path, env: lmdb.Environment, databases: Databases, files: "Files | None" = None) -> None:
        self.path = path
        self.lmdb = env
        self.databases = databases
        self.files = files
        """Which files LMDB has open, None behind a closed store."""
        self.inheritors: WeakSet[Inheritor] = WeakSet()

    def refuse_replaced(self) -> None:
        """Raise StoreReplacedError where the files at the path are not those that are open, or not of one store.

        Takes some microseconds. Whoever goes on reading would read the past; whoever wrote would write over what
        others have committed.
        """
        if self.files != Files.at(self.path):
            raise StoreReplacedError(
                f"The files of the store at '{self.path}' were replaced, moved or removed while it was open.",
                fix="Open it again. To restore a backup, first stop the loader and every process that reads the store.",
            )
        check_pair(self.path, self.lmdb)

    def close(self) -> None:
        """Close a writer's files: no transaction may be open any more."""
        self.lmdb.close()

    def closed(self) -> "Environment":
        """Make what stands in the place of this one after closing: every use raises StoreClosedError."""
        gone = Gone(f"The store at '{self.path}' was closed.", "Open it again, or close it later.")
        return Environment(self.path, cast("lmdb.Environment", gone), {})

    def after_fork(self) -> None:
        """Refuse every use in a forked process, and never let LMDB close what belongs to the parent."""
        for inheritor in list(self.inheritors):
            inheritor.after_fork()
        if not isinstance(cast("object", self.lmdb), Gone):
            leak(self.lmdb)
            self.lmdb = cast("lmdb.Environment", Gone(*forked(self.path)))

    def swept(self, error: Exception) -> bool:
        """Say whether to try again: all reader slots were taken, and some of them by processes that died."""
        return isinstance(error, lmdb.ReadersFullError) and bool(self.lmdb.reader_check())

    def last_transaction_id(self) -> int:
        """Return the number of the newest transaction; raises what LMDB raises. Half the time of asking its `info`."""
        txn = self.lmdb.begin()
        newest = int(txn.id())
        txn.abort()
        return newest

    def size_bytes(self) -> int:
        """Return the bytes that the data file takes on disk."""
        return (self.path / DATA_FILE).stat().st_size


def leak(env: lmdb.Environment) -> None:
    """Keep an inherited environment for ever: LMDB allows no use of it here, and closing it is one.

    Its binding would close it with the last reference, and first wait for calls that threads of the parent are in.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(env))


def forked(where: Path) -> tuple[str, str]:
    """Say why a forked process cannot use a store, and what to do."""
    return (
        f"The store at '{where}' was opened before this process was forked; LMDB allows no use of it here.",
        "Open it in each process after the fork and not before, or start processes with 'spawn' or 'forkserver'.",
    )
