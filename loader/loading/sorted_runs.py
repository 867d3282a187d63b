"""More changes than fit into memory, sorted by key: runs of them on disk, merged as they are read again.

A run is sorted in memory and written to a file without a name in the store's directory: only this process can read
it, and it is gone with the process however that ends. It holds what the store will hold: tags, never an address.
Of one consent the greatest change stays, by the same order as everywhere, wherever its changes lie.
"""

import tempfile
from bisect import bisect_right
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Final, Self

import numpy as np

from iyscheck.change import ConsentColumns
from iyscheck.kernel import Kernel
from iyscheck.store import records
from iyscheck.store.encoded import ROW_DTYPE, EncodedChanges
from iyscheck.store.environment import files_translated

RUN_ROWS: Final = 2**19
"""Changes of a run: about 100 bytes each, three times while they are sorted.

Few, since nothing else goes on while the last of them are; many, since each run has its files and its place in memory.
"""
MERGED_ROWS: Final = 2**17
"""Changes that are read and merged together, of all runs."""
HEAD_ROWS: Final = 2**13
"""Changes that are read of one run at least, however many runs there are."""


class Runs:
    """Takes changes in any order, then gives back those that stay, in key order. Close it in any case."""

    def __init__(
        self,
        directory: Path,
        *,
        run_rows: int = RUN_ROWS,
        merged_rows: int = MERGED_ROWS,
        kernel: Kernel = Kernel.NUMPY,
    ) -> None:
        self._directory = directory
        self._kernel = kernel
        self._run_rows = run_rows
        self._merged_rows = merged_rows
        self._waiting: list[ConsentColumns] = []
        self._waiting_rows = 0
        self._spilled: list[_Run] = []
        self._spilling: Future[_Run] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="runs")
        self.rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()
        if self._spilling is not None and self._spilling.exception() is None:
            self._spilled.append(self._spilling.result())
        for run in self._spilled:
            run.close()

    def add(self, changes: ConsentColumns) -> None:
        """Take changes. Raises StoreFullError where there is no room for a run."""
        self.rows += len(changes)
        self._waiting_rows += len(changes)
        self._waiting.append(changes)
        if self._waiting_rows >= self._run_rows:
            self._settle()
            # Beside the reading of the next run: what waits is two runs at most.
            waiting, self._waiting, self._waiting_rows = self._waiting, [], 0
            self._spilling = self._thread.submit(_spilled, self._directory, waiting, self._kernel)

    def _settle(self) -> None:
        """Wait for the run that is being written, and raise what went wrong with it."""
        spilling, self._spilling = self._spilling, None
        if spilling is not None:
            self._spilled.append(spilling.result())

    def merged(self) -> Generator[EncodedChanges, None, None]:
        """Give back the changes that stay: keys rise within and between chunks. Nothing may be added any more."""
        self._settle()
        last = _sorted(self._waiting, self._kernel)
        self._waiting, self._waiting_rows = [], 0
        if not self._spilled:
            for first in range(0, len(last), self._merged_rows):
                yield last.take(slice(first, first + self._merged_rows))
            return
        if len(last):
            with files_translated(self._directory):
                self._spilled.append(_Run.write(self._directory, last))
        del last
        each = max(self._merged_rows // len(self._spilled), min(self._merged_rows, HEAD_ROWS))
        heads = [_Head(run, each) for run in self._spilled]
        while heads := [head for head in heads if head.fill()]:
            # Up to the least of their last keys every run has been read: nothing further on can come before it.
            end = min(head.last_key for head in heads)
            yield records.newest_encoded(EncodedChanges.join([head.until(end) for head in heads]))


def _sorted(waiting: list[ConsentColumns], kernel: Kernel) -> EncodedChanges:
    return records.newest_encoded(EncodedChanges.join([EncodedChanges.of(columns, kernel) for columns in waiting]))


def _spilled(directory: Path, waiting: list[ConsentColumns], kernel: Kernel) -> "_Run":
    with files_translated(directory):
        return _Run.write(directory, _sorted(waiting, kernel))


class _Run:
    """Sorted changes on disk: their rows in one file, the few tails in another. A row names the length of its tail."""

    def __init__(self, directory: Path, rows: IO[bytes], tails: IO[bytes]) -> None:
        self.directory = directory
        self._rows = rows
        self._tails = tails

    @classmethod
    def write(cls, directory: Path, changes: EncodedChanges) -> Self:
        """Write a run and go back to its beginning."""
        run = cls(directory, tempfile.TemporaryFile(dir=directory), tempfile.TemporaryFile(dir=directory))  # noqa: SIM115 - closed by Runs
        try:
            rows = changes.rows
            if len(changes.tails) > 1:
                rows = rows.view(f"V{ROW_DTYPE.itemsize}").copy().view(ROW_DTYPE)  # in one piece
                tailed = np.flatnonzero(rows["tail"])
                tails = [changes.tails[at] for at in rows["tail"][tailed].tolist()]
                rows["tail"][tailed] = [*map(len, tails)]
                run._tails.writelines(tails)
            run._rows.write(rows.view(np.uint8).data)
            run._rows.seek(0)
            run._tails.seek(0)
        except BaseException:
            run.close()
            raise
        return run

    def read(self, most: int) -> EncodedChanges:
        """Read at most so many changes on; none at the end."""
        rows = np.frombuffer(self._rows.read(most * ROW_DTYPE.itemsize), ROW_DTYPE)
        tailed = np.flatnonzero(rows["tail"])
        if not tailed.size:
            return EncodedChanges(rows=rows)
        rows = rows.view(f"V{ROW_DTYPE.itemsize}").copy().view(ROW_DTYPE)
        tails = [b"", *(self._tails.read(length) for length in rows["tail"][tailed].tolist())]
        rows["tail"][tailed] = np.arange(1, len(tails))
        return EncodedChanges(rows=rows, tails=tails)

    def close(self) -> None:
        """Let go of the files, and of their room on the disk."""
        self._rows.close()
        self._tails.close()


class _Head:
    """What has been read of a run and not taken yet."""

    def __init__(self, run: _Run, most: int) -> None:
        self._run = run
        self._most = most
        self._changes = EncodedChanges.join([])
        self._taken = 0

    def fill(self) -> bool:
        """Read on if nothing is left; say whether anything is."""
        if self._taken == len(self._changes):
            with files_translated(self._run.directory):
                self._changes = self._run.read(self._most)
            self._taken = 0
        return self._taken < len(self._changes)

    @property
    def last_key(self) -> bytes:
        """The greatest key that has been read."""
        return self._changes.key(len(self._changes) - 1)

    def until(self, end: bytes) -> EncodedChanges:
        """Take all changes up to this key."""
        first = self._taken
        self._taken = bisect_right(range(len(self._changes)), end, lo=first, key=self._changes.key)
        return self._changes.take(slice(first, self._taken))
