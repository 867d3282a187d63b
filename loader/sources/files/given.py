"""What is given to a command: paths, each of them a file, a directory or standard input."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from iyscheck.errors import SettingsError, SourceError
from iyscheck.kernel import Kernel
from iyscheck.keys import AddressKey
from loader.loading.source import Source
from loader.sources import paths
from loader.sources.files.source import FileSource, StandardInput
from loader.sources.paths import STDIN

KERNEL_BYTES: Final = 2**28
"""From this size of the files on it pays to get numba ready.

Measured with machine code kept from earlier runs, processor time of whole processes: 0.7 s, for 1.1 µs less a row of
285 bytes, on a busy machine. From 60 and 120 MB, where numpy was quicker still, that is extrapolated to be even at some
180 MB; the start has one core to itself, the rows share two.
"""


def sources_of(given: Sequence[str], *, name: str | None = None, archive_key: AddressKey | None = None) -> list[Source]:
    """Return the sources of files, directories (their files by name) and `-`, in order; `name` is for the only one.

    Files of the archive are opened with the address key that they were made with.

    Raises SettingsError, SourceUnreadableError.
    """
    files = [file for path in given for file in paths.files_of(path)]
    if not files:
        raise SettingsError("FILE", "there is no file to load.", fix="Name a file, or a directory that has some.")
    if len(files) > 1 and name is not None:
        raise SettingsError("--source", "one name cannot stand for several files.", fix="Load them one by one.")
    return [
        StandardInput(name=name, archive_key=archive_key)
        if file == STDIN
        else FileSource(file, name=name, archive_key=archive_key)
        for file in files
    ]


def kernel_for(given: Sequence[str]) -> Kernel:
    """Choose the compiled loops, which take a moment to get ready, where there is enough for them to do."""
    size = 0
    for path in given:
        with suppress(SourceError):  # what cannot be read is told when its turn comes
            size += sum(paths.stamp(file).size for file in paths.files_of(path) if file != STDIN)
    return Kernel.best().usable() if size >= KERNEL_BYTES else Kernel.NUMPY
