"""Versions of the product side by side: yesterday's out of the repository, today's, and copies with a word changed."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

ROOT = Path(__file__).parents[2]
YESTERDAY = "09154af"
"""The last commit before replicas: store format 3, no log, one path to all servers."""
PACKAGES = ("iyscheck", "loader")
WITHOUT_NUMBA = ROOT / "tests" / "server" / "processes" / "without_numba"


@dataclass(frozen=True, kw_only=True)
class Version:
    """A tree of the product, from which processes are started."""

    name: str
    root: Path

    @property
    def environment(self) -> dict[str, str]:
        """Where Python finds this tree and no other; numpy runs the loops, so that processes start soon."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("IYSCHECK_")}
        return clean | {"PYTHONPATH": f"{WITHOUT_NUMBA}{os.pathsep}{self.root}", "PYTHONSAFEPATH": "1"}

    @classmethod
    def today(cls) -> Self:
        """The tree of these tests."""
        return cls(name="today", root=ROOT)

    @classmethod
    def yesterday(cls, folder: Path) -> Self:
        """Take that commit out of the repository. Skips where it is not there."""
        done = subprocess.run(
            ["git", "-C", str(ROOT), "archive", YESTERDAY, *PACKAGES],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"Commit {YESTERDAY} is not in this repository: 'git fetch --unshallow' brings it.")
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(folder, filter="data")
        return cls(name="yesterday", root=folder).checked()

    @classmethod
    def changed(cls, folder: Path, changes: Mapping[str, Mapping[str, str]]) -> Self:
        """Copy today's tree, and put other words into files of it; each must be there."""
        for package in PACKAGES:
            shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("node_modules"))
        for name, words in changes.items():
            text = (folder / name).read_text()
            for was, becomes in words.items():
                assert was in text, f"{name} says otherwise by now than '{was}'"
                text = text.replace(was, becomes)
            (folder / name).write_text(text)
        return cls(name="changed", root=folder).checked()

    def checked(self) -> Self:
        """See that processes have this tree indeed."""
        program = "import iyscheck, loader; print(iyscheck.__file__, loader.__file__)"
        found = self.python("-c", program).stdout.split()
        assert found == [str(self.root / package / "__init__.py") for package in PACKAGES], found
        return self

    def python(self, *arguments: str, settings: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        """Run Python on this tree to its end."""
        return subprocess.run(
            [sys.executable, *arguments],
            env=self.environment | dict(settings or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
