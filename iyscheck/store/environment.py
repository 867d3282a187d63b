"""The only place that opens LMDB: one environment per store and process.

Rules that keep it safe, measured or from LMDB's caveats:
- everybody maps 1 TiB (virtual; the file is as large as its data) and nobody calls `set_mapsize`, which kills open
  read transactions of the process;
- a process opens a file once: all its readers share one environment;
- nothing is unmapped while somebody reads: a reader's environment is closed when the last reference to it goes, and
  each transaction holds one;
- an environment never crosses a fork: a child would give its parent's reader slots away;
- readers can write the lock file, or the loader would not know what they read and reuse it;
- nobody but LMDB opens the lock file: closing it again would drop the locks that say that this process lives;
- one writer: a lock file makes a second one fail at once, where LMDB would block for ever.
"""

import ctypes
import errno
import fcntl
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol, TypeAlias, cast
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

import lmdb

from iyscheck.errors import (
    RESTORE,
    StoreBusyError,
    StoreClosedError,
    StoreCorruptError,
    StoreError,
    StoreFormatError,
    StoreFullError,
    StoreKeysError,
    StoreMissingError,
    StoreReplacedError,
    StoreUnreadableError,
)
from iyscheck.store import layout
from iyscheck.store.layout import FILE_PAGE_BYTES

MAP_BYTES: Final = 2**40
MAX_READERS: Final = 1024
DATA_FILE: Final = "data.mdb"
LOCK_FILE: Final = "lock.mdb"
WRITER_LOCK: Final = "writer.lock"
SYSTEM_ERRORS: Final = (lmdb.Error,)
"""What a store may be blamed for, whatever else is done meanwhile: an OSError may be of a pipe or a library."""
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ALMOST_NOTHING_BYTES: Final = 2**20
_OPEN_ALREADY: Final = "already open in this process"
_CLOSING_S: Final = 0.5
"""How long another thread of this process may take to close the files: pages of a large map are many."""
_CLOSING_POLL_S: Final = 0.005
_SWEEP_S: Final = 30.0


Databases: TypeAlias = Mapping[bytes, "lmdb._Database"]  # noqa: SLF001 - its only name


@dataclass(frozen=True, slots=True)
class Files:
    """Device and inode of a store's data file and lock file: which files they are, whatever their names."""

    data: tuple[int, int]
    lock: tuple[int, int]

    @classmethod
    def at(cls, where: Path) -> "Files | None":
        """Look which files are at a path; None where one is missing."""
        try:
            data, lock = ((where / name).stat() for name in (DATA_FILE, LOCK_FILE))
        except OSError:
            return None
        return cls((data.st_dev, data.st_ino), (lock.st_dev, lock.st_ino))


class Inheritor(Protocol):
    """What keeps threads, locks or transactions of an environment, and must forget them in a forked process."""

    def after_fork(self) -> None:
        """Forget what only the parent has."""


class _Gone:
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
        _check_pair(self.path, self.lmdb)

    def close(self) -> None:
        """Close a writer's files: no transaction may be open any more."""
        self.lmdb.close()

    def closed(self) -> "Environment":
        """Make what stands in the place of this one after closing: every use raises StoreClosedError."""
        gone = _Gone(f"The store at '{self.path}' was closed.", "Open it again, or close it later.")
        return Environment(self.path, cast("lmdb.Environment", gone), {})

    def after_fork(self) -> None:
        """Refuse every use in a forked process, and never let LMDB close what belongs to the parent."""
        for inheritor in list(self.inheritors):
            inheritor.after_fork()
        if not isinstance(cast("object", self.lmdb), _Gone):
            _leak(self.lmdb)
            self.lmdb = cast("lmdb.Environment", _Gone(*_forked(self.path)))

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


class _Open:
    """What this process has open. LMDB's rules are for a process, so there is one of these.

    It knows LMDB's own objects, which live as long as any transaction of theirs does.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers: WeakValueDictionary[tuple[int, int], lmdb.Environment] = WeakValueDictionary()
        self._databases: WeakKeyDictionary[lmdb.Environment, Databases] = WeakKeyDictionary()
        self._files: WeakKeyDictionary[lmdb.Environment, Files | None] = WeakKeyDictionary()
        self._all: WeakSet[Environment] = WeakSet()
        self._inherited: set[tuple[int, int]] = set()
        os.register_at_fork(after_in_child=self._after_fork)

    def reader(self, where: Path, file: os.stat_result) -> Environment:
        """Share the environment that readers of this file have; open it if there is none."""
        identity = (file.st_dev, file.st_ino)
        with self._lock:
            if identity in self._inherited:
                message, fix = _forked(where)
                raise StoreClosedError(message, fix=fix)
            env = self._readers.get(identity)
            if env is not None:
                shared = self.noted(Environment(where, env, self._databases[env], self._files[env]))
                shared.refuse_replaced()  # the lock file may be another
                return shared
            environment = _open_reader(where)
            self._readers[identity] = environment.lmdb
            self._databases[environment.lmdb] = environment.databases
            self._files[environment.lmdb] = environment.files
            return self.noted(environment)

    def noted(self, environment: Environment) -> Environment:
        """Remember an environment, for forks."""
        self._all.add(environment)
        return environment

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        for environment in list(self._all):
            environment.after_fork()
        for identity, env in list(self._readers.items()):
            _leak(env)
            self._inherited.add(identity)


def _leak(env: lmdb.Environment) -> None:
    """Keep an inherited environment for ever: LMDB allows no use of it here, and closing it is one.

    Its binding would close it with the last reference, and first wait for calls that threads of the parent are in.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(env))


