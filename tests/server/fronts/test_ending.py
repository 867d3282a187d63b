"""A stream that is ended from outside: with its reason where that can be told, at once everywhere else."""

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc import _server  # the names of what gRPC has under way are not public

from iyscheck.errors import CallerRevokedError
from iyscheck.server.calls import Arriving
from iyscheck.server.fronts import grpc as grpc_front
from iyscheck.server.fronts.ending import Ending
from iyscheck.server.refusals import Refusal

REFUSAL = Refusal.of(CallerRevokedError("Gone."))
INSIDE: Any = _server


class Call:
    """A call of gRPC's core, which notes what is started."""

    def __init__(self) -> None:
        self.started: list[object] = []

    def start_server_batch(self, operations: object, _: object) -> None:
        """Note it."""
        self.started.append(operations)


class Context:
    """A context over gRPC's own state, of a stream whose thread waits for a frame."""

    def __init__(self, *under_way: str) -> None:
        self._state = INSIDE._RPCState()
        self._state.due |= {INSIDE._RECEIVE_MESSAGE_TOKEN, INSIDE._RECEIVE_CLOSE_ON_SERVER_TOKEN, *under_way}
        self._rpc_event = type("Event", (), {"call": Call()})()
        self.cancelled = 0

    @property
    def told(self) -> int:
        """How many batches were started."""
        return len(self._rpc_event.call.started)

    def cancel(self) -> None:
        """Note it."""
        self.cancelled += 1

    def time_remaining(self) -> None:
        """Say that there is no deadline."""

    def abort(self, *_: object) -> None:
        """Not after the status was sent: gRPC's core takes only one."""
        raise AssertionError

    def set_trailing_metadata(self, metadata: object) -> None:
        """Keep it as gRPC does."""
        self._state.trailing_metadata = metadata


def end(context: Context) -> grpc.RpcError | None:
    """End it."""
    made = Ending(context)  # type: ignore[arg-type] # what is used of one
    made.end(REFUSAL, ())
    return made.error


def test_told() -> None:
    """A stream that waits for its caller is told why, and its own thread has an error that gRPC knows."""
    context = Context()
    error = end(context)

    assert (context.told, context.cancelled) == (1, 0)
    assert error in context._state.rpc_errors
    assert context._state.statused


def test_something_is_on_its_way() -> None:
    """A reason would have to wait behind a reply that is not taken: such a stream is cancelled."""
    context = Context(INSIDE._SEND_MESSAGE_TOKEN)
    error = end(context)

    assert (context.told, context.cancelled, error) == (0, 1, None)


def test_unknown_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where gRPC's inside is another, the stream is cancelled."""
    monkeypatch.setattr(INSIDE, "_abort", lambda *_: None)
    context = Context()
    error = end(context)

    assert (context.told, context.cancelled, error) == (0, 1, None)


def test_once() -> None:
    """A stream that ends already is told nothing more, whoever ends it."""
    context = Context()
    made = Ending(context)  # type: ignore[arg-type] # what is used of one
    ends = [threading.Thread(target=made.end, args=(REFUSAL, ())) for _ in range(8)]
    for thread in ends:
        thread.start()
    for thread in ends:
        thread.join()

    assert (context.told, context.cancelled) == (1, 0)


def test_told_once_by_the_front() -> None:
    """The thread of a stream that was told its end says nothing more."""

    def ended(frames: Iterator[bytes], arriving: Arriving) -> Iterator[bytes]:
        assert arriving.end is not None
        arriving.end(REFUSAL)
        yield from frames
        raise REFUSAL

    offered = SimpleNamespace(unary={}, streams={"StreamCheck": ended})
    calls = SimpleNamespace(gate=SimpleNamespace(asks=False), of=lambda _: offered)
    service: Any = grpc_front.service(calls, {}, None)  # type: ignore[arg-type] # only streams are asked for
    handler = service.service(SimpleNamespace(method="/iyscheck.v1.ConsentCheckService/StreamCheck"))
    context = Context()
    with pytest.raises(grpc.RpcError) as error:
        list(handler.stream_stream(iter(()), context))

    assert error.value in context._state.rpc_errors
    assert context.told == 1
