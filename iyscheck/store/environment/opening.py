"""Opening a store: one environment for all readers of a file in this process, one of its own for a writer."""

import os
import subprocess
import sys
import threading
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

import lmdb

from iyscheck.errors import StoreClosedError, StoreFormatError, StoreKeysError, StoreMissingError
from iyscheck.store import layout
from iyscheck.store.environment.databases import Databases, read
from iyscheck.store.environment.faults import OPEN_ALREADY, files_translated
from iyscheck.store.environment.files import (
    DATA_FILE,
    MAP_BYTES,
    MAX_READERS,
    Files,
    check_access,
    check_pair,
    check_whole,
)
from iyscheck.store.environment.opened import Environment, forked, leak
from iyscheck.store.layout import FILE_PAGE_BYTES

_CLOSING_S: Final = 0.5
"""How long another thread of this process may take to close the files: pages of a large map are many."""
_CLOSING_POLL_S: Final = 0.005
_SWEEP_S: Final = 30.0


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
                message, fix = forked(where)
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
            leak(env)
            self._inherited.add(identity)


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
        check_access(where)
        return _OPEN.reader(where, file)


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
            if OPEN_ALREADY not in str(error) or time.monotonic() >= deadline:
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
        check_whole(where, env)
        _check_page_size(where, env)
        check_pair(where, env)
        env.reader_check()
        databases = {}
        for name in layout.DATABASES:
            with suppress(lmdb.NotFoundError) if name in layout.LATER else nullcontext():
                databases[name] = env.open_db(name, create=create)
        with env.begin() as txn:
            stored = read(txn, layout.META_FORMAT, databases[layout.META])
        if stored is None and not create:
            raise lmdb.NotFoundError("format")  # noqa: TRY301 - its writer is about to begin it
        _check_format(where, stored)
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
