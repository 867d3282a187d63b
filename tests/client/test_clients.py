import asyncio
import inspect
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import get_type_hints

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck import address as addresses
from iyscheck import client as client_package
from iyscheck.change import Position
from iyscheck.client import AsyncBatching, AsyncClient, Batching, Client, ColumnResult, FrameResult, columns
from iyscheck.client.admin import Admin, AsyncAdmin
from iyscheck.consent import Channel, Reason, RecipientType
from iyscheck.errors import (
    QuestionError,
    ServiceError,
    ServiceFailedError,
    ServiceRefusedError,
    ServiceUnavailableError,
    SettingsError,
)
from iyscheck.keys import AddressKey
from iyscheck.question import Answer, Context, ItemError, Question
from iyscheck.v1 import consent_check_pb2 as pb
from tests.client.conftest import Ask
from tests.client.fake_server import (
    KEY_ID,
    LOG,
    PERMITTED,
    Service,
    abort,
    envelope,
    frame_reply,
    serving,
    serving_later,
    verdict,
)

ADDRESS = "+905000000002"
CONTEXT = Context(brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)
GOING_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
"""What calls end with that reach a server which shuts down."""


def check(
    client: Client, address: str = ADDRESS, min_position: Position | None = None, timeout_s: float | None = None
) -> Answer:
    """Ask one question."""
    return client.check(
        brand=1,
        channel=Channel.MESAJ,
        recipient_type=RecipientType.BIREYSEL,
        address=address,
        min_position=min_position,
        timeout_s=timeout_s,
    )


def check_many(client: Client, texts: list[str]) -> list[Answer | ItemError]:
    """Ask a batch of questions."""
    return client.check_many(Question(context=CONTEXT, address=text) for text in texts)


def check_column(
    client: Client, texts: list[str], frame_size: int = 3, window: int = 4, timeout_s: float | None = None
) -> ColumnResult:
    """Ask about a column."""
    return client.check_column(
        brand=1,
        channel=Channel.MESAJ,
        recipient_type=RecipientType.BIREYSEL,
        recipients=iter(texts),
        frame_size=frame_size,
        window=window,
        timeout_s=timeout_s,
    )


def numbered(count: int) -> list[str]:
    """Addresses that get different answers."""
    return [f"+90500000{number:04}" for number in range(count)]


class TestShape:
    """The two clients are one, and neither shows gRPC or protobuf."""

    @staticmethod
    def _public(kind: type) -> dict[str, Callable[..., object]]:
        methods = inspect.getmembers(kind, inspect.isfunction)
        return {name: method for name, method in methods if not name.startswith("_") or name == "__init__"}

    def test_same_signatures(self) -> None:
        """Both have the same public methods with the same parameters, kinds, defaults and annotations."""
        sync, aio = self._public(Client), self._public(AsyncClient)

        assert sync.keys() == aio.keys()
        for name in sync:
            ours, theirs = (inspect.signature(methods[name]) for methods in (sync, aio))
            assert ours.parameters == theirs.parameters, name

    def test_same_signatures_for_operators(self) -> None:
        """The same of what whoever operates a server asks, and none of it names a type of gRPC or protobuf."""
        sync, aio = self._public(Admin), self._public(AsyncAdmin)

        assert sync.keys() == aio.keys()
        for name in sync.keys() - {"__init__"}:
            ours, theirs = (inspect.signature(methods[name]) for methods in (sync, aio))
            assert ours.parameters == theirs.parameters, name
            for method in (sync[name], aio[name]):
                hints = get_type_hints(method).values()
                assert not [hint for hint in hints if any(w in repr(hint) for w in ("grpc", "pb2", "protobuf"))]

    @pytest.mark.parametrize("kind", [Client, AsyncClient, Batching, AsyncBatching, ColumnResult, FrameResult])
    def test_no_transport_types(self, kind: type) -> None:
        """No annotation of the public surface names a type of gRPC or protobuf."""
        functions = [
            *self._public(kind).values(),
            *(p.fget for _, p in inspect.getmembers(kind) if type(p) is property),
        ]

        for function in functions:
            hints = get_type_hints(function)
            assert not [hint for hint in hints.values() if any(w in repr(hint) for w in ("grpc", "pb2", "protobuf"))]

    def test_exports(self) -> None:
        """The package exports the clients and what they give."""
        assert client_package.__all__ == [
            "AsyncBatching",
            "AsyncClient",
            "Batching",
            "Client",
            "ColumnResult",
            "FrameResult",
            "Tls",
        ]


