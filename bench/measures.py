"""What was measured: raw runs, the rows that compare two of them, and the file that keeps both.

A row is the claim of one line under "Must show". Its ratio is taken per pair of neighbouring runs, so that a machine
that slows down for a while slows both sides of a pair.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Self

import msgspec


class Run(msgspec.Struct, frozen=True):
    """One run: its value in the measure's unit, and percentiles of latency in ms where calls were timed.

    Of an open loop also how many requests it asked, and those that were not answered, by the status they ended with:
    the latencies are of the others.
    """

    value: float
    latency_ms: dict[str, float] = {}
    asked: int = 0
    unanswered: dict[str, int] = {}


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """Runs of one thing under one setting (consents, hit rate, frame, concurrency ...), by one command."""

    name: str
    unit: str
    runs: list[Run]
    command: str
    setting: dict[str, str] = {}

    @property
    def values(self) -> list[float]:
        """The value of each run in the order taken."""
        return [run.value for run in self.runs]

    @property
    def median(self) -> float:
        """The middle value."""
        return median(self.values)

    def latency(self, percentile: str) -> float | None:
        """Return the median over runs of a percentile of latency, in ms; None where none was taken."""
        taken = [run.latency_ms[percentile] for run in self.runs if percentile in run.latency_ms]
        return median(taken) if taken else None

    @property
    def unanswered(self) -> str:
        """Say how many requests were not answered, and why; empty where none were sent on a schedule."""
        asked = sum(run.asked for run in self.runs)
        statuses: Counter[str] = Counter()
        for run in self.runs:
            statuses.update(run.unanswered)
        if not asked or not statuses:
            return f"all {asked:,} answered" if asked else ""
        why = ", ".join(f"{status} {count:,}" for status, count in sorted(statuses.items()))
        return f"{statuses.total():,} of {asked:,} not answered: {why}"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A claim: `ours`, divided by `peer` if one is named, is at least (or at most) `bound`.

    `of` picks a percentile of latency instead of the value. Without a bound the figure is only reported.
    """

    name: str
    ours: str
    peer: str = ""
    of: str = ""
    at_least: float | None = None
    at_most: float | None = None
    aim: str = ""
    unit: str = "x"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a row came to: median, least and greatest; `met` is None where there is nothing to meet or to compare."""

    row: Row
    values: list[float]
    met: bool | None
    missing: str = ""
    unanswered: str = ""
    """Of ours, where that is not nothing: a row on latencies is about the requests that were answered."""

    @property
    def target(self) -> str:
        """The bound in words."""
        bounds = [("≥", self.row.at_least), ("≤", self.row.at_most)]
        words = [f"{sign} {bound:g} {self.row.unit}".strip() for sign, bound in bounds if bound is not None]
        return " and ".join(words) or "reported"


class Section(msgspec.Struct, kw_only=True):
    """One part of a run: its measures and rows, what was absent, and the machine it was taken on.

    `failed` is the error that ended it; what it had measured until then is kept.
    """

    name: str
    facts: dict[str, str]
    seconds: float = 0.0
    failed: str = ""
    measures: list[Measure] = []
    rows: list[Row] = []
    absent: list[str] = []
    notes: list[str] = []

    def measure(self, name: str, unit: str, runs: Sequence[Run], command: str, **setting: object) -> Measure:
        """Keep the runs of one thing; a second measure of the same name is an error."""
        if any(known.name == name for known in self.measures):
            raise ValueError(f"there are two measures called {name}")
        named = {key.replace("_", " "): f"{value:,}" if isinstance(value, int) else str(value)
                 for key, value in setting.items()}  # fmt: skip
        self.measures.append(Measure(name=name, unit=unit, runs=list(runs), command=command, setting=named))
        return self.measures[-1]


class Results(msgspec.Struct, kw_only=True):
    """Everything that one kind of run (quick, standard, full) has measured, section by section."""

    kind: str
    sections: dict[str, Section] = {}

    @classmethod
    def read(cls, path: Path, kind: str) -> Self:
        """Read what is there, so that one section can be measured anew and the others stay."""
        return msgspec.json.decode(path.read_bytes(), type=cls) if path.exists() else cls(kind=kind)

    def write(self, path: Path) -> None:
        """Write the file whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".tmp")
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")
        fresh.replace(path)


def verdict(row: Row, measures: Mapping[str, Measure]) -> Verdict:
    """Compare pair by pair; a row of which a side was not measured is never met."""
    lacking = [name for name in (row.ours, row.peer) if name and name not in measures]
    if lacking:
        return Verdict(row=row, values=[], met=None, missing=f"not measured: {', '.join(lacking)}")
    ours = _values(measures[row.ours], row.of)
    peer = _values(measures[row.peer], row.of) if row.peer else [1.0] * len(ours)
    values = [mine / theirs for mine, theirs in zip(ours, peer, strict=True)]
    refused = any(run.unanswered for run in measures[row.ours].runs)
    met = _met(row, values)
    return Verdict(
        row=row,
        values=values,
        met=met and not (row.of and refused),  # who refuses what would be slow has not been fast
        unanswered=measures[row.ours].unanswered if refused else "",
    )


def _values(measure: Measure, of: str) -> list[float]:
    return [run.latency_ms[of] for run in measure.runs] if of else measure.values


def _met(row: Row, values: Sequence[float]) -> bool | None:
    if row.at_least is None and row.at_most is None:
        return None
    middle = median(values)
    return (row.at_least is None or middle >= row.at_least) and (row.at_most is None or middle <= row.at_most)


def alternate(rounds: int, sides: Mapping[str, Callable[[], Run]]) -> dict[str, list[Run]]:
    """Run all sides in turn, each second round backwards, so that a drift of the machine favours nobody."""
    runs: dict[str, list[Run]] = {name: [] for name in sides}
    for number in range(rounds):
        names = list(sides) if number % 2 == 0 else list(sides)[::-1]
        for name in names:
            runs[name].append(sides[name]())
    return runs
