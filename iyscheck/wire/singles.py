"""Single questions and answers as bytes, without making messages: for many of them that are dealt with together.

What is read in place and what is written is what protobuf would make of it, byte for byte; the rest is left to
protobuf.
"""

from typing import Final, TypeAlias

from iyscheck.change import Position
from iyscheck.consent import MessageClass, Reason, Status, permits
from iyscheck.keys import KEY_ID_BYTES, TOKEN_BYTES
from iyscheck.question import Context, Envelope, Facts, Finding, Question, evidence_of
from iyscheck.times import local_text
from iyscheck.v1 import consent_check_pb2 as v1
from iyscheck.wire.answers import write_evidence
from iyscheck.wire.fields import parse, position_message, timestamp, write_timestamp
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
_SHORT: Final = 128


Envelopes: TypeAlias = dict[int, tuple[bytes, bytes]]
"""What is before and behind the decision id in envelopes as they are written, by their `id`."""


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
            (message_class, reason): _head(reason, message_class) for message_class in MessageClass for reason in Reason
        }
        self._begun: dict[tuple[Status, str, int], bytes] = {}
        self._places: dict[tuple[bytes, int, int | None], bytes] = {}
        self._moment: tuple[float | None, bytes] = (None, b"")

    def write(self, finding: Finding, reference: str, envelopes: Envelopes) -> bytes:
        """Write the answer to one question.

        `envelopes` holds what was written of those that live as long as it does. All decision ids have one length.
        """
        envelope = finding.envelope
        around = envelopes.get(id(envelope))
        if around is None:
            around = envelopes[id(envelope)] = self._around_id(envelope, len(finding.decision_id))
        evidence = b"" if finding.facts is None else self._evidence(finding.facts)
        head = self._heads[finding.message_class, finding.reason]
        written = head + evidence + around[0] + finding.decision_id.encode() + around[1]
        return written + _sized(b"\x32", reference.encode()) if reference else written

    def _evidence(self, facts: Facts) -> bytes:
        """Write evidence as it stands in a reply. Records differ in times and numbers: the rest is remembered."""
        status, registered, consented, source, transaction_id, _ = facts
        size = len(transaction_id)
        if not (consented and registered and 0 < size < _SHORT and transaction_id.isascii()):
            return _by_protobuf(facts)
        last = f"{local_text(consented)}\x22\x13{local_text(registered)}\x2a{chr(size)}{transaction_id}".encode()
        begun = self._begun.get((status, source, size))
        if begun is None:
            if len(self._begun) >= _MOST_PARTS:
                self._begun.clear()
            begun = self._begun[status, source, size] = _by_protobuf(facts).removesuffix(last)
        return begun + last

    def _around_id(self, envelope: Envelope, size: int) -> tuple[bytes, bytes]:
        """Write an envelope as it stands in a reply: what is before and what is behind a decision id of a size."""
        behind = _sized(b"\x2a", envelope.policy_id.encode())
        before = self._place(envelope.position, envelope.as_of) + self._until(envelope.valid_until)
        before += b"\x22" + _number(size)
        return b"\x2a" + _number(len(before) + size + len(behind)) + before, behind

    def _place(self, position: Position, as_of: int | None) -> bytes:
        key = (position.log_id, position.sequence, as_of)
        place = self._places.get(key)
        if place is None:
            if len(self._places) >= _MOST_PARTS:
                self._places.clear()
            message = v1.Envelope(position=position_message(position), as_of=timestamp(as_of))
            place = self._places[key] = message.SerializeToString()
        return place

    def _until(self, valid_until: float) -> bytes:
        moment = self._moment
        if moment[0] != valid_until:  # those that gathered have nearly always the same one
            message = v1.Envelope()
            write_timestamp(message.valid_until, valid_until)
            moment = self._moment = valid_until, message.SerializeToString()
        return moment[1]


def _by_protobuf(facts: Facts) -> bytes:
    message = v1.Evidence()
    write_evidence(message, evidence_of(facts))
    return _sized(b"\x22", message.SerializeToString())


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
