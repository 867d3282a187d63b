"""What may be wrong with a row: each fault has the field, a code for programs, and a sentence without content."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from iyscheck.change import SOURCE_MAX_CHARS, TRANSACTION_ID_MAX_CHARS
from iyscheck.consent import CLOCK_TOLERANCE_S
from loader.reading import vocabulary as names
from loader.reading.times import AHEAD_MAX_S
from loader.reading.vocabulary import BRAND_MAX, RETAILERS_MAX

LINE_MAX_BYTES: Final = 2**20


class RejectReason(StrEnum):
    """Why a row is not loaded."""

    MALFORMED = "MALFORMED"
    LINE_TOO_LONG = "LINE_TOO_LONG"
    WRONG_TYPE = "WRONG_TYPE"
    UNKNOWN_KIND = "UNKNOWN_KIND"
    UNKNOWN_KEY = "UNKNOWN_KEY"
    REPEATED_KEY = "REPEATED_KEY"
    MISSING = "MISSING"
    INVALID = "INVALID"
    CONFLICT = "CONFLICT"
    INVALID_ADDRESS = "INVALID_ADDRESS"
    AHEAD_OF_CLOCK = "AHEAD_OF_CLOCK"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a row: the field (empty for the whole line), a code, and a sentence without content."""

    field: str
    reason: RejectReason
    message: str


def missing(name: str) -> Fault:
    """Say that a field is absent or empty."""
    return Fault(name, RejectReason.MISSING, f"{name} is missing.")


def _invalid(name: str, what: str) -> Fault:
    return Fault(name, RejectReason.INVALID, f"{name} is not {what}.")


def mistyped(name: str) -> Fault:
    """Say that a field is of another type than it must be."""
    return Fault(name, RejectReason.WRONG_TYPE, f"{name} has a value of the wrong JSON type.")


MALFORMED_JSON: Final = Fault("", RejectReason.MALFORMED, "The line is not one JSON object.")
MALFORMED_CSV: Final = Fault("", RejectReason.MALFORMED, "The line does not have the columns of the file.")
NOT_UTF8: Final = Fault("", RejectReason.MALFORMED, "The line is not UTF-8 text.")
LINE_TOO_LONG: Final = Fault("", RejectReason.LINE_TOO_LONG, f"The line is longer than {LINE_MAX_BYTES} bytes.")
UNKNOWN_KIND: Final = Fault(
    names.KIND, RejectReason.UNKNOWN_KIND, "kind is none of consent, retailerAccess, brand, watermark."
)
LIST_AMONG_ROWS: Final = Fault(
    names.LIST,
    RejectReason.UNKNOWN_KEY,
    "The row is a page or push body among rows of another form: load it from a file of its own.",
)
BRAND_MISSING: Final = Fault(
    names.BRAND_CODE, RejectReason.MISSING, "Neither the row nor --brand says which brand this is about."
)
BRAND_INVALID: Final = _invalid(names.BRAND_CODE, f"a whole number from 1 to {BRAND_MAX}")
BRAND_CONFLICT: Final = Fault(names.BRAND_CODE, RejectReason.CONFLICT, "brandCode is not the brand given with --brand.")
TYPE_INVALID: Final = _invalid(names.RECIPIENT_TYPE, "BIREYSEL or TACIR")
CHANNEL_INVALID: Final = _invalid(names.TYPE, "ARAMA, MESAJ or EPOSTA")
RECIPIENT_INVALID: Final = Fault(
    names.RECIPIENT, RejectReason.INVALID_ADDRESS, "recipient is not an address of the form that its type asks for."
)
CREATION_INVALID: Final = _invalid(names.CREATION_DATE, "a time of the form YYYY-MM-DD HH:MM:SS")
CREATION_AHEAD: Final = Fault(
    names.CREATION_DATE,
    RejectReason.AHEAD_OF_CLOCK,
    f"creationDate is more than {AHEAD_MAX_S // 60} minutes in the future.",
)
CONSENT_MISSING: Final = Fault(
    names.CONSENT_DATE, RejectReason.MISSING, "consentDate is missing, and an ONAY of a BIREYSEL needs it."
)
CONSENT_INVALID: Final = _invalid(names.CONSENT_DATE, "a time of the form YYYY-MM-DD HH:MM:SS")
CONSENT_LATER: Final = Fault(
    names.CONSENT_DATE,
    RejectReason.INVALID,
    f"consentDate is more than {AHEAD_MAX_S // 60} minutes later than creationDate, which cannot be.",
)
SOURCE_INVALID: Final = _invalid(names.SOURCE, f"a printable text of at most {SOURCE_MAX_CHARS} characters")
TRANSACTION_INVALID: Final = _invalid(
    names.TRANSACTION_ID, f"a printable ASCII text of at most {TRANSACTION_ID_MAX_CHARS} characters"
)
RETAILERS_MISSING: Final = missing(names.RETAILER_ACCESS)
RETAILERS_INVALID: Final = _invalid(names.RETAILER_ACCESS, f"a list of at most {RETAILERS_MAX} retailer codes")
IYS_CODE_INVALID: Final = _invalid(names.IYS_CODE, "a positive whole number")
ACTIVE_MISSING: Final = missing(names.ACTIVE)
CHANNELS_INVALID: Final = _invalid(names.CHANNELS, "a list of ARAMA, MESAJ and EPOSTA")
DEADLINE_INVALID: Final = _invalid(names.LEGACY_DEADLINE, "announced, over-150k or up-to-150k")
UNTIL_MISSING: Final = missing(names.COMPLETE_UNTIL)
UNTIL_INVALID: Final = _invalid(names.COMPLETE_UNTIL, "a time of the form YYYY-MM-DD HH:MM:SS")
UNTIL_AHEAD: Final = Fault(
    names.COMPLETE_UNTIL,
    RejectReason.AHEAD_OF_CLOCK,
    f"completeUntil is more than {CLOCK_TOLERANCE_S // 60} minutes in the future.",
)
