"""What a file is, by its first bytes: what no row can be read from is one error, and says how to make it readable.

Looked at is what comes out of gzip or zstd. Nothing is told by the name of a file.
"""

import re
from typing import Final

from iyscheck.errors import SourceUnreadableError

_EXCEL: Final = "Save it from the spreadsheet as 'CSV UTF-8'."
_UNPACK: Final = "Unpack it and load what is inside."
_MAGIC: Final = (
    (b"PK\x03\x04", "a zip archive", _UNPACK),
    (b"PK\x05\x06", "an empty zip archive", "Transfer it again."),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook (.xls)", _EXCEL),
    (b"%PDF", "a PDF document", "Ask for the data as JSON Lines or CSV."),
    (b"\xfd7zXZ\x00", "compressed with xz", "Unpack it: xz -d FILE."),
    (b"BZh", "compressed with bzip2", "Unpack it: bzip2 -d FILE."),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!", "a rar archive", _UNPACK),
    (b"\x04\x22\x4d\x18", "compressed with lz4", "Unpack it: lz4 -d FILE."),
    (b"\x1f\x8b", "compressed twice", "Unpack it once: zcat FILE > NEW."),
    (b"\x28\xb5\x2f\xfd", "compressed twice", "Unpack it once: zstdcat FILE > NEW."),
    (b"PAR1", "a Parquet file", "Export it as JSON Lines."),
    (b"SQLite format 3\x00", "an SQLite database", "Export its table as CSV."),
)
_WORKBOOKS: Final = (
    (b"xl/", "an Excel workbook (.xlsx)"),
    (b"[Content_Types].xml", "an Office document"),
    (b"opendocument", "an OpenDocument file"),
)
_TAR: Final = (257, b"ustar")
_WIDE: Final = (
    # The longer ones first: one begins like the other.
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_SEEN_BYTES: Final = 2**11
_MOSTLY: Final = 0.8
_BLANK: Final = b"\xef\xbb\xbf \t\r\n"
_OF_DOCUMENTS: Final = re.compile(rb'"(list|errors|error)"\s*:')
_GOES_ON: Final = re.compile(rb'[{\[]\s*$|,\s*\n\s*"')
"""At the end of a first line: what one line of JSON Lines never ends with."""


def refuse_foreign(name: str, head: bytes) -> None:
    """Raise SourceUnreadableError if a file that begins so holds neither JSON nor CSV."""
    what, fix = _foreign(head)
    if what:
        raise SourceUnreadableError(f"'{name}' is {what}, not JSON Lines or CSV.", fix=fix)


def _foreign(head: bytes) -> tuple[str, str]:
    for magic, what, fix in _MAGIC:
        if head.startswith(magic):
            office = next((name for mark, name in _WORKBOOKS if mark in head), None) if magic[:2] == b"PK" else None
            return (office, _EXCEL) if office else (what, fix)
    if head[_TAR[0] :].startswith(_TAR[1]):
        return "a tar archive", _UNPACK
    wide = next((name for mark, name in _WIDE if head.startswith(mark)), "") or _without_mark(head)
    if wide:
        return f"{wide} text", f"Make it UTF-8: iconv -f {wide} -t UTF-8 FILE > NEW."
    if head.lstrip(_BLANK).startswith(b"<"):
        return "an HTML or XML page", "Look at it: it may say what went wrong where it was fetched."
    return "", ""


def _without_mark(head: bytes) -> str:
    """Recognise UTF-16 that does not begin with a byte order mark: every other byte of Latin text is 0."""
    seen = head[:_SEEN_BYTES]
    first, second = (seen[at::2].count(0) / max(len(seen[at::2]), 1) for at in range(2))
    if first == 0 and second >= _MOSTLY:
        return "UTF-16LE"
    return "UTF-16BE" if second == 0 and first >= _MOSTLY else ""


def holds_documents(head: bytes) -> bool:
    """Say whether a file that begins so may hold JSON otherwise than one row a line.

    That is an array, a page of the changes feed, a push body, an error, or anything over several lines.
    """
    text = head.lstrip(_BLANK)
    if text.startswith(b"["):
        return True
    if not text.startswith(b"{"):
        return False
    first, _, rest = text.partition(b"\n")
    second = rest.partition(b"\n")[0]
    return bool(_OF_DOCUMENTS.search(text) or _GOES_ON.search(first + (b"\n" + second if rest else b"")))


def begins_as_json(text: bytes) -> bool:
    """Say whether a line, or what begins a file, may be a JSON object."""
    return text.lstrip(_BLANK).startswith(b"{")