def _forked(where: Path) -> tuple[str, str]:
    """Say why a forked process cannot use a store, and what to do."""
    return (
        f"The store at '{where}' was opened before this process was forked; LMDB allows no use of it here.",
        "Open it in each process after the fork and not before, or start processes with 'spawn' or 'forkserver'.",
    )


_OPEN: Final = _Open()


def open_reader(path: str | os.PathLike[str]) -> Environment:
    """Open an existing store for reading, or share it with those of this process who read it already.

    Raises StoreMissingError, StoreUnreadableError, StoreFormatError, StoreCorruptError, and StoreClosedError in a
    process that was forked from one that has it open.
    """
    where = Path(path)
    with files_translated(where):
        try:
            file = (where / DATA_FILE).stat()
        except (FileNotFoundError, NotADirectoryError):
            raise StoreMissingError(
                f"There is no store at '{where}'.", fix="Load a feed with 'iyscheck-loader load', or correct the path."
            ) from None
        _check_access(where)
        return _OPEN.reader(where, file)


def _check_access(where: Path) -> None:
    """Refuse what LMDB would take for a store that nobody writes to: it would read without telling the loader."""
    if not os.access(where / DATA_FILE, os.R_OK, effective_ids=True):
        raise StoreUnreadableError(
            f"The store at '{where}' cannot be read by this user.",
            fix=f"Give this user read permission for {DATA_FILE} and write permission for {LOCK_FILE}.",
        )
    lock = where / LOCK_FILE
    needed, what = (lock, os.R_OK | os.W_OK) if lock.exists() else (where, os.W_OK | os.X_OK)
    if not os.access(needed, what, effective_ids=True):
        raise StoreUnreadableError(
            f"The store at '{where}' cannot be read safely: this user cannot write '{needed}'. Each reader notes "
            f"in {LOCK_FILE} what it reads; else the loader would change it meanwhile.",
            fix="Give this user write permission for it, and mount the volume for writing.",
        )


def _open_reader(where: Path) -> Environment:
    """Open the files; where another thread is just closing them, after that. Raises what LMDB raises, too."""
    deadline = time.monotonic() + _CLOSING_S
    with suppress(OSError):  # who may not write it maps it as it is
        # On an overlay the first writer gives the path another file, and who has mapped the lower one reads on in it.
        os.close(os.open(where / DATA_FILE, os.O_RDWR | os.O_CLOEXEC))
    while True:
        files = Files.at(where)
        try:
            env = _swept(where, {"readonly": True, "create": False})
        except lmdb.Error as error:
            if _OPEN_ALREADY not in str(error) or time.monotonic() >= deadline:
                raise
            time.sleep(_CLOSING_POLL_S)
        else:
            environment = _opened(where, env, create=False)
            if files is None or files == environment.files:
                return environment
            env.close()  # they were replaced at that moment: those that are there now are opened


def _swept(where: Path, modes: dict[str, Any]) -> lmdb.Environment:
    """Open LMDB's environment, without slots of dead processes that had this one's number."""
    options = {"map_size": MAP_BYTES, "max_readers": MAX_READERS, "max_dbs": len(layout.DATABASES), **modes}
    env = lmdb.open(os.fsencode(where), readahead=False, **options)
    if _has_slots_of_our_number(env):
        env.close()
        _sweep_elsewhere(where)
        env = lmdb.open(os.fsencode(where), readahead=False, **options)
    return env


def _has_slots_of_our_number(env: lmdb.Environment) -> bool:
    """Say whether reader slots carry this process's number before it has read: of one that died, in a container.

    There the next process gets the same number, and LMDB never frees the slots of who asks it to.
    """
    slots = (line.split() for line in env.readers().splitlines()[1:])
    return any(slot[:1] == [str(os.getpid())] for slot in slots)


def _sweep_elsewhere(where: Path) -> None:
    """Have a process with another number free the slots of ours, while we do not have the store open.

    It asks LMDB, which sees by a lock that nobody lives who has our number. Where it cannot, the slots stay.
    """
    program = "import lmdb, os, sys; lmdb.open(os.fsencode(sys.argv[1]), readonly=True, create=False).reader_check()"
    with suppress(OSError, subprocess.SubprocessError):
        subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-c", program, str(where)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SWEEP_S,
            check=False,
        )


def open_writer(path: str | os.PathLike[str]) -> Environment:
    """Open a store for writing, making it if there is none. The caller holds the writer's lock."""
    where = Path(path)
    with files_translated(where):
        env = _swept(where, {"mode": 0o600, "sync": True, "metasync": True})
        return _OPEN.noted(_opened(where, env, create=True))


