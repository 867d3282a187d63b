import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

from iyscheck import streams


@pytest.mark.parametrize(("module", "closed"), [("iyscheck", (0, 1, 2)), ("iyscheck", (1,)), ("loader", (0, 2))])
def test_closed(tmp_path: str, module: str, closed: tuple[int, ...]) -> None:
    """A command that is started without streams opens them to nowhere: no file of ours gets their numbers."""
    program = (
        "import os, runpy, signal, sys\n"
        f"for number in {closed}: os.close(number)\n"
        f"os.execv(sys.executable, [sys.executable, '-c', sys.argv[1], sys.argv[2]])"
    )
    inner = (
        "import os, runpy, signal, sys\n"
        "def looked(*_):\n"
        f"    opened = [os.readlink(f'/proc/self/fd/{{number}}') for number in {list(closed)}]\n"
        "    streams = [stream is not None for stream in (sys.stdin, sys.stdout, sys.stderr)]\n"
        "    open(sys.argv[1], 'w').write(f'{opened} {all(streams)}')\n"
        "    os._exit(0)\n"
        "signal.signal = looked\n"
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=False)\n"
    )
    found = f"{tmp_path}/found"
    subprocess.run([sys.executable, "-c", program, inner, found], check=True, capture_output=True)

    with open(found) as file:  # noqa: PTH123 - one line
        assert file.read() == f"{['/dev/null'] * len(closed)} True"


@pytest.mark.parametrize(
    ("told", "left"),
    [
        ({}, {"GRPC_VERBOSITY": "NONE"}),
        ({"GRPC_VERBOSITY": ""}, {"GRPC_VERBOSITY": "NONE"}),
        ({"GRPC_VERBOSITY": "DEBUG"}, {"GRPC_VERBOSITY": "DEBUG"}),
        ({"GRPC_TRACE": "tsi"}, {"GRPC_TRACE": "tsi"}),
    ],
    ids=str,
)
def test_grpc_is_silent(monkeypatch: pytest.MonkeyPatch, told: Mapping[str, str], left: Mapping[str, str]) -> None:
    """Our programs keep gRPC silent, unless they are told otherwise."""
    for name in ("GRPC_VERBOSITY", "GRPC_TRACE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)

    streams.keep_grpc_silent()

    assert {name: value for name, value in os.environ.items() if name in {"GRPC_VERBOSITY", "GRPC_TRACE"}} == left


@pytest.mark.parametrize("module", ["iyscheck.client", "iyscheck.engine", "iyscheck.cli.app"])
def test_environment_of_others(module: str) -> None:
    """Who imports us keeps the environment, and with it what gRPC writes."""
    program = f"import os; before = dict(os.environ); import {module}; assert dict(os.environ) == before"
    subprocess.run([sys.executable, "-c", program], check=True)
