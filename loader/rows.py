"""Bytes of a feed → rows: JSON Lines and the daily CSV, each line on its own.

A chunk is decoded in one call where all of its lines are good; otherwise line by line, so that a bad line costs
nobody but itself. Both ways accept exactly the same lines: a row is one JSON object on one line.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from iyscheck.errors import SourceUnreadableError
from iyscheck.kernel import Kernel
from loader.shapes import FEWEST, Lines, ShapedRows, Shapes

LINE_MAX_BYTES: Final = 2**20
BOM: Final = b"\xef\xbb\xbf"
NEWLINE: Final = ord("\n")
CSV_COLUMNS: Final = (
    # İYS API 3.2.0, "MUTABAKAT YÖNETİMİ"
    "creationDate",
    "transactionId",
    "recipient",
    "recipientType",
    "type",
    "status",
    "consentDate",
    "source",
)
_NEEDED_COLUMNS: Final = ("creationDate", "recipient", "type", "status")


class RejectReason(StrEnum):
    """Why a row is not loaded."""

    MALFORMED = "MALFORMED"
    LINE_TOO_LONG = "LINE_TOO_LONG"
    WRONG_TYPE = "WRONG_TYPE"
    UNKNOWN_KIND = "UNKNOWN_KIND"
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


class FeedRow(msgspec.Struct, rename="camel", gc=False):
    """A row of any kind as İYS and its partners spell it; None stands for absent and for null."""

    kind: str | None = None
    brand_code: int | str | None = None
    recipient: str | None = None
    recipient_type: str | None = None
    type: str | None = None
    status: str | None = None
    source: str | None = None
    consent_date: str | None = None
    creation_date: str | None = None
    transaction_id: str | None = None
    retailer_access: list[int | str] | None = None
    iys_code: int | str | None = None
    active: bool | None = None
    channels: list[str] | None = None
    legacy_deadline: int | str | None = None
    complete_until: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BadLine:
    """A line that is no row. `line` counts from 0 in its chunk; `brand_code` is what could be read of it."""

    line: int
    fault: Fault
    brand_code: int | str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """The rows of a chunk: row i stands on `lines[i]` (from 0) and is the `ordinals[i]`-th row (from 1) of `count`.

    `shaped` are the rows that were not decoded because they have the shape of one that was, each with its ordinals.
    """

    rows: list[FeedRow]
    lines: npt.NDArray[np.int64]
    ordinals: npt.NDArray[np.int64]
    count: int
    bad: list[BadLine] = field(default_factory=list)
    shaped: list[tuple[ShapedRows, npt.NDArray[np.int64]]] = field(default_factory=list)


class Format(Protocol):
    """Decodes whole lines. `first` says that the chunk is the beginning of its source."""

    def decode(self, data: bytes, *, first: bool) -> Decoded:
        """Decode a chunk; whatever the bytes are, nothing is raised."""
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


def _all(rows: list[FeedRow], lines: Sequence[int], ordinals: Sequence[int], bad: list[BadLine]) -> Decoded:
    return Decoded(
        rows=rows,
        lines=np.array(lines, np.int64),
        ordinals=np.array(ordinals, np.int64),
        count=len(rows) + len(bad),
        bad=bad,
    )


# --- JSON Lines -------------------------------------------------------------------------------------------

_ROW: Final = msgspec.json.Decoder(FeedRow)
_ANY: Final = msgspec.json.Decoder()
_UNDECODABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    # As in FeedRow, and in its order: the first wrong field is the one reported.
    "kind": (str,),
    "brandCode": (int, str),
    "recipient": (str,),
    "recipientType": (str,),
    "type": (str,),
    "status": (str,),
    "source": (str,),
    "consentDate": (str,),
    "creationDate": (str,),
    "transactionId": (str,),
    "retailerAccess": (list,),
    "iysCode": (int, str),
    "active": (bool,),
    "channels": (list,),
    "legacyDeadline": (int, str),
    "completeUntil": (str,),
}
_ELEMENTS: Final[dict[str, tuple[type, ...]]] = {"retailerAccess": (int, str), "channels": (str,)}


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
        rows: list[FeedRow] = []
        lines: list[int] = []
        ordinals: list[int] = []
        bad: list[BadLine] = []
        for number, line in enumerate(split(data)):
            if not line.strip(b" \t\r"):
                continue
            if len(line) > LINE_MAX_BYTES:
                bad.append(BadLine(line=number, fault=LINE_TOO_LONG))
                continue
            try:
                rows.append(_ROW.decode(line))
            except _UNDECODABLE:
                bad.append(_diagnosed(number, line))
                continue
            lines.append(number)
            ordinals.append(len(rows) + len(bad))
        return _all(rows, lines, ordinals, bad)

    def content(self, line: bytes) -> object:
        """Return the line's JSON value; None if it is not one."""
        try:
            return _ANY.decode(line.removeprefix(BOM))
        except _UNDECODABLE:
            return None


def is_row(line: bytes) -> bool:
    """Say whether a line decodes. Of its values only the JSON types decide."""
    try:
        _ROW.decode(line)
    except _UNDECODABLE:
        return False
    return True


