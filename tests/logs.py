"""Logs for tests: a sealer that hides nothing, a store that tells it, and comparing stores to the byte."""

import pickle
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TypedDict

from iyscheck.store import layout, log
from iyscheck.store.log_batch import LogBatch, Received
from iyscheck.store.log_writer import LogWriter
from iyscheck.store.snapshot import Snapshot, Store
from iyscheck.store.writer import Writer
from tests.builders import ADDRESS_KEY, STORE_KEY


class KeyIds(TypedDict):
    """The ids of a store's keys, as a store is opened with them."""

    address_key_id: bytes
    store_key_id: bytes


KEY_IDS: KeyIds = {"address_key_id": ADDRESS_KEY.key_id, "store_key_id": STORE_KEY.key_id}


class PlainSealer:
    """Makes a message of each batch that anybody can read; `parts` of each."""

    def __init__(self, parts: int = 1) -> None:
        self._parts = parts

    def seal(self, batch: LogBatch) -> list[bytes]:
        """Write a batch down, cut into parts."""
        text = pickle.dumps(batch)
        size = -(-len(text) // self._parts)
        return [text[at : at + size] for at in range(0, len(text), size)]


def opened(messages: Sequence[bytes]) -> LogBatch:
    """Read what a PlainSealer wrote."""
    batch = pickle.loads(b"".join(messages))  # noqa: S301 - written by this process
    assert isinstance(batch, LogBatch)
    return batch


def begin(path: Path, *, parts: int = 1, settings: str = "") -> None:
    """Make a store, there or not, the primary of a log."""
    with LogWriter.open(path, **KEY_IDS) as writer:
        writer.take_over(writer.begin_term(PlainSealer(parts)), settings=settings)


def primary(path: Path, *, parts: int = 1, clock: Callable[[], float] = time.time) -> Writer:
    """Open a primary for loading."""
    return Writer.open(path, **KEY_IDS, sealer=PlainSealer(parts), clock=clock)


def received(store: Store, first: int = 1) -> list[Received]:
    """Read the batches of a primary's outbox from one on, as if each lay in a stream at its own number."""
    with store.snapshot() as snapshot:
        found = []
        for batch, _ in snapshot.outbox_batches(first):
            messages = snapshot.outbox_messages(batch)
            found.append(Received(batch=opened(messages), chain=sha256(messages[-1]).digest(), number=batch))
        return found


def replicated(snapshot: Snapshot) -> dict[bytes, list[tuple[bytes, bytes]]]:
    """Return what replicas must have to the byte, and the counts, which they make by themselves."""
    found = {name: list(snapshot.items(name)) for name in (*layout.REPLICATED[:-1], layout.COUNTS)}
    found[layout.META] = [item for item in snapshot.items(layout.META) if item[0].startswith(layout.META_FEED)]
    return found


def assert_same(one: Store, other: Store) -> None:
    """Compare two stores at the same position: content to the byte, digest as kept and as summed up again."""
    with one.snapshot() as left, other.snapshot() as right:
        assert left.position == right.position
        assert replicated(left) == replicated(right)
        assert left.sums() == right.sums() == log.sums_of(right.items)
        assert left.log is not None
        assert right.log is not None
        assert left.log.digest == right.log.digest == log.digest_of(right.sums())
        assert (left.log.term, left.log.batch, left.log.chain) == (right.log.term, right.log.batch, right.log.chain)


__all__ = ["KEY_IDS", "PlainSealer", "assert_same", "begin", "opened", "primary", "received", "replicated"]
