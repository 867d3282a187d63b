"""Exchanging two directories of stores at once: who opens the path finds the one or the other, never neither."""

import ctypes
import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from iyscheck.errors import SettingsError
from iyscheck.store.environment import DATA_FILE, LOCK_FILE

_HERE: Final = -100
_EXCHANGE: Final = 2
_NOT_HERE: Final = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)
"""What a system or a file system says that cannot exchange."""


def refuse_mount(store: Path) -> None:
    """Refuse a directory whose files cannot be exchanged for others: the root of a file system.

    Raises SettingsError.
    """
    where = store.absolute()
    if where.exists() and (os.path.ismount(where) or where.stat().st_dev != where.parent.stat().st_dev):
        raise SettingsError(
            "--store",
            f"'{store}' is where a file system is mounted, and a replica has to exchange its directory for another.",
            fix=f"Take a directory below it: {store / 'store'}.",
        )


def exchange(store: Path, other: Path, aside: Path) -> None:
    """Exchange two directories of one file system, durably. Nobody may be writing to either.

    Where the system cannot do that at once, the store is moved `aside` for a moment: after a crash then, call `mend`.
    """
    _own_as(store, other)
    if not store.exists():
        other.rename(store)
    elif not _exchanged(store, other):
        store.rename(aside)
        other.rename(store)
        aside.rename(other)
    for directory in {store.parent, other.parent}:
        sync(directory)


def mend(store: Path, aside: Path) -> None:
    """Put back what was moved aside when the power went."""
    if (aside / DATA_FILE).exists() and not (store / DATA_FILE).exists():
        if store.exists():
            for left in store.iterdir():
                left.unlink()
            store.rmdir()
        aside.rename(store)
        sync(store.parent)


def sync(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _own_as(store: Path, other: Path) -> None:
    """Give a directory and the files of its store the owners and modes of another's: servers may be other users."""
    for name in ("", DATA_FILE, LOCK_FILE):
        old, new = store / name, other / name
        if old.exists() and new.exists():
            was = old.stat()
            with suppress(PermissionError):  # only root may give things away
                os.chown(new, was.st_uid, was.st_gid)
            new.chmod(was.st_mode & 0o7777)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange them, or say that this system cannot."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NOT_HERE:
        return False
    raise OSError(number, os.strerror(number), os.fspath(one))
