"""Country codes, and what is dialled behind them at home or on the way only. Part of the address form's version."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

COUNTRY_CODES: Final = (
    # ITU-T E.164, assigned country codes and those shared by networks or services.
    *(1, 7, 20, 27, 30, 31, 32, 33, 34, 36, 39, 40, 41, 43, 44, 45, 46, 47, 48, 49, 51, 52, 53, 54, 55, 56, 57, 58),
    *(60, 61, 62, 63, 64, 65, 66, 81, 82, 84, 86, 90, 91, 92, 93, 94, 95, 98),
    *(211, 212, 213, 216, 218, *range(220, 259), *range(260, 270), 290, 291, 297, 298, 299),
    *(*range(350, 360), *range(370, 379), *range(380, 384), 385, 386, 387, 389, 420, 421, 423, *range(500, 510)),
    *(*range(590, 600), 670, *range(672, 684), *range(685, 693), 800, 808, 850, 852, 853, 855, 856),
    *(870, 878, 880, 881, 882, 883, 886, 888, *range(960, 969), *range(970, 978), 979, *range(992, 997), 998),
)
TURKEY: Final = 90
ZERO_FOLLOWS: Final = (39, 225, 241, 242, 378)
"""Country codes behind which numbers may begin with 0: elsewhere it is a trunk prefix, dialled at home only."""
TRUNKS: Final[Mapping[int, tuple[str, int]]] = {
    1: ("1", 7),
    7: ("8", 12),
    370: ("8", 12),
    375: ("8", 13),
    692: ("1", 11),
    993: ("8", 12),
    # Dialled first there before numbers that do not begin with it, too.
    241: ("0", 12),
    # Once dialled between country code and number of a mobile; behind the area code 15 still is.
    52: ("1", 13),
    54: ("123", 14),
    # Codes of operators, which may be dialled before a number.
    55: ("9", 14),
    61: ("1", 13),
    86: ("1", 14),
    298: ("1", 10),
    352: ("1", 7),
    423: ("1", 11),
    506: ("1", 12),
}
"""What else is dialled at home or on the way only: one of these digits right behind the country code, where the number
has so many digits or more in all. Shorter ones may begin with it."""


def _by_code(values: Mapping[int, int]) -> npt.NDArray[np.int64]:
    """Make a read-only table by the first three digits of a number: the value of its country code, else 0."""
    table = np.zeros(1000, np.int64)
    for code, value in values.items():
        width = 10 ** (3 - len(str(code)))
        table[code * width : (code + 1) * width] = value
    table.setflags(write=False)
    return table


CODE_DIGITS: Final = _by_code({code: len(str(code)) for code in COUNTRY_CODES if code != TURKEY})
"""How many of the first three digits of a foreign number are its country code, 0 for none."""
TRUNK_DIGITS: Final = _by_code({code: sum(1 << int(digit) for digit in digits) for code, (digits, _) in TRUNKS.items()})
"""One bit for each digit that may be a trunk prefix behind the country code, of long numbers."""
TRUNK_FROM: Final = _by_code({code: size for code, (_, size) in TRUNKS.items()})
"""From how many digits in all on it is one."""
ZERO_ALLOWED: Final = _by_code(dict.fromkeys(ZERO_FOLLOWS, 1))
"""Whether a number may begin with 0."""
BY_CODE: Final = np.stack((CODE_DIGITS, ZERO_ALLOWED, TRUNK_FROM, TRUNK_DIGITS), axis=1)
"""All four in the order that the loops know, int64 (1000, 4), read-only."""
BY_CODE.setflags(write=False)
