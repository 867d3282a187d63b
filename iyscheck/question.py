"""What is asked and what is answered: value types shared by engine, wire, client and command line.

They are structs: making one takes a tenth of the time of a frozen dataclass, and a check makes four. None can be
part of a cycle, so the garbage collector does not look at them.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from iyscheck.change import Position
from iyscheck.consent import Channel, MessageClass, Policy, Reason, RecipientType, Status, permits

MAX_BATCH_QUESTIONS = 10_000
MAX_FRAME_RECIPIENTS = 65_536
MAX_MESSAGE_BYTES = 8 * 1024 * 1024
MAX_CLIENT_REFERENCE_BYTES = 128
MAX_BRAND_CODE = 2**32 - 1
MAX_RETAILER_CODE = 2**63 - 1


class Context(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a question shares with all the others of its frame.

    `retailer` is the İYS retailerCode in whose name the message goes out, if any.
    """

    brand: int
    channel: Channel
    recipient_type: RecipientType
    message_class: MessageClass = MessageClass.COMMERCIAL
    retailer: int | None = None


class Question(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One recipient of one brand: exactly one of `address` (plaintext) and `token` (16 bytes) is given.

    `address_key_id` (8 bytes) says with which key the token was made.
    """

    context: Context
    address: str | None = None
    token: bytes | None = None
    address_key_id: bytes | None = None


class Evidence(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The record an answer rests on. Times are the 19-character İYS texts, empty if absent."""

    status: Status
    source: str
    consent_time: str
    registration_time: str
    transaction_id: str


class Envelope(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How fresh an answer is and how to refer to it.

    Times are seconds since 1970 UTC. `as_of` is the brand's watermark; None if it has none or the store was
    not read. `decision_id` is a UUIDv7 in its 36-character form; an item of a batch is its id and index.
    """

    position: Position
    as_of: int | None
    valid_until: float
    decision_id: str
    policy_id: str


class Answer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The answer to one question."""

    reason: Reason
    message_class: MessageClass
    evidence: Evidence | None
    envelope: Envelope

    @property
    def permitted(self) -> bool:
        """Whether the message may be sent."""
        return permits(self.reason)


class ItemError(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Why one question of a batch, or one frame of a stream, was not answered."""

    reason: str
    field: str
    message: str


class BatchAnswer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The answers to a batch in the order asked, all from one snapshot.

    The envelope's `as_of` and `valid_until` are the oldest and earliest of the items.
    """

    items: Sequence[Answer | ItemError]
    envelope: Envelope


class ColumnAnswer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A reason number for each recipient of a frame: uint8, shape (N,). How many got each: int64, shape (256,)."""

    reasons: npt.NDArray[np.uint8]
    counts: npt.NDArray[np.int64]
    envelope: Envelope

    @classmethod
    def of(cls, reasons: npt.NDArray[np.uint8], envelope: Envelope) -> "ColumnAnswer":
        """Count the reasons."""
        return cls(reasons=reasons, counts=np.bincount(reasons, minlength=256), envelope=envelope)

    def tally(self) -> list[tuple[int, int]]:
        """List the reason numbers that were given, and how many recipients got each."""
        given = self.counts.nonzero()[0]
        return list(zip(given.tolist(), self.counts[given].tolist(), strict=True))


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a client must know of a server to split and adapt its questions."""

    server_version: str
    kernel: str
    address_form: int
    rule_version: int
    store_format: int
    address_key_id: bytes
    store_key_id: bytes
    takes_addresses: bool
    max_batch_questions: int
    max_frame_recipients: int
    max_message_bytes: int
    max_client_reference_bytes: int
    position: Position
    newest_watermark: int | None
    oldest_watermark: int | None
    policy: Policy
    answer_ttl_s: int
