"""What the processes of a server use: time, descriptors, pages read from the disk, memory that is not the store's.

The memory that tools show as a worker's holds the mapped store too, which all of them share and the system may take
back; the anonymous part is what a worker really has. Pages of a cold store are the major faults.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

SUPERVISOR: Final = "supervisor"
_PROC: Final = Path("/proc")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
# Fields of /proc/PID/stat behind the name, which is in parentheses and may hold anything.
_MAJOR_FAULTS, _USER, _SYSTEM = 9, 11, 12
_ANONYMOUS: Final = "RssAnon:"


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What one process has used since it began, and what it holds now."""

    cpu_s: float
    major_faults: int
    open_fds: int
    anonymous_bytes: int

    @classmethod
    def of(cls, pid: int) -> "Usage":
        """Ask the system. Raises OSError where the process has gone."""
        process = _PROC / str(pid)
        fields = (process / "stat").read_bytes().rpartition(b")")[2].split()
        lines = (process / "status").read_text(errors="replace").splitlines()
        # One that has ended and is not waited for yet has no memory.
        anonymous = next((int(line.split()[1]) for line in lines if line.startswith(_ANONYMOUS)), 0)
        return cls(
            cpu_s=(int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS,
            major_faults=int(fields[_MAJOR_FAULTS]),
            open_fds=sum(1 for _ in (process / "fd").iterdir()),
            anonymous_bytes=anonymous * 1024,
        )


class _Total:
    """What the processes of one number have used in all: a successor goes on where the one before was last seen."""

    def __init__(self) -> None:
        self._pid = 0
        self._before = self.cpu_s = 0.0
        self._before_faults = self.faults = 0

    def add(self, pid: int, usage: Usage) -> None:
        if pid != self._pid:
            self._pid, self._before, self._before_faults = pid, self.cpu_s, self.faults
        self.cpu_s = max(self.cpu_s, self._before + usage.cpu_s)
        self.faults = max(self.faults, self._before_faults + usage.major_faults)


class Processes(Collector):
    """Shows the processes of a server. `running` gives their ids, by the number of a worker as text, or SUPERVISOR."""

    def __init__(self, running: Callable[[], Mapping[str, int]]) -> None:
        self._running = running
        self._lock = threading.Lock()
        self._totals: dict[str, _Total] = {}

    def describe(self) -> Iterable[Metric]:
        """Name nothing before the first scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Read what is known of each; of one that has just gone its totals stay."""
        labels = ("worker",)
        cpu = CounterMetricFamily("consent_process_cpu_seconds", "Processor time.", labels=labels)
        faults = CounterMetricFamily(
            "consent_process_major_page_faults", "Pages that had to be read from the disk.", labels=labels
        )
        fds = GaugeMetricFamily("consent_process_open_fds", "Open files and connections.", labels=labels)
        anonymous = GaugeMetricFamily(
            "consent_process_anonymous_bytes", "Memory that is not a mapped file's.", labels=labels
        )
        with self._lock:
            for worker, pid in self._running().items():
                total = self._totals.setdefault(worker, _Total())
                with suppress(OSError):
                    usage = Usage.of(pid)
                    total.add(pid, usage)
                    fds.add_metric([worker], usage.open_fds)
                    anonymous.add_metric([worker], usage.anonymous_bytes)
            for worker, total in self._totals.items():
                cpu.add_metric([worker], total.cpu_s)
                faults.add_metric([worker], total.faults)
        yield from (cpu, faults, fds, anonymous)
