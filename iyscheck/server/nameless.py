"""Files without a name, in memory: for bytes that somebody reads as a file, and that no disk should hold."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO


@contextmanager
def nameless(content: bytes) -> Iterator[int]:
    """Lend the descriptor of a file that holds this, at its beginning. Raises OSError."""
    with _made() as file:
        file.write(content)
        file.seek(0)  # which writes what is still in the buffer
        yield file.fileno()


def path_of(descriptor: int) -> str:
    """Name it for who opens files by their names, in this process."""
    return f"/proc/self/fd/{descriptor}"


def _made() -> IO[bytes]:
    try:
        return os.fdopen(os.memfd_create("iyscheck"), "w+b")
    except OSError:  # hardened kernels may forbid them
        return tempfile.TemporaryFile(prefix="iyscheck-")
