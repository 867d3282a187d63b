import io
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from iyscheck.errors import WorkersError
from iyscheck.server import supervisor
from iyscheck.server.child import private_folder
from iyscheck.server.log import open_log
from iyscheck.server.settings import Settings
from iyscheck.server.supervisor import MOST_DEATHS, Supervisor


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


def test_never_answers(unable: Supervisor, log: io.StringIO) -> None:
    """A worker that takes for ever to answer is killed."""
    killed = []
    child: Any = SimpleNamespace(
        number=1,
        process=SimpleNamespace(pid=7),
        answered_s=None,
        due_s=0.0,
        ask=lambda: None,
        kill=lambda: killed.append(7),
    )

    unable._await(child)

    assert killed == [7]
    assert "worker_never_answered" in log.getvalue()


def test_private_folder() -> None:
    """What workers and supervisor share is readable by their user only, and gone at the end."""
    with private_folder() as folder:
        assert folder.path.stat().st_mode & 0o777 == 0o700
        path = folder.path

    assert not path.exists()
