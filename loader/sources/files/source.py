"""Files and standard input as sources of `loading`."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

from iyscheck.kernel import Kernel
from iyscheck.keys import AddressKey
from iyscheck.store.layout import SourceState
from loader.loading.source import Piece, Whole
from loader.reading.rows import Format, nothing, too_long
from loader.sources import paths
from loader.sources.files import opening
from loader.sources.files.lines import LineReader
from loader.sources.paths import STDIN, Stamp
from loader.sources.refusals import changed, changing


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePoint:
    """Behind so many bytes of this SHA-256 (hex), `ends_whole` if behind a line end. `stamp` is None for a pipe."""

    bytes: int
    sha256: str
    ends_whole: bool
    stamp: Stamp | None

    @classmethod
    def of(cls, state: SourceState) -> Self:
        """Read the point in a state."""
        stamp = Stamp(
            size=state.file_size,
            mtime_ns=state.file_mtime_ns,
            ctime_ns=state.file_ctime_ns,
            device=state.file_device,
            inode=state.file_inode,
        )
        return cls(bytes=state.bytes, sha256=state.sha256, ends_whole=state.ends_whole, stamp=stamp)

    def kept_in(self, state: SourceState) -> SourceState:
        """Return the state with this point in it."""
        state = msgspec.structs.replace(state, bytes=self.bytes, sha256=self.sha256, ends_whole=self.ends_whole)
        stamp = self.stamp
        if stamp is None:
            return state
        return msgspec.structs.replace(
            state,
            file_size=stamp.size,
            file_mtime_ns=stamp.mtime_ns,
            file_ctime_ns=stamp.ctime_ns,
            file_device=stamp.device,
            file_inode=stamp.inode,
        )


class FileSource:
    """A file, whose name is that of the path unless it is given another one; `archive_key` opens one of the archive."""

    resumes = True
    may_be_silent = False

    def __init__(self, path: str, *, name: str | None = None, archive_key: AddressKey | None = None) -> None:
        self._path = path
        self._key = archive_key
        self.name = name or source_name(path)

    @property
    def size(self) -> int:
        """How many bytes it has on disk. Raises SourceUnreadableError."""
        return paths.stamp(self._path).size

    def is_unchanged(self, state: SourceState) -> bool:
        """Say that a finished file is the same; only where it may have been touched is it read.

        Archives and caches give other content the same name, size and times, but not the same inode and change time.
        Raises SourceChangedError.
        """
        if paths.stamp(self._path) != FilePoint.of(state).stamp:
            self.read_again(state, digest="")
        return True

    def read_again(self, state: SourceState, *, digest: str) -> Whole:
        """Read a finished file to its end once more. Raises SourceChangedError if it is not the same."""
        before = paths.stamp(self._path)
        with opening.opened(self._path, digest=digest, key=self._key) as reader:
            reader.skip(state.bytes, state.sha256)
            if not reader.at_end():
                raise changed(state.name)
            if paths.stamp(self._path) != before:
                raise changing(state.name)
            return Whole(digest=reader.asked_digest, written_s=before.written_s)

    @contextmanager
    def opened(
        self, state: SourceState, *, rows: int, digest: str, kernel: Kernel
    ) -> Iterator[Generator[Piece, None, None]]:
        """Read on behind what was loaded. Raises SourceError."""
        stamp = paths.stamp(self._path)

        def whole(reader: LineReader) -> Whole:
            if paths.stamp(self._path) != stamp:
                raise changing(self.name)  # what was read last may not be its end
            return Whole(digest=reader.asked_digest, written_s=stamp.written_s)

        with opening.opened(self._path, digest=digest, key=self._key) as reader:
            form = opening.format_of(self._path, reader.head(), kernel)
            reader.skip(state.bytes, state.sha256 or reader.sha256)
            with closing(_pieces(reader, form, rows, stamp=stamp, whole=whole)) as pieces:
                yield pieces


class StandardInput:
    """Standard input, which begins anew each time, and may be silent for long."""

    resumes = False
    may_be_silent = True
    size = None

    def __init__(self, *, name: str | None = None, archive_key: AddressKey | None = None) -> None:
        self._key = archive_key
        self.name = name or STDIN

    def is_unchanged(self, _state: SourceState) -> bool:
        """Say no: nobody knows what is in it."""
        return False

    def read_again(self, state: SourceState, *, digest: str) -> Whole:  # noqa: ARG002 - there is no again
        """Refuse: what was read is gone. Raises SourceChangedError."""
        raise changed(state.name)

    @contextmanager
    def opened(
        self,
        _state: SourceState,
        *,
        rows: int,
        digest: str,
        kernel: Kernel,
    ) -> Iterator[Generator[Piece, None, None]]:
        """Read what is in it. Raises SourceError."""
        reader = opening.standard_input(digest=digest, key=self._key)
        form = opening.format_of(STDIN, reader.head(), kernel)

        def whole(reader: LineReader) -> Whole:
            return Whole(digest=reader.asked_digest)

        with closing(_pieces(reader, form, rows, stamp=None, whole=whole)) as pieces:
            yield pieces


def _pieces(
    reader: LineReader, form: Format, rows: int, *, stamp: Stamp | None, whole: Callable[[LineReader], Whole]
) -> Generator[Piece, None, None]:
    """Read and decode chunk by chunk; there is always a last piece."""
    at_end = False
    while not at_end:
        chunk = reader.chunk(rows)
        at_end = chunk is None or reader.at_end()
        known = whole(reader) if at_end else None
        if chunk is None:
            decoded = nothing()
        else:
            decoded = too_long() if chunk.discarded else form.decode(chunk.data, first=chunk.first)
        yield Piece(
            data=b"" if chunk is None else chunk.data,
            lines=0 if chunk is None else chunk.lines,
            decoded=decoded,
            form=form,
            point=FilePoint(bytes=reader.bytes, sha256=reader.sha256, ends_whole=reader.ends_whole, stamp=stamp),
            whole=known,
        )


def source_name(path: str) -> str:
    """Name the source that a path is: its absolute path, bytes that are not UTF-8 written as escapes."""
    name = STDIN if path == STDIN else str(Path(path).absolute())
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
