"""Files that appear when they are whole: until then each is written beside its place, for its owner only."""

import fcntl
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final, Self

from iyscheck.errors import SettingsError, SystemRefusedError

_MODE: Final = 0o600
_PART: Final = ".part"


def part_of(path: Path) -> Path:
    """Where a file is written while it is not whole."""
    return path.with_name(path.name + _PART)


class Outputs:
    """The files of one washing, by their role. Nobody else may write them meanwhile."""

    def __init__(self, paths: Mapping[str, Path], lengths: Mapping[str, int]) -> None:
        """Open the parts, and cut each to the length that is known to be right. Raises SettingsError."""
        self._paths = dict(paths)
        self._parts = ExitStack()
        self._files: dict[str, BinaryIO] = {}
        try:
            for role, path in self._paths.items():
                file = self._files[role] = self._parts.enter_context(_opened(part_of(path)))
                _cut(file, part_of(path), lengths.get(role, 0))
        except BaseException:
            self._parts.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.close()

    def write(self, contents: Mapping[str, bytes]) -> None:
        """Add to the files by their role; a role that this washing has no file for is left out."""
        for role, file in self._files.items():
            try:
                file.write(contents.get(role, b""))
            except OSError as error:
                raise _refused(self._paths[role], error) from None

    def keep(self) -> dict[str, int]:
        """Bring all that was written to the disk; say how long each file is now."""
        lengths = {}
        for role, file in self._files.items():
            try:
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                raise _refused(self._paths[role], error) from None
            lengths[role] = file.tell()
        return lengths


def put_in_place(paths: Mapping[str, Path], lengths: Mapping[str, int], optional: str) -> list[Path]:
    """Give whole files their names; of `optional` only where it is not empty. Doing it twice does no harm."""
    placed = []
    for role, path in paths.items():
        part = part_of(path)
        try:
            if role == optional and not lengths.get(role):
                part.unlink(missing_ok=True)
                path.unlink(missing_ok=True)  # of an earlier washing, whose rows are no longer these
                continue
            if part.exists():
                part.replace(path)
            if path.stat().st_size != lengths.get(role):
                raise SettingsError("LIST", f"{path} is not what was written.", fix="Begin anew, with --afresh.")
        except OSError as error:
            raise _refused(path, error) from None
        placed.append(path)
    if paths:
        keep_names(next(iter(paths.values())).parent)
    return placed


def keep_names(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cut(file: BinaryIO, part: Path, length: int) -> None:
    """Leave out what was written after the last step that was kept."""
    if file.seek(0, os.SEEK_END) < length:
        raise SettingsError("LIST", f"{part} is shorter than it was.", fix="Begin anew, with --afresh.")
    file.truncate(length)
    file.seek(length)


def _opened(part: Path) -> BinaryIO:
    """Open a part for this process alone."""
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
    except OSError as error:
        raise _refused(part, error) from None
    file = os.fdopen(descriptor, "r+b", buffering=1024 * 1024)
    try:
        os.fchmod(descriptor, _MODE)
        ours = _locked(descriptor, part)
    except OSError as error:
        file.close()
        raise _refused(part, error) from None
    if not ours:
        file.close()
        raise SettingsError("LIST", "another `iyscheck scrub` is washing it.", fix="Wait until that is done.")
    return file


def _locked(descriptor: int, part: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), part.stat())  # if not, it has just got its name
    except (BlockingIOError, FileNotFoundError):
        return False


def _refused(path: Path, error: OSError) -> SystemRefusedError:
    return SystemRefusedError(
        f"{path} cannot be written: {error.strerror or 'no reason given'}.",
        fix="What was washed is kept: mend it and run the same command again.",
    )
