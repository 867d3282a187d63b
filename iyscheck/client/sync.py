"""The client for threads. `aio` has the same shape for asyncio; what they share is in `calls` and `columns`."""

import math
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

import grpc
import numpy as np
import numpy.typing as npt

from iyscheck.change import Position
from iyscheck.client import calls, failures
from iyscheck.client.admin import Admin
from iyscheck.client.batching import CAPACITY, Batching
from iyscheck.client.columns import FRAME_SIZE, WINDOW, Flight
from iyscheck.client.paths import Paths
from iyscheck.client.route import Route, Tls
from iyscheck.client.silence import Silence
from iyscheck.consent import Channel, MessageClass, RecipientType
from iyscheck.errors import ServiceError
from iyscheck.keys import AddressKey
from iyscheck.question import Answer, ColumnResult, Context, FrameResult, ItemError, Question, ServerInfo, joined
from iyscheck.v1 import consent_check_pb2 as pb
from iyscheck.v1.consent_check_pb2_grpc import ConsentCheckServiceStub

ResponseT = TypeVar("ResponseT")


class Client:
    """Asks an iyscheck server whether messages may be sent. Safe to share between threads; close it when done.

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
        self._paths = Paths(self._route)
        self._stub = ConsentCheckServiceStub(self._paths.channel)
        self.admin = Admin(self._paths.channel, self._call)
        """What whoever operates the server asks of it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all calls and the connections."""
        self._paths.close()

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
        response: pb.CheckResponse = self._call(self._stub.Check, request, timeout_s or self._timeout_s)
        return self._conversation.check_reply(request, response)

    def check_many(
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
            questions, limits=self._limits(timeout_s), min_position=min_position, client_reference=client_reference
        )
        answers: list[Answer | ItemError] = []
        for batch in batches:
            if not batch.request.questions:  # nothing in it could be asked
                answers += batch.refused
                continue
            response: pb.BatchCheckResponse = self._call(
                self._stub.BatchCheck, batch.request, timeout_s or self._batch_timeout_s
            )
            answers += self._conversation.batch_reply(batch, response)
        return answers

    def check_column(  # noqa: PLR0913 - a frame in keywords
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
        return joined(
            self.stream_column(
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
        )

    def stream_column(  # noqa: PLR0913 - a frame in keywords
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
    ) -> Iterator[FrameResult]:
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
            limits=self._limits(timeout_s),
            frame_size=frame_size,
            window=window,
        )
        return self._fly(flight, timeout_s or self._batch_timeout_s)

    def batching(self, *, connections: int = 1, capacity: int = CAPACITY) -> Batching:
        """Make single checks travel together: `with client.batching() as checks: checks.check(...)`, in many threads.

        More connections help where the server has several workers. At most `capacity` calls are outstanding.
        """
        return Batching(
            self._conversation,
            self._limits_at_once,
            silence=self._silence,
            paths=self._paths,
            timeout_s=self._timeout_s,
            frame_timeout_s=self._batch_timeout_s,
            connections=connections,
            capacity=capacity,
        )

    def server_info(self, *, timeout_s: float | None = None) -> ServerInfo:
        """Ask the server for its limits, key ids, policy and freshness."""
        return self._info(timeout_s or self._batch_timeout_s)

    def _info(self, timeout_s: float, *, patient: bool = True) -> ServerInfo:
        response: pb.GetServerInfoResponse = self._call(
            self._stub.GetServerInfo, pb.GetServerInfoRequest(), timeout_s, patient=patient
        )
        return self._conversation.info_reply(response)

    def _limits(self, timeout_s: float | None) -> ServerInfo:
        return self._conversation.limits or self.server_info(timeout_s=timeout_s)

    def _limits_at_once(self) -> ServerInfo:
        """Ask without patience: who gathers calls has one of its own, and tells them why they wait."""
        return self._conversation.limits or self._info(self._batch_timeout_s, patient=False)

    def _call(
        self, method: Callable[..., ResponseT], request: object, timeout_s: float, *, patient: bool = True
    ) -> ResponseT:
        arrival = failures.Arrival(timeout_s, patient=patient)
        while True:
            try:
                response = method(request, timeout=arrival.left_s(), metadata=self._route.metadata)
            except grpc.RpcError as error:
                pause_s = arrival.pause_s(error)
                if pause_s is None:
                    raise self._explained(arrival.told(error), timeout_s) from error
            else:
                self._silence.answered = True
                return response
            time.sleep(pause_s)

    def _explained(self, error: grpc.RpcError, timeout_s: float) -> ServiceError:
        """Say why a call failed; where nobody has ever answered, have a look."""
        found = self._silence.look() if self._silence.may_explain(error) else None
        return found or self._failed(error, timeout_s)

    def _failed(self, error: grpc.RpcError, timeout_s: float) -> ServiceError:
        failed = failures.failure(error, target=self._target, timeout_s=timeout_s)
        if failed.code == failures.BATCH_TOO_LARGE:
            self._conversation.limits = None  # the server has new limits: the next call learns them
        return failed

    def _fly(self, flight: Flight[pb.StreamCheckRequest], timeout_s: float) -> Iterator[FrameResult]:
        """Bring all frames home, over a new stream whenever one breaks, or is to go on at another server."""
        while True:
            stream = _Stream(self._stub, self._route.metadata)
            try:
                yield from self._fly_once(flight, stream, timeout_s)
            except grpc.RpcError as error:
                self._paths.doubt()
                wait_s = flight.backoff() if failures.breaks_stream(error) else None
                if wait_s is None:
                    raise self._failed(error, timeout_s) from error
                time.sleep(wait_s)
            except ServiceError as error:
                wait_s = flight.backoff() if self._paths.several and failures.is_elsewhere(error) else None
                if wait_s is None:
                    raise
                time.sleep(wait_s)
            else:
                if flight.over:
                    return
            finally:
                stream.close()

    def _fly_once(
        self, flight: Flight[pb.StreamCheckRequest], stream: "_Stream", timeout_s: float
    ) -> Iterator[FrameResult]:
        for request in flight.unanswered():
            stream.send(request)
        ends = time.monotonic() + calls.MOVE_S if self._paths.several else math.inf
        while True:
            if time.monotonic() < ends:
                for request in flight.launch():
                    stream.send(request)
            if flight.empty:
                return
            try:
                response = stream.receive(timeout_s)
            except queue.Empty:
                raise failures.late(target=self._target, timeout_s=timeout_s) from None
            if response is None:
                raise failures.unfinished(target=self._target)
            yield self._conversation.frame_reply(flight, response)


class _Stream:
    """One bidirectional stream. A thread reads it, since gRPC's own iterator cannot be waited on with a limit."""

    def __init__(self, stub: ConsentCheckServiceStub, metadata: tuple[tuple[str, str], ...] | None) -> None:
        self._outbox: queue.SimpleQueue[pb.StreamCheckRequest | None] = queue.SimpleQueue()
        self._inbox: queue.SimpleQueue[pb.StreamCheckResponse | grpc.RpcError | None] = queue.SimpleQueue()
        self._call = stub.StreamCheck(iter(self._outbox.get, None), metadata=metadata)
        threading.Thread(target=self._read, name="iyscheck-stream", daemon=True).start()

    def send(self, request: pb.StreamCheckRequest) -> None:
        self._outbox.put(request)

    def receive(self, timeout_s: float) -> pb.StreamCheckResponse | None:
        """Wait for the next reply; None if the stream has ended. Raises queue.Empty and grpc.RpcError."""
        reply = self._inbox.get(timeout=timeout_s)
        if isinstance(reply, grpc.RpcError):
            raise reply
        return reply

    def close(self) -> None:
        self._outbox.put(None)
        self._call.cancel()

    def _read(self) -> None:
        try:
            for response in self._call:
                self._inbox.put(response)
        except grpc.RpcError as error:
            self._inbox.put(error)
        else:
            self._inbox.put(None)
