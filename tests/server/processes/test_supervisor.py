"""The supervisor's rounds: workers without processes, at a time that the test sets."""

import fcntl
import io
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from iyscheck.errors import WorkersError
from iyscheck.server.log import open_log
from iyscheck.server.processes.child import private_folder
from iyscheck.server.processes.supervisor import MOST_DEATHS, STATES, Supervisor
from tests.dice import often

WORKERS = 2
DRAIN_S = 7.0


@dataclass
class World:
    """What is around a supervisor, and which of it fails."""

    now: float = 1_000.0
    spawned: list["Fake"] = field(default_factory=list)
    settled: list[int] = field(default_factory=list)
    failing: set[str] = field(default_factory=set)
    shown: list[list[int]] = field(default_factory=list)
    answering: bool = True
    """Whether who starts now will answer."""
    pids: Any = field(default_factory=lambda: count(1))

    def may_fail(self, what: str) -> None:
        """Fail if the test says so."""
        if what in self.failing:
            raise RuntimeError("can't start new thread")

    def spawn(self, number: int, serial: int) -> "Fake":
        """Start a worker."""
        self.may_fail("spawn")
        self.spawned.append(Fake(self, number, serial, answers=self.answering))
        return self.spawned[-1]

    def settle(self, pid: int) -> None:
        """Note whose counts are kept."""
        self.may_fail("settle")
        self.settled.append(pid)

    def show(self, serials: list[int]) -> None:
        """Note who is shown, and that each of them serves."""
        self.may_fail("show")
        now = [fake for fake in self.spawned if fake.serial in serials]
        assert all(fake.answered_s is not None and fake.code is None and "drain" not in fake.done for fake in now)
        self.shown.append(serials)

    def alive(self) -> list["Fake"]:
        """Who has not ended."""
        return [fake for fake in self.spawned if fake.code is None]


@dataclass(eq=False)
class Fake:
    """A worker without a process: what it does is what the test says."""

    world: World
    number: int
    serial: int
    answers: bool = True
    is_silent: bool = False
    answered_s: float | None = None
    heard_s: float | None = None
    kernel: str = "numpy"
    code: int | None = None
    leaves: bool = True
    is_met: bool = False
    """Whether it was shown when it was asked to go."""
    started_s: float = 0.0
    due_s: float = 0.0
    done: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pid = next(self.world.pids)
        self.started_s, self.due_s = self.world.now, self.world.now + 600

    @property
    def exit_code(self) -> int | None:
        """What the test says."""
        self.world.may_fail("look")
        return self.code

    def _do(self, what: str) -> None:
        self.world.may_fail(what)
        self.done.append(what)

    def ask(self) -> None:
        """Answer if it does."""
        self._do("ask")
        if self.answers and not self.is_silent:
            self.heard_s = self.world.now
        if self.answers and self.answered_s is None:
            self.answered_s = self.world.now

    def drain(self, drain_s: float) -> None:
        """Leave, or stay."""
        self.due_s = self.world.now + drain_s + 5
        self.is_met = self.serial in self.world.shown[-1] if self.world.shown else False
        self._do("drain")
        self.code = 0 if self.leaves else None

    def kill(self) -> None:
        """End."""
        self._do("kill")
        self.code = -9

    def close(self) -> None:
        """Note it."""
        self._do("close")


class FailingLog:
    """A log that fails when the world says so."""

    def __init__(self, world: World, log: structlog.typing.FilteringBoundLogger) -> None:
        self._world, self._log = world, log

    def log(self, level: int, event: str, **facts: object) -> None:
        """Write or fail."""
        self._world.may_fail("log")
        self._log.log(level, event, **facts)


