"""Randomness without state: what is drawn for an item is a hash of the seed, a topic and the item's number.

So anything about item i of a hundred million can be said without making the others, in any order, in columns.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)
_LARGEST_SHUFFLE: Final = 3_000_000_000
"""The product of two numbers below it fits into int64."""


@dataclass(frozen=True, slots=True)
class Shuffle:
    """A bijection of the numbers below `size`: number k goes to (multiplier · k + offset) mod size."""

    size: int
    multiplier: int
    offset: int

    def __call__(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Say where numbers below `size` go, shape (N,)."""
        return (numbers * self.multiplier + self.offset) % self.size

    def back(self, number: int) -> int:
        """Say which number goes to `number`."""
        return (number - self.offset) * pow(self.multiplier, -1, self.size) % self.size


class Shuffles:
    """Many shuffles at once: each number goes through the one it names."""

    def __init__(self, each: Sequence[Shuffle]) -> None:
        self.each = tuple(each)
        self._sizes = np.array([shuffle.size for shuffle in each], np.int64)
        self._multipliers = np.array([shuffle.multiplier for shuffle in each], np.int64)
        self._offsets = np.array([shuffle.offset for shuffle in each], np.int64)

    def __call__(self, which: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Say where each number goes in the shuffle at its place of `which`, both of shape (N,)."""
        return (numbers * self._multipliers[which] + self._offsets[which]) % self._sizes[which]


@dataclass(frozen=True, slots=True)
class Dice:
    """All the draws of one seed. A topic names what is drawn; items are int64 of shape (N,)."""

    seed: int

    def words(self, topic: str, items: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """Draw 64 random bits for each item (SplitMix64 of the item, salted)."""
        word = items.astype(np.uint64) * _GOLDEN + np.uint64(self._salt(topic))
        word = (word ^ (word >> np.uint64(30))) * _MIX_1
        word = (word ^ (word >> np.uint64(27))) * _MIX_2
        return word ^ (word >> np.uint64(31))

    def units(self, topic: str, items: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Draw a number from 0 to below 1 for each item."""
        return (self.words(topic, items) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def below(self, topic: str, items: npt.NDArray[np.int64], bound: int) -> npt.NDArray[np.int64]:
        """Draw a whole number below `bound` for each item."""
        return (self.words(topic, items) % np.uint64(bound)).astype(np.int64)

    def picks(self, topic: str, items: npt.NDArray[np.int64], weights: Sequence[float]) -> npt.NDArray[np.int64]:
        """Draw the place of one of `weights` for each item, in proportion to them."""
        limits = np.cumsum(weights)
        return np.searchsorted(limits[:-1] / limits[-1], self.units(topic, items), side="right").astype(np.int64)

    def shuffle(self, topic: str, size: int) -> Shuffle:
        """Draw a bijection of the numbers below `size`. Raises ValueError for none or more than 3·10⁹ of them."""
        if not 0 < size < _LARGEST_SHUFFLE:
            raise ValueError(f"{topic}: cannot shuffle {size} numbers")
        salt = self._salt(topic)
        multiplier = salt % size or 1
        while math.gcd(multiplier, size) > 1:
            multiplier += 1
        return Shuffle(size, multiplier % size, self._salt(f"{topic} offset") % size)

    def _salt(self, topic: str) -> int:
        return int.from_bytes(hashlib.blake2b(f"{self.seed} {topic}".encode(), digest_size=8).digest(), "little")
