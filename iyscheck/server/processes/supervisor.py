"""Keeps the workers of one server alive: starts them, proves that they answer, restarts, replaces and ends them.

Everything happens in one thread, in rounds: who has died, who answers now, who is due. Signals and the ends of
workers wake it. Whatever fails on the way, the next round follows: it serves, drains, or ends with an error.
"""

import logging
import signal
import time
from collections import Counter as Counts
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol, Self, TypeVar

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from iyscheck.errors import IyscheckError, WorkersError
from iyscheck.server.refusals import our_frames
from iyscheck.signals import Bell

MOST_DEATHS: Final = 5
"""Quick deaths of one worker in a row after which it is tried now and then only, while another one serves."""
_QUICK_S: Final = 10.0
_BACK_OFF_S: Final = (0.0, 0.1, 0.3, 1.0, 10.0)
_BUSY_ROUND_S: Final = 0.05
IDLE_ROUND_S: Final = 1.0
_TURN_S: Final = 0.1
_HANGS_S: Final = 30.0
"""A worker that was silent for that long is ended: the connections that it holds get no answer otherwise."""
_UNSERVED_S: Final = 30.0
_AGAIN_S: Final = 1.0
_LAST_S: Final = 15.0
"""After the drain's time nobody is waited for longer, not even for who cannot be killed."""
STATES: Final = ("starting", "serving", "silent", "draining")


def _signal(code: int | None) -> str | None:
    """Name the signal that ended a process, as its exit code tells; None if none did."""
    try:
        return signal.Signals(-code).name if code is not None else None
    except ValueError:  # ended by itself, or by a signal without a name
        return None


ResultT = TypeVar("ResultT")


