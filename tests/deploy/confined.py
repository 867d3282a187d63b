"""Starts a command under a unit's filters of system calls and of address families, as systemd would.

    python tests/deploy/confined.py UNIT COMMAND...

The groups (`@system-service`) are those of the systemd that is installed. Where the unit denies memory that is written
and then run, the kernel's own word for that does (PR_SET_MDWE), if it knows it.
"""

import ctypes
import errno
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import pyseccomp

from tests.deploy.conftest import directives

_SET_MDWE: Final = 65
_REFUSE_EXEC_GAIN: Final = 1


def calls(names: list[str]) -> set[str]:
    """Say which system calls are meant by names and groups."""
    found: set[str] = set()
    for name in names:
        if not name.startswith("@"):
            found.add(name)
            continue
        told = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True)
        lines = [line.strip() for line in told.stdout.splitlines()[1:]]
        found |= calls([line for line in lines if line and not line.startswith("#")])
    return found


def allowed(lines: list[str]) -> set[str]:
    """Add and take away, line by line; the first one allows, so what nobody names is denied."""
    found = calls(["@default"])
    for line in lines:
        named = calls(line.removeprefix("~").split())
        found = found - named if line.startswith("~") else found | named
    return found


def confine(unit: dict[str, list[str]]) -> None:
    """Take this process, and those that it starts, what the unit does not allow."""
    wanted = pyseccomp.SyscallFilter(pyseccomp.ERRNO(getattr(errno, unit["SystemCallErrorNumber"][0])))
    for name in sorted(allowed(unit["SystemCallFilter"]) - {"socket"}):
        try:
            wanted.add_rule(pyseccomp.ALLOW, name)
        except (OSError, ValueError, RuntimeError):
            continue  # no call of this machine
    families = {getattr(socket, name) for name in unit["RestrictAddressFamilies"][0].split()}
    for family in range(64):
        answer = pyseccomp.ALLOW if family in families else pyseccomp.ERRNO(errno.EAFNOSUPPORT)
        wanted.add_rule(answer, "socket", pyseccomp.Arg(0, pyseccomp.EQ, family))
    wanted.load()
    if unit["MemoryDenyWriteExecute"] == ["yes"]:
        ctypes.CDLL(None).prctl(_SET_MDWE, _REFUSE_EXEC_GAIN, 0, 0, 0)


if __name__ == "__main__":
    confine(directives(Path(sys.argv[1])))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - the command of a test
