"""Who watches the health through the native front: an open call each, and no thread."""

import time
from collections.abc import Callable
from typing import Final, Protocol

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from iyscheck.server.refusals import Code

MOST: Final = 10_000
_LONGEST_NAME: Final = 256
_LOOK_S: Final = 0.25
_SENT: Final = 0

_Status = health_pb2.HealthCheckResponse


class Transport(Protocol):
    """What of pygrpc-native is used here."""

    def stream_try_send(self, call_id: int, payload: bytes, /) -> int:
        """Send a message if the client has taken the ones before."""

    def fail(self, call_id: int, code: int, message: str, /) -> bool:
        """End a call."""


class Watchers:
    """All open watches. Used by the one thread that takes up calls."""

    def __init__(self, transport: Transport, status: Callable[[str], int | None]) -> None:
        self._transport = transport
        self._status = status
        self._told: dict[int, tuple[str, int | None]] = {}
        self._look_s = 0.0

    def __len__(self) -> int:
        return len(self._told)

    def open(self, call_id: int, data: bytes) -> None:
        """Tell the status of a name now, and from then on each new one."""
        if len(self._told) >= MOST:
            self._transport.fail(call_id, Code.RESOURCE_EXHAUSTED.value, "Too many watches of the health are open.")
            return
        try:
            name = health_pb2.HealthCheckRequest.FromString(data).service[:_LONGEST_NAME]
        except DecodeError:
            self._transport.fail(call_id, Code.INTERNAL.value, "The bytes are no HealthCheckRequest.")
            return
        self._told[call_id] = (name, None)
        self._tell(call_id)

    def gone(self, call_id: int) -> None:
        """Forget who has left; any other call may be named, too."""
        self._told.pop(call_id, None)

    def look(self) -> None:
        """Tell those who do not know it what has changed; a few times a second at most."""
        now = time.monotonic()
        if self._told and now >= self._look_s:
            self._look_s = now + _LOOK_S
            for call_id in tuple(self._told):
                self._tell(call_id)

    def _tell(self, call_id: int) -> None:
        name, told = self._told[call_id]
        status = self._status(name)
        now: int = _Status.SERVICE_UNKNOWN if status is None else status
        if now == told:
            return
        message = _Status(status=now)
        if self._transport.stream_try_send(call_id, message.SerializeToString()) == _SENT:
            self._told[call_id] = (name, now)  # else it is told once the client has taken what it was sent
