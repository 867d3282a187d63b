"""Entries in the order of their places, however many they are."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, Self

import numpy as np
import numpy.typing as npt

from iyscheck.store.environment import files_translated
from iyscheck.store.index.entries import Entries

_PARTS: Final = 64
_PART_SHIFT: Final = np.uint64(58)
PARTED_ROWS: Final = 2**22
"""Entries that wait in memory, 16 bytes each: 64 MB."""


class PlaceOrder:
    """Takes entries in any order and gives them back in that of their places. Close it in any case.

    More than fit into memory wait in files without names in the store's directory, parted by their places.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._waiting: list[list[npt.NDArray[np.uint64]]] = [[] for _ in range(_PARTS)]
        self._waiting_rows = 0
        self._files: list[IO[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def add(self, entries: Entries) -> None:
        """Take entries. Raises StoreFullError where there is no room for a file."""
        part = entries.places >> _PART_SHIFT
        order = np.argsort(part, kind="stable")
        rows = np.stack((entries.places, entries.words), axis=1)[order]
        ends = np.searchsorted(part[order], np.arange(_PARTS, dtype=np.uint64), side="right").tolist()
        for waiting, first, end in zip(self._waiting, [0, *ends], ends, strict=False):
            if first < end:
                waiting.append(rows[first:end])
        self._waiting_rows += len(entries)
        if self._waiting_rows >= PARTED_ROWS:
            with files_translated(self._directory):
                self._spill()

    def parts(self) -> Iterator[Entries]:
        """Give all entries back, some at a time. Nothing may be added any more."""
        for number, waiting in enumerate(self._waiting):
            stored = np.zeros((0, 2), np.uint64)
            if self._files:
                with files_translated(self._directory):
                    self._files[number].seek(0)
                    stored = np.frombuffer(self._files[number].read(), np.uint64).reshape(-1, 2)
            rows = np.concatenate([stored, *waiting])
            waiting.clear()
            rows = rows[np.argsort(rows[:, 0], kind="stable")]
            yield Entries(np.ascontiguousarray(rows[:, 0]), np.ascontiguousarray(rows[:, 1]))

    def _spill(self) -> None:
        if not self._files:
            self._files += [tempfile.TemporaryFile(dir=self._directory) for _ in self._waiting]  # noqa: SIM115 - see __exit__
        for file, waiting in zip(self._files, self._waiting, strict=True):
            for rows in waiting:
                file.write(rows.tobytes())
            waiting.clear()
        self._waiting_rows = 0
