"""The rejects file of a source: what could not be loaded, and why; the one place that keeps feed content.

Its length belongs to the resume point in the store. What is beyond it after a crash is cut off, and written again.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import msgspec

from iyscheck.errors import SourceUnreadableError
from loader.loading.source import Piece
from loader.reading.faults import LINE_TOO_LONG, Fault
from loader.reading.feed import Reject
from loader.reading.rows import split

DIRECTORY_MODE: Final = 0o700
FILE_MODE: Final = 0o600

_PERSONAL: Final = "citizenName"
_NAME_MAX_CHARS: Final = 80
_OUTSIDE_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]+")


def rejects_name(source: str) -> str:
    """Name the rejects file of a source: readable, and unlike that of any other source."""
    readable = _OUTSIDE_NAMES.sub("_", Path(source).name).strip("._")[:_NAME_MAX_CHARS]
    digest = hashlib.sha256(source.encode("utf-8", "backslashreplace")).hexdigest()[:12]
    return f"{readable or 'source'}-{digest}.jsonl"


def rejects_path(directory: Path, source: str) -> Path:
    """Say where the rejects of a source are."""
    return directory / rejects_name(source)


class RejectsFile:
    """Appends entries. Made only when there is one to write; use `open`."""

    def __init__(self, path: Path, length: int) -> None:
        self.path = path
        self.length = length
        self._descriptor: int | None = None

    @classmethod
    def open(cls, directory: Path, source: str, *, length: int) -> Self:
        """Cut the file back to the length that belongs to the resume point.

        Raises SourceUnreadableError where it is shorter, or cannot be used.
        """
        path = rejects_path(directory, source)
        try:
            size = path.stat().st_size if path.exists() else 0
            if size > length:
                os.truncate(path, length)
        except OSError as error:
            raise _unusable(path, error) from error
        if size < length:
            raise SourceUnreadableError(
                f"The rejects file '{path}' is gone or shorter than when the load stopped.",
                fix="Put it back, give the --rejects directory of that load, or load with another --source NAME.",
            )
        return cls(path, length)

    def append(self, entries: list[bytes]) -> None:
        """Write entries through to the disk."""
        if not entries:
            return
        try:
            data = b"".join(entries)
            descriptor = self._opened()
            written = 0
            while written < len(data):
                written += os.write(descriptor, data[written:])
            os.fsync(descriptor)
        except OSError as error:
            raise _unusable(self.path, error) from error
        self.length += len(data)

    def close(self) -> None:
        """Close the file, if it was ever opened."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _opened(self) -> int:
        if self._descriptor is None:
            self.path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self.path, flags, FILE_MODE)
            directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)  # the name must survive a power cut as well as the content
            finally:
                os.close(directory)
        return self._descriptor


def entries_of(piece: Piece, rejects: Sequence[Reject], lines_before: int) -> list[bytes]:
    """Write the entries of a piece's rejects, of which so many lines came before."""
    if not rejects:
        return []
    lines = split(piece.data) if piece.data else [b""]
    entries = []
    for reject in rejects:
        line = b"" if reject.fault is LINE_TOO_LONG else lines[reject.line]
        content = piece.form.content(line) if line else None
        entries.append(entry(lines_before + reject.line + 1, reject.fault, content, line))
    return entries


def entry(line: int, fault: Fault, content: object, raw: bytes) -> bytes:
    """Write one entry: the line number from 1, what is wrong, and the row without names of people.

    `content` is the decoded row; where there is none, `raw` is shown unless it might name somebody.
    """
    row: object
    if content is not None:
        row = _without_names(content)
    else:
        text = raw.decode("utf-8", "replace")
        row = None if not text or "citizen" in text.casefold() or "\\u" in text else text
    shown = {"line": line, "field": fault.field, "reason": fault.reason.value, "message": fault.message, "row": row}
    return msgspec.json.encode(shown) + b"\n"


def _without_names(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_names(inner) for key, inner in value.items() if key != _PERSONAL}
    return [_without_names(inner) for inner in value] if isinstance(value, list) else value


def _unusable(path: Path, error: OSError) -> SourceUnreadableError:
    return SourceUnreadableError(
        f"The rejects file '{path}' cannot be written: {error.strerror}.",
        fix="Check the directory and its free space, or choose another one with --rejects.",
    )
