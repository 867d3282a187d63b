"""The demo at a small size, as a person would start it."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_demo_ends_well(tmp_path: Path) -> None:
    """The demo loads, asks, streams, sees an answer flip and stops cleanly; it fails itself where anything is off."""
    command = [sys.executable, "-m", "bench.demo", "--consents=30000", "--recipients=30000"]

    done = subprocess.run(
        [*command, f"--folder={tmp_path / 'demo'}"], capture_output=True, text=True, timeout=200, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Stopped cleanly" in done.stdout
