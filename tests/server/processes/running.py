"""Servers of several processes as an operator starts them, for tests that kill and starve them."""

import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.server.conftest import Site

WORKERS = 2
PATIENCE_S = 60.0
KEPT = "kept"
"""The log is kept in the file of the server."""


def eventually(holds: Callable[[], object], what: Callable[[], str] | str) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        time.sleep(0.02)


@dataclass
class Running:
    """A supervisor that was started as an operator does, and what it logs."""

    process: "subprocess.Popen[bytes]"
    log: Path
    secure: ssl.SSLContext | None = None
    """How its metrics are read, if that is encrypted."""

    def events(self, name: str) -> list[dict[str, Any]]:
        """What was logged under a name, by supervisor and workers."""
        written = self.log.read_text().rpartition("\n")[0]  # a line may be there in part
        lines = [json.loads(line) for line in written.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def wait_for(self, name: str, count: int = 1) -> dict[str, Any]:
        """Wait until something was logged so many times; gives the last one."""
        eventually(lambda: len(self.events(name)) >= count, lambda: f"no {name} in:\n{self.log.read_text()}")
        return self.events(name)[-1]

    @property
    def target(self) -> str:
        """Where all workers listen; several addresses stand between commas."""
        return str(self.wait_for("serving")["listen"])

    def pids(self) -> list[int]:
        """The newest process of each worker that has answered."""
        newest = {event["worker"]: event["pid"] for event in self.events("worker_answers")}
        return [newest[number] for number in sorted(newest)]

    def page(self) -> str:
        """Read the one metrics endpoint as Prometheus does."""
        address = self.wait_for("serving")["metrics_listen"]
        scheme = "http" if self.secure is None else "https"
        with urllib.request.urlopen(f"{scheme}://{address}/metrics", timeout=20, context=self.secure) as page:  # noqa: S310
            return str(page.read().decode())

    def scrape(self) -> dict[tuple[str, str], float]:
        """Read all samples: by name and labels."""
        return {
            (sample.name, json.dumps(sample.labels, sort_keys=True)): sample.value
            for family in text_string_to_metric_families(self.page())
            for sample in family.samples
        }

    def metric(self, name: str, **labels: str) -> float:
        """Add up the samples of a metric that have these labels."""
        return sum(
            value
            for (found, own), value in self.scrape().items()
            if found == name and labels.items() <= json.loads(own).items()
        )


@contextmanager
def running(
    site: Site, *flags: str, before: str = "", stderr: int | str = KEPT, **environment: str
) -> Iterator[Running]:
    """Start `iyscheck serve` with two workers on free ports; nothing of it outlives the block.

    `before` is code that the supervisor runs first; `stderr` is where its log goes instead of into the file. How
    processes start, end and break does not depend on the loops, which take a third of their start: unless a test
    says so by a PYTHONPATH of its own, numpy runs them.
    """
    environment.setdefault("PYTHONPATH", str(Path(__file__).parent / "without_numba"))
    arguments = [f"--store={site.path / 'store'}", f"--store-key={site.path / 'store.key'}"]
    arguments += [f"--address-key={site.path / 'address.key'}", "--drain-seconds=3", f"--workers={WORKERS}"]
    arguments += ["--metrics-listen=127.0.0.1:0", *flags]
    if not any(flag.startswith("--listen=") for flag in flags):
        arguments.append("--listen=127.0.0.1:0")
    log = site.path / f"server-{time.monotonic_ns()}.log"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("IYSCHECK_")}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", f"{before}\nfrom iyscheck.cli.app import main\nmain()", "serve", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file if isinstance(stderr, str) else stderr,
            env=clean | environment,
        )
    server = Running(process, log)
    try:
        yield server
    finally:
        process.kill()
        process.wait()
        for started in server.events("worker_started"):  # they would leave by themselves, but later
            if is_alive(started["pid"]):
                os.kill(started["pid"], signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter if it ends between opening and reading
        return False
