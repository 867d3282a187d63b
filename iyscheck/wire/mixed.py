"""Mixed frames both ways: groups of recipients that share everything else, one after the other in one frame."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, cast

import numpy as np
import numpy.typing as npt
from google.protobuf.timestamp_pb2 import Timestamp

from iyscheck.address import TextColumn
from iyscheck.change import Position
from iyscheck.errors import BatchTooLargeError, MalformedFrameError, QuestionError, ServiceFailedError
from iyscheck.keys import TOKEN_BYTES
from iyscheck.question import MAX_FRAME_GROUPS, Context, Envelope, Group, ItemError, MixedAnswer
from iyscheck.v1 import consent_check_pb2 as v1
from iyscheck.wire.answers import envelope_of, write_envelope
from iyscheck.wire.cut import Cut
from iyscheck.wire.fields import (
    error_message,
    error_of,
    instant_of,
    parse,
    position_message,
    seconds_of,
    write_timestamp,
)
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
_GROUPS_TAG: Final = v1.StreamCheckRequest.GROUPS_FIELD_NUMBER << 3 | 2
_RECIPIENTS_TAG: Final = v1.Group.RECIPIENTS_FIELD_NUMBER << 3
_SLOT_TAG: Final = v1.StreamCheckResponse.GROUPS_FIELD_NUMBER << 3 | 2
_RESULT_TAG: Final = v1.GroupAnswer.RESULT_FIELD_NUMBER << 3 | 2
_ONE_BYTE: Final = 0x80
"""From here on a number takes more than one byte. No head is as long, and no result."""

_NEITHER: Final = ItemError(
    reason=ServiceFailedError.reason, field="", message="The server sent neither an answer nor an error."
)

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
    in_parts = cut.group_addresses is not None or cut.group_tokens is not None or cut.groups is not None
    return bool(in_message) or in_parts


class KnownGroups:
    """Groups that came before, by their bytes: they come again and again. At most `most` are remembered."""

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._known: dict[bytes, Group] = {}

    def __len__(self) -> int:
        """Count those that are remembered."""
        return len(self._known)

    def of(self, data: bytes) -> Group:
        """Read a group; what is wrong with it stands in place of its context. Raises MalformedFrameError."""
        group = self._known.get(data)
        if group is None:
            group = _group_of(_parsed(data))
            if len(data) < _ONE_BYTE:  # only fields that nobody knows make it longer, perhaps by megabytes
                if len(self._known) >= self._most:
                    self._known.clear()
                self._known[data] = group
        return group


def mixed_of(message: v1.StreamCheckRequest, cut: Cut, known: KnownGroups) -> MixedFrame:
    """Read a mixed frame, with what was cut out of it.

    Raises QuestionError or BatchTooLargeError, and MalformedFrameError where a group was cut out that is none.
    """
    if len(message.groups) > MAX_FRAME_GROUPS:
        raise BatchTooLargeError("groups", maximum=MAX_FRAME_GROUPS, actual=len(message.groups))
    in_bytes = [group.SerializeToString() for group in message.groups] if cut.groups is None else cut.groups
    groups = [known.of(data) for data in in_bytes]
    given = {field.name for field, _ in message.ListFields()}
    given |= {name for name, column in (("addresses", cut.addresses), ("tokens", cut.tokens)) if column is not None}
    if found := [name for name in _OF_ONE_BRAND if name in given]:
        raise QuestionError(found[0], "is given together with groups.", fix="In a mixed frame only groups say it.")
    if not groups:
        raise QuestionError("groups", "are missing: nothing says whose the recipients are.")
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
    recipients = len(texts) if tokens is None and texts is not None else len(packed) // TOKEN_BYTES
    if sum([group.recipients for group in groups]) != recipients:
        raise QuestionError("groups", f"their recipients do not add up to the {recipients} that are given.")
    return MixedFrame(
        groups=groups,
        addresses=texts,
        tokens=tokens,
        address_key_id=key_id,
        min_position=min_position,
    )


def _parsed(data: bytes) -> v1.Group:
    """Parse a group; bytes that are none make the frame none, in the words of whoever parses the whole frame."""
    try:
        return parse(v1.Group, data, MalformedFrameError)
    except MalformedFrameError:
        name = v1.StreamCheckRequest.DESCRIPTOR.name
        raise MalformedFrameError("request", f"the bytes are not a {name}.") from None


def _group_of(message: v1.Group) -> Group:
    recipients = message.recipients
    if not recipients:
        error = QuestionError("recipients", "must be at least 1.", fix="Leave out groups of nobody.")
        return Group(context=ItemError.of(error), recipients=0)
    try:
        return Group(context=context_of(message), recipients=recipients)
    except QuestionError as error:
        return Group(context=ItemError.of(error), recipients=recipients)


def mixed_response(frame_id: int, answer: MixedAnswer) -> v1.StreamCheckResponse:
    """Write the answer to a mixed frame."""
    message = v1.StreamCheckResponse(frame_id=frame_id, reasons=answer.reasons.tobytes())
    counts = np.bincount(answer.reasons)
    for number in counts.nonzero()[0].tolist():
        message.counts.add(reason=cast("v1.Reason", number), recipients=int(counts[number]))
    write_envelope(message.envelope, answer.envelope)
    message.MergeFromString(_slots(answer.groups))
    return message


def _slots(slots: Sequence[Envelope | ItemError]) -> bytes:
    """Write the answers to groups as they stand in the reply: by messages it takes three times as long."""
    written: list[bytes] = []
    for slot in slots:
        if isinstance(slot, ItemError):
            error = v1.GroupAnswer(error=error_message(slot))
            written.append(v1.StreamCheckResponse(groups=[error]).SerializeToString())
            continue
        result = (b"" if slot.as_of is None else _as_of(slot.as_of)) + _valid_until(slot.valid_until)
        size = len(result)
        written.append(bytes((_SLOT_TAG, size + 2, _RESULT_TAG, size)) + result)
    return b"".join(written)


@lru_cache(maxsize=10_000)
def _as_of(seconds: int) -> bytes:
    return v1.GroupResult(as_of=Timestamp(seconds=seconds)).SerializeToString()


@lru_cache(maxsize=1_000)
def _valid_until(seconds: float) -> bytes:
    result = v1.GroupResult()
    write_timestamp(result.valid_until, seconds)
    return result.SerializeToString()


# --- As a client writes and reads them ----------------------------------------------------------------------


def group_head(context: Context) -> bytes:
    """Write what a group of this context says besides its recipients; `mixed_frame` takes it again and again."""
    return v1.Group(
        brand_code=context.brand,
        channel=cast("v1.Channel", context.channel),
        recipient_type=cast("v1.RecipientType", context.recipient_type),
        message_class=cast("v1.MessageClass", context.message_class),
        retailer_code=context.retailer,
    ).SerializeToString()


def mixed_frame(
    groups: Sequence[tuple[bytes, int]],
    *,
    addresses: Sequence[str] | None = None,
    tokens: npt.NDArray[np.uint8] | None = None,
    address_key_id: bytes | None = None,
    frame_id: int = 0,
    min_position: Position | None = None,
) -> v1.StreamCheckRequest:
    """Write a mixed frame of either addresses or tokens (uint8, shape (N, 16)).

    Each group is what `group_head` wrote, and how many recipients it has.
    """
    try:
        message = v1.StreamCheckRequest(
            frame_id=frame_id,
            group_addresses=addresses,
            group_tokens=None if tokens is None else tokens.tobytes(),
            address_key_id=address_key_id,
            min_position=position_message(min_position),
        )
    except UnicodeEncodeError:
        sendable = [encodable(address) for address in addresses or ()]
        return mixed_frame(groups, addresses=sendable, frame_id=frame_id, min_position=min_position)
    message.MergeFromString(b"".join([_group(head, recipients) for head, recipients in groups]))
    return message


def _group(head: bytes, recipients: int) -> bytes:
    """Write a group as it stands in the frame: a tenth of the time of making a message of it."""
    if recipients < _ONE_BYTE:
        return bytes((_GROUPS_TAG, len(head) + 2)) + head + bytes((_RECIPIENTS_TAG, recipients))
    group = v1.Group.FromString(head)
    group.recipients = recipients
    return v1.StreamCheckRequest(groups=[group]).SerializeToString()


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
    position, decision_id, policy_id = envelope.position, envelope.decision_id, envelope.policy_id
    slots: list[Envelope | ItemError] = []
    for group in message.groups:
        if not group.HasField("result"):
            slots.append(error_of(group.error) if group.HasField("error") else _NEITHER)
            continue
        result = group.result
        slots.append(
            Envelope(
                position=position,
                as_of=instant_of(result.as_of) if result.HasField("as_of") else None,
                valid_until=seconds_of(result.valid_until),
                decision_id=decision_id,
                policy_id=policy_id,
            )
        )
    return MixedAnswer(reasons=reasons, groups=slots, envelope=envelope)
