"""The command as its users run it, in a process of its own or inside this one."""

import contextlib
import io
import os
import subprocess
import sys
from typing import NamedTuple
from unittest import mock

import pytest

from iyscheck.cli.app import main

MAIN = "from iyscheck.cli.app import main; main()"


class Done(NamedTuple):
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def as_process(*arguments: str, code: str = MAIN, **environment: str) -> Done:
    """Run the command as its users do."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=_inherited() | environment,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def iyscheck(*arguments: str, text: str = "") -> Done:
    """Run the command inside this process, which is a hundred times as fast."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["iyscheck", *arguments]),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()))),
        mock.patch.dict(os.environ, _inherited(), clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def _inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("IYSCHECK_")}
