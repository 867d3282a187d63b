"""The checks of many records at once, for numba; imported only where it is installed and asked for.

A check is xxh3-64, as the library `xxhash` computes it, which takes four times as long for being called once a record.
Source: the specification of XXH3 in the repository of xxHash, "medium inputs"; a test compares every length.
"""

from typing import Final

import numba
import numpy as np
import numpy.typing as npt

from iyscheck.kernel import Compiled
from iyscheck.kernel.llvm import folded_product, word

Bytes = npt.NDArray[np.uint8]

SHORTEST: Final = 17
LONGEST: Final = 128
"""Bytes of a text that is hashed this way; the body of a record with its key has 73."""

_SECRET: Final = np.frombuffer(
    bytes.fromhex(
        "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
        "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
        "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
        "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    ),
    np.uint64,
)
_LENGTH_FACTOR: Final = np.uint64(0x9E3779B185EBCA87)
_LAST_FACTOR: Final = np.uint64(0x165667919E3779F9)
_FIRST_SHIFT: Final = np.uint64(37)
_LAST_SHIFT: Final = np.uint64(32)


@numba.njit(error_model="numpy")
def _digest(text: Bytes, size: int) -> np.uint64:
    """Return xxh3-64 of the first bytes of a text, SHORTEST to LONGEST of them."""
    total = np.uint64(size) * _LENGTH_FACTOR
    for step in range((size - 1) // 32 + 1):
        front, back, at = 16 * step, size - 16 * (step + 1), 4 * step
        total += folded_product(word(text, front) ^ _SECRET[at], word(text, front + 8) ^ _SECRET[at + 1])
        total += folded_product(word(text, back) ^ _SECRET[at + 2], word(text, back + 8) ^ _SECRET[at + 3])
    total = (total ^ (total >> _FIRST_SHIFT)) * _LAST_FACTOR
    return total ^ (total >> _LAST_SHIFT)


@Compiled
def digests(rows: Bytes, gap: int, after: int, end: int, found: npt.NDArray[np.uint64]) -> None:
    """Write xxh3-64 of what stands in each of N rows, C-contiguous (N, length), before `gap` and from `after` to `end`.

    That must be SHORTEST to LONGEST bytes.
    """
    size = gap + end - after
    text = np.empty(size, np.uint8)
    for row in range(found.size):
        for place in range(gap):
            text[place] = rows[row, place]
        for place in range(after, end):
            text[gap + place - after] = rows[row, place]
        found[row] = _digest(text, size)
