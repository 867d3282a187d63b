"""A second front, as small as can be: what it answers is what the gRPC front answers, through the same doors."""

from collections.abc import Callable, Iterator
from itertools import repeat
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
from google.protobuf.message import DecodeError, Message

from iyscheck import wire
from iyscheck.change import Position
from iyscheck.consent import Channel, RecipientType
from iyscheck.question import Context, Question
from iyscheck.server.calls import Arriving, CallEndedError, Calls
from iyscheck.server.refusals import Code, Refusal
from iyscheck.v1 import consent_check_pb2 as v1
from tests.builders import ADDRESS_KEY
from tests.server.conftest import CONSENTED, REFUSED, STALE_BRAND, UNKNOWN, Served, Site, serve

MESAJ, BIREYSEL = Channel.MESAJ, RecipientType.BIREYSEL
CONTEXT = Context(brand=1, channel=MESAJ, recipient_type=BIREYSEL)
ASKED = [
    *(Question(context=CONTEXT, address=recipient) for recipient in (CONSENTED, REFUSED, UNKNOWN, "call me")),
    Question(context=Context(brand=9, channel=MESAJ, recipient_type=BIREYSEL), address=CONSENTED),
    Question(context=Context(brand=STALE_BRAND, channel=MESAJ, recipient_type=BIREYSEL), address=CONSENTED),
    Question(context=Context(brand=1, channel=MESAJ, recipient_type=RecipientType.TACIR), address="05329999999"),
    Question(context=Context(brand=1, channel=MESAJ, recipient_type=BIREYSEL, retailer=5), address=CONSENTED),
    Question(context=CONTEXT, token=bytes(16), address_key_id=ADDRESS_KEY.key_id),
    Question(context=CONTEXT, token=bytes(16), address_key_id=bytes(8)),
]
ELSEWHERE = Position(bytes(16), 1)

REQUESTS: dict[str, tuple[str, bytes]] = {
    **{
        f"question {number}": ("Check", wire.check_request(question).SerializeToString())
        for number, question in enumerate(ASKED)
    },
    "no question": ("Check", b""),
    "no protobuf": ("Check", b"\xff\xff\xff"),
    "not UTF-8": ("Check", b"\x12\x02\xff\xfe"),
    "position of another store": (
        "Check",
        wire.check_request(ASKED[0], min_position=ELSEWHERE).SerializeToString(),
    ),
    "batch": ("BatchCheck", wire.batch_request(ASKED).SerializeToString()),
    "empty batch": ("BatchCheck", b""),
    "too large a batch": ("BatchCheck", wire.batch_request(ASKED[:1] * 10_001).SerializeToString()),
    "information": ("GetServerInfo", b""),
}
FRAMES = [
    wire.frame(frame_id=1, context=CONTEXT, addresses=[CONSENTED, REFUSED, "?"]).SerializeToString(),
    wire.frame(
        frame_id=2, context=Context(brand=9, channel=MESAJ, recipient_type=BIREYSEL), addresses=[CONSENTED]
    ).SerializeToString(),
    v1.StreamCheckRequest(frame_id=3, brand_code=1).SerializeToString(),
]


class Front:
    """Bytes in, bytes out; or the code and the status that gRPC would send."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def call(self, method: str, data: bytes) -> bytes | tuple[str, bytes]:
        """Make a unary call."""
        return _outcome(lambda: self._calls.of("test").unary[method](data, forever()))

    def stream(self, frames: Iterator[bytes]) -> Iterator[bytes]:
        """Open a stream."""
        return self._calls.of("test").streams["StreamCheck"](frames, forever())


def forever() -> Arriving:
    """Describe a call without a deadline, whose caller shows nothing."""
    return Arriving(time_remaining=lambda: None)


def _outcome(make: Callable[[], bytes]) -> bytes | tuple[str, bytes]:
    try:
        return make()
    except Refusal as refusal:
        return refusal.code.name, refusal.status.SerializeToString()


def by_grpc(make: Callable[[], bytes]) -> bytes | tuple[str, bytes]:
    """Make a call through gRPC's front; a refusal's status is what travels in its trailing metadata."""
    try:
        return make()
    except grpc.RpcError as error:
        call: Any = error
        return call.code().name, dict(call.trailing_metadata())["grpc-status-details-bin"]


def settled(outcome: bytes | tuple[str, bytes], kind: type[Message]) -> object:
    """Take out what no two calls share: decision ids, and until when an answer is valid."""
    if isinstance(outcome, tuple):
        return outcome
    message: Any = kind.FromString(outcome)
    for part in (message, *getattr(message, "items", ()), *(item.result for item in getattr(message, "items", ()))):
        for field in ("decision_id", "valid_until"):
            _clear(part, field)
            _clear(getattr(part, "envelope", None), field)
    return message.SerializeToString(deterministic=True)


def _clear(part: Any, field: str) -> None:  # noqa: ANN401 - a message of any kind
    if part is not None and field in part.DESCRIPTOR.fields_by_name:
        part.ClearField(field)


REPLIES = {"Check": v1.CheckResponse, "BatchCheck": v1.BatchCheckResponse, "GetServerInfo": v1.GetServerInfoResponse}


@pytest.mark.parametrize("name", REQUESTS)
def test_same(served: Served, name: str) -> None:
    """A front without gRPC gives the bytes that gRPC's gives: answers, codes and every detail of a refusal."""
    method, data = REQUESTS[name]
    ours = Front(served.server.calls).call(method, data)
    grpcs = by_grpc(lambda: bytes(served.call(method, data)))

    assert settled(ours, REPLIES[method]) == settled(grpcs, REPLIES[method])


