"""Things of many bytes in a stream of NATS: cut into messages, and there only once a last message says that all are."""

import asyncio
import re
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from typing import Final, Self

import msgspec

from loader.replication import jetstream
from loader.replication.connection import NatsConnection
from loader.replication.jetstream import JetStreamError, asked_for
from loader.replication.messages import (
    LogAwayError,
    LogMissingError,
    NatsSettings,
    ObjectMissingError,
    ObjectsFullError,
)
from loader.replication.pulling import PullReader

CHUNK_BYTES: Final = 512 * 1024
MOST_BYTES: Final = 10_000_000_000
"""The largest thing that is kept here."""
KEPT_BYTES: Final = 3 * MOST_BYTES
_ROOMS: Final = (KEPT_BYTES, MOST_BYTES, 3_000_000_000, 1_000_000_000, 300_000_000)
_IN_FLIGHT: Final = 8
"""Chunks that are on their way to the server at a time."""
_TIMEOUT_S: Final = 10.0
_IDLE_S: Final = 2.0
"""How long a chunk that must be there is waited for."""
_KEPT_DAYS: Final = 7
"""After so long goes what nobody deleted, such as half a thing. The log is kept for two days."""
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


class _Whole(msgspec.Struct, frozen=True):
    """What the last message says: how many bytes there are, and as which messages of the stream.

    `runs` are numbers of messages in a row, each the first one and how many. All chunks but the last are `chunk` bytes.
    """

    bytes: int
    chunk: int
    runs: list[tuple[int, int]]

    def is_sound(self) -> bool:
        """Whether it can be what a `put` left, whoever wrote it."""
        if self.chunk != CHUNK_BYTES or not 0 <= self.bytes <= MOST_BYTES:
            return False
        chunks = max(-(-self.bytes // self.chunk), 1)
        return all(first > 0 and many > 0 for first, many in self.runs) and sum(many for _, many in self.runs) == chunks


class NatsObjects:
    """`Objects` in the stream BUCKET, under iys.snapshots.BUCKET.chunks.NAME and iys.snapshots.BUCKET.whole.NAME.

    The stream has one copy: what is in it can be made again. For one thread at a time.
    """

    def __init__(self, connection: NatsConnection, bucket: str, *, most_bytes: int = MOST_BYTES) -> None:
        self._connection = connection
        self._stream = bucket
        self._most_bytes = most_bytes

    @classmethod
    def connect(cls, settings: NatsSettings, bucket: str, *, most_bytes: int = MOST_BYTES) -> Self:
        """Begin to connect. Raises SettingsError for files that cannot be used."""
        return cls(NatsConnection(settings), bucket, most_bytes=most_bytes)

    def close(self) -> None:
        """Let it go."""
        self._connection.close()

    def create_stream(self, *, kept_bytes: int = KEPT_BYTES) -> None:
        """Make the stream; where it is there already and just like that, nothing happens.

        What does not fit into `kept_bytes` is refused, and nothing old goes for it.
        """
        wanted = {
            "name": self._stream,
            "subjects": [self._chunks(">"), self._whole(">")],
            "num_replicas": 1,
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "max_bytes": kept_bytes,
            "max_msg_size": CHUNK_BYTES * 2,
            "max_age": _KEPT_DAYS * 86_400 * 1_000_000_000,
            "max_msgs": -1,
            "max_consumers": -1,
            "deny_delete": True,
            "deny_purge": False,
            "allow_direct": False,
        }
        self._ask(f"{self._connection.api}.STREAM.CREATE.{self._stream}", wanted)

    def put(self, name: str, chunks: Iterator[bytes]) -> int:
        """Keep bytes under a name, and return how many; what was there under it is forgotten.

        Where there is no stream it is made: what was in a lost one can be made again, but only if somebody does.
        Raises ObjectsFullError, LogAwayError, LogMissingError. Whatever it raises, half a thing is never seen.
        """
        try:
            self.delete(name)
        except LogMissingError:
            self._make_room()
        writing = _Writing(self._connection, self._stream)
        try:
            return self._write(writing, name, chunks)
        except BaseException as error:
            writing.abandon()
            with suppress(LogAwayError, LogMissingError):  # it is half a thing, which goes with time
                self.delete(name)
            if isinstance(error, JetStreamError) and error.failure.err_code in jetstream.FULL:
                raise _full(f"NATS has no room left for snapshots ({error.failure.description}).") from None
            raise

    def get(self, name: str, offset: int = 0) -> Iterator[bytes]:
        """Return the bytes from an offset on. Raises ObjectMissingError, LogAwayError, LogMissingError.

        They raise as well while one goes through them: go on from where one is.
        """
        whole = self._found(name)
        wanted = [number for first, many in whole.runs for number in range(first, first + many)]
        skipped, within = divmod(offset, whole.chunk)
        del wanted[:skipped]
        if wanted and offset < whole.bytes:
            yield from self._read(name, wanted, within)

    def names(self) -> list[str]:
        """Return the names of all whole things, sorted. Raises LogAwayError, LogMissingError."""
        named: list[str] = []
        while True:
            request = {"subjects_filter": self._whole(">"), "offset": len(named)}
            info = jetstream.read(
                self._ask(f"{self._connection.api}.STREAM.INFO.{self._stream}", request), jetstream.StreamInfo
            )
            page = info.state.subjects or {}
            named += [subject.removeprefix(self._whole("")) for subject in page]
            if not page or len(named) >= info.total:
                return sorted(named)

    def delete(self, name: str) -> None:
        """Forget a thing, also half a one. Raises LogAwayError, LogMissingError."""
        _check(name)
        for subject in (self._whole(name), self._chunks(name)):  # in this order it is whole until it is gone
            self._ask(f"{self._connection.api}.STREAM.PURGE.{self._stream}", {"filter": subject})

    def _make_room(self) -> None:
        """Make the stream, as large as NATS has room for now. Raises ObjectsFullError, LogAwayError."""
        for kept_bytes in _ROOMS:
            try:
                self.create_stream(kept_bytes=kept_bytes)
            except JetStreamError as error:
                if error.failure.err_code not in jetstream.FULL:
                    raise
            else:
                return
        raise _full("NATS has no room for snapshots.")

    def _write(self, writing: "_Writing", name: str, chunks: Iterator[bytes]) -> int:
        size = 0
        for chunk in _recut(chunks):
            size += len(chunk)
            if size > self._most_bytes:
                raise _full(f"{name} is larger than {self._most_bytes:,} bytes.")
            writing.send(self._chunks(name), chunk)
        writing.wait()
        whole = _Whole(bytes=size, chunk=CHUNK_BYTES, runs=writing.runs)
        writing.send(self._whole(name), msgspec.json.encode(whole))
        writing.wait()
        return size

    def _found(self, name: str) -> _Whole:
        _check(name)
        try:
            answer = self._ask(
                f"{self._connection.api}.STREAM.MSG.GET.{self._stream}", {"last_by_subj": self._whole(name)}
            )
        except JetStreamError as error:
            if error.failure.err_code == jetstream.NO_MESSAGE:
                raise ObjectMissingError(name) from None
            raise
        try:
            whole = msgspec.json.decode(jetstream.read(answer, jetstream.Found).message.data, type=_Whole)
        except msgspec.DecodeError:
            raise ObjectMissingError(name) from None
        if not whole.is_sound():
            raise ObjectMissingError(name)
        return whole

    def _read(self, name: str, numbers: list[int], within: int) -> Iterator[bytes]:
        """Return these messages, the first one without its first bytes."""
        waiting = deque(numbers)
        reader = PullReader(
            self._connection, self._stream, first=numbers[0], subject=self._chunks(name), timeout_s=_TIMEOUT_S
        )
        with closing(reader):
            while waiting:
                fetched = reader.fetch(_IDLE_S)
                if not fetched:
                    self._found(name)  # or it was deleted meanwhile
                    raise LogAwayError(f"NATS does not deliver {name}.")
                for number, chunk in fetched:
                    if number < waiting[0]:
                        continue  # of half a thing that was put under this name at the same time
                    if number > waiting[0]:
                        raise ObjectMissingError(name)  # it was deleted meanwhile
                    waiting.popleft()
                    yield chunk[within:]
                    within = 0
                    if not waiting:
                        return

    def _chunks(self, name: str) -> str:
        return f"iys.snapshots.{self._stream}.chunks.{name}"

    def _whole(self, name: str) -> str:
        return f"iys.snapshots.{self._stream}.whole.{name}"

    def _ask(self, subject: str, request: Mapping[str, object]) -> bytes:
        try:
            return asked_for(self._connection, subject, request, timeout_s=_TIMEOUT_S)
        except LogMissingError:
            raise LogMissingError(f"NATS has no stream {self._stream}.") from None


class _Writing:
    """Messages on their way to a stream, several at a time; `runs` are those that arrived."""

    def __init__(self, connection: NatsConnection, stream: str) -> None:
        self.runs: list[tuple[int, int]] = []
        self._connection = connection
        self._headers = {"Nats-Expected-Stream": stream}
        self._under_way: deque[asyncio.Task[bytes]] = deque()

    def send(self, subject: str, chunk: bytes) -> None:
        """Send a message; waits only while as many as may are on their way. Raises LogAwayError, LogMissingError."""
        self._do(self._sent(subject, chunk))

    def wait(self) -> None:
        """Wait until all have arrived. Raises as `send` does."""
        self._do(self._arrived(0))

    def abandon(self) -> None:
        """Wait for none of them any more."""
        self._do(self._abandoned())

    def _do(self, work: Coroutine[object, object, None]) -> None:
        self._connection.run(work, timeout_s=_TIMEOUT_S * _IN_FLIGHT)

    async def _sent(self, subject: str, chunk: bytes) -> None:
        asking = self._connection.asked(subject, chunk, self._headers, _TIMEOUT_S)
        self._under_way.append(asyncio.get_running_loop().create_task(asking))
        await self._arrived(_IN_FLIGHT - 1)

    async def _arrived(self, left: int) -> None:
        while len(self._under_way) > left:
            answer = jetstream.done(await self._under_way[0])
            self._under_way.popleft()
            number = jetstream.read(answer, jetstream.Acknowledged).seq
            first, many = self.runs[-1] if self.runs else (0, 0)
            if number == first + many and many:
                self.runs[-1] = (first, many + 1)
            else:
                self.runs.append((number, 1))

    async def _abandoned(self) -> None:
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        self._under_way.clear()


def _check(name: str) -> None:
    """Raises ValueError for a name that NATS would take for several."""
    if not _NAME.fullmatch(name):
        raise ValueError(name)


def _recut(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Return the same bytes in chunks that are all of one size but the last, at least one."""
    rest = bytearray()
    for chunk in chunks:
        rest += chunk
        while len(rest) > CHUNK_BYTES:
            yield bytes(rest[:CHUNK_BYTES])
            del rest[:CHUNK_BYTES]
    yield bytes(rest)


def _full(what: str) -> ObjectsFullError:
    return ObjectsFullError(
        f"{what} Keep snapshots in a directory that a static HTTPS server serves instead: `directory` in [snapshots] "
        "for who makes them, `url` for replicas."
    )
