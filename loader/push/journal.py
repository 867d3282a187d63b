"""The journal between the receiver and the writer of the store: what İYS was told that we have it is on the disk.

    00000001764489600000.journal     a segment; named by when it was begun, in milliseconds UTC

A segment has the form of an archive's file that is not sealed yet (`loader/archive/container.py`): encrypted, and each
frame is a body that was taken. One process appends. Another reads behind a place that it keeps itself, and deletes what
it has behind it.
"""

import fcntl
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import msgspec

from iyscheck.errors import SettingsError
from iyscheck.keys import AddressKey
from loader.archive.container import HEADER_BYTES, DamagedError, Seal
from loader.archive.log import Log

FOLDER_MODE: Final = 0o700
SEGMENT_BYTES: Final = 64 * 2**20
"""From this size on the next segment is begun."""
_NAMED: Final = re.compile(r"(\d{20})\.journal")
_PLACE: Final = re.compile(r"(\d{1,20}):(\d{1,20}):(\d{1,20})")

Row = dict[str, object]


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """What one credential brought at one time (seconds UTC): rows as they were, but without names of people."""

    credential: str
    received_s: float
    rows: list[Row]


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Behind so many frames of a segment, which end at `offset`."""

    segment: int = 0
    offset: int = HEADER_BYTES
    frames: int = 0

    def __str__(self) -> str:
        return f"{self.segment}:{self.offset}:{self.frames}"

    @classmethod
    def of(cls, text: str) -> Self:
        """Read a place as `str` writes it; what is none is the beginning of all."""
        found = _PLACE.fullmatch(text)
        return cls(*map(int, found.groups())) if found else cls()


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What was read, and the place behind it. `damaged` counts segments of which not all can be read."""

    entries: tuple[Entry, ...]
    place: Place
    damaged: int


class JournalWriter:
    """Appends. For one thread of one process at a time."""

    def __init__(self, folder: Path, key: AddressKey) -> None:
        """Open the journal. Raises SettingsError where another process appends to it, or the folder cannot be used."""
        self._folder = folder
        self._key = key
        self._log: Log | None = None
        self._size = 0
        try:
            folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError("--store", "another receiver runs for this store.", fix="End it first.") from None
        except OSError as error:
            raise SettingsError("--store", f"the journal in '{folder}' cannot be opened: {error.strerror}.") from None

    def append(self, entries: Sequence[Entry], now_s: float) -> None:
        """Keep entries: when this returns they are on the disk. Raises OSError, and then İYS must not be told so."""
        log = self._segment(now_s)
        try:
            for entry in entries:
                self._size += log.append(msgspec.msgpack.encode(entry), now_s)
            log.settle()
            log.ensure_there()
        except OSError:
            self.close_segment()  # whatever stands at its end: the next entries go into another one
            raise

    def free_share(self) -> float:
        """Return how much of the disk is free, from 0 to 1. Raises OSError."""
        found = os.statvfs(self._folder)
        return found.f_bavail / found.f_blocks if found.f_blocks else 0.0

    def close_segment(self) -> None:
        """Begin another segment with the next entry."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def close(self) -> None:
        """Let the next receiver in."""
        self.close_segment()
        os.close(self._lock)

    def _segment(self, now_s: float) -> Log:
        if self._log is not None and self._size >= SEGMENT_BYTES:
            self.close_segment()
        if self._log is None:
            self._folder.mkdir(mode=FOLDER_MODE, exist_ok=True)  # somebody may have moved it away
            number = max(int(now_s * 1000), *(each + 1 for each in segments(self._folder)), 1)
            self._log = Log.new(self._folder / f"{number:020}.journal", self._key)
            self._size = HEADER_BYTES
        return self._log


class Journal:
    """Reads. Any number of processes may."""

    def __init__(self, folder: Path, key: AddressKey) -> None:
        self._folder = folder
        self._key = key

    def read(self, place: Place, *, most_rows: int) -> Taken:
        """Return what stands behind a place, until there are so many rows or there is no more. Raises OSError.

        A segment ends where another one was begun behind it. What is torn off its end was never told to be kept.
        """
        entries: list[Entry] = []
        rows = damaged = 0
        found_here = segments(self._folder)  # listed before they are read: who began the next one had ended this one
        place = _known(place, found_here)
        for segment in found_here:
            if segment < place.segment:
                continue
            if segment > place.segment:
                place = Place(segment)
            found, is_damaged = self._entries(place)
            damaged += is_damaged
            for entry, behind in found:
                entries.append(entry)
                place = behind
                rows += len(entry.rows)
                if rows >= most_rows:
                    return Taken(entries=tuple(entries), place=place, damaged=damaged)
        return Taken(entries=tuple(entries), place=place, damaged=damaged)

    def behind(self, place: Place) -> int:
        """Return how many bytes stand behind a place. Raises OSError."""
        found_here = segments(self._folder)
        place = _known(place, found_here)
        sizes = {each: self._path(each).stat().st_size for each in found_here if each >= place.segment}
        return sum(size - (place.offset if each == place.segment else HEADER_BYTES) for each, size in sizes.items())

    def forget(self, place: Place) -> int:
        """Delete the segments that lie before a place; say how many. Raises OSError."""
        passed = [each for each in segments(self._folder) if each < place.segment]
        for each in passed:
            self._path(each).unlink(missing_ok=True)
        return len(passed)

    def _entries(self, place: Place) -> tuple[list[tuple[Entry, Place]], bool]:
        """Read the entries of a segment behind a place, and say whether it is damaged there, and not only cut off."""
        found: list[tuple[Entry, Place]] = []
        path = self._path(place.segment)
        try:
            with path.open("rb") as file:
                if path.stat().st_size <= place.offset:
                    return found, False
                seal = Seal.of(file.read(HEADER_BYTES), self._key)
                if seal is None:
                    return found, True
                file.seek(place.offset)
                for frame in seal.frames(file, end=place.offset, number=place.frames):
                    behind = Place(place.segment, frame.end, place.frames + len(found) + 1)
                    found.append((msgspec.msgpack.decode(frame.content, type=Entry), behind))
        except FileNotFoundError:
            return found, False  # another reader is done with it
        except DamagedError as error:
            return found, not error.is_torn
        except msgspec.MsgspecError:
            return found, True  # of another version of this program
        return found, False

    def _path(self, segment: int) -> Path:
        return self._folder / f"{segment:020}.journal"


def _known(place: Place, found: Sequence[int]) -> Place:
    """Begin anew where a place lies beyond all segments: the folder was lost. What is read twice changes nothing."""
    return Place() if found and place.segment > found[-1] else place


def segments(folder: Path) -> list[int]:
    """Return the numbers of the segments that are there, in their order."""
    try:
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(int(found[1]) for name in names if (found := _NAMED.fullmatch(name)))
