"""What processes use, as metrics: of real processes that end and are replaced."""

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from iyscheck.server.gauges.usage import Processes, Usage

MUCH = 64 * 2**20
BUSY = """
import sys, time
kept = bytearray(b"x" * {much})
while time.process_time() < 0.1:
    pass
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def process(much: int = 0) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a process that keeps so much memory; it has worked by the time it is given."""
    started = subprocess.Popen(
        [sys.executable, "-c", BUSY.format(much=much)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"ready\n"
        yield started
        started.kill()


def shown(processes: Processes) -> dict[tuple[str, str], float]:
    """Show what is collected, by name and worker."""
    return {
        (sample.name, sample.labels["worker"]): sample.value for each in processes.collect() for sample in each.samples
    }


def test_usage() -> None:
    """Memory that a process keeps for itself, its time and its descriptors are seen."""
    with process() as small, process(MUCH) as large:
        few, much = Usage.of(small.pid), Usage.of(large.pid)

    assert 0.9 * MUCH < much.anonymous_bytes - few.anonymous_bytes < 2 * MUCH  # which differ by some pages as it is
    assert much.cpu_s > 0
    assert few.open_fds == 3
    assert few.major_faults >= 0


def test_mapped_file(tmp_path: Path) -> None:
    """A mapped file that was read is no memory of the process's own."""
    path = tmp_path / "mapped"
    path.write_bytes(b"x" * MUCH)
    before = Usage.of(os.getpid()).anonymous_bytes
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert sum(mapped[at] for at in range(0, MUCH, 4096)) == MUCH // 4096 * ord("x")
        grown = Usage.of(os.getpid()).anonymous_bytes - before

    assert grown < MUCH // 2


def test_replaced() -> None:
    """A worker's counters go on with its successor, and stay while there is none; gauges are of who lives."""
    running: dict[str, int] = {}
    processes = Processes(lambda: dict(running))
    cpu, fds = ("consent_process_cpu_seconds_total", "0"), ("consent_process_open_fds", "0")
    seen = []
    for _ in range(3):
        with process() as child:
            running["0"] = child.pid
            seen.append(shown(processes))
        gone = shown(processes)
        assert gone[cpu] == seen[-1][cpu]
        assert fds not in gone
        running.clear()
        assert shown(processes)[cpu] == seen[-1][cpu]

    totals = [each[cpu] for each in seen]
    assert 0 < totals[0] < totals[1] < totals[2]
