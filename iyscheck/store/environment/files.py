"""Which files a store is, and whether they are whole, belong together and may be used."""

import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import lmdb

from iyscheck.errors import RESTORE, StoreCorruptError, StoreReplacedError, StoreUnreadableError
from iyscheck.store.layout import FILE_PAGE_BYTES

MAP_BYTES: Final = 2**40
MAX_READERS: Final = 1024
DATA_FILE: Final = "data.mdb"
LOCK_FILE: Final = "lock.mdb"


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


def check_access(where: Path) -> None:
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


def check_whole(where: Path, env: lmdb.Environment) -> None:
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


def check_pair(where: Path, env: lmdb.Environment) -> None:
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
