"""The ceiling: a bare grpcio server that parses the same requests and answers with as many bytes, nothing else.

`python -m bench.peers.echo`. No store, no rule, no evidence looked up, no metrics, no interceptor; threads and options
as the real server has them. What iyscheck takes longer than this is what iyscheck itself costs.
"""

import json
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from iyscheck.v1 import consent_check_pb2 as v1

SERVICE = "iyscheck.v1.ConsentCheckService"
THREADS = 8
MESSAGE_BYTES = 8 * 1024 * 1024
OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
)

_ENVELOPE = v1.Envelope(
    position=v1.Position(log_id=bytes(range(16)), sequence=20_000_001),
    as_of=Timestamp(seconds=1_790_000_000),
    valid_until=Timestamp(seconds=1_790_000_300, nanos=123_456_789),
    decision_id="01890a5d-ac96-774b-bcce-b302099a8057",
    policy_id="0123456789abcdef",
)
_COUNTS = (
    v1.ReasonCount(reason=v1.REASON_CONSENTED, recipients=7_200),
    v1.ReasonCount(reason=v1.REASON_REFUSED, recipients=1_800),
    v1.ReasonCount(reason=v1.REASON_NO_CONSENT, recipients=1_000),
)
_REASONS = bytes((v1.REASON_CONSENTED,)) * 65_536
_EVIDENCE = v1.Evidence(
    status=v1.CONSENT_STATUS_ONAY,
    source="HS_WEB",
    consent_time="2024-05-02 10:00:00",
    registration_time="2024-05-02 10:05:00",
    transaction_id="0123456789abcdef" * 4,
)


def check(request: v1.CheckRequest, _: grpc.ServicerContext) -> v1.CheckResponse:
    """Answer a question with a constant of the real answer's size."""
    return v1.CheckResponse(
        reason=v1.REASON_CONSENTED,
        permitted=True,
        message_class=request.question.message_class,
        evidence=_EVIDENCE,
        envelope=_ENVELOPE,
        client_reference=request.client_reference,
    )


def stream_check(frames: Iterator[v1.StreamCheckRequest], _: grpc.ServicerContext) -> Iterator[v1.StreamCheckResponse]:
    """Answer each frame with a constant reason per recipient."""
    for frame in frames:
        recipients = len(frame.tokens) // 16 or len(frame.addresses)
        yield v1.StreamCheckResponse(
            frame_id=frame.frame_id, reasons=_REASONS[:recipients], counts=_COUNTS, envelope=_ENVELOPE
        )


def start() -> tuple[grpc.Server, str]:
    """Start the server on a free port; returns it and where it listens."""
    server = grpc.server(ThreadPoolExecutor(THREADS), options=OPTIONS)
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {  # Any: the handlers differ in their messages
        "Check": grpc.unary_unary_rpc_method_handler(
            check, v1.CheckRequest.FromString, v1.CheckResponse.SerializeToString
        ),
        "StreamCheck": grpc.stream_stream_rpc_method_handler(
            stream_check, v1.StreamCheckRequest.FromString, v1.StreamCheckResponse.SerializeToString
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}"


def main() -> None:
    """Serve until SIGTERM."""
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    server, listen = start()
    print(json.dumps({"event": "serving", "listen": listen}), file=sys.stderr, flush=True)
    stopped.wait()
    server.stop(0).wait()


if __name__ == "__main__":
    main()
