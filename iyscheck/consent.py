"""The vocabulary of İYS and the rule that decides: may this message be sent?

Everything that decides a verdict lives in this file and is pure: no clock, store, socket or setting is read.
`decide` is the rule, first match wins, in the order of the published table. `verdicts` evaluates the same
function once for every state a record can have, so that a column of a million recipients is one array look-up
and the two cannot disagree.

Every number here is the number on the wire and on disk; a test compares the three.
"""

import functools
import hashlib
from bisect import bisect_right
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from iyscheck.times import local_seconds

RULE_VERSION: Final = 2
"""Raised whenever `decide` changes; part of every policy id."""

DEFAULT_FRESHNESS_LIMIT_S: Final = 26 * 3600
"""A daily file and its slack."""

DEFAULT_ANSWER_TTL_S: Final = 300

CLOCK_TOLERANCE_S: Final = 300
"""How far a watermark may lie ahead of our clock before one of the two must be wrong."""


class Channel(IntEnum):
    """Through what a message reaches its recipient (İYS `type`)."""

    ARAMA = 1
    MESAJ = 2
    EPOSTA = 3


class RecipientType(IntEnum):
    """As what the recipient is addressed (İYS `recipientType`); consents of the two never mix."""

    BIREYSEL = 1
    TACIR = 2


class Status(IntEnum):
    """What the newest change to a consent says. No record is `NONE`, never stored."""

    NONE = 0
    ONAY = 1
    RET = 2
    UNKNOWN = 3


class MessageClass(IntEnum):
    """What the sender declares the message to be; every class but COMMERCIAL is outside the consent duty."""

    COMMERCIAL = 1
    # Exempt by content (Regulation 29417, Art. 6)
    SUBSCRIPTION = 2
    MEMBERSHIP = 3
    PARTNERSHIP = 4
    COLLECTION = 5
    DEBT_REMINDER = 6
    INFORMATION_UPDATE = 7
    PURCHASE = 8
    DELIVERY = 9
    SUPPLY_USE_MAINTENANCE = 10
    SECURITY_CODE = 11
    LEGAL_NOTICE = 12
    CAPITAL_MARKET_NOTICE = 13
    # Exempt by sender
    STUDENT_NOTICE = 14
    MEMBER_NOTICE = 15
    PUBLIC_NOTICE = 16
    OPERATOR_NOTICE = 17
    BROADCASTER_NOTICE = 18

    @property
    def exempt(self) -> bool:
        """Whether messages of this class need no consent."""
        return self is not MessageClass.COMMERCIAL


class Reason(IntEnum):
    """Why an answer is what it is. Numbers 1 to 63 permit, everything else denies."""

    UNSPECIFIED = 0
    CONSENTED = 1
    MERCHANT_NOT_REFUSED = 2
    EXEMPT_MESSAGE = 3
    INVALID_ADDRESS = 64
    BRAND_NOT_REGISTERED = 65
    BRAND_INACTIVE = 66
    DATA_STALE = 67
    STATUS_UNKNOWN = 68
    REFUSED = 69
    REGISTERED_TOO_LATE = 70
    RETAILER_NOT_AUTHORISED = 71
    MERCHANT_NOT_RECORDED = 72
    NO_CONSENT = 73
    LOCALLY_SUPPRESSED = 74


LAST_PERMITTING_NUMBER: Final = 63


def permits(reason: int) -> bool:
    """Say whether a reason number permits: only a known one from 1 to 63 does, anything else denies."""
    return 0 < reason <= LAST_PERMITTING_NUMBER and reason in _KNOWN_REASONS


_KNOWN_REASONS: Final = frozenset(Reason)

PERMITTING: Final[npt.NDArray[np.bool_]] = np.array([permits(number) for number in range(256)])
"""`permits` for each byte, shape (256,): index it with a column of reasons."""
PERMITTING.setflags(write=False)


class LegacyDeadline(IntEnum):
    """Until when consents of individuals taken before 1 December 2020 had to be registered at İYS."""

    ANNOUNCED = 1
    OVER_150K = 2
    UP_TO_150K = 3


LEGACY_CONSENTS_BEFORE: Final = local_seconds("2020-12-01 00:00:00")
"""Consents taken from this second on are İYS's own business (three business days, error H467)."""

REGISTERED_BEFORE: Final[dict[LegacyDeadline, int]] = {
    # Half-open: registered at or after this second is too late. Sources: İYS slides of October 2020;
    # notice of 30 November 2020 (providers with more than 150,000 consents until 31 December, others until 31 May).
    LegacyDeadline.ANNOUNCED: local_seconds("2020-12-01 00:00:00"),
    LegacyDeadline.OVER_150K: local_seconds("2021-01-01 00:00:00"),
    LegacyDeadline.UP_TO_150K: local_seconds("2021-06-01 00:00:00"),
}


_REGISTERED_BEFORE: Final = sorted(REGISTERED_BEFORE.values())

STATE_VERSION: Final = 2
"""Raised whenever the same record gets another state byte: an index that was made before is not used any more.

2: what a citizen did at İYS misses no deadline.
"""

# The state of a record: facts, not verdicts, in one byte. The decision index stores the same byte.
STATUS_BITS: Final = 0b0000_0011
DEADLINE_SHIFT: Final = 2
DEADLINE_BITS: Final = 0b0000_1100
RETAILER_BIT: Final = 0b0001_0000
"""There is a list of retailers for the consent, or there may be one."""
STATES: Final = 32


CITIZEN_PREFIX: Final = "IYS_"
"""What the sources of changes begin with that a citizen made at İYS; the codes behind it grow in number."""


