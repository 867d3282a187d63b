"""Messages to callers that hold a call open, sent without waiting until gRPC has got rid of them.

gRPC's own way for such calls waits in the sender's thread until the caller's window has room, which a caller that does
not read never makes. It has a way without waiting inside, which this takes where it is as we know it.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol, TypeAlias

import grpc
import structlog

_OURS: Final = "line"  # names our message among what gRPC has under way for a call
_WAITING_SENDERS: Final = 8

SendAndWait: TypeAlias = Callable[[object], None]
"""How gRPC lets a non-blocking handler send; it waits until the message is gone."""


class Message(Protocol):
    """A message of protobuf."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """Write it as bytes."""


class Line(Protocol):
    """An open call. A message may be sent when the one before was taken."""

    def send(self, message: Message) -> bool:
        """Start sending and return; False where the call is over."""

    def end(self, code: grpc.StatusCode, details: str) -> None:
        """End the call behind all that was sent."""

    def cut(self) -> None:
        """End the call at once, also where the caller takes nothing."""


class Lines:
    """Opens lines."""

    def __init__(self, log: structlog.typing.FilteringBoundLogger) -> None:
        self._log = log
        self._senders = ThreadPoolExecutor(_WAITING_SENDERS, thread_name_prefix="line")  # starts none by itself
        self._once = threading.Semaphore()

    def open(self, context: grpc.ServicerContext, send_and_wait: SendAndWait, taken: Callable[[], None]) -> Line:
        """Open the line of a call. `taken` is called in gRPC's polling thread after each message: it must be short."""
        if AtOnce.known(context):
            return AtOnce(context, send_and_wait, taken, self._log)
        if self._once.acquire(blocking=False):
            self._log.warning("health_senders", grpcio=grpc.__version__)
        return Waiting(context, send_and_wait, taken, self._senders)


class _Call:
    """What both kinds of line do alike."""

    __slots__ = ("_context", "_send_and_wait", "_taken")

    def __init__(self, context: grpc.ServicerContext, send_and_wait: SendAndWait, taken: Callable[[], None]) -> None:
        self._context = context
        self._send_and_wait = send_and_wait
        self._taken = taken

    def end(self, code: grpc.StatusCode, details: str) -> None:
        """End the call; None is the one thing that gRPC sends without waiting."""
        if self._context.is_active():
            self._context.set_code(code)
            self._context.set_details(details)
            self._send_and_wait(None)

    def cut(self) -> None:
        """Reset the call."""
        self._context.cancel()


class AtOnce(_Call):
    """A line that hands its message to gRPC's core, and hears of it when it is gone."""

    __slots__ = ("_log",)

    def __init__(
        self,
        context: grpc.ServicerContext,
        send_and_wait: SendAndWait,
        taken: Callable[[], None],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        super().__init__(context, send_and_wait, taken)
        self._log = log
        context.send_initial_metadata(())

    @staticmethod
    def known(context: Any) -> bool:  # noqa: ANN401 - of gRPC's inside, which has no types
        """Say whether gRPC's inside has the parts that are used here."""
        try:
            state, call = context._state, context._rpc_event.call  # noqa: SLF001 - see the module
            return all(map(callable, (_SENT, _MESSAGE, call.start_server_batch, state.due.add, state.condition.wait)))
        except AttributeError:
            return False

    def send(self, message: Message) -> bool:
        """Do as gRPC's `_send_response` does, without its wait."""
        context: Any = self._context
        state = context._state  # noqa: SLF001
        with state.condition:
            if not context.is_active():
                return False
            operation = _MESSAGE(message.SerializeToString(), 0)
            context._rpc_event.call.start_server_batch((operation,), self._gone)  # noqa: SLF001
            state.due.add(_OURS)
        return True

    def _gone(self, event: object) -> Any:  # noqa: ANN401 - what gRPC wants back
        context: Any = self._context
        left = _SENT(context._state, _OURS)(event)  # noqa: SLF001
        try:
            self._taken()
        except Exception as error:  # noqa: BLE001 - it would end the thread that takes up all calls
            self._log.error("health_not_told", error=type(error).__name__)
        return left


class Waiting(_Call):
    """A line for a gRPC that we do not know: few threads wait for all lines, so callers that do not read cost time."""

    __slots__ = ("_senders",)

    def __init__(
        self,
        context: grpc.ServicerContext,
        send_and_wait: SendAndWait,
        taken: Callable[[], None],
        senders: ThreadPoolExecutor,
    ) -> None:
        super().__init__(context, send_and_wait, taken)
        self._senders = senders

    def send(self, message: Message) -> bool:
        """Let one of the threads send and wait."""
        if not self._context.is_active():
            return False
        self._senders.submit(self._send, message)
        return True

    def _send(self, message: Message) -> None:
        self._send_and_wait(message)
        self._taken()


def _inside() -> tuple[Any, Any]:
    try:
        from grpc import _server
        from grpc._cython import cygrpc  # type: ignore[attr-defined]
    except ImportError:
        return None, None
    return getattr(_server, "_send_message", None), getattr(cygrpc, "SendMessageOperation", None)


_SENT, _MESSAGE = _inside()
