"""What LMDB and the system say, as errors of ours that name the store and what to do."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import lmdb

from iyscheck.errors import RESTORE, StoreCorruptError, StoreError, StoreFullError, StoreUnreadableError
from iyscheck.store.environment.files import MAX_READERS

SYSTEM_ERRORS: Final = (lmdb.Error,)
"""What a store may be blamed for, whatever else is done meanwhile: an OSError may be of a pipe or a library."""
OPEN_ALREADY: Final = "already open in this process"
"""What LMDB says of a file that another environment of this process has open."""
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ALMOST_NOTHING_BYTES: Final = 2**20


@contextmanager
def translated(where: Path) -> Iterator[None]:
    """Turn LMDB's errors into ours, naming the store and what to do."""
    try:
        yield
    except SYSTEM_ERRORS as error:
        raise translation(where, error) from error


@contextmanager
def files_translated(where: Path) -> Iterator[None]:
    """Turn LMDB's and the system's errors into ours, where nothing but the store's own files is worked on."""
    try:
        yield
    except (*SYSTEM_ERRORS, OSError) as error:
        raise translation(where, error) from error


def translation(where: Path, error: Exception) -> StoreError:  # noqa: PLR0911 - a sentence for each
    """Say one of `SYSTEM_ERRORS` or an OSError in our words, for paths too hot for `translated`, which takes 1 µs."""
    if isinstance(error, (lmdb.MapFullError, lmdb.DiskError)):
        return StoreFullError(
            f"The store at '{where}' cannot grow: the disk is full.", fix="Free space, then start the load again."
        )
    if isinstance(error, (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.VersionMismatchError)):
        return StoreCorruptError(f"The store at '{where}' is damaged.", fix=RESTORE)
    if isinstance(error, lmdb.ReadersFullError):
        return StoreUnreadableError(
            f"All reader slots of the store at '{where}' are taken ({MAX_READERS} in one made by this iyscheck).",
            fix="Stop some of the processes that read it: each thread in a check takes a slot.",
        )
    if isinstance(error, lmdb.MemoryError):
        return StoreUnreadableError(
            f"The store at '{where}' cannot be mapped: this process may not have 1 TiB of addresses (no memory is "
            "taken for them).",
            fix="Lift the limit on its address space: 'ulimit -v unlimited', in systemd LimitAS=infinity.",
        )
    if isinstance(error, lmdb.LockError):
        return StoreUnreadableError(
            f"Another process with the number of this one ({os.getpid()}) has the store at '{where}' open. LMDB knows "
            "readers by their numbers, and containers with PID namespaces of their own give the same ones again.",
            fix="Let all processes of a store share one PID namespace (Kubernetes: shareProcessNamespace: true; "
            "Docker: --pid container:NAME).",
        )
    if OPEN_ALREADY in str(error):
        return StoreUnreadableError(
            f"This process has the store at '{where}' open already, for writing or with files that were replaced.",
            fix="Close that first, or read it in another process.",
        )
    return _system_error(where, error)


def _system_error(where: Path, error: Exception) -> StoreError:
    # LMDB gives the system's text only, not its number, and calls a write that was cut short an I/O error.
    no_room = any(os.strerror(number) in str(error) for number in _NO_ROOM)
    if no_room or (os.strerror(errno.EIO) in str(error) and _is_full(where)):
        return StoreFullError(
            f"The store at '{where}' cannot grow: the disk is full.", fix="Free space, then start the load again."
        )
    return StoreUnreadableError(
        f"The store at '{where}' cannot be opened or read ({type(error).__name__}).",
        fix="Check that the directory and its files can be read and written by this user.",
    )


def _is_full(where: Path) -> bool:
    try:
        return shutil.disk_usage(where).free < _ALMOST_NOTHING_BYTES
    except OSError:
        return False
