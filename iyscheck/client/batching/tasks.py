"""Single checks that travel together, for asyncio. `threads` is the same for threads.

A call costs one future, three appends and one look-up; everything else is done once for a frame. Frames go over
`grpc.aio` from the loop itself: a lone call waits for no other thread.
"""

import asyncio
import math
import os
import weakref
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice
from time import monotonic
from types import TracebackType
from typing import Final, Self, TypeAlias

import grpc
import grpc.aio

from iyscheck.change import Position
from iyscheck.client import calls, failures
from iyscheck.client.batching.ledger import MAX_CONNECTIONS, Frame, Key, Kinds, Ledger, Patience, require
from iyscheck.client.paths import TaskPaths
from iyscheck.client.silence import Silence
from iyscheck.consent import Channel, MessageClass, RecipientType
from iyscheck.errors import ServiceError, ServiceUnavailableError
from iyscheck.question import Answer, ServerInfo
from iyscheck.v1 import consent_check_pb2 as pb
from iyscheck.v1.consent_check_pb2_grpc import ConsentCheckServiceStub

_GRAIN_S: Final = 0.005
"""Deadlines are looked at no more often: one timer for all calls, instead of one for each."""

Future: TypeAlias = "asyncio.Future[Answer]"
Stream: TypeAlias = "grpc.aio.StreamStreamCall[pb.StreamCheckRequest, pb.StreamCheckResponse]"


