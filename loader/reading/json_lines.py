"""JSON Lines → rows: one object a line, each key once.

A chunk is decoded in one call where all of its lines are good; otherwise line by line, so that a bad line costs
nobody but itself. Both ways accept exactly the same lines. Lines of a known shape are not decoded at all.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from iyscheck.kernel import Kernel
from loader.reading import vocabulary as names
from loader.reading.faults import LINE_MAX_BYTES, LINE_TOO_LONG, MALFORMED_JSON, NOT_UTF8, Fault, RejectReason
from loader.reading.rows import BOM, NEWLINE, BadLine, Decoded, Row, numbered, split
from loader.reading.shapes import FEWEST, Lines, ShapedRows, Shapes

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
        return numbered(rows, lines, ordinals, bad)

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
