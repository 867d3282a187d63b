"""Charts of the report, as SVG whose bytes depend on the figures only."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measures import Measure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = {"svg.hashsalt": "iyscheck", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
_OURS, _PEER = "#1f77b4", "#999999"
_PEERS = ("Redis", "echo", "py-lmdb", "parse", "putmulti", "PostgreSQL", "in no log", "at the primary")


def bars(measures: Sequence[Measure], title: str, path: Path) -> None:
    """Draw the median of each measure with its spread; peers in grey."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8, 0.6 + 0.38 * len(measures)), layout="constrained")
        axes = figure.subplots()
        medians = [measure.median for measure in measures]
        spread = [
            [measure.median - min(measure.values) for measure in measures],
            [max(measure.values) - measure.median for measure in measures],
        ]
        colours = [_PEER if any(name in measure.name for name in _PEERS) else _OURS for measure in measures]
        axes.barh(range(len(measures)), medians, xerr=spread, color=colours, height=0.6)
        axes.set_yticks(range(len(measures)), [measure.name for measure in measures])
        axes.invert_yaxis()
        for place, (middle, measure) in enumerate(zip(medians, measures, strict=True)):
            axes.annotate(
                f" {_short(middle)}",
                (max(measure.values), place),
                va="center",
                xytext=(3, 0),
                textcoords="offset points",
            )
        axes.set_xlabel(measures[0].unit)
        axes.xaxis.set_major_formatter(lambda value, _: _short(value))
        axes.set_title(title, loc="left")
        axes.margins(x=0.15)
        _save(figure, path)


def lines(series: dict[str, dict[float, Measure]], title: str, xlabel: str, path: Path) -> None:
    """Draw medians with their spread over a quantity, both on logarithmic scales."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        axes = figure.subplots()
        for name, points in series.items():
            places = sorted(points)
            colour = axes.plot(places, [points[at].median for at in places], marker="o", label=name)[0].get_color()
            low, high = ([edge(points[at].values) for at in places] for edge in (min, max))
            axes.fill_between(places, low, high, alpha=0.2, color=colour)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(xlabel)
        axes.set_ylabel(next(iter(next(iter(series.values())).values())).unit)
        axes.set_title(title, loc="left")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        _save(figure, path)


def growth(measures: Sequence[Measure], minutes: float, title: str, path: Path) -> None:
    """Draw sizes in bytes, each measure's runs so many minutes apart."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        axes = figure.subplots()
        for measure in measures:
            places = [minutes * number for number in range(len(measure.runs))]
            axes.plot(places, [value / 1e6 for value in measure.values], label=measure.name)
        axes.set_xlabel("minutes")
        axes.set_ylabel("MB")
        axes.set_ylim(bottom=0)
        axes.set_title(title, loc="left")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        _save(figure, path)


def _short(number: float) -> str:
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def _save(figure: "Figure", path: Path) -> None:
    figure.savefig(path, format="svg", metadata={"Date": None})
