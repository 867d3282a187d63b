"""Why a server that has never answered is silent: of a deadline gRPC says only that it has passed.

While a channel tries to connect, calls end at their deadline, and with a short one nothing else is ever seen. So a call
that found nobody has a look: over a connection of its own, which ends as soon as it knows.
"""

import asyncio
import threading
import time
from time import monotonic
from typing import Final

import grpc
import grpc.aio

from iyscheck.client import calls, failures
from iyscheck.client.route import Route, is_one_address
from iyscheck.errors import ServiceError, SettingsError

LOOK_S: Final = 1.0
"""How long a look may take, after the call's own time."""
AGAIN_S: Final = 10.0
"""How long what it found counts."""
_PAUSE_S: Final = 0.02
_PROBE: Final = "/grpc.health.v1.Health/Check"
"""Asks whoever is there, needs nothing, and is not tried again by gRPC."""
_NO_ANSWER: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


class _Look:
    """One look: what was heard of each address, until one tells the cause or the time is over."""

    def __init__(self, *, one_address: bool) -> None:
        self._until = monotonic() + LOOK_S
        self._one_address = one_address
        self._heard = failures.Heard()
        self.cause: grpc.RpcError | None = None
        self.answered = False

    def left_s(self) -> float:
        return max(self._until - monotonic(), _PAUSE_S)

    def goes_on(self, error: grpc.RpcError | None) -> bool:
        """Take note of how an attempt ended, None where it was answered; say whether to try again."""
        if error is None or error.code() not in _NO_ANSWER:
            self.answered = True
            return False
        if failures.finds_nobody(error):
            self._heard.hear(error)
            found = self._heard.told()
            if found is not None and failures.tells_cause(found):
                self.cause = found
                return False
            if self._one_address:
                return False
        return monotonic() + _PAUSE_S < self._until


class Silence:
    """What a client knows of a server that has not answered it yet. Safe to share between threads."""

    def __init__(self, route: Route) -> None:
        self.answered = False
        """Whether any call was answered: then a late one is only late."""
        self.route = route
        self._one_address = is_one_address(route.target)
        self._cause: grpc.RpcError | None = None
        self._looked_at = -AGAIN_S
        self._lock = threading.Lock()
        self._turn = asyncio.Lock()

    @property
    def is_due(self) -> bool:
        """Whether a look is worth its time: nothing was ever answered, and none was had of late."""
        return not self.answered and monotonic() - self._looked_at >= AGAIN_S

    def known(self) -> ServiceError | None:
        """Give the cause that the last look found, as an error of ours."""
        cause = self._cause
        if self.answered or cause is None:
            return None
        failed = failures.failure(cause, target=self.route.target, timeout_s=0)
        failed.__cause__ = cause
        return failed

    def may_explain(self, error: grpc.RpcError) -> bool:
        """Take note of how a call ended; say whether a look might tell more."""
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return not self.answered
        if not failures.finds_nobody(error):
            self.answered = self.answered or error.code() not in _NO_ANSWER
            return False
        return not (self.answered or self._one_address or failures.tells_cause(error))

    def look(self) -> ServiceError | None:
        """Find out why nobody answers, at most once in a while. Whoever comes meanwhile waits for what is found."""
        if self._lock.acquire(timeout=2 * LOOK_S):  # in a forked child nobody may ever let it go
            try:
                if self.is_due:
                    self._note(self._looked())
            finally:
                self._lock.release()
        return self.known()

    async def look_by_task(self) -> ServiceError | None:
        """Do as `look` in an event loop."""
        async with self._turn:
            if self.is_due:
                self._note(await self._looked_by_task())
        return self.known()

    def _note(self, look: _Look) -> None:
        self._cause, self._looked_at = look.cause, monotonic()
        self.answered = self.answered or look.answered

    def _looked(self) -> _Look:
        look = _Look(one_address=self._one_address)
        try:
            channel = self.route.channel(calls.SEPARATE_CHANNEL_OPTIONS)
        except SettingsError:  # its files have gone since the client was made: nothing is found
            return look
        with channel:
            ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_PROBE)
            while True:
                try:
                    ask(b"", timeout=look.left_s())
                except grpc.RpcError as error:
                    if not look.goes_on(error):
                        return look
                else:
                    look.goes_on(None)
                    return look
                time.sleep(_PAUSE_S)

    async def _looked_by_task(self) -> _Look:
        look = _Look(one_address=self._one_address)
        try:
            channel = self.route.tasks_channel(calls.SEPARATE_CHANNEL_OPTIONS)
        except SettingsError:  # as above
            return look
        async with channel:
            ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_PROBE)
            while True:
                try:
                    await ask(b"", timeout=look.left_s())
                except grpc.RpcError as error:
                    if not look.goes_on(error):
                        return look
                else:
                    look.goes_on(None)
                    return look
                await asyncio.sleep(_PAUSE_S)
