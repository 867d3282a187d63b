"""A row as it is written, and what the lines of a chunk decode to: rows, or lines that are none.

What keys and values mean is not looked at here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from loader.reading.faults import LINE_TOO_LONG, Fault
from loader.reading.shapes import ShapedRows

BOM: Final = b"\xef\xbb\xbf"
NEWLINE: Final = ord("\n")

Row = dict[str, object]
"""A row of any kind as it is written: what stands under each key, of whatever JSON type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BadLine:
    """A line that is no row. `line` counts from 0 in its chunk; `brand_code` is what could be read of it."""

    line: int
    fault: Fault
    brand_code: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """The rows of a chunk: row i stands on `lines[i]` (from 0) and is the `ordinals[i]`-th row (from 1) of `count`.

    `shaped` are the rows that were not decoded because they have the shape of one that was, each with its ordinals.
    """

    rows: list[Row]
    lines: npt.NDArray[np.int64]
    ordinals: npt.NDArray[np.int64]
    count: int
    bad: list[BadLine] = field(default_factory=list)
    shaped: list[tuple[ShapedRows, npt.NDArray[np.int64]]] = field(default_factory=list)


class Format(Protocol):
    """Decodes whole lines. `first` says that the chunk is the beginning of its source."""

    def decode(self, data: bytes, *, first: bool) -> Decoded:
        """Decode a chunk. Raises nothing, whatever the bytes are, but SourceUnreadableError for a second header."""
        ...

    def content(self, line: bytes) -> object:
        """Return what a rejects file may show of a line, as a JSON value; None if it does not decode."""
        ...


def split(data: bytes) -> list[bytes]:
    """Split a chunk into its lines without their ends."""
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines


def numbered(rows: list[Row], lines: Sequence[int], ordinals: Sequence[int], bad: list[BadLine]) -> Decoded:
    """Put rows, the lines and numbers that they have, and the bad lines among them together."""
    return Decoded(
        rows=rows,
        lines=np.array(lines, np.int64),
        ordinals=np.array(ordinals, np.int64),
        count=len(rows) + len(bad),
        bad=bad,
    )


def nothing() -> Decoded:
    """Say what no line decodes to."""
    return numbered([], [], [], [])


def too_long() -> Decoded:
    """Say what a line decodes to that was too long even to be kept."""
    return numbered([], [], [], [BadLine(line=0, fault=LINE_TOO_LONG)])
