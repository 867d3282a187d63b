"""What all processes of this machine must remember of İYS's limits, which go by network address, not by account.

One small file, locked while it is looked at and written in place: a process that is killed leaves what was there
before or what was to be there. A file that is gone or unreadable is one in which nothing has happened yet: no answer
depends on it.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

DAY_S: Final = 24 * 3600
HOUR_S: Final = 3600
FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
NAME: Final = "limits.json"

_SIZE: Final = 8192
"""Always written whole, so that a shorter content leaves nothing of a longer one. A day of counts is a tenth of it."""


class HourCount(msgspec.Struct):
    """Requests of one hour (`hour` is seconds UTC over 3600): how many, and how many of them İYS counts as failed."""

    hour: int
    asked: int = 0
    failed: int = 0


class Limited(msgspec.Struct):
    """What is remembered. All times are seconds UTC."""

    next_s: float = 0.0
    """No request may leave before."""
    rate: float | None = None
    """Requests a second since İYS said "too fast", None where it did not, or long ago."""
    slowed_s: float = 0.0
    """When it said so last."""
    clean_s: float = 0.0
    """From when on a minute without it counts."""
    locked_until_s: float = 0.0
    """No token may be asked for before."""
    token_asks: list[float] = msgspec.field(default_factory=list)
    """When tokens were asked for, within the last hour."""
    hours: list[HourCount] = msgspec.field(default_factory=list)
    """The last 24 hours and a bit."""


class Limits:
    """The file. May be used by any number of threads and processes."""

    def __init__(self, folder: Path) -> None:
        """Make the folder where it is missing; raises OSError."""
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        self._path = folder / NAME

    def seen(self) -> Limited:
        """What the file says now, for whoever only tells of it."""
        with self._locked(fcntl.LOCK_SH) as descriptor:
            return _read(descriptor)

    @contextmanager
    def held(self, *, durably: bool = False) -> Iterator[Limited]:
        """Give what the file says; what it then is, is written at the end, while nobody else looks.

        Args:
            durably: also survive a loss of power.
        """
        with self._locked(fcntl.LOCK_EX) as descriptor:
            limited = _read(descriptor)
            yield limited
            os.pwrite(descriptor, msgspec.json.encode(limited).ljust(_SIZE), 0)
            if durably:
                os.fsync(descriptor)

    @contextmanager
    def _locked(self, how: int) -> Iterator[int]:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        try:
            fcntl.flock(descriptor, how)
            yield descriptor
        finally:
            os.close(descriptor)  # and with it the lock


def _read(descriptor: int) -> Limited:
    try:
        return msgspec.json.decode(os.pread(descriptor, _SIZE, 0), type=Limited)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Limited()
