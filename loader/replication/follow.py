"""A log into one store: found where the store stands, read on from there, and applied batch after batch.

It is only ever read from the message that the store applied last, or from the one that follows that: a reader that
starts beyond the end of a log waits and then passes over numbers that come again, and one that starts before its
beginning jumps, neither with a word. So it is looked which message comes first, and the place is looked up anew at each
beginning and whenever nothing comes.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from iyscheck.change import Position
from iyscheck.errors import IyscheckError, LogDivergedError, LogError, LogOrderError, MessageRejectedError
from iyscheck.store.layout import LogState
from iyscheck.store.log_batch import Received
from iyscheck.store.log_writer import LogWriter
from loader.replication.assembling import Assembler, CopyNeededError
from loader.replication.finding import CopyNeeded, Opener, Place, Waiting, find
from loader.replication.messages import Log, LogAwayError, Reader

ROWS_AT_ONCE: Final = 50_000
"""In one transaction while behind: one of many rows costs half as much for each."""
COLLECTING_S: Final = 0.5
"""How long batches are collected for one transaction at most."""
LOOK_S: Final = 5.0
"""How often the place is compared with the log's, while nothing comes or much does."""
_LATE_S: Final = 0.25
_MESSAGES: Final = 16


class State(StrEnum):
    """What a replica is doing."""

    STARTING = "starting"
    BOOTING = "booting"
    CATCHING_UP = "catching_up"
    FOLLOWING = "following"
    WAITING = "waiting"
    AWAY = "away"
    REJECTING = "rejecting"
    GAP = "gap"
    FORK = "fork"
    UNTRUSTED = "untrusted"
    FULL = "full"


class Watch(Protocol):
    """Is told what a replica does."""

    def became(self, state: State, why: str = "") -> None:
        """Hear what it is doing now; `why` is a sentence for people."""

    def serves(self, state: LogState) -> None:
        """Hear how the store stands that answers from now on."""

    def not_copied(self, error: IyscheckError) -> None:
        """Hear that no copy could be made for others."""

    def applied(self, batches: int, rows: int, state: LogState) -> None:
        """Hear of batches that are in, and how the store stands."""

    def rejected(self, number: int, error: MessageRejectedError) -> None:
        """Hear of a message that does not count."""

    def refused(self, error: LogError) -> None:
        """Hear of a batch that could not be put in."""

    def behind(self, rows: int, size: int) -> None:
        """Hear how many feed rows and about how many bytes of the log are not in yet."""


@dataclass(slots=True)
class _Reading:
    """The log as it is read now."""

    place: Place
    reader: Reader
    assembler: Assembler
    has_begun: bool = False
    newest: int = 0
    """The newest message that came."""


