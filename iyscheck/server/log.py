"""The server's log: one JSON object a line on standard error, never the text of a foreign exception."""

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO, cast

import structlog


def open_log(level: str, stream: TextIO | None = None) -> structlog.typing.FilteringBoundLogger:
    """Make a logger that writes from `level` on."""
    logger = structlog.wrap_logger(
        structlog.WriteLogger(stream or sys.stderr),
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


def take_over_library_logs(**who: object) -> None:
    """Send what libraries such as gRPC warn of through our form; without this they print stack traces.

    `who` is written with each line, as a logger's bound values are.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines(who))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
