"""Draws a dashboard as a picture without Grafana: each panel in its place, from what Prometheus answers.

    scripts/look-dashboard deploy/grafana/ops.json --prometheus http://127.0.0.1:9090 --output ops.png

It is for looking at a dashboard where there is no Grafana, and at what a change of one does. Panels look nearly, not
exactly, as in Grafana. A panel without data is named, and the exit code is then 1.
"""

import argparse
import io
import json
import math
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from deploy.grafana.answers import Answers, Keeping, Kept, Prometheus, Series, Span, filled_in, last
from deploy.grafana.panels import COLUMNS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INCHES_WIDE: Final = 16.0
_INCHES_A_LINE: Final = 0.34
_DOTS: Final = 80
_MOST_SERIES: Final = 12
_NARROW: Final = 60
"""Letters of a table that need not fill its panel."""
_LETTERS_AN_INCH: Final = 21
_PAPER, _CARD, _INK, _FAINT = "#f4f5f5", "#ffffff", "#24292e", "#8e8e8e"
_COLOURS: Final = {"green": "#56a64b", "orange": "#ff9830", "red": "#e02f44", "blue": "#3274d9"}
_STYLE: Final = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _FAINT,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
}
_SHADES: Final = 128
"""How many colours a picture keeps: with all of them it is three times as large, and looks the same."""
_MIB: Final = 1 << 20


