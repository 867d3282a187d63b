"""The layers are held: an import that breaks one is refused, by the contract that stands for it."""

import re
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


PLANTS = [
    ("loader/sources/directory.py", "loader.sources.files.source", "A source knows no other source"),
    ("loader/sources/files/given.py", "loader.sources.directory", "A source knows no other source"),
    ("loader/loading/fill.py", "loader.sources.paths", "Inside the loader"),
    ("loader/loading/loader.py", "loader.reports.summary", "Inside the loader"),
    ("loader/reading/feed.py", "loader.loading.source", "Inside the loader"),
    ("loader/loading/commits.py", "loader.loading.fill", "Inside loading"),
    ("loader/reading/loops.py", "loader.reading.shapes", "Inside reading"),
    ("loader/cli/verify.py", "loader.cli.status", "A command of the loader knows no other"),
    ("loader/loading/sorted_runs.py", "lmdb", "LMDB only in the store"),
    ("loader/reading/plain.py", "iyscheck.store.layout", "Reading knows no store"),
    ("loader/sources/paths.py", "grpc", "The loader never speaks gRPC"),
    ("loader/push/keeping.py", "iyscheck.store.layout", "The receiver of pushes has no store"),
    ("loader/push/journal.py", "loader.push.receiver", "Inside push"),
    ("loader/reading/rules.py", "iyscheck.engine", "The loader never speaks gRPC and never decides"),
    ("iyscheck/errors.py", "loader", "Who reads the store needs nothing that writes it"),
    ("iyscheck/errors.py", "iyscheck.consent", "Data flows one way"),
    ("iyscheck/client/calls.py", "lmdb", "LMDB only in the store"),
    ("iyscheck/console/sources.py", "iyscheck.engine", "The console has no store"),
    ("iyscheck/console/ring.py", "iyscheck.console.sources", "Inside the console"),
    ("iyscheck/client/route.py", "iyscheck.console.auth", "Data flows one way"),
    ("iyscheck/cli/keys.py", "grpc", "gRPC only in server and client"),
    ("iyscheck/change.py", "numba", "numba only in compiled loops"),
    ("iyscheck/engine/answers.py", "grpc", "The engine knows nothing of gRPC"),
    ("iyscheck/engine/opened.py", "iyscheck.engine.answers", "Inside the engine"),
    ("iyscheck/server/fronts/grpc.py", "iyscheck.consent", "A front knows no rule"),
    ("iyscheck/server/calls.py", "iyscheck.server.fronts.grpc", "Inside the server"),
    ("iyscheck/client/batching/tasks.py", "iyscheck.client.batching.threads", "Threads and tasks know the ledger"),
    ("iyscheck/client/columns.py", "iyscheck.client.sync", "Both clients stand on one room"),
    ("iyscheck/store/layout/keys.py", "iyscheck.store.layout.records", "Each kind of value on disk"),
    ("iyscheck/store/records.py", "iyscheck.store.snapshot", "Inside the store"),
    ("iyscheck/engine/standing.py", "iyscheck.store.writer", "Only the loader writes a store"),
    ("iyscheck/cli/scrubbing/lists.py", "iyscheck.cli.scrubbing.text", "Inside list washing"),
    ("iyscheck/cli/examining/here.py", "iyscheck.cli.examining.asking", "Inside doctor"),
    ("iyscheck/examples/embedded.py", "grpc", "gRPC only in server and client"),
    ("loader/loading/__init__.py", "loader.loading.loader", "A package of the loader"),
]
"""Where an import is planted, what it imports, and how the contract begins that must refuse it."""

FOLDERS = [
    "loader",
    "loader/sources",
    "loader/loading",
    "loader/reading",
    "iyscheck",
    "iyscheck/server",
    "iyscheck/store",
]


def test_planted(copy: Path) -> None:
    """Imports of what stands above or beside are named, each under the contract that it breaks."""
    for module, imported, _ in PLANTS:
        with (copy / module).open("a") as file:
            file.write(f"\nimport {imported}\n")
    for folder in FOLDERS:
        (copy / folder / "utilities.py").write_text('"""Of no layer."""\n')

    kept, said = linted(copy)

    reports = re.split(r"\n(?=[^\n]+\n-{4,}\n)", said.partition("Broken contracts")[2])
    assert not kept
    for module, imported, contract in PLANTS:
        name = module.removesuffix("/__init__.py").removesuffix(".py").replace("/", ".")
        arrow = f"{name} -> {imported} (l."
        assert any(report.strip().startswith(contract) and arrow in report for report in reports), (arrow, contract)
    for folder in FOLDERS:  # a module that has no place yet
        assert f"{folder.replace('/', '.')}.utilities" in said, folder
