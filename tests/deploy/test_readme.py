"""The table of deploy/README.md is what is in deploy/."""

import re

from tests.deploy.conftest import DEPLOY


def test_table() -> None:
    """Each file and folder has its row, and what a row names is there."""
    text = (DEPLOY / "README.md").read_text()
    table = text[text.index("| file |") : text.index("## systemd")]
    named = {link for link in re.findall(r"\]\(([^)]+)\)", table) if not link.startswith("..")}
    there = {path.name for path in DEPLOY.iterdir()} - {"README.md", "__pycache__"}

    assert there <= {link.partition("/")[0] for link in named}
    assert all((DEPLOY / link).exists() for link in named)
