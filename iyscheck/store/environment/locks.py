"""The locks of the one process that may write, and of the one that may publish what was written."""

import fcntl
import os
from pathlib import Path
from typing import Final, Self

from iyscheck.errors import StoreBusyError
from iyscheck.store.environment.faults import files_translated

WRITER_LOCK: Final = "writer.lock"
PUBLISHER_LOCK: Final = "publisher.lock"


class _Lock:
    """A file in a store's directory that one process holds; the system drops it when the process dies."""

    def __init__(self, path: str | os.PathLike[str], name: str, busy: StoreBusyError) -> None:
        where = Path(path)
        with files_translated(where):
            where.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._descriptor = os.open(where / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise busy from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Let the next one in; once is enough, and twice does no harm to whoever got the number since."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class WriterLock(_Lock):
    """Held by the one process that may write. Raises StoreBusyError."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        busy = StoreBusyError(
            f"Another loader is writing to the store at '{path}'.",
            fix="Wait for it, or stop it; one writer at a time.",
        )
        super().__init__(path, WRITER_LOCK, busy)


class PublisherLock(_Lock):
    """Held by the one process that may publish, and by who makes the store another primary. Raises StoreBusyError."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        busy = StoreBusyError(
            f"Another 'iyscheck-loader publish' works on the store at '{path}', or a 'promote'.",
            fix="One publisher is enough: see 'systemctl status iyscheck-publisher'. Stop it, or leave it.",
        )
        super().__init__(path, PUBLISHER_LOCK, busy)
