"""Answers both ways: what a server writes, and what a client reads and believes of them."""

from typing import cast

import numpy as np

from iyscheck.change import LOG_ID_BYTES, Position
from iyscheck.consent import MessageClass, Reason, Status, permits
from iyscheck.errors import (
    IyscheckError,
    ServiceFailedError,
)
from iyscheck.question import (
    Answer,
    BatchAnswer,
    ColumnAnswer,
    Envelope,
    Evidence,
    ItemError,
)
from iyscheck.v1 import consent_check_pb2 as v1
from iyscheck.wire.fields import (
    CLASSES,
    REASONS,
    STATUSES,
    error_message,
    error_of,
    instant_of,
    seconds_of,
    write_timestamp,
)

# --- As a server writes them --------------------------------------------------------------------------------


def check_response(answer: Answer, client_reference: str = "") -> v1.CheckResponse:
    """Write the answer to one question."""
    message = v1.CheckResponse()
    message.reason = cast("v1.Reason", answer.reason)
    message.permitted = answer.permitted
    message.message_class = cast("v1.MessageClass", answer.message_class)
    if client_reference:
        message.client_reference = client_reference
    if answer.evidence is not None:
        write_evidence(message.evidence, answer.evidence)
    write_envelope(message.envelope, answer.envelope)
    return message


def batch_response(answer: BatchAnswer, client_reference: str = "") -> v1.BatchCheckResponse:
    """Write the answers to a batch."""
    message = v1.BatchCheckResponse(client_reference=client_reference)
    for item in answer.items:
        _write_item(message.items.add(), item)
    write_envelope(message.envelope, answer.envelope)
    return message


def frame_response(frame_id: int, answer: ColumnAnswer) -> v1.StreamCheckResponse:
    """Write the answer to one frame."""
    message = v1.StreamCheckResponse(frame_id=frame_id, reasons=answer.reasons.tobytes())
    for number, recipients in answer.tally():
        message.counts.add(reason=cast("v1.Reason", number), recipients=recipients)
    write_envelope(message.envelope, answer.envelope)
    return message


def frame_error(frame_id: int, error: IyscheckError) -> v1.StreamCheckResponse:
    """Write why one frame was not answered."""
    return v1.StreamCheckResponse(frame_id=frame_id, error=error_message(ItemError.of(error)))


# Parts are written where they stand in the message: to make each alone and copy it in takes four times as long.


def _write_item(message: v1.BatchCheckItem, item: Answer | ItemError) -> None:
    if isinstance(item, ItemError):
        message.error.CopyFrom(error_message(item))
        return
    result = message.result
    result.reason = cast("v1.Reason", item.reason)
    result.permitted = item.permitted
    result.message_class = cast("v1.MessageClass", item.message_class)
    if item.evidence is not None:
        write_evidence(result.evidence, item.evidence)
    if item.envelope.as_of is not None:
        result.as_of.seconds = item.envelope.as_of
    write_timestamp(result.valid_until, item.envelope.valid_until)


def write_evidence(message: v1.Evidence, evidence: Evidence) -> None:
    """Write evidence where it stands in its message."""
    message.status = cast("v1.ConsentStatus", evidence.status)
    message.source = evidence.source
    message.consent_time = evidence.consent_time
    message.registration_time = evidence.registration_time
    message.transaction_id = evidence.transaction_id


def write_envelope(message: v1.Envelope, envelope: Envelope) -> None:
    """Write an envelope where it stands in its message."""
    position = message.position
    position.log_id = envelope.position.log_id
    position.sequence = envelope.position.sequence
    if envelope.as_of is not None:
        message.as_of.seconds = envelope.as_of
    write_timestamp(message.valid_until, envelope.valid_until)
    message.decision_id = envelope.decision_id
    message.policy_id = envelope.policy_id


# --- As a client reads them ---------------------------------------------------------------------------------


