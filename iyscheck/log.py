"""Where lines of a log go: to a descriptor that may be full, slow or gone, which must never end what is logged of."""

import errno
import json
import os
import select
import stat
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

STANDARD_ERROR: Final = 2
_PATIENCE_S: Final = 0.2
"""How long a line waits for a reader that is slow; while lines are being lost, none waits."""


class LogLines:
    """Writes lines to a descriptor and never raises: a line that cannot be written is lost and counted.

    Full disks, readers that are gone and readers that do not read cost lines, and a fifth of a second once. When
    lines can be written again, the first one is `log_lines_lost` with how many were lost. May be used by several
    threads and by signal handlers. A text file as far as loggers need one.
    """

    def __init__(self, descriptor: int, **who: object) -> None:
        """Write to a descriptor, which stays its owner's; `who` is written with the line of the lost ones."""
        self.lost = 0
        """Lines that nobody will ever read."""
        self._descriptor = descriptor
        self._who = who
        self._told = 0
        self._is_cut = False
        self._lock = threading.RLock()  # a signal handler that logs may interrupt its own thread in here
        self._waits_in_kernel = _is_file(descriptor)

    def write(self, text: str) -> int:
        """Write a line that ends in a newline; returns its characters, written or not."""
        with self._lock:
            line = text.encode("utf-8", "backslashreplace")
            data = b"\n" * self._is_cut + self._loss() + line
            written = self._give(data)
            if written == len(data):
                self._told, self._is_cut = self.lost, False
            else:
                self.lost += 1
                self._is_cut = data[written - 1 : written] != b"\n" if written else self._is_cut
        return len(text)

    def flush(self) -> None:
        """Nothing is kept here."""

    def _loss(self) -> bytes:
        """Return the line that tells of lost lines, empty if all of them were told of."""
        lines = self.lost - self._told
        if not lines:
            return b""
        said = {"event": "log_lines_lost", "lines": lines, "level": "error", "timestamp": datetime.now(UTC).isoformat()}
        return json.dumps(self._who | said).encode() + b"\n"

    def _give(self, data: bytes) -> int:
        """Write what can be written in time; returns how many bytes that were."""
        done, until = 0, time.monotonic() + (0.0 if self.lost > self._told else _PATIENCE_S)
        with suppress(OSError):
            while done < len(data):
                try:
                    done += self._write(data[done:])
                except BlockingIOError:
                    left_s = until - time.monotonic()
                    if left_s <= 0 or not _is_writable(self._descriptor, left_s):
                        break
        return done

    def _write(self, data: bytes) -> int:
        """Write without waiting for a reader. The descriptor itself stays as it is: others write to it as well."""
        if not self._waits_in_kernel:
            try:
                return os.pwritev(self._descriptor, [data], -1, os.RWF_NOWAIT)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    raise
            if not _is_writable(self._descriptor, 0):  # a terminal, an older kernel
                raise BlockingIOError
            data = data[: select.PIPE_BUF]  # there is room for that much at least
        return os.write(self._descriptor, data)


def _is_file(descriptor: int) -> bool:
    """Whether it is a file on a disk: that is written at once, or fails."""
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def _is_writable(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(seconds * 1_000))
