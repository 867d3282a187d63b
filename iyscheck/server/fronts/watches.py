"""Who watches the health: thousands of open calls without a thread each, of which none can hold up another.

Our lock is never held while anything of gRPC is called: gRPC's only polling thread takes it when a watcher leaves.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any, Final

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from iyscheck.server.fronts.lines import Line, Lines, SendAndWait

MAX_WATCHERS: Final = 10_000
PATIENCE_S: Final = 30.0
"""For how long a watcher may leave what it is told untaken."""
_SOON_S: Final = 0.5  # less than the notice before watches end: who got no word of that by then takes nothing
_LONGEST_NAME: Final = 256
_SLICE: Final = 50
_PAUSE_S: Final = 0.001  # gRPC's thread gets to what became of a slice, and to calls that wait behind that

_Status = health_pb2.HealthCheckResponse


class _Watcher:
    """An open watch. What changes is guarded by the lock of all."""

    __slots__ = ("line", "over", "service", "since", "told")

    def __init__(self, service: str) -> None:
        self.service = service
        self.line: Line | None = None
        self.over = False
        """Whether it was ended by us."""
        self.told: int | None = None
        self.since: float | None = None
        """When the message was sent that is on its way, if one is."""


class Watches(health_pb2_grpc.HealthServicer):
    """The health service. A watcher is told the newest status when it has taken the one before; none are queued."""

    def __init__(
        self,
        log: structlog.typing.FilteringBoundLogger,
        most: int = MAX_WATCHERS,
        *,
        counted: Callable[[int], object] = lambda _: None,
    ) -> None:
        """`counted` is told at once how many watchers there are."""
        self._lines = Lines(log)
        self._most = most
        self._counted = counted
        self._lock = threading.Lock()
        self._statuses: dict[str, int] = {}
        self._watchers: dict[str, set[_Watcher]] = {}
        self._open = 0
        self._draining = self._ended = False

    def __len__(self) -> int:
        return self._open

    def Check(  # noqa: N802 - gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """Tell the status of a name."""
        status = self._statuses.get(request.service)
        if status is None:
            context.set_code(grpc.StatusCode.NOT_FOUND)
            return _Status()
        return _Status(status=status)

    def List(self, request: object, context: grpc.ServicerContext) -> Any:  # noqa: ANN401, N802 - the stubs lack it
        """Tell the status of each name."""
        del request, context
        with self._lock:
            statuses = dict(self._statuses)
        messages: Any = health_pb2
        return messages.HealthListResponse(statuses={name: _Status(status=status) for name, status in statuses.items()})

    def Watch(  # type: ignore[override] # noqa: N802 - gRPC's name; a third argument for those that do not block
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.ServicerContext,
        send_and_wait: SendAndWait,
    ) -> None:
        """Tell the status now and from then on, and return: gRPC keeps the call open."""
        watcher = _Watcher(request.service[:_LONGEST_NAME])  # a longer one is no name of ours
        refused = self._enter(watcher)
        if refused:
            context.abort(*refused)
        try:
            watcher.line = self._lines.open(context, send_and_wait, lambda: self._taken(watcher))
        except BaseException:  # also gRPC's own, where the watcher is gone by now
            self._leave(watcher)
            raise
        if not context.add_callback(lambda: self._leave(watcher)):
            self._leave(watcher)
            return
        self._tell(watcher)
        if self._ended:  # and `end` may not have seen its line yet
            self._end(watcher)

    def offered(self, pool: ThreadPoolExecutor) -> Any:  # noqa: ANN401 - the stubs want a servicer of one pool for all
        """Offer the calls to gRPC so that they run in `pool`."""
        calls: dict[str, Any] = {name: partial(getattr(self, name)) for name in ("Check", "List", "Watch")}
        for call in calls.values():
            call.experimental_thread_pool = pool
        calls["Watch"].experimental_non_blocking = True
        return SimpleNamespace(**calls)

    def set(self, service: str, status: int) -> None:
        """Set the status of a name and tell its watchers, unless the server is draining."""
        with self._lock:
            if self._draining:
                return
            self._statuses[service] = status
        self._tell_all()

    def enter_graceful_shutdown(self) -> None:
        """Set all names to NOT_SERVING for good, and tell it."""
        with self._lock:
            self._draining = True
            self._statuses = dict.fromkeys(self._statuses, _Status.NOT_SERVING)
        self._tell_all()

    def end(self) -> None:
        """End all watches: open ones would keep a server that stops for as long as its grace lasts."""
        with self._lock:
            self._ended = True
            watchers = [watcher for each in self._watchers.values() for watcher in each]
        for watcher in _paced(watchers):
            self._end(watcher)

    def end_stuck(self) -> int:
        """End the watches of those that have taken nothing for too long; returns how many."""
        long_ago = time.monotonic() - PATIENCE_S
        with self._lock:
            stuck = [
                watcher
                for each in self._watchers.values()
                for watcher in each
                if watcher.since is not None and watcher.since < long_ago
            ]
        for watcher in stuck:
            if watcher.line is not None:
                watcher.line.cut()
        return len(stuck)

    def _end(self, watcher: _Watcher) -> None:
        with self._lock:
            line, since = watcher.line, watcher.since
            if line is None or watcher.over:
                return
            watcher.over = True
        try:
            if since is None or since > time.monotonic() - _SOON_S:
                line.end(*_ENDED)  # behind the last status, if that is on its way
            else:
                line.cut()
        except Exception:  # noqa: BLE001 - whatever it is, the others have to end
            line.cut()

    def _enter(self, watcher: _Watcher) -> tuple[grpc.StatusCode, str] | None:
        with self._lock:
            if self._ended:
                return _ENDED
            if self._open >= self._most:
                return _FULL
            self._watchers.setdefault(watcher.service, set()).add(watcher)
            self._open += 1
            self._counted(self._open)
        return None

    def _leave(self, watcher: _Watcher) -> None:
        with self._lock:
            watchers = self._watchers.get(watcher.service, set())
            if watcher in watchers:
                watchers.remove(watcher)
                self._open -= 1
                self._counted(self._open)
                if not watchers:
                    del self._watchers[watcher.service]

    def _tell_all(self) -> None:
        with self._lock:
            watchers = [watcher for each in self._watchers.values() for watcher in each]
        for watcher in _paced(watchers):
            self._tell(watcher)

    def _tell(self, watcher: _Watcher) -> None:
        """Tell a watcher what it does not know, unless something is on its way: `_taken` comes back to it then."""
        with self._lock:
            status = self._statuses.get(watcher.service, _Status.SERVICE_UNKNOWN)
            if watcher.line is None or watcher.since is not None or watcher.told == status:
                return
            watcher.told, watcher.since = status, time.monotonic()
        try:
            open_still = watcher.line.send(_Status(status=status))
        except Exception:  # noqa: BLE001 - whatever it is, the others have to be told
            open_still = False
            watcher.line.cut()
        if not open_still:
            self._leave(watcher)

    def _taken(self, watcher: _Watcher) -> None:
        with self._lock:
            watcher.since = None
        self._tell(watcher)


def _paced(watchers: Iterable[_Watcher]) -> Iterator[_Watcher]:
    for done, watcher in enumerate(watchers, 1):
        yield watcher
        if done % _SLICE == 0:
            time.sleep(_PAUSE_S)


setattr(Watches.Watch, "experimental_non_blocking", True)  # noqa: B010 - grpc's own, no typed attribute

_ENDED: Final = (grpc.StatusCode.UNAVAILABLE, "The server ends.")
_FULL: Final = (grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many watches of the health are open.")