def answer_of(message: v1.CheckResponse) -> Answer:
    """Read the answer to one question. Raises ServiceFailedError where a part is missing."""
    return Answer(
        reason=_reason_of(message),
        message_class=CLASSES.get(message.message_class, MessageClass.COMMERCIAL),
        evidence=_evidence_of(message),
        envelope=envelope_of(message),
    )


def batch_answer_of(message: v1.BatchCheckResponse, asked: int) -> BatchAnswer:
    """Read the answers to a batch of `asked` questions. Raises ServiceFailedError where a part is missing."""
    if len(message.items) != asked:
        raise ServiceFailedError(f"The server answered {len(message.items)} of {asked} questions.")
    envelope = envelope_of(message)
    return BatchAnswer(items=[_item_of(item, envelope) for item in message.items], envelope=envelope)


def column_answer_of(message: v1.StreamCheckResponse, asked: int) -> ColumnAnswer | ItemError:
    """Read the answer to a frame of `asked` recipients, or why it was not answered.

    The reasons are the numbers as received, known or not. Raises ServiceFailedError where a part is missing.
    """
    if message.HasField("error"):
        return error_of(message.error)
    reasons = np.frombuffer(message.reasons, np.uint8)
    if len(reasons) != asked:
        raise ServiceFailedError(f"The server answered {len(reasons)} of the {asked} recipients of a frame.")
    return ColumnAnswer.of(reasons=reasons, envelope=envelope_of(message))


def _reason_of(message: v1.CheckResponse | v1.BatchCheckResult) -> Reason:
    """A permission needs both a reason that permits and the flag; where they differ, the answer is no."""
    reason = REASONS.get(message.reason, Reason.UNSPECIFIED)
    return reason if message.permitted or not permits(reason) else Reason.UNSPECIFIED


def _item_of(message: v1.BatchCheckItem, batch: Envelope) -> Answer | ItemError:
    outcome = message.WhichOneof("outcome")
    if outcome is None:
        return ItemError(
            reason=ServiceFailedError.reason, field="", message="The server sent neither an answer nor an error."
        )
    if outcome == "error":
        return error_of(message.error)
    result = message.result
    return Answer(
        reason=_reason_of(result),
        message_class=CLASSES.get(result.message_class, MessageClass.COMMERCIAL),
        evidence=_evidence_of(result),
        envelope=Envelope(
            position=batch.position,
            as_of=_as_of(result),
            valid_until=seconds_of(result.valid_until),
            decision_id=batch.decision_id,
            policy_id=batch.policy_id,
        ),
    )


def _evidence_of(message: v1.CheckResponse | v1.BatchCheckResult) -> Evidence | None:
    if not message.HasField("evidence"):
        return None
    evidence = message.evidence
    return Evidence(
        status=STATUSES.get(evidence.status, Status.UNKNOWN),
        source=evidence.source,
        consent_time=evidence.consent_time,
        registration_time=evidence.registration_time,
        transaction_id=evidence.transaction_id,
    )


def envelope_of(message: v1.CheckResponse | v1.BatchCheckResponse | v1.StreamCheckResponse) -> Envelope:
    """Read an envelope. Raises ServiceFailedError where the server did not say its position."""
    envelope = message.envelope
    return Envelope(
        position=position_of(envelope),
        as_of=_as_of(envelope),
        valid_until=seconds_of(envelope.valid_until),
        decision_id=envelope.decision_id,
        policy_id=envelope.policy_id,
    )


def position_of(message: v1.Envelope | v1.GetServerInfoResponse) -> Position:
    """Read where the store stood. Raises ServiceFailedError where the server did not say."""
    if len(message.position.log_id) != LOG_ID_BYTES:
        raise ServiceFailedError("The server sent an answer without its position.")
    return Position(message.position.log_id, message.position.sequence)


def _as_of(message: v1.Envelope | v1.BatchCheckResult) -> int | None:
    return instant_of(message.as_of) if message.HasField("as_of") else None
