"""The loops of `address`, compiled: the same grammar in one pass over the bytes of a column.

Each loop gets the texts of a column as `data`, uint8 of shape (total,), and `starts` and `ends`, int64 of shape (N,).
What it finds is bit for bit what the array operations of `address` find.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from iyscheck.kernel import Compiled
from iyscheck.keys import BLOCK_BYTES

# --- Phones -----------------------------------------------------------------------------------------------
#
# A phone has at most 16 characters, so two 64-bit numbers hold it, with the last character in the highest
# byte of `back`. The ten digits of a Turkish number then are `back` and the upper two bytes of `front`, and
# its prefix lies below them. A text that may be one as it stands is read as two words; any other is shifted
# in from above, character by character and without its separators, and looked at again.

SEPARATORS: Final = b" -.()"
"""What may stand anywhere in a phone."""
PREFIXES: Final = {10: b"", 11: b"0", 12: b"90", 13: b"+90", 14: b"0090", 15: b"00900"}
"""What stands before the ten digits of a Turkish number, by length of the whole. Of 14 there is a second one."""
SECOND_PREFIX: Final = b"+900"
SHORTEST_FOREIGN: Final = len("+") + 7

_SPACE, _HYPHEN, _FULL_STOP, _OPEN, _CLOSE = SEPARATORS
_PLUS: Final = ord("+")
_DIGIT_0: Final = ord("0")
_SHORTEST_TURKISH: Final = min(PREFIXES)
_LONGEST_TURKISH: Final = max(PREFIXES)
_SECOND_LENGTH: Final = len(SECOND_PREFIX) + _SHORTEST_TURKISH


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
_SECOND_PREFIX: Final = _prefix(SECOND_PREFIX)
_PREFIX_MASKS: Final = _by_length(*(_prefix(b"\xff" * len(prefix)) for prefix in PREFIXES.values()))
_NATIONAL_IN_FRONT: Final = _number(bytes(6) + b"\xff" * 2)
_ZEROS_BELOW: Final = _number(b"0" * 6)
_LOWEST: Final = _number(b"\xff")
_LOWEST_2: Final = _number(b"\xff" * 2)
_LOWEST_3: Final = _number(b"\xff" * 3)
_NOTHING: Final = _number(b"")
_E164: Final = _number(b"+90")
_FIRST_NATIONAL: Final = _number(b"2")
_TURKEY: Final = _number(b"90")
_ZERO: Final = _number(b"0")
_ZEROS: Final = _number(b"0" * 8)
_SEVEN_BITS: Final = _number(b"\x7f" * 8)
_EIGHTH_BIT: Final = _number(b"\x80" * 8)
_ABOVE_NINE: Final = _number(bytes([0x80 - 10]) * 8)
"""Added to seven bits it sets the eighth if they are more than nine, and never carries into the next byte."""
_BY_1, _BY_3, _BY_5, _BY_6, _BY_7 = (np.uint64(8 * count) for count in (1, 3, 5, 6, 7))
"""Shifts by so many bytes."""


@Compiled
def write_phone_blocks(  # noqa: C901 - one loop: calls out of it would have to be compiled too
    data: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    found: npt.NDArray[np.uint8],
) -> None:
    """Write the block of each phone into its row of `found`, uint8 of shape (N, 16); leave the other rows alone."""

    def are_digits(word: np.uint64) -> bool:
        values = word ^ _ZEROS
        return bool((values | ((values & _SEVEN_BITS) + _ABOVE_NINE)) & _EIGHTH_BIT == _NOTHING)

    def is_turkish(front: np.uint64, back: np.uint64, length: int) -> bool:
        if length < _SHORTEST_TURKISH or length > _LONGEST_TURKISH:
            return False
        prefix = front & _PREFIX_MASKS[length]
        known = prefix == _PREFIXES[length] or (length == _SECOND_LENGTH and prefix == _SECOND_PREFIX)
        digits = are_digits(back) and are_digits((front & _NATIONAL_IN_FRONT) | _ZEROS_BELOW)
        return bool(known and digits and (front >> _BY_6) & _LOWEST >= _FIRST_NATIONAL)

    def write(row: int, front: np.uint64, back: np.uint64) -> None:
        for byte in range(8):
            # Without the conversions LLVM does not see that this is two stores.
            found[row, byte] = np.uint8((front >> np.uint64(8 * byte)) & _LOWEST)
            found[row, byte + 8] = np.uint8((back >> np.uint64(8 * byte)) & _LOWEST)

    for row in range(starts.size):
        length = ends[row] - starts[row]
        front, back = _NOTHING, _NOTHING
        if _SHORTEST_TURKISH <= length <= _LONGEST_TURKISH and ends[row] >= BLOCK_BYTES:
            tail = np.uint64(ends[row] - BLOCK_BYTES)
            for byte in range(8):
                front |= np.uint64(data[tail + np.uint64(byte)]) << np.uint64(8 * byte)
                back |= np.uint64(data[tail + np.uint64(byte + 8)]) << np.uint64(8 * byte)
        turkish = is_turkish(front, back, length)
        foreign = False
        if not turkish:
            front, back, length = _NOTHING, _NOTHING, 0
            for place in range(starts[row], ends[row]):
                character = data[place]
                if character in (_SPACE, _HYPHEN, _FULL_STOP, _OPEN, _CLOSE):
                    continue
                if length == 0:
                    foreign = character == _PLUS
                elif np.uint8(character - _DIGIT_0) > 9:  # noqa: PLR2004 - below "0" the bytes wrap around
                    foreign = False
                front = (front >> _BY_1) | (back << _BY_7)
                back = (back >> _BY_1) | (np.uint64(character) << _BY_7)
                length += 1
            turkish = is_turkish(front, back, length)
        if turkish:
            write(row, _E164 | ((front >> _BY_6) << _BY_3) | ((back & _LOWEST_3) << _BY_5), back >> _BY_3)
        elif foreign and SHORTEST_FOREIGN <= length <= BLOCK_BYTES:
            for _ in range(BLOCK_BYTES - length):
                front = (front >> _BY_1) | (back << _BY_7)
                back >>= _BY_1
            country = (front >> _BY_1) & _LOWEST_2
            if country & _LOWEST != _ZERO and country != _TURKEY:
                write(row, front, back)


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
def fold_emails(  # noqa: C901 - as above
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
