"""Single fields of shaped rows → numbers, by array operations or by the compiled loops: the same from both."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from iyscheck.address import TextColumn
from iyscheck.kernel import Kernel
from iyscheck.times import LOCAL_SECONDS_MAX
from loader.reading import times
from loader.reading.text import Span, Text, words_of

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.uint8]

_WORD_CHARS: Final = 8
_PLACE_BITS: Final = 10
HEX_CHARS: Final = 64


def _masks(words: int) -> npt.NDArray[np.uint64]:
    """Return by length the words that keep a text of that length and clear what follows it: (8 * words + 1, words)."""
    longest = words * _WORD_CHARS
    rows = [(b"\xff" * length).ljust(longest, b"\0") for length in range(longest + 1)]
    masks = np.frombuffer(b"".join(rows), np.uint64).reshape(longest + 1, words)
    masks.setflags(write=False)
    return masks


class CodeTable:
    """A few short texts and the number that each stands for. Every other text stands for `other`."""

    def __init__(self, numbers: Mapping[str, int], *, other: int) -> None:
        self._words = -(-max(map(len, numbers)) // _WORD_CHARS)
        self._masks = _masks(self._words)
        self._other = other
        size = self._words * _WORD_CHARS
        texts = np.frombuffer(b"".join(name.encode().ljust(size, b"\0") for name in numbers), np.uint64)
        self._texts = texts.reshape(-1, self._words)
        self._numbers = np.array([*numbers.values()], np.uint8)
        # Multipliers are tried until each text has a place of its own: then one comparison decides.
        self._multiplier = next(
            np.uint64(odd)
            for odd in range(0x9E3779B97F4A7C15, 2**64, 2)
            if len(set(self._places(self._texts, np.uint64(odd)).tolist())) == len(numbers)
        )
        self._at = np.zeros(2**_PLACE_BITS, np.intp)
        self._at[self._places(self._texts, self._multiplier)] = np.arange(len(numbers))

    @staticmethod
    def _places(words: npt.NDArray[np.uint64], multiplier: np.uint64) -> npt.NDArray[np.uint64]:
        mixed = np.zeros(len(words), np.uint64)
        for column in words.T:
            mixed = (mixed ^ column) * multiplier
            mixed ^= mixed >> np.uint64(32)
        return mixed * multiplier >> np.uint64(64 - _PLACE_BITS)

    def numbers(self, text: Text, span: Span, kernel: Kernel) -> Numbers:
        """Return the number of each of N texts."""
        if kernel is Kernel.NUMBA:
            from loader.reading import loops

            found = np.full(len(span.start), self._other, np.uint8)
            loops.vocabulary(
                text.padded,
                span.start,
                span.length,
                self._masks,
                self._multiplier,
                np.uint64(64 - _PLACE_BITS),
                self._at,
                self._texts,
                self._numbers,
                found,
            )
            return found
        longest = self._words * _WORD_CHARS
        words = text.words(span.start, longest) & self._masks[np.minimum(span.length, longest)]
        at = self._at[self._places(words, self._multiplier)]
        same = span.length <= longest
        for column in range(self._words):
            same &= words[:, column] == self._texts[at, column]
        return np.where(same, self._numbers[at], np.uint8(self._other))


def seconds(text: Text, span: Span, kernel: Kernel) -> npt.NDArray[np.int64]:
    """Read local seconds: ABSENT for an empty text, INVALID for all but 19 characters, fractions too."""
    if kernel is Kernel.NUMBA:
        from loader.reading import loops

        found = np.empty(len(span.start), np.int64)
        loops.seconds(
            text.padded,
            span.start,
            span.length,
            times.PATTERN,
            times.TOO_MUCH,
            times.MONTHS,
            times.DAYS_IN_MONTHS,
            LOCAL_SECONDS_MAX,
            found,
        )
        return found
    found = times.seconds_of_words(text.words(span.start, times.TIME_WORDS * _WORD_CHARS))
    return np.where(span.length == times.TIME_CHARS, found, np.where(span.length == 0, times.ABSENT, times.INVALID))


def column_of(text: Text, span: Span) -> TextColumn:
    """Copy texts out behind one another: what recognises e-mails looks at all that lies between them, too."""
    offsets = np.cumsum(span.length) - span.length
    places = np.repeat(span.start - offsets, span.length) + np.arange(span.length.sum())
    return TextColumn.adjacent(text.padded[places], span.length)


_OVER: Final = words_of(b"\xf0" * _WORD_CHARS)[0]
_NIBBLES: Final = words_of(b"\x0f" * _WORD_CHARS)[0]
_ONES: Final = words_of(b"\x01" * _WORD_CHARS)[0]
_ZEROS: Final = words_of(b"0" * _WORD_CHARS)[0]
_ABOVE_NINE: Final = words_of(bytes([0x80 - 10]) * _WORD_CHARS)[0]


def hexadecimal(text: Text, span: Span, kernel: Kernel) -> tuple[Numbers, Mask]:
    """Read texts of 64 lower-case digits as uint8 (N, 32); also say which are such. What is none becomes zeros."""
    if kernel is Kernel.NUMBA:
        from loader.reading import loops

        found, right = np.zeros((len(span.start), HEX_CHARS // 2), np.uint8), np.empty(len(span.start), np.bool_)
        loops.hexadecimal(text.padded, span.start, span.length, right, found)
        return found, right
    found, right = hexadecimal_of_words(text.words(span.start, HEX_CHARS))
    right &= span.length == HEX_CHARS
    found[~right] = 0
    return found, right


def hexadecimal_of_words(words: npt.NDArray[np.uint64]) -> tuple[Numbers, Mask]:
    """Read N texts of 64 characters (N, 8) as the 32 bytes that they write; also say which are lower-case digits."""
    nibbles = (words & _NIBBLES) + (words >> np.uint64(6) & _ONES) * np.uint64(9)
    letters = nibbles + _ABOVE_NINE >> np.uint64(7) & _ONES
    written = nibbles + _ZEROS + letters * np.uint64(ord("a") - ord("0") - 10)
    right = ((written == words) & (nibbles & _OVER == 0)).all(axis=1)  # from `g` on they would not fit
    pairs = nibbles << np.uint64(4) | nibbles >> np.uint64(8)  # of each two bytes the first now holds both
    return np.ascontiguousarray(pairs.view(np.uint8)[:, ::2]), right
