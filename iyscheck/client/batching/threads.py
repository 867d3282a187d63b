"""Single checks that travel together, for threads. `tasks` is the same for asyncio.

One lock guards all state. Each line has two threads: gRPC's own, which asks for the next request and so sends what has
gathered, and one that reads the replies and wakes the callers. A caller waits for nothing but its answer.
"""

import math
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from types import TracebackType
from typing import Final, Self, cast

import grpc

from iyscheck.change import Position
from iyscheck.client import calls, failures
from iyscheck.client.batching.ledger import MAX_CONNECTIONS, Frame, Key, Kinds, Ledger, Patience, require
from iyscheck.client.batching.waiter import Waiter, held
from iyscheck.client.paths import Paths
from iyscheck.client.silence import Silence
from iyscheck.consent import Channel, MessageClass, RecipientType
from iyscheck.errors import ServiceError, ServiceUnavailableError
from iyscheck.question import Answer, ServerInfo
from iyscheck.v1 import consent_check_pb2 as pb
from iyscheck.v1.consent_check_pb2_grpc import ConsentCheckServiceStub

_TURNS: Final = 64
"""Most turns that a frame waits while more calls come."""
_CHAIN: Final = 16
"""Callers that wake each other one after the other."""


class _Line:
    """One connection, how many streams it has had, and the one it has; `stuck` if that owes an answer for too long.

    Where there are several servers: whether it leads to those that are fresh, when its stream is to end so that the
    next one goes on elsewhere, and whether it `moves` for that.
    """

    __slots__ = ("channel", "ends", "fresh", "moves", "number", "stream", "stuck")

    def __init__(self, channel: grpc.Channel, *, fresh: bool) -> None:
        self.channel = channel
        self.fresh = fresh
        self.ends = math.inf
        self.moves = False
        self.number = 0
        self.stuck = False
        self.stream: grpc.Future[None] | None = None


