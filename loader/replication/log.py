"""The log in a stream of NATS JetStream: appended where it is expected to end, read by its numbers."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Self

from loader.replication import jetstream
from loader.replication.connection import NatsConnection, NoAnswerError, NoRespondersError
from loader.replication.jetstream import JetStreamError, asked_for
from loader.replication.messages import LogAwayError, LogEnds, LogMissingError, LogMovedError, NatsSettings
from loader.replication.pulling import PullReader

_TIMEOUT_S: Final = 5.0
_AGAIN_S: Final = 1.0
"""After which a question without an answer is asked again: a stream without a leader lets it get lost."""
_HOURS: Final = 3600 * 1_000_000_000
KEPT_HOURS: Final = 48
KEPT_BYTES: Final = 60_000_000_000
MESSAGE_BYTES: Final = 1_000_000
"""The largest message that a stream takes; what is sealed is half of that."""


class NatsLog:
    """A `Log` in the stream `settings.stream`, whose only subject is iys.log.STREAM.

    For one thread at a time. It never appends by itself a second time: whoever appends knows what it may repeat.
    """

    def __init__(self, connection: NatsConnection, settings: NatsSettings, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._connection = connection
        self._stream = settings.stream
        self._subject = f"iys.log.{settings.stream}"
        self._timeout_s = timeout_s

    @classmethod
    def connect(cls, settings: NatsSettings, *, timeout_s: float = _TIMEOUT_S) -> Self:
        """Begin to connect. Nothing is waited for but by what is asked then, `timeout_s` each time.

        Raises SettingsError for files that cannot be used.
        """
        return cls(NatsConnection(settings), settings, timeout_s=timeout_s)

    def close(self) -> None:
        """Let it go."""
        self._connection.close()

    def ends(self) -> LogEnds:
        """Say where it begins and ends. Raises LogAwayError, LogMissingError."""
        answer = self._ask(f"{self._connection.api}.STREAM.INFO.{self._stream}")
        info = jetstream.read(answer, jetstream.StreamInfo)
        state = info.state
        return LogEnds(
            created=info.created,
            first=state.first_seq if state.messages else state.last_seq + 1,
            last=state.last_seq,
            messages=state.messages,
            bytes=state.bytes,
        )

    def append(self, expected: int, message: bytes) -> int:
        """Store a message as number `expected` + 1, if the log ends at `expected`, and return its number.

        Raises LogMovedError where it ends elsewhere, LogAwayError where it may be stored or not, LogMissingError.
        """
        headers = {"Nats-Expected-Last-Sequence": str(expected), "Nats-Expected-Stream": self._stream}
        try:
            answer = jetstream.told(
                self._connection, self._subject, message, timeout_s=self._timeout_s, headers=headers
            )
            stored = jetstream.read(answer, jetstream.Acknowledged)
        except NoRespondersError:
            self.ends()  # without a stream nobody listens either, and then it says so
            raise
        except JetStreamError as error:
            if error.failure.err_code in {jetstream.WRONG_LAST, jetstream.WRONG_LAST_UNSAID}:
                raise LogMovedError(_last(error.failure.description)) from None
            raise
        if stored.seq != expected + 1:
            raise LogAwayError(f"NATS says that it stored message {expected + 1} as {stored.seq}.")
        return stored.seq

    def get(self, number: int) -> bytes | None:
        """Return one message as the log's leader has it; None where there is none. Raises LogAwayError."""
        if number < 1:
            return None
        try:
            answer = self._ask(f"{self._connection.api}.STREAM.MSG.GET.{self._stream}", {"seq": number})
        except JetStreamError as error:
            if error.failure.err_code == jetstream.NO_MESSAGE:
                return None
            raise
        return jetstream.read(answer, jetstream.Found).message.data

    @contextmanager
    def reading(self, first: int) -> Iterator[PullReader]:
        """Read from a message on. Raises LogAwayError, LogMissingError.

        Where `first` lies before the log's beginning or beyond its end, what comes begins elsewhere, unannounced.
        """
        reader = PullReader(self._connection, self._stream, first=first, timeout_s=self._timeout_s)
        try:
            yield reader
        finally:
            reader.close()

    def create_stream(self, *, replicas: int = 3, kept_bytes: int = KEPT_BYTES, kept_hours: int = KEPT_HOURS) -> None:
        """Make the stream; where it is there already and just like that, nothing happens.

        Nobody can delete or purge what is in it; what is older than `kept_hours` goes, and the oldest beyond
        `kept_bytes`. Raises JetStreamError where it is there but different.
        """
        wanted = {
            "name": self._stream,
            "subjects": [self._subject],
            "num_replicas": replicas,
            "storage": "file",
            "retention": "limits",
            "discard": "old",
            "max_age": kept_hours * _HOURS,
            "max_bytes": kept_bytes,
            "max_msg_size": MESSAGE_BYTES,
            "max_msgs": -1,
            "max_consumers": -1,
            "deny_delete": True,
            "deny_purge": True,
            "allow_direct": False,
        }
        self._told(f"{self._connection.api}.STREAM.CREATE.{self._stream}", wanted, self._timeout_s)

    def _ask(self, subject: str, request: dict[str, object] | None = None) -> bytes:
        """Ask what changes nothing: again and again, more and more patiently, until there is no time left."""
        end_s, patience_s = time.monotonic() + self._timeout_s, _AGAIN_S
        while True:
            left_s = end_s - time.monotonic()
            try:
                return self._told(subject, request, min(left_s, patience_s))
            except NoAnswerError:
                if left_s <= patience_s:
                    raise
            patience_s *= 2

    def _told(self, subject: str, request: dict[str, object] | None, timeout_s: float) -> bytes:
        try:
            return asked_for(self._connection, subject, request, timeout_s=timeout_s)
        except LogMissingError:
            raise LogMissingError(f"NATS has no stream {self._stream}.") from None


def _last(description: str) -> int | None:
    """Return where the stream ends, from "wrong last sequence: 5"."""
    digits = description.rpartition(":")[2].strip()
    return int(digits) if digits.isdecimal() else None
