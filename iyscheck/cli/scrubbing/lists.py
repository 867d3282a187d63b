"""What every kind of list gives, whatever its file is: rows with the bytes to keep, and the address of each.

Lists of text (`text`) are one kind. A reader of workbooks would be another: whoever washes knows only this.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol


class RowFault(StrEnum):
    """Why a row is denied without asking about it: who is meant by it cannot be told."""

    WRONG_CELLS = "WRONG_CELLS"
    """More or fewer cells than the list has columns."""
    WRONG_QUOTES = "WRONG_QUOTES"
    """A quote that is not closed, or stands where none may."""
    UNDECODABLE = "UNDECODABLE"
    """Bytes that are no text in the list's encoding."""
    CONTROL_CHARACTER = "CONTROL_CHARACTER"
    """A character that some programs take for the end of a line, or of the file."""
    EMPTY_CELL = "EMPTY_CELL"
    """Nothing where the address should be."""


class Row(NamedTuple):
    """One row. Behind `kept` come `closing`, the answer's cells and `end`.

    `closing` is what it takes for the answer to stand in its own columns: nothing, but for some faulty rows. A blank
    row is no row, and gets no answer.
    """

    kept: bytes
    end: bytes
    address: str
    line: int
    fault: RowFault | None = None
    closing: bytes = b""
    blank: bool = False


class Point(NamedTuple):
    """Between two rows of a list: the bytes and the lines that lie before it."""

    offset: int
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Rows that follow each other, and the point behind them."""

    rows: list[Row]
    end: Point


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What stands before the rows. `names` is the header with its line end, empty if there is none."""

    mark: bytes
    names: bytes
    names_end: bytes
    end: Point


class ReadableList(Protocol):
    """A list that can be washed."""

    @property
    def head(self) -> Head:
        """What stands before the rows."""

    @property
    def delimiter(self) -> bytes:
        """What stands between the cells."""

    @property
    def encoding(self) -> str:
        """How text becomes bytes."""

    def pieces(self, start: Point, size: int) -> Iterator[Piece]:
        """Give the rows from a point on, `size` at a time. Raises InputError, SourceError."""
