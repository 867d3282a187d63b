"""Calls of one request get a thread when their request is there, and not before.

gRPC gives a call its thread as soon as it is opened, and the thread waits for the request. Whoever opens as many calls
as there are threads and sends nothing else stops everybody, for as long as the connection lasts. Here calls wait for
their requests without a thread. This uses parts of grpcio that are not public; where they are not as we know them, it
stays as gRPC does it.
"""

import inspect
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc
import structlog

from iyscheck.server.calls import SERVICE
from iyscheck.server.unanswered import CallsGivenUp

PATIENCE_S: Final = 30.0
"""How long a call may wait for its request."""
SOON_S: Final = 1.0
MOST_SLOW: Final = 100
"""How many may wait for longer than soon: each may have sent nearly a whole message."""
MOST_WAITING: Final = 500
"""How many may wait at all; one more ends the oldest. Some hundreds are usual for a moment when many calls come."""
MOST_BYTES: Final = 256 * 2**20
"""What requests may take that are there and wait for a thread."""

_OURS: Final = f"/{SERVICE}/".encode()
_LATE: Final = "The request was not there within half a minute."
_CROWDED: Final = "Too many calls wait for their requests. Try again in a moment."
_HEAVY: Final = "Too many requests wait for a thread. Try again in a moment."
_NONE: Final = "The call ended without a request. Send exactly one."

_IN_POOL: Final = ("rpc_event", "state", "behavior", "argument_thunk", "request_deserializer", "response_serializer")
_SIGNATURES: Final = {
    "_unary_response_in_pool": _IN_POOL,
    "_stream_response_in_pool": _IN_POOL,
    "_receive_message": ("state", "call", "request_deserializer"),
    "_abort": ("state", "call", "code", "details"),
    "_is_rpc_state_active": ("state",),
    "_serialized_request": ("request_event",),
}
"""What is used of gRPC's server, and what it takes."""


class Requests:
    """All calls of a server that wait for their requests."""

    def __init__(self, given_up: CallsGivenUp, log: structlog.typing.FilteringBoundLogger) -> None:
        """`given_up` counts calls that end before they have a thread, by their reason."""
        self._given_up = given_up
        self._lock = threading.Lock()
        self._waiting: dict[_Call, None] = {}  # the oldest first
        self._bytes = 0
        self._grpc, self._core = _inside()
        if self._grpc is None:
            log.warning("requests_hold_threads", grpcio=grpc.__version__)

    def __len__(self) -> int:
        """Count the calls that wait for their requests."""
        return len(self._waiting)

    def before(self, pool: ThreadPoolExecutor) -> ThreadPoolExecutor:
        """Make what handlers of one request name as their `experimental_thread_pool`, so that they run in `pool`."""
        return pool if self._grpc is None else _Before(pool, self)

    def wait(self, call: "_Call") -> None:
        """Ask for the request of a call. gRPC's only polling thread comes here, and holds the lock of the call."""
        received = self._grpc._receive_message(call.state, call.event.call, call.deserializer)  # noqa: SLF001
        with self._lock:
            self._waiting[call] = None
            crowded = next(iter(self._waiting)) if len(self._waiting) > MOST_WAITING else None
        call.event.call.start_server_batch(
            (self._core.ReceiveMessageOperation(0),), lambda event: self._arrived(call, received, event)
        )
        call.state.due.add(self._grpc._RECEIVE_MESSAGE_TOKEN)  # noqa: SLF001
        if crowded is not None:
            self._give_up(crowded, "crowded", self._core.StatusCode.resource_exhausted, _CROWDED)

    def end_late(self) -> None:
        """End the calls whose requests did not come in time. Where many are slow, their time is short."""
        now = time.monotonic()
        with self._lock:
            ages = [(call, now - call.since) for call in self._waiting]
        late = [call for call, age in ages if age > PATIENCE_S]
        slow = [call for call, age in ages if SOON_S < age <= PATIENCE_S]
        for call in late:
            self._give_up(call, "late", self._core.StatusCode.deadline_exceeded, _LATE)
        for call in slow[: max(len(slow) - MOST_SLOW, 0)]:
            self._give_up(call, "crowded", self._core.StatusCode.resource_exhausted, _CROWDED)

    def _arrived(self, call: "_Call", received: Callable[[Any], Any], event: Any) -> Any:  # noqa: ANN401
        """Let a call run whose request is there, in gRPC's polling thread. Nothing comes where the call has ended."""
        left = received(event)
        with self._lock:
            self._waiting.pop(call, None)
        if not (self._is_whole(call) and self._has_room(call, event)):
            call.end()
            return left
        call.start(lambda: self._taken(call))
        return left

    def _is_whole(self, call: "_Call") -> bool:
        state = call.state
        with state.condition:
            if not self._grpc._is_rpc_state_active(state):  # noqa: SLF001
                if state.request is not None:
                    self._given_up.left(late=call.is_late, given_s=call.given_s, is_check=call.is_check)
                return False
            call.arrived = True
            if state.request is None:
                self._abort(call, self._core.StatusCode.unimplemented, _NONE)
            return state.request is not None

    def _has_room(self, call: "_Call", event: Any) -> bool:  # noqa: ANN401
        size = len(self._grpc._serialized_request(event))  # noqa: SLF001
        with self._lock:
            if self._bytes + size <= MOST_BYTES:
                self._bytes += size
                call.size = size
                return True
        with call.state.condition:
            call.state.request = None
            if self._grpc._is_rpc_state_active(call.state):  # noqa: SLF001
                self._abort(call, self._core.StatusCode.resource_exhausted, _HEAVY)
                self._given_up.count("heavy", is_check=call.is_check)
        return False

    def _taken(self, call: "_Call") -> Any:  # noqa: ANN401
        """Hand the request to gRPC in the thread of the call, unless the caller has left meanwhile."""
        with self._lock:
            self._bytes -= call.size
        state = call.state
        with state.condition:
            request, state.request = state.request, None
            if self._grpc._is_rpc_state_active(state):  # noqa: SLF001
                return request
        self._given_up.left(late=call.is_late, given_s=call.given_s, is_check=call.is_check)
        return None

    def _give_up(self, call: "_Call", reason: str, code: object, details: str) -> None:
        with self._lock:
            self._waiting.pop(call, None)
        with call.state.condition:
            if call.arrived or not self._grpc._is_rpc_state_active(call.state):  # noqa: SLF001
                return
            self._abort(call, code, details)
        self._given_up.count(reason, is_check=call.is_check)

    def _abort(self, call: "_Call", code: object, details: str) -> None:
        self._grpc._abort(call.state, call.event.call, code, details.encode())  # noqa: SLF001