def _one_object_a_line(data: bytes) -> list[FeedRow] | None:
    """Decode a chunk in one call; None unless each line is exactly one good object.

    The decoder alone would take two objects on one line, or one over two. In valid JSON a line end between `}` and
    `{` can only stand between two rows, so with that and as many rows as lines, each line is one row.
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
        rows = _ROW.decode_lines(data)
    except _UNDECODABLE:
        return None
    return rows if len(rows) == len(ends) else None


def with_rows(
    decoded: Decoded, lines: Sequence[bytes], places: npt.NDArray[np.int64], ordinals: npt.NDArray[np.int64]
) -> Decoded:
    """Decode shaped lines after all, and put them among the rows in the order of the lines."""
    rows = decoded.rows + [_ROW.decode(line) for line in lines]
    at = np.concatenate((decoded.lines, places))
    order = np.argsort(at, kind="stable")
    return replace(
        decoded,
        rows=[rows[row] for row in order.tolist()],
        lines=at[order],
        ordinals=np.concatenate((decoded.ordinals, ordinals))[order],
    )


def _diagnosed(number: int, line: bytes) -> BadLine:
    """Find the field that keeps a line from being a row, and its brand if that can be read."""
    try:
        parsed = _ANY.decode(line)
    except _UNDECODABLE:
        return BadLine(line=number, fault=MALFORMED_JSON)
    if not isinstance(parsed, dict):
        return BadLine(line=number, fault=MALFORMED_JSON)
    brand = parsed.get("brandCode")
    brand_code = brand if isinstance(brand, int | str) and not isinstance(brand, bool) else None
    for name, kinds in _TYPES.items():
        if not _fits(parsed.get(name), kinds, _ELEMENTS.get(name, ())):
            fault = Fault(name, RejectReason.WRONG_TYPE, f"{name} has a value of the wrong JSON type.")
            return BadLine(line=number, fault=fault, brand_code=brand_code)
    return BadLine(line=number, fault=MALFORMED_JSON, brand_code=brand_code)


def _fits(value: object, kinds: tuple[type, ...], elements: tuple[type, ...]) -> bool:
    if isinstance(value, list) and list in kinds:
        return all(type(element) in elements for element in value)
    return value is None or type(value) in kinds


# --- Daily CSV --------------------------------------------------------------------------------------------

_FIELDS: Final = {info.encode_name: info.name for info in msgspec.structs.fields(FeedRow)}
_MAY_BE_EMPTY: Final = frozenset(("transaction_id", "consent_date", "source", "brand_code"))
"""An empty cell of these is absent; of the others it is a value, and a wrong one."""


class DailyCsv:
    """The daily file of İYS: `columns` are those of its header, or the eight published ones."""

    def __init__(self, columns: Sequence[str], *, header: bool) -> None:
        self._columns = tuple(columns)
        self._header = header
        known = (*CSV_COLUMNS, "brandCode")
        self._fields = [(_FIELDS[name], place) for place, name in enumerate(columns) if name in known]

    @classmethod
    def starting(cls, head: bytes) -> "DailyCsv":
        """Look at the beginning of a file. Raises SourceUnreadableError for a header without needed columns."""
        first = head.removeprefix(BOM).split(b"\n", 1)[0].rstrip(b"\r").decode("utf-8", "replace")
        cells = [cell.strip().strip('"') for cell in first.split(",")]
        if not set(cells) & set(CSV_COLUMNS):
            return cls(CSV_COLUMNS, header=False)
        missing = [name for name in _NEEDED_COLUMNS if name not in cells]
        if missing or len(set(cells)) < len(cells):
            wrong = f"lacks {missing[0]}" if missing else "names a column twice"
            raise SourceUnreadableError(
                f"The header of the CSV file {wrong}.", fix=f"Its columns are {','.join(CSV_COLUMNS)}."
            )
        return cls(cells, header=True)

    def decode(self, data: bytes, *, first: bool) -> Decoded:
        """Decode a chunk of whole lines."""
        if first:
            data = data.removeprefix(BOM)
        rows: list[FeedRow] = []
        lines: list[int] = []
        ordinals: list[int] = []
        bad: list[BadLine] = []
        for number, line in enumerate(split(data)):
            if (first and self._header and number == 0) or not line.strip(b" \t\r"):
                continue
            row = self._row(line)
            if isinstance(row, Fault):
                bad.append(BadLine(line=number, fault=row))
                continue
            rows.append(row)
            lines.append(number)
            ordinals.append(len(rows) + len(bad))
        return _all(rows, lines, ordinals, bad)

    def _row(self, line: bytes) -> FeedRow | Fault:
        if len(line) > LINE_MAX_BYTES:
            return LINE_TOO_LONG
        try:
            cells = _cells(line.decode())
        except UnicodeDecodeError:
            return NOT_UTF8
        if cells is None or len(cells) != len(self._columns):
            return MALFORMED_CSV
        row = FeedRow()
        for name, place in self._fields:
            if cells[place] or name not in _MAY_BE_EMPTY:
                setattr(row, name, cells[place])
        return row

    def content(self, line: bytes) -> object:
        """Return the line's cells by column; None if it does not have the columns."""
        try:
            cells = _cells(line.removeprefix(BOM).decode())
        except UnicodeDecodeError:
            return None
        if cells is None or len(cells) != len(self._columns):
            return None
        return dict(zip(self._columns, cells, strict=True))


def _cells(line: str) -> list[str] | None:
    """Split a line into cells; None where its quotes do not fit."""
    line = line.removesuffix("\r")
    if '"' not in line:
        return line.split(",")
    try:
        (cells,) = csv.reader([line], strict=True)
    except (csv.Error, ValueError):
        return None
    return cells
