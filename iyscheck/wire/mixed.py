"""Mixed frames both ways: groups of recipients that share everything else, one after the other in one frame."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from iyscheck.address import TextColumn
from iyscheck.change import Position
from iyscheck.errors import BatchTooLargeError, QuestionError, ServiceFailedError
from iyscheck.keys import TOKEN_BYTES
from iyscheck.question import MAX_FRAME_GROUPS, Envelope, Group, ItemError, MixedAnswer
from iyscheck.v1 import consent_check_pb2 as v1
from iyscheck.wire.answers import as_of, envelope_of, write_envelope
from iyscheck.wire.cut import Cut
from iyscheck.wire.fields import error_of, position_message, seconds_of, write_timestamp
from iyscheck.wire.requests import context_of, encodable, min_position_of, require_fits, require_key_id, tokens_of

_OF_ONE_BRAND = (
    "brand_code",
    "channel",
    "recipient_type",
    "message_class",
    "retailer_code",
    "addresses",
    "tokens",
)
"""Fields that a mixed frame must leave empty."""

# --- As a server reads and answers them ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedFrame:
    """A frame of several groups: exactly one of `addresses` and `tokens` (uint8, shape (N, 16)) is given.

    A group that cannot be read has its error in place of its context.
    """

    groups: Sequence[Group]
    addresses: Sequence[str] | TextColumn | None
    tokens: npt.NDArray[np.uint8] | None
    address_key_id: bytes | None
    min_position: Position | None


def is_mixed(message: v1.StreamCheckRequest, cut: Cut) -> bool:
    """Say whether anything in a frame is of a mixed one."""
    in_message = message.groups or message.group_addresses or message.group_tokens
    return bool(in_message) or cut.group_addresses is not None or cut.group_tokens is not None


def mixed_of(message: v1.StreamCheckRequest, cut: Cut | None = None) -> MixedFrame:
    """Read a mixed frame, with the columns that were cut out of it. Raises QuestionError or BatchTooLargeError."""
    cut = cut or Cut()
    given = {field.name for field, _ in message.ListFields()}
    given |= {name for name, column in (("addresses", cut.addresses), ("tokens", cut.tokens)) if column is not None}
    if found := [name for name in _OF_ONE_BRAND if name in given]:
        raise QuestionError(found[0], "is given together with groups.", fix="In a mixed frame only groups say it.")
    if not message.groups:
        raise QuestionError("groups", "are missing: nothing says whose the recipients are.")
    if len(message.groups) > MAX_FRAME_GROUPS:
        raise BatchTooLargeError("groups", maximum=MAX_FRAME_GROUPS, actual=len(message.groups))
    min_position = min_position_of(message)
    addresses = message.group_addresses if cut.group_addresses is None else cut.group_addresses
    packed = np.frombuffer(message.group_tokens, np.uint8) if cut.group_tokens is None else cut.group_tokens
    if addresses and packed.size:
        raise QuestionError("group_tokens", "are given together with group_addresses.", fix="Send one of the two.")
    texts: Sequence[str] | TextColumn | None = None
    tokens, key_id = None, None
    if addresses:
        require_fits("group_addresses", len(addresses))
        texts = addresses if isinstance(addresses, TextColumn) else list(addresses)
    else:
        tokens, key_id = tokens_of(packed, "group_tokens"), message.address_key_id
        require_key_id(key_id, "")
    groups = [_group_of(group) for group in message.groups]
    recipients = len(texts) if tokens is None and texts is not None else len(packed) // TOKEN_BYTES
    if sum(group.recipients for group in groups) != recipients:
        raise QuestionError("groups", f"their recipients do not add up to the {recipients} that are given.")
    return MixedFrame(
        groups=groups,
        addresses=texts,
        tokens=tokens,
        address_key_id=key_id,
        min_position=min_position,
    )


def _group_of(message: v1.Group) -> Group:
    if not message.recipients:
        error = QuestionError("recipients", "must be at least 1.", fix="Leave out groups of nobody.")
        return Group(context=ItemError.of(error), recipients=0)
    try:
        return Group(context=context_of(message), recipients=message.recipients)
    except QuestionError as error:
        return Group(context=ItemError.of(error), recipients=message.recipients)


def mixed_response(frame_id: int, answer: MixedAnswer) -> v1.StreamCheckResponse:
    """Write the answer to a mixed frame."""
    message = v1.StreamCheckResponse(frame_id=frame_id, reasons=answer.reasons.tobytes())
    for number, recipients in enumerate(np.bincount(answer.reasons).tolist()):
        if recipients:
            message.counts.add(reason=cast("v1.Reason", number), recipients=recipients)
    for slot in answer.groups:
        group = message.groups.add()
        if isinstance(slot, ItemError):
            error = group.error
            error.reason, error.field, error.message = slot.reason, slot.field, slot.message
            continue
        result = group.result
        if slot.as_of is not None:
            result.as_of.seconds = slot.as_of
        write_timestamp(result.valid_until, slot.valid_until)
    write_envelope(message.envelope, answer.envelope)
    return message


# --- As a client writes and reads them ----------------------------------------------------------------------


def mixed_frame(
    groups: Sequence[v1.Group],
    *,
    addresses: Sequence[str] | None = None,
    tokens: npt.NDArray[np.uint8] | None = None,
    address_key_id: bytes | None = None,
    frame_id: int = 0,
    min_position: Position | None = None,
) -> v1.StreamCheckRequest:
    """Write a mixed frame of either addresses or tokens (uint8, shape (N, 16)), whose groups `group` made."""
    try:
        return v1.StreamCheckRequest(
            frame_id=frame_id,
            group_addresses=addresses,
            group_tokens=None if tokens is None else tokens.tobytes(),
            groups=groups,
            address_key_id=address_key_id,
            min_position=position_message(min_position),
        )
    except UnicodeEncodeError:
        sendable = [encodable(address) for address in addresses or ()]
        return mixed_frame(groups, addresses=sendable, frame_id=frame_id, min_position=min_position)


def knows_groups(message: v1.StreamCheckResponse) -> bool:
    """Say whether the reply to a mixed frame is from a server that knows such: else nobody in it was answered."""
    return bool(message.groups)


def mixed_answer_of(message: v1.StreamCheckResponse, groups: int, recipients: int) -> MixedAnswer:
    """Read the answer to a mixed frame of so many groups and recipients.

    The reasons are the numbers as received, known or not. Raises ServiceFailedError where a part is missing.
    """
    if len(message.groups) != groups:
        raise ServiceFailedError(f"The server answered {len(message.groups)} of the {groups} groups of a frame.")
    reasons = np.frombuffer(message.reasons, np.uint8)
    if len(reasons) != recipients:
        raise ServiceFailedError(f"The server answered {len(reasons)} of the {recipients} recipients of a frame.")
    envelope = envelope_of(message)
    return MixedAnswer(
        reasons=reasons, groups=[_slot_of(group, envelope) for group in message.groups], envelope=envelope
    )


def _slot_of(message: v1.GroupAnswer, frame: Envelope) -> Envelope | ItemError:
    outcome = message.WhichOneof("outcome")
    if outcome is None:
        return ItemError(
            reason=ServiceFailedError.reason, field="", message="The server sent neither an answer nor an error."
        )
    if outcome == "error":
        return error_of(message.error)
    return Envelope(
        position=frame.position,
        as_of=as_of(message.result),
        valid_until=seconds_of(message.result.valid_until),
        decision_id=frame.decision_id,
        policy_id=frame.policy_id,
    )
