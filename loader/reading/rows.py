"""Bytes of a feed → rows: JSON Lines and the daily CSV, each line on its own.

A chunk is decoded in one call where all of its lines are good; otherwise line by line, so that a bad line costs
nobody but itself. Both ways accept exactly the same lines: a row is one JSON object on one line, each key once. What
its keys and values mean is not looked at here, but for the header of a CSV file, which is all or nothing.
"""

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from iyscheck.errors import SourceUnreadableError
from iyscheck.kernel import Kernel
from loader.reading import vocabulary as names
from loader.reading.shapes import FEWEST, Lines, ShapedRows, Shapes

LINE_MAX_BYTES: Final = 2**20
BOM: Final = b"\xef\xbb\xbf"
NEWLINE: Final = ord("\n")

Row = dict[str, object]
"""A row of any kind as it is written: what stands under each key, of whatever JSON type."""


class RejectReason(StrEnum):
    """Why a row is not loaded."""

    MALFORMED = "MALFORMED"
    LINE_TOO_LONG = "LINE_TOO_LONG"
    WRONG_TYPE = "WRONG_TYPE"
    UNKNOWN_KIND = "UNKNOWN_KIND"
    UNKNOWN_KEY = "UNKNOWN_KEY"
    REPEATED_KEY = "REPEATED_KEY"
    MISSING = "MISSING"
    INVALID = "INVALID"
    CONFLICT = "CONFLICT"
    INVALID_ADDRESS = "INVALID_ADDRESS"
    AHEAD_OF_CLOCK = "AHEAD_OF_CLOCK"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a row: the field (empty for the whole line), a code, and a sentence without content."""

    field: str
    reason: RejectReason
    message: str


MALFORMED_JSON: Final = Fault("", RejectReason.MALFORMED, "The line is not one JSON object.")
MALFORMED_CSV: Final = Fault("", RejectReason.MALFORMED, "The line does not have the columns of the file.")
NOT_UTF8: Final = Fault("", RejectReason.MALFORMED, "The line is not UTF-8 text.")
LINE_TOO_LONG: Final = Fault("", RejectReason.LINE_TOO_LONG, f"The line is longer than {LINE_MAX_BYTES} bytes.")


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


def _all(rows: list[Row], lines: Sequence[int], ordinals: Sequence[int], bad: list[BadLine]) -> Decoded:
    return Decoded(
        rows=rows,
        lines=np.array(lines, np.int64),
        ordinals=np.array(ordinals, np.int64),
        count=len(rows) + len(bad),
        bad=bad,
    )


# --- JSON Lines -------------------------------------------------------------------------------------------

_ANY: Final = msgspec.json.Decoder()
_UNDECODABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)
_KEY_COLON: Final = re.compile(rb'["\s]:')
"""What every key ends with; a few texts hold it too."""


class JsonLines:
    """One JSON object a line; blank lines are no rows. Make one for each source: it learns the shapes of its lines."""

    def __init__(self, fewest_of_shape: int = FEWEST, kernel: Kernel = Kernel.NUMPY) -> None:
        self._shapes = Shapes(is_row, longest=LINE_MAX_BYTES, fewest=fewest_of_shape, kernel=kernel)

    def decode(self, data: bytes, *, first: bool) -> Decoded:
        """Decode a chunk of whole lines."""
        if first:
            data = data.removeprefix(BOM)
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        if not data.endswith(b"\n"):
            data += b"\n"
        lines = Lines.of(data)
        shaped = self._shapes.find(lines)
        if not shaped:
            return self._decoded(data)
        return self._beside(shaped, lines)

    def _beside(self, shaped: list[ShapedRows], lines: Lines) -> Decoded:
        """Decode the lines beside those that have a shape, and number all rows."""
        others = np.ones(len(lines.ends), np.bool_)
        for rows in shaped:
            others[rows.line] = False
        places = np.flatnonzero(others)
        pieces = zip(lines.starts[places].tolist(), (lines.ends[places] + 1).tolist(), strict=True)
        padded = lines.text.padded
        decoded = self._decoded(b"".join([padded[start:end].tobytes() for start, end in pieces]))
        bad = [replace(line, line=int(places[line.line])) for line in decoded.bad]
        others[places[decoded.lines]] = False
        others[[line.line for line in bad]] = False
        ordinals = np.cumsum(~others, dtype=np.int64)  # what is still left is blank, and no row
        return Decoded(
            rows=decoded.rows,
            lines=places[decoded.lines],
            ordinals=ordinals[places[decoded.lines]],
            count=decoded.count + sum(map(len, shaped)),
            bad=bad,
            shaped=[(rows, ordinals[rows.line]) for rows in shaped],
        )

    def _decoded(self, data: bytes) -> Decoded:
        rows = _one_object_a_line(data)
        if rows is None:
            return self._line_by_line(data)
        numbers = np.arange(len(rows), dtype=np.int64)
        return Decoded(rows=rows, lines=numbers, ordinals=numbers + 1, count=len(rows))

    def _line_by_line(self, data: bytes) -> Decoded:
        rows: list[Row] = []
        lines: list[int] = []
        ordinals: list[int] = []
        bad: list[BadLine] = []
        for number, line in enumerate(split(data)):
            if not line.strip(b" \t\r"):
                continue
            if len(line) > LINE_MAX_BYTES:
                bad.append(BadLine(line=number, fault=LINE_TOO_LONG))
                continue
            row = _row_of(line)
            if isinstance(row, _NoRow):
                bad.append(BadLine(line=number, fault=row.fault, brand_code=row.brand_code))
                continue
            rows.append(row)
            lines.append(number)
            ordinals.append(len(rows) + len(bad))
        return _all(rows, lines, ordinals, bad)

    def content(self, line: bytes) -> object:
        """Return the line's JSON value; None if it is not one."""
        try:
            return _ANY.decode(line.removeprefix(BOM))
        except _UNDECODABLE:
            return None


