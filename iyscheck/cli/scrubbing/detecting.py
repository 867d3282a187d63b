"""What kind of list of text a file is: its encoding, its delimiter, its header, and where the addresses stand.

Nothing is guessed where two answers are as likely: then the user is asked, by an error that names the option.
"""

import codecs
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, Final

from iyscheck.address import canonical
from iyscheck.cli.scrubbing.lists import Head, Point
from iyscheck.cli.scrubbing.records import Grammar, lines_of, unquoted
from iyscheck.consent import Channel
from iyscheck.errors import InputError, SettingsError

UTF_8: Final = "utf-8"
WINDOWS_1254: Final = "cp1254"
MARK: Final = codecs.BOM_UTF8
DELIMITERS: Final = (b";", b",", b"\t")
ANSWER_COLUMN: Final = "iyscheck_izin"
_BLOCK: Final = 1024 * 1024
_SAMPLE: Final = 500
_MOSTLY: Final = 0.9
_LOOKS: Final = 0.5
_FAR_MORE: Final = 20
_SEPARATOR_LINE: Final = re.compile(rb"sep=(.)\r?\n", re.IGNORECASE)
_LETTERS: Final = re.compile(r"[^\W\d_]")
_SAVE: Final = "Save it as CSV (UTF-8) with your spreadsheet program."
_NO_TEXT: Final = (
    (codecs.BOM_UTF16_LE, "is UTF-16"),
    (codecs.BOM_UTF16_BE, "is UTF-16"),
    (b"PK\x03\x04", "is an Excel workbook or another archive"),
    (b"\xd0\xcf\x11\xe0", "is an old Excel workbook"),
    (b"\x1f\x8b", "is compressed (gzip)"),
    (b"\x28\xb5\x2f\xfd", "is compressed (zstd)"),
    (b"%PDF", "is a PDF"),
)
_PHONE_NAMES: Final = re.compile("telefon|gsm|cep|phone|msisdn|mobil|^tel|^numara$|^alici$|^recipient$")
_EMAIL_NAMES: Final = re.compile("eposta|email|^mail|^alici$|^recipient$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What one reading of a whole file has found. `encoding` is a codec of Python."""

    sha256: str
    size: int
    encoding: str
    only_ascii: bool
    mark: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a list of text is laid out. `column` is where the addresses stand, counted from 1."""

    encoding: str
    delimiter: bytes
    columns: int
    column: int
    column_name: str
    names: tuple[str, ...]
    head: Head


def survey(file: BinaryIO, encoding: str | None) -> Survey:
    """Read a file once, for its hash and its encoding. Raises InputError and SettingsError."""
    digest, size = hashlib.sha256(), 0
    valid = invalid = 0
    decoder = codecs.getincrementaldecoder(UTF_8)("surrogateescape")
    first = b""
    while block := file.read(_BLOCK):
        if not size:
            first = block
            _refuse_no_text(block)
        digest.update(block)
        size += len(block)
        if block.isascii() and not decoder.getstate()[0]:
            continue
        text = decoder.decode(block)
        escaped = len(text) - len(text.encode(UTF_8, "ignore").decode())
        invalid += escaped
        valid += len(text) - len(text.encode("ascii", "ignore")) - escaped
    invalid += len(decoder.getstate()[0])
    if not size:
        raise InputError("LIST", "is empty.")
    mark = MARK if first.startswith(MARK) else b""
    if encoding is None:
        encoding = UTF_8 if mark else _likely(valid, invalid)
    elif mark and encoding != UTF_8:
        raise SettingsError("--encoding", "the list begins with the mark of UTF-8.", fix="Leave --encoding out.")
    return Survey(
        sha256=digest.hexdigest(), size=size, encoding=encoding, only_ascii=not valid and not invalid, mark=mark
    )


def _likely(valid: int, invalid: int) -> str:
    """Choose by how many letters are UTF-8 and how many bytes are not. Raises SettingsError where it is unsure."""
    if invalid * _FAR_MORE <= valid or not invalid:
        return UTF_8
    if valid * _FAR_MORE <= invalid:
        return WINDOWS_1254
    raise SettingsError(
        "--encoding",
        "parts of the list are UTF-8, and others are not.",
        fix="Say --encoding utf-8 (the rows that are not are then denied) or --encoding windows-1254.",
    )


def _refuse_no_text(beginning: bytes) -> None:
    for sign, what in _NO_TEXT:
        if beginning.startswith(sign):
            raise InputError("LIST", f"the file {what}.", fix=_SAVE)
    if beginning.count(b"\0") * 4 > len(beginning):
        raise InputError("LIST", "the file is UTF-16, or no text.", fix=_SAVE)
    if beginning.lstrip(MARK + b" \r\n\t")[:1] == b"<":
        raise InputError("LIST", "the file is HTML or XML.", fix=_SAVE)
    if b"\n" not in beginning and b"\r" in beginning:
        raise InputError("LIST", "the file has the line ends of old Macs.", fix=_SAVE)


class Detection:
    """Finds the layout of one list. What the user has said is not asked again."""

    def __init__(
        self, file: BinaryIO, found: Survey, channel: Channel, *, delimiter: bytes | None, header: bool | None
    ) -> None:
        self._file = file
        self._survey = found
        self._channel = channel
        self._header = header
        file.seek(len(found.mark))
        line = file.readline(_BLOCK)
        separator = _SEPARATOR_LINE.fullmatch(line)
        self._lead = found.mark + line if separator else found.mark
        self._first_line = 2 if separator else 1
        self._delimiter = delimiter or (separator[1] if separator else None) or self._likely_delimiter()

    def layout(self, column: str | None) -> Layout:
        """Say how the list is laid out; `column` is a number from 1 or a name. Raises InputError, SettingsError."""
        rows = self._sample(self._delimiter)
        if not rows:
            raise InputError("LIST", "has no row that can be read.", fix="Is --delimiter right?")
        has_names = self._has_names(rows[0]) if self._header is None else self._header
        columns = Counter(map(len, rows[has_names:] or rows)).most_common(1)[0][0]
        names = tuple(rows[0]) if has_names else ()
        if names and len(names) != columns:
            raise InputError(
                "LIST", f"the header has {len(names)} cells, most rows have {columns}.", fix="Mend the first line."
            )
        if any(name.strip().casefold() == ANSWER_COLUMN for name in names):
            raise InputError("LIST", f"has a column {ANSWER_COLUMN} already.", fix="Wash the list that it was made of.")
        at = self._chosen(column, names, columns) if column else self._found(rows[has_names:], names, columns)
        return Layout(
            encoding=self._survey.encoding,
            delimiter=self._delimiter,
            columns=columns,
            column=at + 1,
            column_name=names[at] if names else "",
            names=names,
            head=self._head(has_names=has_names, columns=columns),
        )

    def _sample(self, delimiter: bytes) -> list[list[str]]:
        """Read the texts of the first records that are in order."""
        self._file.seek(len(self._lead))
        records = islice(Grammar(delimiter).records(lines_of(self._file, self._first_line)), _SAMPLE)
        return [
            [unquoted(cell).decode(self._survey.encoding, "replace") for cell in record.cells]
            for record in records
            if record.fault is None and record.kept.strip()
        ]

    def _likely_delimiter(self) -> bytes:
        fitting: dict[bytes, bool] = {}
        partly: dict[bytes, bool] = {}
        for delimiter in DELIMITERS:
            rows = self._sample(delimiter)
            sizes = Counter(map(len, rows))
            columns, times = sizes.most_common(1)[0] if sizes else (1, 0)
            is_titled = times == len(rows) - 1 and len(rows[0]) != columns  # which `layout` refuses
            if columns > 1 and (times >= _MOSTLY * len(rows) or is_titled):
                whole = [row for row in rows if len(row) == columns]
                fitting[delimiter] = any(self._looks(whole, at) for at in range(columns))
            elif columns > 1 and times * 2 >= len(rows):
                whole = [row for row in rows if len(row) == columns]
                partly[delimiter] = any(self._looks(whole, at) for at in range(columns))
        if not fitting:  # as one column, all rows would be denied without anybody noticing
            fitting = {delimiter: looks for delimiter, looks in partly.items() if looks}
        if len(fitting) > 1:
            fitting = {delimiter: looks for delimiter, looks in fitting.items() if looks} or fitting
        if len(fitting) > 1:
            raise SettingsError(
                "--delimiter",
                f"the cells may be parted by {' or by '.join(map(delimiter_name, fitting))}.",
                fix="Say which: --delimiter ';', ',' or tab.",
            )
        return next(iter(fitting), DELIMITERS[0])

    def _has_names(self, first: Sequence[str]) -> bool:
        """Say whether the first row is a header: nothing in it is an address, and something has letters."""
        read = any(canonical(cell, channel) for cell in first for channel in (Channel.MESAJ, Channel.EPOSTA))
        return not read and any(map(_LETTERS.search, first))

    def _looks(self, rows: Sequence[Sequence[str]], at: int) -> bool:
        """Say whether a column looks as if it held addresses."""
        cells = [row[at] for row in rows if at < len(row) and row[at].strip()]
        readable = sum(canonical(cell, self._channel) is not None for cell in cells)
        return readable > 0 and readable >= _LOOKS * len(cells)

    def _chosen(self, column: str, names: tuple[str, ...], columns: int) -> int:
        wanted = _plain(column)
        places = [at for at, name in enumerate(names) if _plain(name) == wanted]
        if len(places) == 1:
            return places[0]
        if column.isdecimal() and 1 <= int(column) <= columns:
            return int(column) - 1
        raise SettingsError(
            "--column",
            f"the list has {columns} columns, and {'several' if places else 'none'} of them is called so.",
            fix=f"Give a number from 1 to {columns}, or a name of the header.",
        )

    def _found(self, rows: Sequence[Sequence[str]], names: tuple[str, ...], columns: int) -> int:
        """Find the column of the addresses. Many numbers look like phones, so names must say it where there are any."""
        if columns == 1 and not names:
            return 0
        known = _EMAIL_NAMES if self._channel is Channel.EPOSTA else _PHONE_NAMES
        named = {at for at, name in enumerate(names) if known.search(_plain(name))}
        looking = {at for at in range(columns) if self._looks(rows, at)}
        is_plain = not names or (self._channel is Channel.EPOSTA and not named)
        likely = looking if is_plain else named & looking
        if len(likely) == 1:
            return likely.pop()
        told = ", ".join(f"{at + 1}{f' ({names[at]})' if names else ''}" for at in sorted(likely or named | looking))
        raise SettingsError(
            "--column",
            f"it cannot be told which column has the addresses{f': perhaps {told}' if told else ''}.",
            fix=f"Name it by its number or its header: --column {min(likely or looking or named, default=0) + 1}.",
        )

    def _head(self, *, has_names: bool, columns: int) -> Head:
        """Cut off what stands before the rows. The header is the first record that is not blank."""
        names, end = b"", b""
        mark, line = self._lead, self._first_line
        self._file.seek(len(mark))
        if has_names:
            for record in Grammar(self._delimiter, columns).records(lines_of(self._file, line)):
                if record.kept.strip():
                    if record.fault is not None:
                        raise InputError("LIST", f"line {line}, before the header, cannot be read.", fix="Mend it.")
                    names, end = record.kept, record.end
                    line += record.lines
                    break
                mark += record.kept + record.end
                line += record.lines
        return Head(mark=mark, names=names, names_end=end, end=Point(len(mark) + len(names) + len(end), line))


def delimiter_name(delimiter: bytes) -> str:
    """Write a delimiter for people."""
    return "tab" if delimiter == b"\t" else f"'{delimiter.decode('ascii', 'replace')}'"


def _plain(name: str) -> str:
    """Write a header without what people write in different ways."""
    folded = name.strip().replace("İ", "i").replace("I", "i").casefold().replace("ı", "i")
    return "".join(letter for letter in folded if letter.isalnum())
