"""Clears up behind a soak, however it ended: waits until its standard input ends, then ends what is left and goes.

Each process of a soak has a mark in its environment, which its children inherit. So orphans, stopped processes and
processes that nobody has heard of are found too, and nobody else's ever are.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

VARIABLE: Final = "CONSENT_SOAK"
"""Not one of our settings' names: the server refuses those that it does not know."""
_END_S: Final = 20.0


def marked(mark: str) -> list[int]:
    """List the processes that have this mark."""
    wanted = f"{VARIABLE}={mark}".encode()
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is somebody else's
            if wanted in (each / "environ").read_bytes().split(b"\0"):
                found.append(int(each.name))
    return found


def sweep(mark: str) -> None:
    """Kill all processes that have this mark, until there is none: one may be starting another."""
    until = time.monotonic() + _END_S
    while (found := marked(mark)) and time.monotonic() < until:
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _remove(group: Path) -> None:
    """Remove a control group, which is busy until somebody has waited for the processes that were in it."""
    until = time.monotonic() + _END_S
    while group.exists() and time.monotonic() < until:
        with suppress(OSError):
            group.rmdir()
        time.sleep(0.05)


def main(arguments: list[str]) -> None:
    """Wait for the end; then clear up: MARK, a mounted folder or nothing, a control group or nothing, the folder."""
    mark, mounted, group, folder = arguments
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    sweep(mark)
    if mounted:
        subprocess.run(["/usr/bin/env", "umount", "-l", mounted], check=False)
    if group:
        _remove(Path(group))
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
