import fcntl
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iyscheck.errors import WorkersError
from iyscheck.server.log import open_log
from iyscheck.server.processes import supervisor
from iyscheck.server.processes.child import private_folder
from iyscheck.server.processes.supervisor import MOST_DEATHS, STATES, Place, Supervisor
from iyscheck.server.settings import Settings


@pytest.fixture
def log() -> io.StringIO:
    """What is logged."""
    return io.StringIO()


@pytest.fixture
def unable(monkeypatch: pytest.MonkeyPatch, log: io.StringIO) -> Iterator[Supervisor]:
    """A supervisor on a machine that starts no process."""

    def fail(*_: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(supervisor, "Child", fail)
    with private_folder() as folder:
        settings = Settings.read()
        yield Supervisor(settings, count=2, folder=folder, log=open_log("info", log), settle=lambda _: None)


def test_cannot_start(unable: Supervisor) -> None:
    """A worker that cannot be started at the beginning ends the server."""
    with pytest.raises(WorkersError, match="Worker 0 could not be started"):
        unable.start()


def test_cannot_start_again(unable: Supervisor, log: io.StringIO) -> None:
    """Later it is tried again, as after a death, and as often."""
    with pytest.raises(WorkersError, match="in a row"):
        unable.run()

    events = [json.loads(line) for line in log.getvalue().splitlines()]
    tried = [event["worker"] for event in events if event["event"] == "worker_not_started"]
    assert tried.count(0) == MOST_DEATHS
    assert unable.metrics.restarts == len(tried)


def test_cannot_roll(unable: Supervisor, log: io.StringIO) -> None:
    """A successor that cannot be started leaves the others as they are."""
    unable.roll()
    unable._roll_on()

    assert "rolling_restart_failed" in log.getvalue()
    assert not unable._rolling


PIDS = count(1)


@dataclass
class Fake:
    """A worker without a process: what it does is what the test says."""

    number: int = 0
    answered_s: float | None = None
    answers: bool = False
    is_dead: bool = False
    is_silent: bool = False
    started_s: float = 0.0
    due_s: float = float("inf")
    pid: int = field(default_factory=lambda: next(PIDS))
    done: list[str] = field(default_factory=list)
    code: int = 0

    @property
    def process(self) -> SimpleNamespace:
        """The process it does not have."""
        return SimpleNamespace(pid=self.pid, returncode=self.code)

    def ask(self) -> None:
        """Answer if it does."""
        self.done.append("ask")
        if self.answers and self.answered_s is None:
            self.answered_s = 1_000.0

    def drain(self, seconds: float) -> None:
        """Note it."""
        self.done.append(f"drain {seconds}")

    def kill(self) -> None:
        """Note it."""
        self.done.append("kill")

    def close(self) -> None:
        """Note it."""
        self.done.append("close")


@dataclass
class Scene:
    """A supervisor of fakes at a time that the test sets."""

    supervisor: Supervisor
    spawned: list[Any]
    settled: list[int]
    log: io.StringIO
    now: float = 1_000.0

    def place(self, child: Fake | None, successor: Fake | None = None, number: int = 0) -> Place:
        """Put workers into a place."""
        place = self.supervisor._places[number]
        place.child, place.successor = child, successor  # type: ignore[assignment] # fakes
        return place

    def events(self) -> list[str]:
        """What was logged."""
        return [json.loads(line)["event"] for line in self.log.getvalue().splitlines()]


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch, log: io.StringIO) -> Iterator[Scene]:
    """Two places, nobody in them."""
    spawned: list[Fake] = []
    settled: list[int] = []

    def spawn(number: int, *_: object) -> Fake:
        spawned.append(Fake(number))
        return spawned[-1]

    monkeypatch.setattr(supervisor, "Child", spawn)
    with private_folder() as folder:
        settings = Settings.read(drain_seconds=7.0)
        made = Supervisor(settings, count=2, folder=folder, log=open_log("info", log), settle=settled.append)
        found = Scene(made, spawned, settled, log)
        monkeypatch.setattr(supervisor, "time", SimpleNamespace(monotonic=lambda: found.now))
        yield found


