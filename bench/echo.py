"""A bare gRPC server with our proto, options and pool of threads: the ceiling for any Python server of this contract.

It parses each request as ours does and returns a ready-made answer of the size that ours would send; nothing is
looked up, decided, counted or logged. `python -m bench.echo --listen 127.0.0.1:0` prints the port it got.
"""

import functools
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import grpc
import typer

from iyscheck import wire
from iyscheck.change import Position
from iyscheck.consent import MessageClass, Reason, Status
from iyscheck.question import Answer, Envelope, Evidence
from iyscheck.server.app import OPTIONS, pool_size
from iyscheck.server.calls import SERVICE
from iyscheck.server.threads import Pool
from iyscheck.v1 import consent_check_pb2 as v1

_TOKEN_BYTES: Final = 16
_SHARES: Final = {Reason.CONSENTED: 0.7, Reason.REFUSED: 0.2}
"""Which reasons a frame's answer counts; the rest is NO_CONSENT."""

ENVELOPE: Final = Envelope(
    position=Position(bytes(range(16)), 20_000_000),
    as_of=1_767_225_600,
    valid_until=1_767_225_900.123456,
    decision_id="019b7000-0000-7000-8000-000000000000",
    policy_id="bcfa8539f7299ec2",
)
ANSWER: Final = Answer(
    reason=Reason.CONSENTED,
    message_class=MessageClass.COMMERCIAL,
    evidence=Evidence(
        status=Status.ONAY,
        source="HS_WEB",
        consent_time="2025-05-31 09:30:00",
        registration_time="2025-06-01 12:00:00",
        transaction_id="1f" * 32,
    ),
    envelope=ENVELOPE,
)
RESPONSE: Final = wire.check_response(ANSWER).SerializeToString()
"""An answer with evidence, as `Check` gives it for a consent."""


def check(data: bytes, _: grpc.ServicerContext) -> bytes:
    """Parse the question; answer always the same."""
    v1.CheckRequest.FromString(data)
    return RESPONSE


def stream_check(frames: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
    """Parse each frame and answer it with as many reasons as it has recipients."""
    for data in frames:
        request = v1.StreamCheckRequest.FromString(data)
        recipients = len(request.tokens) // _TOKEN_BYTES or len(request.addresses)
        # Messages one after the other are one message: the frame's id goes before what all frames share.
        yield v1.StreamCheckResponse(frame_id=request.frame_id).SerializeToString() + frame_body(recipients)


@functools.lru_cache(64)
def frame_body(recipients: int) -> bytes:
    """Make the answer to a frame of so many recipients, without its id; kept, so that the next one is free."""
    counts = {reason: int(recipients * share) for reason, share in _SHARES.items()}
    counts[Reason.NO_CONSENT] = recipients - sum(counts.values())
    envelope = wire.check_response(ANSWER).envelope
    message = v1.StreamCheckResponse(reasons=bytes(recipients), envelope=envelope)
    for reason, number in counts.items():
        message.counts.add(reason=int(reason), recipients=number)
    return message.SerializeToString()


def question() -> bytes:
    """Make the bytes of a question about a token, as a gateway sends it."""
    message = v1.CheckRequest()
    message.question.brand_code = 600_123
    message.question.channel = v1.CHANNEL_MESAJ
    message.question.recipient_type = v1.RECIPIENT_TYPE_BIREYSEL
    message.question.token = bytes(range(1, 17))
    message.question.address_key_id = bytes(8)
    return message.SerializeToString()


def serve(
    listen: str, threads: int, certificate: tuple[Path, Path] | None = None, *, unary_apart: int = 0, yielding: int = 0
) -> tuple[grpc.Server, int]:
    """Start the server, with a certificate and its key over TLS; returns it with its port.

    `unary_apart` threads are for single checks only, and those of streams are nicer by `yielding`: as ours are.
    """
    server = grpc.server(Pool(threads, "stream", yielding=yielding), options=OPTIONS)
    behaviour = functools.partial(check)
    if unary_apart:
        setattr(behaviour, "experimental_thread_pool", Pool(unary_apart, "unary"))  # noqa: B010 - grpc's own, no typed attribute
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Check": grpc.unary_unary_rpc_method_handler(behaviour),
        "StreamCheck": grpc.stream_stream_rpc_method_handler(stream_check),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    if certificate is None:
        port = server.add_insecure_port(listen)
    else:
        chain, key = (file.read_bytes() for file in certificate)
        port = server.add_secure_port(listen, grpc.ssl_server_credentials([(key, chain)]))
    server.start()
    return server, port


def main(
    listen: Annotated[str, typer.Option(help="HOST:PORT; port 0 takes any free one.")] = "127.0.0.1:0",
    unary_workers: Annotated[int, typer.Option(help="As of `iyscheck serve`.", min=1)] = 4,
    max_streams: Annotated[int, typer.Option(help="As of `iyscheck serve`.", min=1)] = 32,
    tls_cert: Annotated[Path | None, typer.Option(help="As of `iyscheck serve`.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="As of `iyscheck serve`.")] = None,
    yielding: Annotated[int, typer.Option(help="How much streams give way to single checks.", min=0)] = 0,
) -> None:
    """Serve until SIGTERM or SIGINT; prints the port on a line of its own."""
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    server, port = serve(
        listen,
        pool_size(unary_workers, max_streams),
        (tls_cert, tls_key) if tls_cert and tls_key else None,
        unary_apart=unary_workers if yielding else 0,
        yielding=yielding,
    )
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    over.wait()
    server.stop(0).wait()


if __name__ == "__main__":
    typer.run(main)
