"""Faults of replication: only where they are asked for, since they take long, and a table of them at the end."""

import os
from pathlib import Path
from typing import Any, Final

import pytest

from tests.replication.table import FILE, drawn, kept

ASKED: Final = "TEST_REPLICAS"
"""Set by scripts/test-replicas."""
_HERE: Final = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave them out of every other run, aloud."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.thorough)
            if not os.environ.get(ASKED):
                item.add_marker(pytest.mark.skip(reason="NOT TESTED: scripts/test-replicas does, in half an hour"))


def pytest_terminal_summary(terminalreporter: Any) -> None:  # noqa: ANN401 - pytest does not export its type
    """Show what was seen."""
    rows = kept(Path(os.environ[FILE])) if FILE in os.environ else []
    if rows:
        terminalreporter.section("faults, and what was seen of them")
        terminalreporter.write(drawn(rows))
