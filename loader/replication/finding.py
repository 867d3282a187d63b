"""Where a store stands in a log: looked up by what lies there, since numbers come again for other content."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from iyscheck.change import Position
from iyscheck.errors import LogForkError, MessageRejectedError
from iyscheck.store.layout import LogState
from iyscheck.store.log_batch import Kind, LogBatch
from loader.replication.codec import MessageHeader, Rejection, hash_of
from loader.replication.messages import Log, LogEnds

_NEIGHBOURS: Final = 8
"""Numbers of messages that are tried one by one where there is none, before a reader is sent to find the next."""
_BACK: Final = 64
"""Numbers that are tried backwards, where no reader goes."""
_READ_S: Final = 2.0


class Opener(Protocol):
    """Reads messages whose signature counts, as `BatchOpener` does."""

    def verified(self, message: bytes) -> MessageHeader:
        """Return the header. Raises MessageRejectedError."""
        ...

    def opened(self, messages: Sequence[bytes]) -> LogBatch:
        """Read a batch: all its parts. Raises MessageRejectedError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where to read on: at message `first`. It is the newest one that is in the store, or follows it if not `is_ours`.

    `behind_rows` are feed rows of the log that are not in the store yet.
    """

    first: int
    is_ours: bool
    ends: LogEnds
    behind_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The log ends before the store does, or says nothing that can be read: whoever publishes will go on."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyNeeded:
    """What follows is not in the log any more, or never was: only a copy of log `log_id` at `batch` or later helps."""

    why: str
    log_id: bytes
    batch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    number: int
    message: bytes
    header: MessageHeader


def find(log: Log, opener: Opener, state: LogState, position: Position) -> Place | Waiting | CopyNeeded:
    """Find the message that a store applied last, or the one that follows it.

    Raises LogForkError where another batch of the same number lies there; LogAwayError, LogMissingError.
    """
    return _Search(log, opener, log.ends()).place(state, position)


@dataclass(frozen=True, slots=True, kw_only=True)
class Newest:
    """What a log ends with: its newest message that counts and the header of it, None and nothing if none does.

    `is_unread`: what only a newer version reads lies behind it, changes or another primary's term. `why` says why
    nothing counts.
    """

    ends: LogEnds
    header: MessageHeader | None
    message: bytes
    is_unread: bool
    why: str


def newest(log: Log, opener: Opener) -> Newest:
    """Look at the end of a log. Raises LogAwayError, LogMissingError."""
    search = _Search(log, opener, log.ends())
    seen = search.last()
    return Newest(
        ends=search.ends,
        header=seen.header if seen else None,
        message=seen.message if seen else b"",
        is_unread=any(error.why == Rejection.VERSION for error in search.passed),
        why=search.why_nothing(),
    )


class _Search:
    """Looks for messages in a log that ends somewhere."""

    def __init__(self, log: Log, opener: Opener, ends: LogEnds) -> None:
        self._log = log
        self._opener = opener
        self.ends = ends
        self.passed: list[MessageRejectedError] = []
        """Why messages at the end do not count, the last one first."""

    def place(self, state: LogState, position: Position) -> Place | Waiting | CopyNeeded:
        """Find it, first where it was."""
        log_id = position.log_id
        last = self.last()
        is_this = last is None or last.header.log_id == log_id
        behind = max(0, last.header.last - position.sequence) if last is not None and is_this else 0
        number = state.stream_sequence
        if state.batch and self.ends.created == state.stream_created and self._has(number):
            message = self._log.get(number)
            if message is not None and hash_of(message) == state.chain and is_this:
                return Place(first=number, is_ours=True, ends=self.ends, behind_rows=behind)
        if last is None:
            return Waiting(why=self.why_nothing())
        if not is_this:
            if last.header.created_ms <= state.created_ms:
                return Waiting(why="What lies in the stream is an older log than the one that is followed here.")
            return CopyNeeded(why="Another log has begun.", log_id=last.header.log_id, batch=1)
        if last.header.batch < state.batch:
            return Waiting(why=f"The log ends with batch {last.header.batch}, and {state.batch} is in already.")
        return self._searched(state, log_id, behind)

    def last(self) -> _Seen | None:
        """Return the last message that counts, and note why those behind it do not."""
        return self.back_from(self.ends.last, self.passed)

    def why_nothing(self) -> str:
        """Say why nothing counts, if `last` found that."""
        if not self.ends.messages:
            return "The log is empty."
        newer = (error for error in self.passed if error.why == Rejection.VERSION)
        return f"Nothing in the log counts here. {next(newer, next(iter(self.passed), ''))}".rstrip()

    def back_from(self, number: int, passed: list[MessageRejectedError] | None = None) -> _Seen | None:
        """Return the last message up to a number that counts."""
        for each in range(number, max(self.ends.first, number - _BACK) - 1, -1):
            if seen := self._at(each, passed):
                return seen
        return None

    def _searched(self, state: LogState, log_id: bytes, behind: int) -> Place | Waiting | CopyNeeded:
        """Find the place by numbers of batches, which only grow."""
        low, high = self.ends.first, self.ends.last + 1
        while low < high:  # what counts before `low` is not later than the store, from `high` on it is
            middle = (low + high) // 2
            seen = self._from(middle, high - 1)
            if seen is None or (seen.header.log_id == log_id and seen.header.batch > state.batch):
                high = middle
            else:
                low = seen.number + 1
        before = self.back_from(low - 1)
        after = self._from(low, self.ends.last)
        if before and before.header.log_id == log_id and before.header.batch == state.batch:
            if hash_of(before.message) == state.chain:
                return Place(first=before.number, is_ours=True, ends=self.ends, behind_rows=behind)
            if before.header.part == before.header.parts:
                raise LogForkError(f"The log has another batch {state.batch} than the one that is in.")
        if after is None:
            return Waiting(why=f"The log breaks off within batch {state.batch}, which is in already.")
        header = after.header
        if header.kind == Kind.REBASE and header.part == 1:
            return CopyNeeded(
                why=f"What changed with batch {header.batch} is not told.", log_id=log_id, batch=header.batch
            )
        if (header.batch, header.part) != (state.batch + 1, 1):
            return CopyNeeded(
                why=f"Batch {state.batch + 1} is not in the log any more.",
                log_id=log_id,
                batch=header.batch - (header.part == 1),
            )
        if header.prev != state.chain:
            raise LogForkError(f"Batch {header.batch} of the log follows another batch than the one that is in.")
        return Place(first=after.number, is_ours=False, ends=self.ends, behind_rows=behind)

    def _has(self, number: int) -> bool:
        return self.ends.first <= number <= self.ends.last

    def _at(self, number: int, passed: list[MessageRejectedError] | None = None) -> _Seen | None:
        """Return a message if there is one that counts; else add to `passed` why it does not."""
        message = self._log.get(number)
        if message is None:
            return None
        try:
            return _Seen(number=number, message=message, header=self._opener.verified(message))
        except MessageRejectedError as error:  # reading meets it, and counts it
            if passed is not None:
                passed.append(error)
            return None

    def _from(self, first: int, last: int) -> _Seen | None:
        """Return the first message from a number on that counts."""
        for number in range(first, min(last, first + _NEIGHBOURS) + 1):
            if seen := self._at(number):
                return seen
        if first + _NEIGHBOURS >= last:
            return None
        return next(self._read(first + _NEIGHBOURS + 1, last), None)

    def _read(self, first: int, last: int) -> Iterator[_Seen]:
        with self._log.reading(first) as reader:
            while messages := reader.fetch(_READ_S):
                for number, message in messages:
                    if number > last:
                        return
                    try:
                        yield _Seen(number=number, message=message, header=self._opener.verified(message))
                    except MessageRejectedError:
                        continue
