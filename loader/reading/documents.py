"""JSON as İYS hands it out → JSON Lines: pages of the changes feed, push bodies, arrays; on one line or on many.

Each row is written on a line of its own, and on the line where it begins in the file, if no other row stands there:
else it is counted on. So what is said of a row later (in a rejects file) names its line, or the how-manieth it is.
A document is read as a whole and has to be small enough for that; the file may hold any number of them.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

import msgspec

from iyscheck.errors import SourceUnreadableError
from loader.reading import vocabulary as names

DOCUMENT_MAX_BYTES: Final = 2**26
"""A page of İYS has 1,000 rows at most: 0.3 MB."""

_PIECE_BYTES: Final = 2**20
_BOM: Final = b"\xef\xbb\xbf"
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
_ERROR_CODE: Final = re.compile(rb'"code"\s*:\s*"([A-Z][0-9]{3})"')
_UNDECODABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)
_DOCUMENT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw] | list[msgspec.Raw])
_ELEMENTS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ANY: Final = msgspec.json.Decoder()


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Unwrapped:
    """Reads JSON documents and gives the rows in them as JSON Lines."""

    def __init__(self, stream: _Readable, name: str) -> None:
        self._stream = stream
        self._name = name
        self._data = b""
        self._at = 0
        self._lines_read = 0
        self._lines_written = 0
        self._output = bytearray()

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes. Raises SourceUnreadableError for what holds no rows or does not end."""
        while not self._output:
            began = self._lines_read
            document = self._document()
            if not document:
                return b""
            for row, at in self._rows(document):
                self._write(row, began + document.count(b"\n", 0, at))
        taken = bytes(self._output[:size])
        del self._output[:size]
        return taken

    def _write(self, row: bytes, line: int) -> None:
        """Write a row on its line (from 0), or on the next one if that is not free."""
        blank = max(line - self._lines_written, 0)
        self._output += b"\n" * blank + row
        self._lines_written += blank + 1

    def _document(self) -> bytes:
        """Read one document, which is a line or more; empty at the end."""
        line = self._line()
        if self._lines_read == 1:
            line = line.removeprefix(_BOM)
        if not line.strip() or _is_json(line) or _depth(line) <= 0:
            return line
        lines = [line]
        depth, size = _depth(line), len(line)
        first = self._lines_read
        while depth > 0:
            line = self._line()
            if not line:
                raise self._refused(f"is cut off: what begins in line {first} does not end", "Transfer it again.")
            lines.append(line)
            depth += _depth(line)
            size += len(line)
            if size > DOCUMENT_MAX_BYTES:
                raise self._too_large()
        return b"".join(lines)

    def _line(self) -> bytes:
        """Read one line with its end; empty at the end of the file."""
        end = self._data.find(b"\n", self._at)
        while end < 0:
            piece = self._stream.read(_PIECE_BYTES)
            if not piece:
                end = len(self._data) - 1
                break
            seen = len(self._data) - self._at
            if seen > DOCUMENT_MAX_BYTES:
                raise self._too_large()
            self._data = self._data[self._at :] + piece
            self._at = 0
            end = self._data.find(b"\n", seen)
        line = self._data[self._at : end + 1]
        self._at = end + 1
        self._lines_read += bool(line)
        return line

    def _rows(self, document: bytes) -> Iterator[tuple[bytes, int]]:
        """Find the rows of what was read, each as a line, and where they begin."""
        if not document.strip():
            return
        try:
            value = _DOCUMENT.decode(document)
        except _UNDECODABLE:
            parts = self._one_behind_the_other(document)
            if len(parts) < 2:  # noqa: PLR2004 - more than one
                yield self._bad_line(document), 0
                return
            for part, at in parts:
                yield from ((row, at + offset) for row, offset in self._rows(part))
            return
        if isinstance(value, list):
            yield from self._elements(document, value, 0, may_be_pages=True)
        elif names.LIST in value:
            listed = bytes(value[names.LIST])
            at = document.find(listed)
            self._check_page(document[:at] + b"[]" + document[at + len(listed) :], listed)
            yield from self._elements(document, _ELEMENTS.decode(listed), at, may_be_pages=False)
        else:
            self._check_row(document, value)
            yield _one_line(document.strip()) + b"\n", len(document) - len(document.lstrip())

    def _elements(
        self, document: bytes, elements: Sequence[msgspec.Raw], at: int, *, may_be_pages: bool
    ) -> Iterator[tuple[bytes, int]]:
        """Find the rows of a list that stands in a document from `at` on."""
        rows = [bytes(element).strip() for element in elements]
        if rows and all(row.startswith(b'"') for row in rows):
            raise self._refused("is a list of texts, not of rows", "Load the changes feed or the daily file.")
        for row in rows:
            at = document.index(row, at)
            if may_be_pages and row.startswith(b"{") and b'"list"' in row:
                yield from ((inner, at + offset) for inner, offset in self._rows(row))
            else:
                yield _one_line(row) + b"\n", at
            at += len(row)

    def _check_page(self, page: bytes, listed: bytes) -> None:
        """Refuse a page of which more than its list says something about rows. `page` is one without its rows."""
        if not listed.lstrip().startswith(b"["):
            raise self._refused("has a 'list' that is none", "Fetch it again.")
        keys: list[str] = []

        def kept(pairs: list[tuple[str, object]]) -> None:
            keys[:] = [key for key, _ in pairs]  # the outermost object comes last

        try:
            json.loads(page, object_pairs_hook=kept)
        except _UNDECODABLE:
            raise self._refused("is no JSON", "Fetch it again.") from None
        if len(set(keys)) < len(keys):
            raise self._refused("has a page with a key twice", "Fetch it again.")
        for key in set(keys) - {names.LIST, names.AFTER}:
            if names.is_known(key) or names.meant(key, names.Kind.CONSENT):
                raise self._refused(
                    f"says '{key}' of a whole page, where it would be overlooked", "Write it into each row."
                )

    def _check_row(self, document: bytes, row: dict[str, msgspec.Raw]) -> None:
        """Refuse an object that is neither a page nor a row."""
        if names.ERRORS in row or ("error" in row and names.RECIPIENT not in row):
            code = _ERROR_CODE.search(document)
            said = f" ({code[1].decode()})" if code else ""
            raise self._refused(f"is an error message{said} and holds no data", "Mend its cause, then fetch it again.")
        if names.AFTER in row and names.RECIPIENT not in row:
            raise self._refused("has a page without a 'list'", "Fetch it again.")

    def _one_behind_the_other(self, document: bytes) -> list[tuple[bytes, int]]:
        """Split documents that stand on one line, each with where it begins; empty where that cannot be done."""
        decoder = json.JSONDecoder()
        parts: list[tuple[bytes, int]] = []
        try:
            text = document.decode("latin-1")  # a byte a character: only the brackets matter
            at = len(text) - len(text.lstrip())
            while at < len(text):
                _, end = decoder.raw_decode(text, at)
                parts.append((document[at:end], at))
                at = len(text) - len(text[end:].lstrip())
        except _UNDECODABLE:
            return []
        return parts if all(_is_json(part) for part, _ in parts) else []

    def _bad_line(self, document: bytes) -> bytes:
        """Leave a line that is no JSON to become a reject. Raises SourceUnreadableError for more than a line."""
        if document.rstrip(b"\n").count(b"\n"):
            raise self._refused(f"is no JSON from line {self._lines_read} on", "Transfer it again.")
        return document

    def _too_large(self) -> SourceUnreadableError:
        return self._refused(
            f"has a JSON array or page of more than {DOCUMENT_MAX_BYTES // 2**20} MiB",
            "Make JSON Lines of it, one row a line: jq -c '.[]' FILE > NEW.",
        )

    def _refused(self, what: str, fix: str) -> SourceUnreadableError:
        return SourceUnreadableError(f"'{self._name}' {what}.", fix=fix)


def _is_json(line: bytes) -> bool:
    try:
        _DOCUMENT.decode(line)
    except _UNDECODABLE:
        return False
    return True


def _depth(line: bytes) -> int:
    """Count how many more brackets open than close; 0 for a line that ends within a text, which JSON has not."""
    bare = _STRING.sub(b"", line)
    if b'"' in bare:
        return 0
    return bare.count(b"{") + bare.count(b"[") - bare.count(b"}") - bare.count(b"]")


def _one_line(row: bytes) -> bytes:
    """Write a row that stands on several lines on one. What is no JSON stays none."""
    if b"\n" not in row:
        return row
    try:
        _ANY.decode(row)
    except _UNDECODABLE:
        return row.replace(b"\n", b"\0")
    return row.replace(b"\n", b" ")
