"""The last hour, in memory: a row of numbers for each look, the oldest overwritten by the newest."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

HOUR_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Steps:
    """A span of time in equal steps, oldest first. `begins` are seconds UTC, multiples of `step_s`.

    `sums` holds for each column the sum of its rows in each step; NaN where a step has no row with a number.
    """

    step_s: int
    begins: npt.NDArray[np.int64]
    sums: Mapping[str, npt.NDArray[np.float64]]


class Ring:
    """Rows of named numbers, each with its time. It never grows; a number that is not known is NaN.

    Belongs to one thread. Times do not go back: a row that is older than the last one is not taken.
    """

    def __init__(self, columns: Sequence[str], rows: int) -> None:
        self._columns = {name: place for place, name in enumerate(columns)}
        self._times = np.full(rows, np.nan)
        self._numbers = np.full((rows, len(columns)), np.nan)
        self._added = 0

    def __len__(self) -> int:
        """Count the rows that are there."""
        return min(self._added, len(self._times))

    def add(self, when: float, numbers: Mapping[str, float]) -> None:
        """Add a row; columns that `numbers` lacks are not known in it. Raises KeyError for a column there is not."""
        if self._added and when < self._times[(self._added - 1) % len(self._times)]:
            return
        place = self._added % len(self._times)
        row = self._numbers[place]
        row.fill(np.nan)
        for name, number in numbers.items():
            row[self._columns[name]] = number
        self._times[place] = when
        self._added += 1

    def steps(self, now: float, span_s: int, step_s: int) -> Steps:
        """Give the steps that end with the one of `now` and are `span_s` long together."""
        steps = span_s // step_s
        last = int(now // step_s)
        begins = (np.arange(last - steps + 1, last + 1) * step_s).astype(np.int64)
        kept = slice(0, len(self))
        places = np.floor_divide(self._times[kept], step_s) - (last - steps + 1)
        inside = (places >= 0) & (places < steps)
        where = places[inside].astype(np.int64)
        rows = self._numbers[kept][inside]
        return Steps(step_s, begins, {name: _sums(where, rows[:, at], steps) for name, at in self._columns.items()})

    def sums(self, now: float, span_s: float) -> Mapping[str, float]:
        """Sum each column over the rows of the last `span_s` seconds; NaN where none has a number."""
        inside = self._times[: len(self)] > now - span_s
        rows = self._numbers[: len(self)][inside]
        known = ~np.isnan(rows)
        totals = np.where(known.any(axis=0), np.nansum(rows, axis=0), np.nan)
        return {name: float(totals[at]) for name, at in self._columns.items()}

    def latest(self, column: str) -> Iterator[float]:
        """Give the known numbers of a column, the newest first."""
        at = self._columns[column]
        for back in range(1, len(self) + 1):
            number = float(self._numbers[(self._added - back) % len(self._times), at])
            if not np.isnan(number):
                yield number


def _sums(where: npt.NDArray[np.int64], numbers: npt.NDArray[np.float64], steps: int) -> npt.NDArray[np.float64]:
    known = ~np.isnan(numbers)
    totals = np.bincount(where[known], weights=numbers[known], minlength=steps)
    counts = np.bincount(where[known], minlength=steps)
    return np.where(counts > 0, totals, np.nan)
