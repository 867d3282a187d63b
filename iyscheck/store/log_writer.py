"""A store as its log writes it: a replica that applies batches, and whoever takes over as primary.

A batch is applied whole, in one transaction, after everything about it was compared: its place, its term, what comes
before it, and at the end whether the store is now what the primary's was.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from iyscheck.change import LOG_ID_BYTES, Position
from iyscheck.errors import StoreRoleError
from iyscheck.store import layout, log, outbox, records
from iyscheck.store.acknowledged import ACKNOWLEDGED
from iyscheck.store.encoded import EncodedChanges
from iyscheck.store.environment import walk
from iyscheck.store.journal import Journal
from iyscheck.store.layout import NO_CHAIN, PRIMARY, REPLICA, LogState
from iyscheck.store.log_batch import Kind, LogBatch, Received, Sealer
from iyscheck.store.registries import Registries, read_position
from iyscheck.store.writable import WritableStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """What batches did to a replica: records written, where it is now, and how it stands in its log."""

    applied: int
    position: Position
    state: LogState


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """The first batch of a primary's term, and its messages; nothing of it is in the store yet."""

    batch: LogBatch
    messages: Sequence[bytes]


class LogWriter(WritableStore):
    """Writes what a log says into a store; make one with `open`."""

    def follow(self, received: Sequence[Received], *, stream_created: str) -> Followed:
        """Apply batches that follow each other, all of them or nothing. Durable when this returns.

        `stream_created` names the stream that they came from. Raises StoreRoleError where the store is no replica,
        LogOrderError, LogForkError, LogDivergedError, StoreFullError.
        """
        journal = Journal(kept=True)
        with self._transaction(journal) as txn:
            state = self._replica(txn)
            position = read_position(txn.txn, txn.databases[layout.META])
            log.check_order(state, position, received)
            written = self._put_records(txn, [each.batch.rows for each in received])
            values = {(name, key): value for each in received for name, key, value in each.batch.values}
            txn.put_values((name, key, value) for (name, key), value in values.items())
            if written is not None:
                txn.add_counts(written.counts)
            listed = [key for (name, key), value in values.items() if name == layout.ACCESS and value is not None]
            self._index(txn, written or records.NOTHING, listed)
            newest = received[-1]
            position = txn.move_to(newest.batch.last)
            digest = log.digest_after(txn, state)
            log.check_digest(digest, newest)
            state = msgspec.structs.replace(
                state,
                term=newest.batch.term,
                batch=newest.batch.batch,
                chain=newest.chain,
                digest=digest,
                created_ms=newest.batch.created_ms,
                stream_created=stream_created,
                stream_sequence=newest.number,
            )
            txn.put_log_state(state)
        return Followed(applied=0 if written is None else written.applied, position=position, state=state)

    def found(self, *, stream_created: str, number: int) -> None:
        """Note where the newest message that is in was found in a stream, whose numbers are others than before."""
        with self._transaction() as txn:
            state = self._replica(txn)
            txn.put_log_state(msgspec.structs.replace(state, stream_created=stream_created, stream_sequence=number))

    def distrust(self, why: str) -> None:
        """Say in the store that nothing commercial may be answered from it, and why."""
        with self._transaction() as txn:
            txn.put_log_state(msgspec.structs.replace(self._replica(txn), untrusted=why))

    def become_replica(self, *, log_id: bytes | None = None, stream_created: str = "", number: int = 0) -> LogState:
        """Make a store that nobody else writes follow its log, and return how it stands.

        One that is in no log has to be empty: it begins with the first batch of the log `log_id`.
        Raises StoreRoleError.
        """
        with self._transaction() as txn:
            state = txn.log_state()
            if state is None:
                if log_id is None or txn.txn.stat(txn.databases[layout.RECORDS])["entries"] or txn.feed_names():
                    raise StoreRoleError(
                        f"The store at '{self.path}' is in no log and not empty: it cannot follow one.",
                        fix="Let the replica boot into a directory of its own.",
                    )
                txn.txn.put(layout.META_LOG_ID, log_id, db=txn.databases[layout.META])
                state = LogState(role=REPLICA)
            outbox.clear(txn.txn, txn.databases)
            (self.path / ACKNOWLEDGED).unlink(missing_ok=True)  # what was said of a primary
            state = msgspec.structs.replace(
                state,
                role=REPLICA,
                oldest=state.batch + 1,
                stream_created=stream_created or state.stream_created,
                stream_sequence=number or state.stream_sequence,
                untrusted="",
                settings="",
            )
            txn.put_log_state(state)
        return state

    def begin_term(
        self, sealer: Sealer, *, after: LogState | None = None, sequence: int = 0, new_log: bool = False
    ) -> Beginning:
        """Make the batch with which this store becomes the primary, for the log; `take_over` puts it into the store.

        `after` says where the log stands if this store does not stand there: then replicas have to take a copy, and no
        position lies before `sequence`. So they have where the store is not empty and was in no log, and in a new log.
        """
        with self._transaction() as txn:
            state = txn.log_state()
            position = read_position(txn.txn, txn.databases[layout.META])
            has_records = bool(txn.txn.stat(txn.databases[layout.RECORDS])["entries"])
            digest = state.digest if state else log.digest_of(_sums(txn))
        stands = after or state or LogState(role=PRIMARY)
        untold = after is not None or (state is None and (has_records or position.sequence > 0))
        if new_log:
            stands, untold = LogState(role=PRIMARY), True
            position = Position(os.urandom(LOG_ID_BYTES), position.sequence)
        last = max(position.sequence, sequence)
        batch = LogBatch(
            kind=Kind.REBASE if untold else Kind.TERM,
            log_id=position.log_id,
            term=stands.term + 1,
            batch=stands.batch + 1,
            first=last,
            last=last,
            created_ms=max(int(self._clock() * 1000), stands.created_ms),
            prev=NO_CHAIN if new_log else stands.chain,
            digest=digest,
            rows=EncodedChanges.join(()),
            values=(),
        )
        return Beginning(batch=batch, messages=sealer.seal(batch))

    def take_over(self, beginning: Beginning, *, settings: str) -> LogState:
        """Make this store the primary that begins with a batch; `settings` is its cluster file. Returns its state."""
        batch = beginning.batch
        with self._transaction() as txn:
            if txn.log_state() is None:
                for brand, total in _sums(txn).items():
                    txn.add_sums({brand: total})
            outbox.clear(txn.txn, txn.databases)
            outbox.put(txn.txn, txn.databases, batch.batch, beginning.messages, batch.created_ms)
            txn.txn.put(layout.META_LOG_ID, batch.log_id, db=txn.databases[layout.META])
            txn.move_to(batch.last)
            (self.path / ACKNOWLEDGED).unlink(missing_ok=True)  # what was said of other batches of these numbers
            state = LogState(
                role=PRIMARY,
                term=batch.term,
                batch=batch.batch,
                chain=sha256(beginning.messages[-1]).digest(),
                digest=batch.digest,
                created_ms=batch.created_ms,
                oldest=batch.batch,
                settings=settings,
            )
            txn.put_log_state(state)
        return state

    def _put_records(self, txn: Registries, rows: Sequence[EncodedChanges]) -> records.Written | None:
        """Write the winners of batches that follow each other: of each consent the last one is the greatest."""
        some = [each for each in rows if len(each)]
        if not some:
            return None
        changes = some[0] if len(some) == 1 else records.newest_encoded(EncodedChanges.join(some))
        return records.follow(txn.txn, txn.databases[layout.RECORDS], changes, txn.journal)

    def _replica(self, txn: Registries) -> LogState:
        state = txn.log_state()
        if state is None or state.role != REPLICA:
            raise StoreRoleError(
                f"The store at '{self.path}' is no replica.",
                fix="Give 'iyscheck-loader replicate' a directory of its own.",
            )
        return state


def _sums(txn: Registries) -> dict[int, int]:
    return log.sums_of(lambda name: walk(txn.txn, txn.databases[name]))
