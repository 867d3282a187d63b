"""Single calls that travel together: gathered into batches, kept in flight, answered one by one. Pure state, no socket.

Calls that differ in nothing but their recipient gather in one batch. A batch leaves as a frame when a line (one stream
of one connection) has room, with whatever has gathered by then: there is no timer. What is unanswered when a line
breaks goes back to the head of the queue and leaves again by any line; checks only read, so twice asked is no harm. A
reply that is not the one whose turn it is ends the line. So no call is ever answered twice or with another's answer.

`threads` and `tasks` move the messages and wake those who wait.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, Generic, Protocol, TypeAlias, TypeVar, cast

import msgspec

from iyscheck.change import Position
from iyscheck.client.calls import GATHERED, ColumnCall
from iyscheck.client.columns import FIRST_BACKOFF_S, LAST_BACKOFF_S
from iyscheck.consent import Channel, MessageClass, RecipientType
from iyscheck.errors import QuestionError, ServiceFailedError
from iyscheck.question import Contexts, Kind
from iyscheck.v1 import consent_check_pb2 as pb

CAPACITY: Final = 10_000
"""Calls that may be outstanding, each a few hundred bytes; the next ones wait for room."""
WINDOW: Final = 2
"""Frames on their way on one line: while the server answers one, the next one is made and sent."""
MAX_CONNECTIONS: Final = 64

Key: TypeAlias = tuple[int, Channel, RecipientType, MessageClass, int | None, Position | None, bytes | None]
"""Everything of a call but its recipient: brand, channel, recipient type, message class, retailer, position, id of the
key of its token (None for an address)."""

_MOST_KNOWN: Final = 1_000


class Kinds(dict[Key, ColumnCall]):
    """What calls of each key share, checked when it is first asked for. Of many keys the latest are remembered."""

    def __init__(self) -> None:
        super().__init__()
        self._contexts = Contexts(_MOST_KNOWN)

    def of(self, key: Key) -> ColumnCall:
        """Give what calls of a key share. Raises QuestionError, and TypeError for what is no position."""
        *kind, min_position, key_id = key
        context = self._contexts.of(cast("Kind", tuple(kind)))
        call = self.get(key)
        if call is None:
            if min_position is not None and not isinstance(min_position, Position):
                raise TypeError("min_position must be a Position")
            if len(self) >= _MOST_KNOWN:
                self.clear()
            self[key] = call = ColumnCall(context=context, address_key_id=key_id, min_position=min_position)
        return call


class Waiter(Protocol):
    """Whoever waits for the answer to a call. One that is done (answered, failed, cancelled) wants nothing more."""

    def done(self) -> bool:
        """Say whether it is over."""


W = TypeVar("W", bound=Waiter)


class Batch(msgspec.Struct, Generic[W], kw_only=True, eq=False):
    """Calls that share `call`: recipient i (an address, or a token) is asked for by waiter i until deadline i.

    On its way it has a frame id, the time when it was sent, and its request.

    The handler of a signal may raise anywhere in the thread that asks: what that thread does changes the lists together
    or not at all, or everybody behind would get another's answer.
    """

    call: ColumnCall
    recipients: list[str | bytes]
    waiters: list[W]
    deadlines: list[float]
    frame_id: int = 0
    sent: float = 0.0
    request: pb.StreamCheckRequest = msgspec.field(default_factory=pb.StreamCheckRequest)

    def cut(self) -> None:
        """Drop a call that did not come as far as its deadline."""
        whole = len(self.deadlines)
        del self.recipients[whole:], self.waiters[whole:]

    def prune(self) -> int:
        """Let go of calls that are over already; returns how many."""
        over = [waiter.done() for waiter in self.waiters]
        if True not in over:
            return 0
        kept = [place for place, done in enumerate(over) if not done]
        recipients = [self.recipients[place] for place in kept]
        waiters = [self.waiters[place] for place in kept]
        deadlines = [self.deadlines[place] for place in kept]
        self.recipients, self.waiters, self.deadlines = recipients, waiters, deadlines
        return len(over) - len(kept)

    def split(self, size: int) -> "Batch[W]":
        """Cut off what is beyond `size` calls."""
        rest = Batch(
            call=self.call,
            recipients=self.recipients[size:],
            waiters=self.waiters[size:],
            deadlines=self.deadlines[size:],
        )
        # New lists: a thread may be reading the old ones.
        self.recipients, self.waiters = self.recipients[:size], self.waiters[:size]
        self.deadlines = self.deadlines[:size]
        return rest


class Ledger(Generic[W]):
    """All calls that are not over: gathering, or on their way on one of the lines. Not thread-safe.

    `outstanding` counts them, those whose waiter is done meanwhile included as long as they take up memory; the shells
    keep it at `capacity` or below. `frame_size` is the most calls of one frame.
    """

    def __init__(self, *, capacity: int = CAPACITY, lines: int = 1, window: int = WINDOW) -> None:
        self.outstanding = 0
        self.frame_size = GATHERED
        self._capacity = capacity
        self._window = window
        self._gathering: dict[Key, Batch[W]] = {}
        self._returned: deque[Batch[W]] = deque()
        self._lines: list[deque[Batch[W]]] = [deque() for _ in range(lines)]
        self._launched = 0

    # --- Calls come ---------------------------------------------------------------------------------------------

    def room(self) -> int:
        """Count the calls there is room for. Only where there seems to be none, those that are over are let go."""
        if self.outstanding >= self._capacity:
            self._purge()
        return max(self._capacity - self.outstanding, 0)

    def put(self, key: Key, call: ColumnCall, recipient: str | bytes, waiter: W, deadline: float) -> None:
        """Take a call; there must be room for it. `call` says the same as `key`."""
        self.outstanding += 1
        batch = self._gathering.get(key)
        if batch is None:
            self._gathering[key] = Batch(call=call, recipients=[recipient], waiters=[waiter], deadlines=[deadline])
            return
        try:
            batch.recipients.append(recipient)
            batch.waiters.append(waiter)
            batch.deadlines.append(deadline)
        except BaseException:
            batch.cut()
            raise

    def _purge(self) -> None:
        for batch in self._queued():
            batch.prune()
        self._returned = deque(batch for batch in self._returned if batch.waiters)
        self._gathering = {key: batch for key, batch in self._gathering.items() if batch.waiters}
        # Counted anew: a call may have been broken off between its count and its place.
        self.outstanding = sum(len(batch.waiters) for batch in self.held())

    # --- Frames leave and come home -----------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """Whether a frame could leave."""
        return bool(self._gathering or self._returned)

    def load(self, line: int) -> int:
        """Count the frames on their way on a line."""
        return len(self._lines[line])

    def roomy(self, lines: Iterable[int]) -> int | None:
        """Choose the line with the fewest frames on their way; None if all are full."""
        best = min(lines, key=self.load, default=None)
        return None if best is None or self.load(best) >= self._window else best

    def sendable(self, line: int) -> bool:
        """Whether a frame could leave by this line."""
        return self.waiting and self.load(line) < self._window

    def take(self, line: int, now: float) -> Batch[W] | None:
        """Let the batch whose turn it is leave by a line with room: what came back first, then who came first."""
        while self.sendable(line):
            batch = self._next()
            self.outstanding -= batch.prune()
            if len(batch.waiters) > self.frame_size:
                self._returned.appendleft(batch.split(self.frame_size))
            if batch.waiters:
                self._launched += 1
                batch.frame_id, batch.sent = self._launched, now
                self._lines[line].append(batch)
                return batch
        return None

    def _next(self) -> Batch[W]:
        if self._returned:
            return self._returned.popleft()
        return self._gathering.pop(next(iter(self._gathering)))

    def land(self, line: int, frame_id: int) -> Batch[W]:
        """Take home the batch that a reply belongs to; its calls are outstanding no more.

        Raises ServiceFailedError unless it is the one whose turn it is.
        """
        owed = self._lines[line]
        if not owed or frame_id != owed[0].frame_id:
            raise ServiceFailedError("The server answered a frame whose turn it was not.", code="WRONG_FRAME")
        batch = owed.popleft()
        self.outstanding -= len(batch.waiters)
        return batch

    def withdraw(self, line: int, batch: Batch[W]) -> None:
        """Take back a batch that has a place on a line, but was not sent."""
        self._lines[line].remove(batch)
        self.outstanding -= len(batch.waiters)

    def give_back(self, line: int) -> None:
        """Put what is on its way on a broken line at the head of the queue, in its order."""
        self._returned.extendleft(reversed(self._lines[line]))
        self._lines[line].clear()

    def write_off(self, line: int) -> list[W]:
        """Let go of what is on its way on a line and would only fail again; returns whose calls that are."""
        lost = [waiter for batch in self._lines[line] for waiter in batch.waiters]
        self._lines[line].clear()
        self.outstanding -= len(lost)
        return lost

    def write_off_queue(self) -> list[W]:
        """Let go of all that is not on its way; returns whose calls that are."""
        lost = [waiter for batch in self._queued() for waiter in batch.waiters]
        self._returned.clear()
        self._gathering.clear()
        self.outstanding -= len(lost)
        return lost

    # --- Time ---------------------------------------------------------------------------------------------------

    def expired(self, now: float) -> tuple[list[W], float | None]:
        """Find who waits and has no time left, and the next deadline of the others, None if nobody else waits."""
        late: list[W] = []
        soonest: float | None = None
        for batch in self.held():
            for waiter, deadline in zip(batch.waiters, batch.deadlines, strict=True):
                if deadline <= now:
                    if not waiter.done():
                        late.append(waiter)
                elif soonest is None or deadline < soonest:
                    soonest = deadline
        return late, soonest

    def oldest(self) -> float | None:
        """Say when the oldest frame that is on its way was sent; None if none is."""
        return min((owed[0].sent for owed in self._lines if owed), default=None)

    def stuck(self, since: float) -> list[int]:
        """Find the lines that owe the reply to a frame sent before `since`."""
        return [line for line, owed in enumerate(self._lines) if owed and owed[0].sent < since]

    # --- The end ------------------------------------------------------------------------------------------------

    def alive(self) -> list[W]:
        """List all who still wait."""
        return [waiter for batch in self.held() for waiter in batch.waiters if not waiter.done()]

    def _queued(self) -> Iterator[Batch[W]]:
        yield from self._returned
        yield from self._gathering.values()

    def held(self) -> Iterator[Batch[W]]:
        """Give all batches: those that came back, those that gather, and those on their way, line by line."""
        yield from self._queued()
        for owed in self._lines:
            yield from owed


class Patience:
    """How long to wait before the next attempt, after so many that brought no answer."""

    def __init__(self) -> None:
        self._failures = 0

    def answered(self) -> None:
        """Note that there was an answer."""
        self._failures = 0

    def next_s(self) -> float:
        """Count a failure; returns the seconds to wait."""
        self._failures += 1
        return min(FIRST_BACKOFF_S * float(2 ** min(self._failures - 1, 10)), LAST_BACKOFF_S)


def require(field: str, number: int, most: int | None = None) -> None:
    """Check a size. Raises QuestionError."""
    if number < 1 or (most is not None and number > most):
        raise QuestionError(field, "must be at least 1." if most is None else f"must be from 1 to {most}.")
