"""The lock of the one process that may write."""

import fcntl
import os
from pathlib import Path
from typing import Final

from iyscheck.errors import StoreBusyError
from iyscheck.store.environment.faults import files_translated

WRITER_LOCK: Final = "writer.lock"


class WriterLock:
    """Held by the one process that may write; the system drops it when the process dies."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        where = Path(path)
        with files_translated(where):
            where.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._descriptor = os.open(where / WRITER_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise StoreBusyError(
                f"Another loader is writing to the store at '{where}'.",
                fix="Wait for it, or stop it; one writer at a time.",
            ) from error

    def release(self) -> None:
        """Let the next writer in; once is enough, and twice does no harm to whoever got the number since."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
