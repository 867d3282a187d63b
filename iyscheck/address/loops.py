"""The grammar's numbers, and compiled loops: the grammar in one pass over the bytes of a column.

Each loop gets the texts of a column as `data`, uint8 of shape (total,), and `starts` and `ends`, int64 of shape (N,).
What it finds is bit for bit what the array operations of `phones` and `emails` find.

The numbers stand here because the loops have copies of them compiled in: what numba keeps on disk it makes anew when
this file has changed, and looks at no other. For the same reason country codes come as an argument.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from iyscheck.kernel import Compiled
from iyscheck.keys import BLOCK_BYTES

# --- Phones -----------------------------------------------------------------------------------------------
#
# Nearly every phone is Turkish and has no separators: the ten digits stand at its end, behind one of a few prefixes.
# Such a text is read as two 64-bit words, the last character in the highest byte of `back`; the ten digits then are
# `back` and the upper two bytes of `front`, and the prefix lies below them. Every other text is read character by
# character: its digits are collected, and how they are grouped.

SEPARATORS: Final = b" -.()"
"""What may stand anywhere in a phone, but for parentheses in a foreign one."""
PREFIXES: Final = {10: b"", 11: b"0", 12: b"90", 13: b"+90", 14: b"0090", 15: b"00900"}
"""What most often stands before the ten digits of a Turkish number, by length of the whole."""
TURKISH_PREFIXES: Final = ("", "0", "90", "900", "090", "0090", "0900", "00900")
"""What may stand before a Turkish number that does not begin with a plus: country and trunk prefixes, one 0 more."""
PLUS_PREFIXES: Final = ("90", "900")
"""The same behind a plus."""
NATIONAL_DIGITS: Final = 10
COMPANY: Final = "444"
COMPANY_DIGITS: Final = 7
"""A company number without area code: 444 and four digits."""
TWO_MEANINGS: Final = b"900444"
"""How ten digits begin that may as well be a company number behind 90 and a 0 too many."""
TWO_MEANINGS_LENGTH: Final = len("0") + NATIONAL_DIGITS
"""Longer texts have a country code before them, and then mean one thing."""
SHORTEST_NUMBER: Final = 7
LONGEST_NUMBER: Final = 15
"""Digits of a foreign number, its country code included."""
MOST_DIGITS: Final = len("00") + LONGEST_NUMBER
LONG_GROUP: Final = 6
"""So many digits together are a number: what stands behind them is an extension."""

_CODE_DIGITS, _ZERO_ALLOWED, _TRUNK_FROM, _TRUNK_DIGITS = range(4)
"""The columns of `countries.BY_CODE`."""

_SPACE, _HYPHEN, _FULL_STOP, _OPEN, _CLOSE = SEPARATORS
_PLUS: Final = ord("+")
_DIGIT_0: Final = ord("0")
_DIGIT_2: Final = ord("2")
_DIGIT_4: Final = ord("4")
_DIGIT_5: Final = ord("5")
_DIGIT_9: Final = ord("9")
_SHORTEST_TURKISH: Final = min(PREFIXES)
_LONGEST_TURKISH: Final = max(PREFIXES)
BOM: Final = b"\xef\xbb\xbf"
BOM_BYTES: Final = len(BOM)
_BOM_0, _BOM_1, _BOM_2 = BOM


def _number(text: bytes) -> np.uint64:
    """Read up to eight bytes as a number, the first byte the lowest."""
    return np.uint64(int.from_bytes(text, "little"))


def _prefix(text: bytes) -> np.uint64:
    """Place a prefix right below the first two national digits."""
    return _number(text.rjust(6, b"\0"))


def _by_length(*numbers: np.uint64) -> npt.NDArray[np.uint64]:
    """Make a read-only table of one number for each length of a Turkish number, from ten characters on."""
    table = np.zeros(_LONGEST_TURKISH + 1, np.uint64)
    table[_SHORTEST_TURKISH:] = numbers
    table.setflags(write=False)
    return table


_PREFIXES: Final = _by_length(*map(_prefix, PREFIXES.values()))
_PREFIX_MASKS: Final = _by_length(*(_prefix(b"\xff" * len(prefix)) for prefix in PREFIXES.values()))
_NATIONAL_IN_FRONT: Final = _number(bytes(6) + b"\xff" * 2)
_ZEROS_BELOW: Final = _number(b"0" * 6)
_LOWEST: Final = _number(b"\xff")
_LOWEST_3: Final = _number(b"\xff" * 3)
_LOWEST_4: Final = _number(b"\xff" * 4)
_MEANING_FRONT: Final = _number(TWO_MEANINGS[:2])
_MEANING_BACK: Final = _number(TWO_MEANINGS[2:])
_NOTHING: Final = _number(b"")
_E164: Final = _number(b"+90")
_FIRST_NATIONAL: Final = _number(b"2")
_ZEROS: Final = _number(b"0" * 8)
_SEVEN_BITS: Final = _number(b"\x7f" * 8)
_EIGHTH_BIT: Final = _number(b"\x80" * 8)
_ABOVE_NINE: Final = _number(bytes([0x80 - 10]) * 8)
"""Added to seven bits it sets the eighth if they are more than nine, and never carries into the next byte."""
_BY_3, _BY_5, _BY_6 = (np.uint64(8 * count) for count in (3, 5, 6))
"""Shifts by so many bytes."""


@Compiled
def write_common_blocks(
    data: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    found: npt.NDArray[np.uint8],
    others: npt.NDArray[np.int64],
) -> int:
    """Write the block of each Turkish phone that is spelt as most are into its row of `found`, uint8 (N, 16).

    Leaves the other rows alone and lists them in `others`, int64 (N,); returns how many they are.
    """

    def are_digits(word: np.uint64) -> bool:
        values = word ^ _ZEROS
        return bool((values | ((values & _SEVEN_BITS) + _ABOVE_NINE)) & _EIGHTH_BIT == _NOTHING)

    def is_turkish(front: np.uint64, back: np.uint64, length: int) -> bool:
        known = front & _PREFIX_MASKS[length] == _PREFIXES[length]
        digits = are_digits(back) and are_digits((front & _NATIONAL_IN_FRONT) | _ZEROS_BELOW)
        one_meaning = back & _LOWEST_4 != _MEANING_BACK or front >> _BY_6 != _MEANING_FRONT
        clear = one_meaning or length > TWO_MEANINGS_LENGTH
        return bool(known and digits and clear and (front >> _BY_6) & _LOWEST >= _FIRST_NATIONAL)

    def write(row: int, front: np.uint64, back: np.uint64) -> None:
        for byte in range(8):
            # Without the conversions LLVM does not see that this is two stores.
            found[row, byte] = np.uint8((front >> np.uint64(8 * byte)) & _LOWEST)
            found[row, byte + 8] = np.uint8((back >> np.uint64(8 * byte)) & _LOWEST)

    count = 0
    for row in range(starts.size):
        length = ends[row] - starts[row]
        turkish = False
        front, back = _NOTHING, _NOTHING
        if _SHORTEST_TURKISH <= length <= _LONGEST_TURKISH and ends[row] >= BLOCK_BYTES:
            tail = np.uint64(ends[row] - BLOCK_BYTES)
            for byte in range(8):
                front |= np.uint64(data[tail + np.uint64(byte)]) << np.uint64(8 * byte)
                back |= np.uint64(data[tail + np.uint64(byte + 8)]) << np.uint64(8 * byte)
            turkish = is_turkish(front, back, length)
        if turkish:
            write(row, _E164 | ((front >> _BY_6) << _BY_3) | ((back & _LOWEST_3) << _BY_5), back >> _BY_3)
        else:
            others[count] = row
            count += 1
    return count


@Compiled
def write_other_blocks(  # noqa: C901, PLR0912, PLR0915 - decision 70: split, it takes a fifth longer
    data: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    codes: npt.NDArray[np.int64],
    found: npt.NDArray[np.uint8],
) -> None:
    """Write the block of each of those phones into its row of `found`; leave the rows of unreadable ones alone.

    `codes` is `countries.BY_CODE`.
    """

    def is_turkish_prefix(digits: npt.NDArray[np.uint8], length: int, plus: bool) -> bool:  # noqa: FBT001 - compiled
        """Say whether so many digits are one of the prefixes: zeros, then perhaps 90 and one zero more."""
        zeros = 0
        while zeros < length and digits[zeros] == _DIGIT_0:
            zeros += 1
        if length == zeros:  # nothing, or the 0 of calls at home
            return not plus and zeros <= 1
        rest = length - zeros
        country = rest in (2, 3) and digits[zeros] == _DIGIT_9 and digits[zeros + 1] == _DIGIT_0
        if not country or (rest == 3 and digits[zeros + 2] != _DIGIT_0):  # noqa: PLR2004 - digits of 900
            return False
        return zeros == 0 if plus else zeros <= 2  # noqa: PLR2004 - 00

    digits = np.empty(MOST_DIGITS, np.uint8)
    for row in rows:
        place, end = starts[row], ends[row]
        count, group, last = 0, 0, 0
        plus, parenthesis, long_group, behind_long, fits = False, False, False, False, True
        begun, ended, marks = False, False, 0  # around it white space, and a byte order mark at each end
        while place < end and fits:
            character = data[place]
            place += 1
            if np.uint8(character - _DIGIT_0) <= 9 and not ended and count < MOST_DIGITS:  # noqa: PLR2004 - bytes wrap
                behind_long = behind_long or (group == 0 and long_group)
                digits[count] = character
                count += 1
                group += 1
                begun = True
            elif character in (_SPACE, _HYPHEN, _FULL_STOP, _OPEN, _CLOSE) and (not ended or character == _SPACE):
                parenthesis = parenthesis or character in (_OPEN, _CLOSE)
                begun = begun or character != _SPACE
                if group > 0:
                    long_group = long_group or group >= LONG_GROUP
                    last, group = group, 0
            elif character == _PLUS and count == 0 and not plus and not ended:
                plus = begun = True
            elif KINDS[character] == WHITE:
                ended = begun
            elif (
                character == _BOM_0
                and end - place >= BOM_BYTES - 1
                and data[place] == _BOM_1
                and data[place + 1] == _BOM_2
            ):
                fits = marks == 0 or (begun and marks == 1)
                marks, ended = 2 if begun else 1, begun
                place += BOM_BYTES - 1
            else:
                fits = False
        last = group if group > 0 else last
        if not fits or count < COMPANY_DIGITS:
            continue
        first = count - NATIONAL_DIGITS
        if first >= 0 and digits[first] >= _DIGIT_2 and is_turkish_prefix(digits, first, plus):
            size = NATIONAL_DIGITS
            one_meaning = False
            for digit in range(len(TWO_MEANINGS)):
                one_meaning |= digits[first + digit] != TWO_MEANINGS[digit]
            if not one_meaning and first <= 1:
                continue
        else:
            first = count - COMPANY_DIGITS
            size = 0
            if digits[first] == digits[first + 1] == digits[first + 2] == _DIGIT_4 and is_turkish_prefix(
                digits, first, plus
            ):
                size = COMPANY_DIGITS
        if size > 0:
            found[row, 0], found[row, 1], found[row, 2] = _PLUS, _DIGIT_9, _DIGIT_0
            for digit in range(size):
                found[row, 3 + digit] = digits[first + digit]
            continue
        if plus:
            first = 0
        elif digits[0] == _DIGIT_0 and digits[1] == _DIGIT_0:
            first = 2
        else:
            continue
        size = count - first
        if parenthesis or behind_long or last == 1 or not SHORTEST_NUMBER <= size <= LONGEST_NUMBER:
            continue
        three = (
            (np.int64(digits[first]) - _DIGIT_0) * 100
            + (np.int64(digits[first + 1]) - _DIGIT_0) * 10
            + (np.int64(digits[first + 2]) - _DIGIT_0)
        )
        behind = np.int64(digits[first + codes[three, _CODE_DIGITS]]) - _DIGIT_0
        if (
            codes[three, _CODE_DIGITS] == 0
            or (behind == 0 and codes[three, _ZERO_ALLOWED] == 0)
            or (size >= codes[three, _TRUNK_FROM] and (codes[three, _TRUNK_DIGITS] >> behind) & 1)
            or (size == NATIONAL_DIGITS and digits[first] == _DIGIT_5)
        ):
            continue
        found[row, 0] = _PLUS
        for digit in range(size):
            found[row, 1 + digit] = digits[first + digit]


# --- E-mails ----------------------------------------------------------------------------------------------

SHORTEST_EMAIL: Final = 6
LONGEST_EMAIL: Final = 265
FEWEST_BEFORE_LAST_DOT: Final = 2
SHORTEST_TOP_LABEL: Final = 2

REFUSED, WHITE, LETTER, MARK, PLUS, DOT, AT = range(7)
"""What a byte may be in an e-mail; the first two are nothing that an e-mail has inside."""


def _kinds() -> npt.NDArray[np.uint8]:
    table = np.full(256, REFUSED, np.uint8)
    for kind, characters in (
        (WHITE, b" \t\n\r\v\f"),
        (LETTER, b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        (MARK, b"0123456789_-"),
        (PLUS, b"+"),
        (DOT, b"."),
        (AT, b"@"),
    ):
        table[list(characters)] = kind
    table.setflags(write=False)
    return table


def _fold() -> npt.NDArray[np.uint8]:
    table = np.arange(256, dtype=np.uint8)
    table[ord("A") : ord("Z") + 1] += ord("a") - ord("A")
    table.setflags(write=False)
    return table


KINDS: Final = _kinds()
"""What each byte is, read-only."""
FOLD: Final = _fold()
"""What each byte becomes, read-only: A-Z become a-z."""


@Compiled
def fold_emails(  # noqa: C901, PLR0912 - as above
    data: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    folded: npt.NDArray[np.uint8],
    firsts: npt.NDArray[np.int64],
    beyonds: npt.NDArray[np.int64],
) -> None:
    """Write each e-mail, folded, into `folded` at its place in `data`, and where it begins and ends without space.

    `folded` is uint8 of shape (total,), of which the rest is not to be read; `firsts` and `beyonds` are int64 of
    shape (N,), both 0 for what is no e-mail.
    """
    for row in range(starts.size):
        start, end = starts[row], ends[row]
        while start < end and KINDS[data[start]] == WHITE:
            start += 1
        while start < end and KINDS[data[end - 1]] == WHITE:
            end -= 1
        if (
            end - start >= BOM_BYTES
            and data[start] == _BOM_0
            and data[start + 1] == _BOM_1
            and data[start + 2] == _BOM_2
        ):
            start += BOM_BYTES
            while start < end and KINDS[data[start]] == WHITE:
                start += 1
        marked = end - start >= BOM_BYTES and data[end - 3] == _BOM_0
        if marked and data[end - 2] == _BOM_1 and data[end - 1] == _BOM_2:
            end -= BOM_BYTES
            while start < end and KINDS[data[end - 1]] == WHITE:
                end -= 1
        firsts[row], beyonds[row] = 0, 0
        if end - start < SHORTEST_EMAIL or end - start > LONGEST_EMAIL:
            continue
        at, dot = -1, -1
        fits = True
        for place in range(start, end):
            folded[place] = FOLD[data[place]]
            kind = KINDS[data[place]]
            if kind == AT:
                fits = fits and at < 0 and place > start
                at = place
            elif kind == DOT:
                fits = fits and (at < 0 or place - 1 not in (at, dot))
                dot = place
            elif kind == PLUS:
                fits = fits and at < 0
            elif kind < LETTER:
                fits = False
        fits = fits and at >= 0 and dot - at > FEWEST_BEFORE_LAST_DOT and end - dot > SHORTEST_TOP_LABEL
        if fits and KINDS[data[dot + 1]] == LETTER:
            firsts[row], beyonds[row] = start, end
