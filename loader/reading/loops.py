"""The loops that read shaped rows, compiled: the same results as the array operations of `shapes` and `plain`.

Each gets the bytes of a chunk as `data`, uint8 of shape (total,), and where N texts are in it as int64 of shape (N,).
It fills arrays that the caller made. Imported only where numba is installed and asked for.

Eight bytes are looked at together, so up to `MARGIN` bytes behind a line are read (and not minded): see `shapes`.
"""

from typing import Final

import numba
import numpy as np
import numpy.typing as npt

from iyscheck.kernel import Compiled
from iyscheck.kernel.llvm import put_word, word
from loader.reading.text import INTEGER_MAX_CHARS

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

_WORD: Final = 8
_QUOTE: Final = ord('"')
_0: Final = ord("0")
_9: Final = ord("9")
_TIME_CHARS: Final = 19
_YEAR_MIN: Final = 1970
_MONTHS: Final = 12
_DAY_S: Final = 86_400

_ONES: Final = np.uint64(0x0101010101010101)
_HIGHS: Final = np.uint64(0x8080808080808080)
_LOWS: Final = ~_HIGHS
_QUOTES: Final = _ONES * np.uint64(_QUOTE)
_BACKSLASHES: Final = _ONES * np.uint64(ord("\\"))
_BELOW_SPACE: Final = _ONES * np.uint64(0x80 - ord(" "))
_NIBBLES: Final = _ONES * np.uint64(0x0F)
_OVER: Final = _ONES * np.uint64(0xF0)
_ZEROS: Final = _ONES * np.uint64(_0)
_ABOVE_NINE: Final = _ONES * np.uint64(0x80 - 10)
_TO_LETTER: Final = np.uint64(ord("a") - ord("0") - 10)
_ONE: Final = np.uint64(1)
_FOUR: Final = np.uint64(4)
_SIX: Final = np.uint64(6)
_SEVEN: Final = np.uint64(7)
_EIGHT: Final = np.uint64(8)
_NINE: Final = np.uint64(9)
_TEN: Final = np.uint64(10)
_HALF: Final = np.uint64(32)
_BYTE: Final = np.uint64(0xFF)

_part: Final = numba.njit(error_model="numpy")  # of the loops below; compiled and kept with them


@_part
def _stops(characters: np.uint64) -> np.uint64:
    """Set the high bit of the first character that ends a text or may not stand in it; of those behind it perhaps."""
    quotes, backslashes = characters ^ _QUOTES, characters ^ _BACKSLASHES
    # A byte that is 0 borrows from the next: only bits above the first one that is set may be wrong.
    found = ((quotes - _ONES) & ~quotes) | ((backslashes - _ONES) & ~backslashes)
    found |= ~((characters & _LOWS) + _BELOW_SPACE) | characters
    return found & _HIGHS


@_part
def _first_byte(highs: np.uint64) -> int:
    """Say in which byte the lowest set bit is."""
    lowest = highs & (~highs + _ONE)
    at = 0
    if lowest > np.uint64(0xFFFFFFFF):
        lowest >>= _HALF
        at = 4
    if lowest > np.uint64(0xFFFF):
        lowest >>= np.uint64(16)
        at += 2
    return at + (1 if lowest > np.uint64(0xFF) else 0)


@_part
def _differ(data: Bytes, at: int, literals: Bytes, first: int, size: int) -> bool:
    """Compare so many bytes, word by word; both go on for 8 more bytes."""
    different = np.uint64(0)
    step = 0
    while step + _WORD <= size:
        different |= word(data, at + step) ^ word(literals, first + step)
        step += _WORD
    if step < size:
        surplus = np.uint64((step + _WORD - size) * 8)
        different |= (word(data, at + step) ^ word(literals, first + step)) << surplus
    return bool(different != 0)


@Compiled
def match(  # noqa: PLR0913, PLR0917 - a table in its parts
    data: Bytes,
    starts: Places,
    ends: Places,
    literals: Bytes,
    literal_ends: Places,
    are_texts: Mask,
    fits: Mask,
    places: Places,
    lengths: Places,
    numbers: Places,
) -> int:
    """Compare lines with a shape, and find the values of those that have it; returns how many that are.

    A shape is literals with a value between each two of them, a text or a whole number: `literal_ends` (values + 1,)
    are where each literal ends in `literals`, 8 more bytes behind them, and `are_texts` (values,) says which values are
    texts. `fits` (N,) says which lines have it; one after the other they are put into `places`, `lengths` and
    `numbers`, int64 (values, N).
    """
    values = are_texts.size
    count = 0
    for row in range(starts.size):
        at, end = starts[row], ends[row]
        fitting = True
        first = 0
        for value in range(values + 1):
            beyond = literal_ends[value]
            size = beyond - first
            if at + size > end or _differ(data, at, literals, first, size):
                fitting = False
                break
            at += size
            first = beyond
            if value == values:
                fitting = at == end
                break
            began = at
            if are_texts[value]:
                stops = _stops(word(data, at))
                while stops == 0 and at < end:
                    at += _WORD
                    stops = _stops(word(data, at))
                at += _first_byte(stops)
                fitting = at < end and data[at] == _QUOTE
            else:
                number = 0
                while at < end and _0 <= data[at] <= _9 and at - began <= INTEGER_MAX_CHARS:
                    number = number * 10 + data[at] - _0
                    at += 1
                fitting = 1 <= at - began <= INTEGER_MAX_CHARS and data[began] != _0
                numbers[value, count] = number
            if not fitting:
                break
            places[value, count] = began
            lengths[value, count] = at - began
        fits[row] = fitting
        count += 1 if fitting else 0
    return count


