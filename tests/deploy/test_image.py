"""The Dockerfile: what it copies, sets and opens is there, and hadolint has nothing to say."""

import fnmatch
import re
import subprocess
import tomllib

import pytest

from iyscheck.server.settings import OTHER_VARIABLES, PREFIX, Settings, default_text
from tests.deploy.conftest import DEPLOY, METRICS_PORT, ROOT, SERVER_PORT, program, ran

DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
PLAIN = re.sub(r"\\\n", " ", DOCKERFILE)


def test_copied() -> None:
    """Each file that is copied is there and not left out, and all that the package is built from is copied."""
    copied = [name for line in re.findall(r"^COPY (?!--from)(.*)$", PLAIN, re.MULTILINE) for name in line.split()[:-1]]
    kept = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {*project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"], project["project"]["readme"]}

    assert needed | {"pyproject.toml"} <= set(copied)
    for name in copied:
        assert (ROOT / name).exists()
        assert any(fnmatch.fnmatch(name, pattern) for pattern in kept), f"{name} is left out"


def test_set() -> None:
    """Variables of ours are settings, ports are the defaults, the extra exists, and nobody runs as root."""
    ours = set(re.findall(rf"\b({PREFIX}\w+)=", PLAIN))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    assert ours <= {PREFIX + name.upper() for name in Settings.model_fields} | OTHER_VARIABLES
    assert re.findall(r"^EXPOSE (.*)$", PLAIN, re.MULTILINE) == [f"{SERVER_PORT} {METRICS_PORT}"]
    assert default_text("listen").endswith(f":{SERVER_PORT}")
    assert default_text("metrics_listen").endswith(f":{METRICS_PORT}")
    assert re.findall(r"^ARG EXTRAS=(\w+)$", PLAIN, re.MULTILINE)[0] in extras
    assert re.findall(r"^USER (.*)$", PLAIN, re.MULTILINE) == ["10001:10001"]


def test_signals() -> None:
    """The command is process 1 itself, without a shell that would keep SIGTERM for itself."""
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", PLAIN, re.MULTILINE)
    (command,) = re.findall(r"^CMD (.*)$", PLAIN, re.MULTILINE)

    assert (entry, command) == ('["iyscheck"]', '["serve"]')


@pytest.mark.thorough
def test_hadolint() -> None:
    """The linter of Dockerfiles finds nothing, and would find something."""
    hadolint, file = program("hadolint"), DEPLOY / "Dockerfile"
    assert (said := ran(hadolint, file)).returncode == 0, said.stdout
    bad = "FROM debian\nRUN cd /tmp && apt-get install curl\nCMD iyscheck serve\n"

    assert {"DL3006", "DL3025"} <= set(re.findall(r"DL\d{4}", ran_with(hadolint, bad)))


def ran_with(hadolint: str, text: str) -> str:
    """Let it judge a text."""
    return subprocess.run([hadolint, "-"], input=text, capture_output=True, text=True, check=False).stdout
