"""protobuf ↔ domain, and nothing else: what each side reads of the other, and what it makes of nonsense.

Requests are read strictly: what cannot be answered raises an error that names the field. Responses are read
distrustfully: whatever is unknown, contradictory or missing becomes a denial or an error, never a permission.
The one lenient place is the message class, where an unknown number means COMMERCIAL, the class that needs consent.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar, cast

import numpy as np
import numpy.typing as npt
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from iyscheck import bulk
from iyscheck.address import TextColumn
from iyscheck.bulk import Cut
from iyscheck.change import LOG_ID_BYTES, Position
from iyscheck.consent import Channel, LegacyDeadline, MessageClass, Policy, Reason, RecipientType, Status, permits
from iyscheck.errors import (
    BatchTooLargeError,
    InputError,
    IyscheckError,
    MalformedError,
    MalformedFrameError,
    QuestionError,
    ServiceFailedError,
)
from iyscheck.kernel import Kernel
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

TOKEN_BYTES: Final = 16
KEY_ID_BYTES: Final = 8

_NANO: Final = 1_000_000_000
_CHANNELS: Final = {int(channel): channel for channel in Channel}
_TYPES: Final = {int(recipient_type): recipient_type for recipient_type in RecipientType}
_CLASSES: Final = {int(message_class): message_class for message_class in MessageClass}
_REASONS: Final = {int(reason): reason for reason in Reason}
_STATUSES: Final = {int(status): status for status in Status}
_DEADLINES: Final = {int(deadline): deadline for deadline in LegacyDeadline}

_M = TypeVar("_M", bound=Message)


def parse(kind: type[_M], data: bytes, error: type[MalformedError] = MalformedError) -> _M:
    """Read a message from its bytes. Raises `error` where they are not one (bad UTF-8 among it)."""
    try:
        return kind.FromString(data)
    except DecodeError:
        raise error("request", f"the bytes are not a {kind.DESCRIPTOR.name}.") from None


# --- Requests, as the server reads them -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One frame of a stream: exactly one of `addresses` and `tokens` (uint8, shape (N, 16)) is given.

    Both may lie in the bytes of the frame, tokens at any place of them: they need not be aligned.
    """

    frame_id: int
    context: Context
    addresses: Sequence[str] | TextColumn | None
    tokens: npt.NDArray[np.uint8] | None
    address_key_id: bytes | None
    min_position: Position | None

    def __len__(self) -> int:
        """Count the recipients."""
        return len(self.addresses or ()) if self.tokens is None else len(self.tokens)


def context_of(message: v1.Question | v1.StreamCheckRequest, path: str = "") -> Context:
    """Read what a question or frame says besides its recipients; `path` goes before the field names of errors.

    Raises QuestionError.
    """
    if not message.brand_code:
        raise QuestionError(f"{path}brand_code", "is required.", fix="Give the İYS brandCode (not iysCode).")
    channel = _CHANNELS.get(message.channel)
    if channel is None:
        raise QuestionError(f"{path}channel", f"{int(message.channel)} is not ARAMA, MESAJ or EPOSTA.")
    recipient_type = _TYPES.get(message.recipient_type)
    if recipient_type is None:
        raise QuestionError(f"{path}recipient_type", f"{int(message.recipient_type)} is neither BIREYSEL nor TACIR.")
    retailer = message.retailer_code if message.HasField("retailer_code") else None
    if retailer is not None and retailer > MAX_RETAILER_CODE:
        raise QuestionError(f"{path}retailer_code", "is too large to be an İYS retailerCode.")
    return Context(
        brand=message.brand_code,
        channel=channel,
        recipient_type=recipient_type,
        message_class=_CLASSES.get(message.message_class, MessageClass.COMMERCIAL),
        retailer=retailer,
    )


def question_of(message: v1.Question, path: str = "") -> Question:
    """Read a question; `path` goes before the field names of errors. Raises QuestionError."""
    context = context_of(message, path)
    if message.HasField("address"):
        return Question(context=context, address=message.address)
    if not message.HasField("token"):
        raise QuestionError(f"{path}recipient", "is required.", fix="Give an address or a token.")
    token, key_id = message.token, message.address_key_id
    if len(token) != TOKEN_BYTES:
        raise QuestionError(f"{path}token", f"has {len(token)} bytes instead of {TOKEN_BYTES}.")
    _require_key_id(key_id, path)
    return Question(context=context, token=token, address_key_id=key_id)


