"""The two paths to several servers: one leads to those that say they are fresh, one to all of them.

A call takes the first one while that leads to somebody, else the second one: where everybody's data is old, answers
still come, each with its honest `as_of`. gRPC itself watches the health of each server for the first path. One address
has one path, and nobody is watched.
"""

import os
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import Any, Final, cast

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from iyscheck.client import calls, failures
from iyscheck.client.route import Route
from iyscheck.errors import SettingsError

_HEALTH_CHECK: Final = "/grpc.health.v1.Health/Check"
_QUESTION: Final = health_pb2.HealthCheckRequest(service=calls.FRESH).SerializeToString()
_NOBODY: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


class Paths:
    """The paths of a client for threads. Safe to share between them.

    Nobody can ask gRPC how a channel is, but by a call: so one waits in the path to fresh servers while that leads to
    nobody, and one looks whenever a call got lost there.
    """

    def __init__(self, route: Route) -> None:
        self._route = route
        self._credentials = route.credentials()
        self._fresh: grpc.Channel | None = None
        if route.several and not _threads_are_patched():
            self._all = route.channel(calls.SEVERAL_CHANNEL_OPTIONS, self._credentials)
            self._fresh = route.channel(calls.FRESH_CHANNEL_OPTIONS, self._credentials)
        else:
            self._all = route.channel(calls.CHANNEL_OPTIONS, self._credentials)
        self._lock = threading.Lock()
        self._known = threading.Event()
        """Whether it was ever found out if somebody is fresh."""
        self._found = False
        self._looking = False
        self._process: int | None = None

    @property
    def several(self) -> bool:
        """Whether there are two paths."""
        return self._fresh is not None

    @property
    def channel(self) -> grpc.Channel:
        """What stubs make calls of: each takes the path that is right when it is made."""
        return self._all if self._fresh is None else cast("grpc.Channel", _Both(self, self._fresh, self._all))

    def leads_to_fresh(self, patience_s: float = calls.SETTLE_S) -> bool:
        """Whether the next call should ask those that are fresh. Who comes first waits a moment for an answer to that.

        A forked child goes to all: what watches stayed in the parent.
        """
        if self._fresh is None:
            return False
        if not self._known.is_set():
            self.doubt()
            if self._process == os.getpid():
                self._known.wait(patience_s)
        return self._found and self._process == os.getpid()

    def doubt(self) -> None:
        """Look whether the path to fresh servers leads to somebody, since a call may have got lost there."""
        with self._lock:
            if self._looking or self._fresh is None or (self._known.is_set() and not self._found):
                return
            self._looking = True
            self._process = self._process or os.getpid()
        self._look(patient=False)

    def separate(self, *, fresh: bool) -> grpc.Channel:
        """Open a channel with connections of its own, to those that are fresh or to all."""
        options = calls.SEPARATE_FRESH_CHANNEL_OPTIONS if fresh else calls.SEPARATE_CHANNEL_OPTIONS
        try:
            return self._route.channel(options)
        except SettingsError:  # files that were there have gone: what was read of them is as good as ever
            return self._route.channel(options, self._credentials)

    def close(self) -> None:
        """End all calls and the connections."""
        with self._lock:
            fresh, self._fresh = self._fresh, None
        if fresh is not None:
            fresh.close()
        self._all.close()

    def _look(self, *, patient: bool) -> None:
        """Ask whoever is fresh; if `patient`, wait until somebody is."""
        with self._lock:
            fresh = self._fresh
        if fresh is None:
            return
        ask: Any = fresh.unary_unary(_HEALTH_CHECK)
        try:
            call = ask.future(_QUESTION, timeout=None if patient else calls.SETTLE_S, wait_for_ready=patient)
        except ValueError:  # what gRPC raises where a channel has been closed meanwhile
            return
        here = weakref.ref(self)  # a client that nobody closes goes nevertheless
        call.add_done_callback(lambda ended: _looked(here(), ended.code(), patient=patient))

    def looked(self, code: grpc.StatusCode, *, patient: bool) -> None:
        """Take note of how a look has ended. Somebody was there if a patient one ended at all."""
        with self._lock:
            self._found = self._fresh is not None and (patient or code not in _NOBODY)
            self._looking = False
            waits = self._fresh is not None and not self._found
        self._known.set()
        if waits:
            self._look(patient=True)


