"""What Prometheus answers to the queries of panels, asked over HTTP or kept in a file from an earlier time."""

import json
import math
import re
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, kw_only=True)
class Span:
    """From when to when, in seconds since 1970, and how far apart the points are."""

    start: float
    end: float
    step_s: float


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line: its labels, and its values by time. A value may be NaN."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]


class Answers(Protocol):
    """Whoever can be asked."""

    @property
    def span(self) -> Span:
        """The time that answers are about."""

    def ask(self, expr: str) -> list[Series]:
        """Return the series of an expression, as PromQL without variables of Grafana."""


class Prometheus:
    """A Prometheus that runs, over one span of time."""

    def __init__(self, url: str, span: Span) -> None:
        self._url = url.rstrip("/")
        self.span = span

    def ask(self, expr: str) -> list[Series]:
        """Ask for a range. Raises OSError where Prometheus does not answer, or refuses the expression."""
        span = self.span
        asked = {"query": expr, "start": span.start, "end": span.end, "step": span.step_s}
        found = get(f"{self._url}/api/v1/query_range", asked)["data"]["result"]
        return [Series(labels=each["metric"], points=_points(each["values"])) for each in found]


class Kept:
    """Answers that `keep` has written."""

    def __init__(self, path: Path) -> None:
        kept = json.loads(path.read_text(encoding="utf-8"))
        self.span = Span(**kept["span"])
        self._answers = kept["answers"]

    def ask(self, expr: str) -> list[Series]:
        """Return what was answered then; nothing for an expression that nobody asked."""
        found = self._answers.get(expr, [])
        return [Series(labels=each["labels"], points=_points(each["points"])) for each in found]


class Keeping:
    """Passes questions on, and can write what was answered."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._kept: dict[str, list[Series]] = {}
        self.span = answers.span

    def ask(self, expr: str) -> list[Series]:
        """Ask, and remember."""
        found = self._kept[expr] = self._answers.ask(expr)
        return found

    def keep(self, path: Path) -> None:
        """Write everything that was answered, for `Kept`."""
        answers = {
            expr: [{"labels": each.labels, "points": [(at, str(value)) for at, value in each.points]} for each in found]
            for expr, found in self._kept.items()
        }
        path.write_text(json.dumps({"span": vars(self.span), "answers": answers}) + "\n", encoding="utf-8")


def filled_in(expr: str, values: Mapping[str, str]) -> str:
    """Put values for Grafana's variables, as `$name`. Raises KeyError for a variable without a value."""
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], expr)


def get(url: str, parameters: Mapping[str, object] | None = None) -> Any:  # noqa: ANN401 - it is JSON
    """Ask Prometheus's API; returns its JSON. Raises OSError."""
    if parameters:
        url += "?" + urllib.parse.urlencode(parameters)
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 - whoever starts this names the URL
        return json.load(answer)


def last(series: Series) -> float:
    """Return the last value that is one; NaN if there is none."""
    return next((value for _, value in reversed(series.points) if not math.isnan(value)), math.nan)


def _points(values: list[tuple[float, str]]) -> tuple[tuple[float, float], ...]:
    return tuple((at, float(value)) for at, value in values)
