"""The named databases of a store, and reading them."""

from collections.abc import Iterator, Mapping
from typing import TypeAlias, cast

import lmdb

Databases: TypeAlias = Mapping[bytes, "lmdb._Database"]  # noqa: SLF001 - its only name


def read(txn: lmdb.Transaction, key: bytes, database: lmdb._Database) -> bytes | None:
    """Get one value. Our transactions never use buffers, so LMDB's values are bytes."""
    value: bytes | None = txn.get(key, None, database)  # type: ignore[assignment] # the stubs know no default of None
    return value


def walk(txn: lmdb.Transaction, database: lmdb._Database, first: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
    """Walk keys and values of one named database in key order, from a key on."""
    with txn.cursor(database) as cursor:
        if not first or cursor.set_range(first):
            yield from cast("Iterator[tuple[bytes, bytes]]", cursor.iternext())
