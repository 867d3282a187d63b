"""What is asked and what is answered: value types shared by engine, wire, client and command line.

They are structs: making one takes a tenth of the time of a frozen dataclass, and a check makes four. None can be
part of a cycle, so the garbage collector does not look at them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from operator import index
from typing import Self, SupportsIndex, TypeAlias, cast

import msgspec
import numpy as np
import numpy.typing as npt

from iyscheck.change import LogStanding, Position
from iyscheck.consent import PERMITTING, Channel, MessageClass, Policy, Reason, RecipientType, Status, permits
from iyscheck.errors import InputError, IyscheckError, QuestionError
from iyscheck.keys import KEY_ID_BYTES, TOKEN_BYTES
from iyscheck.times import local_text

MAX_BATCH_QUESTIONS = 10_000
MAX_FRAME_RECIPIENTS = 65_536
MAX_FRAME_GROUPS = 1_024
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


Facts: TypeAlias = tuple[Status, int, int, str, str, int]
"""What a record says: status, registration and consent time in local seconds (0: absent), source, transaction id, and
the position of its row."""


def evidence_of(facts: Facts) -> Evidence:
    """Say what a record says as callers are told."""
    status, registered, consented, source, transaction_id, _ = facts
    return Evidence(
        status=status,
        source=source,
        consent_time=local_text(consented),
        registration_time=local_text(registered),
        transaction_id=transaction_id,
    )


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


class Finding(msgspec.Struct, frozen=True, gc=False):
    """An answer before it is put into words, for those who write it as bytes.

    `envelope` is shared by all that are alike in it; `decision_id` is this answer's own, and counts instead of that in
    the envelope.
    """

    reason: Reason
    message_class: MessageClass
    facts: Facts | None
    envelope: Envelope
    decision_id: str

    def answer(self) -> Answer:
        """Put it into words."""
        shared = self.envelope
        return Answer(
            reason=self.reason,
            message_class=self.message_class,
            evidence=None if self.facts is None else evidence_of(self.facts),
            envelope=Envelope(
                position=shared.position,
                as_of=shared.as_of,
                valid_until=shared.valid_until,
                decision_id=self.decision_id,
                policy_id=shared.policy_id,
            ),
        )


class ItemError(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Why one question of a batch, or one frame of a stream, was not answered."""

    reason: str
    field: str
    message: str

    @classmethod
    def of(cls, error: IyscheckError) -> Self:
        """Say of one question or frame what an error of the whole call would say."""
        field = error.field if isinstance(error, InputError) else ""
        return cls(reason=error.reason, field=field, message=str(error))


class BatchAnswer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The answers to a batch in the order asked, all from one snapshot; it can be used as the list of its items.

    The envelope's `as_of` and `valid_until` are the oldest and earliest of the items.
    """

    items: Sequence[Answer | ItemError]
    envelope: Envelope

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Answer | ItemError]:
        return iter(self.items)

    def __getitem__(self, place: int) -> Answer | ItemError:
        return self.items[place]


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


class Group(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The next so many recipients of a mixed frame, and what they share: or why they are not to be answered."""

    context: Context | ItemError
    recipients: int


class MixedAnswer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The answers to a mixed frame, all from one snapshot: reason numbers for each recipient, uint8 of shape (N,).

    `groups` holds an envelope for each group, in order, or why that group was not answered: then its recipients' number
    is 0, which denies. The envelope's `as_of` and `valid_until` are the oldest and earliest of the groups.
    """

    reasons: npt.NDArray[np.uint8]
    groups: Sequence[Envelope | ItemError]
    envelope: Envelope


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Reasons:
    """What may be read from the reason numbers of n recipients, uint8 of shape (n,)."""

    reasons: npt.NDArray[np.uint8]

    @property
    def permitted(self) -> npt.NDArray[np.bool_]:
        """Who may be sent to: bool of shape (n,)."""
        return PERMITTING[self.reasons]

    @property
    def counts(self) -> Mapping[Reason, int]:
        """How many recipients got each reason; numbers that this version does not know are UNSPECIFIED."""
        return counts_of(self.reasons)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameResult(_Reasons):
    """The answers to one frame: `reasons` is uint8 of shape (n,); `first` is the place of the first recipient."""

    first: int
    envelope: Envelope


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ColumnResult(_Reasons):
    """The answers to a whole column: `reasons` is uint8 of shape (N,), in the order asked.

    `envelopes` holds one envelope for each frame, in order; a column without recipients has none.
    """

    envelopes: tuple[Envelope, ...]

    @property
    def first_position(self) -> Position | None:
        """The position that the first frame was answered from."""
        return self.envelopes[0].position if self.envelopes else None

    @property
    def last_position(self) -> Position | None:
        """The position that the last frame was answered from."""
        return self.envelopes[-1].position if self.envelopes else None

    @property
    def as_of(self) -> int | None:
        """The oldest watermark of all frames, seconds UTC; None if one had none."""
        known = [envelope.as_of for envelope in self.envelopes if envelope.as_of is not None]
        return min(known) if known and len(known) == len(self.envelopes) else None

    @property
    def valid_until(self) -> float | None:
        """When the first of the answers ends to be valid, seconds UTC."""
        return min((envelope.valid_until for envelope in self.envelopes), default=None)

    @property
    def decision_ids(self) -> tuple[str, ...]:
        """The decision id of each frame, in order."""
        return tuple(envelope.decision_id for envelope in self.envelopes)


def joined(frames: Iterable[FrameResult]) -> ColumnResult:
    """Put the frames of one column together."""
    kept = list(frames)
    reasons = np.concatenate([frame.reasons for frame in kept]) if kept else np.zeros(0, np.uint8)
    return ColumnResult(reasons=reasons, envelopes=tuple(frame.envelope for frame in kept))


def counts_of(reasons: npt.NDArray[np.uint8]) -> Mapping[Reason, int]:
    """Count reasons; what this version does not know counts as UNSPECIFIED."""
    known = frozenset(Reason)
    counts: Counter[Reason] = Counter()
    for number, recipients in enumerate(np.bincount(reasons, minlength=1).tolist()):
        if recipients:
            counts[Reason(number) if number in known else Reason.UNSPECIFIED] += recipients
    return dict(counts)


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a client must know of a server to split and adapt its questions. `fronts` bring calls to it."""

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
    max_frame_groups: int
    max_message_bytes: int
    max_client_reference_bytes: int
    position: Position
    newest_watermark: int | None
    oldest_watermark: int | None
    policy: Policy
    answer_ttl_s: int
    fronts: tuple[str, ...] = ()
    standing: LogStanding | None = None
    """How the store stands in the log that replicas follow; None: it is in none."""


