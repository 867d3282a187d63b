"""The daily CSV → rows, each line on its own. Its header is all or nothing: what it leaves to guess is refused."""

import csv
import re
from collections.abc import Sequence
from typing import Final

from iyscheck.errors import SourceUnreadableError
from loader.reading import vocabulary as names
from loader.reading.faults import LINE_MAX_BYTES, LINE_TOO_LONG, MALFORMED_CSV, NOT_UTF8, Fault
from loader.reading.rows import BOM, BadLine, Decoded, Row, numbered, split

_DELIMITERS: Final = (",", ";", "\t")
_SEPARATOR_LINE: Final = re.compile(r'"?sep=.?"?', re.IGNORECASE)
"""With it Excel tells itself how a file is separated."""
_CSV_FIELDS: Final = (*names.CSV_COLUMNS, names.BRAND_CODE)
_NOT_IN_CSV: Final = (names.KIND, names.RETAILER_ACCESS)
_DATA: Final = re.compile(
    r"\d{4}-\d\d-\d\d|\d\d?[./-]\d\d?[./-]\d{2,4}|@|^\+?[\d\s().-]{7,}$|^[0-9a-fA-F]{32,}$|^\d+[.,]\d+E\+?\d+$"
)
"""A time, an address, an id or what a spreadsheet makes of one: what no header has and every row has."""
_HEADER_NAMES_MIN: Final = 2
_COLUMNS_FIX: Final = f"Its columns are {','.join(names.CSV_COLUMNS)}, by exactly these names and in any order."


class DailyCsv:
    """The daily file of İYS: `columns` are those of its header, or the eight published ones."""

    def __init__(self, columns: Sequence[str], *, delimiter: str = ",", name: str = "the CSV file") -> None:
        self._columns = tuple(columns)
        self._delimiter = delimiter
        self._name = name
        self._fields = [(name, place) for place, name in enumerate(columns) if name in _CSV_FIELDS]
        self._created = columns.index(names.CREATION_DATE)
        self._brand = columns.index(names.BRAND_CODE) if names.BRAND_CODE in columns else None

    @classmethod
    def starting(cls, head: bytes, name: str = "the CSV file") -> "DailyCsv":
        """Look at the beginning of a file, `name` in errors.

        Raises SourceUnreadableError where it does not say what its columns are.
        """
        lines = _text_lines(head)
        if not lines:
            return cls(names.CSV_COLUMNS, name=name)
        delimiter, header = max(
            ((each, _cells(lines[0], each) or []) for each in _DELIMITERS),
            key=lambda split: (sum(map(_resembles_name, split[1])), len(split[1])),
        )
        if not _is_header(header):
            _check_without_header(lines, name)
            return cls(names.CSV_COLUMNS, name=name)
        _check_nothing_else(header, name)
        _check_header(header, name)
        return cls(header, delimiter=delimiter, name=name)

    def decode(self, data: bytes, *, first: bool) -> Decoded:
        """Decode a chunk of whole lines."""
        if first:
            data = data.removeprefix(BOM)
        rows: list[Row] = []
        lines: list[int] = []
        ordinals: list[int] = []
        bad: list[BadLine] = []
        for number, line in enumerate(split(data)):
            row = self._row(line)
            if row is None:
                continue
            if isinstance(row, Fault):
                bad.append(BadLine(line=number, fault=row))
                continue
            rows.append(row)
            lines.append(number)
            ordinals.append(len(rows) + len(bad))
        return numbered(rows, lines, ordinals, bad)

    def _row(self, line: bytes) -> Row | Fault | None:
        """Read a line; None for one that is no row: blank, or the header once more."""
        if len(line) > LINE_MAX_BYTES:
            return LINE_TOO_LONG
        try:
            text = line.decode()
        except UnicodeDecodeError:
            return NOT_UTF8
        cells = _cells(text, self._delimiter)
        if cells is None or len(cells) != len(self._columns):
            return None if not text.strip() or _SEPARATOR_LINE.fullmatch(text.strip()) else MALFORMED_CSV
        if not cells[self._created][:1].isdigit() and self._is_no_row(cells):
            return None
        row: Row = {name: cells[place] for name, place in self._fields}
        if self._brand is not None and not cells[self._brand]:
            del row[names.BRAND_CODE]  # an empty cell leaves it to --brand
        return row

    def _is_no_row(self, cells: Sequence[str]) -> bool:
        """Say whether a line is blank or the header once more. Raises SourceUnreadableError for another header."""
        if not any(cells) or tuple(cells) == self._columns:
            return True
        if all(cells) and _is_header(cells):
            raise SourceUnreadableError(
                f"{self._name} has a second header with other columns than the first.",
                fix="Load its parts one by one, each as a file of its own.",
            )
        return False

    def content(self, line: bytes) -> object:
        """Return the line's cells by column; None if it does not have the columns."""
        try:
            cells = _cells(line.removeprefix(BOM).decode(), self._delimiter)
        except UnicodeDecodeError:
            return None
        if cells is None or len(cells) != len(self._columns):
            return None
        return dict(zip(self._columns, cells, strict=True))


