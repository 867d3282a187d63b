"""What the tests of callers share."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Write a callers file as an operator's editor does: another file, renamed over it."""

    def written(text: str) -> Path:
        new, path = tmp_path / "callers.toml.new", tmp_path / "callers.toml"
        new.write_text(text, encoding="utf-8")
        new.chmod(0o644)
        return new.rename(path)

    return written
