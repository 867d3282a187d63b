"""The project keeps its own promises: generated code, the error tree, and what an import costs."""

import inspect
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from grpc_tools import protoc

from iyscheck import errors

ROOT = Path(__file__).parent.parent
NAMES = ("admin", "consent_check")
PROTOS = [f"proto/iyscheck/v1/{name}.proto" for name in NAMES]
GENERATED = [f"{name}_pb2{ending}" for name in NAMES for ending in (".py", ".pyi", "_grpc.py")]


class TestGeneratedCode:
    """What stands in iyscheck/v1 is what the pinned generator makes of proto/."""

    def test_no_drift(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Generated again, every file is the same, and there is no file that nothing generates."""
        monkeypatch.chdir(ROOT)  # the generator writes the path of the .proto, as given, into the messages
        include = files("grpc_tools") / "_proto"
        outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]

        failed = protoc.main(["protoc", "-Iproto", f"-I{include}", *outputs, *PROTOS])

        made = tmp_path / "iyscheck" / "v1"
        assert not failed
        assert sorted(path.name for path in made.iterdir()) == sorted(GENERATED)
        assert sorted(path.name for path in (ROOT / "iyscheck" / "v1").glob("*_pb2*")) == sorted(GENERATED)
        for name in GENERATED:
            assert (made / name).read_text() == (ROOT / "iyscheck" / "v1" / name).read_text(), (
                f"{name} differs: run scripts/generate-protos"
            )


class TestErrors:
    """The tree drawn in iyscheck/errors.py is the tree of its classes."""

    def test_tree(self) -> None:
        """Each class stands in the drawing under its base, and nothing else does."""
        classes = [
            each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, errors.IyscheckError)
        ]

        bases = {each.__name__: each.__base__.__name__ for each in classes if each.__base__}

        assert drawn_bases(errors.__doc__ or "") == bases

    def test_reasons(self) -> None:
        """No two errors have the same reason code, so that a program can tell them apart."""
        reasons = [each.reason for _, each in inspect.getmembers(errors, inspect.isclass) if hasattr(each, "reason")]

        assert len(set(reasons)) == len(reasons)
        assert all(re.fullmatch(r"[A-Z][A-Z0-9_]{2,62}", reason) for reason in reasons)


def drawn_bases(drawing: str) -> dict[str, str]:
    """Read a tree of box-drawing lines: name → name of what it hangs under."""
    bases: dict[str, str] = {}
    path: list[str] = ["Exception"]
    for line in drawing.splitlines():
        found = re.match(r"([│├└─ ]*)(\w+Error)\b", line)
        if found:
            depth = 1 + len(found[1]) // len("├── ")
            path[depth:] = [found[2]]
            bases[found[2]] = path[depth - 1]
    return bases


class TestImports:
    """An import costs only what its user needs."""

    @pytest.mark.parametrize(
        ("module", "unwanted"),
        [
            ("iyscheck", "grpc google.protobuf lmdb numpy"),
            ("iyscheck.consent", "grpc google.protobuf lmdb"),
            ("iyscheck.address", "grpc google.protobuf lmdb"),
            ("iyscheck.store", "grpc google.protobuf"),
            ("iyscheck.engine", "grpc google.protobuf prometheus_client numba llvmlite pydantic structlog typer"),
            ("iyscheck.client", "lmdb"),
            ("loader", "grpc google.protobuf lmdb"),
            ("bench.population", "grpc google.protobuf lmdb"),
        ],
    )
    def test_unwanted(self, module: str, unwanted: str) -> None:
        """Importing a module in a new interpreter does not load these packages."""
        program = f"import sys, {module}; print(*sorted(set({unwanted.split()}) & set(sys.modules)))"

        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)

        assert done.stdout.split() == []


class TestScripts:
    """The scripts can be started as they are."""

    @pytest.mark.parametrize(
        "script",
        [
            "scripts/demo",
            "scripts/test",
            "scripts/test-console",
            "scripts/test-deploy",
            "scripts/test-replicas",
            "scripts/check",
            "scripts/bench",
            ".ci/run",
        ],
    )
    def test_executable(self, script: str) -> None:
        """Each script is executable and valid bash."""
        path, bash = ROOT / script, shutil.which("bash") or "bash"

        done = subprocess.run([bash, "-n", str(path)], capture_output=True, check=False)

        assert path.stat().st_mode & 0o111
        assert done.returncode == 0, done.stderr
