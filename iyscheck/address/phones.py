"""A column of phones: their blocks, by arrays or by compiled loops."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from iyscheck.address.countries import BY_CODE, CODE_DIGITS, TRUNK_DIGITS, TRUNK_FROM, ZERO_ALLOWED
from iyscheck.address.loops import (
    COMPANY,
    COMPANY_DIGITS,
    LONG_GROUP,
    LONGEST_NUMBER,
    MOST_DIGITS,
    NATIONAL_DIGITS,
    PLUS_PREFIXES,
    PREFIXES,
    SEPARATORS,
    SHORTEST_NUMBER,
    TURKISH_PREFIXES,
    TWO_MEANINGS,
    TWO_MEANINGS_LENGTH,
    write_common_blocks,
    write_other_blocks,
)
from iyscheck.address.texts import TextColumn
from iyscheck.address.white import kinds_of, trimmed, without_marks
from iyscheck.kernel import Kernel
from iyscheck.keys import BLOCK_BYTES

# By arrays.
#
# Nearly every phone is Turkish, without separators and behind one of six prefixes. The 16 bytes that end where a text
# ends hold all of such a one: the ten digits always in the same place, and before them, in six bytes, its prefix. That
# is compared as one 64-bit word with the prefix that a text of this length must have. What precedes the text in the
# buffer is masked by length, never known by a padding value: a text may hold any byte, zero too.
#
# Texts that are not accepted so are looked at again character by character: their digits are collected into a table,
# and how they are grouped is counted.

_LONG: Final = BLOCK_BYTES + 1
"""Stands for every length that none of the common spellings has."""

_PREFIX_BYTES: Final = BLOCK_BYTES - NATIONAL_DIGITS


def _words(rows: bytes) -> npt.NDArray[np.uint64]:
    """Read bytes as 64-bit words in the byte order of this machine, as `view` reads columns; read-only."""
    return np.frombuffer(rows, np.uint64)


def _prefix_word(prefix: bytes) -> bytes:
    return prefix.rjust(_PREFIX_BYTES, b"\0") + b"\0\0"


_UNMATCHED: Final = b"\xff" * 8
"""No masked word equals it: its last two bytes belong to the national digits."""
_PREFIX_MASK: Final = _words(
    b"".join(
        _prefix_word(b"\xff" * min(max(length - NATIONAL_DIGITS, 0), _PREFIX_BYTES)) for length in range(_LONG + 1)
    )
)
_PREFIX: Final = _words(
    b"".join(_prefix_word(PREFIXES[length]) if length in PREFIXES else _UNMATCHED for length in range(_LONG + 1))
)
_NATIONAL_DIGITS: Final = _words(bytes(_PREFIX_BYTES) + b"\1" * NATIONAL_DIGITS)
_TWO_MEANINGS: Final = _words(bytes(_PREFIX_BYTES) + TWO_MEANINGS + bytes(4))
_TWO_MEANINGS_MASK: Final = _words(bytes(_PREFIX_BYTES) + b"\xff" * len(TWO_MEANINGS) + bytes(4))
_E164_MASK: Final = _words(b"\0\0\0" + b"\xff" * NATIONAL_DIGITS + b"\0\0\0")
_E164: Final = _words(b"+90".ljust(BLOCK_BYTES, b"\0"))


def phone_blocks(column: TextColumn, kernel: Kernel) -> npt.NDArray[np.uint8]:
    """Make the blocks of a column of phones, uint8 of shape (N, 16); rows that are not accepted are all zero."""
    return _blocks(column) if kernel is Kernel.NUMPY else _blocks_by_loop(column)


def _blocks_by_loop(column: TextColumn) -> npt.NDArray[np.uint8]:
    found = np.zeros((len(column), BLOCK_BYTES), np.uint8)
    others = np.empty(len(column), np.int64)
    count = write_common_blocks(column.data, column.starts, column.ends, found, others)
    if count:
        write_other_blocks(column.data, column.starts, column.ends, others[:count], BY_CODE, found)
    return found


def _blocks(column: TextColumn) -> npt.NDArray[np.uint8]:
    column = _with_margins(column)
    found, turkish = _turkish_blocks(column)
    rest = np.flatnonzero(~turkish & (column.ends - column.starts >= COMPANY_DIGITS))
    if rest.size:
        found[rest] = _other_blocks(column, rest)
    return found


def _turkish_blocks(column: TextColumn) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Make the blocks of Turkish numbers as they are most often spelt, others zero; and tell which they are."""
    lengths = np.minimum(column.ends - column.starts, _LONG)
    turkish = _are_turkish(_windows(column.data, column.ends - BLOCK_BYTES), lengths)
    # Three bytes further on, the ten digits stand where the block has them.
    found = _windows(column.data, column.ends + (len("+90") - BLOCK_BYTES))
    words = found.view(np.uint64)
    words &= _E164_MASK
    words |= _E164
    words *= turkish[:, None]
    return found, turkish


