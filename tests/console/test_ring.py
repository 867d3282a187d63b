"""The last hour in memory: it holds what the newest rows of a list would, and loses nothing between steps."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from iyscheck.console.ring import Ring

ROWS = 7
NUMBERS = st.one_of(st.just(math.nan), st.integers(0, 1_000).map(float))
ROW = st.tuples(st.integers(0, 40), NUMBERS, NUMBERS)


def filled(rows: list[tuple[int, float, float]]) -> tuple[Ring, list[tuple[float, float, float]]]:
    """Fill a ring and a plain list alike; gaps between rows are whole seconds."""
    ring, kept, when = Ring(["a", "b"], ROWS), [], 1_000_000.0
    for gap, a, b in rows:
        when += gap
        ring.add(when, {name: value for name, value in (("a", a), ("b", b)) if not math.isnan(value)})
        kept.append((when, a, b))
    return ring, kept[-ROWS:]


def total(numbers: list[float]) -> float:
    """Add up what is known; NaN where nothing is."""
    known = [number for number in numbers if not math.isnan(number)]
    return sum(known) if known else math.nan


def same(one: float, other: float) -> bool:
    """Whether two numbers are equal, or both not known."""
    return one == other or (math.isnan(one) and math.isnan(other))


@given(st.lists(ROW, max_size=20))
def test_newest_rows(rows: list[tuple[int, float, float]]) -> None:
    """It holds the newest rows, as many as it has room for, the newest first."""
    ring, kept = filled(rows)

    assert len(ring) == len(kept)
    assert list(ring.latest("a")) == [a for _, a, _ in reversed(kept) if not math.isnan(a)]


@given(st.lists(ROW, max_size=20), st.integers(1, 100))
def test_sums(rows: list[tuple[int, float, float]], span: int) -> None:
    """A sum is over the rows of the span and no others; a column that no row of it knows is not known."""
    ring, kept = filled(rows)
    now = kept[-1][0] if kept else 1_000_000.0

    sums = ring.sums(now, span)

    assert same(sums["a"], total([a for when, a, _ in kept if when > now - span]))
    assert same(sums["b"], total([b for when, _, b in kept if when > now - span]))


@given(st.lists(ROW, max_size=20), st.integers(1, 12), st.integers(1, 30))
def test_steps(rows: list[tuple[int, float, float]], step: int, count: int) -> None:
    """Every row lies in exactly one step, the one of its time, and the last step is that of now."""
    ring, kept = filled(rows)
    now = (kept[-1][0] if kept else 1_000_000.0) + 0.5

    steps = ring.steps(now, step * count, step)

    assert len(steps.begins) == count
    assert steps.begins[-1] <= now < steps.begins[-1] + step
    assert np.all(np.diff(steps.begins) == step)
    for at, begin in enumerate(steps.begins):
        inside = [row for row in kept if begin <= row[0] < begin + step]
        assert same(float(steps.sums["a"][at]), total([a for _, a, _ in inside]))
        assert same(float(steps.sums["b"][at]), total([b for _, _, b in inside]))


def test_older_rows_are_not_taken() -> None:
    """A clock that was set back brings no row out of order."""
    ring = Ring(["a"], 3)
    ring.add(10.0, {"a": 1.0})
    ring.add(9.0, {"a": 2.0})
    ring.add(10.0, {"a": 3.0})

    assert list(ring.latest("a")) == [3.0, 1.0]
