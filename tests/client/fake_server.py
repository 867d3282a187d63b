"""A server in the test process that speaks the contract, and breaks it where a test says so."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped] # it ships no types
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_status import rpc_status

from iyscheck.client.calls import FRESH
from iyscheck.v1 import consent_check_pb2 as pb
from iyscheck.v1.consent_check_pb2_grpc import (
    ConsentCheckServiceServicer,
    add_ConsentCheckServiceServicer_to_server,
)

LOG = b"L" * 16
KEY_ID = b"\x01" * 8
PERMITTED, DENIED = 1, 73


def envelope(sequence: int = 7, log: bytes = LOG) -> pb.Envelope:
    """An envelope with every part."""
    made = pb.Envelope(
        position=pb.Position(log_id=log, sequence=sequence), decision_id=f"decision-{sequence}", policy_id="0" * 16
    )
    made.as_of.seconds, made.valid_until.seconds = 1_000, 2_000
    return made


def verdict(address: str) -> int:
    """The server's rule: a text that ends in an even digit is permitted."""
    return PERMITTED if address[-1:] in set("02468") else DENIED


def frame_reply(request: pb.StreamCheckRequest) -> pb.StreamCheckResponse:
    """Answer a frame as the contract has it."""
    reasons = bytes(verdict(address) for address in request.addresses)
    if not request.addresses:
        rows = [request.tokens[first : first + 16] for first in range(0, len(request.tokens), 16)]
        reasons = bytes(64 if row == bytes(16) else PERMITTED for row in rows)
    return pb.StreamCheckResponse(frame_id=request.frame_id, reasons=reasons, envelope=envelope(request.frame_id))


def abort(context: grpc.ServicerContext, code: grpc.StatusCode, reason: str, field: str = "") -> NoReturn:
    """End a call as an iyscheck server does."""
    details = [error_details_pb2.ErrorInfo(reason=reason, domain="iyscheck.v1")]
    if field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    packed = [Packed() for _ in details]
    for made, detail in zip(packed, details, strict=True):
        made.Pack(detail)
    context.abort_with_status(
        rpc_status.to_status(status_pb2.Status(code=code.value[0], message=f"{reason} it is.", details=packed))
    )


class Health(HealthServicer):
    """gRPC's own health service, which counts who has watched."""

    def __init__(self) -> None:
        super().__init__()
        self.watches = 0

    def Watch(self, request: Any, context: Any, send_response_callback: Any = None) -> Any:  # noqa: ANN401, N802 - gRPC's
        """Tell the status and whatever it becomes."""
        self.watches += 1
        return super().Watch(request, context, send_response_callback)


@dataclass
class Service(ConsentCheckServiceServicer):
    """Answers by the contract unless a test sets one of the replies; keeps all requests."""

    limits: pb.Limits = field(
        default_factory=lambda: pb.Limits(
            max_batch_questions=10_000,
            max_frame_recipients=65_536,
            max_message_bytes=8 * 1024 * 1024,
            max_client_reference_bytes=128,
        )
    )
    requests: list[pb.CheckRequest | pb.BatchCheckRequest | pb.StreamCheckRequest] = field(default_factory=list)
    reply: Callable[[pb.CheckRequest, grpc.ServicerContext], pb.CheckResponse] | None = None
    frames: (
        Callable[[Iterator[pb.StreamCheckRequest], grpc.ServicerContext], Iterator[pb.StreamCheckResponse]] | None
    ) = None
    streams: int = 0
    delay_s: float = 0
    port: int = 0
    health: Health = field(default_factory=Health)

    @property
    def target(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def say_fresh(self, fresh: bool) -> None:  # noqa: FBT001 - it is the word itself
        """Tell whoever watches whether the data here is fresh."""
        statuses = health_pb2.HealthCheckResponse
        self.health.set(FRESH, statuses.SERVING if fresh else statuses.NOT_SERVING)

    def Check(self, request: pb.CheckRequest, context: grpc.ServicerContext) -> pb.CheckResponse:  # noqa: N802 - gRPC's
        """Answer one question."""
        self.requests.append(request)
        time.sleep(self.delay_s)
        if self.reply is not None:
            return self.reply(request, context)
        reason = verdict(request.question.address)
        return pb.CheckResponse(reason=reason, permitted=reason == PERMITTED, envelope=envelope())  # type: ignore[arg-type] # a number

    def BatchCheck(  # noqa: N802 - gRPC's
        self, request: pb.BatchCheckRequest, context: grpc.ServicerContext
    ) -> pb.BatchCheckResponse:
        """Answer a batch."""
        self.requests.append(request)
        if len(request.questions) > self.limits.max_batch_questions:
            abort(context, grpc.StatusCode.INVALID_ARGUMENT, "BATCH_TOO_LARGE")
        reasons = [verdict(question.address) for question in request.questions]
        return pb.BatchCheckResponse(
            items=[
                pb.BatchCheckItem(result=pb.BatchCheckResult(reason=reason, permitted=reason == PERMITTED))  # type: ignore[arg-type] # a number
                for reason in reasons
            ],
            envelope=envelope(),
        )

    def StreamCheck(  # noqa: N802 - gRPC's
        self, requests: Iterator[pb.StreamCheckRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.StreamCheckResponse]:
        """Answer frames."""
        self.streams += 1
        if self.frames is not None:
            yield from self.frames(requests, context)
            return
        for request in requests:
            self.requests.append(request)
            time.sleep(self.delay_s)
            yield frame_reply(request)

    def GetServerInfo(  # noqa: N802 - gRPC's
        self, _request: pb.GetServerInfoRequest, _context: grpc.ServicerContext
    ) -> pb.GetServerInfoResponse:
        """Tell the limits."""
        return pb.GetServerInfoResponse(
            server_version="0.1.0",
            limits=self.limits,
            address_key_id=KEY_ID,
            store_key_id=KEY_ID,
            position=pb.Position(log_id=LOG, sequence=7),
            policy=pb.Policy(policy_id="0" * 16),
        )


@contextmanager
def serving_later(after_s: float) -> Iterator[str]:
    """Serve in so many seconds; gives the address at once, where nobody listens until then."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    over = threading.Event()

    def serve() -> None:
        time.sleep(after_s)
        with serving(port):
            over.wait()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        over.set()
        thread.join()


@contextmanager
def serving(
    port: int = 0, *, watched: bool = False, credentials: grpc.ServerCredentials | None = None
) -> Iterator[Service]:
    """Serve on a free port of the loopback, or on this one; `watched`, with a health that says nothing of freshness."""
    made = Service()
    server = grpc.server(futures.ThreadPoolExecutor(64 if watched else 8), options=[("grpc.so_reuseport", 0)])
    add_ConsentCheckServiceServicer_to_server(made, server)
    if watched:
        add_HealthServicer_to_server(made.health, server)
    place = f"127.0.0.1:{port}"
    made.port = server.add_insecure_port(place) if credentials is None else server.add_secure_port(place, credentials)
    server.start()
    try:
        yield made
    finally:
        server.stop(0).wait()
