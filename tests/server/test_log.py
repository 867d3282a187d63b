"""What a line of the log is made of: ours, and what libraries warn of."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from iyscheck.log import STANDARD_ERROR, LogLines
from iyscheck.server.app import Server
from iyscheck.server.handlers import CheckHandlers
from iyscheck.server.log import open_log, take_over_library_logs
from tests.server.conftest import Site


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, which is left as it was, and with it what Python prints by itself."""
    logger = logging.getLogger()
    handlers, level, ignored = logger.handlers[:], logger.level, sys.unraisablehook
    yield logger
    sys.unraisablehook = ignored
    logging.captureWarnings(False)
    logger.handlers[:] = handlers
    logger.setLevel(level)


def is_now(timestamp: str) -> bool:
    """Whether a line's time is in UTC and was just now."""
    written = datetime.fromisoformat(timestamp)
    return written.utcoffset() == timedelta(0) and abs(datetime.now(UTC) - written) < timedelta(hours=0.5)


def test_line() -> None:
    """A line is one JSON object with its event, level and time in UTC."""
    stream = io.StringIO()
    open_log("info", stream).warning("tested", number=3)
    line = json.loads(stream.getvalue())

    assert is_now(line.pop("timestamp"))
    assert line == {"event": "tested", "level": "warning", "number": 3}


def test_level() -> None:
    """Nothing below the level is written, the level itself is."""
    stream = io.StringIO()
    log = open_log("warning", stream)
    log.info("below")
    log.warning("at it")

    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["at it"]


def test_library(root: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    """A library's warning says which code warned, and nothing of what it said."""
    take_over_library_logs(LogLines(STANDARD_ERROR), worker=3)
    logger = logging.getLogger("elsewhere")
    logger.info("below")
    logger.warning("secret")

    line = json.loads(capfd.readouterr().err)
    assert root.level == logging.WARNING
    assert is_now(line.pop("timestamp"))
    assert line.pop("at").startswith("test_log:")
    assert line == {"worker": 3, "event": "library", "logger": "elsewhere", "error": None, "level": "warning"}


def test_health_last(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line says SERVING before calls can be taken: not while loops are compiled or the port is opened."""
    log = io.StringIO()
    said_before: list[str] = []
    rehearse, bind = CheckHandlers.rehearse, Server.bind

    def rehearsed(handlers: CheckHandlers) -> None:
        rehearse(handlers)
        said_before.append(log.getvalue())

    def bound(server: Server, address: str) -> str:
        said_before.append(log.getvalue())
        return bind(server, address)

    monkeypatch.setattr(CheckHandlers, "rehearse", rehearsed)
    monkeypatch.setattr(Server, "bind", bound)
    with Server.start(site.settings(), open_log("debug", log)):
        assert '"serving": true' in log.getvalue()
    assert said_before == ["", ""]