class Follower:
    """Follows a log into a store. For one thread. `now` tells monotonic seconds."""

    def __init__(
        self,
        writer: LogWriter,
        log: Log,
        opener: Opener,
        watch: Watch,
        *,
        now: Callable[[], float] = time.monotonic,
        rows_at_once: int = ROWS_AT_ONCE,
    ) -> None:
        self.writer = writer
        self.is_at_end = False
        """Whether all that the log had when it was asked last is in."""
        self._log = log
        self._opener = opener
        self._watch = watch
        self._now = now
        self._rows_at_once = rows_at_once
        self._reading: _Reading | None = None
        self._open = ExitStack()
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._looked = 0.0
        self._doubted = -1
        self._told_of = 0
        self._is_stuck = False

    @property
    def state(self) -> LogState:
        """How the store stands in its log."""
        state = self.writer.log
        if state is None:
            raise LogOrderError("The store is in no log.")
        return state

    @property
    def is_reading(self) -> bool:
        """Whether there is something to wait for: the log goes on where the store stands, as far as is known."""
        return self._reading is not None

    @property
    def position(self) -> Position:
        """Where the store stands."""
        return self.writer.position

    def close(self) -> None:
        """Read no more, and close the store."""
        self.rest()
        self.writer.close()

    def rest(self) -> None:
        """Read no more for now; the next step looks up the place again."""
        self._reading = None
        self._waiting.clear()
        self.is_at_end = False
        self._open.close()

    def step(self, wait_s: float) -> int:
        """Apply what comes next, waiting at most so long for it; return how many batches it was.

        Raises CopyNeededError, LogForkError, LogDivergedError, StoreError, LogAwayError and LogMissingError: nothing
        of a batch is in then, and the next step begins anew.
        """
        try:
            reading = self._reading or self._begun()
            if reading is None:
                return 0
            group, error = self._collected(reading, wait_s)
            if group:
                self._apply(group, reading)
            if error is None and self._now() - self._looked >= LOOK_S:
                self._compare(reading, is_idle=not group)
            if error is not None:
                self._doubt(error)
        except BaseException:
            self.rest()
            raise
        return len(group)

    def _begun(self) -> _Reading | None:
        """Find the place and begin to read there; None where the log has nothing for us yet."""
        state, position = self.state, self.position
        place = self._found(state, position)
        if place is None:
            return None
        if place.is_ours and (place.ends.created, place.first) != (state.stream_created, state.stream_sequence):
            self.writer.found(stream_created=place.ends.created, number=place.first)
        reader = self._open.enter_context(self._log.reading(place.first))
        self._reading = _Reading(place=place, reader=reader, assembler=Assembler(self._opener, state, position))
        return self._reading

    def _found(self, state: LogState, position: Position) -> Place | None:
        """Look up the place. Raises CopyNeededError, LogForkError."""
        self._looked = self._now()
        place = find(self._log, self._opener, state, position)
        match place:
            case CopyNeeded():
                self._is_stuck = True
                raise CopyNeededError(place)
            case Waiting():
                self.rest()
                self._watch.became(State.WAITING, place.why)
                return None
        self.is_at_end = place.is_ours and place.first == place.ends.last
        share = (place.ends.last - place.first + 1 - place.is_ours) / max(1, place.ends.messages)
        self._watch.behind(place.behind_rows, int(place.ends.bytes * min(1.0, share)))
        self._is_stuck &= not self.is_at_end
        if not self._is_stuck:  # what it is doing was said, and is so until something is applied
            self._watch.became(State.FOLLOWING if self.is_at_end else State.CATCHING_UP)
        return place

    def _compare(self, reading: _Reading, *, is_idle: bool) -> None:
        """Look whether the log is still what is read; begin anew where it is not, or where it has more than comes."""
        place = self._found(self.state, self.position)
        if place is None:
            return
        if is_idle and (not reading.has_begun or place.ends.last > reading.newest):
            self._waiting.extend(reading.reader.fetch(_LATE_S, _MESSAGES))
            if not self._waiting:
                self.rest()
        if place.ends.created != reading.place.ends.created:
            self.rest()

    def _collected(self, reading: _Reading, wait_s: float) -> tuple[list[Received], Exception | None]:
        """Take batches, as many as are there and go into one transaction; and what is wrong with what comes then."""
        group: list[Received] = []
        rows, end = 0, self._now() + COLLECTING_S
        while rows < self._rows_at_once:
            if not self._waiting:
                self._waiting.extend(reading.reader.fetch(0 if group else wait_s, _MESSAGES))
            if not self._waiting:
                break
            number, message = self._waiting.popleft()
            if not reading.has_begun and number != reading.place.first:
                raise LogAwayError(f"The log began to be read at {number} instead of {reading.place.first}.")
            reading.has_begun, reading.newest = True, max(number, reading.newest)
            try:
                received = self._taken(reading.assembler, number, message)
            except (CopyNeededError, LogError) as error:
                return group, error
            if received is not None:
                group.append(received)
                rows += len(received.batch.rows)
            if self._now() >= end:
                break
        return group, None

    def _taken(self, assembler: Assembler, number: int, message: bytes) -> Received | None:
        """Take a message. One that does not count is asked for again, as the log's leader has it, then passed over.

        What it should have been is missed when the next comes.
        """
        try:
            return assembler.take(number, message)
        except MessageRejectedError as error:
            again = self._log.get(number)
            if again is not None and again != message:
                try:
                    return assembler.take(number, again)
                except MessageRejectedError:
                    pass  # as the reader had it
            if number > self._told_of:
                self._told_of, self._is_stuck = number, True
                self._watch.rejected(number, error)
                self._watch.became(State.REJECTING, str(error))
            return None

    def _apply(self, group: Sequence[Received], reading: _Reading) -> None:
        """Put batches into the store; where they make it another than the primary's was, one by one."""
        created = reading.place.ends.created
        try:
            followed = self.writer.follow(group, stream_created=created)
        except LogDivergedError:
            if len(group) == 1:
                raise
            for each in group:
                self._apply([each], reading)
            return
        self._doubted, self._is_stuck = -1, False
        self._watch.applied(len(group), sum(len(each.batch.rows) for each in group), followed.state)
        newest = max(reading.newest, reading.place.ends.last)
        self.is_at_end = not self._waiting and followed.state.stream_sequence >= newest
        if self.is_at_end:
            self._watch.behind(0, 0)
        self._watch.became(State.FOLLOWING if self.is_at_end else State.CATCHING_UP)

    def _doubt(self, error: Exception) -> None:
        """Begin anew the first time that the log does not lead on from a batch: perhaps it was only read badly."""
        self.rest()
        batch = self.state.batch
        if self._doubted == batch:
            self._is_stuck = True
            raise error
        self._doubted = batch


def lag_s(state: LogState, now_s: float) -> float:
    """Return how long ago the newest batch was made that is in a store, by our clock; 0 where that lies ahead."""
    return max(0.0, now_s - state.created_ms / 1000)
