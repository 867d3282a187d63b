"""Small disks of their own, to be filled and to lose what nobody has synced. Only root can have them."""

import errno
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.replication.town import until

_SHUTDOWN: Final = 0x8004587D
"""EXT4_IOC_SHUTDOWN, which XFS brought into the world as XFS_IOC_GOINGDOWN."""
_NO_LOG_FLUSH: Final = 2
_FILLER: Final = "filler"


def only_root(what: str) -> None:
    """Skip aloud where somebody else runs the tests."""
    if os.geteuid() != 0:
        pytest.skip(f"NOT TESTED: {what}, which only root can; run scripts/test-replicas as root")


def run(*command: str | Path) -> None:
    """Run a program of the system, which has to do it."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}"


def fill(place: Path) -> None:
    """Leave no room."""
    with (place / _FILLER).open("ab") as file:
        for size in (2**16, 2**12, 1):
            try:
                while True:
                    os.write(file.fileno(), bytes(size))
            except OSError:
                continue


def empty(place: Path) -> None:
    """Leave room again."""
    (place / _FILLER).unlink()


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """Give a file system in memory of such a size, such as 8m."""
    only_root("a full disk is a small file system of its own")
    place.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", f"size={size}", "none", place)
    try:
        yield place
    finally:
        run("umount", "-l", place)


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A disk in a file, whose power can go: what was not synced is gone then."""

    image: Path
    place: Path

    def lose_power(self) -> None:
        """Take no more writes, and forget what is not on the disk."""
        descriptor = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def come_back(self) -> None:
        """Mount it anew, as after a start of the machine. Nobody may use it."""
        until(self._is_anew, f"{self.place} is mounted anew")

    def _is_anew(self) -> bool:
        """Try it. What lives in a namespace that was made meanwhile holds on to what it was before."""
        if subprocess.run(["umount", str(self.place)], capture_output=True, check=False).returncode:
            return False
        run("mount", "-o", "loop", self.image, self.place)
        return not is_shut(self.place)


def is_shut(place: Path) -> bool:
    """Say whether a file system has lost its power."""
    try:
        list(place.iterdir())
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return True
    return False


@contextmanager
def disk(folder: Path, name: str, mb: int = 300) -> Iterator[Disk]:
    """Give a disk of its own that holds ext4."""
    only_root("power that goes is a file system that is shut down")
    for program in ("mkfs.ext4", "losetup"):
        if shutil.which(program) is None:
            pytest.skip(f"NOT TESTED: power that goes, since there is no {program} (Debian: e2fsprogs, mount)")
    image, place = folder / f"{name}.image", folder / name
    place.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(mb * 2**20)
    run("mkfs.ext4", "-q", "-F", image)
    try:
        run("mount", "-o", "loop", image, place)
    except AssertionError as error:
        pytest.skip(f"NOT TESTED: power that goes, since no loop device can be had: {error}")
    try:
        yield Disk(image=image, place=place)
    finally:
        run("umount", "-l", place)
