"""The only place that opens LMDB: one environment per store and process.

Rules that keep it safe, measured or from LMDB's caveats:
- everybody maps 1 TiB (virtual; the file is as large as its data) and nobody calls `set_mapsize`, which kills open
  read transactions of the process;
- an environment never crosses a fork, and a process opens a path once: a second opening shares the first;
- one writer: a lock file makes a second one fail at once, where LMDB would block for ever.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, cast

import lmdb

from iyscheck.errors import (
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFormatError,
    StoreFullError,
    StoreKeysError,
    StoreMissingError,
    StoreUnreadableError,
)
from iyscheck.store import layout

MAP_BYTES: Final = 2**40
PAGE_BYTES: Final = 4096
MAX_READERS: Final = 1024
DATA_FILE: Final = "data.mdb"
WRITER_LOCK: Final = "writer.lock"
SYSTEM_ERRORS: Final = (lmdb.Error, OSError)
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ALMOST_NOTHING_BYTES: Final = 2**20


class Environment:
    """An open LMDB environment with its named databases.

    Take one with `open_environment`; each taker calls `close` once, and the last one closes the files.
    """

    def __init__(self, path: Path, env: lmdb.Environment, databases: Mapping[bytes, lmdb._Database]) -> None:
        self.path = path
        self.lmdb = env
        self.databases = databases

    def close(self) -> None:
        """Close the files: no transaction may be open any more."""
        self.lmdb.close()

    def last_transaction_id(self) -> int:
        """Return the number of the newest transaction; raises what LMDB raises. Half the time of asking its `info`."""
        txn = self.lmdb.begin()
        newest = int(txn.id())
        txn.abort()
        return newest

    def size_bytes(self) -> int:
        """Return the bytes that the data file takes on disk."""
        return (self.path / DATA_FILE).stat().st_size


def open_reader(path: str | os.PathLike[str]) -> Environment:
    """Open an existing store for reading. Raises StoreMissingError, StoreUnreadableError, StoreFormatError."""
    where = Path(path)
    if not (where / DATA_FILE).exists():
        raise StoreMissingError(
            f"There is no store at '{where}'.", fix="Load a feed with 'iyscheck-loader load', or correct the path."
        )
    with translated(where):
        env = lmdb.open(
            str(where),
            map_size=MAP_BYTES,
            max_readers=MAX_READERS,
            max_dbs=len(layout.DATABASES),
            readonly=True,
            create=False,
            readahead=False,
        )  # fmt: skip - one line of sizes, one of modes
        return _opened(where, env, create=False)


def open_writer(path: str | os.PathLike[str]) -> Environment:
    """Open a store for writing, making it if there is none. The caller holds the writer's lock."""
    where = Path(path)
    with translated(where):
        env = lmdb.open(
            str(where),
            map_size=MAP_BYTES,
            max_readers=MAX_READERS,
            max_dbs=len(layout.DATABASES),
            mode=0o600,
            sync=True,
            metasync=True,
            readahead=False,
        )  # fmt: skip - one line of sizes, one of modes
        return _opened(where, env, create=True)


def _opened(where: Path, env: lmdb.Environment, *, create: bool) -> Environment:
    """Refuse a newer format before any other database is looked at, and drop what dead readers left."""
    try:
        _check_whole(where, env)
        _check_page_size(where, env)
        env.reader_check()
        databases = {name: env.open_db(name, create=create) for name in layout.DATABASES}
        with env.begin() as txn:
            _check_format(where, read(txn, layout.META_FORMAT, databases[layout.META]))
    except lmdb.NotFoundError as error:
        older = _is_older(env)
        env.close()
        if older:
            raise StoreFormatError(
                f"The store at '{where}' was written by an older iyscheck and has no decision index yet.",
                fix="Run 'iyscheck-loader rebuild-index' once.",
            ) from error
        raise StoreMissingError(
            f"The store at '{where}' was never filled.", fix="Load a feed with 'iyscheck-loader load'."
        ) from error
    except BaseException:
        env.close()
        raise
    return Environment(where, env, databases)


def _is_older(env: lmdb.Environment) -> bool:
    """Say whether a store that lacks a database was filled in a format that had none."""
    try:
        meta = env.open_db(layout.META, create=False)
        with env.begin() as txn:
            return read(txn, layout.META_FORMAT, meta) is not None
    except lmdb.NotFoundError:
        return False


