"""The folder of the archive: what was pulled and pushed on each day, and the daily files that were verified.

    pull-2026-11-30-1.archive         pages of the changes feed that came on that day (UTC), as JSON Lines
    push-2026-11-30-1.archive         bodies that were pushed on that day
    day-600001-2026-11-29.archive     the daily file of a brand, as İYS gave it

The last number tells the files of a day apart: whoever opens the archive begins another one. What is not sealed yet has
`.part` behind its name. A file is sealed when its day is over or the archive is closed; what a crash left, when the
archive is opened again. Only the process that writes the store writes here, and only in one thread.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

import msgspec

from iyscheck.errors import ArchiveError
from iyscheck.keys import AddressKey
from loader.archive.log import OPEN, Log

FOLDER_MODE: Final = 0o700
_SUFFIX: Final = ".archive"
_PIECE_BYTES: Final = 2**20
_LOG: Final = re.compile(r"(?P<of>(?:pull|push)-\d{4}-\d\d-\d\d)-(?P<number>[1-9]\d*)\.archive(?:\.part)?")
_NAMED: Final = re.compile(r"(?:(?:pull|push)-(\d{4}-\d\d-\d\d)-\d+|day-\d+-(\d{4}-\d\d-\d\d))\.archive(?:\.part)?")
_PERSONAL: Final = "citizen"
_KIND: Final = "kind"


class Kind(StrEnum):
    """What is appended to for a day."""

    PULL = "pull"
    PUSH = "push"


class Archive:
    """Keeps what came. `clock` tells seconds UTC. Each method raises ArchiveError where the disk does not take it."""

    def __init__(self, folder: Path, key: AddressKey, *, clock: Callable[[], float]) -> None:
        """Open the folder, making it if there is none, and seal what a crash or an earlier day left open."""
        self._folder = folder
        self._key = key
        self._clock = clock
        self._logs: dict[Kind, Log] = {}
        with _told(folder):
            folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            self._seal_left()

    def add(self, kind: Kind, rows: Iterable[Mapping[str, object]], *, brand: int | None = None) -> None:
        """Keep rows, durably; `brand` is that of rows that name none.

        Left out are names of people, and rows of a kind of their own: İYS has consents only, and who loads an archive
        must not be told of brands or watermarks by it.
        """
        lines = [_line(row, brand) for row in rows if _KIND not in row]
        if not lines:
            return
        with _told(self._folder):
            log = self._log(kind)
            try:
                log.append(b"".join(lines), self._clock())
                log.settle()
            except OSError:
                self._logs.pop(kind).close()  # whatever stands at its end: the next rows go into another one
                raise

    def add_day(self, brand: int, day: date, path: Path) -> Path:
        """Keep a daily file, durably, in the place of one that was kept before; return where."""
        kept = self._folder / f"day-{brand}-{day}{_SUFFIX}"
        with _told(self._folder):
            unfinished = kept.with_name(kept.name + OPEN)
            with suppress(FileNotFoundError):
                unfinished.unlink()
            with path.open("rb") as file, Log.new(unfinished, self._key) as log:
                while piece := file.read(_PIECE_BYTES):
                    log.append(piece, self._clock())
                log.seal(self._clock())
        return kept

    def expire(self, keep_s: float) -> int:
        """Delete what is of a day that was over so many seconds ago; say how many files."""
        oldest = datetime.fromtimestamp(self._clock() - keep_s, UTC).date()
        deleted = 0
        with _told(self._folder):
            for path in self._folder.iterdir():
                named = _NAMED.fullmatch(path.name)
                if named and date.fromisoformat(named[1] or named[2]) < oldest:
                    path.unlink()
                    deleted += 1
        return deleted

    def close(self) -> None:
        """Seal what is open."""
        with _told(self._folder):
            for kind in Kind:
                self._seal(kind)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _today(self) -> date:
        return datetime.fromtimestamp(self._clock(), UTC).date()

    def _log(self, kind: Kind) -> "Log":
        """Return the file that rows of a kind go into now."""
        today = self._today()
        if kind in self._logs and self._logs[kind].day != today:
            self._seal(kind)
        if kind not in self._logs:
            names = (_LOG.fullmatch(path.name) for path in self._folder.iterdir())
            of_today = [int(name["number"]) for name in names if name and name["of"] == f"{kind}-{today}"]
            path = self._folder / f"{kind}-{today}-{max(of_today, default=0) + 1}{_SUFFIX}{OPEN}"
            self._logs[kind] = Log.new(path, self._key, today)
        return self._logs[kind]

    def _seal(self, kind: Kind) -> None:
        log = self._logs.pop(kind, None)
        if log is not None:
            with log:
                log.seal(self._clock())

    def _seal_left(self) -> None:
        """Seal what a crash left; what is damaged or of another key stays, for whoever reads it."""
        for path in self._folder.iterdir():
            if _LOG.fullmatch(path.name) and path.name.endswith(OPEN) and (log := Log.again(path, self._key)):
                with log:
                    log.seal(self._clock())


def _line(row: Mapping[str, object], brand: int | None) -> bytes:
    """Write a row as a line, without whatever might name a citizen."""
    kept = {key: value for key, value in row.items() if _PERSONAL not in key.casefold()}
    if brand is not None:
        kept = {"brandCode": brand, **kept}
    return msgspec.json.encode(kept) + b"\n"


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArchiveError(
            f"The archive in '{folder}' cannot be written: {error.strerror or type(error).__name__}.",
            fix="Check the folder and its free space.",
        ) from error
