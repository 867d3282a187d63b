"""Single questions and answers as bytes, without making messages: for many of them that are dealt with together.

What is read in place and what is written is what protobuf would make of it, byte for byte; the rest is left to
protobuf.
"""

from typing import Final

from iyscheck.consent import MessageClass, Reason, permits
from iyscheck.keys import KEY_ID_BYTES, TOKEN_BYTES
from iyscheck.question import Answer, Context, Envelope, Evidence, Question
from iyscheck.v1 import consent_check_pb2 as v1
from iyscheck.wire.answers import write_envelope
from iyscheck.wire.fields import parse, whole_and_nanos
from iyscheck.wire.requests import client_reference_of, question_of

MOST_KNOWN: Final = 4_096
"""Beginnings of questions that are remembered: callers can make up any number of them."""
_MOST_PARTS: Final = 1_024
_MOST_HEADS: Final = 4
"""How long the beginnings before addresses may be, in different numbers of bytes, to be looked for."""
_QUESTION, _REFERENCE, _ADDRESS, _TOKEN, _KEY_ID = 0x0A, 0x1A, 0x32, b"\x3a\x10", b"\x42\x08"
"""Tags, and for those of a known size also that: each in one byte."""
_MORE: Final = 0x80
_TAIL: Final = len(_KEY_ID) + KEY_ID_BYTES
_AFTER_HEAD: Final = TOKEN_BYTES + _TAIL
_LEAST: Final = 2
_TIME: Final = 19
_SHORT: Final = 128


class QuestionReader:
    """Reads requests whose questions begin as earlier ones did. Safe to share between threads.

    A question is remembered by all of its bytes but the recipient's, and only if it is written as protobuf itself
    writes it: known fields, in order, each once. Then other bytes in the recipient's place are another recipient of
    the same question, and nothing else.
    """

    def __init__(self) -> None:
        self._tokens: dict[bytes, tuple[Context, bytes]] = {}
        self._addresses: dict[bytes, Context] = {}
        self._heads: tuple[int, ...] = ()

    def read(self, data: bytes) -> tuple[Question, str] | None:
        """Read the question and reference of a CheckRequest; None if it names a position.

        Raises MalformedError and QuestionError, as reading it by protobuf does.
        """
        size = len(data)
        if size > _LEAST and data[0] == _QUESTION and data[1] < _MORE:
            end = 2 + data[1]
            reference: str | None = "" if end == size else _reference(data, end)
            if reference is not None and end <= size:
                known = None
                if end > 2 + _AFTER_HEAD:
                    known = self._tokens.get(data[2 : end - _AFTER_HEAD] + data[end - _TAIL : end])
                if known is not None:
                    token = data[end - _AFTER_HEAD : end - _TAIL]
                    return Question(context=known[0], token=token, address_key_id=known[1]), reference
                question = self._by_address(data, end)
                if question is not None:
                    return question, reference
        return self._parsed(data)

    def _by_address(self, data: bytes, end: int) -> Question | None:
        for head in self._heads:
            context = self._addresses.get(data[2:head]) if head < end else None
            if context is not None and data[head] == end - head - 1 < _MORE:
                try:
                    return Question(context=context, address=data[head + 1 : end].decode())
                except UnicodeDecodeError:
                    return None
        return None

    def _parsed(self, data: bytes) -> tuple[Question, str] | None:
        request = parse(v1.CheckRequest, data)
        reference = client_reference_of(request)
        if request.HasField("min_position"):
            return None
        question = question_of(request.question, "question.")
        self._remember(request.question, question)
        return question, reference

    def _remember(self, message: v1.Question, question: Question) -> None:
        """Remember how a question is written by protobuf, before and behind its recipient."""
        written = _plain(message).SerializeToString(deterministic=True)
        if question.token is not None and question.address_key_id is not None:
            key = written[:-_AFTER_HEAD] + written[-_TAIL:]
            if key.endswith(_TOKEN + _KEY_ID + question.address_key_id):
                if len(self._tokens) >= MOST_KNOWN:
                    self._tokens.clear()
                self._tokens[key] = (question.context, question.address_key_id)
            return
        address = (question.address or "").encode()
        head = written[: len(written) - len(address) - 1]
        if len(address) < _MORE and head.endswith(bytes((_ADDRESS,))) and not message.address_key_id:
            if len(self._addresses) >= MOST_KNOWN:
                self._addresses.clear()
            self._addresses[head] = question.context
            heads = dict.fromkeys((2 + len(head), *self._heads))
            self._heads = tuple(heads)[:_MOST_HEADS]