def looks_like_csv(head: bytes) -> bool:
    """Say whether the first line is one of a CSV file."""
    lines = _text_lines(head)
    return bool(lines) and any(lines[0].count(each) >= len(names.CSV_NEEDED) - 1 for each in _DELIMITERS)


def _text_lines(head: bytes) -> list[str]:
    """Return the lines of a beginning that are not blank, as far as they are whole."""
    pieces = head.removeprefix(BOM).split(b"\n")
    whole = pieces[:-1] or pieces
    texts = [piece.decode("utf-8", "replace").strip(" \r") for piece in whole]
    return [text for text in texts if text.strip() and not _SEPARATOR_LINE.fullmatch(text)]


def _is_header(cells: Sequence[str]) -> bool:
    """Say whether a line names columns: it has names that are known, or nothing that only rows have."""
    return sum(map(_resembles_name, cells)) >= _HEADER_NAMES_MIN or not any(map(_DATA.search, cells))


def _resembles_name(cell: str) -> bool:
    return cell in _CSV_FIELDS or names.meant(cell, names.Kind.CONSENT) is not None


def _check_nothing_else(header: Sequence[str], name: str) -> None:
    """Refuse a header that goes on into a row, which would be lost. Raises SourceUnreadableError."""
    if not all(map(str.isprintable, header)) or any(map(_DATA.search, header)):
        raise SourceUnreadableError(
            f"The header of {name} has the content of a row in it: the line end between them is missing, or one that "
            "neither Unix nor Windows has.",
            fix="Export it again as 'CSV UTF-8', or mend its line ends: tr '\\r' '\\n' < FILE > NEW.",
        )


def _check_header(cells: Sequence[str], name: str) -> None:
    """Refuse a header that leaves anything to guess. Raises SourceUnreadableError."""

    def refused(what: str, fix: str = _COLUMNS_FIX) -> SourceUnreadableError:
        return SourceUnreadableError(f"The header of {name} {what}.", fix=fix)

    if not any(map(_resembles_name, cells)):
        raise refused("has none of the names of İYS's daily file")
    for right in (names.meant(cell, names.Kind.CONSENT) for cell in cells):
        if right is not None:
            raise refused(f"has a column that is nearly '{right}' and not quite", fix=f"Name it exactly '{right}'.")
    for column in _NOT_IN_CSV:
        if column in cells:
            raise refused(f"has the column '{column}', which is not read", fix="Load such rows as JSON Lines.")
    for column in names.CSV_NEEDED:
        if column not in cells:
            raise refused(f"lacks {column}")
    named = [cell for cell in cells if cell]
    if len(set(named)) < len(named):
        raise refused("names a column twice")


def _check_without_header(lines: Sequence[str], name: str) -> None:
    """Refuse rows without a header where none has the eight columns. Raises SourceUnreadableError."""
    count = len(names.CSV_COLUMNS)
    if any(len(_cells(line, ",") or ()) == count for line in lines):
        return
    other = next((each for each in _DELIMITERS[1:] if len(_cells(lines[0], each) or ()) == count), None)
    what = "is separated otherwise than by commas" if other else f"does not have the {count} columns of the daily file"
    raise SourceUnreadableError(
        f"{name} has no header and {what}.",
        fix=f"Give it a first line with the names of its columns: {','.join(names.CSV_COLUMNS)}.",
    )


def _cells(line: str, delimiter: str) -> list[str] | None:
    """Split a line into cells without the blanks around them; None where its quotes do not fit."""
    if '"' not in line:
        return [cell.strip() for cell in line.split(delimiter)]
    try:
        (cells,) = csv.reader([line.removesuffix("\r")], delimiter=delimiter, strict=True)
    except (csv.Error, ValueError):
        return None
    return [cell.strip() for cell in cells]
