"""Streams, connections and time of the test's own for the client for asyncio: turn by turn of the loop, no socket."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast
from unittest.mock import patch

import grpc
import grpc.aio

from iyscheck.client import AsyncBatching
from iyscheck.client.batching import tasks
from iyscheck.client.batching.ledger import WINDOW, Patience
from iyscheck.client.calls import Conversation
from iyscheck.client.paths import TaskPaths
from iyscheck.client.route import Route
from iyscheck.client.silence import Silence
from iyscheck.consent import Channel as Medium
from iyscheck.consent import RecipientType
from iyscheck.question import Answer, ServerInfo
from iyscheck.v1 import consent_check_pb2 as pb
from tests.client.fake_server import Service, frame_reply

T = TypeVar("T")
ROUNDS = 30
"""Turns of the loop in which everything that can happen without the server has happened."""
TIMEOUT_S = FRAME_TIMEOUT_S = 60


class Loop(asyncio.SelectorEventLoop):
    """A loop whose time goes on when the test says so; by itself it goes as ever, which no test waits for."""

    skipped_s = 0.0

    def time(self) -> float:
        """Say how late it is."""
        return super().time() + self.skipped_s


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run in such a loop."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(main)


async def pass_time(seconds: float) -> None:
    """Let time pass."""
    cast("Loop", asyncio.get_running_loop()).skipped_s += seconds
    await turns()


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


class Channel:
    """A connection of a line, with the options that it was made with."""

    def __init__(self, line: "Line", options: object) -> None:
        self.line = line
        self.options = options
        self.closed = False

    async def close(self) -> None:
        """Close it."""
        self.closed = True


class Line:
    """The connections of one line and their streams, one after the other."""

    def __init__(self) -> None:
        self.channels: list[Channel] = []
        self.streams: list[Stream] = []

    def StreamCheck(self, *, metadata: None) -> Stream:  # noqa: N802, ARG002 - gRPC's; who asks is nobody here
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
    connections: int = 1,
    *,
    capacity: int = 100,
    timeout_s: float = TIMEOUT_S,
    longest: int = 1_000,
    pause_s: float = 0,
    passes_s: float = 100 * TIMEOUT_S,
    limits_end: Callable[[], Awaitable[object]] | None = None,
) -> AsyncIterator[tuple[AsyncBatching, list[Line]]]:
    """Make a client over such lines. A frame may take FRAME_TIMEOUT_S.

    So much time passes at the end: whoever waits in vain then need not be waited for.
    """
    conversation = Conversation(address_key=None, monotonic=False)
    lines = [Line() for _ in range(connections)]
    silence = Silence(Route("127.0.0.1:1"))
    silence.answered = True  # by `limits`
    paths = TaskPaths(silence.route)

    async def limits() -> ServerInfo:
        if limits_end is not None:
            await limits_end()
        service = Service()
        service.limits.max_frame_recipients = longest
        return conversation.info_reply(
            service.GetServerInfo(pb.GetServerInfoRequest(), cast("grpc.ServicerContext", None))
        )

    def connected(_: str, *, options: object) -> Channel:
        """Give a connection to the line that has none."""
        line = next(line for line in lines if all(channel.closed for channel in line.channels))
        line.channels.append(Channel(line, options))
        return line.channels[-1]

    with (
        patch.object(grpc.aio, "insecure_channel", connected),
        patch.object(tasks, "ConsentCheckServiceStub", lambda channel: channel.line),
        patch.object(tasks, "monotonic", lambda: asyncio.get_running_loop().time()),
        patch.object(Patience, "next_s", lambda _: pause_s),
    ):
        checks = AsyncBatching(
            conversation,
            limits,
            silence=silence,
            paths=paths,
            timeout_s=timeout_s,
            frame_timeout_s=FRAME_TIMEOUT_S,
            connections=connections,
            capacity=capacity,
        )
        async with checks:
            await turns(2)
            yield checks, lines
            await pass_time(passes_s)


def ask(checks: AsyncBatching, number: int = 0, brand: int = 1) -> "asyncio.Future[Answer]":
    """Ask about a recipient."""
    return asyncio.ensure_future(
        checks.check(
            brand=brand, channel=Medium.MESAJ, recipient_type=RecipientType.BIREYSEL, address=f"+90500000{number:04}"
        )
    )


async def answered(lines: list[Line], calls: list["asyncio.Future[Answer]"]) -> None:
    """Let the server answer everything, for as long as every call needs at most."""
    for _ in range(100):
        if all(call.done() for call in calls):
            return
        for line in lines:
            line.stream.open()
            line.stream.reply()
        await turns(5)
