import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, text_format
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck import consent, wire
from iyscheck.change import LogStanding, Position
from iyscheck.consent import PERMITTING, Channel, LegacyDeadline, MessageClass, Policy, Reason, RecipientType, Status
from iyscheck.errors import BatchTooLargeError, MalformedError, MalformedFrameError, QuestionError, ServiceFailedError
from iyscheck.question import (
    MAX_BATCH_QUESTIONS,
    MAX_CLIENT_REFERENCE_BYTES,
    MAX_FRAME_RECIPIENTS,
    MAX_RETAILER_CODE,
    Answer,
    BatchAnswer,
    ColumnAnswer,
    Context,
    Envelope,
    Evidence,
    ItemError,
    Question,
    ServerInfo,
)
from iyscheck.v1 import consent_check_pb2 as v1
from tests.dice import often
from tests.strategies import any_text

GOLDEN = Path(__file__).parents[1] / "golden" / "consent_check.descriptor.txt"
KEY_ID = b"8 bytes."
LOG_ID = b"sixteen bytes..."
CONTEXT = Context(brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)

positions = st.builds(Position, st.binary(min_size=16, max_size=16), st.integers(0, 2**63))
contexts = st.builds(
    Context,
    brand=st.integers(1, 2**32 - 1),
    channel=st.sampled_from(Channel),
    recipient_type=st.sampled_from(RecipientType),
    message_class=st.sampled_from(MessageClass),
    retailer=st.none() | st.integers(1, MAX_RETAILER_CODE),
)
encodable = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
questions = st.builds(Question, context=contexts, address=encodable) | st.builds(
    Question,
    context=contexts,
    token=st.binary(min_size=16, max_size=16),
    address_key_id=st.binary(min_size=8, max_size=8),
)
seconds = st.integers(0, 2**33)
envelopes = st.builds(
    Envelope,
    position=positions,
    as_of=st.none() | seconds,
    valid_until=seconds.map(float),
    decision_id=encodable,
    policy_id=encodable,
)
evidences = st.builds(
    Evidence,
    status=st.sampled_from(Status),
    source=encodable,
    consent_time=encodable,
    registration_time=encodable,
    transaction_id=encodable,
)
answers = st.builds(
    Answer,
    reason=st.sampled_from(Reason),
    message_class=st.sampled_from(MessageClass),
    evidence=st.none() | evidences,
    envelope=envelopes,
)
item_errors = st.builds(ItemError, reason=encodable, field=encodable, message=encodable)


def a_question(**fields: Any) -> v1.Question:  # noqa: ANN401 - fields of a generated message
    """Make a question message that is right but for the fields given."""
    right: dict[str, Any] = {"brand_code": 1, "channel": 2, "recipient_type": 1, "address": "x"}
    return v1.Question(**right | fields)


def a_frame(**fields: Any) -> v1.StreamCheckRequest:  # noqa: ANN401 - fields of a generated message
    """Make a frame message that is right but for the fields given."""
    right: dict[str, Any] = {"brand_code": 1, "channel": 2, "recipient_type": 1}
    return v1.StreamCheckRequest(**right | fields)


class TestNumbers:
    """The numbers on the wire are the numbers in Python and on disk."""

    @pytest.mark.parametrize(
        ("ours", "theirs", "prefix", "zero"),
        [
            (consent.Channel, v1.Channel, "CHANNEL_", "UNSPECIFIED"),
            (consent.RecipientType, v1.RecipientType, "RECIPIENT_TYPE_", "UNSPECIFIED"),
            (consent.MessageClass, v1.MessageClass, "MESSAGE_CLASS_", "UNSPECIFIED"),
            (consent.Reason, v1.Reason, "REASON_", "UNSPECIFIED"),
            (consent.Status, v1.ConsentStatus, "CONSENT_STATUS_", "UNSPECIFIED"),
            (consent.LegacyDeadline, v1.LegacyDeadline, "LEGACY_DEADLINE_", "UNSPECIFIED"),
        ],
    )
    def test_enums(self, ours: Any, theirs: EnumTypeWrapper, prefix: str, zero: str) -> None:  # noqa: ANN401 - any enum
        """Each enum has the same names and numbers on both sides; the wire's zero is UNSPECIFIED."""
        expected = {prefix + member.name: member.value for member in ours if member.value} | {prefix + zero: 0}

        assert dict(theirs.items()) == expected

    def test_descriptor(self) -> None:
        """The contract's messages, field numbers and types are the recorded ones; a change must be on purpose."""
        proto = descriptor_pb2.FileDescriptorProto()
        v1.DESCRIPTOR.CopyToProto(proto)

        assert text_format.MessageToString(proto) == GOLDEN.read_text()


