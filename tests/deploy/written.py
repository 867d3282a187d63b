"""What is written in the repository about metrics, alerts and panels."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from deploy.grafana.dashboards import DASHBOARDS

ROOT: Final = Path(__file__).parents[2]
RULES: Final = ROOT / "deploy" / "prometheus" / "rules.yml"
RULES_TEST: Final = RULES.with_name("rules_test.yml")
SCRAPES: Final = RULES.with_name("prometheus.yml")
RUNBOOK: Final = ROOT / "docs" / "runbook.md"

OF_NATS: Final = {"jetstream_server_total_message_bytes", "jetstream_server_max_storage"}
"""What NATS's own exporter shows, and is no metric of ours."""

_ROW: Final = re.compile(r"^\| `(\w+)` \| (counter|gauge|histogram) \|(.*)$", re.MULTILINE)
_SUFFIXES: Final = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("",), "gauge": ("",)}


@dataclass(frozen=True, kw_only=True)
class Documented:
    """A metric as docs/metrics.md has it, under one name of a scrape; `chapter` is all that stands about its kind."""

    kind: str
    chapter: str


def documented() -> dict[str, Documented]:
    """Return the metrics of docs/metrics.md, by the names that a scrape shows."""
    found = {}
    for chapter in re.split(r"^## ", (ROOT / "docs" / "metrics.md").read_text(), flags=re.MULTILINE):
        for row in _ROW.finditer(chapter):
            for suffix in _SUFFIXES[row[2]]:
                found[row[1] + suffix] = Documented(kind=row[2], chapter=chapter)
    return found


def groups() -> list[dict[str, Any]]:
    """Return the groups of rules."""
    found: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
    return found


def alerts() -> dict[str, dict[str, Any]]:
    """Return the alerts by name."""
    return {rule["alert"]: rule for group in groups() for rule in group["rules"] if "alert" in rule}


def recorded() -> dict[str, str]:
    """Return the expressions of recorded series by name."""
    return {rule["record"]: rule["expr"] for group in groups() for rule in group["rules"] if "record" in rule}


def dashboards() -> dict[str, dict[str, Any]]:
    """Return the dashboards by the names of their files, as they stand in them."""
    return {name: json.loads((ROOT / "deploy" / "grafana" / name).read_text()) for name in DASHBOARDS}


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the panels of a dashboard without the titles of its rows."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Yield each query of a panel, with the panel's name."""
    for name, dashboard in dashboards().items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                yield f"{name}: {panel['title']}", target["expr"]


def expressions() -> Iterator[tuple[str, str]]:
    """Yield every expression that Prometheus is asked: of panels, annotations, recorded series and alerts."""
    yield from queries()
    for name, dashboard in dashboards().items():
        for mark in dashboard["annotations"]["list"]:
            yield f"{name}: {mark['name']}", mark["expr"]
    yield from recorded().items()
    yield from ((name, rule["expr"]) for name, rule in alerts().items())