@dataclass
class Scene:
    """A supervisor in a world."""

    world: World
    written: io.StringIO
    supervisor: Supervisor

    @classmethod
    def make(cls) -> "Scene":
        """Let nobody run yet."""
        world, written = World(), io.StringIO()
        log: Any = FailingLog(world, open_log("info", written))
        supervisor = Supervisor(
            world.spawn,
            count=WORKERS,
            drain_s=DRAIN_S,
            log=log,
            settle=world.settle,
            show=world.show,
            clock=lambda: world.now,
        )
        # Whoever waits lets time pass; that is all that waiting is.
        supervisor.wait = lambda: setattr(world, "now", world.now + supervisor.pause_s)  # type: ignore[method-assign]
        return cls(world, written, supervisor)

    def events(self) -> list[str]:
        """What was logged."""
        return [json.loads(line)["event"] for line in self.written.getvalue().splitlines()]

    def rounds(self, seconds: float) -> None:
        """Let time pass in rounds."""
        until = self.world.now + seconds
        while self.world.now < until:
            self.supervisor.step()
            self.supervisor.wait()


@pytest.fixture
def scene() -> Scene:
    """Nobody runs yet."""
    return Scene.make()


@pytest.fixture
def served(scene: Scene) -> Scene:
    """All workers have answered, long ago."""
    assert scene.supervisor.start()
    scene.rounds(60)
    scene.written.truncate(0)
    scene.written.seek(0)
    return scene


