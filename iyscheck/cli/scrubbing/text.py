"""Lists of text: CSV and TXT."""

import re
from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO, Final

from iyscheck.cli.scrubbing.detecting import Layout
from iyscheck.cli.scrubbing.lists import Head, Piece, Point, Row, RowFault
from iyscheck.cli.scrubbing.records import Grammar, Record, lines_of, unquoted
from iyscheck.errors import InputError

PERMITTED_CELL: Final = "EVET"
_LINE_ENDS: Final = re.compile(rb"[\r\x0b\x0c\x1c-\x1e]")
"""Inside a line: some programs end one here."""


class TextList:
    """A list of text whose layout is known."""

    def __init__(self, file: BinaryIO, layout: Layout) -> None:
        self._file = file
        self._layout = layout
        self._grammar = Grammar(layout.delimiter, layout.columns)

    @property
    def head(self) -> Head:
        """What stands before the rows."""
        return self._layout.head

    @property
    def delimiter(self) -> bytes:
        """What stands between the cells."""
        return self._layout.delimiter

    @property
    def encoding(self) -> str:
        """How text becomes bytes."""
        return self._layout.encoding

    def pieces(self, start: Point, size: int) -> Iterator[Piece]:
        """Give the rows from a point on, `size` at a time. Raises InputError."""
        self._file.seek(start.offset)
        records = self._grammar.records(lines_of(self._file, start.line))
        offset, line = start
        while True:
            rows = []
            for record in islice(records, size):
                rows.append(self._row(record, line))
                offset += len(record.kept) + len(record.end)
                line += record.lines
            if not rows:
                return
            yield Piece(rows=rows, end=Point(offset, line))

    def _row(self, record: Record, line: int) -> Row:
        kept, end, cells, _, fault = record
        if fault is None:
            try:
                if not kept.isascii():
                    kept.decode(self._layout.encoding)
                address = unquoted(cells[self._layout.column - 1]).decode(self._layout.encoding)
            except UnicodeDecodeError:
                fault = RowFault.UNDECODABLE
            else:
                if address.strip():
                    return Row(kept, end, address, line)
                fault = RowFault.EMPTY_CELL
        if not kept.strip(b" "):
            return Row(kept, end, "", line, blank=True)
        return Row(kept, end, "", line, fault, self._closing(kept, line))

    def _closing(self, kept: bytes, line: int) -> bytes:
        """Say what a faulty row needs so that a spreadsheet sees its answer where it belongs.

        An open quote would draw the answer, and the rows behind it, into its cell. Too few cells would shift the answer
        to the left. Too many shift it to the right, and what stands in its column then must not look like a permission.
        """
        columns = self._layout.columns
        rows, is_open = self._grammar.lenient(kept)
        seen = [*rows, *(cells for part in _LINE_ENDS.split(kept) for cells in self._grammar.lenient(part)[0])]
        if any(len(cells) > columns and _says_yes(cells[columns]) for cells in seen):
            raise InputError(
                "LIST",
                f"line {line} has more cells than columns, and {PERMITTED_CELL} where its answer would stand.",
                fix="Has a part of the list been washed before? Take that line out.",
            )
        return (b'"' if is_open else b"") + self._layout.delimiter * (columns - len(rows[-1]))


def _says_yes(cell: bytes) -> bool:
    return cell.decode("ascii", "replace").strip(' "\t').casefold() == PERMITTED_CELL.casefold()
