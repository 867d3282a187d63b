"""The server under soak: started, killed, started again, and kept alive as a restart policy would."""

import http.client
import os
import re
import signal
import subprocess
import threading
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from bench.soak.site import Site, free_port

WORKERS: Final = 2
_DRAIN_S: Final = 3
_AGAIN_S: Final = 1.0
_END_S: Final = 60.0
_METRICS_S: Final = 5.0
_SERVING: Final = re.compile(rb'^consent_workers\{state="serving"\} (\S+)$', re.MULTILINE)
_WATCHERS: Final = re.compile(rb"^consent_health_watchers (\S+)$", re.MULTILINE)
_READER: Final = "import sys\nwhile sys.stdin.buffer.readline(): pass"


@dataclass(kw_only=True)
class Server:
    """`iyscheck serve` with two workers on a port that stays the same over all restarts."""

    site: Site
    port: int = field(default_factory=free_port)
    metrics_port: int = field(default_factory=free_port)
    native_port: int | None = field(default_factory=lambda: free_port() if find_spec("pygrpc_native") else None)
    """Of the native front, where its package is installed."""
    ends: Counter[str] = field(default_factory=Counter)
    """How often it ended without having been told to, by exit code."""
    _process: "subprocess.Popen[bytes] | None" = None
    _reader: "subprocess.Popen[bytes] | None" = None
    """What reads its log, if that is a pipe."""
    _starts: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _ended: bool = False

    @property
    def target(self) -> str:
        """Where it is asked."""
        return f"127.0.0.1:{self.port}"

    @property
    def native_target(self) -> str:
        """Where the front for unary calls is asked: the native one where there is one."""
        return self.target if self.native_port is None else f"127.0.0.1:{self.native_port}"

    @property
    def pid(self) -> int | None:
        """The process id of the supervisor, while it lives."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def has_ended(self) -> bool:
        """Whether the supervisor has ended."""
        return self._process is not None and self._process.poll() is not None

    def last_words(self) -> str:
        """Return the end of its log, where that is a file."""
        path = self.site.disk / f"server-{self._starts}.log"
        return path.read_text(errors="replace")[-500:] if path.exists() else ""

    @property
    def log_is_read(self) -> bool:
        """Whether the log goes to a reader that may go away."""
        return self._reader is not None

    def start(self, *, to_reader: bool = False) -> None:
        """Start it; its log goes to a file on the small disk, or to a reader."""
        with self._lock:
            self._starts += 1
            arguments = [*self.site.keys, f"--workers={WORKERS}", f"--drain-seconds={_DRAIN_S}"]
            arguments += [f"--listen={self.target}", f"--metrics-listen=127.0.0.1:{self.metrics_port}"]
            if self.native_port is not None:
                arguments.append(f"--native-listen={self.native_target}")
            self.leave_log()
            writing = self._read_log() if to_reader else self._new_log()
            try:
                self._process = self.site.start(
                    ["-m", "iyscheck", "serve", *arguments], output=subprocess.DEVNULL, errors=writing
                )
            finally:
                os.close(writing)
            self.site.join_group(self._process.pid)

    def _read_log(self) -> int:
        """Start a reader of the log."""
        reading, writing = os.pipe()
        try:
            self._reader = self.site.start(["-c", _READER], inputs=reading, output=subprocess.DEVNULL)
        finally:
            os.close(reading)
        return writing

    def _new_log(self) -> int:
        """Open a new log; the one before last is dropped, so that the disk stays as full as it is."""
        (self.site.disk / f"server-{self._starts - 2}.log").unlink(missing_ok=True)
        path = self.site.disk / f"server-{self._starts}.log"
        return os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    def workers(self) -> list[int]:
        """List the processes of the workers."""
        pid = self.pid
        found: list[int] = []
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        return sorted(found)

    def serving(self) -> int:
        """Count the workers that serve, as the supervisor tells in its metrics; 0 if it does not."""
        return self._figure(_SERVING) or 0

    def watchers(self) -> int | None:
        """Count the watchers of the health over all workers; None if nobody tells."""
        return self._figure(_WATCHERS)

    def _figure(self, line: re.Pattern[bytes]) -> int | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=_METRICS_S)
        with closing(connection), suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/metrics")
            found = line.search(connection.getresponse().read())
            return int(float(found[1])) if found else None
        return None

    def kill(self) -> None:
        """Kill the supervisor; its workers have to notice."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.wait()

    def stop(self) -> int:
        """Tell it to end, and return its exit code."""
        with self._lock:
            process = self._process
            if process is None:
                return 0
            process.terminate()
            try:
                return process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                return -signal.SIGKILL

    def end(self) -> int:
        """Tell it to end for good."""
        self._ended = True
        return self.stop()

    def restart(self, *, to_reader: bool = False) -> int:
        """End it in order and start it again; returns with which exit code it ended."""
        with self._lock:
            code = self.stop()
            self.start(to_reader=to_reader)
            return code

    def start_again(self) -> None:
        """Kill the supervisor and start the server anew at once."""
        with self._lock:
            self.kill()
            self.start()

    def leave_log(self) -> None:
        """Let the reader of the log go away."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.kill()
            reader.wait()

    def keep(self, over: threading.Event) -> None:
        """Start it again whenever it has ended by itself, until `over`; to be run in a thread."""
        while not over.wait(_AGAIN_S):
            with self._lock:
                if self._ended or self._process is None:
                    continue
                code = self._process.poll()
                if code is not None:
                    self.ends[f"exit code {code}"] += 1
                    self.start()