class TestStarting:
    """What happens before the server serves."""

    def test_waits_for_all(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        """It goes on asking until everybody has answered, and the metrics tell meanwhile how many have."""
        scene.world.answering = False
        seen = []

        def wait() -> None:
            states = scene.supervisor.metrics.states
            seen.append((states.get("starting", 0), states.get("serving", 0)))
            scene.world.spawned[len(seen) - 1].answers = True

        monkeypatch.setattr(scene.supervisor, "wait", wait)

        assert scene.supervisor.start()
        assert [fake.number for fake in scene.world.spawned] == [0, 1]
        assert seen == [(2, 0), (1, 1)]
        assert scene.supervisor.metrics.states == {"serving": 2, "draining": 0}
        assert scene.supervisor.pids() == [fake.pid for fake in scene.world.spawned]

    def test_ended(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever ends it meanwhile is told that it does not serve."""
        scene.world.answering = False
        monkeypatch.setattr(scene.supervisor, "wait", scene.supervisor.end)

        assert not scene.supervisor.start()

    def test_dies(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        """A worker that ends instead of answering ends the server, with its number and exit code."""
        scene.world.answering = False
        monkeypatch.setattr(scene.supervisor, "wait", lambda: setattr(scene.world.spawned[1], "code", 3))

        with pytest.raises(WorkersError, match="Worker 1 ended with exit code 3 before"):
            scene.supervisor.start()

    def test_cannot_start(self, scene: Scene) -> None:
        """A worker that cannot be started at the beginning ends the server."""
        scene.world.failing = {"spawn"}

        with pytest.raises(WorkersError, match="Worker 0 could not be started"):
            scene.supervisor.start()


class TestDeaths:
    """Workers end unasked."""

    def test_dies(self, served: Scene) -> None:
        """Who has died is buried, its counts are settled, and its place is filled again at once."""
        dead = served.world.spawned[0]
        dead.code = -9
        served.rounds(0.2)

        assert (dead.done[-1], served.world.settled) == ("close", [dead.pid])
        assert json.loads(served.written.getvalue().splitlines()[0])["signal"] == "SIGKILL"
        assert [fake.number for fake in served.world.alive()] == [1, 0]
        assert served.supervisor.metrics.restarts == 1

    def test_backs_off(self, served: Scene) -> None:
        """After each further quick death a place is filled later, after the fifth in a row now and then only."""
        started = []
        while served.supervisor.metrics.restarts < MOST_DEATHS - 1:
            fake = [fake for fake in served.world.alive() if fake.number == 0][-1]
            fake.code, died = 2, served.world.now
            served.supervisor.step()
            while len([fake for fake in served.world.alive() if fake.number == 0]) == 0:
                served.world.now = round(served.world.now + 0.05, 3)
                served.supervisor.step()
            started.append(round(served.world.now - died, 3))
            served.supervisor.step()
            served.world.now += 9.9
        assert started == [0.05, 0.1, 0.3, 1.0]

        self.fail(served, 0)
        assert served.events()[-3:] == ["worker_answers", "crash_loop", "worker_died"]

    def fail(self, scene: Scene, number: int) -> None:
        """Let the newest worker of a number end."""
        [fake for fake in scene.world.alive() if fake.number == number][-1].code = 2
        scene.supervisor.step()

    def test_harms_nobody(self, served: Scene) -> None:
        """While another one serves, a worker that cannot start is tried every ten seconds, and ends nothing."""
        deaths = 0
        while deaths < 4 * MOST_DEATHS:
            if [fake for fake in served.world.alive() if fake.number == 0]:
                self.fail(served, 0)
                deaths, died = deaths + 1, served.world.now
            served.world.now += 0.5
            served.supervisor.step()
        while not [fake for fake in served.world.alive() if fake.number == 0]:
            served.world.now += 0.5
            served.supervisor.step()

        assert served.events().count("crash_loop") == 1
        assert 10 <= served.world.now - died <= 11
        assert served.world.spawned[1].done.count("drain") == 0

    @pytest.mark.parametrize("other", ["dead", "silent"])
    def test_nobody_serves(self, served: Scene, other: str) -> None:
        """Where no worker serves, and none that has not failed often is on its way, the server ends."""
        for _ in range(2 * MOST_DEATHS):
            if [fake for fake in served.world.alive() if fake.number == 0]:
                self.fail(served, 0)
            served.world.now += 1.5
            served.supervisor.step()
        if other == "silent":
            served.world.spawned[1].is_silent = True
        served.world.answering = False

        with pytest.raises(WorkersError, match=r"died \d+ times in a row"):  # noqa: PT012 - rounds until it ends
            for _ in range(40):
                for number in (0, 1) if other == "dead" else (0,):
                    if [fake for fake in served.world.alive() if fake.number == number]:
                        self.fail(served, number)
                served.world.now += 0.5
                served.supervisor.step()
        dead = [fake for fake in served.world.spawned if fake.number == 1]
        assert len(dead) == (MOST_DEATHS if other == "dead" else 1)

    def test_not_in_a_row(self, served: Scene) -> None:
        """Deaths of who has answered for ten seconds are never too many."""
        for _ in range(MOST_DEATHS * 2):
            next(fake for fake in served.world.alive() if fake.number == 0).code = 2
            served.rounds(12)

        assert served.supervisor.metrics.states == {"serving": 2, "draining": 0}

    def test_cannot_start_again(self, served: Scene) -> None:
        """What cannot be started is tried again each second for as long as somebody serves, and half a minute more."""
        served.world.spawned[0].code = 2
        served.world.failing = {"spawn"}
        served.rounds(100)
        assert served.supervisor.metrics.states == {"serving": 1, "draining": 0}
        assert served.events().count("worker_not_started") == pytest.approx(100, abs=10)

        served.world.spawned[1].code = 2
        with pytest.raises(WorkersError, match="No worker serves, and for 30 s none could be started"):
            served.rounds(40)
        assert served.supervisor.metrics.states == {"draining": 0}

    def test_never_answers(self, served: Scene) -> None:
        """A worker that takes ten minutes to answer is killed, and not before."""
        served.world.answering = False
        served.world.spawned[0].code = 2
        served.rounds(599)
        stuck = served.world.alive()[-1]
        served.world.answering = True
        assert "worker_never_answered" not in served.events()
        served.rounds(2)

        assert served.events().count("worker_never_answered") == 1
        assert stuck.code == -9
        assert served.supervisor.metrics.states["serving"] == WORKERS

    def test_silent(self, served: Scene) -> None:
        """A worker that does not answer any more is told of, and ended if it stays so."""
        stopped = served.world.spawned[1]
        stopped.is_silent = True
        served.rounds(20)
        assert served.supervisor.metrics.states == {"serving": 1, "silent": 1, "draining": 0}
        stopped.is_silent = False
        served.rounds(20)
        assert served.events() == ["worker_silent", "worker_answers_again"]

        stopped.is_silent = True
        served.rounds(35)
        assert (stopped.code, served.events().count("worker_hangs")) == (-9, 1)
        assert served.supervisor.metrics.states == {"serving": 2, "draining": 0}


def is_answering(scene: Scene) -> bool:
    """What the supervisor says in this moment."""
    return scene.supervisor.is_answering


class TestAnswering:
    """Whether somebody answers: what a watchdog is told."""

    def test_one_is_enough(self, served: Scene) -> None:
        """One worker that answers is enough; where none does, nobody answers some seconds later, until one does."""
        served.world.spawned[0].is_silent = True
        served.rounds(20)
        assert is_answering(served)
        served.world.spawned[1].is_silent = True
        served.rounds(4)
        assert is_answering(served)  # it may just be late
        served.rounds(2)
        assert not is_answering(served)
        served.world.spawned[1].is_silent = False
        served.rounds(1)
        assert is_answering(served)

    def test_nobody_can_be_asked(self, served: Scene) -> None:
        """Where nobody can be asked, nobody is taken for one who answers."""
        served.world.failing = {"ask"}
        served.rounds(6)

        assert not is_answering(served)
        assert served.supervisor.metrics.states["serving"] == WORKERS  # as they were last seen

    def test_dead(self, served: Scene) -> None:
        """Nobody answers in the place of who died, until a successor does."""
        served.world.answering = False
        for fake in served.world.spawned:
            fake.code = -9
        served.supervisor.step()
        assert not is_answering(served)
        served.rounds(1)
        assert not is_answering(served)
        for fake in served.world.alive():
            fake.answers = True
        served.rounds(1)
        assert is_answering(served)

    def test_told(self, served: Scene) -> None:
        """Whoever is to be told is so before each round; what fails there is logged, and ends nothing."""
        rolling: list[bool] = []

        def tell() -> None:
            rolling.append(served.supervisor.is_rolling)
            if not rolling[-1]:
                served.supervisor.end()
            raise ValueError

        served.supervisor.roll()  # nobody is replaced before it is told
        served.supervisor.run(tell)

        assert rolling[0]
        assert served.events().count("supervision_failed") == 1
        assert "rolled" in served.events()


class TestRolling:
    """A rolling restart."""

    def test_one_after_the_other(self, served: Scene) -> None:
        """A worker is dismissed when its successor answers, and only then the next one gets a successor."""
        served.world.answering = False
        old = served.world.spawned[:]
        served.supervisor.roll()
        served.rounds(1)
        assert [fake.number for fake in served.world.spawned[WORKERS:]] == [0]
        assert served.world.alive()[:WORKERS] == old

        served.world.spawned[WORKERS].answers = True
        served.rounds(1)
        assert [fake.done[-2:] for fake in old] == [["drain", "close"], ["ask", "ask"]]
        served.world.spawned[WORKERS + 1].answers = True
        served.rounds(1)

        assert served.supervisor.pids() == [fake.pid for fake in served.world.alive()]
        assert served.events().count("rolled") == 1
        assert served.world.settled == [fake.pid for fake in old]

    @pytest.mark.parametrize("fault", ["spawn", "dies"])
    def test_fails(self, served: Scene, fault: str) -> None:
        """A successor that cannot start, or ends, leaves the others as they are."""
        old = served.world.alive()
        served.world.answering = False
        served.world.failing = {fault}
        served.supervisor.roll()
        served.supervisor.step()
        for fake in served.world.spawned[WORKERS:]:
            fake.code = 1
        served.rounds(5)

        assert served.world.alive() == old
        assert served.events().count("rolling_restart_failed") == 1

    def test_predecessor_dies(self, served: Scene) -> None:
        """A successor takes a place that has become empty meanwhile, and nobody else does."""
        served.world.answering = False
        served.supervisor.roll()
        served.rounds(1)
        served.world.spawned[0].code = 1
        served.rounds(5)
        successor = served.world.spawned[WORKERS]
        assert served.world.alive() == [served.world.spawned[1], successor]
        successor.answers = True
        served.rounds(1)

        assert served.supervisor.pids()[0] == successor.pid


class TestLeaving:
    """What becomes of who was told to go."""

    def test_stays(self, served: Scene) -> None:
        """Who stays beyond its time is killed, once; who leaves in time is not, and both are settled."""
        for fake in served.world.spawned:
            fake.leaves = fake.number == 1
        before = served.world.now
        served.supervisor.stop()

        assert [fake.done[-3:] for fake in served.world.spawned] == [
            ["drain", "kill", "close"],
            ["ask", "drain", "close"],
        ]
        assert served.world.now - before == pytest.approx(DRAIN_S + 5, abs=0.2)
        assert sorted(served.world.settled) == [1, 2]
        assert sorted(served.events()) == ["worker_left", "worker_left", "worker_never_left"]

    def test_successors_too(self, served: Scene) -> None:
        """The end drains successors alike."""
        served.world.answering = False
        served.supervisor.roll()
        served.rounds(1)
        with served.supervisor:
            pass

        assert ["drain" in fake.done for fake in served.world.spawned] == [True] * 3
        assert not served.world.alive()

    def test_for_ever(self, served: Scene) -> None:
        """Who cannot even be killed is left behind, and named."""
        served.world.failing = {"drain", "kill"}
        before = served.world.now
        served.supervisor.stop()

        assert served.world.now - before == pytest.approx(DRAIN_S + 15, abs=0.2)
        assert json.loads(served.written.getvalue().splitlines()[-1])["workers"] == [0, 1]
        assert served.events().count("worker_never_left") < WORKERS * 25  # each second, not each round


def test_states(scene: Scene) -> None:
    """The metrics show every state, those with nobody too."""
    workers, _ = scene.supervisor.metrics.collect()

    assert {sample.labels["state"]: sample.value for sample in workers.samples} == dict.fromkeys(STATES, 0)


def test_shown(served: Scene) -> None:
    """Who serves is shown, and nobody else: a dead, silent or leaving worker is left out from that round on."""
    world, supervisor = served.world, served.supervisor
    assert world.shown[-1] == [1, 2]
    world.spawned[0].is_silent = True
    supervisor.step()
    assert world.shown[-1] == [2]
    world.spawned[0].is_silent = False
    world.spawned[1].code = 1
    supervisor.step()
    assert world.shown[-1] == [1]
    served.rounds(2)
    assert world.shown[-1] == [1, 3]
    supervisor.roll()
    world.shown.clear()
    served.rounds(5)
    assert world.shown[-1] == [4, 5]
    assert [fake.serial for fake in world.spawned if "drain" in fake.done] == [1, 3]
    assert not any(fake.is_met for fake in world.spawned)
    assert [serials for number, serials in enumerate(world.shown) if serials not in world.shown[:number]] == [
        [1, 3],
        [4, 3],
        [4, 5],
    ]


def test_turns() -> None:
    """Between the rounds workers take turns, many times; without a socket a round is waited for at once."""
    world = World()
    log = open_log("error", io.StringIO())
    for show in (world.show, None):
        supervisor = Supervisor(
            world.spawn, count=WORKERS, drain_s=0, log=log, settle=world.settle, show=show, clock=lambda: world.now
        )
        assert supervisor.start()
        world.shown.clear()
        supervisor.wait()
        assert len(world.shown) >= 9 if show is not None else not world.shown


def test_pause(served: Scene) -> None:
    """Rounds are slow when all is settled, and quick while somebody starts, leaves or is to be replaced."""
    world, supervisor = served.world, served.supervisor
    assert supervisor.pause_s == 1.0
    world.answering = False
    world.spawned[0].code = 1
    supervisor.step()
    assert supervisor.pause_s == 0.05
    served.rounds(1)
    assert supervisor.pause_s == 0.05
    world.spawned[-1].answers = world.answering = True
    served.rounds(1)
    assert supervisor.pause_s == 1.0
    supervisor.roll()
    assert supervisor.pause_s == 0.05
    world.spawned[1].leaves = False
    served.rounds(2)
    assert supervisor.metrics.states["draining"] == 1
    assert supervisor.pause_s == 0.05


@pytest.mark.parametrize("ask", [Supervisor.wake, Supervisor.end, Supervisor.roll])
def test_woken(ask: Callable[[Supervisor], None]) -> None:
    """Whatever a signal asks for, the next round follows at once."""
    world = World()
    log = open_log("info", io.StringIO())
    supervisor = Supervisor(world.spawn, count=0, drain_s=0, log=log, settle=world.settle)
    ask(supervisor)
    supervisor.end()
    supervisor.wait()  # returns


FAULTS = st.sets(st.sampled_from(["spawn", "look", "ask", "drain", "kill", "close", "settle", "show", "log"]))


class Law(RuleBasedStateMachine):
    """Whatever fails at any call and for how long: it serves, drains or ends with a sentence, and is never silent."""

    @initialize()
    def begin(self) -> None:
        """Serve."""
        self.scene = Scene.make()
        self.world = self.scene.world
        self.ended: WorkersError | None = None
        assert self.scene.supervisor.start()

    def round(self) -> None:
        """One round; only an error of ours, with a sentence, may come out of it."""
        if self.ended is None:
            try:
                self.scene.supervisor.step()
            except WorkersError as error:
                self.ended = error
            self.scene.supervisor.wait()

    @rule(faults=FAULTS, rounds=st.integers(1, 30))
    def fail(self, faults: set[str], rounds: int) -> None:
        """Let things fail for some rounds."""
        self.world.failing = faults
        for _ in range(rounds):
            self.round()

    @rule(which=st.integers(0, 9), code=st.sampled_from([-9, 0, 2]))
    def die(self, which: int, code: int) -> None:
        """Let a worker end unasked."""
        if alive := self.world.alive():
            alive[which % len(alive)].code = code

    @rule(which=st.integers(0, 9), silent=st.booleans())
    def hush(self, which: int, silent: bool) -> None:  # noqa: FBT001 - a rule's argument
        """Stop a worker, or let it go on."""
        if alive := self.world.alive():
            alive[which % len(alive)].is_silent = silent

    @rule(answering=st.booleans(), leaves=st.booleans())
    def become(self, answering: bool, leaves: bool) -> None:  # noqa: FBT001 - a rule's arguments
        """Change what workers do from now on."""
        self.world.answering = answering
        for fake in self.world.alive():
            fake.leaves = leaves

    @rule(seconds=st.sampled_from([0.1, 1.0, 11.0, 700.0]))
    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self.world.now += seconds
        self.round()

    @rule()
    def roll(self) -> None:
        """Ask for a rolling restart."""
        self.scene.supervisor.roll()
        self.round()

    @precondition(lambda self: self.ended is None)
    @rule()
    def heal(self) -> None:
        """When nothing fails any more all workers serve soon, and nobody else is left."""
        self.world.failing, self.world.answering = set(), True
        for fake in self.world.alive():
            fake.answers, fake.is_silent, fake.leaves = True, False, True
            if "drain" in fake.done:
                fake.code = 0
        for _ in range(400):  # a worker that failed often waits ten seconds
            self.round()
        if self.ended is None:
            assert self.scene.supervisor.metrics.states == {"serving": WORKERS, "draining": 0}
            assert sorted(self.scene.supervisor.pids()) == sorted(fake.pid for fake in self.world.alive())
            assert self.scene.supervisor.pause_s == 1.0

    @invariant()
    def told(self) -> None:
        """An end has its sentence; nobody is settled twice."""
        assert self.ended is None or "times in a row" in str(self.ended) or "No worker serves" in str(self.ended)
        assert len(set(self.world.settled)) == len(self.world.settled)

    def teardown(self) -> None:
        """It ends in bounded time, whatever fails, and leaves only whom it names."""
        if not hasattr(self, "scene"):
            return
        before, cannot = self.world.now, self.world.failing & {"look", "drain", "kill"}
        self.scene.supervisor.stop()
        assert self.world.now - before < DRAIN_S + 16
        assert not self.world.alive() or cannot
        named = self.scene.events()[-1:] == ["workers_left_behind"]
        assert not self.world.alive() or named or "log" in self.world.failing


TestLaw = Law.TestCase
TestLaw.settings = settings(max_examples=often(100), stateful_step_count=25, deadline=None)


def test_private_folder() -> None:
    """What workers and supervisor share is readable by their user only, and gone at the end."""
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    with private_folder() as folder:
        assert folder.path.stat().st_mode & 0o777 == 0o700
        path = folder.path
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        with pytest.raises(BlockingIOError):  # so that systemd-tmpfiles does not clean up in it
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)

    assert not path.exists()
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before


def test_no_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that is read-only everywhere: the error says what to mount, or how to do without."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))

    with (
        pytest.raises(WorkersError, match=r"No such file or directory\. .* TMPDIR, or use --workers 1"),
        private_folder(),
    ):
        pass
