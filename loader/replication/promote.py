"""A store becomes the primary of its log: it comes to the log's end, appends its term there, and only then takes over.

Whoever was the primary finds that message where its next one should lie, and stops for good.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from iyscheck.errors import LogError, LogForkError, LogOrderError, ServiceUnavailableError, StoreRoleError
from iyscheck.store.layout import PRIMARY, LogState
from iyscheck.store.log_batch import Sealer
from iyscheck.store.log_writer import Beginning, LogWriter
from iyscheck.store.snapshot import Store
from loader.replication.assembling import CopyNeededError
from loader.replication.codec import MessageHeader, hash_of
from loader.replication.finding import CopyNeeded, Newest, Opener, Waiting, find, newest
from loader.replication.follow import Follower, Watch
from loader.replication.messages import Log, LogAwayError, LogEnds, LogMovedError
from loader.replication.publish import AckFile
from loader.replication.staging import Staging

_PAUSE_S: Final = 0.5
_TRIES: Final = 60
"""How often a log is asked that does not answer."""
_AGAIN: Final = "Look at NATS, then promote again."
_ELSE: Final = (
    "Promote a replica that follows the log, or let this one boot from a snapshot first ('iyscheck-loader replicate'). "
    "If there is none: --rebase lets this store go on as it is, and all others take a copy of it."
)


class How(StrEnum):
    """How a store becomes the primary."""

    CONTINUE = "continue"
    """From the log's end: replicas go on following."""
    REBASE = "rebase"
    """As it is, behind the log's end: replicas need a copy of it."""
    NEW_LOG = "new_log"
    """As it is, in a log of its own: positions of the old one mean nothing any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promoted:
    """A store that is the primary now: how it stands, batches that it took from the log before, and what it did."""

    state: LogState
    drained: int
    how: How


class Promotion:
    """Makes a store the primary. `settings` is the path of its cluster file."""

    def __init__(
        self,
        writer: LogWriter,
        log: Log,
        opener: Opener,
        sealer: Sealer,
        watch: Watch,
        *,
        settings: str,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._writer = writer
        self._log = log
        self._opener = opener
        self._sealer = sealer
        self._watch = watch
        self._settings = settings
        self._pause = pause

    def promote(self, how: How = How.CONTINUE) -> Promoted:
        """Do it. Raises StoreRoleError, LogError where the log does not let it, ServiceUnavailableError without one."""
        state = self._writer.log
        if state is None:
            raise StoreRoleError(
                f"The store at '{self._writer.path}' is in no log.",
                fix="Begin a log with it: 'iyscheck-loader create-log'.",
            )
        drained = 0
        if how is How.CONTINUE and state.role == PRIMARY:
            self._tell_rest()
            self._refuse_untold(state)
        if how is How.CONTINUE:
            self._writer.become_replica()
        for _ in range(_TRIES):
            if how is How.CONTINUE:
                batches, end = self._drained()
                drained += batches
                self._at_end()
                beginning = self._writer.begin_term(self._sealer)
            else:
                beginning, end = self._untold(how)
            if self._appended(end, beginning):
                taken = self._writer.take_over(beginning, settings=self._settings)
                AckFile(self._writer.path).write(taken.batch)
                Staging(self._writer.path).clear()
                return Promoted(state=taken, drained=drained, how=how)
        raise LogOrderError("Somebody else appends to the log all the time.", fix="Stop the old primary's publisher.")

    def _tell_rest(self) -> None:
        """Append what the log has not yet of this primary, behind whatever it ends with.

        So a stranger's message, behind which no publisher goes on by itself, is left where it is: who follows passes it
        over. Nothing is appended where the newest message that counts is not this primary's own.
        """
        for _ in range(_TRIES):
            found = self._at_end()
            rest = [] if found.header is None else self._rest_behind(found.header, found.message)
            if all(self._appended_one(expected, each) for expected, each in enumerate(rest, found.ends.last)):
                return

    def _rest_behind(self, header: MessageHeader, message: bytes) -> list[bytes]:
        """Return the messages of the outbox that follow one, if that is its own, and all of them are there.

        Raises LogForkError where the outbox has another one in its place.
        """
        with Store(self._writer.environment).snapshot() as snapshot:
            own = snapshot.outbox_messages(header.batch)
            state = snapshot.log
            if state is None or header.log_id != snapshot.position.log_id or not own:
                return []
            if own[header.part - 1 :][:1] != [message]:
                raise LogForkError(
                    f"The log has another batch {header.batch} than this primary made: it was restored from a backup "
                    "and went on, or another primary has begun.",
                    fix="If another one has begun, let this store follow it: 'replicate --rejoin'. Else --rebase lets "
                    "it go on as it is, and all others take a copy of it.",
                )
            later = [snapshot.outbox_messages(batch) for batch in range(header.batch + 1, state.batch + 1)]
        return [*own[header.part :], *(each for messages in later for each in messages)] if all(later) else []

    def _refuse_untold(self, state: LogState) -> None:
        """Refuse what would forget changes of a primary that its log has not yet, or that took another way."""
        with self._translated():
            place = find(self._log, self._opener, state, self._writer.position)
        if isinstance(place, Waiting):
            raise LogOrderError(
                f"This store is the primary, and its log has not all that it told. {place.why}",
                fix="Run 'iyscheck-loader publish'. If the log lost what is no longer in the outbox: --rebase.",
            )

    def _drained(self) -> tuple[int, int]:
        """Apply what the log has, as its leader has it; return how many batches it was, and the log's last number."""
        by_number = _ByNumber(self._log)
        follower = Follower(self._writer, by_number, self._opener, self._watch)
        batches = 0
        with self._translated():
            place = find(self._log, self._opener, follower.state, follower.position)
            if isinstance(place, CopyNeeded):
                raise CopyNeededError(place)
            if isinstance(place, Waiting):
                raise LogOrderError(f"{place.why} This store is ahead of its log.", fix="Go on with it: --rebase.")
            while True:
                applied = self._stepped(follower)
                batches += applied
                if not applied and follower.is_reading and by_number.is_read and self._is_still(by_number.end):
                    follower.rest()
                    return batches, by_number.end
                if by_number.is_read:
                    follower.rest()

    def _stepped(self, follower: Follower) -> int:
        for _ in range(_TRIES):
            try:
                return follower.step(0)
            except LogAwayError:
                self._pause(_PAUSE_S)
        raise LogAwayError("The log does not answer.")

    def _is_still(self, end: int) -> bool:
        return self._log.ends().last == end

    def _untold(self, how: How) -> tuple[Beginning, int]:
        """Begin with the store as it is, behind whatever the log ends with."""
        if how is How.NEW_LOG:
            with self._translated():
                end = self._log.ends().last
            return self._writer.begin_term(self._sealer, new_log=True), end
        found = self._at_end()
        header, end = found.header, found.ends.last
        state, position = self._writer.log, self._writer.position
        if header is not None and header.log_id != position.log_id:
            raise LogOrderError("In the stream lies another log than this store's.", fix="Begin a new one: --new-log.")
        if state is None or header is None:
            return self._writer.begin_term(self._sealer, after=state, sequence=position.sequence), end
        is_ahead = header.batch < state.batch
        after = LogState(
            role=PRIMARY,
            term=max(header.term, state.term),
            batch=max(header.batch, state.batch),
            chain=state.chain if is_ahead else hash_of(found.message),
            created_ms=max(header.created_ms, state.created_ms),
        )
        # One more than the log had: no position may stand for what is there and for what is in this store.
        return self._writer.begin_term(self._sealer, after=after, sequence=header.last + 1), end

    def _at_end(self) -> Newest:
        """Look at the log's end. Raises LogOrderError where what lies there may be a primary's, and cannot be read."""
        with self._translated():
            found = newest(self._log, self._opener)
        if found.is_unread:
            raise LogOrderError(
                "The log ends with what a newer iyscheck made: changes that this one cannot read, or another primary.",
                fix="Upgrade iyscheck on this machine, then promote again.",
            )
        return found

    def _appended(self, end: int, beginning: Beginning) -> bool:
        """Append the first batch of the term where the log ends; say whether it lies there."""
        return all(self._appended_one(number, message) for number, message in enumerate(beginning.messages, end))

    def _appended_one(self, expected: int, message: bytes) -> bool:
        for _ in range(_TRIES):
            try:
                try:
                    self._log.append(expected, message)
                except LogMovedError:
                    return self._log.get(expected + 1) == message
            except LogAwayError:  # it may be stored or not: the next answer tells
                self._pause(_PAUSE_S)
            else:
                return True
        raise ServiceUnavailableError("The log does not answer.", fix=_AGAIN)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Say what to do about a log that does not lead this store to its end."""
        try:
            yield
        except CopyNeededError as error:
            raise LogOrderError(f"{error.need.why} This store cannot come to the end of the log.", fix=_ELSE) from None
        except LogForkError as error:
            raise LogForkError(error.message, fix=_ELSE) from None
        except LogError as error:
            raise type(error)(error.message, fix=_ELSE) if not error.fix else error from None
        except LogAwayError as error:
            raise ServiceUnavailableError(
                str(error) or "NATS gives no answer.", fix="Look at NATS, then promote again."
            ) from None


class _ByNumber:
    """A log that is read message by message, as its leader has it, up to where it ends."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._next = 1
        self.end = 0

    @property
    def is_read(self) -> bool:
        """Whether all was read up to the end that was seen."""
        return self._next > self.end

    def ends(self) -> LogEnds:
        """Say where it begins and ends."""
        return self._log.ends()

    def append(self, expected: int, message: bytes) -> int:
        """Append as the log does."""
        return self._log.append(expected, message)

    def get(self, number: int) -> bytes | None:
        """Return one message."""
        return self._log.get(number)

    @contextmanager
    def reading(self, first: int) -> Iterator["_ByNumber"]:
        """Read from a message on."""
        self._next, self.end = first, self._log.ends().last
        yield self

    def fetch(self, timeout_s: float, most: int = 16) -> list[tuple[int, bytes]]:  # noqa: ARG002 - nothing is waited for
        """Return the next messages; none at the end."""
        found: list[tuple[int, bytes]] = []
        while self._next <= self.end and len(found) < most:
            message = self._log.get(self._next)
            if message is not None:
                found.append((self._next, message))
            self._next += 1
        return found

    def close(self) -> None:
        """Leave it open: it is its owner's."""