class TestAnswers:
    """A right server's answers arrive as they are."""

    def test_check(self, service: Service, ask: Ask) -> None:
        """A single answer carries reason, permission and envelope."""
        yes, no = ask(service.target, check, lambda client: check(client, "+905000000003"))

        assert (yes.reason, yes.permitted) == (Reason.CONSENTED, True)
        assert (no.reason, no.permitted) == (Reason.NO_CONSENT, False)
        assert yes.envelope.position == Position(LOG, 7)

    def test_info(self, service: Service, ask: Ask) -> None:
        """The server's own description arrives."""
        (info,) = ask(service.target, lambda client: client.server_info())

        assert (info.server_version, info.max_frame_recipients) == ("0.1.0", 65_536)

    def test_endless_column(self, service: Service) -> None:
        """A column without end is answered frame by frame, read no further than the window."""
        taken = itertools.count()
        with Client(service.target, batch_timeout_s=2) as client:
            frames = client.stream_column(
                brand=1,
                channel=Channel.MESAJ,
                recipient_type=RecipientType.BIREYSEL,
                recipients=(str(next(taken)) for _ in itertools.count()),
                frame_size=10,
                window=2,
            )
            first = [next(frames) for _ in range(5)]
            frames.close()  # type: ignore[attr-defined] # it is a generator

        assert [frame.first for frame in first] == [0, 10, 20, 30, 40]
        assert all(frame.counts == {Reason.CONSENTED: 5, Reason.NO_CONSENT: 5} for frame in first)
        assert next(taken) <= 60

    def test_endless_column_async(self, service: Service) -> None:
        """The same for asyncio."""

        async def run() -> list[int]:
            async with AsyncClient(service.target, batch_timeout_s=2) as client:
                firsts = []
                async for frame in client.stream_column(
                    brand=1,
                    channel=Channel.MESAJ,
                    recipient_type=RecipientType.BIREYSEL,
                    recipients=(str(number) for number in itertools.count()),
                    frame_size=10,
                    window=2,
                ):
                    firsts.append(frame.first)
                    if len(firsts) == 5:
                        break
                return firsts

        assert asyncio.run(run()) == [0, 10, 20, 30, 40]


