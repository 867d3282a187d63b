"""The one place where calls enter and leave: who calls, how errors go out, what is measured.

Handlers see bytes and a `Call` and raise our errors; everything of gRPC stays here. Requests are parsed inside the
handlers, since gRPC's own deserialiser answers bad UTF-8 with INTERNAL before any code of ours runs.
An exception that is not ours says nothing to the caller; the log gets its type and our own stack frames, never its
text, which could hold request data.
"""

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn, Protocol

import grpc
import msgspec
import structlog
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped] # it ships no types
from grpc_status import rpc_status

from iyscheck import errors
from iyscheck.server.metrics import MethodMetrics, Metrics

SERVICE: Final = "iyscheck.v1.ConsentCheckService"
ERROR_DOMAIN: Final = "iyscheck.v1"
ANONYMOUS: Final = "anonymous"
"""The caller, until callers have identities."""

_MAX_WAIT_S: Final = 1.0
_WAIT_SHARE: Final = 0.8  # of the caller's deadline; the rest is for the answer to travel
_CANNOT_ANSWER: Final = "The server cannot answer. Its log tells why."
_PACKAGE: Final = Path(errors.__file__).parent

_Code = grpc.StatusCode

CODES: Final[dict[type[errors.IyscheckError], grpc.StatusCode]] = {
    # Every class of the tree stands here; a test compares.
    errors.IyscheckError: _Code.INTERNAL,
    errors.InputError: _Code.INVALID_ARGUMENT,
    errors.QuestionError: _Code.INVALID_ARGUMENT,
    errors.BatchTooLargeError: _Code.INVALID_ARGUMENT,
    errors.MalformedError: _Code.INVALID_ARGUMENT,
    errors.MalformedFrameError: _Code.INVALID_ARGUMENT,
    errors.SettingsError: _Code.INTERNAL,
    errors.KeysError: _Code.FAILED_PRECONDITION,
    errors.KeyFileError: _Code.INTERNAL,
    errors.AddressKeyNotHeldError: _Code.FAILED_PRECONDITION,
    errors.AddressKeyMismatchError: _Code.FAILED_PRECONDITION,
    errors.StoreError: _Code.INTERNAL,
    errors.StoreMissingError: _Code.UNAVAILABLE,
    errors.StoreUnreadableError: _Code.UNAVAILABLE,
    errors.StoreKeysError: _Code.INTERNAL,
    errors.StoreFormatError: _Code.INTERNAL,
    errors.StoreFullError: _Code.INTERNAL,
    errors.StoreBusyError: _Code.INTERNAL,
    errors.StoreClosedError: _Code.UNAVAILABLE,
    errors.StoreCorruptError: _Code.DATA_LOSS,
    errors.PositionError: _Code.FAILED_PRECONDITION,
    errors.PositionOfOtherLogError: _Code.FAILED_PRECONDITION,
    errors.NotYetAtPositionError: _Code.UNAVAILABLE,
    errors.OverloadedError: _Code.RESOURCE_EXHAUSTED,
    errors.WorkersError: _Code.INTERNAL,
    errors.SourceError: _Code.INTERNAL,
    errors.SourceUnreadableError: _Code.INTERNAL,
    errors.SourceChangedError: _Code.INTERNAL,
    errors.SourceUnknownError: _Code.INTERNAL,
    errors.WatermarkError: _Code.INTERNAL,
    errors.ServiceError: _Code.INTERNAL,
    errors.ServiceUnavailableError: _Code.INTERNAL,
    errors.ServiceRefusedError: _Code.INTERNAL,
    errors.ServiceFailedError: _Code.INTERNAL,
}

_NO_RETRY: Final = ("grpc-retry-pushback-ms", "-1")
"""Tells gRPC's own retries to stop: a position that did not come while we waited will not come in the next 50 ms, and
the caller should learn why instead of running into its deadline."""