def is_citizens_own(source: str) -> bool:
    """Say whether a change is the citizen's own act at İYS, which no deadline of senders concerns.

    Anything else, an absent or mended source too, is not known to be.
    """
    return source.startswith(CITIZEN_PREFIX)


def deadlines_missed(
    consented: npt.NDArray[np.int64], registered: npt.NDArray[np.int64], by_citizen: npt.NDArray[np.bool_]
) -> npt.NDArray[np.uint8]:
    """Count how many of the legacy deadlines each consent missed: 0, or the latest `LegacyDeadline` missed.

    The times are local seconds, shape (N,); an absent consent time is 0 and so counts as before the cut. `by_citizen`
    bool (N,) is `is_citizens_own` of each source.
    """
    missed = np.zeros(registered.shape, np.uint8)
    for before in REGISTERED_BEFORE.values():
        missed += registered >= before
    missed[(consented >= LEGACY_CONSENTS_BEFORE) | by_citizen] = 0
    return missed


def states(
    status: npt.NDArray[np.uint8],
    consented: npt.NDArray[np.int64],
    registered: npt.NDArray[np.int64],
    by_citizen: npt.NDArray[np.bool_],
    has_retailers: npt.NDArray[np.bool_],
) -> npt.NDArray[np.uint8]:
    """Pack the facts of N records into their state bytes, shape (N,). A status beyond 3 becomes UNKNOWN."""
    packed = np.minimum(status, np.uint8(Status.UNKNOWN))
    packed |= deadlines_missed(consented, registered, by_citizen) << np.uint8(DEADLINE_SHIFT)
    packed[has_retailers] |= np.uint8(RETAILER_BIT)
    return packed


def state(status: Status, consented: int, registered: int, source: str) -> int:
    """Pack the facts of one record, without the retailer bit: what `states` gives for it, without arrays."""
    if consented >= LEGACY_CONSENTS_BEFORE or is_citizens_own(source):
        return int(status)
    return status | bisect_right(_REGISTERED_BEFORE, registered) << DEADLINE_SHIFT


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What an operator may choose about the rule. Its id travels with each answer."""

    merchants_need_record: bool = False
    legacy_deadline: LegacyDeadline = LegacyDeadline.UP_TO_150K
    freshness_limit_s: int = DEFAULT_FRESHNESS_LIMIT_S

    @property
    def policy_id(self) -> str:
        """Sixteen hex digits over the rule's version and every choice made here."""
        text = (
            f"iyscheck policy\nrule {RULE_VERSION}\nmerchants_need_record {int(self.merchants_need_record)}\n"
            f"legacy_deadline {int(self.legacy_deadline)}\nfreshness_limit_s {self.freshness_limit_s}\n"
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """What the rule must know about the asking side, the same for all recipients of a frame."""

    message_class: MessageClass
    recipient_type: RecipientType
    registered: bool
    authorised: bool
    fresh: bool
    names_retailer: bool
    legacy_deadline: LegacyDeadline
    merchants_need_record: bool


def decide(sender: Sender, *, readable: bool, state: int, retailer_listed: bool) -> Reason:
    """Answer for one recipient. First match wins; the numbers are the rows of the published table."""
    status = Status(state & STATUS_BITS)
    missed = (state & DEADLINE_BITS) >> DEADLINE_SHIFT
    merchant = sender.recipient_type is RecipientType.TACIR
    too_late = not merchant and missed >= sender.legacy_deadline
    rows = (
        (sender.message_class.exempt, Reason.EXEMPT_MESSAGE),  # 1
        (not readable, Reason.INVALID_ADDRESS),  # 2
        (not sender.registered, Reason.BRAND_NOT_REGISTERED),  # 3
        (not sender.authorised, Reason.BRAND_INACTIVE),  # 4
        (not sender.fresh, Reason.DATA_STALE),  # 5
        (status is Status.UNKNOWN, Reason.STATUS_UNKNOWN),  # 6
        (status is Status.RET, Reason.REFUSED),  # 7
        (status is Status.ONAY and too_late, Reason.REGISTERED_TOO_LATE),  # 8
        (
            status is Status.ONAY and sender.names_retailer and not retailer_listed,
            Reason.RETAILER_NOT_AUTHORISED,
        ),  # 9
        (status is Status.ONAY, Reason.CONSENTED),  # 10
        (not merchant, Reason.NO_CONSENT),  # 12
        (sender.merchants_need_record, Reason.MERCHANT_NOT_RECORDED),  # 11
        (True, Reason.MERCHANT_NOT_REFUSED),  # 11
    )
    return next(reason for matches, reason in rows if matches)


@functools.cache
def verdicts(sender: Sender) -> npt.NDArray[np.uint8]:
    """Evaluate `decide` for every state: shape (2, 2, STATES), indexed [readable, retailer_listed, state].

    Cached: there are few senders, and each table is read-only.
    """
    table = np.array(
        [
            [
                [decide(sender, readable=readable, state=state, retailer_listed=listed) for state in range(STATES)]
                for listed in (False, True)
            ]
            for readable in (False, True)
        ],
        np.uint8,
    )
    table.setflags(write=False)
    return table


UNREADABLE_STATE: Final = 254
"""Stands for a recipient without an address, in columns of states. No record has it."""


def verdicts_by_state(table: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Lay a table of `verdicts` out for columns of state bytes: shape (2, 256), indexed [retailer_listed, state].

    A state that no record has gets UNSPECIFIED, which denies. Read-only.
    """
    by_state = np.full((2, 256), Reason.UNSPECIFIED, np.uint8)
    by_state[:, :STATES] = table[1]
    by_state[:, UNREADABLE_STATE] = table[0, :, 0]
    by_state.setflags(write=False)
    return by_state
