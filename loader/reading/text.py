"""The bytes of a chunk as one array, and where values stand in it: what array operations and compiled loops share."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

INTEGER_MAX_CHARS: Final = 8
MARGIN: Final = 64
"""Bytes before and after the text, so that windows of up to this length may begin and end anywhere."""
COPIED_BYTES: Final = 2**20
"""Of a larger chunk the few lines at its very edges are decoded, and there need be no margins around it."""

_WORD: Final = 8

Places = npt.NDArray[np.int64]


def words_of(text: bytes) -> npt.NDArray[np.uint64]:
    """Lay a text out as 64-bit words in this machine's byte order, its end filled with zeros."""
    return np.frombuffer(text.ljust(-(-len(text) // _WORD) * _WORD, b"\0"), np.uint64)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Text:
    """The bytes of a chunk, from `first` on, perhaps between two margins. Its `repr` shows none of them."""

    padded: npt.NDArray[np.uint8]
    first: int

    @classmethod
    def of(cls, data: bytes, *, copied_up_to: int = COPIED_BYTES) -> "Text":
        """Lay a chunk out, with margins unless it is too large to be worth the copy."""
        if len(data) > copied_up_to:
            return cls(padded=np.frombuffer(data, np.uint8), first=0)
        return cls(padded=np.frombuffer(b"".join((bytes(MARGIN), data, bytes(MARGIN))), np.uint8), first=MARGIN)

    def has_room(self, starts: Places, ends: Places) -> npt.NDArray[np.bool_]:
        """Say around which lines windows may begin and end anywhere."""
        return (starts >= _WORD) & (ends + MARGIN <= self.padded.size)

    def one(self, start: int, length: int) -> bytes:
        """Return one piece of the text."""
        return self.padded[start : start + length].tobytes()

    def words(self, places: Places, size: int) -> npt.NDArray[np.uint64]:
        """Copy the `size` bytes (a multiple of 8) that begin at each place: uint64 (N, size / 8)."""
        # One item of that size at every byte: gathering items is faster than gathering rows of a sliding window.
        every = np.ndarray((self.padded.size - size + 1,), f"V{size}", self.padded, strides=(1,))
        return every[places].view(np.uint64).reshape(len(places), size // _WORD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Where N values stand: int64 places in the padded text, and lengths."""

    start: Places
    length: Places


def _repeated(byte: int) -> np.uint64:
    return np.uint64(int.from_bytes(bytes([byte]) * _WORD, "big"))


_ZEROS: Final = _repeated(ord("0"))
_NOT_DIGIT: Final = _repeated(0x80 - 10)
_HIGH_BITS: Final = _repeated(0x80)


def integers(text: Text, span: Span) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Read whole numbers of 1 to 8 digits, the first not 0; also say which of the spans are such."""
    right = (span.length >= 1) & (span.length <= INTEGER_MAX_CHARS)
    length = np.where(right, span.length, 1)
    ends = np.where(right, span.start + length, _WORD)
    digits = text.words(ends - _WORD, _WORD)[:, 0] ^ _ZEROS
    surplus = ((_WORD - length) * 8).astype(np.uint64)
    digits = digits >> surplus << surplus  # the first character is the lowest byte: what precedes it becomes 0
    right &= ((digits + _NOT_DIGIT) | digits) & _HIGH_BITS == 0
    right &= (digits >> surplus) & np.uint64(0xFF) != 0
    pairs = (digits * np.uint64(10 * 2**8 + 1) >> np.uint64(8)) & np.uint64(0x00FF00FF00FF00FF)
    fours = (pairs * np.uint64(100 * 2**16 + 1) >> np.uint64(16)) & np.uint64(0x0000FFFF0000FFFF)
    numbers = (fours * np.uint64(10_000 * 2**32 + 1)) >> np.uint64(32)
    return numbers.astype(np.int64), right
