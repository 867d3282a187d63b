"""The metrics as docs/metrics.md has them, and as a scrape shows them: name, type and labels."""

import re
from pathlib import Path
from typing import Final, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

PAGE: Final = Path(__file__).parents[2] / "docs" / "metrics.md"
OF_CALLS: Final = frozenset({"grpc_type", "grpc_service", "grpc_method", "front"})
"""Labels that the chapter of calls names for all of its rows that begin with `grpc_server`."""
LOADER: Final = "`iyscheck-loader follow`"
_ROW: Final = re.compile(r"^\| `(\w+)` \| (counter|gauge|histogram) \| (.*?) \|")


class Shape(NamedTuple):
    """What can be relied on of a metric."""

    kind: str
    labels: frozenset[str]


def documented() -> dict[str, dict[str, Shape]]:
    """Read the page: by chapter and name."""
    chapters: dict[str, dict[str, Shape]] = {}
    rows: dict[str, Shape] = {}
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            rows = chapters.setdefault(line.removeprefix("## "), {})
        elif found := _ROW.match(line):
            name, kind, cell = found.groups()
            labels = frozenset(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", cell)))
            assert name not in rows, f"{name} stands twice"
            rows[name] = Shape(kind, labels | OF_CALLS if name.startswith("grpc_server") else labels)
    return chapters


def shown(text: str) -> dict[str, Shape]:
    """Read a page of metrics: by name, of a histogram without its endings."""
    found: dict[str, Shape] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = family.name if family.type == "histogram" else sample.name
            labels = frozenset(sample.labels) - {"le"}
            before = found.setdefault(name, Shape(family.type, labels))
            assert before.labels == labels, f"{name} has not always the same labels"
    return found