class AnswerWriter:
    """Writes answers as CheckResponse; the parts that many answers share are written once. Safe to share."""

    def __init__(self) -> None:
        self._heads = {
            (message_class << 8) + reason: _head(reason, message_class)
            for message_class in MessageClass
            for reason in Reason
        }
        self._envelopes: dict[tuple[object, int | None], bytes] = {}
        self._moments: dict[float, bytes] = {}
        self._sources: dict[str, bytes] = {}

    def write(self, answer: Answer, reference: str) -> bytes:
        """Write the answer to one question."""
        written = self._heads[(answer.message_class << 8) + answer.reason]
        if answer.evidence is not None:
            written += _sized(b"\x22", self._evidence(answer.evidence))
        written += _sized(b"\x2a", self._envelope(answer.envelope))
        return written + _sized(b"\x32", reference.encode()) if reference else written

    def _evidence(self, evidence: Evidence) -> bytes:
        consented, registered, transaction_id = (
            evidence.consent_time,
            evidence.registration_time,
            evidence.transaction_id,
        )
        begun = bytes((0x08, evidence.status)) + self._source(evidence.source)
        if len(consented) == len(registered) == _TIME and len(transaction_id) < _SHORT and transaction_id.isascii():
            last = f"\x2a{chr(len(transaction_id))}{transaction_id}" if transaction_id else ""
            return begun + f"\x1a\x13{consented}\x22\x13{registered}{last}".encode()
        texts = ((b"\x1a", consented), (b"\x22", registered), (b"\x2a", transaction_id))
        return begun + b"".join(_sized(tag, text.encode()) for tag, text in texts if text)

    def _source(self, source: str) -> bytes:
        written = self._sources.get(source)
        if written is None:
            written = _sized(b"\x12", source.encode()) if source else b""
            if len(self._sources) >= _MOST_PARTS:
                self._sources.clear()
            self._sources[source] = written
        return written

    def _envelope(self, envelope: Envelope) -> bytes:
        shared, valid_until = (envelope.position, envelope.as_of), envelope.valid_until
        begun, until = self._envelopes.get(shared), self._moments.get(valid_until)
        if begun is None:
            message = v1.Envelope()
            write_envelope(message, envelope)
            for field in ("valid_until", "decision_id", "policy_id"):
                message.ClearField(field)
            if len(self._envelopes) >= _MOST_PARTS:
                self._envelopes.clear()
            begun = self._envelopes[shared] = message.SerializeToString()
        if until is None:
            if len(self._moments) >= _MOST_PARTS:
                self._moments.clear()
            until = self._moments[valid_until] = _sized(b"\x1a", _moment(valid_until))
        decision_id, policy_id = envelope.decision_id, envelope.policy_id
        return begun + until + f"\x22{chr(len(decision_id))}{decision_id}\x2a{chr(len(policy_id))}{policy_id}".encode()


def _reference(data: bytes, at: int) -> str | None:
    """Read a reference that is all of the rest; None if the rest is anything else."""
    if len(data) < at + 3 or data[at] != _REFERENCE or not data[at + 1] == len(data) - at - 2 < _MORE:
        return None
    try:
        return data[at + 2 :].decode()
    except UnicodeDecodeError:
        return None


def _plain(message: v1.Question) -> v1.Question:
    """Copy the fields that are known, as one who asks would set them."""
    plain = v1.Question()
    for field, value in message.ListFields():
        setattr(plain, field.name, value)
    return plain


def _head(reason: Reason, message_class: MessageClass) -> bytes:
    message = v1.CheckResponse(reason=int(reason), permitted=permits(reason), message_class=int(message_class))  # type: ignore[arg-type] # numbers
    return message.SerializeToString()


def _moment(seconds: float) -> bytes:
    """Write seconds since 1970 UTC as a Timestamp."""
    whole, nanos = whole_and_nanos(seconds)
    return (b"\x08" + _number(whole) if whole else b"") + (b"\x10" + _number(nanos) if nanos else b"")


def _sized(tag: bytes, content: bytes) -> bytes:
    """Write a field of bytes."""
    size = len(content)
    return tag + (bytes((size,)) if size < _SHORT else _number(size)) + content


def _number(number: int) -> bytes:
    """Write a number that is not negative, seven bits a byte, the lowest ones first."""
    written = bytearray()
    while number >= _SHORT:
        written.append(number & 0x7F | _MORE)
        number >>= 7
    written.append(number)
    return bytes(written)
