"""Records of a list of text: where cells and rows end, by quotes and a delimiter, without changing a byte.

A quote is right only around a whole cell, and doubled inside one. All else is told as a fault of its line, and the next
line is read by itself: a stray quote must not draw later rows into its cell. A quoted cell may go on over several
lines. Where it is never closed, or would make a record that is not of the list's form, only its first line is at fault.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple

from iyscheck.cli.scrubbing.lists import RowFault
from iyscheck.errors import InputError

LONGEST_LINE: Final = 1024 * 1024
MOST_LINES: Final = 100
"""Lines that one quoted cell may go on over."""
_QUOTE: Final = b'"'
_RETURN: Final = b"\r"
_CONTROLS: Final = re.compile(rb"[\x00-\x08\x0b-\x1f]")
_CONTROLS_IN_QUOTES: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_OPEN: Final = re.compile(rb'"(?:[^"]|"")*+\Z')


class Record(NamedTuple):
    """One record, its line end apart. `cells` are as they stand in the file, quotes included."""

    kept: bytes
    end: bytes
    cells: list[bytes]
    lines: int
    fault: RowFault | None


class Grammar:
    """How the records of one list are written: a delimiter of one byte, and how many cells each has (0: any)."""

    def __init__(self, delimiter: bytes, columns: int = 0) -> None:
        self.delimiter = delimiter
        self.columns = columns
        self._cell = re.compile(
            rb'(?:"(?:[^"]|"")*+"|[^"\r\n%b]*+)(%b|\Z)' % (re.escape(delimiter), re.escape(delimiter))
        )

    def records(self, lines: Iterator[bytes]) -> Iterator[Record]:
        """Read records. Each line comes with its end."""
        ahead: list[bytes] = []
        delimiter, columns = self.delimiter, self.columns
        while True:
            line = ahead.pop(0) if ahead else next(lines, b"")
            if not line:
                return
            if _QUOTE in line:
                yield self._quoted(line, lines, ahead)
                continue
            kept, end = parted(line)
            cells = kept.split(delimiter)
            fault = None
            if _CONTROLS.search(kept):
                fault = RowFault.CONTROL_CHARACTER
            elif columns and len(cells) != columns:
                fault = RowFault.WRONG_CELLS
            yield Record(kept, end, cells, 1, fault)

    def _quoted(self, line: bytes, lines: Iterator[bytes], ahead: list[bytes]) -> Record:
        """Read a record that begins with a line with quotes; lines that are not of it go to `ahead`."""
        text, taken = line, 0
        while True:
            kept, end = parted(text)
            cells, is_open = self.cells(kept)
            if not is_open or taken == MOST_LINES or len(text) > LONGEST_LINE:
                break
            if taken == len(ahead):
                following = next(lines, b"")
                if not following:
                    break
                ahead.append(following)
            text += ahead[taken]
            taken += 1
        fault = self._fault(kept, cells)
        if fault is None or not taken:
            del ahead[:taken]
            return Record(kept, end, cells or [], 1 + taken, fault)
        kept, end = parted(line)
        return Record(kept, end, [], 1, RowFault.WRONG_QUOTES)

    def _fault(self, kept: bytes, cells: list[bytes] | None) -> RowFault | None:
        if _CONTROLS_IN_QUOTES.search(kept):
            return RowFault.CONTROL_CHARACTER
        if cells is None:
            return RowFault.WRONG_QUOTES
        if self.columns and len(cells) != self.columns:
            return RowFault.WRONG_CELLS
        return None

    def cells(self, kept: bytes) -> tuple[list[bytes] | None, bool]:
        """Cut a record into cells: None where its quotes are wrong, and whether its last cell is still open."""
        cells, at = [], 0
        while True:
            found = self._cell.match(kept, at)
            if found is None:
                return None, _OPEN.match(kept, at) is not None
            cells.append(kept[at : found.start(1)])
            at = found.end()
            if found.start(1) == found.end(1):
                return cells, False

    def lenient(self, kept: bytes) -> tuple[list[list[bytes]], bool]:
        """Cut a faulty line as spreadsheets do: rows of cells' texts, and whether the last cell is still open.

        They take a quote for one only at the beginning of a cell, and what stands behind its end as it is. A return
        outside of quotes ends a row.
        """
        rows: list[list[bytes]] = [[]]
        cell, at, quoted, begins = bytearray(), 0, False, True
        while at < len(kept):
            byte = kept[at : at + 1]
            at += 1
            if quoted:
                if byte != _QUOTE:
                    cell += byte
                elif kept[at : at + 1] == _QUOTE:
                    cell += byte
                    at += 1
                else:
                    quoted = False
            elif byte == _QUOTE and begins:
                quoted = True
            elif byte in {self.delimiter, _RETURN}:
                rows[-1].append(bytes(cell))
                cell.clear()
                if byte == _RETURN:
                    rows.append([])
                begins = True
                continue
            else:
                cell += byte
            begins = False
        rows[-1].append(bytes(cell))
        return rows, quoted


def parted(line: bytes) -> tuple[bytes, bytes]:
    """Part a line from its end."""
    size = 2 if line.endswith(b"\r\n") else 1 if line.endswith(b"\n") else 0
    return line[: len(line) - size], line[len(line) - size :]


def unquoted(cell: bytes) -> bytes:
    """Give what a cell says."""
    return cell[1:-1].replace(b'""', b'"') if cell.startswith(_QUOTE) else cell


def lines_of(file: BinaryIO, first: int) -> Iterator[bytes]:
    """Read lines; `first` is the number of the first one. Raises InputError where one has no end."""
    number = first
    while line := file.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE:
            raise InputError(
                "LIST", f"line {number} is longer than {LONGEST_LINE:,} bytes.", fix="Is it a list of text?"
            )
        number += 1
        yield line