class TestRoundTrips:
    """What one side writes the other side reads as the same."""

    @given(questions, st.none() | positions, st.text("aé", max_size=64))
    @settings(max_examples=often(100), deadline=None)
    def test_check_request(self, question: Question, position: Position | None, reference: str) -> None:
        """A question survives the wire with its position and reference."""
        sent = wire.check_request(question, min_position=position, client_reference=reference)

        read = wire.parse(v1.CheckRequest, sent.SerializeToString())

        assert wire.question_of(read.question) == question
        assert wire.min_position_of(read) == position
        assert wire.client_reference_of(read) == reference

    @given(st.lists(questions, min_size=1, max_size=5), st.none() | positions)
    @settings(max_examples=50, deadline=None)
    def test_batch_request(self, asked: list[Question], position: Position | None) -> None:
        """A batch survives the wire in order."""
        sent = wire.batch_request(asked, min_position=position, client_reference="r")

        read = wire.parse(v1.BatchCheckRequest, sent.SerializeToString())

        assert wire.questions_of(read.questions) == asked
        assert (wire.min_position_of(read), wire.client_reference_of(read)) == (position, "r")

    @given(contexts, st.lists(encodable, min_size=1, max_size=5), st.none() | positions, st.integers(0, 2**64 - 1))
    @settings(max_examples=often(100), deadline=None)
    def test_frame_of_addresses(
        self, context: Context, addresses: list[str], position: Position | None, frame_id: int
    ) -> None:
        """A frame of addresses survives the wire."""
        sent = wire.frame(context, addresses=addresses, frame_id=frame_id, min_position=position)

        read = wire.frame_of(wire.parse(v1.StreamCheckRequest, sent.SerializeToString()))

        assert (read.context, read.addresses, read.tokens) == (context, addresses, None)
        assert (read.frame_id, read.min_position, len(read)) == (frame_id, position, len(addresses))

    @given(contexts, st.integers(1, 9))
    @settings(max_examples=50, deadline=None)
    def test_frame_of_tokens(self, context: Context, recipients: int) -> None:
        """A frame of tokens survives the wire."""
        tokens = np.arange(recipients * 16, dtype=np.uint8).reshape(-1, 16)

        read = wire.frame_of(wire.frame(context, tokens=tokens, address_key_id=KEY_ID))

        assert read.tokens is not None
        assert np.array_equal(read.tokens, tokens)
        assert (read.context, read.address_key_id, read.addresses) == (context, KEY_ID, None)
        assert len(read) == recipients

    @given(answers)
    @settings(max_examples=often(100), deadline=None)
    def test_answer(self, answer: Answer) -> None:
        """An answer survives the wire."""
        assert wire.answer_of(wire.check_response(answer, "r")) == answer

    @given(st.lists(answers | item_errors, max_size=5), envelopes)
    @settings(max_examples=often(100), deadline=None)
    def test_batch_answer(self, items: list[Answer | ItemError], envelope: Envelope) -> None:
        """The answers of a batch survive the wire in order; ids and position are those of the batch."""
        read = wire.batch_answer_of(wire.batch_response(BatchAnswer(items=items, envelope=envelope)), len(items))

        assert read.envelope == envelope
        for item, sent in zip(read.items, items, strict=True):
            if isinstance(sent, ItemError):
                assert item == sent
                continue
            assert isinstance(item, Answer)
            assert (item.reason, item.evidence, item.message_class) == (sent.reason, sent.evidence, sent.message_class)
            assert item.envelope.as_of == sent.envelope.as_of
            assert item.envelope.position == envelope.position

    @given(st.lists(st.integers(0, 255), max_size=50), envelopes)
    @settings(max_examples=often(100), deadline=None)
    def test_column_answer(self, numbers: list[int], envelope: Envelope) -> None:
        """A column survives the wire byte for byte, and its counts add up."""
        sent = wire.frame_response(7, ColumnAnswer.of(reasons=np.array(numbers, np.uint8), envelope=envelope))

        read = wire.column_answer_of(sent, len(numbers))

        assert isinstance(read, ColumnAnswer)
        assert (read.reasons.tolist(), read.envelope, sent.frame_id) == (numbers, envelope, 7)
        assert {count.reason: count.recipients for count in sent.counts} == {n: numbers.count(n) for n in numbers}

    @pytest.mark.parametrize("deadline", LegacyDeadline)
    @pytest.mark.parametrize(
        "standing",
        [
            None,
            LogStanding(role="primary", term=3, batch=2**40, lag_s=None, untrusted=False),
            LogStanding(role="replica", term=1, batch=0, lag_s=0.25, untrusted=True),
        ],
    )
    def test_server_info(self, deadline: LegacyDeadline, standing: LogStanding | None) -> None:
        """What a server tells of itself survives the wire."""
        info = ServerInfo(
            kernel="numpy",
            server_version="1",
            address_form=1,
            rule_version=2,
            store_format=3,
            address_key_id=KEY_ID,
            store_key_id=KEY_ID[::-1],
            takes_addresses=True,
            max_batch_questions=4,
            max_frame_recipients=5,
            max_frame_groups=12,
            max_message_bytes=6,
            max_client_reference_bytes=7,
            position=Position(LOG_ID, 8),
            newest_watermark=10,
            oldest_watermark=None,
            policy=Policy(merchants_need_record=True, legacy_deadline=deadline, freshness_limit_s=9),
            answer_ttl_s=11,
            fronts=("grpc", "native"),
            standing=standing,
        )

        assert wire.server_info_of(wire.server_info_response(info)) == info

    @given(st.floats(0, 2**33))
    @settings(max_examples=often(100), deadline=None)
    def test_valid_until(self, valid_until: float) -> None:
        """A fraction of a second survives to the microsecond and never grows."""
        envelope = Envelope(
            position=Position(LOG_ID, 0), as_of=None, valid_until=valid_until, decision_id="", policy_id=""
        )

        read = wire.column_answer_of(
            wire.frame_response(0, ColumnAnswer.of(reasons=np.zeros(0, np.uint8), envelope=envelope)), 0
        )

        assert isinstance(read, ColumnAnswer)
        assert math.isclose(read.envelope.valid_until, valid_until, rel_tol=0, abs_tol=1e-6)

    @given(any_text)
    @settings(max_examples=often(100), deadline=None)
    def test_any_text(self, address: str) -> None:
        """Any text can be sent as an address, also one that UTF-8 cannot hold; ASCII arrives unchanged."""
        one = wire.check_request(Question(context=CONTEXT, address=address)).question.address
        many = wire.frame(CONTEXT, addresses=[address, "+905321234567"]).addresses

        assert many == [one, "+905321234567"]
        assert one.isascii() == address.isascii()
        assert one == address or not address.isascii()