def questions_of(messages: Sequence[v1.Question]) -> list[Question | ItemError]:
    """Read the questions of a batch; one that cannot be read becomes its ItemError.

    Raises BatchTooLargeError, and QuestionError where there is none.
    """
    if not messages:
        raise QuestionError("questions", "is empty.", fix="Ask at least one question.")
    if len(messages) > MAX_BATCH_QUESTIONS:
        raise BatchTooLargeError("questions", maximum=MAX_BATCH_QUESTIONS, actual=len(messages))
    return [_question_or_error(message) for message in messages]


def _question_or_error(message: v1.Question) -> Question | ItemError:
    try:
        return question_of(message)
    except QuestionError as error:
        return item_error_of(error)


def parse_frame(data: bytes, kernel: Kernel = Kernel.NUMPY) -> tuple[v1.StreamCheckRequest, Cut]:
    """Read a frame from its bytes: the message, and what was cut out of it as columns.

    Raises MalformedFrameError where the bytes are no frame (bad UTF-8 among it).
    """
    parts = bulk.cut(data, most=MAX_FRAME_RECIPIENTS, kernel=kernel)
    return parse(v1.StreamCheckRequest, parts.head, MalformedFrameError), parts


def frame_of(message: v1.StreamCheckRequest, cut: Cut | None = None) -> Frame:
    """Read a frame, with the columns that were cut out of it. Raises QuestionError or BatchTooLargeError."""
    context = context_of(message)
    min_position = min_position_of(message)
    addresses = cut.addresses if cut and cut.addresses is not None else message.addresses
    packed = cut.tokens if cut and cut.tokens is not None else np.frombuffer(message.tokens, np.uint8)
    if addresses and packed.size:
        raise QuestionError("tokens", "are given together with addresses.", fix="Send one of the two.")
    texts: Sequence[str] | TextColumn | None = None
    tokens, key_id = None, None
    if addresses:
        _require_fits("addresses", len(addresses))
        texts = addresses if isinstance(addresses, TextColumn) else list(addresses)
    else:
        tokens, key_id = _tokens_of(packed), message.address_key_id
        _require_key_id(key_id, "")
    return Frame(
        frame_id=message.frame_id,
        context=context,
        addresses=texts,
        tokens=tokens,
        address_key_id=key_id,
        min_position=min_position,
    )