class Batching:
    """Answers single checks from frames that they share; made by `Client.batching`, used as `with`.

    Safe to share between threads. An answer carries reason and envelope, the same envelope for all of a brand in one
    frame, and never evidence. A call waits for room where too many are outstanding; it ends at its deadline, be it
    queued or on its way. Leaving the block waits until every call is over; leaving it by an exception fails those that
    are not.
    """

    def __init__(
        self,
        conversation: calls.Conversation,
        limits: Callable[[], ServerInfo],
        *,
        silence: Silence,
        paths: Paths,
        timeout_s: float,
        frame_timeout_s: float,
        connections: int,
        capacity: int,
    ) -> None:
        require("connections", connections, MAX_CONNECTIONS)
        require("capacity", capacity)
        self._conversation = conversation
        self._limits = limits
        self._silence, self._route, self._target = silence, silence.route, silence.route.target
        self._paths = paths
        self._timeout_s = timeout_s
        self._frame_timeout_s = frame_timeout_s
        self._connections = connections
        self._capacity = capacity
        self._ledger: Ledger[Waiter] = Ledger(capacity=capacity, lines=connections)
        self._kinds = Kinds()
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._over = threading.Condition(self._lock)
        self._stopped = threading.Event()
        self._lines: list[_Line] = []
        self._threads: list[threading.Thread] = []
        self._sleepers: dict[int, threading.Lock] = {}
        self._pushing = 0
        self._open = False
        self._abandoned = False
        self._trouble: ServiceError | None = None
        self._forked = False

    def __enter__(self) -> Self:
        gevent = sys.modules.get("gevent.monkey")
        if gevent is not None and gevent.is_module_patched("threading"):
            raise failures.patched()
        here = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _forget(here()))
        for number in range(self._connections):
            self._lines.append(_Line(self._paths.separate(fresh=False), fresh=False))
            self._threads.append(
                threading.Thread(target=self._serve, args=(number,), name=f"iyscheck-batching-{number}", daemon=True)
            )
        self._open = True
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not self._forked:
            with self._lock:
                self._open, self._abandoned = False, True
                self._fail(self._ledger.alive(), failures.closed())
                self._room.notify_all()
        self.close()

    def forget(self) -> None:
        """Refuse all calls in a forked process. A thread of the parent may hold the lock: here nobody lets it go."""
        self._forked, self._open, self._lock = True, False, threading.Lock()
        self._room, self._over = threading.Condition(self._lock), threading.Condition(self._lock)

    def close(self) -> None:
        """Take no more calls, wait until the outstanding ones are answered or out of time, and end the connections."""
        if self._forked:
            return  # all of it is the parent's
        with self._lock:
            self._open = False
            try:
                while self._pushing or self._ledger.alive():
                    self._over.wait()
            finally:
                self._fail(self._ledger.alive(), failures.closed())
                self._stopped.set()
                for number in range(len(self._lines)):
                    self._wake(number)
        for line in self._lines:
            if line.stream is not None:
                line.stream.cancel()
        for thread in self._threads:
            thread.join()
        for line in self._lines:
            line.channel.close()

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
    ) -> Answer:
        """Ask about one recipient, given by `address` or by `token` (16 bytes, with the 8-byte id of its key).

        Can raise what `Client.check_column` raises.
        """
        recipient: str | bytes
        if token is None and type(address) is str:  # as nearly always
            recipient, key_id = address, None
        else:
            recipient, key_id = self._conversation.recipient(address, token, address_key_id)
        key = (brand, channel, recipient_type, message_class, retailer, min_position, key_id)
        deadline = monotonic() + (timeout_s or self._timeout_s)
        waiter = Waiter()
        try:
            with self._lock:
                self._put(key, recipient, waiter, deadline)
            self._wait(waiter, deadline)
            if waiter.outcome is None and self._trouble is None:
                self._silence.look()
        finally:  # also when a signal interrupts the wait
            if waiter.outcome is None:
                self._give_up(waiter)
            if waiter.then is not None:
                waiter.then.over.release()
        if isinstance(waiter.outcome, Answer):
            return waiter.outcome
        raise cast("Exception", waiter.outcome)

    @property
    def outstanding(self) -> int:
        """Calls that gather or are on their way, also those whose caller has left, until their frame is answered."""
        return self._ledger.outstanding

    @property
    def waiting_for_room(self) -> int:
        """Calls that wait because too many are outstanding."""
        return self._pushing

    # --- Room and time ----------------------------------------------------------------------------------------

    def _wait(self, waiter: Waiter, deadline: float) -> None:
        """Wait until a call is over or its time is; as long as a frame may take, then look whether a line is stuck."""
        while True:
            left = deadline - monotonic()
            if waiter.over.acquire(timeout=max(min(left, self._frame_timeout_s), 0)) or left <= self._frame_timeout_s:
                return
            with self._lock:
                self._break_stuck()

    def _put(self, key: Key, recipient: str | bytes, waiter: Waiter, deadline: float) -> None:
        """Take a call, when there is room for it. The lock must be held, as everywhere below but in the threads."""
        if not self._open:
            raise failures.forked() if self._forked else failures.closed()
        if self._pushing or self._ledger.outstanding >= self._capacity:
            self._wait_for_room(deadline)
        self._ledger.put(key, self._kinds.of(key), recipient, waiter, deadline)
        self._call_sender()

    def _wait_for_room(self, deadline: float) -> None:
        self._pushing += 1
        try:
            while not self._ledger.room():
                in_time = self._room.wait(max(deadline - monotonic(), 0))
                if self._abandoned:
                    raise failures.closed()
                if not in_time and not self._ledger.room():
                    raise self._late()
        finally:
            self._pushing -= 1
            self._settled()

    def _settled(self) -> None:
        """Let in whom there is room for now, and let a close go on when nobody waits any more."""
        if self._pushing:
            self._room.notify(self._ledger.room())
        if not self._open:
            self._over.notify_all()

    def _give_up(self, waiter: Waiter) -> None:
        """End a call that waits no longer, and break lines that owe an answer for too long."""
        with self._lock:
            waiter.settle(self._late())
            self._break_stuck()
            self._settled()

    def _break_stuck(self) -> None:
        for number in self._ledger.stuck(monotonic() - self._frame_timeout_s):
            line = self._lines[number]
            line.stuck = True
            if line.stream is not None:
                line.stream.cancel()

    def _late(self) -> ServiceError:
        return failures.again(self._trouble or self._silence.known() or failures.late(target=self._target))

    def _fail(self, waiters: Iterable[Waiter], error: Exception) -> None:
        for waiter in waiters:
            waiter.settle(failures.again(error))

    # --- Lines ------------------------------------------------------------------------------------------------

    def _call_sender(self) -> None:
        """Wake the thread that is to send next, if there is something to send and one waits that has room."""
        if self._sleepers and self._ledger.waiting and (number := self._ledger.roomy(self._sleepers)) is not None:
            self._wake(number)

    def _wake(self, number: int) -> None:
        sleeper = self._sleepers.pop(number, None)
        if sleeper is not None:
            sleeper.release()

    def _sleep(self, number: int) -> None:
        """Wait until `_wake`, without the lock; in one thread of a line at a time."""
        sleeper = self._sleepers[number] = held()
        self._lock.release()
        try:
            sleeper.acquire()
        finally:
            self._lock.acquire()

    def _serve(self, number: int) -> None:
        """Keep a line going: a new stream whenever the last one has ended and there is something to ask."""
        line, patience = self._lines[number], Patience()
        while self._wait_for_work(number):
            try:
                limits = self._limits()
            except ServiceError as error:
                self._broken(error, self._ledger.write_off_queue)
            else:
                self._ledger.frame_size = calls.gathered_size(limits)
                self._ledger.frame_groups = calls.gathered_groups(limits)
                self._converse_once(number, line, patience)
            if self._ledger.waiting and not line.moves:
                self._stopped.wait(patience.next_s())

    def _wait_for_work(self, number: int) -> bool:
        """Wait until something is to be asked; False at the end."""
        with self._lock:
            while not self._ledger.waiting and not self._stopped.is_set():
                self._sleep(number)
            return not self._stopped.is_set()

    def _converse_once(self, number: int, line: _Line, patience: Patience) -> None:
        try:
            self._converse(number, line, patience)
        except (grpc.RpcError, ServiceError) as error:
            self._paths.doubt()
            self._broken(error, lambda: self._ledger.write_off(number))
        finally:
            with self._lock:
                self._ledger.give_back(number)
                self._call_sender()
                self._settled()  # who gave up while on its way takes no room from now on
            if line.stuck:  # whoever is at the other end: another worker may answer
                self._connect(line, fresh=line.fresh)

    def _connect(self, line: _Line, *, fresh: bool) -> None:
        line.channel.close()
        line.channel, line.fresh = self._paths.separate(fresh=fresh), fresh

    def _converse(self, number: int, line: _Line, patience: Patience) -> None:
        if line.fresh is not (fresh := self._paths.leads_to_fresh()):
            self._connect(line, fresh=fresh)
        with self._lock:
            line.number += 1
            line.stuck = line.moves = False
            if self._paths.several:
                line.ends = monotonic() + calls.MOVE_S
            requests = self._requests(number, line, line.number)
        stream = line.stream = ConsentCheckServiceStub(line.channel).StreamCheck(
            requests, metadata=self._route.metadata
        )
        try:
            if not self._stopped.is_set():
                for response in stream:
                    self._landed(number, response)
                    patience.answered()
        except grpc.RpcError:
            if not (line.stuck or line.moves):
                raise
        finally:
            with self._lock:
                line.number += 1  # the thread that sends sees it and ends
                self._wake(number)
            stream.cancel()
        if not line.moves:
            raise failures.unfinished(target=self._target)

    def _requests(self, number: int, line: _Line, stream: int) -> Iterator[pb.StreamCheckRequest]:
        """Make the requests of a stream, each when there is something to ask and room for it."""
        while (frame := self._next(number, line, stream)) is not None:
            try:
                request = self._conversation.gathered_request(frame.frame_id, frame.parts)
            except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to these calls and to nobody else
                with self._lock:
                    if line.number == stream:
                        self._ledger.withdraw(number, frame)
                        if len(frame.batches) > 1:
                            self._ledger.part(frame)  # to see which of them it is
                        else:
                            self._fail(frame.waiters, error)
                            self._settled()
                continue
            with self._lock:
                if line.number != stream:  # it broke meanwhile: the calls are in the queue again, or elsewhere already
                    return
                frame.request = request
            yield request

    def _next(self, number: int, line: _Line, stream: int) -> Frame[Waiter] | None:
        """Wait for the next frame; None if the stream has ended."""
        with self._lock:
            while line.number == stream:
                if not self._ledger.sendable(number):
                    self._sleep(number)
                    continue
                if monotonic() >= line.ends:
                    if not self._ledger.load(number):
                        self._move(line)
                        return None
                    self._call_sender()  # another line's, while this one waits for what it is owed
                    self._sleep(number)
                    continue
                self._gather()
                if line.number == stream and (frame := self._ledger.take(number, monotonic())) is not None:
                    return frame
            return None

    def _move(self, line: _Line) -> None:
        """End a stream that owes nothing, so that the next one goes to a server that is fresh then."""
        line.moves = True
        if line.stream is not None:
            line.stream.cancel()

    def _gather(self) -> None:
        """Let the callers that have just been woken ask again, as long as more do: no time passes, only turns.

        With 16 threads a frame of 16 instead of 7, at half the cost of a call; a lone call does not notice.
        """
        for _ in range(_TURNS):
            before = self._ledger.outstanding
            self._lock.release()
            try:
                os.sched_yield()
            finally:
                self._lock.acquire()
            if self._ledger.outstanding <= before:
                return

    def _landed(self, number: int, response: pb.StreamCheckResponse) -> None:
        """Hand out the answers of a frame, or its error."""
        with self._lock:
            frame = self._ledger.land(number, response.frame_id)
            self._call_sender()
        self._trouble = None
        try:
            answers = self._answers(frame, response)
        except calls.GroupsUnknownError:
            with self._lock:
                self._ledger.part(frame)
                self._ledger.frame_groups = 1
                self._call_sender()
            return
        except Exception as error:
            with self._lock:
                self._fail(frame.waiters, error)
                self._settled()
            if not isinstance(error, ServiceError):
                raise
            if error.code == failures.BATCH_TOO_LARGE:
                self._conversation.limits = None
                raise failures.unfinished(target=self._target) from error  # the next stream learns the new limits
            return
        elsewhere = self._paths.several and next(filter(failures.is_elsewhere, answers), None)
        with self._lock:
            self._hand_out(frame, answers)
            if self._pushing or not self._open:
                self._settled()
        if isinstance(elsewhere, ServiceError):
            raise elsewhere

    def _answers(self, frame: Frame[Waiter], response: pb.StreamCheckResponse) -> list[list[Answer] | ServiceError]:
        """Read the answers of each part. A server that has not come so far says so of all of them."""
        try:
            return self._conversation.gathered_answers(frame.request, frame.parts, response)
        except ServiceUnavailableError as error:
            if not (self._paths.several and failures.is_elsewhere(error)):
                raise
            return [error] * len(frame.batches)

    def _hand_out(self, frame: Frame[Waiter], answers: list[list[Answer] | ServiceError]) -> None:
        """Set all outcomes and wake each caller by the one before it.

        A thread that is woken while another one runs only goes back to sleep until that one is done: one by one they
        take two thirds of the time. In parts, so that nobody waits for many.
        """
        live: list[tuple[Waiter, Answer]] = []
        for batch, outcome in zip(frame.batches, answers, strict=True):
            if self._paths.several and failures.is_elsewhere(outcome):
                self._ledger.put_back([batch])
            elif isinstance(outcome, ServiceError):
                self._fail(batch.waiters, outcome)
            else:
                live += [each for each in zip(batch.waiters, outcome, strict=True) if each[0].outcome is None]
        for place in range(1, len(live)):
            if place % _CHAIN:
                live[place - 1][0].then = live[place][0]
        for waiter, answer in live:  # now, since who runs out of time at this moment goes by its outcome
            waiter.outcome = answer
        for waiter, _ in live[::_CHAIN]:
            waiter.over.release()

    def _broken(self, error: grpc.RpcError | ServiceError, lost: Callable[[], list[Waiter]]) -> None:
        """Fail what is lost if it would fail again; else it stays owed, and out of time it fails for this reason."""
        failed = failures.failure_of(error, target=self._target, timeout_s=self._frame_timeout_s)
        with self._lock:
            if isinstance(failed, ServiceUnavailableError):
                self._trouble = failed if self._ledger.outstanding else None  # an idle stream may well end
            else:
                self._fail(lost(), failed)
                self._settled()


def _forget(batching: Batching | None) -> None:
    """Refuse all calls of a forked process."""
    if batching is not None:
        batching.forget()
