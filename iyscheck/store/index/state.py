"""What the index consists of, as `meta` says it."""

from typing import Final

import lmdb

from iyscheck.consent import STATE_VERSION
from iyscheck.errors import StoreCorruptError
from iyscheck.store import layout
from iyscheck.store.environment import read
from iyscheck.store.layout import IndexState

REVISIONS_KEPT: Final = 64
"""A reader that is further behind takes all pages again."""


def read_state(txn: lmdb.Transaction, meta: lmdb._Database) -> IndexState | None:
    """Read what the index consists of; None if the store has none. Raises StoreCorruptError.

    One whose state bytes were made as an older version made them counts as none: columns would be answered otherwise
    than single checks.
    """
    value = read(txn, layout.META_INDEX, meta)
    try:
        version = layout.decode_number(bytes(read(txn, layout.META_INDEX_STATES, meta) or layout.encode_number(1)))
        return None if value is None or version != STATE_VERSION else layout.decode_index_state(bytes(value))
    except StoreCorruptError as error:
        raise StoreCorruptError(error.message, fix="Run 'iyscheck-loader rebuild-index'.") from error
