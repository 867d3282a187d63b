import json
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2  # type: ignore[import-untyped] # it ships no types
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from iyscheck import address, wire
from iyscheck.change import Position
from iyscheck.consent import Channel, MessageClass, Reason, RecipientType
from iyscheck.engine import Engine
from iyscheck.question import MAX_MESSAGE_BYTES, Context, Question
from iyscheck.v1 import consent_check_pb2 as v1
from iyscheck.v1.consent_check_pb2_grpc import ConsentCheckServiceStub
from tests.builders import ADDRESS_KEY, STORE_KEY
from tests.server.conftest import CONSENTED, FRONTS, REFUSED, STALE_BRAND, UNKNOWN, Served, Site, serve

CONTEXT = Context(brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)
NOBODY = "+905329999999"


def token_of(recipient: str) -> bytes:
    """Make a gateway's token."""
    return address.token(recipient, Channel.MESAJ, ADDRESS_KEY)


def context(**changes: Any) -> Context:  # noqa: ANN401 - fields of a context
    """Make the usual context with changes."""
    usual: dict[str, Any] = {"brand": 1, "channel": Channel.MESAJ, "recipient_type": RecipientType.BIREYSEL}
    return Context(**usual | changes)


def refusal(call: Any) -> tuple[grpc.StatusCode, error_details_pb2.ErrorInfo, list[str]]:  # noqa: ANN401 - a grpc error
    """Read the one ErrorInfo of a failed call, its code and the fields at fault."""
    status = rpc_status.from_call(call)
    assert status is not None
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    infos = [detail for detail in status.details if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
    assert len(infos) == 1
    assert infos[0].Unpack(info)
    fields = [v.field for detail in status.details if detail.Unpack(bad) for v in bad.field_violations]
    return call.code(), info, fields


QUESTIONS = {
    "consented": (Question(context=CONTEXT, address=CONSENTED), Reason.CONSENTED),
    "refused": (Question(context=CONTEXT, address=REFUSED), Reason.REFUSED),
    "unknown status": (Question(context=CONTEXT, address=UNKNOWN), Reason.STATUS_UNKNOWN),
    "nobody": (Question(context=CONTEXT, address=NOBODY), Reason.NO_CONSENT),
    "unreadable": (Question(context=CONTEXT, address="call me"), Reason.INVALID_ADDRESS),
    "lone surrogate": (Question(context=CONTEXT, address="\ud800"), Reason.INVALID_ADDRESS),
    "unregistered": (Question(context=context(brand=9), address=CONSENTED), Reason.BRAND_NOT_REGISTERED),
    "stale": (Question(context=context(brand=STALE_BRAND), address=CONSENTED), Reason.DATA_STALE),
    "merchant": (
        Question(context=context(recipient_type=RecipientType.TACIR), address=NOBODY),
        Reason.MERCHANT_NOT_REFUSED,
    ),
    "exempt": (
        Question(context=context(brand=9, message_class=MessageClass.SECURITY_CODE), address="?"),
        Reason.EXEMPT_MESSAGE,
    ),
    "retailer": (Question(context=context(retailer=5), address=CONSENTED), Reason.RETAILER_NOT_AUTHORISED),
    "token": (
        Question(context=CONTEXT, token=token_of(CONSENTED), address_key_id=ADDRESS_KEY.key_id),
        Reason.CONSENTED,
    ),
    "zero token": (
        Question(context=CONTEXT, token=bytes(16), address_key_id=ADDRESS_KEY.key_id),
        Reason.INVALID_ADDRESS,
    ),
}


class TestAnswers:
    """Each RPC answers what the engine answers."""

    @pytest.mark.parametrize("name", QUESTIONS)
    def test_check(self, served: Served, name: str) -> None:
        """A single question gets its reason, its evidence and how fresh it is."""
        question, reason = QUESTIONS[name]

        answer = wire.answer_of(served.stub.Check(wire.check_request(question, client_reference="r"), timeout=5))

        assert answer.reason is reason
        assert answer.message_class is question.context.message_class
        assert (answer.evidence is not None) == (
            reason in (Reason.CONSENTED, Reason.REFUSED, Reason.STATUS_UNKNOWN, Reason.RETAILER_NOT_AUTHORISED)
        )
        assert answer.envelope.position == served.server.engine.freshness().position

    def test_reference(self, served: Served) -> None:
        """The caller's reference comes back."""
        request = wire.check_request(QUESTIONS["nobody"][0], client_reference="campaign 7")

        assert served.stub.Check(request, timeout=5).client_reference == "campaign 7"

    def test_batch(self, served: Served) -> None:
        """A batch answers in order, and a bad question harms only itself."""
        request = wire.batch_request([question for question, _ in QUESTIONS.values()])
        request.questions.insert(1, v1.Question(brand_code=1))

        items = served.stub.BatchCheck(request, timeout=5).items

        assert items[1].error.field == "channel"
        del items[1]
        assert [item.result.reason for item in items] == [reason for _, reason in QUESTIONS.values()]

    def test_stream(self, served: Served) -> None:
        """Each frame has one reply, in order, of addresses as of tokens."""
        recipients = [CONSENTED, REFUSED, NOBODY, "?"]
        tokens = address.tokens(recipients, Channel.MESAJ, ADDRESS_KEY)
        frames = [
            wire.frame(CONTEXT, addresses=recipients, frame_id=5),
            wire.frame(CONTEXT, tokens=tokens, address_key_id=ADDRESS_KEY.key_id, frame_id=4),
            wire.frame(context(message_class=MessageClass.DELIVERY), addresses=recipients, frame_id=3),
        ]

        replies = list(served.stub.StreamCheck(iter(frames), timeout=5))

        expected = bytes([Reason.CONSENTED, Reason.REFUSED, Reason.NO_CONSENT, Reason.INVALID_ADDRESS])
        assert [reply.frame_id for reply in replies] == [5, 4, 3]
        assert [reply.reasons for reply in replies] == [expected, expected, bytes([Reason.EXEMPT_MESSAGE] * 4)]

    def test_columns(self, served: Served) -> None:
        """Frames that are cut into columns are answered as small ones are, whatever their addresses are."""
        spellings = ["0 (532) 100-00.01", REFUSED, "", NOBODY, "05321000001:", "5321000001", "05321000001ş", "ş" * 70]
        large = wire.frame(CONTEXT, addresses=spellings * 100, frame_id=1)
        small = [wire.frame(CONTEXT, addresses=[spelling]) for spelling in spellings]

        answer, *answers = served.stub.StreamCheck(iter([large, *small]), timeout=5)

        assert answer.frame_id == 1
        assert answer.reasons == b"".join(each.reasons for each in answers) * 100
        assert answer.reasons[:4] == bytes(
            [Reason.CONSENTED, Reason.REFUSED, Reason.INVALID_ADDRESS, Reason.NO_CONSENT]
        )

    def test_server_info(self, served: Served, front: str) -> None:
        """The server tells limits, keys, policy, and what brings calls to it."""
        info = wire.server_info_of(served.stub.GetServerInfo(v1.GetServerInfoRequest(), timeout=5))

        assert (info.address_key_id, info.store_key_id) == (ADDRESS_KEY.key_id, STORE_KEY.key_id)
        assert info.takes_addresses
        assert info.max_message_bytes == MAX_MESSAGE_BYTES
        assert info.fronts == tuple(FRONTS[: 1 + FRONTS.index(front)])

    @pytest.mark.parametrize("recipients", [3, 3_000])
    def test_frame(self, served: Served, recipients: int) -> None:
        """A frame as a call of its own gets the reply that a stream gives it, of addresses as of tokens."""
        asked = [CONSENTED, REFUSED, NOBODY, "?"] * recipients
        tokens = address.tokens(asked, Channel.MESAJ, ADDRESS_KEY)
        frames = [
            wire.frame(CONTEXT, addresses=asked, frame_id=5),
            wire.frame(CONTEXT, tokens=tokens, address_key_id=ADDRESS_KEY.key_id, frame_id=4),
            wire.frame(context(message_class=MessageClass.DELIVERY), addresses=asked, frame_id=3),
        ]

        alone = [served.stub.CheckFrame(frame, timeout=10) for frame in frames]
        streamed = list(served.stub.StreamCheck(iter(frames), timeout=10))

        for reply in (*alone, *streamed):
            reply.envelope.ClearField("decision_id")
            reply.envelope.ClearField("valid_until")
        assert alone == streamed
        assert alone[0].reasons[:4] == bytes(
            [Reason.CONSENTED, Reason.REFUSED, Reason.NO_CONSENT, Reason.INVALID_ADDRESS]
        )

    def test_largest_frame(self, served: Served) -> None:
        """A frame of 65,536 tokens is answered, one more is a frame error, and the stream goes on."""
        frames = [
            wire.frame(CONTEXT, tokens=np.zeros((size, 16), np.uint8), address_key_id=ADDRESS_KEY.key_id)
            for size in (65_536, 65_537, 1)
        ]

        replies = list(served.stub.StreamCheck(iter(frames), timeout=10))

        assert [len(reply.reasons) for reply in replies] == [65_536, 0, 1]
        assert replies[1].error.reason == "BATCH_TOO_LARGE"


class TestRefusals:
    """What cannot be answered is refused with a code, a reason and the field at fault."""

    @pytest.mark.parametrize(
        ("request_", "code", "reason", "fields"),
        [
            (v1.CheckRequest(), "INVALID_ARGUMENT", "INVALID_QUESTION", ["question.brand_code"]),
            (
                v1.CheckRequest(question=v1.Question(brand_code=1, channel=2)),  # type: ignore[arg-type] # a number
                "INVALID_ARGUMENT",
                "INVALID_QUESTION",
                ["question.recipient_type"],
            ),
            (
                wire.check_request(Question(context=CONTEXT, address="x"), client_reference="r" * 129),
                "INVALID_ARGUMENT",
                "INVALID_QUESTION",
                ["client_reference"],
            ),
            (
                wire.check_request(Question(context=CONTEXT, token=bytes(16), address_key_id=b"another.")),
                "FAILED_PRECONDITION",
                "ADDRESS_KEY_MISMATCH",
                [],
            ),
            (
                wire.check_request(Question(context=CONTEXT, address="x"), min_position=Position(bytes(16), 1)),
                "FAILED_PRECONDITION",
                "POSITION_OF_OTHER_LOG",
                [],
            ),
        ],
        ids=["empty", "no type", "reference", "key", "other log"],
    )
    def test_check(
        self,
        served: Served,
        request_: v1.CheckRequest,
        code: str,
        reason: str,
        fields: list[str],
    ) -> None:
        """A question with a fault gets the status of its error."""
        with pytest.raises(grpc.RpcError) as caught:
            served.stub.Check(request_, timeout=5)

        found = refusal(caught.value)

        assert (found[0].name, found[1].reason, found[2]) == (code, reason, fields)

    @pytest.mark.parametrize("method", ["Check", "BatchCheck", "GetServerInfo"])
    @pytest.mark.parametrize("data", [b"\xff", b"\x0a\x03\x32\x01\xff"], ids=["bytes", "UTF-8"])
    def test_malformed(self, served: Served, method: str, data: bytes) -> None:
        """Bytes that are no request are MALFORMED_REQUEST, bad UTF-8 among them."""
        if method == "GetServerInfo" and data != b"\xff":
            return  # it has no text in it
        with pytest.raises(grpc.RpcError) as caught:
            served.call(method, data)

        code, info, _ = refusal(caught.value)
        assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")

    def test_too_large(self, served: Served) -> None:
        """A message beyond the limit is refused before it is read."""
        with pytest.raises(grpc.RpcError) as caught:
            served.call("Check", bytes(MAX_MESSAGE_BYTES + 1))

        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    def test_too_many_questions(self, served: Served) -> None:
        """A batch beyond the limit is told the limit."""
        question = wire.check_request(QUESTIONS["token"][0]).question

        with pytest.raises(grpc.RpcError) as caught:
            served.stub.BatchCheck(v1.BatchCheckRequest(questions=[question] * 10_001), timeout=10)

        _, info, fields = refusal(caught.value)
        assert (info.reason, fields) == ("BATCH_TOO_LARGE", ["questions"])
        assert dict(info.metadata) == {"maximum": "10000", "actual": "10001"}

    @pytest.mark.parametrize("recipients", [1, 1000])
    def test_malformed_frame(self, served: Served, recipients: int) -> None:
        """Malformed bytes end a stream; a frame with a fault does not."""
        good = wire.frame(CONTEXT, addresses=[CONSENTED] * recipients, frame_id=1).SerializeToString()
        bad = wire.frame(context(), addresses=[], frame_id=2).SerializeToString()

        replies = served.stream(iter([good, bad, good, good + b"\x3a\x01\xff", good]))

        read = [v1.StreamCheckResponse.FromString(next(replies)) for _ in range(3)]
        assert [reply.error.reason for reply in read] == ["", "INVALID_QUESTION", ""]
        with pytest.raises(grpc.RpcError) as caught:
            next(replies)
        code, info, _ = refusal(caught.value)
        assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_FRAME")

    def test_foreign_exception(self, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        """A fault of ours is INTERNAL without its text; the log has type and place, not the text either."""

        def fail(*_: object, **__: object) -> None:
            raise ValueError(CONSENTED)

        for asks in ("check", "check_each"):
            monkeypatch.setattr(served.server.engine, asks, fail)

        with pytest.raises(grpc.RpcError) as caught:
            served.stub.Check(wire.check_request(QUESTIONS["consented"][0]), timeout=5)

        code, info, _ = refusal(caught.value)
        (line,) = served.events("call_failed")
        assert (code, info.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
        assert (line["error"], line["method"]) == ("ValueError", "Check")
        assert any(place.startswith("iyscheck/server/handlers.py") for place in line["at"])
        assert CONSENTED not in f"{caught.value.details()} {served.log.getvalue()}"

    def test_without_the_address_key(self, site: Site, front: str) -> None:
        """A server without the address key refuses plaintext and answers tokens."""
        with serve(site, front=front, address_key=None) as served:
            with pytest.raises(grpc.RpcError) as caught:
                served.stub.Check(wire.check_request(QUESTIONS["consented"][0]), timeout=5)
            (reply,) = served.stub.StreamCheck(iter([wire.frame(CONTEXT, addresses=[CONSENTED])]), timeout=5)
            answer = served.stub.Check(wire.check_request(QUESTIONS["token"][0]), timeout=5)

            code, info, _ = refusal(caught.value)
            assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ADDRESS_KEY_NOT_HELD")
            assert reply.error.reason == "ADDRESS_KEY_NOT_HELD"
            assert answer.permitted

    @pytest.mark.parametrize(
        ("frame", "code", "reason", "fields"),
        [
            (wire.frame(CONTEXT, addresses=[]), "INVALID_ARGUMENT", "INVALID_QUESTION", ["tokens"]),
            (
                wire.frame(CONTEXT, tokens=np.zeros((65_537, 16), np.uint8), address_key_id=ADDRESS_KEY.key_id),
                "INVALID_ARGUMENT",
                "BATCH_TOO_LARGE",
                ["tokens"],
            ),
            (
                wire.frame(CONTEXT, tokens=np.zeros((1, 16), np.uint8), address_key_id=b"another."),
                "FAILED_PRECONDITION",
                "ADDRESS_KEY_MISMATCH",
                [],
            ),
            (
                wire.frame(CONTEXT, addresses=["x"], min_position=Position(bytes(16), 1)),
                "FAILED_PRECONDITION",
                "POSITION_OF_OTHER_LOG",
                [],
            ),
        ],
        ids=["empty", "large", "key", "other log"],
    )
    def test_frame(
        self, served: Served, frame: v1.StreamCheckRequest, code: str, reason: str, fields: list[str]
    ) -> None:
        """What a stream tells as the error of a frame is the error of a call that is a frame."""
        with pytest.raises(grpc.RpcError) as caught:
            served.stub.CheckFrame(frame, timeout=10)
        (told,) = served.stub.StreamCheck(iter([frame]), timeout=10)

        found = refusal(caught.value)

        assert (found[0].name, found[1].reason, found[2]) == (code, reason, fields)
        assert told.error.reason == reason

    def test_mixed(self, served: Served) -> None:
        """A frame of several groups as a call gets the reply that a stream gives it; one that does not add up, none."""
        heads = [(wire.group_head(CONTEXT), 2), (wire.group_head(context(brand=9)), 1)]
        frame = wire.mixed_frame(heads, addresses=[CONSENTED, REFUSED, CONSENTED], frame_id=7)
        (streamed,) = served.stub.StreamCheck(iter([frame]), timeout=10)
        alone = served.stub.CheckFrame(frame, timeout=10)
        frame.groups[0].recipients = 3
        with pytest.raises(grpc.RpcError) as caught:
            served.stub.CheckFrame(frame, timeout=10)

        for reply in (alone, streamed):
            reply.envelope.ClearField("decision_id")
            reply.envelope.ClearField("valid_until")
            for group in reply.groups:
                group.result.ClearField("valid_until")
        assert alone == streamed
        assert alone.reasons == bytes([Reason.CONSENTED, Reason.REFUSED, Reason.BRAND_NOT_REGISTERED])
        assert refusal(caught.value)[1].reason == "INVALID_QUESTION"

    def test_no_frame(self, served: Served) -> None:
        """Bytes that are no frame are MALFORMED_FRAME."""
        with pytest.raises(grpc.RpcError) as caught:
            served.call("CheckFrame", b"\x3a\x01\xff")

        code, info, _ = refusal(caught.value)
        assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_FRAME")


class TestPositions:
    """An answer is from the asked position on, or there is none."""

    def test_reached(self, served: Served) -> None:
        """A position that is reached is answered."""
        position = served.server.engine.freshness().position
        request = wire.check_request(QUESTIONS["consented"][0], min_position=position)

        assert served.stub.Check(request, timeout=5).permitted

    def test_not_yet(self, served: Served) -> None:
        """A position that does not come is UNAVAILABLE within the deadline, with a delay for the retry."""
        here = served.server.engine.freshness().position
        request = wire.check_request(QUESTIONS["consented"][0], min_position=Position(here.log_id, here.sequence + 1))

        with pytest.raises(grpc.RpcError) as caught:
            served.stub.Check(request, timeout=0.5)

        code, info, _ = refusal(caught.value)
        assert (code, info.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_YET_AT_POSITION")

    def test_not_yet_once(self, site: Site) -> None:
        """A client that lets gRPC retry is told at once that the position is not there: we have waited already."""
        with serve(site, metrics_listen="127.0.0.1:0") as served:
            here = served.server.engine.freshness().position
            late = wire.check_request(QUESTIONS["consented"][0], min_position=Position(here.log_id, here.sequence + 1))
            policy = {"maxAttempts": 5, "initialBackoff": "0.01s", "maxBackoff": "0.01s", "backoffMultiplier": 1}
            policy["retryableStatusCodes"] = ["UNAVAILABLE"]
            config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
            options = [("grpc.service_config", config)]
            with (
                grpc.insecure_channel(served.server.address, options) as channel,
                pytest.raises(grpc.RpcError) as caught,
            ):
                ConsentCheckServiceStub(channel).Check(late, timeout=0.4)

            code, info, _ = refusal(caught.value)
            assert (code, info.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_YET_AT_POSITION")
            assert served.metric("grpc_server_started_total", grpc_method="Check") == 1

    def test_waiters(self, site: Site, front: str) -> None:
        """Calls that wait for a position leave workers for those that need not wait."""
        with serve(site, front=front, unary_workers=2, max_streams=1) as served:
            here = served.server.engine.freshness().position
            late = wire.check_request(QUESTIONS["consented"][0], min_position=Position(here.log_id, here.sequence + 1))
            waiting = [served.stub.Check.future(late, timeout=5) for _ in range(50)]

            codes = sorted(call.code().name for call in waiting)
            answer = served.stub.Check(wire.check_request(QUESTIONS["consented"][0]), timeout=5)

            assert codes == ["UNAVAILABLE"] * 50
            assert answer.permitted


def _held_open(frames: "queue.Queue[bytes | None]") -> Iterator[bytes]:
    while (frame := frames.get()) is not None:
        yield frame


class TestThreads:
    """Who answers single checks."""

    def test_few(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """Single checks are answered by the threads meant for them, however many more there are for streams."""
        threads: list[str] = []
        check = Engine.check

        def noted(engine: Engine, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - whatever it is called with
            threads.append(threading.current_thread().name)
            return check(engine, *args, **options)

        monkeypatch.setattr(Engine, "check", noted)
        with serve(site, unary_workers=2, max_streams=20) as served:
            data = wire.check_request(QUESTIONS["token"][0]).SerializeToString()
            for _ in range(30):
                served.call("Check", data)

        assert len(threads) == 30
        assert set(threads) <= {"check_0", "check_1"}

    def test_native(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """In the native front one thread answers single checks; others have the threads of unary calls."""
        threads: list[str] = []
        check_column = Engine.check_column

        def noted(engine: Engine, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - whatever it is called with
            threads.append(threading.current_thread().name)
            return check_column(engine, *args, **options)

        with serve(site, front="native", unary_workers=2) as served:
            monkeypatch.setattr(Engine, "check_column", noted)
            frame = wire.frame(CONTEXT, addresses=[CONSENTED])
            for _ in range(10):
                served.stub.CheckFrame(frame, timeout=10)

        assert len(threads) == 10
        assert set(threads) <= {"batch_0", "batch_1"}


class TestOverload:
    """More calls at once than the server can take."""

    def test_burst(self, served: Served) -> None:
        """Each call of a burst is answered or refused as too many, which its client knows to ask again."""
        check: Any = served.channel.unary_unary("/iyscheck.v1.ConsentCheckService/Check")
        data = wire.check_request(QUESTIONS["token"][0]).SerializeToString()
        ended = [call.exception() for call in [check.future(data, timeout=30) for _ in range(6_000)]]
        codes = {grpc.StatusCode.OK if error is None else error.code() for error in ended}

        assert grpc.StatusCode.OK in codes
        assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}


class TestStreams:
    """Streams hold threads, so their number is limited and checks have their own."""

    def test_idle_streams(self, site: Site) -> None:
        """As many idle streams as allowed starve no check, one more is OVERLOADED, and a freed place is used."""
        with serve(site, max_streams=3, unary_workers=1) as served:
            inputs: list[queue.Queue[bytes | None]] = [queue.Queue() for _ in range(3)]
            frame = wire.frame(CONTEXT, addresses=[CONSENTED]).SerializeToString()
            streams = [served.stream(_held_open(held)) for held in inputs]
            for held, stream in zip(inputs, streams, strict=True):
                held.put(frame)
                next(stream)

            with pytest.raises(grpc.RpcError) as caught:
                next(served.stream(iter([frame])))
            answer = served.stub.Check(wire.check_request(QUESTIONS["consented"][0]), timeout=5)
            inputs[0].put(None)
            list(streams[0])
            freed = list(served.stream(iter([frame])))
            for held, stream in zip(inputs[1:], streams[1:], strict=True):
                held.put(None)
                list(stream)

            code, info, _ = refusal(caught.value)
            assert (code, info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
            assert answer.permitted
            assert len(freed) == 1

    def test_cancelled_stream(self, site: Site) -> None:
        """A caller that goes away frees its place, and that is no failure of ours."""
        with serve(site, max_streams=1, metrics_listen="127.0.0.1:0") as served:
            frame = wire.frame(CONTEXT, addresses=[CONSENTED]).SerializeToString()
            for pause_s in (0, 0.02, 0.02, 0.02, 0.02):  # before and after the server waits for the next frame
                held: queue.Queue[bytes | None] = queue.Queue()
                stream = served.stream(_held_open(held))
                held.put(frame)
                next(stream)
                time.sleep(pause_s)
                stream.cancel()
                held.put(None)
                assert _eventually(lambda: _one_reply(served, frame))

            assert served.events("call_failed") == []
            assert served.metric("grpc_server_handled_total", grpc_code="Internal") == 0
            assert served.metric("grpc_server_handled_total", grpc_code="Canceled") > 0

    def test_reflection(self, site: Site) -> None:
        """Reflection lists the service, too many of its streams starve nothing, and those that end make room."""
        with serve(site, max_streams=1, unary_workers=1) as served:
            stub: Any = reflection_pb2_grpc.ServerReflectionStub(served.channel)
            ask = reflection_pb2.ServerReflectionRequest(list_services="*")
            over = threading.Event()

            def asking() -> Iterator[reflection_pb2.ServerReflectionRequest]:
                yield ask
                over.wait(10)

            open_stream = stub.ServerReflectionInfo(asking(), timeout=10)
            first = next(open_stream)  # it holds one of the two places from now on
            others = [stub.ServerReflectionInfo(asking(), timeout=10) for _ in range(11)]
            answered = [_answered(stream) for stream in others]
            answer = served.stub.Check(wire.check_request(QUESTIONS["consented"][0]), timeout=5)
            over.set()
            again = _eventually(lambda: _answered(stub.ServerReflectionInfo(iter([ask]), timeout=10)))

            names = [service.name for service in first.list_services_response.service]
            assert "iyscheck.v1.ConsentCheckService" in names
            assert answer.permitted
            assert sum(answered) == 1
            assert again


def _answered(stream: Iterator[reflection_pb2.ServerReflectionResponse]) -> bool:
    """Say whether a stream is answered, or refused since too many are open; any other end is raised."""
    try:
        next(stream)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        return False
    return True


def _one_reply(served: Served, frame: bytes) -> bool:
    try:
        return len(list(served.stream(iter([frame])))) == 1
    except grpc.RpcError:
        return False


def _eventually(holds: Any) -> bool:  # noqa: ANN401 - any question
    deadline = time.monotonic() + 5
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(held)