def draw(dashboard: Mapping[str, Any], answers: Answers, values: Mapping[str, str]) -> tuple["Figure", list[str]]:
    """Draw all panels; returns the picture and the titles of panels without data.

    `values` are those of the dashboard's variables.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    panels = dashboard["panels"]
    lines = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    empty: list[str] = []
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_INCHES_WIDE, (lines + 2) * _INCHES_A_LINE), dpi=_DOTS, facecolor=_PAPER)
        figure.text(0.008, 1 - 1 / (lines + 2), dashboard["title"], fontsize=15, weight="bold", color=_INK, va="center")
        for panel in panels:
            place = panel["gridPos"]
            top = 1 - (place["y"] + 2) / (lines + 2)
            left, height = place["x"] / COLUMNS, place["h"] / (lines + 2)
            if panel["type"] == "row":
                figure.text(left + 0.008, top - height / 2, panel["title"], fontsize=11, color=_INK, va="center")
                continue
            box = (left, top - height, place["w"] / COLUMNS, height)
            if not _draw_panel(figure, panel, box, answers, values):
                empty.append(panel["title"])
    return figure, empty


def _draw_panel(
    figure: "Figure",
    panel: Mapping[str, Any],
    box: tuple[float, float, float, float],
    answers: Answers,
    values: Mapping[str, str],
) -> bool:
    """Draw one panel into its box; returns whether it has data."""
    left, bottom, width, height = box
    lines = 1 / (figure.get_figheight() / _INCHES_A_LINE)
    card = figure.add_axes((left + 0.003, bottom + 0.15 * lines, width - 0.006, height - 0.3 * lines), facecolor=_CARD)
    _bare(card)
    inside = (left + 0.042, bottom + 2.1 * lines, width - 0.053, height - 3.7 * lines)
    found = [
        (_legend(target["legendFormat"], series), series)
        for target in panel["targets"]
        for series in answers.ask(filled_in(target["expr"], values))
    ]
    kind = panel["type"]
    title_colour = _INK
    if not any(not math.isnan(last(series)) for _, series in found):
        card.text(0.5, 0.45, panel["fieldConfig"]["defaults"]["noValue"], ha="center", va="center", color=_FAINT)
    elif kind == "stat":
        title_colour = _draw_stat(card, panel, found[0][1])
    elif kind == "table":
        _draw_table(card, [series for _, series in found], height / lines)
    elif kind == "heatmap":
        _draw_heat(figure.add_axes(inside), panel, found, answers.span)
    else:
        _draw_lines(figure.add_axes(inside), panel, found, answers.span)
    figure.text(
        left + 0.009, bottom + height - 0.95 * lines, panel["title"], color=title_colour, va="center", fontsize=9
    )
    return bool(found)


def _draw_stat(card: "Axes", panel: Mapping[str, Any], series: Series) -> str:
    """Draw the last value on the colour of its threshold; returns the colour of texts on it."""
    defaults = panel["fieldConfig"]["defaults"]
    value = last(series)
    steps = defaults["thresholds"]["steps"]
    coloured = len(steps) > 1
    if coloured:
        card.set_facecolor(_COLOURS[[step["color"] for step in steps if value >= (step["value"] or -math.inf)][-1]])
    ink = "white" if coloured else _INK
    words = defaults.get("mappings", [{"options": {}}])[0]["options"]
    shown = words[f"{value:g}"]["text"] if f"{value:g}" in words else in_unit(value, defaults["unit"])
    card.text(0.5, 0.42, shown, ha="center", va="center", fontsize=20, weight="bold", color=ink)
    return ink


def _draw_table(card: "Axes", rows: Sequence[Series], lines: float) -> None:
    """Draw labels as columns, each as wide as its longest word."""
    names = list(dict.fromkeys(name for row in rows for name in row.labels))
    longest = [2 + max(len(name), *(len(row.labels.get(name, "")) for row in rows)) for name in names]
    at = 0.02
    for name, letters in zip(names, longest, strict=True):
        card.text(at, 1 - 1.9 / lines, name, color=_FAINT, va="center")
        for line, row in enumerate(rows[: int(lines) - 3]):
            card.text(at, 1 - (2.9 + line) / lines, row.labels.get(name, ""), color=_INK, va="center")
        at += 0.96 * letters / max(sum(longest), _NARROW)


def _draw_lines(axes: "Axes", panel: Mapping[str, Any], found: Sequence[tuple[str, Series]], span: Span) -> None:
    """Draw series as lines, or stacked."""
    defaults = panel["fieldConfig"]["defaults"]
    found = sorted(found, key=lambda each: -max(_or_zero(value) for _, value in each[1].points))
    shown = found[:_MOST_SERIES]
    if defaults["custom"]["stacking"]["mode"] == "normal":
        places = sorted({at for _, series in shown for at, _ in series.points})
        heights = [[_or_zero(dict(series.points).get(at, 0.0)) for at in places] for _, series in shown]
        axes.stackplot([_minutes(at, span) for at in places], heights, labels=[name for name, _ in shown], alpha=0.75)
    else:
        for name, series in shown:
            moments = [_minutes(at, span) for at, _ in series.points]
            axes.plot(moments, [value for _, value in series.points], linewidth=1.2, label=name)
    if defaults["custom"]["thresholdsStyle"]["mode"] != "off":
        for step in defaults["thresholds"]["steps"][1:]:
            axes.axhline(step["value"], color=_COLOURS[step["color"]], linestyle="--", linewidth=0.8)
    nothing = all(not value > 0 for _, series in shown for _, value in series.points)
    axes.set_ylim(bottom=0, top=defaults.get("max") or (1 if nothing else None))
    _scales(axes, span)
    axes.yaxis.set_major_formatter(lambda value, _: in_unit(value, defaults["unit"]))
    axes.grid(axis="y", alpha=0.25)
    more = len(found) - len(shown)
    letters = axes.get_position().width * _INCHES_WIDE * _LETTERS_AN_INCH
    columns = max(int(letters / (6 + max(len(name) for name, _ in shown))), 1)
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(-0.12, -0.11),
        ncols=min(columns, 5),
        frameon=False,
        fontsize=6.5,
        title=f"and {more} more" if more else None,
    )


def _draw_heat(axes: "Axes", panel: Mapping[str, Any], found: Sequence[tuple[str, Series]], span: Span) -> None:
    """Draw cumulative buckets as what is in each of them."""
    import numpy as np

    edges = sorted(found, key=lambda each: float(each[0]))
    places = sorted({at for _, series in edges for at, _ in series.points})
    sums = np.array([[_or_zero(dict(series.points).get(at, 0.0)) for at in places] for _, series in edges])
    counts = np.diff(sums, axis=0, prepend=0)
    used = [place for place in range(len(edges)) if counts[place].sum() > 0] or [0]
    low, high = max(used[0] - 1, 0), used[-1] + 1
    axes.pcolormesh(
        [_minutes(at, span) for at in places],
        range(low, high),
        np.ma.masked_less_equal(counts[low:high], 0),
        cmap="Oranges",
        shading="nearest",
    )
    unit = panel["fieldConfig"]["defaults"]["unit"]
    axes.set_yticks(range(low, high), [f"≤ {in_unit(float(name), unit)}" for name, _ in edges[low:high]], fontsize=6.5)
    _scales(axes, span)


def _scales(axes: "Axes", span: Span) -> None:
    axes.set_xlim(_minutes(span.start, span), 0)
    axes.xaxis.set_major_locator(_ticks())
    axes.xaxis.set_major_formatter(lambda value, _: "now" if value == 0 else f"{value:g} min")


def _ticks() -> Any:  # noqa: ANN401 - a locator of matplotlib, which is not there when nothing is drawn
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4)


def _bare(axes: "Axes") -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _minutes(at: float, span: Span) -> float:
    return (at - span.end) / 60


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _legend(form: str, series: Series) -> str:
    """Write a legend with labels put in; as Grafana does where there is none."""
    if form == "__auto":
        return ", ".join(f"{name}={value}" for name, value in series.labels.items()) or "value"
    return re.sub(r"\{\{(\w+)\}\}", lambda found: series.labels.get(found[1], ""), form) or "value"


def _save(figure: "Figure", path: Path) -> None:
    from PIL import Image

    page = io.BytesIO()
    figure.savefig(page, format="png", metadata={"Software": None})
    Image.open(page).convert("RGB").quantize(_SHADES).save(path, format="PNG", optimize=True)


def in_unit(value: float, unit: str) -> str:
    """Write a number in one of Grafana's units."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "–"
    return _UNITS[unit](value)


