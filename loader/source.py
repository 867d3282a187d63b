"""Where rows come from: plain, gzip and zstd files, directories, standard input; always as whole lines.

A source is read once from its beginning to its end. Memory is bounded whatever it holds: a line without end is
discarded as it is read. A running SHA-256 over the decompressed bytes says later whether they are still the same.
"""

import gzip
import hashlib
import io
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import numpy as np
import zstandard

from iyscheck.errors import SourceChangedError, SourceUnreadableError
from iyscheck.kernel import Kernel
from loader.reading import formats
from loader.reading.daily_csv import DailyCsv, looks_like_csv
from loader.reading.documents import Unwrapped
from loader.reading.json_lines import JsonLines
from loader.reading.rows import NEWLINE, Format

STDIN: Final = "-"
PIECE_BYTES: Final = 2**20
CHUNK_MAX_BYTES: Final = 2**24
HEAD_BYTES: Final = 2**16
UNFINISHED_SUFFIXES: Final = (".tmp", ".part")

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE: Final = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
"""How a frame begins that holds no data: pzstd and others put them before the others, or between them."""
_HEAD_BYTES: Final = 6
_ZSTD_INPUT_BYTES: Final = 2**12
"""Small, because four bytes of zstd can stand for 128 KiB."""
_ZSTD_WINDOW_MAX_BYTES: Final = 2**27


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Whole lines. `discarded` says that they were one line too long to be kept, and `data` is empty."""

    data: bytes
    lines: int
    first: bool
    discarded: bool = False


class LineReader:
    """Reads whole lines out of a stream and keeps count of what was consumed."""

    def __init__(self, stream: _Readable, name: str, *, digest: str = "") -> None:
        self._stream = stream
        self._name = name
        self._asked_digest = hashlib.new(digest) if digest else None
        self.ends_whole = True
        """Whether what was consumed ends in a line end."""
        self._pieces: list[bytes] = []
        self._ended = False
        self._digest = hashlib.sha256()
        self.bytes = 0

    @property
    def asked_digest(self) -> str:
        """The digest (hex) of all bytes consumed so far by the algorithm that was asked for, empty if none was."""
        return self._asked_digest.hexdigest() if self._asked_digest is not None else ""

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of all bytes consumed so far."""
        return self._digest.hexdigest()

    def head(self) -> bytes:
        """Look at the beginning of what is not consumed yet, at most HEAD_BYTES long."""
        while sum(map(len, self._pieces)) < HEAD_BYTES and self._more():
            pass
        return b"".join(self._pieces)[:HEAD_BYTES]

    def read(self, _size: int, /) -> bytes:
        """Give the next bytes away unseen, for one who makes other lines of them; empty at the end."""
        return self._pieces.pop(0) if self._pieces or self._more() else b""

    def skip(self, size: int, sha256: str) -> None:
        """Consume `size` bytes that were loaded before. Raises SourceChangedError if they are not the same."""
        while self.bytes < size:
            if not self._pieces and not self._more():
                break
            piece = self._pieces.pop(0)
            wanted = size - self.bytes
            if len(piece) > wanted:
                self._pieces.insert(0, piece[wanted:])
            self._consume(piece[:wanted])
        if self.bytes < size or self.sha256 != sha256:
            raise changed(self._name)

    def chunk(self, max_lines: int) -> Chunk | None:
        """Consume at most `max_lines` whole lines and about CHUNK_MAX_BYTES; None at the end."""
        first = not self.bytes
        lines = sum(map(_lines_in, self._pieces))
        size = sum(map(len, self._pieces))
        while lines < max_lines and (size < CHUNK_MAX_BYTES or not lines):
            if not lines and size >= CHUNK_MAX_BYTES:
                return self._discard(first=first)
            if not self._more():
                break
            lines += _lines_in(self._pieces[-1])
            size += len(self._pieces[-1])
        if not size:
            return None
        if lines < max_lines and self._ended:
            data, self._pieces = b"".join(self._pieces), []
        else:
            data = self._cut(max(lines - max_lines, 0))
        self._consume(data)
        return Chunk(data=data, lines=min(lines, max_lines) + (not data.endswith(b"\n")), first=first)

    def _cut(self, surplus: int) -> bytes:
        """Take whole lines, all but the last `surplus` ones and what follows them."""
        rest: list[bytes] = []
        while (ends := _lines_in(self._pieces[-1])) <= surplus:
            surplus -= ends
            rest.append(self._pieces.pop())
        last = self._pieces.pop()
        cut = _after_lines(last, ends - surplus)
        data = b"".join((*self._pieces, last[:cut]))
        self._pieces = [piece for piece in (last[cut:], *reversed(rest)) if piece]
        return data

    def at_end(self) -> bool:
        """Say whether everything is consumed."""
        return not self._pieces and not self._more()

    def _discard(self, *, first: bool) -> Chunk:
        """Consume a line that is longer than any chunk, without keeping it."""
        while self._pieces or self._more():
            piece = self._pieces.pop(0)
            line, newline, rest = piece.partition(b"\n")
            self._consume(line + newline)
            if newline:
                if rest:
                    self._pieces.insert(0, rest)
                break
        return Chunk(data=b"", lines=1, first=first, discarded=True)

    def _consume(self, data: bytes) -> None:
        self._digest.update(data)
        if self._asked_digest is not None:
            self._asked_digest.update(data)
        self.bytes += len(data)
        if data:
            self.ends_whole = data.endswith(b"\n")

    def _more(self) -> bool:
        if self._ended:
            return False
        try:
            piece = self._stream.read(PIECE_BYTES)
        except (EOFError, OSError, zlib.error, zstandard.ZstdError) as error:
            raise unreadable(self._name, error) from error
        if piece:
            self._pieces.append(piece)
        else:
            self._ended = True
        return bool(piece)


