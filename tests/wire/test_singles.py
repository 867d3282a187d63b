"""Reading questions and writing answers as bytes: always what protobuf makes of them."""

import threading
from collections.abc import Callable

from hypothesis import example, given, settings
from hypothesis import strategies as st

from iyscheck import wire
from iyscheck.change import Position
from iyscheck.consent import Channel, MessageClass, Reason, RecipientType, Status
from iyscheck.errors import InputError
from iyscheck.question import Context, Envelope, Finding, Question
from iyscheck.v1 import consent_check_pb2 as v1
from iyscheck.wire.singles import MOST_KNOWN
from tests.dice import often, thrown

LOG_ID = b"sixteen bytes..."
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=140) | st.sampled_from(
    ["", "r", "ş" * 63, "x" * 127]
)
few_contexts = st.builds(
    Context,
    brand=st.sampled_from([1, 127, 128, 600_123, 2**32 - 1]),
    channel=st.sampled_from(Channel),
    recipient_type=st.sampled_from(RecipientType),
    message_class=st.sampled_from([MessageClass.COMMERCIAL, MessageClass.SECURITY_CODE]),
    retailer=st.sampled_from([None, 0, 5, 2**40]),
)
"""So few that they come again, and are remembered."""
asked = st.builds(Question, context=few_contexts, address=texts) | st.builds(
    Question,
    context=few_contexts,
    token=st.binary(min_size=16, max_size=16),
    address_key_id=st.sampled_from([b"8 bytes.", bytes(8), b":\x10B\x08:\x10B\x08"]),
)
requests = st.builds(
    wire.check_request,
    asked,
    client_reference=st.just("") | texts,
    min_position=st.none() | st.none() | st.just(Position(LOG_ID, 7)),
)
_PIECES = (
    b"",
    b"\x00",
    b"\x3a\x10",
    b"\x42\x08",
    b"\x32\x01x",
    b"\x0a\x02\x08\x01",
    b"\x1a\x01r",
    b"\x12\x00",
    b"\xff",
)
READER = wire.QuestionReader()
"""One for all examples, as a server has one for all callers: what it remembers must not mislead it."""


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw a request, as it is or with something wrong, twice, missing or in another order."""
    data = bytearray(draw(requests).SerializeToString())
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["put", "cut", "flip", "length", "append", "question"]))
        if kind == "put":
            data[at:at] = draw(st.sampled_from(_PIECES) | st.binary(max_size=3))
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 30))]
        elif kind == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "length" and len(data) > 1:
            data[1] = len(data) - 2 & 0xFF
        elif kind == "append":
            data += draw(st.sampled_from(_PIECES) | st.binary(max_size=5))
        else:
            other = draw(requests).SerializeToString()
            data = bytearray(other[: draw(st.integers(0, len(other)))]) + data
    return bytes(data)


def by_protobuf(data: bytes) -> tuple[Question, str] | None:
    """Read a request as the call that is made alone does."""
    request = wire.parse(v1.CheckRequest, data)
    reference = wire.client_reference_of(request)
    if request.HasField("min_position"):
        return None
    return wire.question_of(request.question, "question."), reference


def outcome(read: Callable[[bytes], tuple[Question, str] | None], data: bytes) -> object:
    """Say what came of reading."""
    try:
        return read(data)
    except InputError as error:
        return type(error), error.field, str(error)


QUESTION = wire.check_request(
    Question(
        context=Context(brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL),
        token=bytes(range(16)),
        address_key_id=b"8 bytes.",
    )
).SerializeToString()


class TestReading:
    """What is remembered of questions changes nothing of what later ones mean."""

    @given(damaged())
    @settings(max_examples=often(1_500), deadline=None)
    @example(b"")
    @example(b"\x0a")
    @example(b"\x0a\x7f")
    @example(QUESTION)
    @example(QUESTION + b"\x1a\x00")
    @example(QUESTION + QUESTION)
    @example(QUESTION + b"\x12\x02\x08\x01")
    def test_same(self, data: bytes) -> None:
        """Each request is read as protobuf reads it, or refused for the same reason, whatever was read before."""
        expected = outcome(by_protobuf, data)

        assert [outcome(READER.read, data) for _ in range(2)] == [expected, expected]

    def test_in_place(self) -> None:
        """A question that begins like an earlier one is read without protobuf; one written otherwise is not."""
        reader = wire.QuestionReader()
        address = wire.check_request(Question(context=_context(QUESTION), address="+905321234567")).SerializeToString()
        for data in (QUESTION, address):
            reader.read(data)
        parsed: list[bytes] = []

        def noted(data: bytes) -> tuple[Question, str] | None:
            parsed.append(data)
            return by_protobuf(data)

        reader._parsed = noted  # type: ignore[method-assign] # what is not read in place
        others = [
            QUESTION.replace(bytes(range(16)), bytes(16)),
            QUESTION + b"\x1a\x01r",
            address.replace(b"+905321234567", b"5321234567890"),
        ]
        twice = b"\x0a\x26" + QUESTION[2:4] * 2 + QUESTION[4:]

        assert [reader.read(data) for data in (*others, twice)] == [by_protobuf(data) for data in (*others, twice)]
        assert parsed == [twice]

    def test_crafted(self) -> None:
        """Who sends what looks like an earlier question, and holds more, gets nobody else's recipient read."""
        reader, context = wire.QuestionReader(), QUESTION[2:10]  # brand to message class
        address = context + b"\x32\x05"
        beginnings = [
            _request(address + b"first"),
            _request(context + b"\x32\x01A" + b"\x7a\x03\x32\x00\x00"),  # an unknown field with a tag in it
        ]
        others = [
            _request(address + b"other" + b"\x42\x088 bytes."),  # the key of a token behind an address
            _request(address + b"other" + b"\x32\x03two"),
            _request(context + b"\x32\x01A" + b"\x7a\x03\x32\x01Z"),
            _request(context + b"\x32\x02other"),
        ]
        for data in beginnings:
            reader.read(data)

        assert [outcome(reader.read, data) for data in others] == [outcome(by_protobuf, data) for data in others]

    def test_bounded(self) -> None:
        """Made-up brands fill no memory."""
        reader = wire.QuestionReader()
        for brand in range(1, MOST_KNOWN + 100):
            for data in (
                QUESTION,
                wire.check_request(Question(context=_context(QUESTION), address="x")).SerializeToString(),
            ):
                request = v1.CheckRequest.FromString(data)
                request.question.brand_code = brand
                reader.read(request.SerializeToString())

        assert len(reader._tokens) <= MOST_KNOWN
        assert len(reader._addresses) <= MOST_KNOWN


