"""The files in which one worker counts: where they are, and how they get the space that they will need.

prometheus_client makes a file without its space and maps it. On a disk that is full the first count then ends the
process (SIGBUS). To be called before prometheus_client is imported, which reads the variable once.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Names the folder to prometheus_client, which reads it once, when a process first imports it."""
SUMMED: Final = ("counter", "histogram")
_KINDS: Final = (*SUMMED, "gauge_livemostrecent", "gauge_livesum", "gauge_livemin")
RESERVED_BYTES: Final = 2**18
"""For each file: several times what all metrics of a worker take."""


def files_of(folder: Path, pid: int, kinds: tuple[str, ...] = _KINDS) -> list[Path]:
    """List where a process counts."""
    return [folder / f"{kind}_{pid}.db" for kind in kinds]


def reserve() -> str | None:
    """Give this process's files their space; where there is none, have it count for itself alone, and say why."""
    if VARIABLE not in os.environ:
        return None
    files = files_of(Path(os.environ[VARIABLE]), os.getpid())
    try:
        for file in files:
            descriptor = os.open(file, os.O_CREAT | os.O_RDWR, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, RESERVED_BYTES)
            finally:
                os.close(descriptor)
    except OSError as error:
        for file in files:
            with suppress(OSError):
                file.unlink()
        del os.environ[VARIABLE]
        return error.strerror or type(error).__name__
    return None
