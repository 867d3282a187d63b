"""Keeps the workers of one server alive: starts them, proves that they answer, restarts, replaces and ends them.

Everything happens in one thread, in rounds: who has died, who answers now, who is due. Signals and the ends of
workers wake it.
"""

import logging
import signal
import time
from collections import Counter as Counts
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Self

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from iyscheck.errors import WorkersError
from iyscheck.server.processes.child import Child, Folder
from iyscheck.server.settings import Settings
from iyscheck.signals import Bell

MOST_DEATHS: Final = 5
"""Quick deaths of one worker in a row after which it is not started again."""
_QUICK_S: Final = 10.0
_BACK_OFF_S: Final = (0.0, 0.1, 0.3, 1.0)
_BUSY_ROUND_S: Final = 0.05
_IDLE_ROUND_S: Final = 1.0
STATES: Final = ("starting", "serving", "silent", "draining")


def _signal(code: int) -> str | None:
    """Name the signal that ended a process, as its exit code tells; None if none did."""
    try:
        return signal.Signals(-code).name
    except ValueError:  # ended by itself, or by a signal without a name
        return None


@dataclass(slots=True, kw_only=True)
class Place:
    """One of the workers there should be: who fills it, who is to replace them, and how often it failed."""

    number: int
    child: Child | None = None
    successor: Child | None = None
    deaths: int = 0
    due_s: float = 0.0
    """When it may be filled again."""


class WorkersMetrics(Collector):
    """How many workers there are in each state, and how often one had to be started again."""

    def __init__(self) -> None:
        self.states: dict[str, int] = {}
        self.restarts = 0

    def collect(self) -> Iterator[Metric]:
        """Show what the last round found."""
        workers = GaugeMetricFamily("consent_workers", "Worker processes by state.", labels=("state",))
        states = self.states
        for state in STATES:
            workers.add_metric([state], states.get(state, 0))
        yield workers
        yield CounterMetricFamily("consent_worker_restarts", "Workers started again after one died.", self.restarts)