class TestSplitting:
    """Whatever the sizes and the server's limits, each recipient gets its own answer."""

    @given(
        count=st.integers(0, 120),
        batch=st.integers(1, 50),
        frame=st.integers(1, 50),
        max_bytes=st.sampled_from([700, 2_000, 8_388_608]),
        frame_size=st.integers(1, 60),
        window=st.integers(1, 4),
    )
    @settings(max_examples=25, deadline=None)
    def test_sizes(self, *, count: int, batch: int, frame: int, max_bytes: int, frame_size: int, window: int) -> None:
        """Batches and columns of any size keep within the limits and lose, double or swap no answer."""
        texts = numbered(count)
        expected = [verdict(text) for text in texts]

        with serving() as service:
            service.limits.max_batch_questions = batch
            service.limits.max_frame_recipients = frame
            service.limits.max_message_bytes = max_bytes
            with Client(service.target, batch_timeout_s=5) as client:
                many = check_many(client, texts)
                column = check_column(client, texts, frame_size, window)

        assert [item.reason for item in many] == expected
        assert column.reasons.tolist() == expected
        for request in service.requests:
            assert request.ByteSize() <= max_bytes
            if isinstance(request, pb.BatchCheckRequest):
                assert 1 <= len(request.questions) <= batch
            elif isinstance(request, pb.StreamCheckRequest):
                assert 1 <= len(request.addresses) <= min(frame, frame_size)

    def test_async(self, service: Service, ask: Ask) -> None:
        """Both clients split alike."""
        service.limits.max_batch_questions = service.limits.max_frame_recipients = 7
        texts = numbered(50)

        (many,) = ask(service.target, lambda client: check_many(client, texts))
        (column,) = ask(service.target, lambda client: check_column(client, texts, 100))

        assert [item.reason for item in many] == column.reasons.tolist() == [verdict(text) for text in texts]

    def test_bad_question(self, service: Service, ask: Ask) -> None:
        """A question that cannot be asked becomes an error at its own place."""
        questions = [
            Question(context=CONTEXT, address=ADDRESS),
            Question(context=CONTEXT),
            Question(context=CONTEXT, token=bytes(3), address_key_id=KEY_ID),
            Question(context=CONTEXT, address="+905000000003"),
        ]

        mixed, none = ask(
            service.target,
            lambda client: client.check_many(questions),
            lambda client: client.check_many(questions[1:3]),
        )

        assert [item.field if isinstance(item, ItemError) else item.permitted for item in mixed] == [
            True,
            "address",
            "token",
            False,
        ]
        assert [item.reason for item in none] == ["INVALID_QUESTION"] * 2

    def test_limits_changed(self, service: Service) -> None:
        """After the server says that a batch is too large, the client learns its limits anew."""
        with Client(service.target, batch_timeout_s=2) as client:
            check_many(client, numbered(4))
            service.limits.max_batch_questions = 2
            with pytest.raises(ServiceRefusedError) as refused:
                check_many(client, numbered(4))
            answers = check_many(client, numbered(4))

        assert refused.value.code == "BATCH_TOO_LARGE"
        assert len(answers) == 4


class TestSecrecy:
    """With an address key no plaintext leaves the process; without one, no more of it than needed."""

    def test_tokens_only(self, service: Service, ask: Ask) -> None:
        """Single questions, batches and columns go out as the tokens of the key."""
        key = AddressKey(bytes(range(32)))
        token = addresses.token(ADDRESS, Channel.MESAJ, key)

        ask(service.target, check, address_key=key)
        ask(service.target, lambda client: check_many(client, [ADDRESS]), address_key=key)
        ask(service.target, lambda client: check_column(client, [ADDRESS]), address_key=key)

        single, batch, frame = service.requests
        assert isinstance(single, pb.CheckRequest)
        assert isinstance(batch, pb.BatchCheckRequest)
        assert isinstance(frame, pb.StreamCheckRequest)
        assert single.question.token == batch.questions[0].token == frame.tokens == token
        assert single.question.address_key_id == frame.address_key_id == key.key_id
        assert not any(b"5000000002" in request.SerializeToString() for request in service.requests)

    def test_unreadable(self, service: Service, ask: Ask) -> None:
        """An unreadable address becomes the token of no address, which the server denies."""
        key = AddressKey(bytes(range(32)))

        (column,) = ask(
            service.target, lambda client: check_column(client, [ADDRESS, "nobody", "\ud800"]), address_key=key
        )

        assert column.reasons.tolist() == [PERMITTED, Reason.INVALID_ADDRESS, Reason.INVALID_ADDRESS]

    def test_unsendable_text(self, service: Service, ask: Ask) -> None:
        """Texts that no address can be, or far too long, neither break a message nor travel."""
        texts = ["\ud800", "٣" * 10, "x" * 100_000, ADDRESS[:5] + " " * 100_000 + ADDRESS[5:]]

        (column,) = ask(service.target, lambda client: check_column(client, texts, frame_size=9))

        (frame,) = service.requests
        assert isinstance(frame, pb.StreamCheckRequest)
        assert list(frame.addresses) == ["", "", "", ADDRESS]
        assert len(column.reasons) == 4

    def test_token_columns(self, service: Service, ask: Ask) -> None:
        """A column of tokens goes out as it is, with the id of the key that made it."""
        tokens = np.arange(48, dtype=np.uint8).reshape(3, 16)

        (column,) = ask(
            service.target,
            lambda client: client.check_column(
                brand=1,
                channel=Channel.MESAJ,
                recipient_type=RecipientType.BIREYSEL,
                recipients=tokens,
                address_key_id=KEY_ID,
            ),
        )

        (frame,) = service.requests
        assert isinstance(frame, pb.StreamCheckRequest)
        assert (frame.tokens, frame.address_key_id) == (tokens.tobytes(), KEY_ID)
        assert column.permitted.all()

    def test_tokens_without_id(self, service: Service, ask: Ask) -> None:
        """Tokens without the id of their key are refused before anything is sent."""
        with pytest.raises(QuestionError, match="address_key_id"):
            ask(
                service.target,
                lambda client: client.check(
                    brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, token=bytes(16)
                ),
            )

        assert service.requests == []


