"""A compacted copy of a store: what one read transaction sees, in a data file of its own without free pages.

It works beside a writer, whose file grows meanwhile: the pages that the copy reads cannot be reused before its end.
"""

import os
from pathlib import Path

import msgspec

from iyscheck.change import Position
from iyscheck.store import layout
from iyscheck.store.environment import DATA_FILE, files_translated
from iyscheck.store.environment import read as read_value
from iyscheck.store.layout import LogState
from iyscheck.store.registries import read_log_state, read_position
from iyscheck.store.snapshot import Store


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """What a copy holds: where in its log it stands, its format and the ids of the keys that it was written with.

    `log` is None for a store that is in no log.
    """

    path: Path
    position: Position
    log: LogState | None
    format: int
    address_key_id: bytes
    store_key_id: bytes


def copy_to(store: Store, directory: Path) -> Copied:
    """Copy a store into an empty directory. Raises StoreFullError and what reading the store raises."""
    environment = store.environment
    meta = environment.databases[layout.META]
    with files_translated(directory), environment.lmdb.begin() as txn:
        environment.lmdb.copy(os.fspath(directory), compact=True, txn=txn)
        return Copied(
            path=directory / DATA_FILE,
            position=read_position(txn, meta),
            log=read_log_state(txn, meta),
            format=layout.decode_number(read_value(txn, layout.META_FORMAT, meta) or b""),
            address_key_id=read_value(txn, layout.META_ADDRESS_KEY_ID, meta) or b"",
            store_key_id=read_value(txn, layout.META_STORE_KEY_ID, meta) or b"",
        )
