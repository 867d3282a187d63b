"""Records, the values of `records`: what a consent is, who says so, and since when."""

import struct
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import xxhash

from iyscheck.change import (
    CITIZENS_SOURCES,
    HEX_TRANSACTION,
    KNOWN_SOURCES,
    TEXT_TRANSACTION,
    TRANSACTION_BYTES,
    ConsentChange,
    ConsentColumns,
)
from iyscheck.consent import LEGACY_CONSENTS_BEFORE, Status, is_citizens_own, state
from iyscheck.kernel import Kernel
from iyscheck.question import Facts
from iyscheck.store.layout.checks import CHECK, CHECKED_FROM, corrupt, record_check
from iyscheck.store.layout.keys import KEY_BYTES, decode_key
from iyscheck.store.layout.rows import copy_bytes

_RECORD: Final = struct.Struct(f">IBBIIQB{TRANSACTION_BYTES}s")
RECORD_BYTES: Final = _RECORD.size
"""Length of a record without its rare tail."""
CHECKED_AT_ONCE_MAX_BYTES: Final = 128
"""Key and body that the compiled loop can check; `digests` knows the shorter half of the hash only."""

RECORD_DTYPE: Final = np.dtype(
    [
        ("check", ">u4"),
        ("status", "u1"),
        ("source", "u1"),
        ("registered", ">u4"),
        ("consented", ">u4"),
        ("sequence", ">u8"),
        ("transaction_form", "u1"),
        ("transaction", "u1", (TRANSACTION_BYTES,)),
    ]
)
"""The fixed part of a record as a numpy row; the same bytes as `_RECORD`."""

_SOURCES: Final = dict(enumerate(("", *KNOWN_SOURCES)))
"""0 stands for any other source: its name is in the tail."""
_STATUSES: Final = {int(status): status for status in (Status.ONAY, Status.RET, Status.UNKNOWN)}


def write_records(records: npt.NDArray[np.void], columns: ConsentColumns) -> None:
    """Write the records of N changes into rows of RECORD_DTYPE, all but their checks and tails."""
    records["status"] = columns.status
    records["source"] = columns.source
    records["registered"] = columns.registered
    records["consented"] = columns.consented
    records["sequence"] = columns.sequence
    records["transaction_form"] = columns.transaction_form
    copy_bytes(records["transaction"], columns.transaction)


def record_checks(
    rows: npt.NDArray[np.uint8], tail: bytes = b"", kernel: Kernel = Kernel.NUMPY
) -> npt.NDArray[np.uint32]:
    """Return the checks of N records that have the same tail or none, uint32 (N,).

    A row is a key and a record without its tail, whose own check is of no matter, and perhaps more: uint8 (N, at
    least 77).
    """
    body, end = KEY_BYTES + CHECKED_FROM, KEY_BYTES + RECORD_BYTES
    if tail:
        tails = np.broadcast_to(np.frombuffer(tail, np.uint8), (len(rows), len(tail)))
        rows, end = np.concatenate((rows[:, :end], tails), axis=1), end + len(tail)
    if kernel is Kernel.NUMBA and end - CHECKED_FROM <= CHECKED_AT_ONCE_MAX_BYTES:
        from iyscheck.store.digests import digests

        found = np.empty(len(rows), np.uint64)
        digests(rows, KEY_BYTES, body, end, found)
        return found.astype(np.uint32)  # the lower half, as record_check takes
    bound = np.concatenate((rows[:, :KEY_BYTES], rows[:, body:end]), axis=1)
    texts = bound.view(f"V{bound.shape[1]}")[:, 0].tolist()
    return np.fromiter(map(xxhash.xxh3_64_intdigest, texts), np.uint64, len(texts)).astype(np.uint32)


def encode_tail(columns: ConsentColumns, row: int) -> bytes:
    """Write what follows the fixed part of one record."""
    source, transaction_id = columns.texts[columns.text[row]]
    tail = _text(transaction_id) if columns.transaction_form[row] == TEXT_TRANSACTION else b""
    return tail + (b"" if columns.source[row] else _text(source))


def columns_of(keys: npt.NDArray[np.void], records: npt.NDArray[np.void], tails: Sequence[bytes]) -> ConsentColumns:
    """Read N changes that were written just now: rows of KEY_DTYPE and RECORD_DTYPE and the tails of the records."""
    texts: dict[tuple[str, str], int] = {("", ""): 0}
    text = np.zeros(len(keys), np.int32)
    for row, tail in enumerate(tails):
        if tail:
            found = _texts_of(tail)
            pair = (
                "" if records["source"][row] else found[-1],
                found[0] if records["transaction_form"][row] == TEXT_TRANSACTION else "",
            )
            text[row] = texts.setdefault(pair, len(texts))
    return ConsentColumns(
        brand=keys["brand"].astype(np.uint32),
        channel=keys["channel"],
        recipient_type=keys["recipient_type"],
        tag=keys["tag"],
        status=records["status"],
        registered=records["registered"].astype(np.int64),
        consented=records["consented"].astype(np.int64),
        source=records["source"],
        transaction_form=records["transaction_form"],
        transaction=records["transaction"],
        text=text,
        sequence=records["sequence"].astype(np.int64),
        texts=tuple(texts),
    )


