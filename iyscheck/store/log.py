"""A store in its log: what a transaction tells it, which batch may come next, and the digest of everything.

Batches are numbered without gaps, each names the last message of the one before, and each says what the digest of the
store is after it. So whatever carries them, a replica is after each batch what the primary was.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import islice, pairwise, takewhile
from typing import Final

import msgspec

from iyscheck.change import Position
from iyscheck.errors import LogDivergedError, LogForkError, LogOrderError
from iyscheck.store import layout, outbox
from iyscheck.store.encoded import EncodedChanges
from iyscheck.store.journal import brand_of, element, record_sum
from iyscheck.store.layout import LogState
from iyscheck.store.log_batch import Kind, LogBatch, Received, Sealer
from iyscheck.store.registries import Registries, read_position

_SUMMED_AT_ONCE: Final = 10_000


def tell(
    txn: Registries,
    state: LogState,
    sealer: Sealer,
    *,
    kind: Kind,
    before: Position,
    now_ms: int,
    acknowledged: int,
) -> LogState:
    """Make a batch of what a transaction changed since a position, and put it into the outbox; return the new state.

    Batches that are `acknowledged` and old are dropped. Where the outbox is full for want of a publisher it is given
    up: whoever follows has to take a copy.
    """
    is_full = outbox.size_bytes(txn.txn, txn.databases) > outbox.MOST_BYTES
    if is_full:
        txn.journal.forget_rows()
    digest = digest_after(txn, state)
    batch = LogBatch(
        kind=Kind.REBASE if txn.journal.untold else kind,
        log_id=before.log_id,
        term=state.term,
        batch=state.batch + 1,
        first=before.sequence,
        last=read_position(txn.txn, txn.databases[layout.META]).sequence,
        created_ms=max(now_ms, state.created_ms),
        prev=state.chain,
        digest=digest,
        rows=EncodedChanges.join(()) if txn.journal.untold else txn.journal.rows,
        values=() if txn.journal.untold else txn.journal.values,
    )
    messages = sealer.seal(batch)
    outbox.put(txn.txn, txn.databases, batch.batch, messages, batch.created_ms)
    oldest = outbox.drop(
        txn.txn,
        txn.databases,
        acknowledged=state.batch if is_full else acknowledged,
        made_before_ms=batch.created_ms + (1 if is_full else -outbox.KEPT_MS),
    )
    after = msgspec.structs.replace(
        state,
        batch=batch.batch,
        chain=sha256(messages[-1]).digest(),
        digest=digest,
        created_ms=batch.created_ms,
        oldest=oldest or batch.batch,
    )
    txn.put_log_state(after)
    return after


def digest_after(txn: Registries, state: LogState) -> bytes:
    """Add what a transaction changed to the digest, by brand and in all; return the whole one."""
    total = int.from_bytes(state.digest) + txn.add_sums(txn.journal.sums)
    return (total % layout.DIGEST_MODULUS).to_bytes(layout.DIGEST_BYTES)


def check_order(state: LogState, position: Position, received: Sequence[Received]) -> None:
    """Refuse batches that do not follow what is in, or each other. Raises LogOrderError, LogForkError."""
    first = received[0].batch
    if first.log_id != position.log_id:
        raise LogOrderError("The batch is of another log.", fix="Let this replica boot from a copy of the new log.")
    if first.term < state.term:
        raise LogOrderError(f"The batch is of term {first.term}, and term {state.term} has begun.")
    if first.batch <= state.batch:
        raise LogForkError(f"Batch {first.batch} came, and {state.batch} is in already.")
    if first.batch != state.batch + 1 or first.first != position.sequence:
        raise LogOrderError(f"Batch {first.batch} came, and {state.batch + 1} is to be next.")
    if first.prev != state.chain:
        raise LogForkError(f"Batch {first.batch} follows another batch {state.batch} than the one that is in.")
    for earlier, later in pairwise(received):
        before, after = earlier.batch, later.batch
        if (
            (after.log_id, after.batch, after.prev, after.first)
            != (before.log_id, before.batch + 1, earlier.chain, before.last)
        ) or after.term < before.term:
            raise LogOrderError(f"Batch {after.batch} does not follow batch {before.batch}.")
    if any(each.batch.kind is Kind.REBASE for each in received):
        raise LogOrderError("What changed with the batch is not told.", fix="Let this replica boot from a copy.")


def check_digest(digest: bytes, received: Received) -> None:
    """Refuse a transaction after which the store would not be what the primary's is. Raises LogDivergedError."""
    if digest != received.batch.digest:
        raise LogDivergedError(
            f"After batch {received.batch.batch} this store is not what the primary's is.",
            fix="It boots from a copy by itself; 'iyscheck-loader digest' tells which brands differ. Please report it.",
        )


def sums_of(items: Callable[[bytes], Iterator[tuple[bytes, bytes]]]) -> dict[int, int]:
    """Read everything that is replicated, and sum it up by brand: what `digests` has to hold.

    `items` walks a named database.
    """
    sums: dict[int, int] = {}
    records = items(layout.RECORDS)
    while batch := list(islice(records, _SUMMED_AT_ONCE)):
        start = 0
        while start < len(batch):
            code = batch[start][0][: layout.CODE_BYTES]
            own = list(takewhile(lambda item, code=code: item[0].startswith(code), batch[start:]))  # type: ignore[misc] # mypy knows no defaults of lambdas
            brand = layout.decode_code(code)
            total = record_sum([key for key, _ in own], [value for _, value in own])
            sums[brand] = (sums.get(brand, 0) + total) % layout.DIGEST_MODULUS
            start += len(own)
    for name in layout.REPLICATED[1:]:
        for key, value in items(name):
            if name != layout.META or key.startswith(layout.META_FEED):
                brand = brand_of(name, key)
                sums[brand] = (sums.get(brand, 0) + element(name, key, value)) % layout.DIGEST_MODULUS
    return sums


def digest_of(sums: Mapping[int, int]) -> bytes:
    """Return the whole digest of sums by brand."""
    return (sum(sums.values()) % layout.DIGEST_MODULUS).to_bytes(layout.DIGEST_BYTES)
