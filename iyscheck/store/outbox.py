"""The messages of a primary that wait to be published, and those of the last hour, in the store itself.

They are written in the transaction of their batch: whoever has the one has the other.
"""

from collections.abc import Iterator, Sequence
from itertools import islice, takewhile
from typing import Final, NoReturn

import lmdb

from iyscheck.errors import StoreCorruptError
from iyscheck.store import layout
from iyscheck.store.environment import Databases, walk
from iyscheck.store.layout import Waiting

KEPT_MS: Final = 3_600_000
"""How long what is acknowledged is kept: a log that loses its end gets it again."""
MOST_BYTES: Final = 20 * 10**9
"""Of an outbox that nobody empties; beyond, replicas have to take a copy."""
_DROPPED_AT_ONCE: Final = 32
"""Batches dropped in one transaction: no commit is to wait for many."""


def put(txn: lmdb.Transaction, databases: Databases, batch: int, messages: Sequence[bytes], created_ms: int) -> None:
    """Write the messages of a batch."""
    waiting = Waiting(created_ms=created_ms, bytes=sum(map(len, messages)), messages=len(messages))
    items = [(layout.waiting_key(batch), layout.encode_waiting(batch, waiting))]
    for number, message in enumerate(messages, 1):
        for chunk, start in enumerate(range(0, len(message), layout.CHUNK_BYTES)):
            key = layout.chunk_key(batch, number, chunk)
            items.append((key, layout.encode_chunk(key, message[start : start + layout.CHUNK_BYTES])))
    with txn.cursor(databases[layout.OUTBOX]) as cursor:
        cursor.putmulti(items, append=True)


def messages_of(txn: lmdb.Transaction, databases: Databases, batch: int) -> list[bytes]:
    """Return the messages of a batch in their order; none where the outbox has not that batch.

    Raises StoreCorruptError where some of it is missing or damaged.
    """
    first = layout.waiting_key(batch)
    found = list(takewhile(lambda item: item[0][:8] == first[:8], walk(txn, databases[layout.OUTBOX], first)))
    if not found:
        return []
    waiting = layout.decode_waiting(*found[0])
    messages: list[list[bytes]] = [[] for _ in range(waiting.messages)]
    for key, value in found[1:]:
        _, number, chunk = layout.decode_outbox_key(key)
        if number > waiting.messages or chunk != len(messages[number - 1]):
            _corrupt()
        messages[number - 1].append(layout.decode_chunk(key, value))
    joined = [b"".join(chunks) for chunks in messages]
    if sum(map(len, joined)) != waiting.bytes:
        _corrupt()
    return joined


def waiting(txn: lmdb.Transaction, databases: Databases, first: int = 0) -> Iterator[tuple[int, Waiting]]:
    """Walk the batches of the outbox from one on, without their messages."""
    with txn.cursor(databases[layout.OUTBOX]) as cursor:
        found = cursor.set_range(layout.waiting_key(first))
        while found:
            batch, _, _ = layout.decode_outbox_key(bytes(cursor.key()))
            yield batch, layout.decode_waiting(bytes(cursor.key()), bytes(cursor.value()))
            found = cursor.set_range(layout.waiting_key(batch + 1))


def size_bytes(txn: lmdb.Transaction, databases: Databases) -> int:
    """Return how many bytes of the file the outbox takes."""
    stat = txn.stat(databases[layout.OUTBOX])
    pages: int = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
    return pages * layout.FILE_PAGE_BYTES


def drop(txn: lmdb.Transaction, databases: Databases, *, acknowledged: int, made_before_ms: int) -> int | None:
    """Drop the oldest batches that are acknowledged and old enough, some at once; return the oldest that stays.

    None where none stays.
    """
    oldest: int | None = None
    for dropped, (batch, entry) in enumerate(list(islice(waiting(txn, databases), _DROPPED_AT_ONCE + 1))):
        if batch > acknowledged or entry.created_ms >= made_before_ms or dropped == _DROPPED_AT_ONCE:
            oldest = batch
            break
        _delete(txn, databases, batch)
    return oldest


def clear(txn: lmdb.Transaction, databases: Databases) -> None:
    """Drop everything."""
    txn.drop(databases[layout.OUTBOX], delete=False)


def _delete(txn: lmdb.Transaction, databases: Databases, batch: int) -> None:
    first = layout.waiting_key(batch)
    with txn.cursor(databases[layout.OUTBOX]) as cursor:
        there = cursor.set_range(first)
        while there and bytes(cursor.key())[:8] == first[:8]:
            there = cursor.delete()


def _corrupt() -> NoReturn:
    raise StoreCorruptError(
        "The outbox of the store holds a damaged message.",
        fix="Run 'iyscheck-loader verify'; if the records are whole, 'iyscheck-loader promote --rebase'.",
    )
