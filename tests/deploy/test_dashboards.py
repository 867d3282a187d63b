import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deploy.grafana import answers
from deploy.grafana.dashboards import DASHBOARDS, text
from deploy.grafana.drawing import draw, in_unit
from deploy.grafana.panels import COLUMNS
from tests.deploy import promql, written

PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, dashboard in written.dashboards().items()
    for panel in written.panels(dashboard)
]
EXPRESSIONS = [pytest.param(*each, id=each[0]) for each in written.expressions()]
KNOWN = written.documented()
RECORDED = written.recorded()
README = (written.ROOT / "README.md").read_text()


class TestFiles:
    """The files are what the module writes, in the form that Grafana reads."""

    @pytest.mark.parametrize("name", DASHBOARDS)
    def test_no_drift(self, name: str) -> None:
        """A file is what the module writes."""
        file = written.ROOT / "deploy" / "grafana" / name

        assert file.read_text() == text(DASHBOARDS[name]), "run: python -m deploy.grafana.dashboards"

    @pytest.mark.parametrize("name", DASHBOARDS)
    def test_form(self, name: str) -> None:
        """The form is the one of Grafana 11; the datasource is chosen, not fixed, and numbers of panels differ."""
        dashboard = written.dashboards()[name]
        numbers = [panel["id"] for panel in dashboard["panels"]]
        sources = {panel["datasource"]["uid"] for panel in written.panels(dashboard)}

        assert dashboard["schemaVersion"] == 39
        assert sources == {"${datasource}"}
        assert len(set(numbers)) == len(numbers)

    @pytest.mark.parametrize("name", DASHBOARDS)
    def test_places(self, name: str) -> None:
        """Panels lie within the grid, and none covers another."""
        places = [panel["gridPos"] for panel in written.dashboards()[name]["panels"]]

        for place in places:
            assert 0 <= place["x"] < place["x"] + place["w"] <= COLUMNS
        for one, other in itertools.combinations(places, 2):
            assert not (overlap(one, other, "x", "w") and overlap(one, other, "y", "h"))

    @pytest.mark.parametrize("name", DASHBOARDS)
    def test_variables(self, name: str) -> None:
        """Each variable that a query or annotation names can be chosen, and each that can be chosen is used."""
        dashboard = written.dashboards()[name]
        asked = "".join(target["expr"] for panel in written.panels(dashboard) for target in panel["targets"])
        asked += "".join(mark["expr"] for mark in dashboard["annotations"]["list"]) + "${datasource}"

        used = set(re.findall(r"\$\{?(\w+)", asked)) - {"__rate_interval"}

        assert used == {variable["name"] for variable in dashboard["templating"]["list"]}


class TestPanels:
    """Each panel says what it is for, and colours only what means something."""

    @pytest.mark.parametrize("panel", PANELS)
    def test_told(self, panel: dict[str, Any]) -> None:
        """It has a title, a sentence about it, a unit that can be shown, and a word for when there is nothing."""
        defaults = panel["fieldConfig"]["defaults"]

        assert panel["title"]
        assert panel["description"].endswith(".")
        assert in_unit(1.0, defaults["unit"])
        assert defaults["noValue"]

    @pytest.mark.parametrize("panel", PANELS)
    def test_thresholds(self, panel: dict[str, Any]) -> None:
        """Limits grow, and are shown; without a limit there is one colour, and not Grafana's own red at 80."""
        first, *others = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        values = [step["value"] for step in others]

        assert first["value"] is None
        assert values == sorted(values)
        if panel["type"] == "timeseries":
            shown = panel["fieldConfig"]["defaults"]["custom"]["thresholdsStyle"]["mode"]
            assert shown == ("dashed" if others else "off")

    @pytest.mark.parametrize("panel", PANELS)
    def test_windows(self, panel: dict[str, Any]) -> None:
        """Windows follow the zoom, and queries are told apart."""
        targets = panel["targets"]

        assert set().union(*(promql.ranges(target["expr"]) for target in targets)) <= {"$__rate_interval"}
        assert len({target["refId"] for target in targets}) == len(targets)
        assert panel["type"] in {"stat", "table"} or all(target["legendFormat"] != "__auto" for target in targets)


class TestQueries:
    """Rules and dashboards ask for what the documentation has, by names and labels that it has there."""

    @pytest.mark.parametrize(("where", "expr"), EXPRESSIONS)
    def test_known(self, where: str, expr: str) -> None:
        """Each metric is documented or recorded; so is each label, and each value that a label is compared with.

        Reasons of answers have their table in the README.
        """
        labels = promql.grouped(expr)
        for asked in promql.selectors(expr):
            if asked.name in {"up", "ALERTS"} | written.OF_NATS or asked.name in RECORDED:
                continue
            assert asked.name in KNOWN, where
            metric = KNOWN[asked.name]
            for label, _, value in asked.matchers:
                if label not in {"job", "instance", "le"}:
                    assert f"`{label}`" in metric.chapter, where
                    assert all(f"`{each}`" in metric.chapter or f"| {each} |" in README for each in value.split("|")), (
                        where
                    )
            labels -= set(re.findall(r"`(\w+)`", metric.chapter))
        assert labels <= {"job", "instance", "le", "severity", "alertname", "feed"}, where

    @pytest.mark.parametrize(("where", "expr"), EXPRESSIONS)
    def test_growth(self, where: str, expr: str) -> None:
        """Growth is asked of counters and histograms, and of nothing that also falls."""
        assert all(KNOWN[name].kind != "gauge" for name in promql.rated(expr)), where


class TestDrawing:
    """A dashboard can be looked at without Grafana."""

    def test_empty_panels_are_named(self) -> None:
        """What has no data is told; a value that is no number is drawn as nothing."""
        dashboard = written.dashboards()["feeds.json"]
        values = {"job": "iyscheck", "instance": ".+", "loader": "iyscheck-loader", "__rate_interval": "1m"}

        figure, empty = draw(dashboard, MadeUp(), values)

        assert empty == ["Commits, p99"]
        assert len(figure.axes) >= len(written.panels(dashboard))

    def test_kept(self, tmp_path: Path) -> None:
        """Answers that were kept are the answers."""
        keeping = answers.Keeping(MadeUp())
        asked = keeping.ask("up")
        keeping.keep(tmp_path / "kept.json")

        kept = answers.Kept(tmp_path / "kept.json")

        assert repr(kept.ask("up")) == repr(asked)
        assert kept.span == keeping.span
        assert kept.ask("down") == []


class MadeUp:
    """Answers each question but one, with a gap in the middle."""

    span = answers.Span(start=1_000.0, end=1_600.0, step_s=60.0)

    def ask(self, expr: str) -> list[answers.Series]:
        """Return two series."""
        if "consent_feed_commit_seconds" in expr:
            return []
        points = tuple((1_000.0 + 60 * step, float("nan") if step == 5 else float(step)) for step in range(11))
        return [answers.Series(labels={"state": name, "feed": name}, points=points) for name in ("one", "two")]


def overlap(one: Mapping[str, int], other: Mapping[str, int], at: str, size: str) -> bool:
    """Whether two places overlap in one direction."""
    return one[at] < other[at] + other[size] and other[at] < one[at] + one[size]
