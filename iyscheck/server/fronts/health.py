"""Health as gRPC knows it: may this process be restarted, and may traffic come here?

"" and the service's own name say the same: answers can be given, as the process is up and the store can be read and is
still that of its path. Freshness has a name of its own (`FRESH`): a balancer that asked for it would take all servers
away for one late feed, and one-time passwords with them. Draining ends all three.
"""

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

import structlog
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import OVERALL_HEALTH
from prometheus_client import Histogram

from iyscheck.server.calls import SERVICE
from iyscheck.server.fronts.following import Following
from iyscheck.server.fronts.watches import Watches
from iyscheck.server.refusals import our_frames
from iyscheck.server.threads import start

FRESH: Final = f"{SERVICE}/fresh"
"""Also the newest watermark is within the limit, and a replica follows; one late brand changes its own answers, not the
health of all."""
NAMES: Final = (OVERALL_HEALTH, SERVICE, FRESH)
INTERVAL_S: Final = 0.5
_SWEEP_EVERY: Final = 60  # refreshes, so every half minute

_Status = health_pb2.HealthCheckResponse


class Watched(Protocol):
    """What health asks of an engine, which may raise."""

    def freshness(self) -> object:
        """Open a snapshot and read from it."""

    def fresh(self) -> bool:
        """Whether the newest watermark is within the limit."""

    def lag_s(self) -> float | None:
        """How far a replica is behind its primary; None of what is no replica."""

    def sweep_readers(self) -> int:
        """Free the reader slots of dead processes."""


class Health:
    """Keeps the health servicer current from a thread of its own, between `start` and `stop`."""

    def __init__(
        self,
        engine: Watched,
        refresh_seconds: Histogram,
        log: structlog.typing.FilteringBoundLogger,
        watchers: Callable[[int], object] = lambda _: None,
        serving: Callable[[str, bool], object] = lambda *_: None,
    ) -> None:
        """`watchers` is told at once how many there are, `serving` what is said of each name."""
        self.servicer = Watches(log, counted=watchers)
        self.beside: list[Callable[[], object]] = []
        """What else the thread does twice a second: it must be short."""
        self._engine = engine
        self._refresh_seconds = refresh_seconds
        self._serving = serving
        self._log = log
        self._following = Following()
        self._told: dict[str, bool] = {}
        self._draining = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def start(self) -> None:
        """Tell the health as it is now, and keep telling. Raises WorkersError where no thread can be started."""
        self.refresh()
        start(self._thread)

    def drain(self) -> None:
        """Tell NOT_SERVING of everything from now on."""
        self.stop()
        self._draining = True
        self.servicer.enter_graceful_shutdown()

    def end_watches(self) -> None:
        """Let nobody who watches keep the server from ending."""
        self.servicer.end()

    def stop(self) -> None:
        """End the thread."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def status(self, service: str) -> int | None:
        """Give the status of a name as it was last told; None for a name that is not known."""
        serving = self._told.get(service)
        if serving is None:
            return None
        return _Status.SERVING if serving and not self._draining else _Status.NOT_SERVING

    def serving(self) -> dict[str, bool]:
        """Say of each name whether it serves, as was last told."""
        return {name: serves and not self._draining for name, serves in self._told.copy().items()}

    def refresh(self) -> None:
        """Look at the store once and tell what changed."""
        try:
            started = time.perf_counter()
            self._engine.freshness()
            self._refresh_seconds.observe(time.perf_counter() - started)
            readable, fresh = True, self._engine.fresh()
            fresh = self._following.judged(self._engine.lag_s()) and fresh
        except Exception as error:  # noqa: BLE001 - whatever it is, a thread that died would go on saying SERVING
            readable = fresh = False
            if self._told.get(OVERALL_HEALTH, True):
                self._log.error("store_unreadable", error=type(error).__name__, at=our_frames(error))
        self._tell(OVERALL_HEALTH, serving=readable)
        self._tell(SERVICE, serving=readable)
        self._tell(FRESH, serving=readable and fresh)

    def _tell(self, service: str, *, serving: bool) -> None:
        if self._told.get(service) is serving:
            return  # each telling wakes all watchers
        self._told[service] = serving
        self._serving(service, serving)
        self.servicer.set(service, _Status.SERVING if serving else _Status.NOT_SERVING)
        self._log.info("health", service=service, serving=serving)

    def _run(self) -> None:
        rounds = 0
        while not self._over.wait(INTERVAL_S):
            self.refresh()
            self._do_beside()
            rounds += 1
            if rounds % _SWEEP_EVERY == 0:
                self._sweep()
                self._end_stuck()

    def _do_beside(self) -> None:
        for each in self.beside:
            try:
                each()
            except Exception as error:  # noqa: BLE001 - the same as for the store
                self._log.error("late_calls_not_ended", error=type(error).__name__, at=our_frames(error))

    def _end_stuck(self) -> None:
        ended = self.servicer.end_stuck()
        if ended:
            self._log.info("health_watchers_ended", watchers=ended)

    def _sweep(self) -> None:
        try:
            freed = self._engine.sweep_readers()
        except Exception as error:  # noqa: BLE001 - the same; the sweep is tried again
            self._log.error("sweep_failed", error=type(error).__name__, at=our_frames(error))
            return
        if freed:
            self._log.info("reader_slots_freed", slots=freed)