class TaskPaths:
    """The paths of a client for asyncio, where gRPC says how a channel is."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._credentials = route.credentials()
        self._fresh: grpc.aio.Channel | None = None
        if route.several:
            self._all = route.tasks_channel(calls.SEVERAL_CHANNEL_OPTIONS, self._credentials)
            self._fresh = route.tasks_channel(calls.FRESH_CHANNEL_OPTIONS, self._credentials)
        else:
            self._all = route.tasks_channel(calls.CHANNEL_OPTIONS, self._credentials)
        self._known = False

    @property
    def several(self) -> bool:
        """Whether there are two paths."""
        return self._fresh is not None

    @property
    def channel(self) -> grpc.aio.Channel:
        """What stubs make calls of: each takes the path that is right when it is made."""
        if self._fresh is None:
            return self._all
        return cast("grpc.aio.Channel", _BothByTask(self, self._fresh, self._all))

    async def known(self, patience_s: float = calls.SETTLE_S) -> bool:
        """Do as `leads_to_fresh`, but before the first answer to that wait a moment for one."""
        if self._fresh is not None and not self._known:
            ask: Any = self._fresh.unary_unary(_HEALTH_CHECK)
            with suppress(grpc.RpcError):  # whatever it is, the channel knows
                await ask(_QUESTION, timeout=min(patience_s, calls.SETTLE_S))
            self._known = True
        return self.leads_to_fresh()

    def leads_to_fresh(self) -> bool:
        """Whether the next call should ask those that are fresh."""
        if self._fresh is None:
            return False
        return self._fresh.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY

    def separate(self, *, fresh: bool) -> grpc.aio.Channel:
        """Open a channel with connections of its own, to those that are fresh or to all."""
        options = calls.SEPARATE_FRESH_CHANNEL_OPTIONS if fresh else calls.SEPARATE_CHANNEL_OPTIONS
        try:
            return self._route.tasks_channel(options)
        except SettingsError:  # as above
            return self._route.tasks_channel(options, self._credentials)

    async def close(self) -> None:
        """End all calls and the connections."""
        if self._fresh is not None:
            await self._fresh.close()
        await self._all.close()


class _Streams:
    """As much of a channel as stubs take, but for unary calls."""

    def __init__(self, paths: Paths | TaskPaths, fresh: object, everybody: object) -> None:
        self._paths = paths
        self._fresh: Any = fresh
        self._all: Any = everybody

    def stream_stream(self, *method: object, **more: object) -> Callable[..., object]:
        """Make what opens streams."""
        paths = self._paths
        ask_fresh, ask_all = self._fresh.stream_stream(*method, **more), self._all.stream_stream(*method, **more)
        return lambda requests, *, metadata: (ask_fresh if paths.leads_to_fresh() else ask_all)(
            requests, metadata=metadata
        )


class _Both(_Streams):
    """As much of a channel as stubs take."""

    _paths: Paths

    def unary_unary(self, *method: object, **more: object) -> Callable[..., object]:
        """Make what asks once: if nobody is there who is fresh, then all others in the time that is left."""
        paths = self._paths
        ask_fresh, ask_all = self._fresh.unary_unary(*method, **more), self._all.unary_unary(*method, **more)

        def ask(request: object, *, timeout: float, metadata: object) -> object:
            deadline = monotonic() + timeout
            if paths.leads_to_fresh(timeout / 2):
                try:
                    return ask_fresh(request, timeout=max(deadline - monotonic(), 0), metadata=metadata)
                except grpc.RpcError as error:
                    nobody = failures.finds_nobody(error)
                    if nobody or error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                        paths.doubt()
                    if not nobody:
                        raise
            return ask_all(request, timeout=max(deadline - monotonic(), 0), metadata=metadata)

        return ask


class _BothByTask(_Streams):
    """The same in asyncio."""

    _paths: TaskPaths

    def unary_unary(self, *method: object, **more: object) -> Callable[..., Awaitable[object]]:
        """Make what asks once, in the same way."""
        paths = self._paths
        ask_fresh, ask_all = self._fresh.unary_unary(*method, **more), self._all.unary_unary(*method, **more)

        async def ask(request: object, *, timeout: float, metadata: object) -> object:  # noqa: ASYNC109 - gRPC's name
            deadline = monotonic() + timeout
            if await paths.known(timeout / 2):
                try:
                    return await ask_fresh(request, timeout=max(deadline - monotonic(), 0), metadata=metadata)
                except grpc.RpcError as error:
                    if not failures.finds_nobody(error):
                        raise
            return await ask_all(request, timeout=max(deadline - monotonic(), 0), metadata=metadata)

        return ask


def _looked(paths: Paths | None, code: grpc.StatusCode, *, patient: bool) -> None:
    if paths is not None:
        paths.looked(code, patient=patient)


def _threads_are_patched() -> bool:
    """Whether gevent has replaced threads: what looks would hold up all of them."""
    gevent = sys.modules.get("gevent.monkey")
    return gevent is not None and bool(gevent.is_module_patched("threading"))