@dataclass(frozen=True, slots=True)
class _NoRow:
    """Why a line is no row, and its brand as far as it can be read."""

    fault: Fault
    brand_code: object = None


def is_row(line: bytes) -> bool:
    """Say whether a line is a row. Of its values only the JSON types decide."""
    return not isinstance(_row_of(line), _NoRow)


def _row_of(line: bytes) -> Row | _NoRow:
    try:
        row = _ANY.decode(line)
    except _UNDECODABLE:
        return _row_of_pairs(line)
    if not isinstance(row, dict):
        return _NoRow(MALFORMED_JSON)
    return row if len(_KEY_COLON.findall(line)) == len(row) else _row_of_pairs(line)


def _row_of_pairs(line: bytes) -> Row | _NoRow:
    """Read a line key by key, with what other programs write beyond JSON: NaN, halves of surrogate pairs."""
    last: list[tuple[str, object]] = []

    def kept(pairs: list[tuple[str, object]]) -> Row:
        last[:] = pairs  # the outermost object comes last
        return dict(pairs)

    try:
        row = json.loads(line.decode(), object_pairs_hook=kept)
    except UnicodeDecodeError:
        return _NoRow(NOT_UTF8)
    except _UNDECODABLE:
        return _NoRow(MALFORMED_JSON)
    if not isinstance(row, dict):
        return _NoRow(MALFORMED_JSON)
    repeated = _repeated(last)
    if repeated is None:
        return row
    brand_code = None if repeated == names.BRAND_CODE else row.get(names.BRAND_CODE)
    shown = repeated if names.is_known(repeated) else ""
    message = f"{shown or 'A key'} stands twice in the row, and nothing says which of the two is right."
    return _NoRow(Fault(shown, RejectReason.REPEATED_KEY, message), brand_code)


def _repeated(pairs: Sequence[tuple[str, object]]) -> str | None:
    """Name the first key that is there again."""
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            return key
        seen.add(key)
    return None


def _one_object_a_line(data: bytes) -> list[Row] | None:
    """Decode a chunk in one call; None unless each line is exactly one good object, with no key twice.

    The decoder alone would take two objects on one line, or one over two. In valid JSON a line end between `}` and
    `{` can only stand between two rows, so with that and as many rows as lines, each line is one row. Of a key that
    is there twice it would take the last value: then a line has more keys than its row.
    """
    if not data:
        return []
    column = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(column == NEWLINE)
    starts = np.append(0, ends[:-1] + 1)
    if (ends - starts).max() > LINE_MAX_BYTES or (ends == starts).any():
        return None
    if (column[ends - 1] != ord("}")).any() or (column[starts] != ord("{")).any():
        return None
    try:
        rows = _ANY.decode_lines(data)
    except _UNDECODABLE:
        return None
    if len(rows) != len(ends):
        return None
    surplus = _key_colons(column, ends) != np.fromiter(map(len, rows), np.int64, len(rows))
    again = (data[starts[at] : ends[at]] for at in np.flatnonzero(surplus).tolist())
    return None if any(isinstance(_row_of_pairs(line), _NoRow) for line in again) else rows


def _key_colons(column: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Count in each line what may be ends of keys (see _KEY_COLON): never less than it has keys."""
    places = np.flatnonzero(column[1:] == ord(":"))
    before = column[places]
    places = places[(before == ord('"')) | (before == ord(" ")) | ((before >= ord("\t")) & (before <= ord("\r")))]
    return np.bincount(np.searchsorted(ends, places), minlength=len(ends))


def with_rows(
    decoded: Decoded, lines: Sequence[bytes], places: npt.NDArray[np.int64], ordinals: npt.NDArray[np.int64]
) -> Decoded:
    """Decode shaped lines after all, and put them among the rows in the order of the lines."""
    rows = decoded.rows + [_ANY.decode(line) for line in lines]
    at = np.concatenate((decoded.lines, places))
    order = np.argsort(at, kind="stable")
    return replace(
        decoded,
        rows=[rows[row] for row in order.tolist()],
        lines=at[order],
        ordinals=np.concatenate((decoded.ordinals, ordinals))[order],
    )


# --- Daily CSV --------------------------------------------------------------------------------------------

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
        return _all(rows, lines, ordinals, bad)

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