def _tokens_of(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    recipients, rest = divmod(packed.size, TOKEN_BYTES)
    if not packed.size:
        raise QuestionError("tokens", "the frame names no recipient.", fix="Give addresses or tokens.")
    if rest:
        raise QuestionError("tokens", f"have {packed.size} bytes, which is no multiple of {TOKEN_BYTES}.")
    _require_fits("tokens", recipients)
    return packed.reshape(recipients, TOKEN_BYTES)


def min_position_of(message: v1.CheckRequest | v1.BatchCheckRequest | v1.StreamCheckRequest) -> Position | None:
    """Read from which position on the answer is wanted, if it is said. Raises QuestionError."""
    if not message.HasField("min_position"):
        return None
    position = message.min_position
    if len(position.log_id) != LOG_ID_BYTES:
        raise QuestionError(
            "min_position.log_id",
            f"has {len(position.log_id)} bytes instead of {LOG_ID_BYTES}.",
            fix="Send a position back as it was received.",
        )
    return Position(position.log_id, position.sequence)


def client_reference_of(message: v1.CheckRequest | v1.BatchCheckRequest) -> str:
    """Read the caller's own reference. Raises QuestionError where it is too long."""
    reference = message.client_reference
    size = len(reference.encode())
    if size > MAX_CLIENT_REFERENCE_BYTES:
        raise QuestionError(
            "client_reference", f"has {size} bytes; at most {MAX_CLIENT_REFERENCE_BYTES} are carried along."
        )
    return reference


def _require_key_id(key_id: bytes, path: str) -> None:
    if len(key_id) != KEY_ID_BYTES:
        raise QuestionError(
            f"{path}address_key_id",
            f"has {len(key_id)} bytes; with tokens it must name their key in {KEY_ID_BYTES}.",
            fix="GetServerInfo names the key.",
        )


def _require_fits(field: str, recipients: int) -> None:
    if recipients > MAX_FRAME_RECIPIENTS:
        raise BatchTooLargeError(field, maximum=MAX_FRAME_RECIPIENTS, actual=recipients)


# --- Responses, as the server writes them -----------------------------------------------------------------------


def item_error_of(error: IyscheckError) -> ItemError:
    """Say of one question or frame what an error of the whole call would say."""
    field = error.field if isinstance(error, InputError) else ""
    return ItemError(reason=error.reason, field=field, message=str(error))


def check_response(answer: Answer, client_reference: str = "") -> v1.CheckResponse:
    """Write the answer to one question."""
    message = v1.CheckResponse()
    message.reason = cast("v1.Reason", answer.reason)
    message.permitted = answer.permitted
    message.message_class = cast("v1.MessageClass", answer.message_class)
    if client_reference:
        message.client_reference = client_reference
    if answer.evidence is not None:
        _write_evidence(message.evidence, answer.evidence)
    _write_envelope(message.envelope, answer.envelope)
    return message


def batch_response(answer: BatchAnswer, client_reference: str = "") -> v1.BatchCheckResponse:
    """Write the answers to a batch."""
    message = v1.BatchCheckResponse(client_reference=client_reference)
    for item in answer.items:
        _write_item(message.items.add(), item)
    _write_envelope(message.envelope, answer.envelope)
    return message


def frame_response(frame_id: int, answer: ColumnAnswer) -> v1.StreamCheckResponse:
    """Write the answer to one frame."""
    message = v1.StreamCheckResponse(frame_id=frame_id, reasons=answer.reasons.tobytes())
    for number, recipients in answer.tally():
        message.counts.add(reason=cast("v1.Reason", number), recipients=recipients)
    _write_envelope(message.envelope, answer.envelope)
    return message


def frame_error(frame_id: int, error: IyscheckError) -> v1.StreamCheckResponse:
    """Write why one frame was not answered."""
    return v1.StreamCheckResponse(frame_id=frame_id, error=_error_message(item_error_of(error)))


def server_info_response(info: ServerInfo) -> v1.GetServerInfoResponse:
    """Write what clients must know of this server."""
    policy = info.policy
    return v1.GetServerInfoResponse(
        server_version=info.server_version,
        kernel=info.kernel,
        address_form=info.address_form,
        rule_version=info.rule_version,
        store_format=info.store_format,
        address_key_id=info.address_key_id,
        store_key_id=info.store_key_id,
        takes_addresses=info.takes_addresses,
        limits=v1.Limits(
            max_batch_questions=info.max_batch_questions,
            max_frame_recipients=info.max_frame_recipients,
            max_message_bytes=info.max_message_bytes,
            max_client_reference_bytes=info.max_client_reference_bytes,
        ),
        position=_position_message(info.position),
        newest_watermark=_timestamp(info.newest_watermark),
        oldest_watermark=_timestamp(info.oldest_watermark),
        policy=v1.Policy(
            policy_id=policy.policy_id,
            merchants_need_record=policy.merchants_need_record,
            legacy_deadline=cast("v1.LegacyDeadline", policy.legacy_deadline),
            freshness_limit=Duration(seconds=policy.freshness_limit_s),
            answer_ttl=Duration(seconds=info.answer_ttl_s),
        ),
    )


# Parts are written where they stand in the message: to make each alone and copy it in takes four times as long.


def _write_item(message: v1.BatchCheckItem, item: Answer | ItemError) -> None:
    if isinstance(item, ItemError):
        message.error.CopyFrom(_error_message(item))
        return
    result = message.result
    result.reason = cast("v1.Reason", item.reason)
    result.permitted = item.permitted
    result.message_class = cast("v1.MessageClass", item.message_class)
    if item.evidence is not None:
        _write_evidence(result.evidence, item.evidence)
    if item.envelope.as_of is not None:
        result.as_of.seconds = item.envelope.as_of
    _write_timestamp(result.valid_until, item.envelope.valid_until)


def _error_message(error: ItemError) -> v1.ItemError:
    return v1.ItemError(reason=error.reason, field=error.field, message=error.message)


def _write_evidence(message: v1.Evidence, evidence: Evidence) -> None:
    message.status = cast("v1.ConsentStatus", evidence.status)
    message.source = evidence.source
    message.consent_time = evidence.consent_time
    message.registration_time = evidence.registration_time
    message.transaction_id = evidence.transaction_id


def _write_envelope(message: v1.Envelope, envelope: Envelope) -> None:
    position = message.position
    position.log_id = envelope.position.log_id
    position.sequence = envelope.position.sequence
    if envelope.as_of is not None:
        message.as_of.seconds = envelope.as_of
    _write_timestamp(message.valid_until, envelope.valid_until)
    message.decision_id = envelope.decision_id
    message.policy_id = envelope.policy_id


def _write_timestamp(message: Timestamp, seconds: float) -> None:
    whole = math.floor(seconds)
    message.seconds = whole
    message.nanos = int((seconds - whole) * _NANO)


def _position_message(position: Position | None) -> v1.Position | None:
    return None if position is None else v1.Position(log_id=position.log_id, sequence=position.sequence)


def _timestamp(seconds: int | None) -> Timestamp | None:
    return None if seconds is None else Timestamp(seconds=seconds)


# --- Requests, as a client writes them --------------------------------------------------------------------------


def check_request(
    question: Question, *, min_position: Position | None = None, client_reference: str = ""
) -> v1.CheckRequest:
    """Write one question."""
    return v1.CheckRequest(
        question=_question_message(question),
        min_position=_position_message(min_position),
        client_reference=client_reference,
    )


def batch_request(
    questions: Sequence[Question], *, min_position: Position | None = None, client_reference: str = ""
) -> v1.BatchCheckRequest:
    """Write a batch of questions."""
    return v1.BatchCheckRequest(
        questions=[_question_message(question) for question in questions],
        min_position=_position_message(min_position),
        client_reference=client_reference,
    )


def frame(
    context: Context,
    *,
    addresses: Sequence[str] | None = None,
    tokens: npt.NDArray[np.uint8] | None = None,
    address_key_id: bytes | None = None,
    frame_id: int = 0,
    min_position: Position | None = None,
) -> v1.StreamCheckRequest:
    """Write a frame of either addresses or tokens (uint8, shape (N, 16))."""
    try:
        return v1.StreamCheckRequest(
            frame_id=frame_id,
            brand_code=context.brand,
            channel=cast("v1.Channel", context.channel),
            recipient_type=cast("v1.RecipientType", context.recipient_type),
            message_class=cast("v1.MessageClass", context.message_class),
            retailer_code=context.retailer,
            addresses=addresses,
            tokens=None if tokens is None else tokens.tobytes(),
            address_key_id=address_key_id,
            min_position=_position_message(min_position),
        )
    except UnicodeEncodeError:
        return frame(
            context,
            addresses=[_encodable(address) for address in addresses or ()],
            frame_id=frame_id,
            min_position=min_position,
        )


def _question_message(question: Question) -> v1.Question:
    context = question.context
    return v1.Question(
        brand_code=context.brand,
        channel=cast("v1.Channel", context.channel),
        recipient_type=cast("v1.RecipientType", context.recipient_type),
        message_class=cast("v1.MessageClass", context.message_class),
        retailer_code=context.retailer,
        address=None if question.address is None else _encodable(question.address),
        token=question.token,
        address_key_id=question.address_key_id,
    )


def _encodable(address: str) -> str:
    """Keep a text with lone surrogates sendable and unreadable: it must harm its own recipient only."""
    return address if address.isascii() else address.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# --- Responses, as a client reads them --------------------------------------------------------------------------


def answer_of(message: v1.CheckResponse) -> Answer:
    """Read the answer to one question. Raises ServiceFailedError where a part is missing."""
    return Answer(
        reason=_reason_of(message),
        message_class=_CLASSES.get(message.message_class, MessageClass.COMMERCIAL),
        evidence=_evidence_of(message),
        envelope=_envelope_of(message),
    )


def batch_answer_of(message: v1.BatchCheckResponse, asked: int) -> BatchAnswer:
    """Read the answers to a batch of `asked` questions. Raises ServiceFailedError where a part is missing."""
    if len(message.items) != asked:
        raise ServiceFailedError(f"The server answered {len(message.items)} of {asked} questions.")
    envelope = _envelope_of(message)
    return BatchAnswer(items=[_item_of(item, envelope) for item in message.items], envelope=envelope)


def column_answer_of(message: v1.StreamCheckResponse, asked: int) -> ColumnAnswer | ItemError:
    """Read the answer to a frame of `asked` recipients, or why it was not answered.

    The reasons are the numbers as received, known or not. Raises ServiceFailedError where a part is missing.
    """
    if message.HasField("error"):
        return _error_of(message.error)
    reasons = np.frombuffer(message.reasons, np.uint8)
    if len(reasons) != asked:
        raise ServiceFailedError(f"The server answered {len(reasons)} of the {asked} recipients of a frame.")
    return ColumnAnswer.of(reasons=reasons, envelope=_envelope_of(message))


def server_info_of(message: v1.GetServerInfoResponse) -> ServerInfo:
    """Read what a server tells about itself. Raises ServiceFailedError where a part is missing."""
    if not message.HasField("limits") or not message.HasField("policy"):
        raise ServiceFailedError("The server does not tell its limits and policy.")
    policy = message.policy
    return ServerInfo(
        server_version=message.server_version,
        kernel=message.kernel,
        address_form=message.address_form,
        rule_version=message.rule_version,
        store_format=message.store_format,
        address_key_id=message.address_key_id,
        store_key_id=message.store_key_id,
        takes_addresses=message.takes_addresses,
        max_batch_questions=message.limits.max_batch_questions,
        max_frame_recipients=message.limits.max_frame_recipients,
        max_message_bytes=message.limits.max_message_bytes,
        max_client_reference_bytes=message.limits.max_client_reference_bytes,
        position=_position_of(message),
        newest_watermark=message.newest_watermark.seconds if message.HasField("newest_watermark") else None,
        oldest_watermark=message.oldest_watermark.seconds if message.HasField("oldest_watermark") else None,
        policy=Policy(
            merchants_need_record=policy.merchants_need_record,
            legacy_deadline=_DEADLINES.get(policy.legacy_deadline, LegacyDeadline.ANNOUNCED),
            freshness_limit_s=policy.freshness_limit.seconds,
        ),
        answer_ttl_s=policy.answer_ttl.seconds,
    )


def _reason_of(message: v1.CheckResponse | v1.BatchCheckResult) -> Reason:
    """A permission needs both a reason that permits and the flag; where they differ, the answer is no."""
    reason = _REASONS.get(message.reason, Reason.UNSPECIFIED)
    return reason if message.permitted or not permits(reason) else Reason.UNSPECIFIED


def _item_of(message: v1.BatchCheckItem, batch: Envelope) -> Answer | ItemError:
    outcome = message.WhichOneof("outcome")
    if outcome is None:
        return ItemError(
            reason=ServiceFailedError.reason, field="", message="The server sent neither an answer nor an error."
        )
    if outcome == "error":
        return _error_of(message.error)
    result = message.result
    return Answer(
        reason=_reason_of(result),
        message_class=_CLASSES.get(result.message_class, MessageClass.COMMERCIAL),
        evidence=_evidence_of(result),
        envelope=Envelope(
            position=batch.position,
            as_of=_as_of(result),
            valid_until=_seconds_of(result.valid_until),
            decision_id=batch.decision_id,
            policy_id=batch.policy_id,
        ),
    )


def _error_of(message: v1.ItemError) -> ItemError:
    return ItemError(reason=message.reason, field=message.field, message=message.message)


def _evidence_of(message: v1.CheckResponse | v1.BatchCheckResult) -> Evidence | None:
    if not message.HasField("evidence"):
        return None
    evidence = message.evidence
    return Evidence(
        status=_STATUSES.get(evidence.status, Status.UNKNOWN),
        source=evidence.source,
        consent_time=evidence.consent_time,
        registration_time=evidence.registration_time,
        transaction_id=evidence.transaction_id,
    )


def _envelope_of(message: v1.CheckResponse | v1.BatchCheckResponse | v1.StreamCheckResponse) -> Envelope:
    envelope = message.envelope
    return Envelope(
        position=_position_of(envelope),
        as_of=_as_of(envelope),
        valid_until=_seconds_of(envelope.valid_until),
        decision_id=envelope.decision_id,
        policy_id=envelope.policy_id,
    )


def _position_of(message: v1.Envelope | v1.GetServerInfoResponse) -> Position:
    if len(message.position.log_id) != LOG_ID_BYTES:
        raise ServiceFailedError("The server sent an answer without its position.")
    return Position(message.position.log_id, message.position.sequence)


def _as_of(message: v1.Envelope | v1.BatchCheckResult) -> int | None:
    return message.as_of.seconds if message.HasField("as_of") else None


def _seconds_of(timestamp: Timestamp) -> float:
    return timestamp.seconds + timestamp.nanos / _NANO