class AsyncBatching:
    """Answers single checks from frames that they share; made by `AsyncClient.batching`, used as `async with`.

    Belongs to one event loop. An answer carries reason and envelope, the same envelope for all of a brand in one frame,
    and never evidence. A call waits for room where too many are outstanding; it ends at its deadline, be it queued or
    on its way. Leaving the block waits until every call is over; leaving it by an exception fails those that are not.
    """

    def __init__(
        self,
        conversation: calls.Conversation,
        limits: Callable[[], Awaitable[ServerInfo]],
        *,
        silence: Silence,
        paths: TaskPaths,
        timeout_s: float,
        frame_timeout_s: float,
        connections: int,
        capacity: int,
    ) -> None:
        require("connections", connections, MAX_CONNECTIONS)
        require("capacity", capacity)
        self._conversation = conversation
        self._limits = limits
        self._route = silence.route
        self._paths = paths
        self._target = silence.route.target
        self._silence = silence
        self._timeout_s = timeout_s
        self._frame_timeout_s = frame_timeout_s
        self._connections = connections
        self._capacity = capacity
        self._ledger: Ledger[Future] = Ledger(capacity=capacity, lines=connections)
        self._kinds = Kinds()
        self._sleepers: dict[int, asyncio.Future[None]] = {}
        self._full: dict[int, asyncio.Future[None]] = {}
        self._called: int | None = None
        self._streams: dict[int, Stream] = {}
        self._stuck: set[int] = set()
        self._fresh: set[int] = set()
        """Lines that lead to fresh servers only, where there are several."""
        self._ends: dict[int, float] = {}
        """When a line's stream is to end, so that the next one goes on elsewhere."""
        self._moving: set[int] = set()
        self._queue: dict[asyncio.Future[None], None] = {}
        self._open = False
        self._forked = False
        self._looking: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = float("inf")
        self._alarm_rang: float | None = None
        self._trouble: ServiceError | None = None

    async def __aenter__(self) -> Self:
        here = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _forget(here()))
        self._loop = asyncio.get_running_loop()
        self._work = asyncio.Event()
        self._over = asyncio.Event()
        self._channels = [self._paths.separate(fresh=False) for _ in range(self._connections)]
        self._tasks = [self._loop.create_task(self._serve(line)) for line in range(self._connections)]
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not self._forked:
            self._fail(self._ledger.alive(), failures.closed())
            for turn in self._queue:
                if not turn.done():
                    turn.set_exception(failures.closed())
        await self.close()

    def forget(self) -> None:
        """Refuse all calls in a forked process: the loop, its tasks and gRPC's threads stayed in the parent."""
        self._forked, self._open = True, False

    async def close(self) -> None:
        """Take no more calls, wait until the outstanding ones are answered or out of time, and end the connections."""
        if not self._open:
            return
        self._open = False
        try:
            self._settled()
            await self._over.wait()
        finally:
            self._over.set()
            self._fail(self._ledger.alive(), failures.closed())
            if self._alarm is not None:
                self._alarm.cancel()
            tasks = self._tasks if self._looking is None else [*self._tasks, self._looking]
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            for channel in self._channels:
                await channel.close()
        for error in ended:
            if isinstance(error, Exception):
                raise error

    def check(  # noqa: PLR0913 - a question in keywords
        self,
        *,
        brand: int,
        channel: Channel,
        recipient_type: RecipientType,
        address: str | None = None,
        token: bytes | None = None,
        address_key_id: bytes | None = None,
        message_class: MessageClass = MessageClass.COMMERCIAL,
        retailer: int | None = None,
        min_position: Position | None = None,
        timeout_s: float | None = None,
    ) -> Awaitable[Answer]:
        """Ask about one recipient, given by `address` or by `token` (16 bytes, with the 8-byte id of its key).

        Raises QuestionError at once; awaiting the answer can raise what `AsyncClient.check_column` raises.
        """
        recipient: str | bytes
        if token is None and type(address) is str:  # as nearly always
            recipient, key_id = address, None
        else:
            recipient, key_id = self._conversation.recipient(address, token, address_key_id)
        key = (brand, channel, recipient_type, message_class, retailer, min_position, key_id)
        call = self._kinds.of(key)
        deadline = monotonic() + (timeout_s or self._timeout_s)
        if self._queue or self._ledger.outstanding >= self._capacity or not self._open:
            return self._check_later(key, call, recipient, deadline)
        return self._put(key, call, recipient, deadline)

    def _put(self, key: Key, call: calls.ColumnCall, recipient: str | bytes, deadline: float) -> Future:
        answer: Future = self._loop.create_future()
        self._ledger.put(key, call, recipient, answer, deadline)
        if deadline < self._alarm_at:
            self._set_alarm(deadline)
        if self._called is None and (self._sleepers or len(self._streams) < self._connections):
            self._call()
        return answer

    @property
    def outstanding(self) -> int:
        """Calls that gather or are on their way, also those whose caller has left, until their frame is answered."""
        return self._ledger.outstanding

    @property
    def waiting_for_room(self) -> int:
        """Calls that wait because too many are outstanding."""
        return len(self._queue)

    # --- Room and time ----------------------------------------------------------------------------------------

    async def _check_later(self, key: Key, call: calls.ColumnCall, recipient: str | bytes, deadline: float) -> Answer:
        """Wait for room, in the order of arrival and within the deadline, and ask then."""
        if not self._open:
            raise failures.forked() if self._forked else failures.closed()
        if self._queue or not self._ledger.room():
            await self._wait_for_room(deadline)
        return await self._put(key, call, recipient, deadline)

    async def _wait_for_room(self, deadline: float) -> None:
        turn: asyncio.Future[None] = self._loop.create_future()
        self._queue[turn] = None  # until it has its room: whoever comes meanwhile stands behind it
        try:
            async with asyncio.timeout(max(deadline - monotonic(), 0)):
                await turn
        except TimeoutError:
            if self._trouble is None:
                await self._silence.look_by_task()
            raise self._late() from None
        finally:
            del self._queue[turn]
            self._loop.call_soon(self._settled)

    def _settled(self) -> None:
        """Let in whom there is room for now, and let a close go on when nobody waits any more."""
        if self._queue:
            for turn in islice(self._queue, self._ledger.room()):
                if not turn.done():
                    turn.set_result(None)
        elif not self._open and not self._ledger.alive():
            self._over.set()

    def _set_alarm(self, at: float) -> None:
        now = monotonic()
        at = max(at, now if self._alarm_rang is None else self._alarm_rang + _GRAIN_S)
        if at >= self._alarm_at:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = self._loop.call_later(max(at - now, 0), self._on_alarm)

    def _on_alarm(self) -> None:
        """Fail the calls whose time is up, and break lines that owe an answer for too long."""
        self._alarm, self._alarm_at, self._alarm_rang = None, float("inf"), monotonic()
        late, soonest = self._ledger.expired(self._alarm_rang)
        if late and self._looking is None and self._trouble is None and self._silence.is_due:
            self._looking = self._loop.create_task(self._look())
        if self._looking is None:
            self._fail(late, self._late())
        for line in self._ledger.stuck(self._alarm_rang - self._frame_timeout_s):
            if line in self._streams:
                self._stuck.add(line)
                self._streams[line].cancel()
        if soonest is not None:
            self._set_alarm(soonest)
        if (sent := self._ledger.oldest()) is not None:
            self._set_alarm(sent + self._frame_timeout_s)
        self._settled()

    async def _look(self) -> None:
        """Find out why nobody answers; then fail the calls whose time is up, for that reason."""
        try:
            await self._silence.look_by_task()
        finally:
            self._looking = None
            self._fail(self._ledger.expired(monotonic())[0], self._late())
            self._settled()

    def _late(self) -> ServiceError:
        return self._trouble or self._silence.known() or failures.late(target=self._target)

    def _fail(self, waiters: Iterable[Future], error: Exception) -> None:
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(failures.again(error))

    # --- Frames -----------------------------------------------------------------------------------------------

    def _call(self) -> None:
        """Call a line that can send; if none can, those without a stream, to make one.

        It sends in the next turn of the loop: whatever else is asked in this one shall travel with it.
        """
        line = self._ledger.roomy(self._sleepers)
        if line is None:
            self._work.set()
        else:
            self._called = line
            self._sleepers.pop(line).set_result(None)

    async def _send(self, line: int, stream: Stream) -> None:
        """Send what has gathered by a line's stream, whenever that has room, until it ends."""
        ledger = self._ledger
        while True:
            if self._called == line:
                self._called = None
            now = monotonic()
            if now >= self._ends.get(line, math.inf) and ledger.waiting:
                await self._move(line, stream)
                continue
            frame = ledger.take(line, now)
            if now + self._frame_timeout_s < self._alarm_at:
                self._set_alarm(now + self._frame_timeout_s)
            if self._called is None and ledger.waiting:
                self._call()
            if self._queue:  # who was over and left out of the frame takes no room any more
                self._settled()
            if frame is None:
                await self._rest(line)
                continue
            try:
                frame.request = self._conversation.gathered_request(frame.frame_id, frame.parts)
            except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to these calls and to nobody else
                ledger.withdraw(line, frame)
                if len(frame.batches) > 1:
                    ledger.part(frame)  # to see which of them it is
                else:
                    self._fail(frame.waiters, error)
                    self._settled()
                continue
            await stream.write(frame.request)

    async def _move(self, line: int, stream: Stream) -> None:
        """End a stream when it owes nothing, so that the next one goes to a server that is fresh then."""
        if not self._ledger.load(line):
            self._moving.add(line)
            stream.cancel()
        elif self._called is None:
            self._call()  # another line, while this one waits for what it is owed
        await self._rest(line, full=True)

    async def _rest(self, line: int, *, full: bool = False) -> None:
        """Wait until the line has room, and then until it is called. It may be `full` before it is."""
        places = self._full if full or self._ledger.roomy((line,)) is None else self._sleepers
        places[line] = turn = self._loop.create_future()
        await turn

    def _landed(self, line: int, response: pb.StreamCheckResponse) -> None:
        """Hand out the answers of a frame, or its error."""
        frame = self._ledger.land(line, response.frame_id)
        if line in self._full:
            self._sleepers[line] = self._full.pop(line)
            if self._called is None and self._ledger.waiting:
                self._call()  # what has gathered leaves before those ask again who have their answers now
        self._trouble = None
        try:
            answers = self._answers(frame, response)
        except calls.GroupsUnknownError:
            self._part(frame)
        except Exception as error:
            self._fail(frame.waiters, error)
            if not isinstance(error, ServiceError):
                raise
            if error.code == failures.BATCH_TOO_LARGE:
                self._conversation.limits = None
                raise failures.unfinished(target=self._target) from error  # the next stream learns the new limits
        else:
            self._hand_out_all(frame, answers)
        if self._queue or not self._open:
            self._settled()

    def _answers(self, frame: Frame[Future], response: pb.StreamCheckResponse) -> list[list[Answer] | ServiceError]:
        """Read the answers of each part. A server that has not come so far says so of all of them."""
        try:
            return self._conversation.gathered_answers(frame.request, frame.parts, response)
        except ServiceUnavailableError as error:
            if not (self._paths.several and failures.is_elsewhere(error)):
                raise
            return [error] * len(frame.batches)

    def _hand_out_all(self, frame: Frame[Future], answers: list[list[Answer] | ServiceError]) -> None:
        """Hand out the answers of a frame. Raises ServiceUnavailableError if some are to be had elsewhere."""
        elsewhere = None
        for batch, outcome in zip(frame.batches, answers, strict=True):
            if self._paths.several and failures.is_elsewhere(outcome):
                self._ledger.put_back([batch])
                elsewhere = outcome
            else:
                self._hand_out(batch.waiters, outcome)
        if isinstance(elsewhere, ServiceError):
            raise elsewhere

    def _part(self, frame: Frame[Future]) -> None:
        """Send what a server without groups left unanswered again, in a frame for each kind."""
        self._ledger.part(frame)
        self._ledger.frame_groups = 1
        if self._called is None:
            self._call()

    def _hand_out(self, waiters: list[Future], outcome: list[Answer] | ServiceError) -> None:
        if isinstance(outcome, ServiceError):
            self._fail(waiters, outcome)
            return
        for waiter, answer in zip(waiters, outcome, strict=True):
            if not waiter.done():
                waiter.set_result(answer)

    # --- Lines ------------------------------------------------------------------------------------------------

    async def _serve(self, line: int) -> None:
        """Keep a line going: a new stream whenever the last one has ended and there is something to ask."""
        patience = Patience()
        # Not for ever: gRPC makes an error of a cancellation that meets the end of the call that is awaited.
        while not self._over.is_set():
            if not self._ledger.waiting:
                self._work.clear()
            await self._work.wait()
            try:
                limits = await self._limits()
            except ServiceError as error:
                self._broken(error, self._ledger.write_off_queue)
            else:
                self._ledger.frame_size = calls.gathered_size(limits)
                self._ledger.frame_groups = calls.gathered_groups(limits)
                try:
                    await self._converse(line, patience)
                except (grpc.RpcError, ServiceError) as error:
                    self._broken(error, lambda: self._ledger.write_off(line))
                    self._ledger.give_back(line)
                    if self._called is None and self._ledger.waiting:
                        self._call()
                    self._settled()  # who is over and was on the way takes no room from now on
                    if line in self._stuck:  # whoever is at the other end: another worker may answer
                        self._stuck.discard(line)
                        await self._connect(line, fresh=line in self._fresh)
            await self._pause(line, patience)

    async def _pause(self, line: int, patience: Patience) -> None:
        """Wait before the next stream, but where the last one has only moved."""
        if line in self._moving:
            self._moving.discard(line)
            if self._called is None and self._ledger.waiting:
                self._call()
        elif self._ledger.waiting:
            await asyncio.sleep(patience.next_s())

    async def _connect(self, line: int, *, fresh: bool) -> None:
        await self._channels[line].close()
        self._channels[line] = self._paths.separate(fresh=fresh)
        (self._fresh.add if fresh else self._fresh.discard)(line)

    async def _converse(self, line: int, patience: Patience) -> None:
        if (line in self._fresh) is not (fresh := await self._paths.known()):
            await self._connect(line, fresh=fresh)
        if self._paths.several:
            self._ends[line] = monotonic() + calls.MOVE_S
        stream = self._streams[line] = ConsentCheckServiceStub(self._channels[line]).StreamCheck(
            metadata=self._route.metadata
        )
        sender = self._loop.create_task(self._send(line, stream))
        try:
            while isinstance(response := await stream.read(), pb.StreamCheckResponse):
                self._landed(line, response)
                patience.answered()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not (line in self._stuck or line in self._moving) or (task is not None and task.cancelling()):
                raise
        finally:
            del self._streams[line]
            for places in (self._sleepers, self._full):  # before it is cancelled: nobody may call it then
                places.pop(line, None)
            if self._called == line:
                self._called = None
            stream.cancel()
            sender.cancel()
            await asyncio.wait((sender,))
            if not sender.cancelled() and not isinstance(sender.exception(), grpc.RpcError | asyncio.InvalidStateError):
                sender.result()
        if line not in self._moving:
            raise failures.unfinished(target=self._target)

    def _broken(self, error: grpc.RpcError | ServiceError, lost: Callable[[], list[Future]]) -> None:
        """Fail what is lost if it would fail again; else it stays owed, and out of time it fails for this reason."""
        failed = failures.failure_of(error, target=self._target, timeout_s=self._frame_timeout_s)
        if isinstance(failed, ServiceUnavailableError):
            self._trouble = failed if self._ledger.outstanding else None  # an idle stream may well end
        else:
            self._fail(lost(), failed)
            self._settled()


def _forget(batching: AsyncBatching | None) -> None:
    """Refuse all calls of a forked process."""
    if batching is not None:
        batching.forget()