def _text(text: str) -> bytes:
    encoded = text.encode()
    return bytes((len(encoded),)) + encoded


def intact(key: bytes, value: bytes) -> bool:
    """Say whether a record is exactly what was written for this key."""
    return (
        len(value) >= RECORD_BYTES
        and CHECK.unpack_from(value)[0] == record_check(key, value[CHECKED_FROM:])
        and value[CHECKED_FROM] in _STATUSES
    )


def decode_record(key: bytes, value: bytes) -> ConsentChange:
    """Read one record with its key."""
    status, registered, consented, source, transaction_id, sequence = _facts(key, value)
    brand, channel, recipient_type, tag = decode_key(key)
    return ConsentChange(
        brand=brand,
        channel=channel,
        recipient_type=recipient_type,
        tag=tag,
        status=status,
        registered=registered,
        consented=consented,
        source=source,
        transaction_id=transaction_id,
        sequence=sequence,
    )


def decode_facts(key: bytes, value: bytes) -> tuple[int, Facts]:
    """Read what a check needs of the record at a key that it made itself: state byte and facts."""
    facts = _facts(key, value)
    return state(facts[0], facts[2], facts[1], facts[3]), facts


def _facts(key: bytes, value: bytes) -> Facts:
    """Read a record but for its key."""
    if len(value) < RECORD_BYTES:
        corrupt("consent record")
    check, number, source_number, registered, consented, sequence, form, transaction = _RECORD.unpack_from(value)
    status, source = _STATUSES.get(number), _SOURCES.get(source_number)
    if check != record_check(key, value[CHECKED_FROM:]) or status is None or source is None:
        corrupt("consent record")
    transaction_id = transaction.hex() if form == HEX_TRANSACTION else ""
    if len(value) > RECORD_BYTES or form > HEX_TRANSACTION or not source_number:
        texts = _texts_of(value[RECORD_BYTES:])
        if form > TEXT_TRANSACTION or len(texts) != (form == TEXT_TRANSACTION) + (not source_number):
            corrupt("consent record")
        transaction_id = texts[0] if form == TEXT_TRANSACTION else transaction_id
        source = source or texts[-1]
    return status, registered, consented, source, transaction_id, sequence


def _texts_of(tail: bytes) -> Sequence[str]:
    """Read the texts behind a record's fixed part, each after its length in one byte: transaction id, source."""
    texts, at = [], 0
    while at < len(tail):
        end = at + 1 + tail[at]
        if end > len(tail):
            corrupt("consent record")
        try:
            texts.append(tail[at + 1 : end].decode())
        except UnicodeDecodeError:
            corrupt("consent record")
        at = end
    return texts


def by_citizen(rows: npt.NDArray[np.void], tail_of: Callable[[int], bytes]) -> npt.NDArray[np.bool_]:
    """Say which of N records, rows of RECORD_DTYPE, are the citizen's own act at İYS: bool (N,).

    `tail_of` gives the tail of a row; it is asked only where that decides something.
    """
    found: npt.NDArray[np.bool_] = CITIZENS_SOURCES[rows["source"]]
    told = (rows["source"] == 0) & (rows["consented"] < LEGACY_CONSENTS_BEFORE)  # of later ones nothing depends on it
    for at in np.flatnonzero(told).tolist():
        tail = tail_of(at)
        found[at] = bool(tail) and is_citizens_own(_texts_of(tail)[-1])
    return found


def decode_columns(keys: Sequence[bytes], values: Sequence[bytes]) -> npt.NDArray[np.void]:
    """Read the fixed parts of N records as an array of RECORD_DTYPE; one damaged record fails the column."""
    fixed = list(values)
    tailed = [at for at, value in enumerate(values) if len(value) != RECORD_BYTES]
    for at in tailed:
        if not intact(keys[at], values[at]):
            corrupt("consent record")
        fixed[at] = values[at][:RECORD_BYTES]
    rows = np.frombuffer(b"".join(fixed), RECORD_DTYPE)
    packed = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)
    fits = rows["check"] == record_checks(
        np.concatenate((packed, rows.view(np.uint8).reshape(-1, RECORD_BYTES)), axis=1)
    )
    fits &= (rows["status"] > Status.NONE) & (rows["status"] <= Status.UNKNOWN)
    fits[tailed] = True
    if not fits.all():
        corrupt("consent record")
    return rows
