"""gzip, zstd and our archive, told by the first bytes and not by a name.

What was cut off is an error, not a shorter feed.
"""

import gzip
import io
import re
from contextlib import suppress
from typing import BinaryIO, Final, Protocol

import zstandard

from iyscheck.errors import SourceUnreadableError
from iyscheck.keys import AddressKey
from loader.archive import container
from loader.reading import formats
from loader.sources.refusals import unreadable

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE: Final = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
"""How a frame begins that holds no data: pzstd and others put them before the others, or between them."""
_HEAD_BYTES: Final = 8
_ZSTD_INPUT_BYTES: Final = 2**12
"""Small, because four bytes of zstd can stand for 128 KiB."""
_ZSTD_WINDOW_MAX_BYTES: Final = 2**27


class Readable(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none at the end."""
        ...


def decompressed(file: BinaryIO, path: str, key: AddressKey | None = None) -> Readable:
    """Read what a file holds, decompressed if it is compressed; with the key it was made with, if it is of the archive.

    Raises SourceUnreadableError.
    """
    buffered = file if isinstance(file, io.BufferedReader) else io.BufferedReader(file)  # type: ignore[type-var] # any binary file
    try:
        head = buffered.peek(_HEAD_BYTES)
    except OSError as error:
        raise unreadable(path, error) from error
    if head.startswith(_GZIP):
        return gzip.GzipFile(fileobj=buffered)
    if head.startswith(container.MAGIC):
        return container.Content(buffered, key, path)
    if head.startswith(_ZSTD) or _ZSTD_SKIPPABLE.match(head):
        return _ZstdStream(buffered, path)
    if path.endswith((".gz", ".zst")):
        formats.refuse_foreign(path, head)
        raise SourceUnreadableError(
            f"'{path}' is not compressed as its name says.", fix="Transfer it again, or give it its right name."
        )
    return buffered


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
