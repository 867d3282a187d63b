"""A worker as its supervisor sees it: a process to start and end, and a private socket to ask it through.

Workers are started anew (spawned), never forked: LMDB, gRPC and numba all forbid forks. Which of them gets a
connection to their common port is the kernel's choice, so each also listens in a private folder.
"""

import fcntl
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast
from urllib.parse import quote

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from iyscheck.errors import WorkersError
from iyscheck.server.last_good import NOTHING, LastGood
from iyscheck.server.probing.question import Probe
from iyscheck.server.processes.counters import VARIABLE
from iyscheck.server.processes.worker import Order
from iyscheck.server.settings import Settings
from iyscheck.server.threads import started_pool
from iyscheck.v1 import consent_check_pb2 as v1
from iyscheck.v1.consent_check_pb2_grpc import ConsentCheckServiceStub

ANSWER_S: Final = 2.0
LATE_S: Final = 5.0  # after the drain's own time
_START_S: Final = 600.0  # opening a large store on a cold disk, compiling the loops
_CHANNEL: Final = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 100),
)
_LONGEST_NAME: Final = 80  # of the 107 bytes that the name of a socket may have
PROGRAM: Final = "import sys; sys.path[:] = {path!r}; from iyscheck.server.processes.worker import main; main()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A private folder: for the workers' sockets, and for their counters."""

    path: Path
    counters: Path


@contextmanager
def private_folder() -> Iterator[Folder]:
    """Make a folder for this user only; the end of the block removes it. Raises WorkersError."""
    try:
        made = tempfile.TemporaryDirectory(prefix="iyscheck-", ignore_cleanup_errors=True)  # mode 0700
    except OSError as error:
        raise WorkersError(
            f"There is no temporary directory for the workers' sockets and counters: {error.strerror or error}.",
            fix="Mount a small one for writing and name it in TMPDIR, or use --workers 1, which needs none.",
        ) from None
    with made as name:
        if len(name) > _LONGEST_NAME:
            raise WorkersError(
                f"'{name}' is too long a name for sockets.", fix="Set TMPDIR to a shorter one, or use --workers 1."
            )
        folder = Folder(path=Path(name), counters=Path(name) / "counters")
        folder.counters.mkdir()
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)  # tells systemd-tmpfiles that nothing in here is old
            yield folder
        finally:
            os.close(descriptor)


def _as_uri(socket: Path) -> str:
    """Name a socket as gRPC reads it, where `?`, `#` and `%` mean something."""
    return f"unix:{quote(os.fsencode(socket))}"


class Child:
    """A worker as its supervisor sees it: a process, and questions on their way to it."""

    def __init__(
        self,
        number: int,
        settings: Settings,
        folder: Folder,
        serial: int,
        sockets: Sequence[Path] = (),
        good: LastGood = NOTHING,
        probe: Probe | None = None,
    ) -> None:
        """Start it; `serial` tells it from others with its number. Raises OSError, WorkersError.

        `sockets` are where it binds in place of the unix addresses of the settings. `good` is what it serves by where
        callers file and certificate cannot be used as they are. `probe` is what it is asked through the public
        addresses.
        """
        self.number = number
        self.serial = serial
        self.started_s = time.monotonic()
        self.answered_s: float | None = None
        self.kernel = ""
        """What runs the inner loops in it, as its first answer says."""
        self.is_silent = False
        self.due_s = self.started_s + _START_S
        """When it must be gone, or have answered."""
        self._control = folder.path / f"worker-{serial}"
        # A question that starts a thread of its own, as gRPC's futures do, may not get one, and then hangs for good.
        self._asker = started_pool(1, f"ask-{number}")
        self.channel: grpc.Channel | None = None
        """How it is asked, once its socket is there."""
        self._asked: Future[object] | None = None
        self._own = f"Bearer {secrets.token_hex(32)}"
        # As this process finds its modules, whatever the working directory holds (-P) and however we were started.
        program = PROGRAM.format(path=[path or str(Path.cwd()) for path in sys.path])
        name = f"iyscheck-worker-{number}"  # for people who look at processes
        try:
            with good.handed() as handed:
                order = Order(
                    worker=number,
                    settings=settings.plain(),
                    drain_s=settings.drain_seconds,
                    folder=str(folder.path),
                    control=_as_uri(self._control),
                    sockets=[str(path) for path in sockets],
                    own=self._own,
                    good=handed,
                    probe={} if probe is None else probe.plain(),
                )
                self.process = subprocess.Popen(  # noqa: S603 - our own program
                    [sys.executable, "-P", "-c", program, name],
                    stdin=subprocess.PIPE,
                    bufsize=0,
                    env=os.environ | {VARIABLE: str(folder.counters)},
                    pass_fds=(handed,),
                )
        except BaseException:
            self._asker.shutdown()
            raise
        self._lifeline = cast("IO[bytes]", self.process.stdin)
        with suppress(BrokenPipeError):  # it died at once, which the next round finds
            self._lifeline.write(order.line())

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self.process.pid

    @property
    def exit_code(self) -> int | None:
        """Return how it has ended, negative by a signal; None while it lives."""
        return self.process.poll()

    @property
    def is_asked(self) -> bool:
        """Whether a question is on its way to it."""
        return self._asked is not None

    def ask(self) -> None:
        """Keep one question on its way, and note what came of the last one."""
        if self._asked is None:
            self._asked = self._question()
        elif self._asked.done():
            asked, self._asked = self._asked, None
            error = asked.exception()
            if error is None and self.answered_s is None:
                self.answered_s = time.monotonic()
                self.kernel = cast("v1.GetServerInfoResponse", asked.result()).kernel
            self.is_silent = error is not None and self.answered_s is not None

    def drain(self, drain_s: float) -> None:
        """Ask it to end its work and go."""
        self.due_s = time.monotonic() + drain_s + LATE_S
        self.process.terminate()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()

    def close(self) -> None:
        """Let go of what was held for it; it is dead."""
        if self.channel is not None:
            self.channel.close()  # and with it a question on its way
        self._lifeline.close()
        self._asker.shutdown(wait=False, cancel_futures=True)
        self._control.unlink(missing_ok=True)

    def _question(self) -> Future[object] | None:
        """Ask through all layers once, then only whether it is there, which no metric counts."""
        if self.channel is None:
            if not self._control.exists():
                return None
            self.channel = grpc.insecure_channel(_as_uri(self._control), options=_CHANNEL)
        if self.answered_s is None:
            stub, own = ConsentCheckServiceStub(self.channel), (("authorization", self._own),)
            return self._asker.submit(stub.GetServerInfo, v1.GetServerInfoRequest(), timeout=ANSWER_S, metadata=own)
        check: grpc.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]
        check = health_pb2_grpc.HealthStub(self.channel).Check  # type: ignore[attr-defined] # the stubs forget it
        return self._asker.submit(check, health_pb2.HealthCheckRequest(), timeout=ANSWER_S)