class Supervisor:
    """Runs `count` workers with these settings; the end of its `with` block drains them all.

    `settle` is called with the process id of each worker that is gone.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        count: int,
        folder: Folder,
        log: structlog.typing.FilteringBoundLogger,
        settle: Callable[[int], None],
    ) -> None:
        self.metrics = WorkersMetrics()
        self._settings = settings
        self._folder = folder
        self._log = log
        self._settle = settle
        self._places = [Place(number=number) for number in range(count)]
        self._leaving: list[Child] = []
        self._rolling: deque[Place] = deque()
        self._serial = 0
        self._wake = Bell()
        self._over = False
        self._roll = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    # --- For signal handlers ------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Look at everything now."""
        self._wake.ring()

    def end(self) -> None:
        """Make `start` and `run` return."""
        self._over = True
        self._wake.ring()

    def roll(self) -> None:
        """Replace all workers, one after the other, each only when its successor answers."""
        self._roll = True
        self._wake.ring()

    # --- The rounds ---------------------------------------------------------------------------------------------

    def start(self) -> bool:
        """Start all workers and wait until every one has answered; False if it was ended before.

        Raises WorkersError if one ends instead.
        """
        for place in self._places:
            place.child = self._spawn(place)
        while not self._over:
            waiting = 0
            for place in self._places:
                child = place.child
                if child is None or child.is_dead:
                    code = f"ended with exit code {child.process.returncode}" if child else "could not be started"
                    raise WorkersError(f"Worker {place.number} {code} before it answered.", fix="The log tells why.")
                if child.answered_s is None:
                    self._await(child)
                    waiting += child.answered_s is None
            self._count()
            if not waiting:
                return True
            self._pause()
        return False

    def run(self) -> None:
        """Keep the workers alive until `end` is called. Raises WorkersError if one dies again and again."""
        while not self._over:
            self._reap()
            for place in self._places:
                self._tend(place)
            self._roll_on()
            self._count()
            self._pause()

    def pids(self) -> list[int]:
        """Return the process ids of the workers, by number."""
        return [place.child.process.pid for place in self._places if place.child is not None]

    def kernel(self) -> str:
        """Say what runs the inner loops in the workers, which are all alike."""
        return next((place.child.kernel for place in self._places if place.child is not None), "")

    def _tend(self, place: Place) -> None:
        """Look after one place's worker, and fill the place if it is due."""
        child, now = place.child, time.monotonic()
        if child is None:
            if place.successor is None and now >= place.due_s:
                self.metrics.restarts += 1
                place.child = self._spawn(place)
                if place.child is None:
                    self._lost(place, quick=True)
        elif child.is_dead:
            place.child = None
            self._bury(child, "worker_died", level=logging.ERROR)
            self._lost(place, quick=child.answered_s is None or now - child.answered_s < _QUICK_S)
        elif child.answered_s is None:
            self._await(child)
        else:
            child.ask()

    def _lost(self, place: Place, *, quick: bool) -> None:
        """Say when a place may be filled again. Raises WorkersError if that was tried often enough."""
        place.deaths = place.deaths + 1 if quick else 1
        if place.deaths >= MOST_DEATHS:
            self._log.error("crash_loop", worker=place.number, deaths=place.deaths)
            raise WorkersError(f"Worker {place.number} died {place.deaths} times in a row.", fix="The log tells why.")
        place.due_s = time.monotonic() + _BACK_OFF_S[min(place.deaths, len(_BACK_OFF_S)) - 1]

    def _roll_on(self) -> None:
        """Go on with a rolling restart."""
        if self._roll and not self._rolling:  # asked for in the middle of one, it follows: the code may be newer
            self._roll = False
            self._rolling = deque(self._places)
            self._log.info("rolling_restart", workers=len(self._places))
        if not self._rolling:
            return
        place = self._rolling[0]
        if place.successor is None:
            place.successor = self._spawn(place)
        successor = place.successor
        if successor is None or successor.is_dead:
            # What cannot start now is not what runs: the others go on as they are.
            place.successor = None
            self._rolling.clear()
            self._log.error("rolling_restart_failed", worker=place.number)
            if successor is not None:
                self._bury(successor, "worker_died", level=logging.ERROR)
        elif successor.answered_s is None:
            self._await(successor)
        else:
            before, place.child, place.successor, place.deaths = place.child, successor, None, 0
            if before is not None:
                self._dismiss(before)
            self._rolling.popleft()
            if not self._rolling:
                self._log.info("rolled", workers=self.pids())

    def _spawn(self, place: Place) -> Child | None:
        self._serial += 1  # a successor listens beside the one it replaces
        try:
            child = Child(place.number, self._settings, self._folder, self._serial)
        except OSError as error:  # no memory, too many processes, or Python itself is being replaced
            self._log.warning("worker_not_started", worker=place.number, error=type(error).__name__, why=error.strerror)
            return None
        self._log.info("worker_started", worker=place.number, pid=child.process.pid)
        return child

    def _await(self, child: Child) -> None:
        """Ask a worker that has not answered yet; one that takes for ever is killed, and then found dead."""
        child.ask()
        if child.answered_s is not None:
            seconds = round(child.answered_s - child.started_s, 3)
            self._log.info("worker_answers", worker=child.number, pid=child.process.pid, seconds=seconds)
        elif time.monotonic() > child.due_s:
            self._log.error("worker_never_answered", worker=child.number, pid=child.process.pid)
            child.kill()

    def _dismiss(self, child: Child) -> None:
        child.drain(self._settings.drain_seconds)
        self._leaving.append(child)

    def _reap(self) -> None:
        """Bury who has left, and kill who should have."""
        for child in self._leaving.copy():
            if child.is_dead:
                self._leaving.remove(child)
                self._bury(child, "worker_left", level=logging.INFO)
            elif time.monotonic() > child.due_s:
                self._log.error("worker_never_left", worker=child.number, pid=child.process.pid)
                child.kill()

    def _bury(self, child: Child, event: str, *, level: int) -> None:
        child.close()
        pid, code = child.process.pid, child.process.returncode
        self._log.log(level, event, worker=child.number, pid=pid, exit_code=code, signal=_signal(code))
        self._settle(pid)

    def _stop(self) -> None:
        """Drain everybody and wait for them."""
        for place in self._places:
            for child in (place.child, place.successor):
                if child is not None:
                    self._dismiss(child)
            place.child = place.successor = None
        while self._leaving:
            self._reap()
            self._count()
            self._pause()

    def _count(self) -> None:
        """Tell the metrics who is in which state."""
        present = [child for place in self._places for child in (place.child, place.successor) if child is not None]
        states = Counts(
            "starting" if child.answered_s is None else "silent" if child.is_silent else "serving" for child in present
        )
        states["draining"] = len(self._leaving)
        self.metrics.states = dict(states)

    def _pause(self) -> None:
        """Wait for the next round: shortly while something is on its way, else for a second or until woken."""
        moving = self._leaving or self._rolling or self._roll
        settled = all(place.child is not None and place.child.answered_s is not None for place in self._places)
        self._wake.wait(_IDLE_ROUND_S if settled and not moving else _BUSY_ROUND_S)
