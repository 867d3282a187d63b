"""A file of the archive: frames of zstd in AES-256-GCM, which is appended to for a day and then sealed.

    header   8 magic and version, 8 id of the address key, 32 salt
    frame    4 size of what is sealed (top bit: the last frame), 8 milliseconds UTC of its writing, 12 nonce
             zstd in AES-256-GCM, 16 bytes of tag among it; of the last frame there is nothing in it

Numbers are big-endian. The key of a file is derived from address key and salt. With a frame its number from 0 and its
own first 24 bytes are authenticated: so none can be taken out, moved, or put into another file, and a file without its
last frame is known to be cut.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from secrets import token_bytes
from typing import Final, Protocol, Self

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from iyscheck.errors import SourceUnreadableError
from iyscheck.keys import KEY_ID_BYTES, AddressKey

MAGIC: Final = b"\x93IYSARC\x01"
_SALT_BYTES: Final = 32
HEADER_BYTES: Final = len(MAGIC) + KEY_ID_BYTES + _SALT_BYTES
CONTENT_MAX_BYTES: Final = 2**26
"""Of one frame, decompressed. A page of İYS has a hundredth of it."""
_HEAD: Final = struct.Struct(">IQ12s")
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_LAST: Final = 2**31
_SIZE_MAX: Final = CONTENT_MAX_BYTES + 2**16
_PURPOSE: Final = b"archive 1"


class DamagedError(EOFError):
    """A frame that is no frame of its file, at its place: all before it is good. `is_torn` if nothing follows it."""

    def __init__(self, *, is_torn: bool) -> None:
        super().__init__("a frame of the archive is cut off or damaged")
        self.is_torn = is_torn


class Readable(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none at the end."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A frame that was opened: `written_s` is seconds UTC, `end` where it ends in its file."""

    content: bytes
    written_s: float
    end: int
    is_last: bool


class Seal:
    """Seals the frames of one file, and opens them."""

    def __init__(self, key: AddressKey, header: bytes) -> None:
        self.header = header
        self._cipher = AESGCM(key.derived(_PURPOSE, header[-_SALT_BYTES:]))

    @classmethod
    def new(cls, key: AddressKey) -> Self:
        """Make that of a new file."""
        return cls(key, MAGIC + key.key_id + token_bytes(_SALT_BYTES))

    @classmethod
    def of(cls, header: bytes, key: AddressKey) -> Self | None:
        """Take that of a file that begins so; None for one that is not of the archive, or of another key."""
        return cls(key, header) if len(header) == HEADER_BYTES and header.startswith(MAGIC + key.key_id) else None

    def sealed(self, content: bytes, number: int, *, now_s: float, is_last: bool = False) -> bytes:
        """Make a frame, as it stands in the file. Raises ValueError for too much content."""
        if len(content) > CONTENT_MAX_BYTES:
            raise ValueError("a frame holds 64 MiB at most")
        plain = b"" if is_last else zstandard.ZstdCompressor().compress(content)
        nonce = token_bytes(_NONCE_BYTES)
        size = len(plain) + _TAG_BYTES
        head = _HEAD.pack(size | (_LAST if is_last else 0), int(now_s * 1000), nonce)
        return head + self._cipher.encrypt(nonce, plain, _bound(number, head))

    def frames(self, file: Readable, *, end: int = HEADER_BYTES, number: int = 0) -> Iterator[Frame]:
        """Open frame by frame, from where a file stands: `end` is that place, `number` that of the next frame.

        Raises DamagedError where the last one does not come.
        """
        is_last = False
        while not is_last:
            head = _exactly(file, _HEAD.size)
            if not head:
                raise DamagedError(is_torn=True)
            size, milliseconds, nonce = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, 0, b"")
            is_last = bool(size & _LAST)
            size &= _LAST - 1
            if len(head) < _HEAD.size or not _TAG_BYTES <= size <= _SIZE_MAX:
                raise DamagedError(is_torn=len(head) < _HEAD.size or not file.read(1))
            body = _exactly(file, size)
            try:
                plain = self._cipher.decrypt(nonce, body, _bound(number, head))
            except InvalidTag:
                raise DamagedError(is_torn=len(body) < size or not file.read(1)) from None
            if is_last and file.read(1):
                raise DamagedError(is_torn=False)  # nothing may follow what says that it is the end
            end += len(head) + size
            number += 1
            yield Frame(
                content=b"" if is_last else _decompressed(plain),
                written_s=milliseconds / 1000,
                end=end,
                is_last=is_last,
            )


class Content:
    """Reads what a file of the archive holds, frame after frame."""

    def __init__(self, file: Readable, key: AddressKey | None, path: str) -> None:
        """Take a file at its beginning. Raises SourceUnreadableError where the key is not that of the file."""
        header = _exactly(file, HEADER_BYTES)
        seal = None if key is None else Seal.of(header, key)
        if seal is None and len(header) == HEADER_BYTES:
            wanted = header[len(MAGIC) : len(MAGIC) + KEY_ID_BYTES].hex()
            raise SourceUnreadableError(
                f"'{path}' is of the archive, and encrypted under the address key {wanted}, which is not given here.",
                fix="Give the file of that address key with --archive-key.",
            )
        self._frames = None if seal is None else seal.frames(file)
        self._left = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none at the end. Raises EOFError for a file that is damaged or not sealed."""
        if self._frames is None:
            raise DamagedError(is_torn=True)
        while not self._left:
            frame = next(self._frames, None)
            if frame is None:
                return b""
            self._left = memoryview(frame.content)
        taken, self._left = self._left[:size], self._left[size:]
        return bytes(taken)


def _bound(number: int, head: bytes) -> bytes:
    """Say what is authenticated beside a frame's content."""
    return number.to_bytes(8) + head


def _exactly(file: Readable, size: int) -> bytes:
    """Read so many bytes, fewer at the end only."""
    pieces: list[bytes] = []
    while size and (piece := file.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _decompressed(plain: bytes) -> bytes:
    """Decompress what was authenticated: only we can have written it."""
    return zstandard.ZstdDecompressor().decompress(plain, max_output_size=CONTENT_MAX_BYTES)
