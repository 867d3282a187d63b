"""The rules of a row, in the order in which they are tried: the first that a row breaks is why it is rejected.

Sources: İYS API 3.2.0, "TANIMLAR" and the notes on line closures (they come without a consentDate where the record
never had one).
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from iyscheck.change import SOURCE_MAX_CHARS, TRANSACTION_ID_MAX_CHARS
from iyscheck.consent import RecipientType, Status
from loader.reading import faults, times
from loader.reading import vocabulary as names
from loader.reading.columns import BAD_BRAND, MISTYPED_BRAND, NO_BRAND, OTHER_BRAND, Columns
from loader.reading.faults import Fault, RejectReason
from loader.reading.rows import Row
from loader.reading.times import AHEAD_MAX_S
from loader.reading.vocabulary import Kind

SOURCE_MAX_BYTES: Final = 255
"""As UTF-8; the store keeps the length in one byte."""


def misspells_brand(row: Row) -> bool:
    """Say whether another key of a row may be the one that names its brand."""
    return any(names.meant(key, Kind.CONSENT) == names.BRAND_CODE for key in row)


def key_fault(kind: Kind, keys: Iterable[str]) -> Fault | None:
    """Find a key that a row of this kind must not have: a slip of one that is read, in our own kinds any other.

    Slips of what a refusal counts without are found last.
    """
    if kind is Kind.UNKNOWN:
        return None
    beside: Fault | None = None
    for key in keys:
        right = names.meant(key, kind)
        if right is not None:
            message = f"A key of the row is nearly '{right}' and not quite: it must be written exactly so."
            fault = Fault(right, RejectReason.UNKNOWN_KEY, message)
            if kind is not Kind.CONSENT or right not in names.BESIDE_THE_POINT:
                return fault
            beside = beside or fault
            continue
        if kind is not Kind.CONSENT and key not in names.FIELDS[kind]:
            message = f"The row has a key beside those of its kind: {', '.join(names.FIELDS[kind])}."
            return Fault("", RejectReason.UNKNOWN_KEY, message)
        if key == names.LIST:
            return faults.LIST_AMONG_ROWS
    return beside


def judge(columns: Columns, local_now: int) -> None:
    """Try the rules of a row, in order."""
    consent = columns.kind == Kind.CONSENT
    keyed = consent | (columns.kind == Kind.RETAILER_ACCESS)
    dated = keyed | (columns.kind == Kind.BRAND)
    columns.reject((columns.brand == NO_BRAND) & (columns.kind != Kind.WATERMARK), faults.BRAND_MISSING)
    columns.reject(columns.brand == MISTYPED_BRAND, faults.mistyped(names.BRAND_CODE))
    columns.reject(columns.brand == BAD_BRAND, faults.BRAND_INVALID)
    columns.reject(columns.brand == OTHER_BRAND, faults.BRAND_CONFLICT)
    columns.reject_field(keyed & (columns.recipient_type == 0), names.RECIPIENT_TYPE, faults.TYPE_INVALID)
    columns.reject_field(keyed & (columns.channel == 0), names.TYPE, faults.CHANNEL_INVALID)
    columns.reject_field(keyed & ~columns.readable, names.RECIPIENT, faults.RECIPIENT_INVALID)
    columns.reject_field(dated & (columns.registered <= times.ABSENT), names.CREATION_DATE, faults.CREATION_INVALID)
    columns.reject(dated & (columns.registered > local_now + AHEAD_MAX_S), faults.CREATION_AHEAD)
    columns.reject((columns.kind == Kind.RETAILER_ACCESS) & ~columns.listed, faults.RETAILERS_MISSING)
    wrong_list = columns.among(keyed & columns.listed, lambda row: columns.lists.of(row) is None)
    columns.reject(wrong_list & ~consent, faults.RETAILERS_INVALID)
    _judge_beside_the_point(columns, consent, wrong_list)


def _judge_beside_the_point(
    columns: Columns, consent: npt.NDArray[np.bool_], wrong_list: npt.NDArray[np.bool_]
) -> None:
    """Try what an ONAY has to get right, and nothing else: a refusal counts without it."""
    needs_date = (columns.status == Status.ONAY) & (columns.recipient_type == RecipientType.BIREYSEL)
    columns.reject(consent & needs_date & (columns.consented == times.ABSENT), faults.CONSENT_MISSING)
    unreadable = columns.set_right(consent & (columns.consented == times.INVALID), faults.CONSENT_INVALID)
    columns.consented[unreadable] = times.ABSENT
    later = columns.set_right(consent & (columns.consented > columns.registered + AHEAD_MAX_S), faults.CONSENT_LATER)
    columns.consented[later] = times.ABSENT
    for texts, is_right, fault in (
        (columns.sources, _is_source, faults.SOURCE_INVALID),
        (columns.transactions, _is_transaction_id, faults.TRANSACTION_INVALID),
    ):
        wrong = {text for text in set(texts) if not is_right(text)}
        if wrong:
            for at in columns.set_right(consent & np.array([text in wrong for text in texts]), fault):
                texts[at] = ""
    columns.listed[columns.set_right(consent & wrong_list, faults.RETAILERS_INVALID)] = False


def _is_source(text: str) -> bool:
    return len(text) <= SOURCE_MAX_CHARS and text.isprintable() and len(text.encode()) <= SOURCE_MAX_BYTES


def _is_transaction_id(text: str) -> bool:
    return len(text) <= TRANSACTION_ID_MAX_CHARS and text.isascii() and text.isprintable()