class Worker(Protocol):
    """What is asked of a worker; everything may raise."""

    number: int
    serial: int
    """What tells it from others with its number."""
    started_s: float
    answered_s: float | None
    """When it first answered."""
    is_silent: bool
    """Whether it has answered before and does not now."""
    kernel: str
    """What runs its inner loops, as it said when it first answered."""
    due_s: float
    """When it must be gone, or have answered."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def exit_code(self) -> int | None:
        """How it has ended, negative by a signal; None while it lives."""

    def ask(self) -> None:
        """Keep one question on its way, and note what came of the last one."""

    def drain(self, drain_s: float) -> None:
        """Ask it to end its work and go."""

    def kill(self) -> None:
        """End it at once."""

    def close(self) -> None:
        """Let go of what was held for it; it is dead."""


@dataclass(slots=True, kw_only=True)
class Place:
    """One of the workers there should be: who fills it, who is to replace them, and how often it failed."""

    number: int
    child: Worker | None = None
    successor: Worker | None = None
    deaths: int = 0
    due_s: float = 0.0
    """When it may be filled again."""
    silent_since_s: float | None = None


def _may_serve(place: Place) -> bool:
    """Whether its worker serves, or is on its way and has not failed often."""
    child = place.child
    return place.deaths < MOST_DEATHS if child is None or child.answered_s is None else not child.is_silent


class WorkersMetrics(Collector):
    """How many workers there are in each state, and how often one had to be started again."""

    def __init__(self) -> None:
        self.states: dict[str, int] = {}
        self.restarts = 0
        self.failed_rolls = 0
        """How often a rolling restart came to nothing."""

    def collect(self) -> Iterator[Metric]:
        """Show what the last round found."""
        workers = GaugeMetricFamily("consent_workers", "Worker processes by state.", labels=("state",))
        states = self.states
        for state in STATES:
            workers.add_metric([state], states.get(state, 0))
        yield workers
        yield CounterMetricFamily("consent_worker_restarts", "Workers started again after one died.", self.restarts)


class Supervisor:
    """Runs `count` workers; the end of its `with` block drains them all.

    `spawn` starts a worker, given its number and what tells it from others of that number; `settle` is called with
    the process id of each worker that is gone. `show` is told who serves, by their serials, as often as another one of
    them should be met by who connects.
    """

    def __init__(
        self,
        spawn: Callable[[int, int], Worker],
        *,
        count: int,
        drain_s: float,
        log: structlog.typing.FilteringBoundLogger,
        settle: Callable[[int], None],
        show: Callable[[list[int]], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.metrics = WorkersMetrics()
        self._start = spawn
        self._drain_s = drain_s
        self._log = log
        self._settle = settle
        self._show = show
        self._clock = clock
        self._places = [Place(number=number) for number in range(count)]
        self._leaving: list[Worker] = []
        self._rolling: deque[Place] = deque()
        self._serial = 0
        self._wake = Bell()
        self._over = False
        self._roll = False
        self._served_s = clock()
        self._failing: set[str] = set()
        self._failure: WorkersError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

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
                code = self._exit_code(child) if child is not None else None
                if child is None or code is not None:
                    how = f"ended with exit code {code}" if child else "could not be started"
                    raise WorkersError(f"Worker {place.number} {how} before it answered.", fix="The log tells why.")
                if child.answered_s is None:
                    self._await(child)
                    waiting += child.answered_s is None
            self._count()
            if not waiting:
                self._show_next()
                return True
            self.wait()
        return False

    def run(self) -> None:
        """Keep the workers alive until `end` is called. Raises WorkersError if they die again and again."""
        while not self._over:
            self.step()
            self.wait()

    def step(self) -> None:
        """Do one round; what fails in it is logged and tried again. Raises WorkersError as `run` does."""
        self._attempt("round", self._round)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Drain everybody and wait for them, but for nobody for ever."""
        for place in self._places:
            for child in (place.child, place.successor):
                if child is not None:
                    self._dismiss(child)
            place.child = place.successor = None
        until_s = self._clock() + self._drain_s + _LAST_S
        while self._leaving and self._clock() < until_s:
            self._reap()
            self._count()
            self.wait()
        if self._leaving:
            self._say(logging.ERROR, "workers_left_behind", workers=[child.number for child in self._leaving])

    def pids(self) -> list[int]:
        """Return the process ids of the workers, by number."""
        return [place.child.pid for place in self._places if place.child is not None]

    def running(self) -> dict[int, int]:
        """Return the process id of each worker's number, of those whose place is filled."""
        children = [(place.number, place.child) for place in self._places]
        return {number: child.pid for number, child in children if child is not None}

    @property
    def pause_s(self) -> float:
        """Tell how long to wait for the next round: shortly while something is on its way, else a second."""
        moving = self._leaving or self._rolling or self._roll
        settled = all(place.child is not None and place.child.answered_s is not None for place in self._places)
        return IDLE_ROUND_S if settled and not moving else _BUSY_ROUND_S

    def wait(self) -> None:
        """Wait for the next round, and meanwhile give each worker its turn."""
        left_s = self.pause_s
        turn_s = _TURN_S if self._show else left_s
        while not self._wake.wait(min(turn_s, left_s)) and left_s > turn_s:
            left_s -= turn_s
            self._show_next()

    def _round(self) -> None:
        self._reap()
        for place in self._places:
            self._tend(place)
        self._roll_on()
        self._show_next()
        self._count()

    def _show_next(self) -> None:
        show, children = self._show, [place.child for place in self._places]
        serving = [each.serial for each in children if each and each.answered_s is not None and not each.is_silent]
        if show is not None and serving:
            self._attempt("show", lambda: show(serving))

    def kernel(self) -> str:
        """Say what runs the inner loops in the workers, which are all alike."""
        return next((place.child.kernel for place in self._places if place.child is not None), "")

    def _tend(self, place: Place) -> None:
        """Look after one place's worker, and fill the place if it is due."""
        child, now = place.child, self._clock()
        if child is None:
            if place.successor is None and now >= place.due_s:
                self.metrics.restarts += 1
                place.child = self._spawn(place)
                if place.child is None:
                    self._refused(place)
        elif self._exit_code(child) is not None:
            place.child = None
            self._lost(place, quick=child.answered_s is None or now - child.answered_s < _QUICK_S)
            self._bury(child, "worker_died", level=logging.ERROR)
        elif child.answered_s is None:
            self._await(child)
        else:
            self._attempt("ask", child.ask)
            self._listen(place, child)

    def _listen(self, place: Place, child: Worker) -> None:
        """Tell of a worker that has become silent, and end one that stays so."""
        now = self._clock()
        if not child.is_silent:
            if place.silent_since_s is not None:
                place.silent_since_s = None
                self._say(logging.INFO, "worker_answers_again", worker=child.number, pid=child.pid)
        elif place.silent_since_s is None:
            place.silent_since_s = now
            self._say(logging.ERROR, "worker_silent", worker=child.number, pid=child.pid)
        elif now - place.silent_since_s > _HANGS_S:
            place.silent_since_s = now
            self._kill(child, "worker_hangs")

    def _lost(self, place: Place, *, quick: bool) -> None:
        """Say when a place may be filled again, or that it was tried often enough and nobody serves."""
        place.silent_since_s = None
        place.deaths = place.deaths + 1 if quick else 1
        place.due_s = self._clock() + _BACK_OFF_S[min(place.deaths, len(_BACK_OFF_S)) - 1]
        ends = place.deaths >= MOST_DEATHS and not any(map(_may_serve, self._places))
        if ends:
            self._failure = WorkersError(
                f"Worker {place.number} died {place.deaths} times in a row.", fix="The log tells why."
            )
        if ends or place.deaths == MOST_DEATHS:
            self._say(logging.ERROR, "crash_loop", worker=place.number, deaths=place.deaths, ends=ends)

    def _refused(self, place: Place) -> None:
        """Say when to try again to start a worker, or that this went on for too long with nobody serving.

        What the system refuses now it may give in a moment, and those that serve go on meanwhile.
        """
        place.due_s = self._clock() + _AGAIN_S
        if self._clock() - self._served_s > _UNSERVED_S:
            self._failure = WorkersError(
                f"No worker serves, and for {_UNSERVED_S:.0f} s none could be started.", fix="The log tells why."
            )

    def _roll_on(self) -> None:
        """Go on with a rolling restart."""
        if self._roll and not self._rolling:  # asked for in the middle of one, it follows: the code may be newer
            self._roll = False
            self._rolling = deque(self._places)
            self._say(logging.INFO, "rolling_restart", workers=len(self._places))
        if not self._rolling:
            return
        place = self._rolling[0]
        if place.successor is None:
            place.successor = self._spawn(place)
        successor = place.successor
        if successor is None or self._exit_code(successor) is not None:
            # What cannot start now is not what runs: the others go on as they are.
            place.successor = None
            self._rolling.clear()
            self.metrics.failed_rolls += 1
            self._say(logging.ERROR, "rolling_restart_failed", worker=place.number)
            if successor is not None:
                self._bury(successor, "worker_died", level=logging.ERROR)
        elif successor.answered_s is None:
            self._await(successor)
        else:
            before, place.child, place.successor, place.deaths = place.child, successor, None, 0
            place.silent_since_s = None
            self._rolling.popleft()
            if before is not None:
                self._show_next()  # nobody should meet who is about to go
                self._dismiss(before)
            if not self._rolling:
                self._say(logging.INFO, "rolled", workers=self.pids())

    def _spawn(self, place: Place) -> Worker | None:
        self._serial += 1  # a successor listens beside the one it replaces
        try:
            child = self._start(place.number, self._serial)
        except Exception as error:  # noqa: BLE001 - no memory, processes, threads, or Python itself is being replaced
            why = str(error) if isinstance(error, IyscheckError) else getattr(error, "strerror", None)
            name = type(error).__name__
            self._say(logging.WARNING, "worker_not_started", worker=place.number, error=name, why=why)
            return None
        self._say(logging.INFO, "worker_started", worker=place.number, pid=child.pid)
        return child

    def _await(self, child: Worker) -> None:
        """Ask a worker that has not answered yet; one that takes for ever is killed, and then found dead."""
        self._attempt("ask", child.ask)
        if child.answered_s is not None:
            seconds = round(child.answered_s - child.started_s, 3)
            self._say(logging.INFO, "worker_answers", worker=child.number, pid=child.pid, seconds=seconds)
        elif self._clock() > child.due_s:
            self._kill(child, "worker_never_answered")

    def _kill(self, child: Worker, why: str) -> None:
        """End a worker, and again after a while if that did not help."""
        child.due_s = self._clock() + _AGAIN_S
        self._say(logging.ERROR, why, worker=child.number, pid=child.pid)
        self._attempt("kill", child.kill)

    def _dismiss(self, child: Worker) -> None:
        self._leaving.append(child)

        def ask_to_go() -> bool:
            child.drain(self._drain_s)
            return True

        if not self._attempt("drain", ask_to_go):
            child.due_s = self._clock()  # who cannot be asked to go is killed

    def _reap(self) -> None:
        """Bury who has left, and kill who should have."""
        for child in self._leaving.copy():
            if self._exit_code(child) is not None:
                self._leaving.remove(child)
                self._bury(child, "worker_left", level=logging.INFO)
            elif self._clock() > child.due_s:
                self._kill(child, "worker_never_left")

    def _bury(self, child: Worker, event: str, *, level: int) -> None:
        pid, code = child.pid, self._exit_code(child)
        self._say(level, event, worker=child.number, pid=pid, exit_code=code, signal=_signal(code))
        self._attempt("close", child.close)
        self._attempt("settle", lambda: self._settle(pid))

    def _count(self) -> None:
        """Tell the metrics who is in which state."""
        present = [child for place in self._places for child in (place.child, place.successor) if child is not None]
        states = Counts(
            "starting" if child.answered_s is None else "silent" if child.is_silent else "serving" for child in present
        )
        if states["serving"]:
            self._served_s = self._clock()
        states["draining"] = len(self._leaving)
        self.metrics.states = dict(states)

    # --- What may fail ------------------------------------------------------------------------------------------

    def _exit_code(self, child: Worker) -> int | None:
        return self._attempt("look", lambda: child.exit_code)

    def _attempt(self, what: str, act: Callable[[], ResultT]) -> ResultT | None:
        """Do something; if it fails say so once, until it works again, and return None."""
        try:
            done = act()
        except Exception as error:  # noqa: BLE001 - whatever it is: an end in here would leave workers to nobody
            if what not in self._failing:
                self._failing.add(what)
                name, at = type(error).__name__, our_frames(error)
                self._say(logging.ERROR, "supervision_failed", what=what, error=name, at=at)
            return None
        self._failing.discard(what)
        return done

    def _say(self, level: int, event: str, **facts: object) -> None:
        with suppress(Exception):
            self._log.log(level, event, **facts)
