"""How the client for asyncio sends, turn by turn of the loop: over streams of the test's own, without a socket."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast
from unittest.mock import patch

import grpc
import grpc.aio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.client import AsyncBatching
from iyscheck.client.batching import tasks
from iyscheck.client.batching.ledger import WINDOW, Patience
from iyscheck.client.calls import Conversation
from iyscheck.consent import Channel, RecipientType
from iyscheck.errors import ServiceError, ServiceUnavailableError
from iyscheck.question import Answer, ServerInfo
from iyscheck.v1 import consent_check_pb2 as pb
from tests.client.fake_server import Service, frame_reply, verdict

ROUNDS = 30
"""Turns of the loop in which everything that can happen without the server has happened."""


def gone() -> grpc.aio.AioRpcError:
    """Make the error of a stream that broke."""
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "gone")


class Stream:
    """Takes frames while it is open, and gives to the client what the test says."""

    def __init__(self) -> None:
        self.owed: deque[pb.StreamCheckRequest] = deque()
        self.sent: list[int] = []
        self.ended = False
        self.broken_write: Exception | None = None
        self._replies: asyncio.Queue[object] = asyncio.Queue()
        self._open = asyncio.Event()
        self._open.set()

    async def read(self) -> object:
        """Give the next reply."""
        reply = await self._replies.get()
        if isinstance(reply, BaseException):
            raise reply
        return reply

    async def write(self, request: pb.StreamCheckRequest) -> None:
        """Take a frame as soon as there is room."""
        if self.broken_write is not None:
            raise self.broken_write
        await self._open.wait()
        if self.ended:
            raise asyncio.InvalidStateError
        self.owed.append(request)
        self.sent.append(len(request.addresses))

    def cancel(self) -> None:
        """End it from the client's side."""
        self.end(asyncio.CancelledError())

    def reply(self) -> None:
        """Answer the frame whose turn it is, if there is one."""
        if self.owed:
            self._replies.put_nowait(frame_reply(self.owed.popleft()))

    def end(self, how: object = grpc.aio.EOF) -> None:
        """End it."""
        if not self.ended:
            self.ended = True
            self._replies.put_nowait(how)

    def shut(self) -> None:
        """Take no frame for now."""
        self._open.clear()

    def open(self) -> None:
        """Take frames again."""
        self._open.set()

    @property
    def takes(self) -> bool:
        """Whether it takes frames."""
        return self._open.is_set()