def _with_margins(column: TextColumn) -> TextColumn:
    """Copy a column so that the 16 bytes before each end, and those from each start on, can be read."""
    margin = np.zeros(BLOCK_BYTES, np.uint8)
    return TextColumn(
        data=np.concatenate([margin, column.data, margin]),
        starts=column.starts + BLOCK_BYTES,
        ends=column.ends + BLOCK_BYTES,
    )


def _windows(data: npt.NDArray[np.uint8], places: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Copy the 16 bytes that begin at each place: shape (N, 16)."""
    # One 16-byte item at every byte: gathering items is twice as fast as gathering rows of a sliding window.
    every = np.ndarray((data.size - BLOCK_BYTES + 1,), f"V{BLOCK_BYTES}", data, strides=(1,))
    return every[places].view(np.uint8).reshape(-1, BLOCK_BYTES)


def _are_digits(text: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    return (text - np.uint8(ord("0"))) < 10  # noqa: PLR2004 - below "0" the bytes wrap around


def _are_turkish(tails: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Tell which texts, given their last 16 bytes, are a prefix and ten digits of which the first is 2-9."""
    prefixes = tails.view(np.uint64)[:, 0] & _PREFIX_MASK[lengths]
    fits: npt.NDArray[np.bool_] = prefixes == _PREFIX[lengths]
    digits = _are_digits(tails).view(np.uint64) & _NATIONAL_DIGITS
    fits &= (digits[:, 0] == _NATIONAL_DIGITS[0]) & (digits[:, 1] == _NATIONAL_DIGITS[1])
    fits &= tails[:, _PREFIX_BYTES] >= ord("2")
    of_two_meanings = (tails.view(np.uint64) & _TWO_MEANINGS_MASK == _TWO_MEANINGS).all(axis=1)
    fits &= ~(of_two_meanings & (lengths <= TWO_MEANINGS_LENGTH))
    return fits


def _prefix_code(prefix: str, *, plus: bool) -> int:
    """Number a prefix by its digits, how many they are and whether a plus stands before them."""
    return ((plus * 16 + len(prefix)) << 20) + int(prefix or "0")


_PREFIX_CODES: Final = np.array(
    sorted(
        [_prefix_code(prefix, plus=False) for prefix in TURKISH_PREFIXES]
        + [_prefix_code(prefix, plus=True) for prefix in PLUS_PREFIXES]
    )
)
_LONGEST_PREFIX: Final = max(map(len, TURKISH_PREFIXES))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Digits:
    """N phones taken apart. `table` holds their digits as numbers, uint8 (N, MOST_DIGITS), zeros behind the last.

    `count` int64 says how many; `fits` whether there is nothing but digits and separators behind at most one plus;
    `whole` whether a foreign number may be spelt so.
    """

    table: npt.NDArray[np.uint8]
    count: npt.NDArray[np.int64]
    plus: npt.NDArray[np.bool_]
    fits: npt.NDArray[np.bool_]
    whole: npt.NDArray[np.bool_]

    def at(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the digit of each phone at a place of its own."""
        return self.table[np.arange(len(self.count)), np.clip(places, 0, MOST_DIGITS - 1)].astype(np.int64)


def _other_blocks(column: TextColumn, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Make the blocks of those rows of a column that are spelt in any other way; unreadable ones are zero."""
    found = np.zeros((len(rows), BLOCK_BYTES), np.uint8)
    phones = _taken_apart(column.data, *_without_white(column, rows))
    left = phones.fits & (phones.count >= SHORTEST_NUMBER) & ~_have_two_meanings(phones)
    for size, is_one in (
        (NATIONAL_DIGITS, lambda first: phones.at(first) > 1),
        (COMPANY_DIGITS, lambda first: np.all([phones.at(first + at) == int(COMPANY[at]) for at in range(3)], axis=0)),
    ):
        first = phones.count - size
        turkish = left & (first >= 0) & _has_turkish_prefix(phones, first) & is_one(first)
        _write(found, turkish, phones, first, size, "+90")
        left &= ~turkish
    first = np.where(phones.plus, 0, 2)
    foreign = left & phones.whole & _are_foreign(phones, first)
    _write(found, foreign, phones, first, phones.count - first, "+")
    return found


def _write(
    found: npt.NDArray[np.uint8],
    chosen: npt.NDArray[np.bool_],
    phones: _Digits,
    first: npt.NDArray[np.int64],
    size: npt.NDArray[np.int64] | int,
    lead: str,
) -> None:
    """Write the blocks of the chosen phones: a lead, and so many digits from the first one on."""
    rows = np.flatnonzero(chosen)
    sizes = np.broadcast_to(size, chosen.shape)[rows, None]
    places = np.arange(BLOCK_BYTES - len(lead))
    digits = phones.table[rows[:, None], np.minimum(first[rows, None] + places, MOST_DIGITS - 1)] + np.uint8(ord("0"))
    found[rows, len(lead) :] = np.where(places < sizes, digits, np.uint8(0))
    found[rows, : len(lead)] = np.frombuffer(lead.encode(), np.uint8)


def _has_turkish_prefix(phones: _Digits, length: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Say whether the first `length` digits of each phone are one of the prefixes."""
    number = np.zeros(len(length), np.int64)
    for at in range(_LONGEST_PREFIX):
        number = np.where(at < length, number * 10 + phones.table[:, at], number)
    code = ((phones.plus * 16 + np.clip(length, 0, _LONGEST_PREFIX + 1)) << 20) + number
    known: npt.NDArray[np.bool_] = np.isin(code, _PREFIX_CODES)
    return known


def _have_two_meanings(phones: _Digits) -> npt.NDArray[np.bool_]:
    """Say which digits, whatever their separators, are a number of area code 900 or a company number."""
    first = phones.count - NATIONAL_DIGITS
    alike = [phones.at(first + at) == int(chr(digit)) for at, digit in enumerate(TWO_MEANINGS)]
    alone = (first == 0) | ((first == 1) & (phones.table[:, 0] == 0))
    two: npt.NDArray[np.bool_] = alone & ~phones.plus & np.all(alike, axis=0)
    return two


def _are_foreign(phones: _Digits, first: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Say whether the digits of each phone from the first one on are a foreign number, dialled from anywhere."""
    size = phones.count - first
    lead, second = phones.at(first), phones.at(first + 1)
    three = lead * 100 + second * 10 + phones.at(first + 2)
    behind = phones.at(first + CODE_DIGITS[three])
    fits: npt.NDArray[np.bool_] = phones.plus | ((phones.at(first - 2) == 0) & (phones.at(first - 1) == 0))
    fits &= (size >= SHORTEST_NUMBER) & (size <= LONGEST_NUMBER) & (CODE_DIGITS[three] > 0)
    fits &= (behind > 0) | (ZERO_ALLOWED[three] > 0)
    fits &= (size < TRUNK_FROM[three]) | ((TRUNK_DIGITS[three] >> behind) & 1 == 0)
    fits &= ~((size == NATIONAL_DIGITS) & (lead == 5))  # noqa: PLR2004 - as Turkish mobiles begin
    return fits


def _taken_apart(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> _Digits:
    """Collect the digits of N texts without white space around them, and say how they are grouped."""
    lengths = ends - starts
    rows = len(starts)
    beyond = np.cumsum(lengths)
    begins = beyond - lengths
    row = np.repeat(np.arange(rows), lengths)
    text = data[np.arange(beyond[-1]) + np.repeat(starts - begins, lengths)]
    digit, plus = _are_digits(text), text == ord("+")
    parenthesis = (text == SEPARATORS[-2]) | (text == SEPARATORS[-1])
    separator = parenthesis.copy()
    for each in SEPARATORS[:-2]:
        separator |= text == each

    def in_row(which: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        return np.bincount(row[which], minlength=rows)

    count = in_row(digit)
    before = np.cumsum(digit) - digit - np.repeat(np.cumsum(count) - count, lengths)  # digits of its row before each
    pluses = in_row(plus)
    fits = (in_row(~(digit | plus | separator)) == 0) & (pluses <= 1) & (in_row(plus & (before > 0)) == 0)
    fits &= count <= MOST_DIGITS
    table = np.zeros((rows, MOST_DIGITS), np.uint8)
    kept = digit & (before < MOST_DIGITS)
    table[row[kept], before[kept]] = text[kept] - np.uint8(ord("0"))
    # A group begins with a digit that stands first in its text, or behind what is none.
    begins_row = np.zeros(len(text), np.bool_)
    begins_row[begins[lengths > 0]] = True
    opens = digit & (begins_row | ~np.append(False, digit[:-1]))
    group_row = row[opens]
    sizes = np.bincount((np.cumsum(opens) - 1)[digit], minlength=len(group_row))
    is_last = np.append(group_row[1:] != group_row[:-1], True)[: len(group_row)]
    split = np.zeros(rows, np.bool_)
    split[group_row[(sizes >= LONG_GROUP) & ~is_last]] = True
    split[group_row[(sizes == 1) & is_last]] = True
    whole = ~split & (in_row(parenthesis) == 0)
    return _Digits(table=table, count=count, plus=pluses > 0, fits=fits, whole=whole)


def _without_white(
    column: TextColumn, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Find where texts of a column with margins begin and end without white space and byte order marks."""
    kinds = kinds_of(column.data.tobytes())
    starts, ends = trimmed(kinds, column.starts[rows], column.ends[rows])
    return without_marks(column.data, kinds, starts, ends)