class _Before(ThreadPoolExecutor):
    """What gRPC takes for the pool, since it takes no other class. It never starts a thread of its own."""

    def __init__(self, pool: ThreadPoolExecutor, requests: Requests) -> None:
        super().__init__(1)
        self._pool = pool
        self._requests = requests

    def submit(self, run: Callable[..., Any], /, *parts: Any, **_: Any) -> Any:  # noqa: ANN401 - gRPC's own
        call = _Call(self._pool, run, parts)
        self._requests.wait(call)
        return call


class _Call:
    """A call from its first byte to its last. gRPC takes it for the future of what runs in the pool."""

    __slots__ = (
        "_done",
        "_parts",
        "_pool",
        "_run",
        "arrived",
        "deserializer",
        "event",
        "given_s",
        "since",
        "size",
        "state",
    )

    def __init__(self, pool: ThreadPoolExecutor, run: Callable[..., Any], parts: tuple[Any, ...]) -> None:
        _, self.event, self.state, _, _, self.deserializer, _ = parts
        self._pool = pool
        self._run = run
        self._parts = parts
        self._done: Callable[[Any], object] | None = None
        self.since = time.monotonic()
        self.given_s = float(self.event.call_details.deadline) - time.time()
        """How long its caller lets it take."""
        self.size = 0
        self.arrived = False
        """Whether its request is there, or surely does not come; guarded by the call's own lock."""

    @property
    def is_check(self) -> bool:
        """Whether it is a call of the service; else it is one of health."""
        return bool(self.event.call_details.method.startswith(_OURS))

    @property
    def is_late(self) -> bool:
        """Whether its deadline has passed."""
        return bool(self.event.call_details.deadline <= time.time())

    def add_done_callback(self, done: Callable[[Any], object]) -> None:
        """Keep how gRPC counts the call as over. It says so before it looks for anything that arrives."""
        self._done = done

    def start(self, taken: Callable[[], Any]) -> None:
        """Let it run, with another way to come by its request."""
        respond, event, state, behaviour, _, *rest = self._parts
        started = self._pool.submit(self._run, respond, event, state, behaviour, taken, *rest)
        started.add_done_callback(self.end)

    def end(self, _: object = None) -> None:
        """Have gRPC count it as over."""
        if self._done is not None:
            self._done(self)


def _inside() -> tuple[Any, Any]:
    """Find the parts of grpcio that are used here, its server and its core; nothing where they are not as we know."""
    try:
        from grpc import _server
        from grpc._cython import cygrpc  # type: ignore[attr-defined]

        server: Any = _server
        state = server._RPCState()  # noqa: SLF001
        parts: tuple[Any, ...] = (
            state.condition,
            state.due.add,
            server._RECEIVE_MESSAGE_TOKEN,  # noqa: SLF001
            cygrpc.Call.start_server_batch,
        )
        parts += (cygrpc.ReceiveMessageOperation, cygrpc.StatusCode.unavailable, cygrpc.StatusCode.deadline_exceeded)
        found = {name: tuple(inspect.signature(getattr(server, name)).parameters) for name in _SIGNATURES}
    except (AttributeError, ImportError, TypeError, ValueError):
        return None, None
    return (server, cygrpc) if all(parts) and found == _SIGNATURES and state.request is None else (None, None)