def _request(question: bytes) -> bytes:
    return b"\x0a" + bytes((len(question),)) + question


def _context(data: bytes) -> Context:
    found = by_protobuf(data)
    assert found is not None
    return found[0].context


seconds = st.sampled_from([0, 1, 1_714_644_000]) | st.integers(1, 2**32 - 1)
envelopes = st.builds(
    Envelope,
    position=st.builds(Position, st.just(LOG_ID) | st.binary(min_size=16, max_size=16), st.integers(0, 2**63)),
    as_of=st.none() | st.integers(0, 2**33),
    valid_until=st.floats(0, 2**33) | st.integers(0, 2**33).map(float),
    decision_id=st.just("-" * 36),
    policy_id=st.sampled_from(["0123456789abcdef", "fedcba9876543210"]),
)
facts = st.tuples(
    st.sampled_from([Status.ONAY, Status.RET, Status.UNKNOWN]),
    seconds,
    seconds,
    st.sampled_from(["", "HS_WEB", "İYS_ş", "s" * 255]),
    texts | st.sampled_from(["r", "rr", "ab" * 32, "cd" * 32]),
    st.integers(0, 2**63),
)
findings = st.lists(envelopes, min_size=1, max_size=3).flatmap(
    lambda few: st.lists(
        st.builds(
            Finding,
            st.sampled_from(Reason),
            st.sampled_from(MessageClass),
            st.none() | facts,
            st.sampled_from(few),
            st.uuids().map(str),
        ),
        max_size=6,
    )
)
WRITER = wire.AnswerWriter()


class TestWriting:
    """Answers are the bytes that protobuf would write."""

    @given(findings, texts)
    @settings(max_examples=often(900), deadline=None)
    def test_same(self, found: list[Finding], reference: str) -> None:
        """Every part of an answer, present, absent, long or not ASCII, is written as protobuf writes it.

        So it is where several answers have one envelope, and others beside them another.
        """
        written: wire.Envelopes = {}

        assert [WRITER.write(each, reference, written) for each in found] == [
            wire.check_response(each.answer(), reference).SerializeToString() for each in found
        ]

    def test_threads(self) -> None:
        """Several threads that write of different positions with one writer get each the bytes of its own."""
        writer, dice, wrong = wire.AnswerWriter(), thrown(), list[bytes]()
        policy = "0123456789abcdef"

        def write(sequence: int, numbers: list[int]) -> None:
            for number in numbers:
                envelope = Envelope(
                    position=Position(LOG_ID, sequence),
                    as_of=number,
                    valid_until=float(number),
                    decision_id="-" * 36,
                    policy_id=policy,
                )
                finding = Finding(Reason.CONSENTED, MessageClass.COMMERCIAL, None, envelope, "-" * 36)
                if writer.write(finding, "", {}) != wire.check_response(finding.answer()).SerializeToString():
                    wrong.append(b"")

        threads = [
            threading.Thread(target=write, args=(sequence, [dice.randrange(1_500) for _ in range(3_000)]))
            for sequence in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert not wrong