class TestDistrust:
    """What a server must not send never becomes a permission."""

    def reply(self, service: Service, ask: Ask, reply: pb.CheckResponse) -> Answer:
        """Ask a question that is answered so."""
        service.reply = lambda *_: reply
        return ask(service.target, check)[0]

    @pytest.mark.parametrize("number", [0, 4, 20, 63, 75, 1000, -1])
    def test_unknown_reason(self, service: Service, ask: Ask, number: int) -> None:
        """A reason number that is not known denies, whatever the server says beside it."""
        reply = pb.CheckResponse(reason=number, permitted=True, envelope=envelope())  # type: ignore[arg-type] # a number

        answer = self.reply(service, ask, reply)

        assert (answer.reason, answer.permitted) == (Reason.UNSPECIFIED, False)

    def test_contradiction(self, service: Service, ask: Ask) -> None:
        """A permitting reason without the permission denies."""
        answer = self.reply(service, ask, pb.CheckResponse(reason=pb.REASON_CONSENTED, envelope=envelope()))

        assert not answer.permitted

    @pytest.mark.parametrize("field", ["as_of", "valid_until"])
    def test_time_that_cannot_be(self, service: Service, ask: Ask, field: str) -> None:
        """An answer with a time that nobody could write is no answer."""
        told = envelope()
        getattr(told, field).seconds = 253_402_300_800
        with pytest.raises(ServiceFailedError, match="cannot be"):
            self.reply(service, ask, pb.CheckResponse(reason=1, permitted=True, envelope=told))  # type: ignore[arg-type] # a number

    def test_no_message(self, ask: Ask) -> None:
        """Bytes that are no message are an error of ours, and it says what to do."""

        def answer(_: bytes, __: grpc.ServicerContext) -> bytes:
            return b"\xff\xff\xff"

        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Check": grpc.unary_unary_rpc_method_handler(answer)
        }
        server = grpc.server(ThreadPoolExecutor(1))
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("iyscheck.v1.ConsentCheckService", handlers),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with pytest.raises(ServiceFailedError, match="understood") as told:
                ask(f"127.0.0.1:{port}", lambda client: check(client, "2"))
        finally:
            server.stop(0).wait()

        assert told.value.fix

    def test_empty_reply(self, service: Service, ask: Ask) -> None:
        """An empty reply is an error."""
        with pytest.raises(ServiceFailedError):
            self.reply(service, ask, pb.CheckResponse())

    @pytest.mark.parametrize("reasons", [b"", b"\x01", b"\x01\x01\x01"])
    def test_wrong_column(self, service: Service, ask: Ask, reasons: bytes) -> None:
        """A frame with more or fewer reasons than recipients is an error."""
        service.frames = lambda requests, _: (
            pb.StreamCheckResponse(frame_id=r.frame_id, reasons=reasons, envelope=envelope()) for r in requests
        )

        with pytest.raises(ServiceFailedError):
            ask(service.target, lambda client: check_column(client, numbered(2)))

    def test_wrong_frame(self, service: Service, ask: Ask) -> None:
        """A reply with another frame's id is an error."""

        def swapped(
            requests: Iterator[pb.StreamCheckRequest], _: grpc.ServicerContext
        ) -> Iterator[pb.StreamCheckResponse]:
            first, second = next(requests), next(requests)
            yield frame_reply(second)
            yield frame_reply(first)

        service.frames = swapped

        with pytest.raises(ServiceFailedError, match="turn"):
            ask(service.target, lambda client: check_column(client, numbered(6)))

    def test_unknown_reason_in_column(self, service: Service, ask: Ask) -> None:
        """Reason numbers that are not known deny in a column too."""
        service.frames = lambda requests, _: (
            pb.StreamCheckResponse(frame_id=r.frame_id, reasons=bytes([1, 20, 255]), envelope=envelope())
            for r in requests
        )

        (column,) = ask(service.target, lambda client: check_column(client, numbered(3)))

        assert column.permitted.tolist() == [True, False, False]
        assert column.counts == {Reason.CONSENTED: 1, Reason.UNSPECIFIED: 2}

    def test_ended_stream(self, service: Service, ask: Ask) -> None:
        """A stream that ends well without its answers is an error."""
        service.frames = lambda *_: iter(())

        with pytest.raises(ServiceUnavailableError) as ended:
            ask(service.target, lambda client: check_column(client, numbered(30)))

        assert ended.value.code == "STREAM_ENDED"


