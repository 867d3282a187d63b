"""Messages pulled from a stream by a consumer of its own, which lies in the memory of a server and may die with it."""

import asyncio
import json
import queue
import secrets
import time
from contextlib import suppress
from typing import Final

from loader.replication.connection import Delivery, Listening, NatsConnection
from loader.replication.jetstream import asked_for
from loader.replication.messages import LogAwayError

_PULL: Final = 32
"""Messages asked for at a time. As many and half as many again lie here at most, of 1 MB each at most."""
_LOW: Final = _PULL // 2
_EXPIRES_S: Final = 30
_HEARTBEAT_S: Final = 1
_SILENT_S: Final = 4.0
"""A consumer that says nothing for so long, not even that there is nothing, is gone."""
_FORGOTTEN_S: Final = 300
"""When a server forgets a consumer that nobody pulls from."""
_LOOK_S: Final = 0.25
_NANOSECONDS: Final = 1_000_000_000
_ALIVE: Final = "100"
_OVER: Final = ("404", "408")
_NOBODY: Final = "503"
_AGAIN_S: Final = 0.05
_DONE: Final = "batch completed"
_TOKENS: Final = (9, 12)
"""How many parts the address of an acknowledgement has, without and with a domain."""


class PullReader:
    """Reads a stream from one message on, some messages ahead. A `Reader`; for one thread at a time."""

    def __init__(
        self, connection: NatsConnection, stream: str, *, first: int, subject: str = "", timeout_s: float
    ) -> None:
        """Begin to read, only what came under `subject` if one is given. Raises LogAwayError, LogMissingError."""
        self._connection = connection
        self._stream = stream
        self._name = f"iyscheck{secrets.token_hex(8)}"
        self._arrived: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()
        self._coming = 0
        self._heard = time.monotonic()
        self._begun = self._heard
        self._is_known = False
        self._dead: LogAwayError | None = None
        self._pulls: set[asyncio.Task[None]] = set()
        self._listening: Listening = connection.listen(self, timeout_s=timeout_s)
        try:
            self._create(first, subject, timeout_s)
        except BaseException:
            connection.end(self, self._listening)
            raise

    def fetch(self, timeout_s: float, most: int = 16) -> list[tuple[int, bytes]]:
        """Return the next messages with their numbers; none where nothing comes in time. Raises LogAwayError."""
        end = time.monotonic() + timeout_s
        while True:
            self._connection.soon(self._pull)
            taken = self._taken(most)
            if taken:
                return taken
            self._check()
            left_s = end - time.monotonic()
            if left_s <= 0:
                return []
            with suppress(queue.Empty):  # the loop looks whether all is well, and waits on
                taken = [self._arrived.get(timeout=min(left_s, _LOOK_S))]
                return taken + self._taken(most - 1)

    def close(self) -> None:
        """Read no more."""
        self._connection.end(self, self._listening)
        with suppress(LogAwayError):  # a server forgets by itself what nobody pulls from
            self._connection.ask(f"{self._connection.api}.CONSUMER.DELETE.{self._stream}.{self._name}", timeout_s=1)

    def delivered(self, delivery: Delivery) -> None:
        """Take a message, or what the server says of the delivering."""
        self._heard = time.monotonic()
        if delivery.status == _NOBODY and not self._is_known and self._heard < self._begun + _SILENT_S:
            self._coming = 0  # the server that we talk to has not heard of a reader that lies in another one
            asyncio.get_running_loop().call_later(_AGAIN_S, self._pull)
            return
        self._is_known = True
        if not delivery.status:
            self._coming -= 1
            self._arrived.put((_number(delivery.reply), delivery.data))
        elif delivery.status in _OVER or delivery.description.lower() == _DONE:
            self._coming = 0
        elif delivery.status != _ALIVE:
            said = "nobody delivers any more" if delivery.status == _NOBODY else delivery.description
            self._dead = LogAwayError(f"NATS ends the reading: {said or delivery.status}.")
        self._pull()

    def lost(self, error: LogAwayError) -> None:
        """Hear that nothing more will come."""
        self._dead = error

    def _taken(self, most: int) -> list[tuple[int, bytes]]:
        taken: list[tuple[int, bytes]] = []
        with suppress(queue.Empty):
            while len(taken) < most:
                taken.append(self._arrived.get_nowait())
        return taken

    def _check(self) -> None:
        if self._dead is not None:
            raise LogAwayError(*self._dead.args)
        if self._coming > 0 and time.monotonic() - self._heard > _SILENT_S:
            raise LogAwayError("NATS says nothing more of what is read.")

    def _pull(self) -> None:
        """Ask for more, in the thread of the connection, where too little is on its way."""
        if self._coming > 0 or self._dead is not None or self._arrived.qsize() > _LOW:
            return
        self._heard = time.monotonic()  # before the next line, which makes silence count
        self._coming = _PULL
        pull = {
            "batch": _PULL,
            "expires": _EXPIRES_S * _NANOSECONDS,
            "idle_heartbeat": _HEARTBEAT_S * _NANOSECONDS,
        }
        subject = f"{self._connection.api}.CONSUMER.MSG.NEXT.{self._stream}.{self._name}"
        task = asyncio.get_running_loop().create_task(self._listening.speak(subject, json.dumps(pull).encode()))
        self._pulls.add(task)
        task.add_done_callback(self._pulled)

    def _pulled(self, task: "asyncio.Task[None]") -> None:
        self._pulls.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._dead = LogAwayError(f"NATS cannot be asked for more: {error}.")

    def _create(self, first: int, subject: str, timeout_s: float) -> None:
        wanted: dict[str, object] = {
            "name": self._name,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": max(first, 1),
            "ack_policy": "none",
            "max_deliver": -1,
            "replay_policy": "instant",
            "num_replicas": 1,
            "mem_storage": True,
            "inactive_threshold": _FORGOTTEN_S * _NANOSECONDS,
        }
        address = f"{self._connection.api}.CONSUMER.CREATE.{self._stream}.{self._name}"
        if subject:
            wanted["filter_subject"] = subject
            address += f".{subject}"
        asked_for(
            self._connection,
            address,
            {"stream_name": self._stream, "config": wanted, "action": "create"},
            timeout_s=timeout_s,
        )


def _number(reply: str) -> int:
    """Return the number of a message in its stream, from where an acknowledgement would go.

    It is $JS.ACK.STREAM.CONSUMER.DELIVERED.NUMBER.…, or with domain and account between ACK and STREAM.
    """
    parts = reply.split(".")
    if len(parts) not in _TOKENS:
        raise LogAwayError(f"NATS delivered a message without its number: {len(parts)} parts.")
    return int(parts[5] if len(parts) == _TOKENS[0] else parts[7])
