"""The calls of the service, whatever brings them: bytes in, bytes or a refusal out, limited, counted and logged.

A front (see `fronts`) takes bytes from its transport, says who calls and how long they wait, and carries back what
comes out. It knows no rule, no error and no metric. Requests are parsed in the handlers, behind this door: a
transport that parsed them itself would answer damaged ones in words of its own.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Protocol, TypeAlias

import msgspec
import structlog
from google.protobuf.message import Message

from iyscheck.errors import OverloadedError
from iyscheck.server.metrics import MethodMetrics, Metrics
from iyscheck.server.refusals import Code, Refusal, is_callers, our_frames

SERVICE: Final = "iyscheck.v1.ConsentCheckService"
ANONYMOUS: Final = "anonymous"
"""The caller, until callers have identities."""

_MAX_WAIT_S: Final = 1.0
_WAIT_SHARE: Final = 0.8  # of the caller's deadline; the rest is for the answer to travel


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What a handler knows of its call besides the request: who asks, and how long an answer may take.

    `time_remaining` gives the seconds until the caller's deadline, None where there is none.
    """

    caller: str
    time_remaining: Callable[[], float | None]

    def may_wait_s(self) -> float:
        """How long to wait for a position: most of the deadline, at most a second."""
        remaining = self.time_remaining()
        return _MAX_WAIT_S if remaining is None else min(_WAIT_SHARE * remaining, _MAX_WAIT_S)


class CallEndedError(Exception):
    """A transport's word, raised from its frames, that the call is over already: nobody waits for an answer.

    The transport's own exception is its cause.
    """


class Handlers(Protocol):
    """What answers calls: bytes in, messages out, our errors raised."""

    def check(self, data: bytes, call: Call) -> Message:
        """Answer one question."""

    def batch_check(self, data: bytes, call: Call) -> Message:
        """Answer a batch."""

    def get_server_info(self, data: bytes, call: Call) -> Message:
        """Describe the server."""

    def stream_check(self, frames: Iterator[bytes], call: Call) -> Iterator[Message]:
        """Answer each frame with exactly one reply."""


UnaryCall: TypeAlias = Callable[[bytes, Call], bytes]
"""Answers one request. Raises Refusal and nothing else."""

StreamCall: TypeAlias = Callable[[Iterator[bytes], Call], Iterator[bytes]]
"""Answers each frame with one reply. Raises Refusal, and CallEndedError where the frames do."""


class Calls:
    """All calls by their names, for any number of fronts; at most `max_streams` streams run at once."""

    def __init__(
        self,
        handlers: Handlers,
        metrics: Metrics,
        log: structlog.typing.FilteringBoundLogger,
        *,
        max_streams: int,
    ) -> None:
        self._metrics = metrics
        self._log = log
        self._streams = threading.BoundedSemaphore(max_streams)
        self.unary: Mapping[str, UnaryCall] = {
            "Check": self._unary("Check", handlers.check),
            "BatchCheck": self._unary("BatchCheck", handlers.batch_check),
            "GetServerInfo": self._unary("GetServerInfo", handlers.get_server_info),
        }
        self.streams: Mapping[str, StreamCall] = {"StreamCheck": self._stream("StreamCheck", handlers.stream_check)}

    def _unary(self, method: str, handle: Callable[[bytes, Call], Message]) -> UnaryCall:
        metrics = self._metrics.method("unary", SERVICE, method)

        def answered(data: bytes, call: Call) -> bytes:
            started = time.perf_counter()
            metrics.started.inc()
            metrics.received.inc()
            code = Code.OK
            try:
                reply = handle(data, call).SerializeToString()
                metrics.sent.inc()
            except Exception as error:
                refusal = self._refusal(error, method)
                code = refusal.code
                raise refusal from error
            finally:
                metrics.handled(code, time.perf_counter() - started)
            return reply

        return answered

    def _stream(self, method: str, handle: Callable[[Iterator[bytes], Call], Iterator[Message]]) -> StreamCall:
        metrics = self._metrics.method("bidi_stream", SERVICE, method)

        def answered(frames: Iterator[bytes], call: Call) -> Iterator[bytes]:
            started = time.perf_counter()
            metrics.started.inc()
            code = Code.CANCELLED  # which it stays when the caller goes away in the middle
            try:
                with self._slot():
                    for reply in handle(_counted(frames, metrics), call):
                        yield reply.SerializeToString()
                        metrics.sent.inc()
                code = Code.OK
            except CallEndedError:
                raise
            except Exception as error:
                refusal = self._refusal(error, method)
                code = refusal.code
                raise refusal from error
            finally:
                metrics.handled(code, time.perf_counter() - started)

        return answered

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if not self._streams.acquire(blocking=False):
            raise OverloadedError(
                "As many streams as allowed are open.", fix="Try again in a moment, or send frames in an open stream."
            )
        try:
            yield
        finally:
            self._streams.release()

    def _refusal(self, error: Exception, method: str) -> Refusal:
        """Make an error what the caller is told, and tell the log what is ours to mend."""
        refusal = Refusal.of(error)
        if not is_callers(error, refusal.code):
            kind, at = type(error).__name__, our_frames(error)
            self._log.error("call_failed", method=method, code=refusal.code.name, error=kind, at=at)
        return refusal


def _counted(frames: Iterator[bytes], metrics: MethodMetrics) -> Iterator[bytes]:
    for frame in frames:
        metrics.received.inc()
        yield frame