class TestStrictRequests:
    """A request that cannot be answered raises an error that names the field."""

    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({"brand_code": 0}, "brand_code"),
            ({"channel": 0}, "channel"),
            ({"channel": 9}, "channel"),
            ({"recipient_type": 0}, "recipient_type"),
            ({"recipient_type": 3}, "recipient_type"),
            ({"retailer_code": MAX_RETAILER_CODE + 1}, "retailer_code"),
            ({"retailer_code": 0}, "retailer_code"),
            ({"retailer_code": 0, "message_class": v1.MESSAGE_CLASS_SECURITY_CODE}, "retailer_code"),
            ({"address": None}, "recipient"),
            ({"address": None, "token": b"15 bytes only.."}, "token"),
            ({"address": None, "token": LOG_ID}, "address_key_id"),
            ({"address": None, "token": LOG_ID, "address_key_id": b"7 bytes"}, "address_key_id"),
        ],
    )
    def test_question(self, fields: dict[str, Any], named: str) -> None:
        """A question that lacks something or has a number that is unknown is refused by field."""
        message = a_question(**fields)

        with pytest.raises(QuestionError) as caught:
            wire.question_of(message, "question.")

        assert caught.value.field == f"question.{named}"
        (item,) = wire.questions_of([message])
        assert isinstance(item, ItemError)
        assert (item.reason, item.field) == ("INVALID_QUESTION", named)

    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({}, "tokens"),
            ({"addresses": ["x"], "tokens": LOG_ID}, "tokens"),
            ({"tokens": LOG_ID + b"1", "address_key_id": KEY_ID}, "tokens"),
            ({"tokens": LOG_ID}, "address_key_id"),
            ({"addresses": ["x"], "channel": 4}, "channel"),
            ({"addresses": ["x"], "retailer_code": 0}, "retailer_code"),
            ({"addresses": ["x"], "brand_code": 0}, "brand_code"),
            ({"addresses": ["x"], "min_position": v1.Position(sequence=1)}, "min_position.log_id"),
        ],
    )
    def test_frame(self, fields: dict[str, Any], named: str) -> None:
        """A frame that cannot be answered is refused by field."""
        with pytest.raises(QuestionError) as caught:
            wire.frame_of(a_frame(**fields))

        assert caught.value.field == named

    @pytest.mark.parametrize(
        "fields",
        [
            {"addresses": [""] * (MAX_FRAME_RECIPIENTS + 1)},
            {"tokens": bytes(16 * (MAX_FRAME_RECIPIENTS + 1)), "address_key_id": KEY_ID},
        ],
        ids=["addresses", "tokens"],
    )
    def test_frame_size(self, fields: dict[str, Any]) -> None:
        """A frame takes 65,536 recipients and no more."""
        with pytest.raises(BatchTooLargeError) as caught:
            wire.frame_of(a_frame(**fields))

        assert (caught.value.maximum, caught.value.actual) == (MAX_FRAME_RECIPIENTS, MAX_FRAME_RECIPIENTS + 1)
        assert len(wire.frame_of(a_frame(addresses=[""] * MAX_FRAME_RECIPIENTS))) == MAX_FRAME_RECIPIENTS

    def test_batch_size(self) -> None:
        """A batch takes 1 to 10,000 questions."""
        asked = [a_question()] * (MAX_BATCH_QUESTIONS + 1)

        with pytest.raises(BatchTooLargeError):
            wire.questions_of(asked)
        with pytest.raises(QuestionError):
            wire.questions_of([])

        assert len(wire.questions_of(asked[1:])) == MAX_BATCH_QUESTIONS

    def test_client_reference(self) -> None:
        """A client reference has at most 128 bytes, whatever the number of characters."""
        fits, over = "é" * (MAX_CLIENT_REFERENCE_BYTES // 2), "é" * (MAX_CLIENT_REFERENCE_BYTES // 2) + "a"

        assert wire.client_reference_of(v1.CheckRequest(client_reference=fits)) == fits
        with pytest.raises(QuestionError):
            wire.client_reference_of(v1.CheckRequest(client_reference=over))

    @pytest.mark.parametrize("number", [0, 1, 19, 2**31 - 1, -1])
    def test_message_class(self, number: int) -> None:
        """A message class that is unspecified or unknown is commercial, never exempt."""
        context = wire.context_of(a_question(message_class=number))

        assert context.message_class is MessageClass.COMMERCIAL

    def test_bad_utf8(self) -> None:
        """Bytes that are not UTF-8 where text belongs are malformed."""
        with pytest.raises(MalformedError):
            wire.parse(v1.CheckRequest, b"\x1a\x01\xff")

    @given(st.binary(max_size=200))
    @settings(max_examples=often(300), deadline=None)
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes are a frame, malformed, or refused by field; nothing else is raised."""
        try:
            frame = wire.frame_of(wire.parse(v1.StreamCheckRequest, data, MalformedFrameError))
        except (MalformedFrameError, QuestionError):
            return

        assert len(frame) > 0


class TestDistrustfulResponses:
    """Nothing unknown, contradictory or missing in a response is a permission."""

    @given(st.integers(-(2**31), 2**31 - 1), st.booleans())
    @settings(max_examples=often(200), deadline=None)
    def test_reason(self, number: int, permitted: bool) -> None:  # noqa: FBT001 - generated
        """Only a known reason from 1 to 63 permits; the flag alone permits nothing."""
        message = v1.CheckResponse(permitted=permitted, envelope=v1.Envelope(position=v1.Position(log_id=LOG_ID)))
        message.reason = number  # type: ignore[assignment] # numbers that a newer server may send

        answer = wire.answer_of(message)

        assert answer.permitted == (permitted and number in (1, 2, 3))

    @pytest.mark.parametrize("reason", [1, 2, 3])
    def test_contradiction(self, reason: int) -> None:
        """A permitting reason without the flag is a contradiction, so a denial."""
        message = v1.BatchCheckItem(result=v1.BatchCheckResult(reason=reason, permitted=False))  # type: ignore[arg-type] # a number
        envelope = v1.Envelope(position=v1.Position(log_id=LOG_ID))

        (item,) = wire.batch_answer_of(v1.BatchCheckResponse(items=[message], envelope=envelope), 1).items

        assert isinstance(item, Answer)
        assert item.reason is Reason.UNSPECIFIED

    @pytest.mark.parametrize("number", range(256))
    def test_column(self, number: int) -> None:
        """A reasons column comes through as it is, and only known numbers permit."""
        envelope = v1.Envelope(position=v1.Position(log_id=LOG_ID))

        answer = wire.column_answer_of(v1.StreamCheckResponse(reasons=bytes([number]), envelope=envelope), 1)

        assert isinstance(answer, ColumnAnswer)
        assert answer.reasons.tolist() == [number]
        assert PERMITTING[answer.reasons].tolist() == [number in (1, 2, 3)]

    def test_nothing(self) -> None:
        """An empty response is an error or an ItemError, never an answer."""
        envelope = v1.Envelope(position=v1.Position(log_id=LOG_ID))

        for read in (
            lambda: wire.answer_of(v1.CheckResponse(reason=1, permitted=True)),  # type: ignore[arg-type] # a number
            lambda: wire.answer_of(v1.CheckResponse(envelope=v1.Envelope())),
            lambda: wire.batch_answer_of(v1.BatchCheckResponse(envelope=envelope), 1),
            lambda: wire.column_answer_of(v1.StreamCheckResponse(), 1),
            lambda: wire.column_answer_of(v1.StreamCheckResponse(reasons=b"\x01"), 1),
            lambda: wire.column_answer_of(v1.StreamCheckResponse(reasons=b"\x01\x01", envelope=envelope), 1),
            lambda: wire.server_info_of(v1.GetServerInfoResponse()),
        ):
            with pytest.raises(ServiceFailedError):
                read()
        (item,) = wire.batch_answer_of(v1.BatchCheckResponse(items=[v1.BatchCheckItem()], envelope=envelope), 1).items
        assert isinstance(item, ItemError)

    def test_frame_error(self) -> None:
        """An error beside reasons wins."""
        error = v1.ItemError(reason="X", field="f", message="m")

        answer = wire.column_answer_of(v1.StreamCheckResponse(reasons=b"\x01", error=error), 1)

        assert answer == ItemError(reason="X", field="f", message="m")