@Compiled
def vocabulary(  # noqa: PLR0913, PLR0917 - a table in its parts
    data: Bytes,
    starts: Places,
    lengths: Places,
    masks: Words,
    multiplier: np.uint64,
    shift: np.uint64,
    table: Places,
    texts: Words,
    numbers: Bytes,
    found: Bytes,
) -> None:
    """Write the number of each text that is one of `texts`, uint64 (K, words); leave others alone.

    The rest is how `_Vocabulary` of `plain` finds the only one that it could be.
    """
    words = texts.shape[1]
    longest = words * _WORD
    for row in range(starts.size):
        length = lengths[row]
        if length > longest:
            continue
        mixed = np.uint64(0)
        for column in range(words):
            mixed = (mixed ^ (word(data, starts[row] + column * _WORD) & masks[length, column])) * multiplier
            mixed ^= mixed >> _HALF
        at = table[mixed * multiplier >> shift]
        different = np.uint64(0)
        for column in range(words):
            different |= (word(data, starts[row] + column * _WORD) & masks[length, column]) ^ texts[at, column]
        if different == 0:
            found[row] = numbers[at]


@Compiled
def seconds(  # noqa: PLR0913, PLR0917 - one loop
    data: Bytes,
    starts: Places,
    lengths: Places,
    pattern: Words,
    too_much: Words,
    months: Places,
    days_in_months: Places,
    latest: int,
    found: Places,
) -> None:
    """Write local seconds: 0 for an empty text, -1 for all but a time of 19 characters.

    `pattern`, `too_much`, `months` and `days_in_months` are those of `times`.
    """
    last_mask = np.uint64(0xFFFFFF)
    for row in range(starts.size):
        found[row] = -1 if lengths[row] else 0
        if lengths[row] != _TIME_CHARS:
            continue
        at = starts[row]
        date = word(data, at) ^ pattern[0]
        clock = word(data, at + 8) ^ pattern[1]
        last = (word(data, at + 16) & last_mask) ^ pattern[2]
        wrong = (date + too_much[0]) | date | (clock + too_much[1]) | clock | (last + too_much[2]) | last
        if wrong & _HIGHS != 0:
            continue
        # Now a byte holds ten times its digit and the next one: two digits where the first of them stands.
        date = date * _TEN + (date >> _EIGHT)
        clock = clock * _TEN + (clock >> _EIGHT)
        last = last * _TEN + (last >> _EIGHT)
        year = np.int64(date & _BYTE) * 100 + np.int64(date >> np.uint64(16) & _BYTE) - _YEAR_MIN
        month = np.int64(date >> np.uint64(40) & _BYTE)
        which = year * 16 + month
        if month > _MONTHS or which < 0 or which >= months.size:
            continue
        day, hour = np.int64(clock & _BYTE), np.int64(clock >> np.uint64(24) & _BYTE)
        minute, second = np.int64(clock >> np.uint64(48) & _BYTE), np.int64(last >> _EIGHT & _BYTE)
        if 1 <= day <= days_in_months[which] and hour < 24 and minute < 60 and second < 60:  # noqa: PLR2004 - clock
            moment = months[which] + (day - 1) * _DAY_S + (hour * 60 + minute) * 60 + second
            if 0 < moment <= latest:
                found[row] = moment


@Compiled
def hexadecimal(data: Bytes, starts: Places, lengths: Places, right: Mask, found: Bytes) -> None:
    """Read texts of 64 lower-case hexadecimal digits into rows of `found`, uint8 (N, 32) of zeros.

    `right` (N,) says which texts are such; the others leave their rows alone.
    """
    halves = np.empty(8, np.uint64)
    memory = found.reshape(found.size)
    for row in range(starts.size):
        wrong = np.uint64(0)
        for column in range(8):
            text = word(data, starts[row] + column * _WORD)
            nibbles = (text & _NIBBLES) + (text >> _SIX & _ONES) * _NINE
            letters = nibbles + _ABOVE_NINE >> _SEVEN & _ONES
            wrong |= (nibbles + _ZEROS + letters * _TO_LETTER) ^ text | nibbles & _OVER
            pairs = (nibbles << _FOUR | nibbles >> _EIGHT) & np.uint64(0x00FF00FF00FF00FF)
            pairs = (pairs | pairs >> _EIGHT) & np.uint64(0x0000FFFF0000FFFF)
            halves[column] = (pairs | pairs >> np.uint64(16)) & np.uint64(0xFFFFFFFF)
        right[row] = lengths[row] == 64 and wrong == 0  # noqa: PLR2004 - see above
        if right[row]:
            for column in range(4):
                put_word(memory, row * 32 + column * _WORD, halves[2 * column] | halves[2 * column + 1] << _HALF)