def _lines_in(data: bytes) -> int:
    """Count line ends: four times as fast as `bytes.count` where lines are short, and without the GIL."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == NEWLINE))


def _after_lines(data: bytes, lines: int) -> int:
    """Find where the first `lines` lines end."""
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == NEWLINE)
    return int(ends[lines - 1]) + 1


class _ZstdStream(io.RawIOBase):
    """Decompresses zstd frames one after the other, and notices where the last one was cut off."""

    def __init__(self, file: BinaryIO, path: str) -> None:
        self._file = file
        self._path = path
        self._input = b""
        self._output = bytearray()
        self._frame: zstandard.ZstdDecompressionObj | None = None

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes. Raises EOFError for a file that ends within a frame."""
        while not self._output:
            self._input = self._input or self._file.read(_ZSTD_INPUT_BYTES)
            if not self._input:
                if self._frame is not None:
                    raise EOFError("the file ends within a zstd frame")
                return b""
            if self._frame is None:
                self._check_window()
                decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_MAX_BYTES)
                self._frame = decompressor.decompressobj()
            self._output += self._frame.decompress(self._input)
            self._input = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
        taken = bytes(self._output[:size]) if size >= 0 else bytes(self._output)
        del self._output[: len(taken)]
        return taken

    def _check_window(self) -> None:
        """Refuse a frame that needs more memory than we give it; one whose head is cut the decompressor judges."""
        with suppress(zstandard.ZstdError):
            window = zstandard.get_frame_parameters(self._input).window_size
            if window > _ZSTD_WINDOW_MAX_BYTES:
                raise SourceUnreadableError(
                    f"'{self._path}' was compressed with a window of {window >> 20} MiB; at most "
                    f"{_ZSTD_WINDOW_MAX_BYTES >> 20} MiB are read.",
                    fix="Compress it again with at most 'zstd --long=27'.",
                )


@contextmanager
def opened(path: str, *, digest: str = "") -> Iterator[LineReader]:
    """Open a file, or standard input for `-`, by its first bytes and not by its name.

    `digest` names an algorithm of hashlib for one more digest of its bytes. Raises SourceUnreadableError.
    """
    if path == STDIN:
        yield _reader(_decompressed(sys.stdin.buffer, path), path, digest)
        return
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - its own error must not be mixed with those of its reading
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    with file:
        yield _reader(_decompressed(file, path), path, digest)


