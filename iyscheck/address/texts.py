"""N texts in one buffer, as frames have them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from iyscheck.address.single import MARK, trimmed


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class TextColumn:
    """N texts in one buffer: text i is `data[starts[i]:ends[i]]`. Its `repr` shows no text.

    `data` is uint8 of shape (total,), any bytes at all, in the texts and between them; `starts` and `ends` are int64
    of shape (N,), in any order, each start at or before its end and both inside of `data`. So the texts of a frame
    are a column where they lie. Raises ValueError for arrays that are not so.
    """

    data: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.data.dtype != np.uint8 or self.data.ndim != 1:
            raise ValueError("data must be uint8 of shape (total,)")
        for places in (self.starts, self.ends):
            if places.dtype != np.int64 or places.ndim != 1 or places.size != self.starts.size:
                raise ValueError("starts and ends must be int64 of shape (N,)")
        if self.starts.size and not self._inside():
            raise ValueError("starts and ends must lie in data, each start at or before its end")

    @classmethod
    def of(cls, addresses: Sequence[str]) -> Self:
        """Lay texts out as a column, one byte a character: beyond ASCII a `?`, which no form accepts."""
        if isinstance(addresses, str):
            raise TypeError("a column is made of many texts, not of the characters of one")
        if MARK in "".join(addresses):
            addresses = [trimmed(address) for address in addresses]  # of more than one byte, and trimmed anyway
        text = "".join(addresses).encode("ascii", "replace")
        lengths = np.fromiter(map(len, addresses), np.int64, len(addresses))
        return cls.adjacent(np.frombuffer(text, np.uint8), lengths)

    @classmethod
    def adjacent(cls, data: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int64]) -> Self:
        """Make a column of texts that follow each other without gaps; `lengths` is int64 of shape (N,)."""
        ends = np.cumsum(lengths, dtype=np.int64)
        return cls(data=data, starts=ends - lengths, ends=ends)

    def __len__(self) -> int:
        return self.starts.size

    def _inside(self) -> bool:
        return bool(
            self.starts.min() >= 0 and self.ends.max() <= self.data.size and (self.ends - self.starts).min() >= 0
        )
