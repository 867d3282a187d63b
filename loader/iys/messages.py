"""What İYS answers, decoded: strict about what decides, deaf to everything else."""

from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from iyscheck.consent import Channel, RecipientType


class FeedSource(StrEnum):
    """The two halves of the changes feed: the provider's own movements, and those that citizens made with İYS."""

    HS = "HS"
    IYS = "IYS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """When a request left (own clock, seconds UTC), and by how much İYS's clock is ahead, None if it did not say."""

    at_s: float
    ahead_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of the changes feed, in İYS's order. `rows` are as received but without `citizenName`.

    `after` is opaque: byte for byte what İYS gave, None where it gave none. 204 and an empty list are pages of no rows.
    """

    rows: tuple[dict[str, object], ...]
    after: str | None
    asked: Asked


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedBrand:
    """A brand as a listing has it. `consents` is how many İYS says it has, None where it did not say."""

    brand: int
    iys_code: int
    name: str
    channels: frozenset[Channel]
    reconciles: bool = True
    consents: int | None = None


class SubscriptionState(StrEnum):
    """Whether an account may be served."""

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    EXPIRED = "EXPIRED"
    CLOSED = "CLOSED"
    ABSENT = "ABSENT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """An account's subscription; the date is İYS's text, empty where it gave none."""

    state: SubscriptionState
    expires: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryLine:
    """What İYS counted of a day: of one channel, recipient type and source."""

    channel: Channel
    recipient_type: RecipientType
    source: FeedSource
    approval: int
    rejection: int
    pending: int
    total: int


class AgreementState(StrEnum):
    """How far İYS is with the file of a day; ABSENT where it has none (204)."""

    QUEUED = "queued"
    IN_PROGRESS = "inprogress"
    COMPLETED = "completed"
    ERROR = "error"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What İYS says of the file of a day: `hash` in lower-case hexadecimal, empty where it gave none."""

    day: date
    state: AgreementState
    hash: str = ""
    method: str = ""
    agreed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PushAddress:
    """A registered push address; `is_good` says whether İYS could connect."""

    url: str
    channel: Channel
    is_good: bool
    registered: str = ""