def checked(context: Context) -> Context:
    """Check what a question shares with others, and give plain numbers their kind. Raises QuestionError."""
    for field, highest, fix in (
        ("brand", MAX_BRAND_CODE, "It is the İYS brandCode."),
        ("retailer", MAX_RETAILER_CODE, "It is the İYS retailerCode."),
    ):
        code = getattr(context, field)
        if code is None and field == "retailer":
            continue
        number = _number(code)
        if number is None or not 0 < number <= highest:
            raise QuestionError(field, f"must be from 1 to {highest}.", fix=fix)
    for field, kind in (("channel", Channel), ("recipient_type", RecipientType), ("message_class", MessageClass)):
        given = getattr(context, field)
        if not isinstance(given, kind) and _number(given) not in frozenset(kind):
            raise QuestionError(field, f"is not a {kind.__name__}.")
    return Context(
        brand=index(context.brand),
        channel=Channel(context.channel),
        recipient_type=RecipientType(context.recipient_type),
        message_class=MessageClass(context.message_class),
        retailer=None if context.retailer is None else index(context.retailer),
    )


Kind: TypeAlias = tuple[int | None, Channel | None, RecipientType | None, MessageClass, int | None]
"""Brand, channel, recipient type, message class and retailer of a question in keywords, as they were given."""


class Contexts:
    """The contexts of questions that come in keywords, each checked when it is first asked for.

    Python takes `True` and `1.0` for `1`, and an enum for another's member of its number: a question that only equals a
    known one is checked by itself. At most `most` are remembered: callers can make up any number of them.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[Kind, Context] = {}

    def __len__(self) -> int:
        """Count those that are remembered."""
        return len(self._known)

    def of(self, kind: Kind) -> Context:
        """Give the context of what was asked. Raises QuestionError."""
        try:
            context = self._known.get(kind)
        except TypeError:  # what cannot be a key is nothing that can be asked: `_made` says of which argument
            context = None
        if context is not None:
            brand, channel, recipient_type, message_class, retailer = kind
            if (
                channel is context.channel
                and recipient_type is context.recipient_type
                and message_class is context.message_class
                and brand.__class__ is int
                and (retailer is None or retailer.__class__ is int)
            ):
                return context
        return self._made(kind)

    def _made(self, kind: Kind) -> Context:
        brand, channel, recipient_type, message_class, retailer = kind
        context = checked(
            Context(
                brand=cast("int", brand),  # each is checked there
                channel=cast("Channel", channel),
                recipient_type=cast("RecipientType", recipient_type),
                message_class=message_class,
                retailer=retailer,
            )
        )
        if len(self._known) >= self._most:
            self._known.clear()
        self._known[kind] = context
        return context


def is_plain(context: Context) -> bool:
    """Say whether a context that somebody made holds kinds and whole numbers themselves, nothing that equals them."""
    return (
        context.channel.__class__ is Channel
        and context.recipient_type.__class__ is RecipientType
        and context.message_class.__class__ is MessageClass
        and context.brand.__class__ is int
        and (context.retailer is None or context.retailer.__class__ is int)
    )


def checked_recipient(
    address: str | None, token: bytes | None, address_key_id: bytes | None, own_key_id: bytes | None
) -> bytes | None:
    """Check who is asked about; return the id of the token's key, None for an address. Raises QuestionError."""
    if (address is None) == (token is None):
        raise QuestionError("address", "exactly one of address and token must be given.")
    if token is None:
        if not isinstance(address, str):
            raise QuestionError("address", "is not a text.")
        return None
    if not isinstance(token, bytes) or len(token) != TOKEN_BYTES:
        raise QuestionError("token", f"must have {TOKEN_BYTES} bytes.")
    return checked_key_id(address_key_id or own_key_id)


def _number(given: object) -> int | None:
    """Return a whole number, numpy's too; None for all else: a bool or another thing's enum is a mistake."""
    if isinstance(given, bool | Enum):
        return None
    try:
        return index(cast("SupportsIndex", given))
    except TypeError:
        return None


def checked_key_id(key_id: bytes | None) -> bytes:
    """Check that tokens come with the id of their key. Raises QuestionError."""
    if not isinstance(key_id, bytes) or len(key_id) != KEY_ID_BYTES:
        raise QuestionError("address_key_id", f"tokens need the id of their address key, {KEY_ID_BYTES} bytes.")
    return key_id
