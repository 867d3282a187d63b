"""What the tests of deploy/ share: its files as they are read, and the programs that judge them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
SERVER_PORT, METRICS_PORT, LOADER_PORT, PUBLISHER_PORT, REPLICA_PORT = 50051, 9464, 9465, 9466, 9467


def program(name: str) -> str:
    """Find a program; where it is missing say so aloud. scripts/test-deploy, which installs them all, fails instead."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}")
    if found is None:
        missing = f"there is no {name} here"
        if os.environ.get("TEST_DEPLOY"):
            pytest.fail(missing)
        pytest.skip(f"NOT TESTED: {missing}; scripts/test-deploy says what to install, and tests all of deploy/")
    return found


def ran(*command: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end."""
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, timeout=120, cwd=ROOT
    )


def documents(path: Path) -> list[Any]:
    """Read all documents of a file of YAML."""
    return list(yaml.safe_load_all(path.read_text()))


def document(path: Path) -> Any:  # noqa: ANN401 - YAML
    """Read the one document of a file of YAML."""
    (only,) = documents(path)
    return only


def directives(path: Path) -> dict[str, list[str]]:
    """Read a unit of systemd: what stands in its lines, by name."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", path.read_text(), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def loader_flags(name: str = "follow") -> tuple[set[str], set[str]]:
    """Ask a command of `iyscheck-loader` for its flags, and for the variables that it reads."""
    import typer

    from loader.cli.app import app

    command: Any = typer.main.get_command(app)
    options = command.commands[name].params
    flags = {flag for option in options for flag in option.opts if flag.startswith("--")}
    variables = {option.envvar for option in options if option.envvar}
    return flags, {name for each in variables for name in ([each] if isinstance(each, str) else each)}


def assert_follows(arguments: list[str]) -> None:
    """See that these are arguments of `iyscheck-loader`: to follow a directory, with flags that there are."""
    flags, _ = loader_flags()
    assert arguments[0] == "follow"
    assert arguments[1].startswith("/")
    assert {each.partition("=")[0] for each in arguments[2:] if each.startswith("--")} <= flags