class TestStarting:
    """What happens before the server serves."""

    def test_waits_for_all(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        """It goes on asking until everybody has answered, and the metrics tell meanwhile how many have."""
        seen = []

        def pause() -> None:
            states = scene.supervisor.metrics.states
            seen.append((states.get("starting", 0), states.get("serving", 0)))
            scene.spawned[len(seen) - 1].answers = True

        monkeypatch.setattr(scene.supervisor, "_pause", pause)

        assert scene.supervisor.start()
        assert [fake.number for fake in scene.spawned] == [0, 1]
        assert seen == [(2, 0), (1, 1)]
        assert scene.supervisor.metrics.states == {"serving": 2, "draining": 0}
        assert scene.supervisor.pids() == [fake.pid for fake in scene.spawned]

    def test_ended(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever ends it meanwhile is told that it does not serve."""
        monkeypatch.setattr(scene.supervisor, "_pause", scene.supervisor.end)

        assert not scene.supervisor.start()

    def test_dies(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        """A worker that ends instead of answering ends the server, with its number and exit code."""

        def die() -> None:
            scene.spawned[1].is_dead, scene.spawned[1].code = True, 3

        monkeypatch.setattr(scene.supervisor, "_pause", die)

        with pytest.raises(WorkersError, match="Worker 1 ended with exit code 3 before"):
            scene.supervisor.start()


class TestTending:
    """What one round does for one place."""

    def test_dies(self, scene: Scene) -> None:
        """Who has died is buried, its counts are settled, and its place is filled again when that is due."""
        dead = Fake(answered_s=990.1, is_dead=True, code=-9)
        place = scene.place(dead)
        scene.supervisor._tend(place)
        assert (place.child, place.deaths, dead.done, scene.settled) == (None, 1, ["close"], [dead.pid])
        assert json.loads(scene.log.getvalue())["signal"] == "SIGKILL"

        scene.supervisor._tend(place)
        assert [place.child] == scene.spawned
        assert scene.supervisor.metrics.restarts == 1

    @pytest.mark.parametrize(
        ("answered_s", "deaths"), [(None, 4), (990.1, 4), (989.9, 1)], ids=["never", "just now", "for long"]
    )
    def test_counts_quick_deaths(self, scene: Scene, answered_s: float | None, deaths: int) -> None:
        """Deaths in a row are those without an answer or within ten seconds of it; any other begins a new count."""
        place = scene.place(Fake(answered_s=answered_s, is_dead=True))
        place.deaths = 3
        scene.supervisor._tend(place)

        assert place.deaths == deaths

    def test_backs_off(self, scene: Scene) -> None:
        """A place is filled again at once, and after each further quick death later, and not before."""
        waits = []
        for _ in range(MOST_DEATHS - 1):
            place = scene.place(Fake(is_dead=True))
            scene.supervisor._tend(place)
            waits.append(round(place.due_s - scene.now, 3))
            spawned = len(scene.spawned)
            scene.now = place.due_s - 0.001
            scene.supervisor._tend(place)
            assert len(scene.spawned) == spawned
            scene.now = place.due_s
            scene.supervisor._tend(place)
            assert len(scene.spawned) == spawned + 1

        assert waits == [0.0, 0.1, 0.3, 1.0]
        scene.place(Fake(is_dead=True))
        with pytest.raises(WorkersError, match="died 5 times"):
            scene.supervisor._tend(place)

    def test_successor_on_its_way(self, scene: Scene) -> None:
        """A place whose worker died while its successor starts is not filled a third time."""
        place = scene.place(None, Fake())
        scene.supervisor._tend(place)

        assert (place.child, scene.spawned) == (None, [])

    @pytest.mark.parametrize("answered_s", [None, 990.0])
    def test_asks(self, scene: Scene, answered_s: float | None) -> None:
        """Who lives is asked in every round, whether it has answered before or not."""
        child = Fake(answered_s=answered_s)
        scene.supervisor._tend(scene.place(child))

        assert child.done == ["ask"]

    def test_never_answers(self, scene: Scene) -> None:
        """A worker that takes for ever to answer is killed, and not before its time is over."""
        child = Fake(number=1, due_s=1_000.0)
        scene.supervisor._await(child)  # type: ignore[arg-type] # a fake
        assert "kill" not in child.done

        scene.now = 1_000.1
        scene.supervisor._await(child)  # type: ignore[arg-type] # a fake
        assert child.done.count("kill") == 1
        assert scene.events() == ["worker_never_answered"]


class TestRolling:
    """What rounds do for a rolling restart."""

    def test_one_after_the_other(self, scene: Scene) -> None:
        """A worker is dismissed when its successor answers, and only then the next one gets a successor."""
        old: list[Any] = [Fake(answered_s=1.0), Fake(number=1, answered_s=1.0)]
        places = [scene.place(child, number=number) for number, child in enumerate(old)]
        places[0].deaths = 3
        scene.supervisor.roll()
        for _ in range(3):
            scene.supervisor._roll_on()
        assert [fake.number for fake in scene.spawned] == [0]
        assert [fake.done for fake in old] == [[], []]

        scene.spawned[0].answers = True
        scene.supervisor._roll_on()  # it answers
        scene.supervisor._roll_on()
        assert (places[0].child, places[0].successor, places[0].deaths) == (scene.spawned[0], None, 0)
        assert [fake.done for fake in old] == [["drain 7.0"], []]

        scene.supervisor._roll_on()
        scene.spawned[1].answers = True
        scene.supervisor._roll_on()
        scene.supervisor._roll_on()
        scene.supervisor._roll_on()
        assert [place.child for place in places] == scene.spawned
        assert scene.events().count("rolled") == 1
        assert scene.supervisor._leaving == old

    def test_successor_dies(self, scene: Scene) -> None:
        """A successor that ends is buried like any worker, and nobody else is touched."""
        fakes: list[Any] = [Fake(answered_s=1.0), Fake(is_dead=True)]
        old, dead = fakes
        place = scene.place(old, dead)
        scene.supervisor._rolling.append(place)
        scene.supervisor._roll_on()

        assert (place.child, place.successor, old.done) == (old, None, [])
        assert scene.settled == [dead.pid]
        assert scene.events() == ["rolling_restart_failed", "worker_died"]
        assert not scene.supervisor._rolling

    def test_predecessor_died(self, scene: Scene) -> None:
        """A successor takes a place that has become empty meanwhile."""
        successor: Any = Fake(answered_s=999.0)
        place = scene.place(None, successor)
        scene.supervisor._rolling.append(place)
        scene.supervisor._roll_on()

        assert (place.child, scene.supervisor._leaving) == (successor, [])


class TestLeaving:
    """What becomes of who was told to go."""

    def test_buried(self, scene: Scene) -> None:
        """Who has left is settled once; who stays beyond its time is killed, who has time is left alone."""
        leaving: list[Any] = [Fake(is_dead=True), Fake(due_s=999.0), Fake(due_s=1_000.0)]
        left, late, busy = leaving
        scene.supervisor._leaving.extend(leaving)
        scene.supervisor._reap()

        assert (left.done, late.done, busy.done) == (["close"], ["kill"], [])
        assert scene.settled == [left.pid]
        assert scene.supervisor._leaving == [late, busy]
        assert scene.events() == ["worker_left", "worker_never_left"]

    def test_all_at_the_end(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        """The end of the block drains workers and successors alike, and waits until all are gone."""
        everybody = [Fake(answered_s=1.0), Fake(), Fake(number=1, answered_s=1.0)]
        with scene.supervisor:
            scene.place(everybody[0], everybody[1])
            scene.place(everybody[2], number=1)
            waited = []

            def leave_one() -> None:
                waited.append(dict(scene.supervisor.metrics.states))
                for fake in [fake for fake in everybody if not fake.is_dead][:1]:
                    fake.is_dead = True

            monkeypatch.setattr(scene.supervisor, "_pause", leave_one)

        assert [fake.done for fake in everybody] == [["drain 7.0", "close"]] * 3
        assert [states["draining"] for states in waited] == [3, 2, 1, 0]
        assert all(sum(states.values()) == states["draining"] for states in waited)
        assert sorted(scene.settled) == sorted(fake.pid for fake in everybody)


def test_states(scene: Scene) -> None:
    """The metrics show every state with how many are in it, those with nobody too."""
    scene.place(Fake(answered_s=1.0), Fake())
    scene.place(Fake(answered_s=1.0, is_silent=True), number=1)
    scene.supervisor._leaving.extend([Fake(), Fake()])  # type: ignore[list-item] # fakes

    def shown() -> dict[str, float]:
        workers, _ = scene.supervisor.metrics.collect()
        return {sample.labels["state"]: sample.value for sample in workers.samples}

    assert shown() == dict.fromkeys(STATES, 0)
    scene.supervisor._count()
    assert shown() == {"starting": 1, "serving": 1, "silent": 1, "draining": 2}


def pause(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> float:
    """Let the supervisor pause, without waiting; gives for how long it would have."""
    waited: list[float] = []
    with monkeypatch.context() as patch:
        patch.setattr(scene.supervisor._wake, "wait", waited.append)
        scene.supervisor._pause()
    return waited[0]


def test_pause(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds are slow when all is settled, and quick while somebody starts, leaves or is to be replaced."""
    place = scene.place(Fake(answered_s=1.0), number=1)
    assert pause(scene, monkeypatch) == 0.05
    scene.place(Fake())
    assert pause(scene, monkeypatch) == 0.05
    scene.place(Fake(answered_s=1.0))
    assert pause(scene, monkeypatch) == 1.0
    moving: list[Any] = [scene.supervisor._rolling, scene.supervisor._leaving]
    for each in moving:
        each.append(place)
        assert pause(scene, monkeypatch) == 0.05
        each.clear()
    scene.supervisor.roll()
    assert pause(scene, monkeypatch) == 0.05


@pytest.mark.parametrize("ask", [Supervisor.wake, Supervisor.end, Supervisor.roll])
def test_woken(scene: Scene, ask: Callable[[Supervisor], None]) -> None:
    """Whatever a signal asks for, the next round follows at once."""
    ask(scene.supervisor)

    assert scene.supervisor._wake.wait(0)


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
