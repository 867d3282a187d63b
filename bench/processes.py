"""Processes that a benchmark starts: each on one core, its output in a log, ended when its `with` block ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self, cast

from bench.machine import ROOT, on_core

START_S = 600.0
"""A reader of a large store may take long to start; nothing is measured by it."""
STOP_S = 60.0


class ProcessError(RuntimeError):
    """A process did not start, died, or says that it failed; names its log."""


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """Where code is run from, and by which Python: this commit's, or another one's beside it."""

    folder: Path = ROOT
    python: str = sys.executable

    def command(self, *arguments: str) -> list[str]:
        """Complete a command line that starts with this checkout's Python."""
        return [self.python, *arguments]


HERE = Checkout()


@contextmanager
def running(
    command: Sequence[str],
    *,
    core: int | Sequence[int],
    log: Path,
    checkout: Checkout = HERE,
    environ: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program on one core (or some) for the time of the block; SIGTERM ends it, SIGKILL if it stays."""
    with log.open("wb") as output, on_core(*_cores(core)):
        process = subprocess.Popen(
            command,
            cwd=checkout.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(os.environ) | dict(environ or {}),
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _cores(core: int | Sequence[int]) -> Sequence[int]:
    return (core,) if isinstance(core, int) else core


def wait_until(ready: Callable[[], str | None], process: subprocess.Popen[bytes], log: Path) -> str:
    """Ask until there is an answer. Raises ProcessError if the process ends or takes too long."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        if (found := ready()) is not None:
            return found
        time.sleep(0.02)
    raise ProcessError(f"{process.args!r} did not start; see {log}:\n{log.read_text(errors='replace')[-2000:]}")


@contextmanager
def serving(
    command: Sequence[str], *, core: int | Sequence[int], log: Path, checkout: Checkout = HERE
) -> Iterator["Serving"]:
    """Run a server that logs `{"event": "serving", "listen": ...}`, or its port on a line alone."""

    def listening() -> str | None:
        for line in log.read_text(errors="replace").splitlines():
            if '"event": "serving"' in line:
                return line
            if line.isdigit():
                return json.dumps({"listen": f"127.0.0.1:{line}"})
        return None

    with running(command, core=core, log=log, checkout=checkout) as process:
        said = json.loads(wait_until(listening, process, log))
        yield Serving(
            pid=process.pid,
            target=said["listen"],
            metrics=said.get("metrics_listen", ""),
            native=said.get("native_listen", ""),
            workers=tuple(said.get("workers", ())),
        )


@dataclass(frozen=True, kw_only=True)
class Serving:
    """A server that runs."""

    pid: int
    target: str
    metrics: str
    native: str = ""
    """Where its native front listens."""
    workers: tuple[int, ...] = ()
    """The processes that answer, where that is not the one that was started."""

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used so far, in all its processes."""
        ticks = 0
        for pid in (self.pid, *self.workers):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


class Remote:
    """An object in a process of its own on one core; `call` runs one of its methods there."""

    def __init__(
        self,
        name: str,
        arguments: Mapping[str, object],
        *,
        core: int | Sequence[int],
        log: Path,
        checkout: Checkout = HERE,
    ) -> None:
        self._log = log
        command = checkout.command("-m", "bench.worker", name, json.dumps(arguments))
        with log.open("ab") as errors, on_core(*_cores(core)):
            self._process = subprocess.Popen(
                command, cwd=checkout.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self._input, self._output = cast("IO[str]", self._process.stdin), cast("IO[str]", self._process.stdout)
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, method: str, **arguments: object) -> dict[str, float]:
        """Call a method there and wait for its answer. Raises ProcessError with what it raised."""
        self.send(method, **arguments)
        return self._answer()

    def send(self, method: str, **arguments: object) -> None:
        """Begin a call; `receive` waits for its end."""
        self._input.write(json.dumps({"method": method, "arguments": arguments}) + "\n")
        self._input.flush()

    def receive(self) -> dict[str, float]:
        """Wait for the answer to `send`."""
        return self._answer()

    def close(self) -> None:
        """End the process: it ends by itself when nothing more can be asked."""
        with suppress(BrokenPipeError):  # it died before it read the last call
            self._input.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()

    def _answer(self) -> dict[str, float]:
        line = self._output.readline()
        if not line:
            raise ProcessError(f"{self._process.args!r} died; see {self._log}:\n{self._log.read_text()[-2000:]}")
        said = json.loads(line)
        if "error" in said:
            raise ProcessError(f"{said['error']}; see {self._log}")
        answer: dict[str, float] = said["answer"]
        return answer
