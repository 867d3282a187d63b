"""h2load, a load generator in C: one Python client cannot keep a server's core busy with single checks.

It sends the same question every time, to every server alike. What a look-up of always the same record saves is well
under a percent of a call; the Python generator beside it asks distinct ones.
"""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

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
    with on_core(*((core,) if isinstance(core, int) else core)):
        done = subprocess.run(
            command(target, payload, concurrency=concurrency, seconds=seconds, connections=connections),
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip - what is run, and how
    found = re.search(r"finished in [\d.]+\w+, ([\d.]+) req/s", done.stdout)
    counts = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", done.stdout)
    failed = re.search(r"(\d+) failed, (\d+) errored", done.stdout)
    if not found or not counts or not failed or any(int(number) for number in (*counts.groups()[1:], *failed.groups())):
        raise ProcessError(f"h2load: {done.stdout[-1500:]}{done.stderr[-500:]}")
    return Run(float(found[1]))
