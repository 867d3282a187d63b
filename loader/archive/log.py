"""A file of frames that grows: what it kept is on the disk, and what a crash tore off its end is cut away."""

import errno
import os
from datetime import date
from pathlib import Path
from typing import Final, Self

from iyscheck.keys import AddressKey
from loader.archive.container import HEADER_BYTES, DamagedError, Seal

FILE_MODE: Final = 0o600
OPEN: Final = ".part"
"""Behind the name of a file that is not sealed."""


class Log:
    """One file that frames are appended to, until it is sealed. After an OSError nothing may follow."""

    def __init__(self, path: Path, descriptor: int, seal: Seal, *, number: int, day: date | None = None) -> None:
        self.day = day
        self._path = path
        self._descriptor = descriptor
        self._seal = seal
        self._number = number

    @classmethod
    def new(cls, path: Path, key: AddressKey, day: date | None = None) -> Self:
        """Begin a file that is not there yet."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)
        log = cls(path, descriptor, Seal.new(key), number=0, day=day)
        try:
            log._write(log._seal.header)
            os.fsync(descriptor)
            settle_names(path.parent)
        except OSError:
            log.close()
            path.unlink(missing_ok=True)  # on a full disk each try would leave one
            raise
        return log

    @classmethod
    def again(cls, path: Path, key: AddressKey) -> Self | None:
        """Find the end of a file, which is behind its last whole frame: nobody was told that what was torn is kept.

        None where that cannot be: it is of another key, its header was torn, or it is damaged before its end.
        """
        with path.open("rb") as file:
            seal = Seal.of(file.read(HEADER_BYTES), key)
            if seal is None:
                return None
            end, number = HEADER_BYTES, 0
            try:
                for frame in seal.frames(file):
                    if not frame.is_last:
                        end, number = frame.end, number + 1
            except DamagedError as error:
                if not error.is_torn:
                    return None
        os.truncate(path, end)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        return cls(path, descriptor, seal, number=number)

    def append(self, content: bytes, now_s: float, *, is_last: bool = False) -> int:
        """Write a frame, not yet through to the disk; return its size."""
        frame = self._seal.sealed(content, self._number, now_s=now_s, is_last=is_last)
        self._write(frame)
        self._number += 1
        return len(frame)

    def settle(self) -> None:
        """Wait until all frames are on the disk."""
        os.fsync(self._descriptor)

    def ensure_there(self) -> None:
        """Raise OSError where the file is not at its path any more: what is written to it nobody will read."""
        here, there = os.fstat(self._descriptor), self._path.stat()
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            raise FileNotFoundError(errno.ENOENT, "it was replaced")

    def seal(self, now_s: float) -> None:
        """Say that this is all, and give the file its final name."""
        self.append(b"", now_s, is_last=True)
        self.settle()
        self._path.rename(self._path.with_name(self._path.name.removesuffix(OPEN)))
        settle_names(self._path.parent)

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, data: bytes) -> None:
        written = 0
        while written < len(data):
            written += os.write(self._descriptor, data[written:])


def settle_names(folder: Path) -> None:
    """Make sure that names survive a power cut as well as contents."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