class Stub:
    """The streams of one line, one after the other."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []

    def StreamCheck(self) -> Stream:  # noqa: N802 - gRPC's
        """Make one."""
        self.streams.append(Stream())
        return self.streams[-1]

    @property
    def stream(self) -> Stream:
        """The one it has, or has had last; one that was never made takes and gives nothing."""
        return self.streams[-1] if self.streams else Stream()

    @property
    def is_busy(self) -> bool:
        """Whether its stream can take no frame now."""
        return (
            bool(self.streams) and not self.stream.ended and (not self.stream.takes or len(self.stream.owed) == WINDOW)
        )


async def turns(count: int = ROUNDS) -> None:
    """Let the loop go on."""
    for _ in range(count):
        await asyncio.sleep(0)


@asynccontextmanager
async def batching(
    connections: int = 1, *, capacity: int = 100, timeout_s: float = 60, longest: int = 1_000, pause_s: float = 0
) -> AsyncIterator[tuple[AsyncBatching, list[Stub]]]:
    """Make a client over such lines."""
    conversation = Conversation(address_key=None, monotonic=False)
    stubs = [Stub() for _ in range(connections)]

    async def limits() -> ServerInfo:
        service = Service()
        service.limits.max_frame_recipients = longest
        return conversation.info_reply(
            service.GetServerInfo(pb.GetServerInfoRequest(), cast("grpc.ServicerContext", None))
        )

    def stub(channel: grpc.aio.Channel) -> Stub:
        return stubs[checks._channels.index(channel)]

    checks = AsyncBatching(
        conversation,
        limits,
        target="127.0.0.1:1",
        timeout_s=timeout_s,
        frame_timeout_s=60,
        connections=connections,
        capacity=capacity,
    )
    with (
        patch.object(tasks, "ConsentCheckServiceStub", stub),
        patch.object(Patience, "next_s", lambda _: pause_s),
    ):
        async with checks:
            await turns(2)
            yield checks, stubs


def ask(checks: AsyncBatching, number: int = 0, brand: int = 1) -> "asyncio.Future[Answer]":
    """Ask about a recipient."""
    return asyncio.ensure_future(
        checks.check(
            brand=brand, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, address=f"+90500000{number:04}"
        )
    )


async def answered(stubs: list[Stub], calls: list["asyncio.Future[Answer]"]) -> None:
    """Let the server answer everything, for as long as every call needs at most."""
    for _ in range(100):
        if all(call.done() for call in calls):
            return
        for stub in stubs:
            stub.stream.open()
            stub.stream.reply()
        await turns(5)


async def happens(
    what: str, number: int, checks: AsyncBatching, stubs: list[Stub], calls: list["asyncio.Future[Answer]"]
) -> None:
    """Let one event come: of the stream of a line, of a call, or of the loop."""
    stream = stubs[number % len(stubs)].stream
    if what == "ask":
        calls += [ask(checks, len(calls) + each, brand=number) for each in range(number)]
    elif what == "break":
        stream.end(gone())
    elif what == "turns":
        await turns(number)
    elif what == "cancel":
        for call in calls[number : number + 1]:
            call.cancel()
    else:
        getattr(stream, what)()


EVENTS = st.one_of(
    st.tuples(st.just("ask"), st.integers(1, 3)),
    st.tuples(st.just("ask"), st.integers(1, 3)),
    st.tuples(st.sampled_from(["reply", "break", "end", "shut", "open"]), st.integers(0, 2)),
    st.tuples(st.just("reply"), st.integers(0, 2)),
    st.tuples(st.just("cancel"), st.integers(0, 50)),
    st.tuples(st.just("turns"), st.sampled_from([1, 1, 1, 2, 3, ROUNDS])),
)


class TestSender:
    """What gathers leaves as soon as a stream has room, and never waits for anything else."""

    @given(
        events=st.lists(EVENTS, max_size=30),
        connections=st.integers(1, 3),
        capacity=st.sampled_from([1, 3, 100, 100]),
        longest=st.sampled_from([1, 2, 1_000]),
    )
    @settings(max_examples=200, deadline=None)
    def test_never_idle(self, events: list[tuple[str, int]], connections: int, capacity: int, longest: int) -> None:
        """However replies, ends and calls meet: while a stream could take what waits none does, and all are answered.

        Nothing here takes longer than some turns of the loop.
        """

        async def run() -> None:
            calls: list[asyncio.Future[Answer]] = []
            async with batching(connections, capacity=capacity, longest=longest) as (checks, stubs):
                for what, number in events:
                    await happens(what, number, checks, stubs, calls)
                await turns()
                ledger = checks._ledger
                assert not ledger.waiting or all(stub.is_busy for stub in stubs)
                await answered(stubs, calls)
                left = [number for number, call in enumerate(calls) if not call.done()]
                for number in left:
                    calls[number].cancel()
                assert left == []
                assert (
                    max((size for stub in stubs for stream in stub.streams for size in stream.sent), default=0)
                    <= longest
                )
                for stub in stubs:
                    stub.stream.end()
                await turns()
                last = ask(checks)
                await answered(stubs, [last])
                answer_in_time = last.done()
                last.cancel()
                assert answer_in_time
                assert not ledger.outstanding
                assert ledger.room() == capacity
            for number, call in enumerate(calls):
                assert call.cancelled() or call.result().reason == verdict(f"{number}")

        asyncio.run(run())

    def test_unexpected(self) -> None:
        """An error of the sender that no stream should have is raised where the client is closed."""

        async def run() -> None:
            async with batching(timeout_s=0.1) as (checks, stubs):
                first = ask(checks)
                await answered(stubs, [first])
                stubs[0].stream.broken_write = KeyError("nobody expects it")
                second = ask(checks, 1)
                await turns()
                stubs[0].stream.end()
                with pytest.raises(ServiceUnavailableError):
                    await second

        with pytest.raises(KeyError, match="nobody expects it"):
            asyncio.run(run())

    @pytest.mark.parametrize("error", [gone(), asyncio.InvalidStateError()], ids=["broken", "ended"])
    def test_write_breaks(self, error: Exception) -> None:
        """A frame that a stream takes no more because it ends leaves by the next one."""

        async def run() -> Answer:
            async with batching() as (checks, stubs):
                first = ask(checks)
                await answered(stubs, [first])
                stubs[0].stream.broken_write = error
                second = ask(checks, 2)
                await turns()
                stubs[0].stream.end(gone())
                await answered(stubs, [second])
                async with asyncio.timeout(5):
                    return await second

        assert asyncio.run(run()).permitted

    def test_one_frame(self) -> None:
        """Calls of one turn travel together, whether or not there is a stream already."""

        async def run() -> list[int]:
            async with batching() as (checks, stubs):
                for _ in range(2):
                    calls = [ask(checks, number) for number in range(50)]
                    await answered(stubs, calls)
                return stubs[0].stream.sent

        assert asyncio.run(run()) == [50, 50]

    def test_least_loaded(self) -> None:
        """A frame leaves by the line that has the fewest on their way."""

        async def run() -> list[int]:
            async with batching(2) as (checks, stubs):
                calls = [ask(checks)]
                await turns()
                for number in range(1, 4):
                    calls.append(ask(checks, number))
                    await turns()
                loads = [len(stub.stream.owed) for stub in stubs]
                await answered(stubs, calls)
                return loads

        assert asyncio.run(run()) == [2, 2]

    def test_failure_makes_room(self) -> None:
        """Calls whose frame cannot be made leave room at once for those who wait for it."""

        async def run() -> list[object]:
            async with batching(capacity=1) as (checks, stubs):
                made = checks._conversation.gathered_request
                broken = [ServiceError("cannot be made", code="BROKEN")]

                def request(*frame: object) -> pb.StreamCheckRequest:
                    if broken:
                        raise broken.pop()
                    return made(*frame)  # type: ignore[arg-type] # as it came

                with patch.object(checks._conversation, "gathered_request", request):
                    calls = [ask(checks), ask(checks, 2)]
                    await answered(stubs, calls)
                    done = [call.done() for call in calls]
                    for call in calls:
                        call.cancel()
                    return [*done, calls[0].exception()]

        *done, error = asyncio.run(run())

        assert done == [True, True]
        assert cast("ServiceError", error).code == "BROKEN"

    def test_called_as_it_ends(self) -> None:
        """A line that ends in the turn in which it was called, while another one sends in its place, holds up none."""

        async def run() -> bool:
            async with batching(2, timeout_s=1) as (checks, stubs):
                calls = [ask(checks)]
                await turns()
                stubs[1].stream.shut()
                calls.append(ask(checks, 1))
                await turns()
                stubs[0].stream.reply()
                await turns()
                stubs[0].stream.end()
                stubs[1].stream.open()
                calls.append(ask(checks, 2))
                await turns()
                await answered(stubs, calls)
                last = ask(checks, 4)
                await answered(stubs, [last])
                return last.done()

        assert asyncio.run(run())

    def test_broken_line(self) -> None:
        """What a broken line owed leaves by another one at once, however long the broken one is left alone."""

        async def run() -> list[int]:
            async with batching(2, pause_s=60) as (checks, stubs):
                call = ask(checks)
                await turns()
                stubs[0].stream.end(gone())
                await turns()
                sent = list(stubs[1].stream.sent)
                call.cancel()
                return sent

        assert asyncio.run(run()) == [1]

    def test_next_line(self) -> None:
        """While one line waits for room in its stream, another one takes what does not fit the same frame."""

        async def run() -> list[int]:
            async with batching(2) as (checks, stubs):
                first = ask(checks)
                await answered(stubs, [first])
                stubs[0].stream.shut()
                calls = [ask(checks, brand=1), ask(checks, brand=2)]
                await turns()
                sent = list(stubs[1].stream.sent)
                await answered(stubs, calls)
                return sent

        assert asyncio.run(run()) == [1]

    def test_left_before_sent(self) -> None:
        """When the only call of a frame left before the frame did, whoever waited for its room asks at once."""

        async def run() -> bool:
            async with batching(capacity=1, timeout_s=1) as (checks, stubs):
                first, second = ask(checks), ask(checks, 2)
                await turns(1)
                first.cancel()
                await answered(stubs, [second])
                return second.done()

        assert asyncio.run(run())

    def test_leaving_with_a_failure(self) -> None:
        """Leaving the block ends as soon as the last frame could not be made."""

        async def run() -> "asyncio.Future[Answer]":
            with patch.object(Conversation, "gathered_request", side_effect=KeyError):
                async with asyncio.timeout(5), batching() as (checks, _):
                    return ask(checks)

        assert isinstance(asyncio.run(run()).exception(), KeyError)

    def test_idle(self) -> None:
        """A stream that ends while nothing is asked is not made again until something is."""

        async def run() -> list[int]:
            async with batching() as (checks, stubs):
                made = []
                for _ in range(2):
                    await answered(stubs, [ask(checks)])
                    stubs[0].stream.end()
                    await turns()
                    made.append(len(stubs[0].streams))
                return made

        assert asyncio.run(run()) == [1, 2]

    def test_wrong_frame(self) -> None:
        """A stream whose reply was to another frame is ended by the client."""

        async def run() -> bool:
            async with batching() as (checks, stubs):
                call = ask(checks)
                await turns()
                stream = stubs[0].stream
                stream.owed[0].frame_id += 1
                stream.reply()
                await turns()
                assert cast("ServiceError", call.exception()).code == "WRONG_FRAME"
                return stream.ended

        assert asyncio.run(run())

    def test_old_trouble(self) -> None:
        """A call that ends late says nothing of a trouble that was over before."""

        async def run() -> BaseException | None:
            async with batching(timeout_s=0.2) as (checks, stubs):
                first = ask(checks)
                await turns()
                stubs[0].stream.end(gone())
                await answered(stubs, [first])
                assert first.done()
                late = ask(checks)
                await asyncio.wait((late,))
                return late.exception()

        assert cast("ServiceError", asyncio.run(run())).code == "DEADLINE_EXCEEDED"

    def test_unreadable(self) -> None:
        """An error that no reply should cause fails its calls and is raised where the client is closed."""

        async def run() -> None:
            error = KeyError("nobody expects it")
            with patch.object(Conversation, "gathered_answers", side_effect=error):
                async with batching() as (checks, stubs):
                    call = ask(checks)
                    await answered(stubs, [call])
                    assert isinstance(call.exception(), KeyError)

        with pytest.raises(KeyError, match="nobody expects it"):
            asyncio.run(run())
