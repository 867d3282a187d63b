"""Batches made of messages: each is looked at before anything of it is kept, and has to follow the one before."""

from iyscheck.change import Position
from iyscheck.errors import LogForkError
from iyscheck.store.layout import LogState
from iyscheck.store.log_batch import Kind, Received
from loader.replication.codec import MessageHeader, Rejection, hash_of, rejected
from loader.replication.finding import CopyNeeded, Opener


class CopyNeededError(Exception):
    """The log does not lead on from here; `need` says which copy does."""

    def __init__(self, need: CopyNeeded) -> None:
        super().__init__(need.why)
        self.need = need


class Assembler:
    """Puts batches together that follow a store. Parts of the next one are kept until all are there."""

    def __init__(self, opener: Opener, state: LogState, position: Position) -> None:
        self._opener = opener
        self._log_id = position.log_id
        self._term, self._batch, self._chain = state.term, state.batch, state.chain
        self._parts: list[bytes] = []

    def take(self, number: int, message: bytes) -> Received | None:
        """Take the next message; return a batch when all of it is there.

        What is in already, or came twice, is passed over. Raises MessageRejectedError, after which the next may be
        taken; LogForkError and CopyNeededError, after which this is of no use any more.
        """
        header = self._opener.verified(message)
        if header.log_id != self._log_id:
            raise rejected(Rejection.LOG)  # where a new log has begun, its end tells
        if header.batch <= self._batch:
            is_ours = header.batch < self._batch or header.part < header.parts or hash_of(message) == self._chain
            if not is_ours:
                raise LogForkError(f"Another batch {header.batch} came than the one that is in.")
            return None
        if message in self._parts:
            return None
        self._check(header)
        self._parts = [message] if header.part == 1 else [*self._parts, message]
        if header.part < header.parts:
            return None
        parts, self._parts = self._parts, []
        received = Received(batch=self._opener.opened(parts), chain=hash_of(message), number=number)
        self._term, self._batch, self._chain = header.term, header.batch, received.chain
        return received

    def _check(self, header: MessageHeader) -> None:
        """Refuse what does not follow. A first part takes the place of parts of a primary that died before the rest."""
        if header.batch != self._batch + 1:
            raise CopyNeededError(self._need(header, f"Batch {self._batch + 1} is missing in the log."))
        if header.part > 1:
            if len(self._parts) != header.part - 1 or header.prev != hash_of(self._parts[-1]):
                raise CopyNeededError(self._need(header, f"Parts of batch {header.batch} are missing in the log."))
            return
        if header.prev != self._chain:
            raise LogForkError(f"Batch {header.batch} follows another batch than the one that is in.")
        if header.term < self._term:
            raise LogForkError(f"Batch {header.batch} is of term {header.term}, and term {self._term} has begun.")
        if header.kind == Kind.REBASE:
            raise CopyNeededError(self._need(header, f"What changed with batch {header.batch} is not told."))

    def _need(self, header: MessageHeader, why: str) -> CopyNeeded:
        """Say which copy leads on where this message is read: one that has its batch, unless it begins with that."""
        begins = header.part == 1 and header.kind != Kind.REBASE
        return CopyNeeded(why=why, log_id=self._log_id, batch=header.batch - begins)