def test_same_stream(served: Served) -> None:
    """The replies to frames, also to one at fault, are the same bytes."""
    ours = list(Front(served.server.calls).stream(iter(FRAMES)))
    grpcs = list(served.stream(iter(FRAMES)))

    assert len(ours) == len(FRAMES)
    assert [settled(each, v1.StreamCheckResponse) for each in ours] == [
        settled(bytes(each), v1.StreamCheckResponse) for each in grpcs
    ]


def test_same_end(served: Served) -> None:
    """Bytes that are no frame end the stream with the same refusal."""

    def last(replies: Iterator[bytes]) -> bytes:
        return list(replies)[-1]

    frames = [FRAMES[0], b"\xff"]
    ours = _outcome(lambda: last(Front(served.server.calls).stream(iter(frames))))

    assert ours == by_grpc(lambda: last(served.stream(iter(frames))))
    assert ours[0] == "INVALID_ARGUMENT"


def test_same_limit(site: Site) -> None:
    """Streams of both fronts share the limit: one of ours leaves gRPC's none."""
    with serve(site, max_streams=1) as served:
        ours = Front(served.server.calls).stream(repeat(FRAMES[0]))
        next(ours)
        with pytest.raises(grpc.RpcError) as refused:
            next(served.stream(iter(FRAMES)))
        ours.close()  # type: ignore[attr-defined] # a generator
        again = list(served.stream(iter(FRAMES)))

    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(again) == len(FRAMES)


def test_same_metrics(site: Site) -> None:
    """Calls of both fronts are counted together, by method and code, and so are decisions."""
    with serve(site, metrics_listen="127.0.0.1:0") as served:
        front = Front(served.server.calls)
        for ask in (front.call, lambda method, data: by_grpc(lambda: bytes(served.call(method, data)))):
            ask(*REQUESTS["question 0"])
            ask(*REQUESTS["no question"])
        list(front.stream(iter(FRAMES)))
        counted = {
            code: served.metric("grpc_server_handled_total", grpc_method="Check", grpc_code=code)
            for code in ("OK", "InvalidArgument")
        }
        streamed = served.metric("grpc_server_msg_received_total", grpc_method="StreamCheck")
        refused = served.metric("consent_check_decisions_total", reason="REFUSED")

    assert counted == {"OK": 2, "InvalidArgument": 2}
    assert streamed == len(FRAMES)
    assert refused == 1


def test_ended(site: Site) -> None:
    """A call that its transport has ended is counted as cancelled, is no refusal, and gives its place back."""

    def frames() -> Iterator[bytes]:
        yield FRAMES[0]
        raise CallEndedError

    with serve(site, metrics_listen="127.0.0.1:0", max_streams=1) as served:
        front = Front(served.server.calls)
        for _ in range(2):
            with pytest.raises(CallEndedError):
                list(front.stream(frames()))
        cancelled = served.metric("grpc_server_handled_total", grpc_method="StreamCheck", grpc_code="Canceled")

    assert cancelled == 2
    assert not served.events("call_failed")


def test_unexpected(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that is not ours leaves as INTERNAL, and the log gets where it was raised."""

    def broken(*_: object, **__: object) -> None:
        raise DecodeError("+905321234567")

    monkeypatch.setattr(served.server.engine, "check", broken)
    with pytest.raises(Refusal) as caught:
        served.server.calls.of("test").unary["Check"](REQUESTS["question 0"][1], forever())

    assert caught.value.code is Code.INTERNAL
    assert "532" not in caught.value.status.message
    assert served.events("call_failed")[-1]["error"] == "DecodeError"


def test_cancelled_quietly(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A caller who leaves a stream in the middle is nothing for gRPC's log: its own exception comes back to it."""
    with serve(site, max_streams=1) as served:
        frames: SimpleQueue[bytes] = SimpleQueue()
        stream = served.stream(iter(frames.get, b""))
        frames.put(FRAMES[0])
        next(stream)
        stream.cancel()
        frames.put(b"")
        while isinstance(by_grpc(lambda: bytes(next(served.stream(iter(FRAMES))))), tuple):
            pass  # the place is still taken

    assert not caplog.records
