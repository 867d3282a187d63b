import importlib.util
import json
import logging
import re
import resource
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numba
import numpy as np
import pytest

from iyscheck.errors import KernelError
from iyscheck.kernel import Kernel
from iyscheck.store.index import loops
from tests.embedding import PEOPLE, ask_all, make_store, open_engine, run
from tests.processes import Site, turkish_now

LOOP = """
from iyscheck.kernel import Compiled

@Compiled
def double(values):
    for row in range(values.size):
        values[row] *= 2
"""


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], ModuleType]:
    """Load a module with a loop, as each process does anew; its files are beside it."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    source = tmp_path / "loop.py"
    source.write_text(LOOP)

    def load() -> ModuleType:
        spec = importlib.util.spec_from_file_location("loop", source)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "loop", module)
        spec.loader.exec_module(module)
        return module

    return load


def doubled(module: ModuleType) -> list[int]:
    """Run the loop twice."""
    values = np.arange(3)
    module.double(values)
    module.double(values)
    found: list[int] = values.tolist()
    return found


class TestFiles:
    """A loop runs whatever became of the files that it is kept in, and says so once."""

    @pytest.mark.parametrize(("ending", "size"), [("nbi", 0), ("nbi", 30), ("nbc", 0), ("nbc", 500)])
    def test_damaged(
        self, loop: Callable[[], ModuleType], tmp_path: Path, caplog: pytest.LogCaptureFixture, ending: str, size: int
    ) -> None:
        """A file that lost its end, or all of it."""
        doubled(loop())
        (file,) = (tmp_path / "__pycache__").glob(f"*.{ending}")
        file.write_bytes(file.read_bytes()[:size])
        caplog.clear()

        assert doubled(loop()) == [0, 4, 8]
        assert [record.__dict__["event"] for record in caplog.records] == ["loops_not_kept"]

    def test_full(self, loop: Callable[[], ModuleType], caplog: pytest.LogCaptureFixture) -> None:
        """No room for a file."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        module = loop()
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            found = doubled(module)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

        assert found == [0, 4, 8]
        assert [record.__dict__["error"] for record in caplog.records] == ["OSError"]

    def test_no_compiler(self, loop: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
        """Where compiling fails too, a call raises one error of ours."""

        def fail(*_: object, **__: object) -> None:
            raise MemoryError

        monkeypatch.setattr(numba, "njit", fail)

        with pytest.raises(KernelError, match=re.escape("cannot run here (MemoryError). Uninstall numba")):
            doubled(loop())


class TestNumpyInstead:
    """Where numba cannot run, numpy does, and everybody can see it."""

    def test_no_executable_memory(self, tmp_path: Path) -> None:
        """Under `MemoryDenyWriteExecute` an engine answers; it says so once."""
        program = (
            "import ctypes, sys, warnings\n"
            "if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0): sys.exit(77)\n"  # PR_SET_MDWE
            "from tests.embedding import PEOPLE, ask_all, open_engine\n"
            "engine = open_engine(sys.argv[1])\n"
            "print(engine.kernel, ask_all(engine, PEOPLE * 5).tolist()[:2])\n"
            "print(ask_all(engine, PEOPLE).size, engine.kernel)"
        )
        result = run(program, make_store(tmp_path))
        if result.returncode == 77:
            pytest.skip("this kernel is older than Linux 6.3: it knows no PR_SET_MDWE")

        assert result.stdout.split() == ["numba", "[1,", "69]", str(len(PEOPLE)), "numpy"]
        assert result.stderr == (
            "The compiled loops cannot run here (PermissionError). numpy gives the same answers, more slowly.\n"
        )

    def test_loader(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The loader asks before it begins."""
        monkeypatch.setitem(sys.modules, "numba", None)

        assert Kernel.NUMBA.usable() is Kernel.NUMPY
        assert Kernel.NUMPY.usable() is Kernel.NUMPY

    def test_server(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Log and metric say what runs."""
        site = Site.make(tmp_path)
        make = {"iysCode": 600_123, "brandCode": 600_123, "recipient": "+905321000001", "type": "MESAJ"}
        feed = site.feed("a.jsonl", [make | {"status": "ONAY", "recipientType": "BIREYSEL", "source": "HS_WEB"}])
        site.load(str(feed), "--complete-until", turkish_now())
        broken = tmp_path / "broken"
        broken.mkdir()
        (broken / "numba.py").write_text("raise PermissionError('no')")
        monkeypatch.setenv("PYTHONPATH", f"{broken}:{Path(__file__).parent.parent}")

        with (
            site.serving("--workers=2") as said,
            urllib.request.urlopen(f"http://{said['metrics_listen']}/metrics") as page,
        ):
            build = re.search(r'consent_build_info\{.*kernel="(\w+)"', page.read().decode())
        assert said["kernel"] == "numpy"
        assert build is not None
        assert build[1] == "numpy"
        lines = [json.loads(line) for line in site.printed[-1].splitlines()]
        assert [line["message"] for line in lines if line["event"] == "kernel_not_usable"] == [
            "The compiled loops cannot run here (PermissionError). numpy gives the same answers, more slowly."
        ] * 2


def test_engine_falls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A loop that fails when its turn comes is run by numpy."""

    def fail(*_: object) -> None:
        raise KernelError("no.") from MemoryError()

    caplog.set_level(logging.WARNING)
    with open_engine(make_store(tmp_path / "store"), Kernel.NUMBA) as engine:
        monkeypatch.setattr(loops, "look_up", fail)
        assert ask_all(engine, PEOPLE[:2]).tolist() == [1, 69]
        assert engine.kernel is Kernel.NUMPY
    assert [record.__dict__["error"] for record in caplog.records] == ["MemoryError"]
