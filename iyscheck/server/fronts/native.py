"""The native front: unary calls by the package pygrpc-native, which gives Python many of them at once.

Its HTTP/2 runs in a thread outside Python. One thread of ours takes up whatever has come in, answers all single checks
of that as one column, and gives everything that may take longer to the threads of unary calls. It speaks plain text
only and has no streams of requests; README says what else it cannot do.

The package is an extra: nothing imports it unless this front is asked for.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Final, TypeAlias

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from iyscheck.errors import OverloadedError, SettingsError
from iyscheck.server.calls import SERVICE, Arriving, Calls, Gathered
from iyscheck.server.fronts.native_health import Watchers
from iyscheck.server.gate import NOTHING, Presented, only_key
from iyscheck.server.refusals import Code, Refusal
from iyscheck.server.threads import Pool, start

NAME: Final = "native"
"""What metrics and GetServerInfo call it."""

MOST_WAITING: Final = 4_096
"""How many single checks may have gathered; those beyond are refused at once."""
MOST_ALONE: Final = 1_000
"""How many other calls may wait for a thread, as in the other front."""
MOST_ALONE_BYTES: Final = 256 * 1024 * 1024
"""How much those may hold: a batch may have eight megabytes."""
_AT_ONCE: Final = 256
"""How many checks are answered as one column: more gain nothing, and the first would wait for the last."""
_TAKEN_UP: Final = 2 * MOST_WAITING
_ROUND_MS: Final = 250
"""How long nothing may come until watchers of the health are looked after."""
_LAST_WORDS_S: Final = 0.1
"""For answers that were given to be sent: closing cuts what is still on its way out."""
_MOST_STREAMS: Final = 1_024
_KEEPALIVE_MS: Final = 60_000
_KEEPALIVE_TIMEOUT_MS: Final = 20_000
_CALL: Final = 0
_CHECK, _HEALTH_CHECK, _HEALTH_WATCH = 0, 1, 2
_ALONE: Final = ("BatchCheck", "CheckFrame", "GetServerInfo")
_HEALTH: Final = "grpc.health.v1.Health"
_METHODS: Final = (
    (f"/{SERVICE}/Check", False),
    (f"/{_HEALTH}/Check", False),
    (f"/{_HEALTH}/Watch", True),
    *((f"/{SERVICE}/{name}", False) for name in _ALONE),
)
_AUTHORIZATION: Final = "authorization"
_DETAILS: Final = "grpc-status-details-bin"

_Details: TypeAlias = tuple[Sequence[tuple[str, str | bytes]], str, float | None]
Status: TypeAlias = Callable[[str], int | None]
"""Says the health of a name, None of a name that is not known."""


def ensure_installed() -> None:
    """Raise SettingsError where the package is missing."""
    if find_spec("pygrpc_native") is None:
        raise SettingsError(
            "native_listen",
            "needs the package pygrpc-native, which is not installed.",
            fix="Install it with: pip install 'iyscheck[native]'. Or leave the setting out.",
        )


class NativeFront:
    """Listens from its making on, and answers between `start` and `stop`. `address` is where it listens."""

    def __init__(
        self,
        address: str,
        calls: Calls,
        status: Status,
        pools: Mapping[str, Pool],
        *,
        most_bytes: int,
        shares_port: bool,
    ) -> None:
        """Listen on `HOST:PORT` or `unix:PATH`; `status` tells the health, `pools` have threads by names of calls.

        Raises SettingsError.

        Requests of more than `most_bytes` are refused, but not before the package has read them.
        """
        ensure_installed()
        from pygrpc_native import NativeGrpcFront

        try:
            self._transport = NativeGrpcFront(
                address,
                _METHODS,
                io_threads=1,  # the rest of a core is Python's
                call_details=True,
                keepalive_time_ms=_KEEPALIVE_MS,
                keepalive_timeout_ms=_KEEPALIVE_TIMEOUT_MS,
                max_concurrent_streams=_MOST_STREAMS,
                reuse_port=shares_port,
            )
        except OSError:
            raise SettingsError(
                "native_listen", f"{address} cannot be used.", fix="Is another server running there?"
            ) from None
        is_port = not address.startswith("unix:")
        self.address = f"{address.rpartition(':')[0]}:{self._transport.bound_port}" if is_port else address
        self._calls = calls.of(NAME)
        self._asks = calls.gate.asks
        self._status = status
        self._most_bytes = most_bytes
        self._pools = pools
        self._watchers = Watchers(self._transport, status)
        self._alone = self._alone_bytes = 0
        """Calls that are with the pools, and their requests."""
        self._counting = threading.Lock()
        self._leave_by: float | None = None
        self._thread = threading.Thread(target=self._run, name="native", daemon=True)

    def start(self) -> None:
        """Take up calls. Raises WorkersError where no thread can be started."""
        self._transport.start()
        start(self._thread)

    def stop(self, grace_s: float) -> None:
        """Answer until no call is there, for `grace_s` at most, and close all connections.

        The package cannot refuse new calls while it ends old ones: clients are told (GOAWAY) when it closes.
        """
        self._leave_by = time.monotonic() + grace_s
        if self._thread.is_alive():
            self._thread.join(grace_s)
        time.sleep(_LAST_WORDS_S)
        self._transport.close()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        receive = self._transport.recv_batch_details
        while True:
            leaving = self._leave_by is not None
            events = receive(_TAKEN_UP, 1 if leaving else _ROUND_MS)
            if events is None:
                return
            if events:
                self._take(events)
            elif leaving and not self._alone:
                return
            self._watchers.look()

    def _take(self, events: Sequence[tuple[Any, ...]]) -> None:
        """Deal with all that has come in."""
        checks = []
        for event in events:
            kind, call_id, method, data, _, details = event
            if kind != _CALL:
                self._watchers.gone(call_id)
            elif len(data) > self._most_bytes:
                text = f"SERVER: Received message larger than max ({len(data)} vs. {self._most_bytes})"
                self._transport.fail(call_id, Code.RESOURCE_EXHAUSTED.value, text)
            elif method == _CHECK:
                checks.append((call_id, data, details))
            elif method == _HEALTH_CHECK:
                self._tell_health(call_id, data)
            elif method == _HEALTH_WATCH:
                self._watchers.open(call_id, data)
            else:
                self._ask_alone(_ALONE[method - _HEALTH_WATCH - 1], call_id, data, details)
        taken_s = time.perf_counter()
        for at in range(0, min(len(checks), MOST_WAITING), _AT_ONCE):
            self._check(checks[at : min(at + _AT_ONCE, MOST_WAITING)], taken_s)
        for call_id, data, _ in checks[MOST_WAITING:]:
            self._fail(call_id, self._calls.refused("Check", _overloaded(), data))

    def _check(self, checks: Sequence[tuple[int, bytes, _Details]], taken_s: float) -> None:
        """Answer checks that were taken up at a time, on the clock of `perf_counter`."""
        gathered = Gathered(
            data=[data for _, data, _ in checks],
            presented=[self._presented(details) for _, _, details in checks] if self._asks else [NOTHING] * len(checks),
            remaining_s=[details[2] for _, _, details in checks],
            waited_s=time.perf_counter() - taken_s,
        )
        outcomes = self._calls.gathered(gathered)
        respond = self._transport.respond
        for (call_id, data, details), outcome in zip(checks, outcomes, strict=True):
            if isinstance(outcome, bytes):
                respond(call_id, outcome)
            elif outcome is None:
                self._ask_alone("Check", call_id, data, details)
            else:
                self._fail(call_id, outcome)

    def _ask_alone(self, name: str, call_id: int, data: bytes, details: _Details) -> None:
        """Have a call answered by the threads of unary calls; refuse it where too many wait for those."""
        with self._counting:
            is_refused = self._alone >= MOST_ALONE or self._alone_bytes + len(data) > MOST_ALONE_BYTES
            if not is_refused:
                self._alone += 1
                self._alone_bytes += len(data)
        if is_refused:
            self._fail(call_id, self._calls.refused(name, _overloaded(), data))
        else:
            self._pools[name].submit(self._answer, name, call_id, data, _until(details[2]), self._presented(details))

    def _answer(
        self, name: str, call_id: int, data: bytes, time_remaining: Callable[[], float | None], presented: Presented
    ) -> None:
        waited_s = self._pools[name].of_thread.waited_s
        arriving = Arriving(time_remaining=time_remaining, presented=presented, waited_s=waited_s)
        try:
            self._transport.respond(call_id, self._calls.unary[name](data, arriving))
        except Refusal as refusal:
            self._fail(call_id, refusal)
        except Exception as error:  # noqa: BLE001 - whatever it is: the pool keeps it, and nobody else ends the call
            self._fail(call_id, Refusal.of(error))
        finally:
            with self._counting:
                self._alone -= 1
                self._alone_bytes -= len(data)

    def _fail(self, call_id: int, refusal: Refusal) -> None:
        """Tell how a call ends. That it should not be made again by itself cannot be told: the package forbids it."""
        status = refusal.status
        self._transport.fail(call_id, refusal.code.value, status.message, [(_DETAILS, status.SerializeToString())])

    def _tell_health(self, call_id: int, data: bytes) -> None:
        try:
            status = self._status(health_pb2.HealthCheckRequest.FromString(data).service)
        except DecodeError:
            self._transport.fail(call_id, Code.INTERNAL.value, "The bytes are no HealthCheckRequest.")
            return
        if status is None:
            self._transport.fail(call_id, Code.NOT_FOUND.value, "")
            return
        reply = health_pb2.HealthCheckResponse(status=status)
        self._transport.respond(call_id, reply.SerializeToString())

    def _presented(self, details: _Details) -> Presented:
        if not self._asks:
            return NOTHING
        return Presented(authorization=only_key([str(value) for name, value in details[0] if name == _AUTHORIZATION]))


def _until(remaining_s: float | None) -> Callable[[], float | None]:
    """Say how long a caller waits from now on."""
    if remaining_s is None:
        return lambda: None
    due = time.monotonic() + remaining_s
    return lambda: max(0.0, due - time.monotonic())


def _overloaded() -> OverloadedError:
    return OverloadedError("More calls wait than this server can answer soon.", fix="Try again in a moment.")