def _opened(where: Path, env: lmdb.Environment, *, create: bool) -> Environment:
    """Refuse a newer format before any other database is looked at, and drop what dead readers left."""
    try:
        _check_whole(where, env)
        _check_page_size(where, env)
        _check_pair(where, env)
        env.reader_check()
        databases = {}
        for name in layout.DATABASES:
            with suppress(lmdb.NotFoundError) if name in layout.SINCE_FORMAT_3 else nullcontext():
                databases[name] = env.open_db(name, create=create)
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
    return Environment(where, env, databases, Files.at(where))


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
        raise StoreCorruptError(f"The store at '{where}' lost its end.", fix=RESTORE)


_META: Final = struct.Struct("<II")
_META_AT: Final = 16
"""LMDB 0.9: behind the header of a page; the transaction id stands behind address, size, two trees and last page."""
_TRANSACTION_AT: Final = _META_AT + 128
_META_MAGIC: Final = (0xBEEFC0DE, 1)


def newest_in_file(where: Path) -> int:
    """Read from the two meta pages of the data file at a path which transaction is its newest; 0 if it has none."""
    newest = 0
    with suppress(OSError), (where / DATA_FILE).open("rb", buffering=0) as file:
        for page in (0, 1):
            meta = os.pread(file.fileno(), _TRANSACTION_AT + 8, page * FILE_PAGE_BYTES)
            if len(meta) == _TRANSACTION_AT + 8 and _META.unpack_from(meta, _META_AT) == _META_MAGIC:
                newest = max(newest, int.from_bytes(meta[_TRANSACTION_AT:], "little"))
    return newest


def _check_pair(where: Path, env: lmdb.Environment) -> None:
    """Refuse a lock file that speaks of another data file: LMDB believes it, and not the data, about what is newest.

    So a backup that is put beside the lock file of running processes would be read in the past and written over. The
    file is looked at before and after, since the loader may commit at that moment. It may be one transaction ahead:
    that of a writer killed after its last write and before it told the lock file, which nobody was told is committed.

    What is mapped has to be that file, too: an overlay keeps the inode where it copies a file up for its first writer,
    and who had mapped the lower file would go on in it, with the numbers of the upper one's lock file.
    """
    before = newest_in_file(where)
    txn = env.begin()
    opened = int(txn.id())
    txn.abort()
    mapped = int(env.info()["last_txnid"])
    after = newest_in_file(where)
    if not before <= mapped <= after:
        raise StoreReplacedError(
            f"This process has another {DATA_FILE} open than the one at '{where}': it was copied for its first writer.",
            fix=f"Start this process again. Let its user write {DATA_FILE}, and it takes the copy at once.",
        )
    if not before - 1 <= opened <= after:
        raise StoreReplacedError(
            f"{DATA_FILE} and {LOCK_FILE} of the store at '{where}' do not belong together: one of them was replaced.",
            fix=f"Stop every process that has the store open, remove {LOCK_FILE}, then start them again.",
        )


def _check_page_size(where: Path, env: lmdb.Environment) -> None:
    """Refuse pages of another size: a page of the decision index would not be one page of the file."""
    size = env.stat()["psize"]
    if size != FILE_PAGE_BYTES:
        raise StoreFormatError(
            f"The store at '{where}' has pages of {size} bytes; iyscheck needs {FILE_PAGE_BYTES}.",
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
    if _OPEN_ALREADY in str(error):
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


def check_keys(environment: Environment, *, address_key_id: bytes | None, store_key_id: bytes | None) -> None:
    """Refuse a store written with other keys. None is not compared."""
    with environment.lmdb.begin() as txn:
        meta = environment.databases[layout.META]
        for name, given, what in (
            (layout.META_ADDRESS_KEY_ID, address_key_id, "address key"),
            (layout.META_STORE_KEY_ID, store_key_id, "store key"),
        ):
            stored = read(txn, name, meta) or b""
            if given is not None and stored != given:
                flag, argument = f"--{what.replace(' ', '-')}", f"{what.replace(' ', '_')}="
                raise StoreKeysError(
                    f"The store at '{environment.path}' was written with {what} {stored.hex() or '(none)'}, "
                    f"but {given.hex()} was given.",
                    fix=f"Give {flag} (in Python {argument}) the key file whose id 'iyscheck keys show' prints as "
                    f"{stored.hex() or '(none)'}.",
                )


class WriterLock:
    """Held by the one process that may write; the system drops it when the process dies."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        where = Path(path)
        with files_translated(where):
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
    value: bytes | None = txn.get(key, None, database)  # type: ignore[assignment] # the stubs know no default of None
    return value


def walk(txn: lmdb.Transaction, database: lmdb._Database) -> Iterator[tuple[bytes, bytes]]:
    """Walk keys and values of one named database in key order."""
    with txn.cursor(database) as cursor:
        yield from cast("Iterator[tuple[bytes, bytes]]", cursor.iternext())
