"""h2load, a load generator in C: one Python client cannot keep a server's core busy with single checks.

It sends the same question every time, to every server alike. What a look-up of always the same record saves is well
under a percent of a call; the Python generator beside it asks distinct ones.
"""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.arrivals import percentiles
from bench.callers import CHECK
from bench.machine import on_core
from bench.measures import Run
from bench.peers.programs import program
from bench.processes import ProcessError

CONNECTIONS = 4


def command(
    target: str, payload: Path, *, concurrency: int, seconds: float, connections: int = CONNECTIONS
) -> list[str]:
    """Write the command line: `concurrency` calls at once, over several connections where they can be shared out."""
    connections = connections if concurrency % connections == 0 else 1
    return [
        program("h2load", "nghttp2-client"),
        "-c",
        str(connections),
        "-m",
        str(concurrency // connections),
        "-D",
        f"{max(1, round(seconds))}",
        "--warm-up-time=1",
        "-d",
        str(payload),
        "-H",
        "content-type: application/grpc",
        "-H",
        "te: trailers",
        f"http://{target}{CHECK}",
    ]  # fmt: skip - flags and their values


def lone(target: str, payload: Path, *, seconds: float, core: int, folder: Path) -> Run:
    """Ask one at a time for some seconds; with percentiles. Raises AbsentError, and ProcessError where calls fail."""
    log = folder / "h2load.log"
    log.unlink(missing_ok=True)
    run = _asked(command(target, payload, concurrency=1, seconds=seconds), core, f"--log-file={log}")
    taken_us = np.array([int(line.split("\t")[2]) for line in log.read_text().splitlines()])
    return Run(run.value, {name: float(value) for name, value in percentiles(taken_us / 1e6).items()})


def rate(
    target: str,
    payload: Path,
    *,
    concurrency: int,
    seconds: float,
    core: int | Sequence[int],
    connections: int = CONNECTIONS,
) -> Run:
    """Ask for some seconds; requests per second. Raises AbsentError, and ProcessError where calls fail."""
    line = command(target, payload, concurrency=concurrency, seconds=seconds, connections=connections)
    return _asked(line, core)


def _asked(line: Sequence[str], core: int | Sequence[int], *flags: str) -> Run:
    with on_core(*((core,) if isinstance(core, int) else core)):
        done = subprocess.run([line[0], *flags, *line[1:]], capture_output=True, text=True, check=False)
    found = re.search(r"finished in [\d.]+\w+, ([\d.]+) req/s", done.stdout)
    counts = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", done.stdout)
    failed = re.search(r"(\d+) failed, (\d+) errored", done.stdout)
    if not found or not counts or not failed or any(int(number) for number in (*counts.groups()[1:], *failed.groups())):
        raise ProcessError(f"h2load: {done.stdout[-1500:]}{done.stderr[-500:]}")
    return Run(float(found[1]))
