"""ONE table of names: what feeds call their fields, their kinds of rows and their codes.

A name is known exactly or not at all. What only resembles a known name is recognised to be refused, never to be
guessed: taken for unknown, it would leave a default in the place of what it says. Codes, the values, are read without
regard to case and outer spaces. Sources: İYS API 3.2.0, "TANIMLAR", the changes feed, push and "MUTABAKAT YÖNETİMİ".
"""

from enum import IntEnum
from typing import Final

from iyscheck.consent import Channel, LegacyDeadline, RecipientType, Status


class Kind(IntEnum):
    """The kinds of rows."""

    CONSENT = 0
    RETAILER_ACCESS = 1
    BRAND = 2
    WATERMARK = 3
    UNKNOWN = 4


# --- Fields -----------------------------------------------------------------------------------------------

KIND: Final = "kind"
BRAND_CODE: Final = "brandCode"
RECIPIENT: Final = "recipient"
RECIPIENT_TYPE: Final = "recipientType"
TYPE: Final = "type"
STATUS: Final = "status"
SOURCE: Final = "source"
CONSENT_DATE: Final = "consentDate"
CREATION_DATE: Final = "creationDate"
TRANSACTION_ID: Final = "transactionId"
RETAILER_ACCESS: Final = "retailerAccess"
IYS_CODE: Final = "iysCode"
ACTIVE: Final = "active"
CHANNELS: Final = "channels"
LEGACY_DEADLINE: Final = "legacyDeadline"
COMPLETE_UNTIL: Final = "completeUntil"

LIST: Final = "list"
AFTER: Final = "after"
ERRORS: Final = "errors"

FIELDS: Final = {
    Kind.CONSENT: (
        KIND,
        BRAND_CODE,
        RECIPIENT,
        RECIPIENT_TYPE,
        TYPE,
        STATUS,
        SOURCE,
        CONSENT_DATE,
        CREATION_DATE,
        TRANSACTION_ID,
        RETAILER_ACCESS,
    ),
    Kind.RETAILER_ACCESS: (KIND, BRAND_CODE, RECIPIENT, RECIPIENT_TYPE, TYPE, RETAILER_ACCESS, CREATION_DATE),
    Kind.BRAND: (KIND, BRAND_CODE, IYS_CODE, ACTIVE, CHANNELS, LEGACY_DEADLINE, CREATION_DATE),
    Kind.WATERMARK: (KIND, BRAND_CODE, COMPLETE_UNTIL),
}
"""What each kind of row says."""
NEEDED: Final = (BRAND_CODE, RECIPIENT, RECIPIENT_TYPE, TYPE, STATUS, CREATION_DATE)
"""Of a consent."""
BESIDE_THE_POINT: Final = tuple(name for name in FIELDS[Kind.CONSENT] if name not in (KIND, *NEEDED))
"""Of a consent: what a refusal counts without."""
CSV_COLUMNS: Final = (
    CREATION_DATE,
    TRANSACTION_ID,
    RECIPIENT,
    RECIPIENT_TYPE,
    TYPE,
    STATUS,
    CONSENT_DATE,
    SOURCE,
)
"""Of the daily file, in their order."""
CSV_NEEDED: Final = tuple(name for name in CSV_COLUMNS if name in NEEDED)
PERSONAL: Final = "citizenName"
BESIDE_CONSENTS: Final = frozenset(
    (
        IYS_CODE,
        PERSONAL,
        "retailerCode",
        "retailerTitle",
        "retailerAccessCount",
        "requestId",
        "subRequestId",
        AFTER,
    )
)
"""Keys that İYS itself writes beside a consent. They say nothing here, and are misspelt forms of nothing."""

# --- Codes ------------------------------------------------------------------------------------------------

KIND_CODES: Final[dict[str, int]] = {
    "CONSENT": Kind.CONSENT,
    "RETAILERACCESS": Kind.RETAILER_ACCESS,
    "BRAND": Kind.BRAND,
    "WATERMARK": Kind.WATERMARK,
}
USUAL_KIND: Final = "consent"
"""As it is written where it is written at all."""
CHANNEL_CODES: Final[dict[str, int]] = {channel.name: channel.value for channel in Channel}
RECIPIENT_TYPE_CODES: Final[dict[str, int]] = {kind.name: kind.value for kind in RecipientType}
STATUS_CODES: Final[dict[str, int]] = {
    "ONAY": Status.ONAY,
    "RET": Status.RET,
    "RED": Status.RET,  # how partners spell it
}
"""Every other status is kept as unknown, which denies."""
DEADLINE_CODES: Final[dict[int | str, int]] = {
    **{deadline.name: deadline.value for deadline in LegacyDeadline},
    "announced": LegacyDeadline.ANNOUNCED,
    "over-150k": LegacyDeadline.OVER_150K,
    "up-to-150k": LegacyDeadline.UP_TO_150K,
    1: LegacyDeadline.ANNOUNCED,
    2: LegacyDeadline.OVER_150K,
    3: LegacyDeadline.UP_TO_150K,
}
BRAND_MAX: Final = 2**32 - 1
CODE_MAX: Final = 2**63 - 1
RETAILERS_MAX: Final = 3000
TEST_BRAND: Final = 121212
"""İYS sends one dummy row of it when a push address is registered; it must not enter the mirror."""

# --- How they are compared --------------------------------------------------------------------------------

_ONE_I: Final = str.maketrans({"ı": "i", "İ": "i", "I": "i", "\u0307": None})
_PLAIN: Final = _ONE_I | str.maketrans("şŞğĞçÇöÖüÜ", "ssggccoouu", "_- .\ufeff\xa0\u200b")
_KNOWN: Final = frozenset(name for names in FIELDS.values() for name in names)


def code(spelled: str) -> str:
    """Write a code as the tables have it: upper case without outer spaces; whatever else it holds stays strange."""
    plain = spelled.strip().translate(_ONE_I)
    return plain.upper() if plain.isascii() else spelled


def meant(key: str, kind: Kind) -> str | None:
    """Name the field that an unknown key of a row must be a slip of; None for a known key and for a strange one.

    A slip is another case, `_`, `-` or space, a Turkish letter, or one edit: a letter more, less, other, or two of
    them swapped.
    """
    if key in FIELDS[kind] or (kind is Kind.CONSENT and key in BESIDE_CONSENTS):
        return None
    written = _folded(key)
    return next((name for name in FIELDS[kind] if _within_one_edit(written, _folded(name))), None)


def is_known(key: str) -> bool:
    """Say whether any kind of row has this field."""
    return key in _KNOWN


def _folded(name: str) -> str:
    return name.translate(_PLAIN).lower()


def _within_one_edit(one: str, other: str) -> bool:
    """Say whether at most one letter is more, less or another one, or two neighbours are swapped."""
    if one == other:
        return True
    if abs(len(one) - len(other)) > 1:
        return False
    at = next((at for at, (left, right) in enumerate(zip(one, other, strict=False)) if left != right), None)
    if at is None:
        return True  # one goes on where the other ends
    rest = {(one[at + 1 :], other[at:]), (one[at:], other[at + 1 :]), (one[at + 1 :], other[at + 1 :])}
    swapped = one[at : at + 2] == other[at : at + 2][::-1] and one[at + 2 :] == other[at + 2 :]
    return swapped or any(left == right for left, right in rest)
