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
from iyscheck.store import layout, records

RUN_ROWS: Final = 2**20
"""Changes of a run: about 100 bytes each, three times while they are sorted."""
MERGED_ROWS: Final = 2**16
"""Changes that are read and merged together, of all runs."""
HEAD_ROWS: Final = 2**13
"""Changes that are read of one run at least, however many runs there are."""

_FIXED: Final = np.dtype(
    [
        ("key", layout.KEY_DTYPE),
        ("status", "u1"),
        ("registered", "u4"),
        ("consented", "u4"),
        ("source", "u1"),
        ("transaction_form", "u1"),
        ("transaction", "u1", (32,)),
        ("texts", "u2"),  # the bytes that this change takes in the file of texts
        ("sequence", "i8"),
    ]
)
_LENGTHS_BYTES: Final = 2


class Runs:
    """Takes changes in any order, then gives back those that stay, in key order. Close it in any case."""

    def __init__(self, directory: Path, *, run_rows: int = RUN_ROWS, merged_rows: int = MERGED_ROWS) -> None:
        self._directory = directory
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
        """Take changes. Raises OSError where there is no room for a run."""
        self.rows += len(changes)
        self._waiting_rows += len(changes)
        self._waiting.append(changes)
        if self._waiting_rows >= self._run_rows:
            self._settle()
            # Beside the reading of the next run: what waits is two runs at most.
            waiting, self._waiting, self._waiting_rows = self._waiting, [], 0
            self._spilling = self._thread.submit(_spilled, self._directory, waiting)

    def _settle(self) -> None:
        """Wait for the run that is being written, and raise what went wrong with it."""
        spilling, self._spilling = self._spilling, None
        if spilling is not None:
            self._spilled.append(spilling.result())

    def merged(self) -> Generator[ConsentColumns, None, None]:
        """Give back the changes that stay: keys rise within and between chunks. Nothing may be added any more."""
        self._settle()
        last = _sorted(self._waiting)
        self._waiting, self._waiting_rows = [], 0
        if not self._spilled:
            for first in range(0, len(last), self._merged_rows):
                yield last.take(slice(first, first + self._merged_rows))
            return
        if len(last):
            self._spilled.append(_Run.write(self._directory, last))
        del last
        each = max(self._merged_rows // len(self._spilled), min(self._merged_rows, HEAD_ROWS))
        heads = [_Head(run, each) for run in self._spilled]
        while heads := [head for head in heads if head.fill()]:
            # Up to the least of their last keys every run has been read: nothing further on can come before it.
            end = min(head.last_key for head in heads)
            yield records.newest(ConsentColumns.join([head.until(end) for head in heads]))


def _sorted(waiting: list[ConsentColumns]) -> ConsentColumns:
    return records.newest(ConsentColumns.join(waiting)) if waiting else ConsentColumns.of(())


def _spilled(directory: Path, waiting: list[ConsentColumns]) -> "_Run":
    return _Run.write(directory, _sorted(waiting))


class _Run:
    """Sorted changes on disk: their fixed parts in one file, their few texts in another."""

    def __init__(self, fixed: IO[bytes], texts: IO[bytes]) -> None:
        self._fixed = fixed
        self._texts = texts

    @classmethod
    def write(cls, directory: Path, changes: ConsentColumns) -> Self:
        """Write a run and go back to its beginning."""
        run = cls(tempfile.TemporaryFile(dir=directory), tempfile.TemporaryFile(dir=directory))  # noqa: SIM115 - closed by Runs
        try:
            for first in range(0, len(changes), MERGED_ROWS):
                run._append(changes.take(slice(first, first + MERGED_ROWS)))
            run._fixed.seek(0)
            run._texts.seek(0)
        except BaseException:
            run.close()
            raise
        return run

    def _append(self, changes: ConsentColumns) -> None:
        rows = np.zeros(len(changes), _FIXED)
        rows["key"] = layout.encode_keys(changes)
        for name in ("status", "registered", "consented", "source", "transaction_form", "transaction", "sequence"):
            rows[name] = getattr(changes, name)
        for row in np.flatnonzero(changes.text).tolist():
            parts = [part.encode() for part in changes.texts[changes.text[row]]]
            rows["texts"][row] = self._texts.write(bytes(map(len, parts)) + b"".join(parts))
        self._fixed.write(rows.tobytes())

    def read(self, most: int) -> ConsentColumns:
        """Read at most so many changes on; none at the end."""
        rows = np.frombuffer(self._fixed.read(most * _FIXED.itemsize), _FIXED)
        texts: dict[tuple[str, str], int] = {("", ""): 0}
        text = np.zeros(len(rows), np.int32)
        for row in np.flatnonzero(rows["texts"]).tolist():
            parts = self._texts.read(int(rows["texts"][row]))
            end = _LENGTHS_BYTES + parts[0]
            pair = (parts[_LENGTHS_BYTES:end].decode(), parts[end:].decode())
            text[row] = texts.setdefault(pair, len(texts))
        return ConsentColumns(
            brand=rows["key"]["brand"].astype(np.uint32),
            channel=rows["key"]["channel"],
            recipient_type=rows["key"]["recipient_type"],
            tag=rows["key"]["tag"],
            status=rows["status"],
            registered=rows["registered"].astype(np.int64),
            consented=rows["consented"].astype(np.int64),
            source=rows["source"],
            transaction_form=rows["transaction_form"],
            transaction=rows["transaction"],
            text=text,
            sequence=rows["sequence"],
            texts=tuple(texts),
        )

    def close(self) -> None:
        """Let go of the files, and of their room on the disk."""
        self._fixed.close()
        self._texts.close()


class _Head:
    """What has been read of a run and not taken yet."""

    def __init__(self, run: _Run, most: int) -> None:
        self._run = run
        self._most = most
        self._changes = ConsentColumns.of(())
        self._keys: list[bytes] = []
        self._taken = 0

    def fill(self) -> bool:
        """Read on if nothing is left; say whether anything is."""
        if self._taken == len(self._keys):
            self._changes = self._run.read(self._most)
            self._keys = layout.rows_bytes(layout.encode_keys(self._changes))
            self._taken = 0
        return self._taken < len(self._keys)

    @property
    def last_key(self) -> bytes:
        """The greatest key that has been read."""
        return self._keys[-1]

    def until(self, end: bytes) -> ConsentColumns:
        """Take all changes up to this key."""
        first, self._taken = self._taken, bisect_right(self._keys, end)
        return self._changes.take(slice(first, self._taken))
