"""One batch of the log: all that one transaction of the primary changed, as a replica needs it.

It is made inside that transaction and applied inside one of the replica's. Records are the winners only; what stands
beside them travels as it lies in the store, so that replicas are the same to the byte.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from iyscheck.store.encoded import EncodedChanges

Value = tuple[bytes, bytes, bytes | None]
"""Name of the database, key, and what stands there now; None where nothing does any more."""


class Kind(IntEnum):
    """What a batch is. 4 is reserved: that a copy was made."""

    CHANGES = 1
    HEARTBEAT = 2
    """Nothing changed; the primary lives."""
    TERM = 3
    """A primary began: its number is greater than that of all before."""
    REBASE = 5
    """What changed is not told: only a copy of the store at this batch or later leads past it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBatch:
    """One batch. `first` and `last` are the position's sequence before and after it, `created_ms` UTC milliseconds.

    `prev` (32 bytes) names the message before; `digest` (16 bytes) is that of the whole store after it.
    """

    kind: Kind
    log_id: bytes
    term: int
    batch: int
    first: int
    last: int
    created_ms: int
    prev: bytes
    digest: bytes
    rows: EncodedChanges
    values: Sequence[Value]


class Sealer(Protocol):
    """Turns batches into messages that only replicas can read, and that nobody else can make."""

    def seal(self, batch: LogBatch) -> list[bytes]:
        """Return the messages of a batch, at least one, in their order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A batch that came to a replica: `chain` (32 bytes) names its last message, `number` is where that one lay."""

    batch: LogBatch
    chain: bytes
    number: int