class TestPositions:
    """Nothing older than asked for, or than seen, is accepted."""

    def test_monotonic(self, service: Service, ask: Ask) -> None:
        """Each question carries the last position seen, columns among them."""
        sequences = itertools.count(10)

        def reply(*_: object) -> pb.CheckResponse:
            return pb.CheckResponse(reason=pb.REASON_CONSENTED, permitted=True, envelope=envelope(next(sequences)))

        def frames(requests: Iterator[pb.StreamCheckRequest], _: object) -> Iterator[pb.StreamCheckResponse]:
            for request in requests:
                service.requests.append(request)
                made = envelope(next(sequences))
                yield pb.StreamCheckResponse(frame_id=request.frame_id, reasons=b"\1", envelope=made)

        service.reply, service.frames = reply, frames
        column = lambda client: check_column(client, [ADDRESS])  # noqa: E731 - short

        ask(service.target, check, check, column, check, monotonic=True)

        assert [request.min_position.sequence for request in service.requests] == [0, 10, 11, 12]

    def test_explicit(self, service: Service, ask: Ask) -> None:
        """A given position is asked for, and an answer from before it is an error."""
        ask(service.target, lambda client: check(client, min_position=Position(LOG, 7)))
        for position in (Position(LOG, 8), Position(b"M" * 16, 1)):
            with pytest.raises(ServiceFailedError) as back:
                ask(service.target, lambda client, asked=position: check(client, min_position=asked))  # type: ignore[misc] # bound now

            assert back.value.code == "POSITION_WENT_BACK"

        assert [request.min_position.sequence for request in service.requests] == [7, 8, 1]


