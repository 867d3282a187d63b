"""How Grafana writes dashboards: rows of panels, laid side by side, with what each asks of Prometheus.

Every panel has a unit and says what it is for. A threshold is there only where crossing it means something: Grafana
colours by thresholds of its own where none are given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | float | bool | None"

SCHEMA_VERSION: Final = 39
COLUMNS: Final = 24
"""How wide Grafana's grid is."""

_SOURCE: Final[Json] = {"type": "prometheus", "uid": "${datasource}"}


Steps: TypeAlias = "tuple[tuple[float | None, str], ...]"
"""From which value on which colour; the first one has no value."""

_PLAIN: Final[Steps] = ((None, "green"),)


def good_below(limit: float, bad: float) -> Steps:
    """Green below the limit, red from `bad` on."""
    return ((None, "green"), (limit, "orange"), (bad, "red"))


def good_above(bad: float, limit: float) -> Steps:
    """Red below `bad`, green from the limit on."""
    return ((None, "red"), (bad, "orange"), (limit, "green"))


@dataclass(frozen=True, kw_only=True)
class Query:
    """What a panel asks of Prometheus, and how its series are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel without its place; `kind` is Grafana's name of it."""

    title: str
    says: str
    unit: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    steps: Steps = _PLAIN
    stacked: bool = False
    most: float | None = None
    none: str = "no data"
    words: tuple[tuple[str, str, str], ...] = ()
    """Values that are shown as words: value, word, colour."""

    def as_json(self, number: int, place: Mapping[str, int]) -> Json:
        """Write it as Grafana does."""
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.says,
            "gridPos": place,
            "datasource": _SOURCE,
            "fieldConfig": {"defaults": self._defaults(), "overrides": []},
            "options": self._options(),
            "targets": [self._target(place, query) for place, query in enumerate(self.queries)],
            **self._transformations(),
        }

    def _defaults(self) -> Json:
        steps: Json = [{"color": colour, "value": value} for value, colour in self.steps]
        defaults: dict[str, Json] = {
            "unit": self.unit,
            "min": 0,
            "noValue": self.none,
            "color": {"mode": "thresholds" if self.kind == "stat" else "palette-classic"},
            "thresholds": {"mode": "absolute", "steps": steps},
        }
        if self.most is not None:
            defaults["max"] = self.most
        if self.words:
            options: Json = {value: {"text": text, "color": colour} for value, text, colour in self.words}
            defaults["mappings"] = [{"type": "value", "options": options}]
        if self.kind == "timeseries":
            defaults["custom"] = {
                "drawStyle": "line",
                "lineWidth": 1,
                "fillOpacity": 30 if self.stacked else 0,
                "showPoints": "never",
                "stacking": {"mode": "normal" if self.stacked else "none", "group": "A"},
                "thresholdsStyle": {"mode": "dashed" if self.steps[1:] else "off"},
            }
        return defaults

    def _options(self) -> Json:
        if self.kind == "stat":
            return {
                "colorMode": "background" if self.steps[1:] else "none",
                "graphMode": "area",
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            }
        if self.kind == "heatmap":
            return {"calculate": False, "color": {"mode": "scheme", "scheme": "Oranges"}, "yAxis": {"unit": self.unit}}
        if self.kind == "table":
            return {"showHeader": True}
        return {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }

    def _target(self, place: int, query: Query) -> Json:
        target: dict[str, Json] = {
            "refId": chr(ord("A") + place),
            "datasource": _SOURCE,
            "expr": query.expr,
            "legendFormat": query.legend or "__auto",
        }
        if self.kind == "table":
            return target | {"format": "table", "instant": True, "range": False}
        return target | {"format": "heatmap" if self.kind == "heatmap" else "time_series", "range": True}

    def _transformations(self) -> dict[str, Json]:
        if self.kind != "table":
            return {}
        hidden: Json = {"Time": True, "Value": True}
        return {"transformations": [{"id": "organize", "options": {"excludeByName": hidden}}]}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A chapter of a dashboard: panels side by side under one title; what does not fit begins a line of its own."""

    title: str
    panels: tuple[Panel, ...]
    width: int = 8
    height: int = 8


@dataclass(frozen=True, kw_only=True)
class Variable:
    """What a reader chooses above the panels: values of a label. `several` takes any number of them, at first all."""

    name: str
    title: str
    values: str
    several: bool = False

    def as_json(self) -> Json:
        """Write it as Grafana does."""
        variable: dict[str, Json] = {
            "name": self.name,
            "label": self.title,
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": self.values, "refId": self.name},
            "refresh": 2,
            "sort": 1,
        }
        if self.several:
            variable |= {"multi": True, "includeAll": True, "allValue": ".+"}
            variable["current"] = {"text": "All", "value": "$__all"}
        return variable


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Moments that are shown in all panels of a dashboard."""

    title: str
    expr: str
    colour: str
    text: str

    def as_json(self) -> Json:
        """Write it as Grafana does."""
        return {
            "name": self.title,
            "datasource": _SOURCE,
            "enable": True,
            "iconColor": self.colour,
            "expr": self.expr,
            "step": "30s",
            "titleFormat": self.title,
            "textFormat": self.text,
        }


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """One dashboard: rows below each other, what can be chosen, and what is marked."""

    uid: str
    title: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...]
    marks: tuple[Mark, ...]

    def as_json(self) -> Mapping[str, Json]:
        """Write it as Grafana does."""
        source: Json = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
        return {
            "uid": self.uid,
            "title": self.title,
            "tags": ["iyscheck"],
            "schemaVersion": SCHEMA_VERSION,
            "editable": True,
            "timezone": "browser",
            "refresh": "30s",
            "time": {"from": "now-3h", "to": "now"},
            "links": [{"type": "dashboards", "tags": ["iyscheck"], "title": "iyscheck", "keepTime": True}],
            "templating": {"list": [source, *(variable.as_json() for variable in self.variables)]},
            "annotations": {"list": [mark.as_json() for mark in self.marks]},
            "panels": self._panels(),
        }

    def _panels(self) -> list[Json]:
        panels: list[Json] = []
        top = 0
        for row in self.rows:
            place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
            head: dict[str, Json] = {"id": len(panels) + 1, "type": "row", "title": row.title, "gridPos": place}
            panels.append(head | {"collapsed": False, "panels": []})
            top += 1
            left = 0
            for panel in row.panels:
                if left + row.width > COLUMNS:
                    left, top = 0, top + row.height
                place = {"x": left, "y": top, "w": row.width, "h": row.height}
                panels.append(panel.as_json(len(panels) + 1, place))
                left += row.width
            top += row.height
        return panels