def _reader(stream: _Readable, path: str, digest: str) -> LineReader:
    """Read the lines of a stream; of JSON in pages or arrays the lines that their rows make."""
    reader = LineReader(stream, path, digest=digest)
    head = reader.head()
    formats.refuse_foreign(path, head)
    return LineReader(Unwrapped(reader, path), path) if formats.holds_documents(head) else reader


def _decompressed(file: BinaryIO, path: str) -> _Readable:
    buffered = file if isinstance(file, io.BufferedReader) else io.BufferedReader(file)  # type: ignore[type-var] # any binary file
    try:
        head = buffered.peek(_HEAD_BYTES)
    except OSError as error:
        raise unreadable(path, error) from error
    if head.startswith(_GZIP):
        return gzip.GzipFile(fileobj=buffered)
    if head.startswith(_ZSTD) or _ZSTD_SKIPPABLE.match(head):
        return _ZstdStream(buffered, path)
    if path.endswith((".gz", ".zst")):
        formats.refuse_foreign(path, head)
        raise SourceUnreadableError(
            f"'{path}' is not compressed as its name says.", fix="Transfer it again, or give it its right name."
        )
    return buffered


def format_of(path: str, head: bytes, kernel: Kernel = Kernel.NUMPY) -> Format:
    """Tell the daily CSV from JSON Lines by the first lines, of which a name that ends with .csv is a hint at most.

    Raises SourceUnreadableError for a file that is neither, or whose columns cannot be known.
    """
    name = path.removesuffix(".gz").removesuffix(".zst")
    if formats.begins_as_json(head):
        return JsonLines(kernel=kernel)
    if name.endswith((".csv", ".tsv")) or looks_like_csv(head):
        return DailyCsv.starting(head, f"'{path}'")
    if head.strip() and not any(map(formats.begins_as_json, head.split(b"\n"))):
        raise SourceUnreadableError(
            f"'{path}' is neither JSON Lines nor CSV.", fix="See in the README what a feed looks like."
        )
    return JsonLines(kernel=kernel)


def files_of(path: str) -> list[str]:
    """Name the files that a path stands for: itself, or those in the directory, sorted by name.

    Dot files and unfinished ones (.tmp, .part) are left alone.
    """
    if path == STDIN or not Path(path).is_dir():
        return [path]
    try:
        paths = sorted(Path(path).iterdir())
    except OSError as error:
        raise unreadable(path, error) from error
    return [
        str(file)
        for file in paths
        if not file.name.startswith(".") and not file.name.endswith(UNFINISHED_SUFFIXES) and file.is_file()
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What a file that was not touched keeps: archives keep size and times of their members, but not all of this."""

    size: int
    mtime_ns: int
    ctime_ns: int
    device: int
    inode: int

    @property
    def touched_s(self) -> float:
        """When the file was last written, renamed or given other times: seconds UTC."""
        return max(self.mtime_ns, self.ctime_ns) / 1e9


def stamp(path: str) -> Stamp:
    """Return what tells whether a file is still the same. Raises SourceUnreadableError."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    return Stamp(
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
        device=status.st_dev,
        inode=status.st_ino,
    )


def changing(name: str) -> SourceChangedError:
    """Make the error of a source that was written, cut or replaced while it was read."""
    return SourceChangedError(
        f"'{name}' changed while it was read; nothing is said of its being complete.",
        fix="Load it again when nobody writes to it; give files their final name only when they are whole.",
    )


def changed(name: str) -> SourceChangedError:
    """Make the error of a source whose loaded part is not the same any more."""
    return SourceChangedError(
        f"'{name}' is not the file that was loaded before: its content has changed.",
        fix="Give it back its old content, or load the new one under another path or with --source NAME.",
    )


def unreadable(name: str, error: Exception) -> SourceUnreadableError:
    """Make the error of a source that cannot be read."""
    why = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
    damaged = isinstance(error, EOFError | zlib.error | zstandard.ZstdError | gzip.BadGzipFile)
    if damaged:
        return SourceUnreadableError(
            f"'{name}' is cut off or damaged: it cannot be decompressed to its end.",
            fix="Transfer it again, then start the load again.",
        )
    return SourceUnreadableError(f"'{name}' cannot be read: {why}.", fix="Check the path and its permissions.")