_RETRY_AFTER_MS: Final = {_Code.UNAVAILABLE: 100, _Code.RESOURCE_EXHAUSTED: 1000}


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What a handler knows of its call besides the request: who asks, and how long an answer may take."""

    caller: str
    time_remaining: Callable[[], float | None]

    def may_wait_s(self) -> float:
        """How long to wait for a position: most of the deadline, at most a second."""
        remaining = self.time_remaining()
        return _MAX_WAIT_S if remaining is None else min(_WAIT_SHARE * remaining, _MAX_WAIT_S)


class Handlers(Protocol):
    """What a servicer offers: bytes in, messages out, our errors raised."""

    def check(self, data: bytes, call: Call) -> Message:
        """Answer one question."""

    def batch_check(self, data: bytes, call: Call) -> Message:
        """Answer a batch."""

    def get_server_info(self, data: bytes, call: Call) -> Message:
        """Describe the server."""

    def stream_check(self, frames: Iterator[bytes], call: Call) -> Iterator[Message]:
        """Answer each frame with exactly one reply."""


class Boundary:
    """Wraps handlers for gRPC. At most `max_streams` streams run at once; unary calls run in `unary_pool`.

    Their few threads are used again and again. In one pool with the streams a call would go to the thread that
    rested longest, of dozens: whatever that needs has left the processor's caches by then.
    """

    def __init__(
        self,
        metrics: Metrics,
        log: structlog.typing.FilteringBoundLogger,
        *,
        max_streams: int,
        unary_pool: ThreadPoolExecutor,
    ) -> None:
        self._metrics = metrics
        self._log = log
        self._unary_pool = unary_pool
        self._streams = threading.BoundedSemaphore(max_streams)

    def service(self, handlers: Handlers) -> grpc.GenericRpcHandler:
        """Offer handlers as the service."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Check": self._unary("Check", handlers.check),
                "BatchCheck": self._unary("BatchCheck", handlers.batch_check),
                "GetServerInfo": self._unary("GetServerInfo", handlers.get_server_info),
                "StreamCheck": self._stream("StreamCheck", handlers.stream_check),
            },
        )

    def _unary(self, method: str, handle: Callable[[bytes, Call], Message]) -> "grpc.RpcMethodHandler[bytes, bytes]":
        metrics = self._metrics.method("unary", SERVICE, method)

        def behaviour(data: bytes, context: grpc.ServicerContext) -> bytes:
            started = time.perf_counter()
            metrics.started.inc()
            metrics.received.inc()
            code = _Code.OK
            try:
                reply = handle(data, _call(context)).SerializeToString()
                metrics.sent.inc()
            except Exception as error:  # noqa: BLE001 - whatever it is, it must leave here as a status
                code, status = self._status(error, method)
                _abort(context, status, error)
            finally:
                metrics.handled(code, time.perf_counter() - started)
            return reply

        setattr(behaviour, "experimental_thread_pool", self._unary_pool)  # noqa: B010 - grpc's own, no typed attribute
        return grpc.unary_unary_rpc_method_handler(behaviour)

    def _stream(
        self, method: str, handle: Callable[[Iterator[bytes], Call], Iterator[Message]]
    ) -> "grpc.RpcMethodHandler[bytes, bytes]":
        metrics = self._metrics.method("bidi_stream", SERVICE, method)

        def behaviour(frames: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            started = time.perf_counter()
            metrics.started.inc()
            code = _Code.CANCELLED  # which it stays when the caller goes away in the middle
            try:
                with self._slot():
                    for reply in handle(_counted(frames, metrics), _call(context)):
                        yield reply.SerializeToString()
                        metrics.sent.inc()
                code = _Code.OK
            except grpc.RpcError:
                raise  # cancelled or out of time: gRPC has ended the call itself
            except Exception as error:  # noqa: BLE001 - whatever it is, it must leave here as a status
                code, status = self._status(error, method)
                _abort(context, status, error)
            finally:
                metrics.handled(code, time.perf_counter() - started)

        return grpc.stream_stream_rpc_method_handler(behaviour)

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if not self._streams.acquire(blocking=False):
            raise errors.OverloadedError(
                "As many streams as allowed are open.", fix="Try again in a moment, or send frames in an open stream."
            )
        try:
            yield
        finally:
            self._streams.release()

    def _status(self, error: Exception, method: str) -> tuple[grpc.StatusCode, status_pb2.Status]:
        code, status = status_of(error)
        if not _is_callers(error, code):
            kind, at = type(error).__name__, our_frames(error)
            self._log.error("call_failed", method=method, code=code.name, error=kind, at=at)
        return code, status


def _call(context: grpc.ServicerContext) -> Call:
    return Call(caller=ANONYMOUS, time_remaining=context.time_remaining)


def _abort(context: grpc.ServicerContext, status: status_pb2.Status, error: Exception) -> NoReturn:
    ended = rpc_status.to_status(status)
    metadata = ended.trailing_metadata
    if isinstance(error, errors.NotYetAtPositionError):
        metadata = (*metadata, _NO_RETRY)
    context.set_trailing_metadata(metadata)
    context.abort(ended.code, ended.details)


def _counted(frames: Iterator[bytes], metrics: MethodMetrics) -> Iterator[bytes]:
    for frame in frames:
        metrics.received.inc()
        yield frame


def _is_callers(error: Exception, code: grpc.StatusCode) -> bool:
    """Whether the text of an error is for the caller; what is ours to mend names paths and goes to the log."""
    ours = isinstance(error, errors.IyscheckError) and not isinstance(error, errors.StoreError)
    return ours and code is not _Code.INTERNAL


def status_of(error: Exception) -> tuple[grpc.StatusCode, status_pb2.Status]:
    """Say what a caller is told of an error: code, text, one ErrorInfo, and the field or delay where one helps."""
    ours = error if isinstance(error, errors.IyscheckError) else errors.IyscheckError(_CANNOT_ANSWER)
    code = next(CODES[kind] for kind in type(ours).__mro__ if kind in CODES)
    told = _is_callers(error, code)
    status = status_pb2.Status(code=code.value[0], message=str(ours) if told else _CANNOT_ANSWER)
    info = error_details_pb2.ErrorInfo(reason=ours.reason, domain=ERROR_DOMAIN)
    if isinstance(ours, errors.BatchTooLargeError):
        info.metadata["maximum"] = str(ours.maximum)
        info.metadata["actual"] = str(ours.actual)
    status.details.add().Pack(info)
    if isinstance(ours, errors.InputError) and told:
        violation = error_details_pb2.BadRequest.FieldViolation(field=ours.field, description=ours.message)
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if code in _RETRY_AFTER_MS:
        delay = Duration()
        delay.FromMilliseconds(_RETRY_AFTER_MS[code])
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return code, status


def our_frames(error: BaseException) -> list[str]:
    """List where in our own code an exception passed, outermost first."""
    return [
        f"{Path(frame.filename).relative_to(_PACKAGE.parent)}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(_PACKAGE)
    ]
