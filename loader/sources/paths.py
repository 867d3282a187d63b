"""What stands under a path: the files of a directory, and whether a file is still the same. Nothing is read here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loader.sources.refusals import unreadable

STDIN: Final = "-"
UNFINISHED_SUFFIXES: Final = (".tmp", ".part")


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
    def written_s(self) -> float:
        """When the file was last written: seconds UTC."""
        return self.mtime_ns / 1e9

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