class TestFailures:
    """A call that failed says how, in our words, and never which address."""

    @pytest.mark.parametrize(
        ("code", "reason", "kind"),
        [
            (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_QUESTION", ServiceRefusedError),
            (grpc.StatusCode.FAILED_PRECONDITION, "ADDRESS_KEY_NOT_HELD", ServiceRefusedError),
            (grpc.StatusCode.FAILED_PRECONDITION, "POSITION_OF_OTHER_LOG", ServiceRefusedError),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", ServiceUnavailableError),
            (grpc.StatusCode.UNAVAILABLE, "NOT_YET_AT_POSITION", ServiceUnavailableError),
            (grpc.StatusCode.DATA_LOSS, "STORE_CORRUPT", ServiceFailedError),
            (grpc.StatusCode.INTERNAL, "INTERNAL", ServiceFailedError),
        ],
    )
    def test_explained(
        self, service: Service, ask: Ask, code: grpc.StatusCode, reason: str, kind: type[ServiceError]
    ) -> None:
        """An error of an iyscheck server keeps its code, field and text."""
        service.reply = lambda _, context: abort(context, code, reason, "brand_code")

        with pytest.raises(kind) as failed:
            ask(service.target, check)

        assert (failed.value.code, failed.value.field) == (reason, "brand_code")
        assert failed.value.message == f"{reason} it is."

    @pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
    def test_unexplained(self, service: Service, ask: Ask, code: grpc.StatusCode) -> None:
        """What anybody else says is not repeated."""
        service.reply = lambda request, context: context.abort(code, f"cannot serve {request.question.address}")

        with pytest.raises(ServiceError) as failed:
            ask(service.target, check)

        assert failed.value.code == code.name
        assert "5000000002" not in str(failed.value)

    @pytest.mark.parametrize(
        ("reason", "kind"),
        [
            ("NOT_YET_AT_POSITION", ServiceUnavailableError),
            ("ADDRESS_KEY_MISMATCH", ServiceRefusedError),
            ("STORE_CORRUPT", ServiceFailedError),
            ("A_NEW_REASON", ServiceRefusedError),
        ],
    )
    def test_frame(self, service: Service, ask: Ask, reason: str, kind: type[ServiceError]) -> None:
        """A frame error ends the column with the frame's code and field."""
        error = pb.ItemError(reason=reason, field="tokens", message="No.")
        service.frames = lambda requests, _: (
            pb.StreamCheckResponse(frame_id=request.frame_id, error=error) for request in requests
        )

        with pytest.raises(kind) as failed:
            ask(service.target, lambda client: check_column(client, numbered(2)))

        assert (failed.value.code, failed.value.field) == (reason, "tokens")

    def test_late_server(self, ask: Ask) -> None:
        """Who comes before the server, or while it is being replaced, is answered when it is there."""
        with serving_later(0.6) as target:
            assert ask(target, lambda client: check(client, timeout_s=10))

    @pytest.mark.parametrize("timeout_s", [0.45, 0.7, 30])
    def test_nobody_in_time(self, ask: Ask, timeout_s: float) -> None:
        """Whatever the deadline, where nobody listens the error says so; nobody waits for long for that."""
        began = time.monotonic()
        with pytest.raises(ServiceUnavailableError) as failed:
            ask("127.0.0.1:1", lambda client: check(client, timeout_s=timeout_s))

        assert failed.value.code == "UNAVAILABLE"
        assert time.monotonic() - began < 20

    def test_silent_server(self, ask: Ask) -> None:
        """The first column of a client ends by its own deadline, though the server's limits are not known yet."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            began = time.monotonic()
            with pytest.raises(ServiceUnavailableError) as failed:
                ask(
                    f"127.0.0.1:{silent.getsockname()[1]}",
                    lambda client: check_column(client, [ADDRESS], timeout_s=0.3),
                    batch_timeout_s=60,
                )

        assert failed.value.code == "DEADLINE_EXCEEDED"
        assert time.monotonic() - began < 30

    def test_no_target(self, ask: Ask) -> None:
        """A server without a name is a mistake of its own."""
        with pytest.raises(SettingsError, match="Name the server"):
            ask(" ", check)

    def test_nobody(self, ask: Ask) -> None:
        """Where nobody listens, single questions and columns end alike."""
        for call in (check, lambda client: check_column(client, [ADDRESS])):
            with pytest.raises(ServiceUnavailableError) as failed:
                ask("127.0.0.1:1", call)

            assert failed.value.code == "UNAVAILABLE"

    def test_slow(self, service: Service) -> None:
        """A reply that does not come in time is an error, for questions and for frames."""
        service.delay_s = 0.5

        with Client(service.target, timeout_s=0.05, batch_timeout_s=0.1) as client:
            client.server_info(timeout_s=5)
            for call in (check, lambda client: check_column(client, [ADDRESS])):
                with pytest.raises(ServiceUnavailableError) as failed:
                    call(client)

                assert failed.value.code == "DEADLINE_EXCEEDED"

    def test_slow_async(self, service: Service) -> None:
        """The same for asyncio."""
        service.delay_s = 0.5

        async def run() -> None:
            async with AsyncClient(service.target, batch_timeout_s=0.1) as client:
                await client.server_info(timeout_s=5)
                await client.check_column(
                    brand=1,
                    channel=Channel.MESAJ,
                    recipient_type=RecipientType.BIREYSEL,
                    recipients=[ADDRESS],
                )

        with pytest.raises(ServiceUnavailableError) as failed:
            asyncio.run(run())

        assert failed.value.code == "DEADLINE_EXCEEDED"

    @pytest.mark.parametrize(
        ("brand", "retailer", "field"), [(0, None, "brand"), (2**32, None, "brand"), (1, 0, "retailer")]
    )
    def test_wrong_numbers(self, service: Service, ask: Ask, brand: int, retailer: int | None, field: str) -> None:
        """Numbers that cannot be right are refused before anything is sent."""
        with pytest.raises(QuestionError) as wrong:
            ask(
                service.target,
                lambda client: client.check(
                    brand=brand,
                    channel=Channel.MESAJ,
                    recipient_type=RecipientType.BIREYSEL,
                    address=ADDRESS,
                    retailer=retailer,
                ),
            )

        assert wrong.value.field == field
        assert service.requests == []


class TestRetries:
    """Where a retry helps there is one, and an answer is neither missing nor doubled."""

    @pytest.mark.parametrize("code", GOING_AWAY)
    def test_unary(self, service: Service, ask: Ask, code: grpc.StatusCode) -> None:
        """A single question is asked again when the server is unavailable for a moment, or shuts down."""
        failures = iter([True, True, False])

        def flaky(_: pb.CheckRequest, context: grpc.ServicerContext) -> pb.CheckResponse:
            if next(failures):
                context.abort(code, "not now")
            return pb.CheckResponse(reason=pb.REASON_CONSENTED, permitted=True, envelope=envelope())

        service.reply = flaky

        (answer,) = ask(service.target, check)

        assert answer.permitted
        assert len(service.requests) == 3

    def test_many_at_once(self, service: Service) -> None:
        """All calls of a connection that fail at once are asked again, not only the first few."""
        many, lock, seen = 60, threading.Lock(), 0

        def flaky(_: pb.CheckRequest, context: grpc.ServicerContext) -> pb.CheckResponse:
            nonlocal seen
            with lock:
                seen += 1
                failing = seen <= many
            if failing:
                context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
            return pb.CheckResponse(reason=pb.REASON_CONSENTED, permitted=True, envelope=envelope())

        service.reply = flaky

        with Client(service.target, timeout_s=20) as client, ThreadPoolExecutor(many) as threads:
            answers = list(threads.map(lambda _: check(client), range(many)))

        assert all(answer.permitted for answer in answers)

    def test_not_other_codes(self, service: Service, ask: Ask) -> None:
        """Any other failure is not tried again."""
        service.reply = lambda _, context: context.abort(grpc.StatusCode.INTERNAL, "broken")

        with pytest.raises(ServiceFailedError):
            ask(service.target, check)

        assert len(service.requests) == 1

    @pytest.mark.parametrize("answered", [0, 1, 2, 3])
    @pytest.mark.parametrize("code", GOING_AWAY)
    def test_broken_stream(self, service: Service, ask: Ask, answered: int, code: grpc.StatusCode) -> None:
        """What a broken stream left unanswered is asked on the next, and nothing else."""

        def breaking(
            requests: Iterator[pb.StreamCheckRequest], context: grpc.ServicerContext
        ) -> Iterator[pb.StreamCheckResponse]:
            broken = service.streams == 1
            for place, request in enumerate(requests):
                if broken and place == answered:
                    context.abort(code, "going away")
                service.requests.append(request)
                yield frame_reply(request)

        service.frames = breaking
        texts = numbered(31)

        (column,) = ask(service.target, lambda client: check_column(client, texts))

        assert column.reasons.tolist() == [verdict(text) for text in texts]
        assert service.streams == 2
        frames = [request.frame_id for request in service.requests if isinstance(request, pb.StreamCheckRequest)]
        assert sorted(set(frames)) == list(range(1, 12))

    def test_gives_up(self, service: Service, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
        """A server whose streams always break is given up after ten."""
        monkeypatch.setattr(columns, "LAST_BACKOFF_S", 0.01)
        service.frames = lambda _, context: context.abort(grpc.StatusCode.UNAVAILABLE, "going away")

        with pytest.raises(ServiceUnavailableError):
            ask(service.target, lambda client: check_column(client, numbered(31)))

        assert service.streams == 10
