"""What requests and answers share: parsing, numbers and their names, positions and times.

Whatever is unknown, contradictory or missing becomes a denial or an error, never a permission.
"""

import math
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from iyscheck.change import Position
from iyscheck.consent import Channel, LegacyDeadline, MessageClass, Reason, RecipientType, Status
from iyscheck.errors import MalformedError, ServiceFailedError
from iyscheck.question import ItemError
from iyscheck.v1 import consent_check_pb2 as v1

_NANO: Final = 1_000_000_000
CHANNELS: Final = {int(channel): channel for channel in Channel}
TYPES: Final = {int(recipient_type): recipient_type for recipient_type in RecipientType}
CLASSES: Final = {int(message_class): message_class for message_class in MessageClass}
REASONS: Final = {int(reason): reason for reason in Reason}
STATUSES: Final = {int(status): status for status in Status}
DEADLINES: Final = {int(deadline): deadline for deadline in LegacyDeadline}

_DAY_S: Final = 86_400
_FIRST_S: Final = -62_135_596_800 + _DAY_S
_LAST_S: Final = 253_402_300_799 - _DAY_S
"""The years 1 to 9999, which a Timestamp may be of; a day less, so that every zone can write it."""

_M = TypeVar("_M", bound=Message)


def parse(kind: type[_M], data: bytes, error: type[MalformedError] = MalformedError) -> _M:
    """Read a message from its bytes. Raises `error` where they are not one (bad UTF-8 among it)."""
    try:
        return kind.FromString(data)
    except DecodeError:
        raise error("request", f"the bytes are not a {kind.DESCRIPTOR.name}.") from None


def error_message(error: ItemError) -> v1.ItemError:
    """Write why an item was not answered."""
    return v1.ItemError(reason=error.reason, field=error.field, message=error.message)


def write_timestamp(message: Timestamp, seconds: float) -> None:
    """Write seconds since 1970 UTC."""
    message.seconds, message.nanos = whole_and_nanos(seconds)


def whole_and_nanos(seconds: float) -> tuple[int, int]:
    """Take seconds apart as a Timestamp has them."""
    whole = math.floor(seconds)
    return whole, int((seconds - whole) * _NANO)


def position_message(position: Position | None) -> v1.Position | None:
    """Write a position, if there is one."""
    return None if position is None else v1.Position(log_id=position.log_id, sequence=position.sequence)


def timestamp(seconds: int | None) -> Timestamp | None:
    """Write seconds since 1970 UTC as a message, if there are any."""
    return None if seconds is None else Timestamp(seconds=seconds)


def error_of(message: v1.ItemError) -> ItemError:
    """Read why an item was not answered."""
    return ItemError(reason=message.reason, field=message.field, message=message.message)


def seconds_of(timestamp: Timestamp) -> float:
    """Read seconds since 1970 UTC. Raises ServiceFailedError for a time that cannot be."""
    return instant_of(timestamp) + timestamp.nanos / _NANO


def instant_of(timestamp: Timestamp) -> int:
    """Read whole seconds since 1970 UTC. Raises ServiceFailedError for a time that cannot be."""
    if not _FIRST_S <= timestamp.seconds <= _LAST_S:
        raise ServiceFailedError(
            "The server told a time that cannot be.", fix="Is it an iyscheck server, and is its clock right?"
        )
    return timestamp.seconds
