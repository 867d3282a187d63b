"""The client for asyncio. `sync` has the same shape for threads; what they share is in `calls` and `columns`."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Self, TypeVar

import grpc
import grpc.aio
import numpy as np
import numpy.typing as npt

from iyscheck.change import Position
from iyscheck.client import calls, failures
from iyscheck.client.admin import AsyncAdmin
from iyscheck.client.batching import CAPACITY, AsyncBatching
from iyscheck.client.columns import FRAME_SIZE, WINDOW, Flight
from iyscheck.client.paths import TaskPaths
from iyscheck.client.route import Route, Tls
from iyscheck.client.silence import Silence
from iyscheck.consent import Channel, MessageClass, RecipientType
from iyscheck.errors import ServiceError
from iyscheck.keys import AddressKey
from iyscheck.question import Answer, ColumnResult, Context, FrameResult, ItemError, Question, ServerInfo, joined
from iyscheck.v1 import consent_check_pb2 as pb
from iyscheck.v1.consent_check_pb2_grpc import ConsentCheckServiceStub

ResponseT = TypeVar("ResponseT")


class AsyncClient:
    """Asks an iyscheck server whether messages may be sent. Belongs to one event loop; close it when done.

    `target` is HOST:PORT or unix:PATH. Of several servers (`dns:///NAME:PORT`, or IP addresses with their ports between
    commas) those are asked that say they are fresh, and all of them where nobody is.
    `tls` encrypts, and `api_key` says who asks, to servers that want to know. A key goes to the named server only: over
    TLS, on the loopback, by a unix socket, or with `insecure` in plain text over a network that you trust.
    With an address key it sends tokens only: plaintext never leaves the process. With `monotonic` no answer is
    older than one this client got before. Every call has a deadline: `timeout_s` for single questions,
    `batch_timeout_s` for each batch and for each frame of a column. Unary calls are tried up to four times where
    the server is unavailable. While nothing was ever answered, a call that fails has a look why: a second longer at
    most, and at most once in ten seconds. Every call can raise QuestionError, ServiceUnavailableError,
    ServiceRefusedError and ServiceFailedError; a check that ended in one of them was not answered: do not send.
    """

    def __init__(
        self,
        target: str = calls.TARGET,
        *,
        tls: Tls | None = None,
        api_key: str | None = None,
        insecure: bool = False,
        address_key: AddressKey | None = None,
        timeout_s: float = calls.UNARY_TIMEOUT_S,
        batch_timeout_s: float = calls.BATCH_TIMEOUT_S,
        monotonic: bool = False,
    ) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._batch_timeout_s = batch_timeout_s
        self._conversation = calls.Conversation(address_key=address_key, monotonic=monotonic)
        self._route = Route(target, tls, api_key, insecure=insecure)
        self._silence = Silence(self._route)
        self._paths = TaskPaths(self._route)
        self._stub = ConsentCheckServiceStub(self._paths.channel)
        self.admin = AsyncAdmin(self._paths.channel, self._call)
        """What whoever operates the server asks of it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all calls and the connections."""
        await self._paths.close()

    async def check(  # noqa: PLR0913 - a question in keywords
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
        client_reference: str = "",
    ) -> Answer:
        """Ask about one recipient, given by `address` or by `token` (16 bytes, with the 8-byte id of its key)."""
        context = Context(
            brand=brand,
            channel=channel,
            recipient_type=recipient_type,
            message_class=message_class,
            retailer=retailer,
        )
        question = Question(context=context, address=address, token=token, address_key_id=address_key_id)
        request = self._conversation.check_request(
            question, min_position=min_position, client_reference=client_reference
        )
        response: pb.CheckResponse = await self._call(self._stub.Check, request, timeout_s or self._timeout_s)
        return self._conversation.check_reply(request, response)

    async def check_many(
        self,
        questions: Iterable[Question],
        *,
        min_position: Position | None = None,
        timeout_s: float | None = None,
        client_reference: str = "",
    ) -> list[Answer | ItemError]:
        """Ask any number of mixed questions; answers in the order asked, a bad question harms only itself.

        They travel in as many batches as the server's limits need; each batch is answered from one snapshot.
        """
        batches = self._conversation.batches(
            questions,
            limits=await self._limits(timeout_s),
            min_position=min_position,
            client_reference=client_reference,
        )
        answers: list[Answer | ItemError] = []
        for batch in batches:
            if not batch.request.questions:  # nothing in it could be asked
                answers += batch.refused
                continue
            response: pb.BatchCheckResponse = await self._call(
                self._stub.BatchCheck, batch.request, timeout_s or self._batch_timeout_s
            )
            answers += self._conversation.batch_reply(batch, response)
        return answers

    async def check_column(  # noqa: PLR0913 - a frame in keywords
        self,
        *,
        brand: int,
        channel: Channel,
        recipient_type: RecipientType,
        recipients: Iterable[str] | npt.NDArray[np.uint8],
        address_key_id: bytes | None = None,
        message_class: MessageClass = MessageClass.COMMERCIAL,
        retailer: int | None = None,
        min_position: Position | None = None,
        timeout_s: float | None = None,
        frame_size: int = FRAME_SIZE,
        window: int = WINDOW,
    ) -> ColumnResult:
        """Ask about many recipients that share everything else: addresses, or tokens as uint8 of shape (N, 16)."""
        frames = self.stream_column(
            brand=brand,
            channel=channel,
            recipient_type=recipient_type,
            recipients=recipients,
            address_key_id=address_key_id,
            message_class=message_class,
            retailer=retailer,
            min_position=min_position,
            timeout_s=timeout_s,
            frame_size=frame_size,
            window=window,
        )
        return joined([frame async for frame in frames])

    async def stream_column(  # noqa: PLR0913 - a frame in keywords
        self,
        *,
        brand: int,
        channel: Channel,
        recipient_type: RecipientType,
        recipients: Iterable[str] | npt.NDArray[np.uint8],
        address_key_id: bytes | None = None,
        message_class: MessageClass = MessageClass.COMMERCIAL,
        retailer: int | None = None,
        min_position: Position | None = None,
        timeout_s: float | None = None,
        frame_size: int = FRAME_SIZE,
        window: int = WINDOW,
    ) -> AsyncIterator[FrameResult]:
        """Do as `check_column`, but hand out each frame as it is answered; `recipients` may be without end.

        At most `window` frames of `frame_size` recipients are on their way and in memory.
        """
        context = Context(
            brand=brand,
            channel=channel,
            recipient_type=recipient_type,
            message_class=message_class,
            retailer=retailer,
        )
        flight = self._conversation.flight(
            recipients,
            calls.ColumnCall(context=context, address_key_id=address_key_id, min_position=min_position),
            limits=await self._limits(timeout_s),
            frame_size=frame_size,
            window=window,
        )
        async for result in self._fly(flight, timeout_s or self._batch_timeout_s):
            yield result

    def batching(self, *, connections: int = 1, capacity: int = CAPACITY) -> AsyncBatching:
        """Make single checks travel together: `async with client.batching() as checks: await checks.check(...)`.

        More connections help where the server has several workers. At most `capacity` calls are outstanding.
        """
        return AsyncBatching(
            self._conversation,
            self._limits_at_once,
            silence=self._silence,
            paths=self._paths,
            timeout_s=self._timeout_s,
            frame_timeout_s=self._batch_timeout_s,
            connections=connections,
            capacity=capacity,
        )

    async def server_info(self, *, timeout_s: float | None = None) -> ServerInfo:
        """Ask the server for its limits, key ids, policy and freshness."""
        return await self._info(timeout_s or self._batch_timeout_s)

    async def _info(self, timeout_s: float, *, patient: bool = True) -> ServerInfo:
        response: pb.GetServerInfoResponse = await self._call(
            self._stub.GetServerInfo, pb.GetServerInfoRequest(), timeout_s, patient=patient
        )
        return self._conversation.info_reply(response)

    async def _limits(self, timeout_s: float | None) -> ServerInfo:
        return self._conversation.limits or await self.server_info(timeout_s=timeout_s)

    async def _limits_at_once(self) -> ServerInfo:
        """Ask without patience: who gathers calls has one of its own, and tells them why they wait."""
        return self._conversation.limits or await self._info(self._batch_timeout_s, patient=False)

    async def _call(
        self, method: Callable[..., Awaitable[ResponseT]], request: object, timeout_s: float, *, patient: bool = True
    ) -> ResponseT:
        arrival = failures.Arrival(timeout_s, patient=patient)
        while True:
            try:
                response = await method(request, timeout=arrival.left_s(), metadata=self._route.metadata)
            except grpc.RpcError as error:
                pause_s = arrival.pause_s(error)
                if pause_s is None:
                    raise await self._explained(arrival.told(error), timeout_s) from error
            else:
                if response is None:  # what gRPC gives where bytes are no message; only its log has more
                    raise failures.not_understood(target=self._target)
                self._silence.answered = True
                return response
            await asyncio.sleep(pause_s)

    async def _explained(self, error: grpc.RpcError, timeout_s: float) -> ServiceError:
        """Say why a call failed; where nobody has ever answered, have a look."""
        found = await self._silence.look_by_task() if self._silence.may_explain(error) else None
        return found or self._failed(error, timeout_s)

    def _failed(self, error: grpc.RpcError, timeout_s: float) -> ServiceError:
        failed = failures.failure(error, target=self._target, timeout_s=timeout_s)
        if failed.code == failures.BATCH_TOO_LARGE:
            self._conversation.limits = None  # the server has new limits: the next call learns them
        return failed

    async def _fly(self, flight: Flight[pb.StreamCheckRequest], timeout_s: float) -> AsyncIterator[FrameResult]:
        """Bring all frames home, over a new stream whenever one breaks, or is to go on at another server."""
        while True:
            outbox: asyncio.Queue[pb.StreamCheckRequest | None] = asyncio.Queue()
            stream = self._stub.StreamCheck(_sent(outbox), metadata=self._route.metadata)
            try:
                async for result in self._fly_once(flight, outbox, stream, timeout_s):
                    yield result
            except grpc.RpcError as error:
                wait_s = flight.backoff() if failures.breaks_stream(error) else None
                if wait_s is None:
                    raise self._failed(error, timeout_s) from error
                await asyncio.sleep(wait_s)
            except ServiceError as error:
                wait_s = flight.backoff() if self._paths.several and failures.is_elsewhere(error) else None
                if wait_s is None:
                    raise
                await asyncio.sleep(wait_s)
            else:
                if flight.over:
                    return
            finally:
                outbox.put_nowait(None)
                stream.cancel()

    async def _fly_once(
        self,
        flight: Flight[pb.StreamCheckRequest],
        outbox: "asyncio.Queue[pb.StreamCheckRequest | None]",
        stream: "grpc.aio.StreamStreamCall[pb.StreamCheckRequest, pb.StreamCheckResponse]",
        timeout_s: float,
    ) -> AsyncIterator[FrameResult]:
        for request in flight.unanswered():
            outbox.put_nowait(request)
        ends = time.monotonic() + calls.MOVE_S if self._paths.several else math.inf
        while True:
            if time.monotonic() < ends:
                for request in flight.launch():
                    outbox.put_nowait(request)
            if flight.empty:
                return
            try:
                async with asyncio.timeout(timeout_s):
                    response = await stream.read()
            except TimeoutError:
                raise failures.late(target=self._target, timeout_s=timeout_s) from None
            if not isinstance(response, pb.StreamCheckResponse):
                raise failures.unfinished(target=self._target)
            yield self._conversation.frame_reply(flight, response)


async def _sent(outbox: asyncio.Queue[pb.StreamCheckRequest | None]) -> AsyncIterator[pb.StreamCheckRequest]:
    while (request := await outbox.get()) is not None:
        yield request