def _seconds(value: float) -> str:
    size = abs(value)
    for from_s, letter in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"), (1e-3, "ms")):
        if size >= from_s:
            return f"{value / from_s:.3g} {letter}"
    return f"{value * 1e6:.3g} µs" if value else "0"


def _short(value: float) -> str:
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _bytes(value: float) -> str:
    return f"{value / _MIB / 1024:.3g} GiB" if abs(value) >= 1024 * _MIB else f"{value / _MIB:.3g} MiB"


_UNITS: Final[Mapping[str, Callable[[float], str]]] = {
    "none": _short,
    "s": _seconds,
    "percentunit": lambda value: f"{value * 100:.3g} %",
    "cps": lambda value: f"{_short(value)}/s",
    "bytes": _bytes,
    "d": lambda value: f"{value:.3g} d",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw one dashboard; 0 if each panel has data, 1 if not."""
    options = _parser().parse_args(arguments)
    if options.kept:
        answers: Answers = Kept(options.kept)
    else:
        end = time.time()
        span = Span(start=end - 60 * options.minutes, end=end, step_s=max(60 * options.minutes / 400, 1.0))
        answers = Prometheus(options.prometheus, span)
    keeping = Keeping(answers)
    values = {
        "job": "iyscheck",
        "instance": ".+",
        "loader": "iyscheck-loader",
        "__rate_interval": options.rate_interval,
    }
    values |= dict(each.split("=", 1) for each in options.set)
    figure, empty = draw(json.loads(options.dashboard.read_text(encoding="utf-8")), keeping, values)
    _save(figure, options.output)
    if options.keep:
        keeping.keep(options.keep)
    for title in empty:
        print(f"no data: {title}", file=sys.stderr)
    return 1 if empty else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/look-dashboard", description=__doc__.splitlines()[0])
    parser.add_argument("dashboard", type=Path, help="a file of deploy/grafana")
    parser.add_argument("--output", type=Path, required=True, help="the picture, a PNG")
    parser.add_argument(
        "--prometheus", default="http://127.0.0.1:9090", help="where Prometheus is (default %(default)s)"
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="how far back to look (default %(default)s)")
    parser.add_argument("--rate-interval", default="1m", help="what stands for $__rate_interval (default %(default)s)")
    parser.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], help="a variable of the dashboard")
    parser.add_argument("--keep", metavar="FILE", type=Path, help="write what Prometheus has answered")
    parser.add_argument("--kept", metavar="FILE", type=Path, help="draw from such a file, without Prometheus")
    return parser


if __name__ == "__main__":
    sys.exit(main())
