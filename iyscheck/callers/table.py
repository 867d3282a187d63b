"""The small file by which worker processes share rates: for each caller two numbers, mapped into each of them.

A number says up to when the time of a caller is sold, in nanoseconds of CLOCK_MONOTONIC, which all processes of a
machine share. It is eight bytes that lie where one store writes them, so nobody ever reads half of one.

    header, 64 bytes   magic, then the boot in which the numbers were written (16 bytes)
    place, 32 bytes    id of the name, sold of commercial messages, sold of exempt ones, unused

A place belongs to a name for good; it is found by the name's id, at the next free place behind it. Locks are those of
Linux on open files (F_OFD_SETLKW), on the bytes of a number: they end with the process, however it ends.
"""

import fcntl
import hashlib
import mmap
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from iyscheck.errors import QuotaTableError
from iyscheck.keys import why_not

PLACES: Final = 16_384
_WORD: Final = 8
_HEADER_WORDS: Final = 8
_PLACE_WORDS: Final = 4
_BYTES: Final = _WORD * (_HEADER_WORDS + PLACES * _PLACE_WORDS)
_MAGIC: Final = int.from_bytes(b"iysquo\x00\x01", "little")
_MODE: Final = 0o600
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class Table:
    """A table that is open in this process. To be opened anew in each process, never before a fork."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._map = mmap.mmap(descriptor, _BYTES)
        self._words = memoryview(self._map).cast("q")

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open the table at a path, made if it is not there. Raises QuotaTableError."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
            try:
                # Reserved, so that a full directory is an error here and not a SIGBUS later.
                os.posix_fallocate(descriptor, 0, _BYTES)
                table = cls(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
        except (OSError, ValueError) as error:
            raise QuotaTableError(
                f"{path} cannot be opened as the table of rates: {why_not(error)}.",
                fix="Put it into a directory of this server's own, with half a megabyte of room.",
            ) from error
        table._begin()
        return table

    def _begin(self) -> None:
        """Clear what another boot has written: its clock is not ours. What dies in here is done again by the next."""
        boot = struct.unpack("qq", bytes.fromhex(_BOOT.read_text().replace("-", "").strip()))
        header = (_MAGIC, *boot)
        with _Locked(self, 0):
            if tuple(self._words[: len(header)]) != header:
                self._words[0] = 0
                self._map[_WORD * len(header) : _BYTES] = bytes(_BYTES - _WORD * len(header))
                self._words[1], self._words[2] = boot
                self._words[0] = _MAGIC

    def close(self) -> None:
        """Unmap and close it."""
        self._words.release()
        self._map.close()
        os.close(self._descriptor)

    def number(self, name: str, *, exempt: bool) -> int:
        """Give the index of a caller's number: the same in all processes, whatever other callers they know.

        Where all places are taken callers share one: they get less, never more.
        """
        key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=_WORD).digest(), "little", signed=True) or 1
        word = self._place(key)
        if self._words[word] != key:
            with _Locked(self, 0):
                word = self._place(key)
                if self._words[word] == 0:
                    self._words[word] = key
        return word + 2 if exempt else word + 1

    def _place(self, key: int) -> int:
        """Find where a name's place is, or would be: the first that is free."""
        first = key % PLACES
        for place in range(first, first + PLACES):
            word = _HEADER_WORDS + place % PLACES * _PLACE_WORDS
            if self._words[word] in (0, key):
                return word
        return _HEADER_WORDS + first * _PLACE_WORDS

    def sold(self, number: int) -> int:
        """Read a number; also without its lock, where an older one does no harm."""
        return self._words[number]

    def sell(self, number: int, until: int) -> None:
        """Write a number, with its lock held: all of it or nothing, whenever the process is killed."""
        self._words[number] = until

    def locked(self, number: int) -> "_Locked":
        """Hold the lock of a number in a `with` block. It keeps out other processes, not other threads of this one."""
        return _Locked(self, number)

    def lock(self, kind: int, number: int) -> None:
        """Take or release (F_WRLCK, F_UNLCK) the lock of a number."""
        wanted = struct.pack("hhqqi4x", kind, os.SEEK_SET, number * _WORD, _WORD, 0)
        fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLKW, wanted)


class _Locked:
    """A `with` block; `contextlib` takes longer than the two system calls."""

    __slots__ = ("_number", "_table")

    def __init__(self, table: Table, number: int) -> None:
        self._table = table
        self._number = number

    def __enter__(self) -> None:
        self._table.lock(fcntl.F_WRLCK, self._number)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._table.lock(fcntl.F_UNLCK, self._number)
