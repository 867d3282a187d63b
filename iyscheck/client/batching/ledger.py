"""Single calls that travel together: gathered into batches, kept in flight, answered one by one. Pure state, no socket.

Calls that differ in nothing but their recipient gather in one batch. A frame leaves when a line (one stream of one
connection) has room, with whatever has gathered by then: there is no timer. It takes the batch whose turn it is and,
where the server takes mixed frames, those behind it that are asked from the same position, by the same key of tokens,
and are exempt or are not. What is unanswered when a line breaks goes back to the head of the queue and leaves again by
any line; checks only read, so twice asked is no harm. A reply that is not the one whose turn it is ends the line. So no
call is ever answered twice or with another's answer.

`threads` and `tasks` move the messages and wake those who wait.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, Generic, Protocol, TypeAlias, TypeVar, cast

import msgspec

from iyscheck import wire
from iyscheck.change import Position
from iyscheck.client.calls import GATHERED, ColumnCall, Part
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
            self[key] = call = ColumnCall(
                context=context,
                address_key_id=key_id,
                min_position=min_position,
                group_head=wire.group_head(context),
                # An exempt message waits for no store, and so for no commercial one.
                travels=(key_id, min_position, context.message_class.exempt),
            )
        return call


class Waiter(Protocol):
    """Whoever waits for the answer to a call. One that is done (answered, failed, cancelled) wants nothing more."""

    def done(self) -> bool:
        """Say whether it is over."""


W = TypeVar("W", bound=Waiter)


class Batch(msgspec.Struct, Generic[W], kw_only=True, eq=False):
    """Calls that share `call`: recipient i (an address, or a token) is asked for by waiter i until deadline i.

    `alone`: it shares no frame with others, since with others it could not be answered.

    The handler of a signal may raise anywhere in the thread that asks: what that thread does changes the lists together
    or not at all, or everybody behind would get another's answer.
    """

    call: ColumnCall
    recipients: list[str | bytes]
    waiters: list[W]
    deadlines: list[float]
    alone: bool = False

    def cut(self) -> None:
        """Drop a call that did not come as far as its deadline."""
        whole = len(self.deadlines)
        del self.recipients[whole:], self.waiters[whole:]

    def prune(self) -> int:
        """Let go of calls that are over already; returns how many."""
        over = [waiter.done() for waiter in self.waiters]
        if True not in over:  # as nearly always
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
            alone=self.alone,
        )
        # New lists: a thread may be reading the old ones.
        self.recipients, self.waiters = self.recipients[:size], self.waiters[:size]
        self.deadlines = self.deadlines[:size]
        return rest


class Frame(msgspec.Struct, Generic[W], kw_only=True, eq=False):
    """Batches that leave together: one, or the groups of a mixed frame. `request` is set when it is made."""

    batches: list[Batch[W]]
    frame_id: int
    sent: float
    request: pb.StreamCheckRequest = msgspec.field(default_factory=pb.StreamCheckRequest)

    @property
    def waiters(self) -> list[W]:
        """All whose calls travel in it, in the order of their recipients."""
        return [waiter for batch in self.batches for waiter in batch.waiters]

    @property
    def parts(self) -> list[Part]:
        """What is asked, batch by batch."""
        return [(batch.call, batch.recipients) for batch in self.batches]


class Ledger(Generic[W]):
    """All calls that are not over: gathering, or on their way on one of the lines. Not thread-safe.

    `outstanding` counts them, those whose waiter is done meanwhile included as long as they take up memory; the shells
    keep it at `capacity` or below. `frame_size` is the most calls of one frame, `frame_groups` the most batches.
    """

    def __init__(self, *, capacity: int = CAPACITY, lines: int = 1, window: int = WINDOW) -> None:
        self.outstanding = 0
        self.frame_size = GATHERED
        self.frame_groups = 1
        self._capacity = capacity
        self._window = window
        self._gathering: dict[Key, Batch[W]] = {}
        self._returned: deque[Batch[W]] = deque()
        self._lines: list[deque[Frame[W]]] = [deque() for _ in range(lines)]
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

    def take(self, line: int, now: float) -> Frame[W] | None:
        """Let a frame leave by a line with room: what came back first, then who came first, and who goes with them."""
        while self.sendable(line):
            batches: list[Batch[W]] = []
            left = self.frame_size
            for batch in self._next():
                self.outstanding -= batch.prune()
                if len(batch.waiters) > left:
                    self._returned.appendleft(batch.split(left))
                if batch.waiters:
                    batches.append(batch)
                    left -= len(batch.waiters)
                if not left or len(batches) == self.frame_groups:
                    break
            if batches:
                self._launched += 1
                frame = Frame(batches=batches, frame_id=self._launched, sent=now)
                self._lines[line].append(frame)
                return frame
        return None

    def _next(self) -> Iterator[Batch[W]]:
        """Take the batch out whose turn it is, and then those that may go with it."""
        first = self._returned.popleft() if self._returned else self._gathering.pop(next(iter(self._gathering)))
        yield first
        if first.alone:
            return
        travels = first.call.travels
        for batch in list(islice(self._returned, self.frame_groups)):
            if not batch.alone and batch.call.travels == travels:
                self._returned.remove(batch)
                yield batch
        for key, batch in list(islice(self._gathering.items(), self.frame_groups)):
            if batch.call.travels == travels:
                del self._gathering[key]
                yield batch

    def land(self, line: int, frame_id: int) -> Frame[W]:
        """Take home the frame that a reply belongs to; its calls are outstanding no more.

        Raises ServiceFailedError unless it is the one whose turn it is.
        """
        owed = self._lines[line]
        if not owed or frame_id != owed[0].frame_id:
            raise ServiceFailedError("The server answered a frame whose turn it was not.", code="WRONG_FRAME")
        frame = owed.popleft()
        self.outstanding -= len(frame.waiters)
        return frame

    def withdraw(self, line: int, frame: Frame[W]) -> None:
        """Take back a frame that has a place on a line, but was not sent."""
        self._lines[line].remove(frame)
        self.outstanding -= len(frame.waiters)

    def part(self, frame: Frame[W]) -> None:
        """Put the batches of a frame that nobody answered at the head of the queue, each to leave alone."""
        for batch in frame.batches:
            batch.alone = True
        self.put_back(frame.batches)

    def put_back(self, batches: Sequence[Batch[W]]) -> None:
        """Put calls that came home without an answer, but may have one elsewhere, at the head of the queue."""
        for batch in reversed(batches):
            self.outstanding += len(batch.waiters)
            self._returned.appendleft(batch)

    def give_back(self, line: int) -> None:
        """Put what is on its way on a broken line at the head of the queue, in its order."""
        self._returned.extendleft(batch for frame in reversed(self._lines[line]) for batch in reversed(frame.batches))
        self._lines[line].clear()

    def write_off(self, line: int) -> list[W]:
        """Let go of what is on its way on a line and would only fail again; returns whose calls that are."""
        lost = [waiter for frame in self._lines[line] for waiter in frame.waiters]
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
            for frame in owed:
                yield from frame.batches


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