def _check_whole(where: Path, env: lmdb.Environment) -> None:
    """Refuse a file that lost its end: the system kills a process that touches a mapped page behind it."""
    pages: int = env.info()["last_pgno"] + 1
    if (where / DATA_FILE).stat().st_size < pages * env.stat()["psize"]:
        raise StoreCorruptError(
            f"The store at '{where}' lost its end.", fix="Restore a backup or load the feed into a new store."
        )


def _check_page_size(where: Path, env: lmdb.Environment) -> None:
    """Refuse pages of another size: a page of the decision index would not be one page of the file."""
    size = env.stat()["psize"]
    if size != PAGE_BYTES:
        raise StoreFormatError(
            f"The store at '{where}' has pages of {size} bytes; iyscheck needs {PAGE_BYTES}.",
            fix="Use a machine whose memory pages have 4096 bytes.",
        )


def _check_format(where: Path, stored: bytes | None) -> None:
    version = layout.FORMAT_VERSION if stored is None else layout.decode_number(stored)
    if version > layout.FORMAT_VERSION:
        raise StoreFormatError(
            f"The store at '{where}' has format {version}; this iyscheck reads up to {layout.FORMAT_VERSION}.",
            fix="Use the iyscheck that wrote it, or a newer one.",
        )


@contextmanager
def translated(where: Path) -> Iterator[None]:
    """Turn LMDB's and the system's errors into ours, naming the store and what to do."""
    try:
        yield
    except SYSTEM_ERRORS as error:
        raise translation(where, error) from error


def translation(where: Path, error: Exception) -> StoreError:
    """Say one of `SYSTEM_ERRORS` in our words, for paths too hot for `translated`, which takes 1 µs."""
    if isinstance(error, (lmdb.MapFullError, lmdb.DiskError)):
        return StoreFullError(
            f"The store at '{where}' cannot grow: the disk is full.", fix="Free space, then start the load again."
        )
    if isinstance(error, (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.VersionMismatchError)):
        return StoreCorruptError(
            f"The store at '{where}' is damaged.", fix="Restore a backup or load the feed into a new store."
        )
    if isinstance(error, lmdb.ReadersFullError):
        return StoreUnreadableError(
            f"The store at '{where}' has {MAX_READERS} readers already.", fix="Stop processes that read it."
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


def check_keys(environment: Environment, *, address_key_id: bytes | None, store_key_id: bytes | None) -> None:
    """Refuse a store written with other keys. None is not compared."""
    with environment.lmdb.begin() as txn:
        meta = environment.databases[layout.META]
        for name, given, flag in (
            (layout.META_ADDRESS_KEY_ID, address_key_id, "--address-key"),
            (layout.META_STORE_KEY_ID, store_key_id, "--store-key"),
        ):
            stored = read(txn, name, meta) or b""
            if given is not None and stored != given:
                raise StoreKeysError(
                    f"The store at '{environment.path}' was written with key {stored.hex() or '(none)'}, "
                    f"but {flag} is key {given.hex()}.",
                    fix=f"Give {flag} the file whose id 'iyscheck keys show' prints as {stored.hex() or '(none)'}.",
                )


class WriterLock:
    """Held by the one process that may write; the system drops it when the process dies."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        where = Path(path)
        with translated(where):
            where.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._descriptor = os.open(where / WRITER_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise StoreBusyError(
                f"Another loader is writing to the store at '{where}'.",
                fix="Wait for it, or stop it; one writer at a time.",
            ) from error

    def release(self) -> None:
        """Let the next writer in; once is enough, and twice does no harm to whoever got the number since."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def read(txn: lmdb.Transaction, key: bytes, database: lmdb._Database) -> bytes | None:
    """Get one value. Our transactions never use buffers, so LMDB's values are bytes."""
    value: bytes | None = txn.get(key, None, database)  # type: ignore[assignment]
    return value


def walk(txn: lmdb.Transaction, database: lmdb._Database) -> Iterator[tuple[bytes, bytes]]:
    """Walk keys and values of one named database in key order."""
    with txn.cursor(database) as cursor:
        yield from cast("Iterator[tuple[bytes, bytes]]", cursor.iternext())
