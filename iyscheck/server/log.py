"""The server's log: one JSON object a line on standard error, never the text of a foreign exception."""

import json
import logging
import os
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol, cast

import structlog

from iyscheck.log import LogLines
from iyscheck.server.refusals import our_frames

FAILED: Final = 2
"""The exit code of a process that cannot go on."""


class Lines(Protocol):
    """What of a text file is used: whole lines come."""

    def write(self, text: str, /) -> object:
        """Write a line."""

    def flush(self) -> None:
        """Let go of what is kept."""


def open_log(level: str, lines: Lines) -> structlog.typing.FilteringBoundLogger:
    """Make a logger that writes from `level` on."""
    logger = structlog.wrap_logger(
        structlog.WriteLogger(cast("Any", lines)),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    return cast("structlog.typing.FilteringBoundLogger", logger)


class _JsonLines(logging.Formatter):
    """Writes what libraries log in our form: the logger and the exception's type, not its text or trace.

    What our own modules below the server log names its event, and may be told whole.
    """

    def __init__(self, who: Mapping[str, object]) -> None:
        super().__init__()
        self._who = who

    def format(self, record: logging.LogRecord) -> str:
        level, timestamp = record.levelname.lower(), datetime.fromtimestamp(record.created, UTC).isoformat()
        if event := getattr(record, "event", None):
            told = {"event": event, "message": record.getMessage(), "level": level, "timestamp": timestamp}
            return json.dumps({**self._who, **told})
        error = record.exc_info[0] if record.exc_info else None
        return json.dumps(
            {
                **self._who,
                "event": "library",
                "logger": record.name,
                "at": f"{record.module}:{record.lineno}",
                "error": error.__name__ if error else None,
                "level": level,
                "timestamp": timestamp,
            }
        )


def take_over_library_logs(lines: LogLines, **who: object) -> None:
    """Send what libraries such as gRPC warn of, and Python itself, through our form; else they print stack traces.

    `who` is written with each line, as a logger's bound values are.
    """
    handler = logging.StreamHandler(cast("Any", lines))
    handler.setFormatter(_JsonLines(who))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.raiseExceptions = False  # they would be printed to a standard error that may be gone, stack and all
    logging.captureWarnings(True)
    sys.unraisablehook = _log_ignored


def _log_ignored(ignored: "sys.UnraisableHookArgs") -> None:
    """Log an exception that nobody can be given, such as that of a destructor."""
    error = ignored.exc_value
    told = None if error is None else (type(error), error, error.__traceback__)
    logging.getLogger("python").error("An exception was ignored.", exc_info=told)


def end_with_any_thread(log: structlog.typing.FilteringBoundLogger) -> None:
    """End this process where one of its threads ends by an exception: whoever started it starts it anew.

    Every thread does something that nobody else would do: takes calls up, tells the health, holds the lifeline. What
    goes on without it looks alive and is not.
    """

    def end(died: threading.ExceptHookArgs) -> None:
        try:
            name = died.thread.name if died.thread is not None else None
            at = our_frames(died.exc_value) if died.exc_value is not None else []
            log.critical("thread_died", thread=name, error=died.exc_type.__name__, at=at, exit_code=FAILED)
        finally:
            os._exit(FAILED)

    threading.excepthook = end
