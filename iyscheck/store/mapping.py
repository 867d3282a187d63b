"""The page tables of a store's map, filled ahead.

A store is read where it lies in memory. But the first touch of a place costs a page fault, some microseconds, although
the page is there: over 20 M consents most single checks met one. So a thread of its own has the system map what
is in memory. It reads nothing from disk: what is not in memory stays as it is, however large the store.
"""

import ctypes
import logging
import os
import threading
from pathlib import Path
from typing import Final

import numpy as np

from iyscheck.store.environment import DATA_FILE, Environment
from iyscheck.store.layout import FILE_PAGE_BYTES

_POPULATE_READ: Final = 22  # MADV_POPULATE_READ, Linux 5.14; earlier ones refuse it, and nothing is mapped ahead
_PART_BYTES: Final = 2**21
LOOK_S: Final = 5.0
"""How often to look whether the file has grown."""


class FileMapping:
    """Maps the pages of an open store's file ahead, in a thread, until closed; the file stays open until then."""

    def __init__(self, environment: Environment) -> None:
        self._file = environment.path / DATA_FILE
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(environment,), name="iyscheck-mapping", daemon=True)
        self._thread.start()
        environment.inheritors.add(self)

    def after_fork(self) -> None:
        """Take an event that no thread of the parent holds; the thread itself stayed there."""
        self._closing = threading.Event()

    def stop(self) -> None:
        """Have the thread end soon, without waiting for it."""
        self._closing.set()

    def close(self) -> None:
        """Stop, and wait until the thread has ended."""
        self.stop()
        self._thread.join()

    def _run(self, _: Environment) -> None:
        try:
            self._map_ahead()
        except (OSError, MemoryError) as error:
            # Such as a file that was deleted: who reads it goes on, only nothing grows any more.
            why = (error.strerror if isinstance(error, OSError) else None) or "no memory"
            logging.getLogger(__name__).warning("The store's file is not mapped ahead any more: %s.", why)

    def _map_ahead(self) -> None:
        # Who could not write a file is told that all of it is in memory, and would read all of it.
        start = start_of(self._file) if os.access(self._file, os.W_OK) else None
        done = 0
        while start is not None:
            end = self._file.stat().st_size // FILE_PAGE_BYTES * FILE_PAGE_BYTES
            for at in range(done, end, _PART_BYTES):
                if self._closing.is_set():
                    return
                map_resident(start + at, min(_PART_BYTES, end - at))
            done = max(done, end)
            if self._closing.wait(LOOK_S):
                return


def map_resident(address: int, size: int) -> None:
    """Have the system map what is in memory of a range of this process's map of a file; both in whole pages."""
    system = ctypes.CDLL(None)
    pages = np.zeros(size // FILE_PAGE_BYTES, np.uint8)
    if system.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), pages.ctypes.data_as(ctypes.c_void_p)):
        return
    resident = np.concatenate(([0], pages & 1, [0])).astype(np.int8)
    begins, ends = (np.flatnonzero(np.diff(resident) == step).tolist() for step in (1, -1))
    for begin, end in zip(begins, ends, strict=True):
        run, length = (
            ctypes.c_void_p(address + begin * FILE_PAGE_BYTES),
            ctypes.c_size_t((end - begin) * FILE_PAGE_BYTES),
        )
        system.madvise(run, length, _POPULATE_READ)


def start_of(file: Path) -> int | None:
    """Find where this process has mapped a file from its beginning on; None if it has not."""
    name = os.fsencode(file.resolve())
    for line in Path("/proc/self/maps").read_bytes().splitlines():
        addresses, _, offset, _, _, *mapped = line.split(maxsplit=5)
        if mapped == [name] and int(offset, 16) == 0:
            return int(addresses.partition(b"-")[0], 16)
    return None
