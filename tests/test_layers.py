"""The layers are held: an import that breaks one is refused, by the contract that stands for it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_logo=True))"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages and their contracts, to break."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in ("iyscheck", "loader"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("node*", "__pycache__"))
    return folder


def linted(copy: Path) -> tuple[bool, str]:
    """Say whether all contracts are kept, and what is told of it."""
    done = subprocess.run([sys.executable, "-c", LINT], cwd=copy, capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout


def test_kept(copy: Path) -> None:
    """As it is, all of it is kept."""
    kept, said = linted(copy)

    assert kept, said


@pytest.mark.parametrize(
    ("module", "imported", "contract"),
    [
        ("loader/sources/directory.py", "loader.sources.files.source", "A source knows no other source"),
        ("loader/sources/files/given.py", "loader.sources.directory", "A source knows no other source"),
        ("loader/loading/fill.py", "loader.sources.paths", "Inside the loader"),
        ("loader/loading/loader.py", "loader.reports.summary", "Inside the loader"),
        ("loader/reading/feed.py", "loader.loading.source", "Inside the loader"),
        ("loader/loading/commits.py", "loader.loading.fill", "Inside loading"),
        ("loader/reading/loops.py", "loader.reading.shapes", "Inside reading"),
        ("loader/reading/rows.py", "iyscheck.store.layout", "Reading knows no store"),
        ("loader/cli/verify.py", "loader.cli.status", "A command of the loader knows no other"),
        ("loader/loading/sorted_runs.py", "lmdb", "LMDB only in the store"),
        ("loader/sources/paths.py", "grpc", "The loader never speaks gRPC"),
        ("loader/reading/rules.py", "iyscheck.engine", "The loader never speaks gRPC and never decides"),
        ("iyscheck/errors.py", "loader", "Who reads the store needs nothing that writes it"),
        ("iyscheck/errors.py", "iyscheck.consent", "Data flows one way"),
    ],
)
def test_import(copy: Path, module: str, imported: str, contract: str) -> None:
    """An import of something that stands above or beside is named, and the contract is told to be broken."""
    path = copy / module
    before = path.read_text()
    path.write_text(f"{before}\nimport {imported}\n")

    kept, said = linted(copy)

    path.write_text(before)
    assert not kept
    assert f"{module.removesuffix('.py').replace('/', '.')} -> {imported}" in said
    assert any(line.startswith(contract) and line.endswith("BROKEN") for line in said.splitlines())


@pytest.mark.parametrize("folder", ["loader", "loader/sources", "loader/loading", "loader/reading", "iyscheck"])
def test_new_module(copy: Path, folder: str) -> None:
    """A module that has no place in the layers of its room is refused until it is given one."""
    path = copy / folder / "utilities.py"
    path.write_text('"""Of no layer."""\n')

    kept, said = linted(copy)

    path.unlink()
    assert not kept
    assert f"{folder.replace('/', '.')}.utilities" in said
