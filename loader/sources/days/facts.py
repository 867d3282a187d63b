"""A daily file as it lies on the disk: is it whole, how many rows does it have, and which digests might İYS mean?

Nothing is loaded here. İYS says neither whether its digest is over a header, nor over the last line end. So there are
digests of each variant, and the report says which one was meant.
"""

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Any, Final

from iyscheck.consent import Channel, is_citizens_own
from iyscheck.errors import SourceUnreadableError
from iyscheck.keys import why_not
from loader.iys.messages import FeedSource
from loader.loading.claims import DIGESTS
from loader.reading import vocabulary as names

_CELLS: Final = len(names.CSV_COLUMNS)
_LINE_MAX_BYTES: Final = 2**16
_BLOCK_BYTES: Final = 2**20
_BOM: Final = b"\xef\xbb\xbf"
_DELIMITERS: Final = (b",", b";", b"\t")
_SOURCE, _TYPE = names.SOURCE.encode(), names.TYPE.encode()
_CHANNELS: Final = {channel.name.encode(): channel.name for channel in Channel}
_OTHER: Final = "other"
"""What is written there may be anything, and is told nowhere."""
_HEADER: Final = ",".join(names.CSV_COLUMNS).encode() + b"\n"


class Variant(StrEnum):
    """Over what a digest is, compared with the file as it came."""

    AS_IT_IS = "as it is"
    OTHER_HEADER = "with a header, or without the one it has"
    OTHER_END = "without the last line end"
    OTHER_BOTH = "with another header, and without the last line end"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """What is known of a daily file. `rows` are by source, `channels` count them too; `misshapen` lines are none.

    `digests` are by algorithm and variant, in hexadecimal.
    """

    rows: dict[FeedSource, int]
    channels: dict[str, int]
    misshapen: int
    ends_whole: bool
    digests: dict[tuple[str, Variant], str] = field(repr=False)

    @property
    def total(self) -> int:
        """How many rows it has."""
        return sum(self.rows.values())

    @property
    def is_whole(self) -> bool:
        """Whether nothing in it shows that it was cut."""
        return self.ends_whole and not self.misshapen

    @property
    def itself(self) -> str:
        """Its own digest, by which it is known again."""
        return self.digests["sha384", Variant.AS_IT_IS]

    def meant_by(self, digest: str) -> Variant | None:
        """Say what a digest is over, None if over nothing that this file may be."""
        algorithm = DIGESTS.get(len(digest), "")
        return next((variant for variant in Variant if self.digests.get((algorithm, variant)) == digest), None)

    @classmethod
    def of(cls, path: Path) -> "FileFacts":
        """Read a file. Raises SourceUnreadableError."""
        try:
            with path.open("rb") as file:
                return cls._of(iter(lambda: file.readline(_LINE_MAX_BYTES), b""))
        except OSError as error:
            raise SourceUnreadableError(
                f"The daily file '{path}' cannot be read: {why_not(error)}.", fix="Look at the disk."
            ) from error

    @classmethod
    def of_nothing(cls) -> "FileFacts":
        """Say what a file is that has nothing in it."""
        return cls._of(iter(()))

    @classmethod
    def _of(cls, lines: Iterator[bytes]) -> "FileFacts":
        first = next(lines, b"")
        delimiter = max(_DELIMITERS, key=first.count)
        header = [cell.strip() for cell in _cells(first.removeprefix(_BOM), delimiter) or []]
        has_header = names.RECIPIENT.encode() in header
        columns = header if has_header else [name.encode() for name in names.CSV_COLUMNS]
        known = {_SOURCE, _TYPE} <= {*columns}
        source, channel = (columns.index(each) if known else 0 for each in (_SOURCE, _TYPE))
        digests = _Digests(first if has_header else b"")
        rows, channels = dict.fromkeys(FeedSource, 0), dict.fromkeys((*_CHANNELS.values(), _OTHER), 0)
        misshapen = int(len(columns) != _CELLS or not known)
        last = first
        for line in lines if has_header else chain([first], lines):
            digests.add(line)
            last = line
            cells = _cells(line, delimiter)
            if cells is None or len(cells) != _CELLS or not line.endswith(b"\n"):
                misshapen += bool(line.strip())
            else:
                rows[_half(cells[source])] += 1
                channels[_CHANNELS.get(cells[channel].strip(), _OTHER)] += 1
        return cls(
            rows=rows,
            channels=channels,
            misshapen=misshapen,
            ends_whole=not last or last.endswith(b"\n"),
            digests=digests.all(),
        )


class _Digests:
    """Digests of all variants of a file, block by block. The last line end waits for what follows it."""

    def __init__(self, header: bytes) -> None:
        """Begin, with the file's header if it has one."""
        self._of: dict[tuple[str, bool], Any] = {}  # hashlib gives its kind no name
        for algorithm in DIGESTS.values():
            self._of[algorithm, True] = hashlib.new(algorithm, header)
            self._of[algorithm, False] = hashlib.new(algorithm, b"" if header else _HEADER)
        self._block = bytearray()

    def add(self, line: bytes) -> None:
        """Take the next line."""
        self._block += line
        if len(self._block) > _BLOCK_BYTES:
            self._digest(len(self._block) - 1)

    def all(self) -> dict[tuple[str, Variant], str]:
        """Return them, by algorithm and variant."""
        self._digest(len(self._block.removesuffix(b"\n")))
        found = {}
        for (algorithm, as_it_is), digest in self._of.items():
            found[algorithm, Variant.OTHER_END if as_it_is else Variant.OTHER_BOTH] = digest.hexdigest()
            digest.update(self._block)
            found[algorithm, Variant.AS_IT_IS if as_it_is else Variant.OTHER_HEADER] = digest.hexdigest()
        return found

    def _digest(self, size: int) -> None:
        for digest in self._of.values():
            digest.update(memoryview(self._block)[:size])
        self._block = self._block[size:]


def _cells(line: bytes, delimiter: bytes) -> list[bytes] | None:
    """Split a line; None where that cannot be done."""
    text = line.rstrip(b"\r\n")
    if b'"' not in text:
        return text.split(delimiter)
    try:
        cells = next(csv.reader([text.decode()], delimiter=delimiter.decode(), strict=True))
    except (csv.Error, UnicodeDecodeError):
        return None
    return [cell.encode() for cell in cells]


def _half(source: bytes) -> FeedSource:
    """Say in which half of the feed a row is, by its source."""
    return FeedSource.IYS if is_citizens_own(source.decode("utf-8", "replace").strip()) else FeedSource.HS
