"""The loops that read shaped rows, compiled: the same results as the array operations of `shapes` and `plain`.

Each gets the bytes of a chunk as `data`, uint8 of shape (total,), and where N texts are in it as int64 of shape (N,).
It fills arrays that the caller made.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from iyscheck.kernel import Compiled

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

INTEGER_MAX_CHARS: Final = 8

_QUOTE: Final = ord('"')
_BACKSLASH: Final = ord("\\")
_SPACE: Final = ord(" ")
_BEYOND_ASCII: Final = 0x80
_0: Final = ord("0")
_9: Final = ord("9")
_HYPHEN: Final = ord("-")
_COLON: Final = ord(":")
_TIME_CHARS: Final = 19
_NINE: Final = 9
_NO_PAIR: Final = -1_000_000
_YEAR_MIN: Final = 1970
_MONTHS: Final = 12
_DAY_S: Final = 86_400


@Compiled
def match(  # noqa: C901, PLR0912, PLR0913, PLR0917 - one loop: calls out of it would have to be compiled too
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
) -> None:
    """Compare lines with a shape, and find the values of those that have it.

    A shape is literals with a value between each two of them, a text or a whole number: `literal_ends` (values + 1,)
    are where each literal ends in `literals`, `are_texts` (values,) says which values are texts. Of the lines that fit
    rows of `places`, `lengths` and `numbers`, int64 (values, N), are filled in.
    """
    values = are_texts.size
    for row in range(starts.size):
        at, end = starts[row], ends[row]
        fitting = True
        first = 0
        for value in range(values + 1):
            beyond = literal_ends[value]
            if at + beyond - first > end:
                fitting = False
                break
            for place in range(first, beyond):
                fitting &= data[at + place - first] == literals[place]
            if not fitting:
                break
            at += beyond - first
            first = beyond
            if value == values:
                fitting = at == end
                break
            began = at
            if are_texts[value]:
                while at < end:
                    character = data[at]
                    if character == _QUOTE:
                        break
                    if character < _SPACE or character >= _BEYOND_ASCII or character == _BACKSLASH:
                        fitting = False
                        break
                    at += 1
                if at == end:
                    fitting = False
            else:
                number = 0
                while at < end and _0 <= data[at] <= _9 and at - began <= INTEGER_MAX_CHARS:
                    number = number * 10 + data[at] - _0
                    at += 1
                fitting = 1 <= at - began <= INTEGER_MAX_CHARS and data[began] != _0
                numbers[value, row] = number
            if not fitting:
                break
            places[value, row] = began
            lengths[value, row] = at - began
        fits[row] = fitting


@Compiled
def vocabulary(
    data: Bytes, starts: Places, lengths: Places, texts: Bytes, sizes: Places, meanings: Bytes, found: Bytes
) -> None:
    """Write the meaning of each text that is one of `texts`, uint8 (K, longest) of these sizes; leave others alone."""
    for row in range(starts.size):
        for known in range(sizes.size):
            if sizes[known] == lengths[row]:
                same = True
                for place in range(sizes[known]):
                    same &= data[starts[row] + place] == texts[known, place]
                if same:
                    found[row] = meanings[known]
                    break


@Compiled
def seconds(
    data: Bytes, starts: Places, lengths: Places, months: Places, days_in_months: Places, latest: int, found: Places
) -> None:
    """Write local seconds: 0 for an empty text, -1 for all but a time of 19 characters.

    `months` and `days_in_months` are those of `times`, by (year - 1970) * 16 + month.
    """

    def pair(at: int) -> int:
        """Read two digits; far below 0 if there are none."""
        tens, ones = int(data[at]) - _0, int(data[at + 1]) - _0
        return tens * 10 + ones if 0 <= tens <= _NINE and 0 <= ones <= _NINE else _NO_PAIR

    for row in range(starts.size):
        found[row] = -1 if lengths[row] else 0
        if lengths[row] != _TIME_CHARS:
            continue
        at = starts[row]
        right = data[at + 4] == _HYPHEN and data[at + 7] == _HYPHEN and data[at + 10] == _SPACE
        right &= data[at + 13] == _COLON and data[at + 16] == _COLON
        century, year, month = pair(at), pair(at + 2), pair(at + 5)
        day, hour, minute, second = pair(at + 8), pair(at + 11), pair(at + 14), pair(at + 17)
        right &= min(century, year, month, day, hour, minute, second) >= 0
        which = (century * 100 + year - _YEAR_MIN) * 16 + month
        if not right or month > _MONTHS or which < 0 or which >= months.size:
            continue
        if 1 <= day <= days_in_months[which] and hour < 24 and minute < 60 and second < 60:  # noqa: PLR2004 - clock
            moment = months[which] + (day - 1) * _DAY_S + (hour * 60 + minute) * 60 + second
            if 0 < moment <= latest:
                found[row] = moment
