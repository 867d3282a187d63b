"""What the service manager is told of a server: when it serves, is replaced or ends, and that somebody answers.

A sign of life is given on evidence only: a question that was answered a moment ago, through gRPC, by a worker or, where
there is none, by this very process. Whether the store can be read is no part of it: a restart mends no store, and would
take exempt messages with it (decision 90).
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Final

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from iyscheck.server.lookout import Lookout
from iyscheck.server.processes.child import ANSWER_S, as_uri, private_folder
from iyscheck.server.processes.supervisor import Supervisor
from iyscheck.server.threads import start
from iyscheck.service_manager import ServiceManager

ALONE: Final = "serving, one process"
DRAINING: Final = "draining"
_MOST_S: Final = 5.0
_OFTEN: Final = 4


class Notices:
    """What is told of a supervisor of `count` workers, round by round."""

    def __init__(self, manager: ServiceManager, supervisor: Supervisor, count: int) -> None:
        self._manager = manager
        self._supervisor = supervisor
        self._count = count
        self._is_rolling = False

    @property
    def status(self) -> str:
        """Say for people how many serve."""
        serving = self._supervisor.metrics.states.get("serving", 0)
        of = "" if serving == self._count else f"{serving} of "
        return f"{'serving' if serving else 'not serving'}, {of}{self._count} workers"

    def tell(self) -> None:
        """Tell what has changed, and that a worker answers, if one does."""
        was_rolling, self._is_rolling = self._is_rolling, self._supervisor.is_rolling
        if self._is_rolling and not was_rolling:
            self._manager.reloading("replacing the workers one by one")
        elif was_rolling and not self._is_rolling:
            self._manager.ready(self.status)
        elif not self._is_rolling:
            self._manager.status(self.status)
        if self._supervisor.is_answering:
            self._manager.alive()


class OwnCheck:
    """How a server without a supervisor proves that it answers: it asks itself, through a socket of its own.

    Without a watchdog nobody asks, and nothing is made.
    """

    def __init__(self, manager: ServiceManager, parts: ExitStack) -> None:
        """`parts` get what has to be taken away at the end. Raises WorkersError where there is no room for a socket."""
        self._manager = manager
        self._parts = parts
        self.control = ""
        """Where the server has to listen for it, too."""
        if manager.watchdog_s is not None:
            self.control = as_uri(Path(parts.enter_context(private_folder()).path) / "own")

    def begin(self, log: structlog.typing.FilteringBoundLogger) -> None:
        """Ask from now on, in a thread: if that hangs, no sign of life is given either. Raises WorkersError."""
        if self._manager.watchdog_s is None:
            return
        channel = self._parts.enter_context(grpc.insecure_channel(self.control))
        check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined] # the stubs forget it

        def look() -> None:
            try:
                check(health_pb2.HealthCheckRequest(), timeout=ANSWER_S)
            except grpc.RpcError:  # the next look asks again
                return
            self._manager.alive()

        lookout = Lookout(look, min(self._manager.watchdog_s / _OFTEN, _MOST_S), "own-check", log)
        self._parts.callback(lookout.stop)
        start(lookout.thread)
