"""The publisher: what waits in the outbox of a primary, into the log: in order, each once, not behind another primary.

It only reads the store, so nothing that happens to the log keeps a loader waiting. All that it remembers is where the
log was found to end; whenever that is not so any more, the newest message in the log whose signature counts tells where
to go on. What is no message of a log is passed over. The only file that it writes says what the log has, so that the
loader may drop it.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from iyscheck.errors import LogFencedError, LogRestoredError, MessageRejectedError, StoreFormatError, StoreRoleError
from iyscheck.store.acknowledged import ACKNOWLEDGED, NOT_THE_PRIMARY
from iyscheck.store.layout import PRIMARY, LogState
from iyscheck.store.log_batch import Kind
from iyscheck.store.snapshot import Snapshot, Store
from loader.replication.codec import HEADER_BYTES, MAGIC, BatchOpener, MessageHeader, Rejection, header_of
from loader.replication.messages import Log, LogAwayError, LogEnds, LogMissingError, LogMovedError
from loader.reports.outbox import OutboxMetrics

POLL_S: Final = 0.01
"""How long after a commit it may be noticed."""
LOOK_S: Final = 5.0
"""How often it is looked where the log ends, though nothing is wrong: its end may be lost while nobody writes."""
RETRY_S: Final = 0.5
"""Pause while nobody answers for the log."""
BACK: Final = 64
"""Messages at the log's end that are passed over; where there are more nobody knows what lies before them."""

_AWAY: Final = "Look at 'servers' under [nats] in the cluster file, and at NATS: it goes on by itself."


class State(StrEnum):
    """How the publisher is. The last two are for good: only a person knows which store is to be the primary."""

    STARTING = "starting"
    PUBLISHING = "publishing"
    AWAY = "away"
    """Nobody answers for the log, or it takes nothing."""
    MISSING = "missing"
    """There is no log: a person has to make it."""
    FENCED = "fenced"
    """Another primary has begun."""
    RESTORED = "restored"
    """The log has more of this store than the store has."""


STOPPED: Final = frozenset({State.FENCED, State.RESTORED})


class AckFile:
    """The file in which the loader reads up to which batch the log has everything, or that it is to load no more."""

    def __init__(self, store: Path) -> None:
        self._path = store / ACKNOWLEDGED
        self._written: int | None = None

    def write(self, batch: int) -> None:
        """Say it, or NOT_THE_PRIMARY; whoever reads sees the old number or this one. Raises OSError."""
        if batch == self._written:
            return
        beside = self._path.with_name(f"{ACKNOWLEDGED}.tmp")
        beside.write_bytes(batch.to_bytes(8))
        beside.chmod(0o644)  # servers may run as another user
        beside.replace(self._path)
        self._written = batch


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """Where the log ends, by our own messages: its last number, and what is to come next.

    That is what follows the first `parts` messages of `batch`, which need not be in the outbox yet.
    """

    number: int
    batch: int
    parts: int


