"""JetStream's own requests and answers, as far as we use them: JSON both ways, and errors with numbers."""

import json
from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from loader.replication.connection import NatsConnection
from loader.replication.messages import LogAwayError, LogDeniedError, LogMissingError

NO_STREAM: Final = 10059
NO_MESSAGE: Final = 10037
WRONG_LAST: Final = 10071
WRONG_LAST_UNSAID: Final = 10164
"""The same from a leader that does not say where the stream ends."""
UNAVAILABLE: Final = 10008
"""A server that sees too few of the others to know who leads."""
_INFO: Final = ".STREAM.INFO."
"""What a server that is cut off from the others answers, too: as things were when it was not."""
ALONE: Final = 10074
"""A server that is no cluster was asked for several copies."""
NO_PLACE: Final = 10005
"""Too few servers of a cluster that could keep a copy."""
FULL: Final = (10047, 10077, 10023, NO_PLACE, 10002)
"""No room: of a server, of the stream by bytes, of all servers of a cluster, of the account."""


_T = TypeVar("_T")


class Failure(msgspec.Struct, frozen=True):
    """What JetStream answers instead."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class JetStreamError(LogAwayError):
    """JetStream answered that it did not do it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"JetStream: {failure.description or failure.code} ({failure.err_code}).")
        self.failure = failure


class Answer(msgspec.Struct, frozen=True):
    """Any answer, as far as all have it in common."""

    error: Failure | None = None


class StreamState(msgspec.Struct, frozen=True):
    """What a stream holds; `subjects` only where it was asked for."""

    messages: int = 0
    bytes: int = 0
    first_seq: int = 0
    last_seq: int = 0
    subjects: dict[str, int] | None = None


class StreamInfo(msgspec.Struct, frozen=True):
    """A stream."""

    created: str
    state: StreamState
    total: int = 0


class Stored(msgspec.Struct, frozen=True):
    """One message of a stream; what it holds is base64."""

    seq: int
    data: bytes = b""


class Found(msgspec.Struct, frozen=True):
    """The answer to being asked for one message."""

    message: Stored


class Acknowledged(msgspec.Struct, frozen=True):
    """The answer to a message that was stored."""

    stream: str
    seq: int
    duplicate: bool = False


def asked_for(
    connection: NatsConnection, subject: str, request: Mapping[str, object] | None = None, *, timeout_s: float
) -> bytes:
    """Ask JetStream, and return its answer where it did it.

    Raises LogMissingError where there is no such stream, JetStreamError where it says no, LogAwayError.
    """
    return told(connection, subject, json.dumps(request).encode() if request is not None else b"", timeout_s=timeout_s)


def told(
    connection: NatsConnection,
    subject: str,
    payload: bytes,
    *,
    timeout_s: float,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Do what `asked_for` does with bytes. Where no answer is of use, the connection hears of it."""
    try:
        answer = done(connection.ask(subject, payload, timeout_s=timeout_s, headers=headers))
    except LogDeniedError:
        raise
    except LogAwayError as error:
        if not isinstance(error, JetStreamError) or error.failure.err_code == UNAVAILABLE:
            connection.doubt()
        raise
    if not subject.startswith(f"{connection.api}{_INFO}"):
        connection.trust()
    return answer


def done(answer: bytes) -> bytes:
    """Return an answer again where it says that all is well. Raises as `asked_for` does."""
    failure = read(answer, Answer).error
    if failure is None:
        return answer
    if failure.err_code == NO_STREAM:
        raise LogMissingError
    raise JetStreamError(failure)


def read(answer: bytes, kind: type[_T]) -> _T:
    """Read an answer. Raises LogAwayError for what JetStream does not answer: its meaning is not known."""
    try:
        return msgspec.json.decode(answer, type=kind)
    except msgspec.DecodeError as error:
        raise LogAwayError(f"JetStream answered what cannot be read: {error}.") from None
