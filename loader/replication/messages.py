"""The log as everybody but its own module sees it: messages in a row, each with a number, and where they begin and end.

It is trusted only to move bytes. It may lose its end or its beginning, have holes, and give numbers to other content:
who reads it finds out, and who appends to it says what it expects.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsSettings:
    """How NATS is reached, and which of its streams is ours.

    `servers` are nats://HOST:PORT, of one cluster. They hold no password: errors and logs name them. Where `ca` is
    given (certificates, PEM) nothing is said before TLS, so the servers need `handshake_first: true`; `cert` and `key`
    are this client's own, `nkey` is the file with its seed. Answers come to `_INBOX_<name>.>`: the server's
    permissions tell clients apart by it. What JetStream is asked is called `api`.REQUEST: $JS.API by itself, and
    otherwise where the streams lie in another account than who asks.
    """

    servers: tuple[str, ...]
    name: str
    nkey: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    stream: str = "IYS"
    api: str = "$JS.API"
    connect_timeout_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEnds:
    """Where a log begins and ends.

    `created` names the log: one that was deleted and made anew has another, whatever its numbers. `first` and `last`
    are the numbers of its messages, `first` is beyond `last` in an empty one; `messages` may be fewer than lie between.
    """

    created: str
    first: int
    last: int
    messages: int
    bytes: int


class LogAwayError(Exception):
    """Nobody answers for the log now, or the answer is lost: what was asked for may have happened or not."""


class LogDeniedError(LogAwayError):
    """NATS does not let this client speak or listen there; `subject` is in small letters, as NATS's client has it."""

    def __init__(self, subject: str) -> None:
        super().__init__(
            f"NATS does not let this client use {subject}. Give its user that permission: see deploy/cluster/nats."
        )
        self.subject = subject


class LogMissingError(Exception):
    """The log's server says that there is no such log."""


class LogMovedError(Exception):
    """The log does not end where who appends expected it to; `last` is where it ends, as far as the server said."""

    def __init__(self, last: int | None) -> None:
        super().__init__(last)
        self.last = last


class Reader(Protocol):
    """Reads on from one message."""

    def fetch(self, timeout_s: float, most: int = 16) -> list[tuple[int, bytes]]:
        """Return the next messages with their numbers; none where nothing comes in time.

        Raises LogAwayError where this reader is of no use any more: take another.
        """
        ...


class Log(Protocol):
    """One log. Safe to use from one thread at a time."""

    def ends(self) -> LogEnds:
        """Say where it begins and ends. Raises LogAwayError, LogMissingError."""
        ...

    def append(self, expected: int, message: bytes) -> int:
        """Store a message as number `expected` + 1, if the log ends at `expected`, and return its number.

        Raises LogMovedError where it ends elsewhere, LogAwayError where it may be stored or not, LogMissingError.
        """
        ...

    def get(self, number: int) -> bytes | None:
        """Return one message as the log's leader has it; None where there is none. Raises LogAwayError."""
        ...

    def reading(self, first: int) -> AbstractContextManager[Reader]:
        """Read from a message on. Raises LogAwayError, LogMissingError.

        Where `first` lies before the log's beginning or beyond its end, what comes begins elsewhere, unannounced.
        """
        ...

    def close(self) -> None:
        """Let it go."""
        ...


class ObjectMissingError(Exception):
    """There is no whole object of this name."""


class ObjectsFullError(Exception):
    """What is to be kept is larger than the room for it."""


class Objects(Protocol):
    """Things of many bytes under names of A-Z, a-z, 0-9, hyphens, underscores and single dots between them.

    Only whole things are seen. Safe to use from one thread at a time.
    """

    def put(self, name: str, chunks: Iterator[bytes]) -> int:
        """Keep bytes under a new name, and return how many. Raises ObjectsFullError, LogAwayError, LogMissingError."""
        ...

    def get(self, name: str, offset: int = 0) -> Iterator[bytes]:
        """Return the bytes from an offset on. Raises ObjectMissingError, LogAwayError, LogMissingError.

        They raise as well while one goes through them: go on from where one is.
        """
        ...

    def names(self) -> list[str]:
        """Return the names of all whole things, sorted. Raises LogAwayError, LogMissingError."""
        ...

    def delete(self, name: str) -> None:
        """Forget a thing, also half a one. Raises LogAwayError, LogMissingError."""
        ...

    def close(self) -> None:
        """Let them go."""
        ...