class Publisher:
    """Publishes the outbox of one store; `step` by step, or `run` until it is told to stop.

    `opener` tells whose message counts. `rebased` is told of each batch in the log that only a copy of the store leads
    past.
    """

    def __init__(
        self,
        store: Store,
        log: Log,
        opener: BatchOpener,
        acknowledged: AckFile,
        *,
        metrics: OutboxMetrics,
        rebased: Callable[[int], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        import structlog  # with what it brings a tenth of the start of every other command

        self.state = State.STARTING
        self._store = store
        self._log = log
        self._opener = opener
        self._acknowledged = acknowledged
        self._metrics = metrics
        self._rebased = rebased
        self._monotonic = monotonic
        self._end: _End | None = None
        self._look_s = 0.0
        self._seen = -1
        self._noted = True
        self._moved = False
        self._passed = 0
        self._lines = structlog.get_logger("publisher")
        metrics.state(self.state)

    def run(self, stop: threading.Event, alive: Callable[[str], object] = lambda _: None) -> None:
        """Go on until told to stop; `alive` is told the state now and then.

        Raises LogFencedError, LogRestoredError, StoreRoleError where this store is not to be published any more, and
        what the store raises.
        """
        while not stop.is_set():
            did_something = self.step()
            alive(self.state)
            if not did_something:
                self._wait(stop)

    def step(self) -> bool:
        """Publish the next batch, if there is one; say whether something was done, so that more may follow at once.

        Raises what `run` does.
        """
        now_s = self._monotonic()
        if now_s >= self._look_s:
            self._end, self._look_s = None, now_s + LOOK_S
            self._store.environment.refuse_replaced()
        self._seen = self._store.transaction_id()
        try:
            end = self._end = self._end or self._found()
            did_something = self._publish(end)
        except LogMovedError:
            self._end = None  # what lies at the end now tells what to do
            if self._moved:
                self._become(State.AWAY, "The log says that it ends elsewhere than it ends.", _AWAY)
            self._moved = not self._moved
            return self._moved
        except LogMissingError as error:
            self._end = None
            self._become(State.MISSING, error, "Make it with 'iyscheck-loader create-log'.")
            return False
        except LogAwayError as error:
            self._become(
                State.AWAY, error, _AWAY
            )  # what is in flight may be in the log or not: the same is appended again
            return False
        except (LogFencedError, LogRestoredError) as error:
            self._become(
                State.FENCED if isinstance(error, LogFencedError) else State.RESTORED, error.message, error.fix
            )
            raise
        self._moved = False
        self._become(State.PUBLISHING)
        return did_something

    def _publish(self, end: _End) -> bool:
        """Append what comes next, a batch or what is left of one."""
        with self._store.snapshot() as snapshot:
            _primary(snapshot)
            batch = next((batch for batch, _ in snapshot.outbox_batches(end.batch)), None)
            messages = [] if batch is None else snapshot.outbox_messages(batch)
        if batch is None:
            return False
        header = _readable(messages[-1])
        parts = end.parts if batch == end.batch else 0  # one that is not there was given up: a hole, as replicas see
        for message in messages[parts:]:
            began_s = self._monotonic()
            number = self._log.append(end.number, message)
            self._metrics.appended(self._monotonic() - began_s)
            parts += 1
            end = self._end = _End(number=number, batch=batch, parts=parts)
        self._end = _End(number=end.number, batch=batch + 1, parts=0)
        self._acknowledge(batch)
        if header.kind == Kind.REBASE:
            self._rebased(batch)
        return True

    def _found(self) -> _End:
        """Find where the log ends, and what of ours is to follow there.

        Raises LogFencedError, LogRestoredError, LogAwayError, LogMissingError.
        """
        ends = self._log.ends()
        least = max(ends.first, ends.last - BACK + 1)
        for number in range(ends.last, least - 1, -1) if ends.messages else ():
            message = self._log.get(number)
            if message is None:  # never behind what may be another primary's
                raise LogAwayError("The newest message of the log cannot be read.")
            with self._store.snapshot() as snapshot:
                header = self._counting(message, snapshot)
                if header is not None:
                    self._pass_over(ends, ends.last - number)
                    return self._end_behind(header, message, snapshot, ends)
        if ends.messages:
            self._pass_over(ends, ends.last - least + 1)
            if least > ends.first:
                raise LogFencedError(
                    f"The newest {BACK} messages of the log are none that this iyscheck could have made.",
                    fix="See who may publish at NATS, and keep whoever it is away. Then 'iyscheck-loader promote "
                    "--rebase' lets this store go on behind them.",
                )
        with self._store.snapshot() as snapshot:
            batch = _oldest(snapshot)
        self._acknowledge(0)
        return _End(number=ends.last, batch=batch, parts=0)

    def _counting(self, message: bytes, snapshot: Snapshot) -> MessageHeader | None:
        """Return the header of a message of the log that counts; None of what is to be passed over.

        Raises LogFencedError where it cannot be told whose it is.
        """
        log_id = snapshot.position.log_id
        try:
            return self._opener.verified(message)
        except MessageRejectedError as error:
            if error.why == Rejection.VERSION:
                raise LogFencedError(
                    "The newest message of the log is of a version that this iyscheck does not know: a newer one made "
                    "it, for this store or as another primary.",
                    fix="Upgrade iyscheck on this machine, and start the publisher again: it tells which it is.",
                ) from None
            if error.why == Rejection.KEY:  # it is signed: the stream key was changed since, or before
                return header_of(message)
        if message[: len(MAGIC)] != MAGIC or log_id not in message[:HEADER_BYTES]:
            return None
        try:
            header = header_of(message)
        except MessageRejectedError:  # cut off, or of a version that nobody signed
            header = None
        if header is None or not _is_waiting(header, message, snapshot):  # that is ours, though the key was changed
            raise LogFencedError(
                "Somebody whose signature does not count here wrote into the log in the name of this log: "
                "a new primary whose public key this cluster file does not name, or a stranger.",
                fix="If another machine was promoted, let this one follow it. If nobody was, see who may publish at "
                "NATS, then 'iyscheck-loader promote' lets this store go on behind that message.",
            )
        return header

    def _end_behind(self, header: MessageHeader, message: bytes, snapshot: Snapshot, ends: LogEnds) -> _End:
        """Go on behind the newest message that counts, unless another primary has made it."""
        state, oldest = _primary(snapshot), _oldest(snapshot)
        if header.log_id != snapshot.position.log_id:
            raise LogFencedError(
                "The newest message of the log is of another log.",
                fix="Look who else writes there. Each log needs a stream of its own: see [nats] in the cluster file. "
                "Once only this primary writes there, 'iyscheck-loader promote' lets it go on behind that message.",
            )
        if header.term > state.term or (header.batch >= oldest and not _is_waiting(header, message, snapshot)):
            self._note(NOT_THE_PRIMARY)
            raise _stranger(header, state)
        if header.part == header.parts:
            self._acknowledge(header.batch)
            return _End(number=ends.last, batch=max(header.batch + 1, oldest), parts=0)
        self._acknowledge(header.batch - 1)
        return _End(number=ends.last, batch=header.batch, parts=header.part)

    def _pass_over(self, ends: LogEnds, messages: int) -> None:
        """Tell once of messages at the log's end that are none of a log."""
        seen = self._passed if self._passed <= ends.last else 0  # a log that was made anew begins again
        new = min(messages, ends.last - seen)
        if new > 0:
            self._passed = ends.last
            self._metrics.passed_over(new)
            self._lines.warning("message_passed_over", number=ends.last, messages=new)

    def _acknowledge(self, batch: int) -> None:
        self._metrics.acknowledged(batch)
        self._note(batch)

    def _note(self, batch: int) -> None:
        try:
            self._acknowledged.write(batch)
        except OSError as error:  # the outbox grows until the next try
            if self._noted:
                self._lines.error("acknowledged_not_noted", message=error.strerror)
            self._noted = False
        else:
            self._noted = True

    def _become(self, state: State, why: object = "", fix: str = "") -> None:
        if state is self.state:
            return
        self.state = state
        self._metrics.state(state)
        if state is State.PUBLISHING:
            end = self._end
            self._lines.info("publishing", number=end.number if end else 0, next_batch=end.batch if end else 0)
        else:
            self._lines.error(f"publisher_{state}", message=str(why), fix=fix)

    def _wait(self, stop: threading.Event) -> None:
        """Wait for the next commit; where the log is away, for a moment."""
        if self.state is not State.PUBLISHING:
            stop.wait(RETRY_S)
            return
        while not stop.wait(POLL_S) and self._monotonic() < self._look_s and self._store.transaction_id() == self._seen:
            pass


def _primary(snapshot: Snapshot) -> LogState:
    """Return how the store stands in its log. Raises StoreRoleError where it is no primary."""
    state = snapshot.log
    if state is None or state.role != PRIMARY:
        raise StoreRoleError(
            "The store is not the primary of a log: there is nothing to publish.",
            fix="Make it one with 'iyscheck-loader create-log', or a replica with 'iyscheck-loader promote'.",
        )
    return state


def _readable(message: bytes) -> MessageHeader:
    """Read the header of a message of the outbox. Raises StoreFormatError where a newer loader made it.

    Nothing is appended that could not be found again.
    """
    try:
        return header_of(message)
    except MessageRejectedError:
        raise StoreFormatError(
            "A newer iyscheck has written the outbox of this store.",
            fix="Upgrade the publisher, and start it again: it comes before the loader.",
        ) from None


def _oldest(snapshot: Snapshot) -> int:
    """Return the first batch of the outbox; of an empty one that which comes next. Raises StoreRoleError."""
    state = _primary(snapshot)
    return next((batch for batch, _ in snapshot.outbox_batches()), state.batch + 1)


def _is_waiting(header: MessageHeader, message: bytes, snapshot: Snapshot) -> bool:
    """Say whether a message is just so in the outbox."""
    return snapshot.outbox_messages(header.batch)[header.part - 1 : header.part] == [message]


def _stranger(header: MessageHeader, state: LogState) -> LogFencedError | LogRestoredError:
    """Say that the log holds a batch that we have not made, in our name or in another primary's."""
    if header.term > state.term:
        return LogFencedError(
            f"Another primary has begun: the log is at term {header.term}, and this store at {state.term}.",
            fix="Let this machine follow it: 'iyscheck-loader replicate' with a store of its own. Only if this one is "
            "to be the primary again, run 'iyscheck-loader promote'.",
        )
    if header.term < state.term:
        return LogFencedError(
            f"The log has batches of term {header.term} where those of this store's term {state.term} should lie.",
            fix="Stop the loader and the publisher of the primary before. Then 'iyscheck-loader promote --rebase' lets "
            "this store go on; its replicas take a copy.",
        )
    return LogRestoredError(
        f"The log has a batch {header.batch} of this store's term that this store has not made: it was restored from "
        "a backup, or a copy of it is written, too.",
        fix="Stop whoever else writes a copy of it. Then 'iyscheck-loader promote' takes what is missing from the log, "
        "or 'iyscheck-loader promote --rebase' goes on from what is in this store, and replicas take a copy.",
    )
