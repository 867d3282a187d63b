"""What a failed call becomes: one of our three service errors, in words of our own.

Only texts of an iyscheck server are repeated (they hold no address by contract); what a proxy or a library says is
not. `google.rpc.ErrorInfo` gives the code, `google.rpc.BadRequest` the field.
"""

import re
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped] # it ships no types

from iyscheck.errors import ServiceError, ServiceFailedError, ServiceRefusedError, ServiceUnavailableError
from iyscheck.question import ItemError

if TYPE_CHECKING:
    from collections.abc import Iterable

DOMAIN: Final = "iyscheck.v1"
BATCH_TOO_LARGE: Final = "BATCH_TOO_LARGE"
NOT_YET: Final = "NOT_YET_AT_POSITION"
WRONG_FRAME: Final = "WRONG_FRAME"
CLOSED: Final = "CLIENT_CLOSED"
HANDSHAKE: Final = "HANDSHAKE_FAILED"
ARRIVAL_S: Final = 1.0
_PAUSE_S: Final = 0.1
_FAILED_WRITE: Final = "Internal error from Core"
_NO_MESSAGE: Final = "Exception deserializing response!"
_ADDRESS: Final = re.compile(r"\b(?:ipv[46]|unix):[^ ]+(?=: )")
_NOT_PERMITTED: Final = "error: Permission denied"
_STATUS_KEY: Final = "grpc-status-details-bin"

_HANDSHAKES: Final[dict[str, tuple[str, str]]] = {
    "CERTIFICATE_VERIFY_FAILED: certificate has expired": (
        "The certificate of {target} has ended.",
        "Renew it on the server. If it is good, correct this machine's clock.",
    ),
    "CERTIFICATE_VERIFY_FAILED: certificate is not yet valid": (
        "The certificate of {target} is not good yet.",
        "Correct this machine's clock, or the server's certificate.",
    ),
    "CERTIFICATE_VERIFY_FAILED": (
        "The certificate of {target} was not issued by a CA that this client trusts.",
        "Name the CA that issued it (Tls(ca=...), --tls-ca).",
    ),
    "Hostname Verification Check failed": (
        "The certificate of {target} is that of another host.",
        "Connect to a name or address that stands in it, or issue it with this one.",
    ),
    "WRONG_VERSION_NUMBER": (
        "{target} does not speak TLS.",
        "Leave TLS out (Tls, --tls-ca), or give the server a certificate.",
    ),
    "Socket closed": (
        "{target} closed the connection at once.",
        "If it speaks TLS, name its CA (Tls(ca=...), --tls-ca). If it demands a client certificate, give one.",
    ),
}
"""What gRPC says of a handshake that failed, and what is told of it. The first that fits counts."""

_SILENT: Final = len(_HANDSHAKES) + 1

_CLASSES: Final[dict[grpc.StatusCode, type[ServiceError]]] = {
    grpc.StatusCode.UNAVAILABLE: ServiceUnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: ServiceUnavailableError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ServiceUnavailableError,
    grpc.StatusCode.CANCELLED: ServiceUnavailableError,
    grpc.StatusCode.ABORTED: ServiceUnavailableError,
    grpc.StatusCode.INVALID_ARGUMENT: ServiceRefusedError,
    grpc.StatusCode.FAILED_PRECONDITION: ServiceRefusedError,
    grpc.StatusCode.OUT_OF_RANGE: ServiceRefusedError,
    grpc.StatusCode.NOT_FOUND: ServiceRefusedError,
    grpc.StatusCode.ALREADY_EXISTS: ServiceRefusedError,
    grpc.StatusCode.UNIMPLEMENTED: ServiceRefusedError,
    grpc.StatusCode.UNAUTHENTICATED: ServiceRefusedError,
    grpc.StatusCode.PERMISSION_DENIED: ServiceRefusedError,
}
"""Every other code says that the server failed."""

_PASSING: Final = frozenset({NOT_YET, "OVERLOADED", "RATE_LIMITED", "STORE_MISSING", "STORE_UNREADABLE"})
_SERVER_FAULTS: Final = ("INTERNAL", "STORE")


def breaks_stream(error: grpc.RpcError) -> bool:
    """Say whether a stream ended in a way that a new stream may not: the server went away, or a write failed.

    CANCELLED is what gRPC makes of a stream that reaches a server, or is left in one, when it shuts down.
    """
    return error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED) or _hides_the_cause(error)


def _hides_the_cause(error: grpc.RpcError) -> bool:
    """grpc.aio reports a write into a stream that the server has ended as INTERNAL, whatever the server said."""
    return error.code() is grpc.StatusCode.INTERNAL and error.details() == _FAILED_WRITE


def is_elsewhere(error: object) -> bool:
    """Say whether an answer may well be had at another server: this one has not come so far yet."""
    return isinstance(error, ServiceUnavailableError) and error.code == NOT_YET


def finds_nobody(error: grpc.RpcError) -> bool:
    """Say whether a call ended before any server of ours had looked at it."""
    return error.code() is grpc.StatusCode.UNAVAILABLE and _details(error)[0] is None


def tells_cause(error: grpc.RpcError) -> bool:
    """Say whether a call that found nobody tells why in more words than that nobody is there."""
    return _telling(error) < _SILENT


def _telling(error: grpc.RpcError) -> int:
    """How telling an error is: the place of its cause, the best one first, or `_SILENT`."""
    details = error.details() or ""
    signs = (*_HANDSHAKES, _NOT_PERMITTED)
    return next((place for place, sign in enumerate(signs) if sign in details), _SILENT)


class Heard:
    """What was heard where nobody answered: the latest of each address, since gRPC tells of one at a time.

    The most telling counts. Of `localhost` one address may refuse while the server listens at the other.
    """

    def __init__(self) -> None:
        self._latest: dict[str, grpc.RpcError] = {}

    def hear(self, error: grpc.RpcError) -> None:
        """Take note of an error; one of no address counts until the next one."""
        self._latest.pop("", None)
        found = _ADDRESS.search(error.details() or "")
        self._latest.pop(address := "" if found is None else found[0], None)
        self._latest[address] = error

    def told(self) -> grpc.RpcError | None:
        """Give the most telling error, the last one of equals."""
        return min(reversed(self._latest.values()), key=_telling, default=None)


class Arrival:
    """A call on its way to a server: how long it may try again where it finds nobody, `patient` or not at all.

    gRPC's own retries are over after 0.35 s. Who connects while a worker dies beside others, on a busy machine, meets
    nobody for longer.
    """

    def __init__(self, timeout_s: float, *, patient: bool = True) -> None:
        now = monotonic()
        self._deadline = now + timeout_s
        self._until = now + (min(timeout_s, ARRIVAL_S) if patient else 0)
        self._heard = Heard()

    def left_s(self) -> float:
        """How long the next attempt may take."""
        return max(self._deadline - monotonic(), 0.0)

    def pause_s(self, error: grpc.RpcError) -> float | None:
        """Take note of how an attempt ended; say how long to wait before the next one, None if that was the last."""
        if not finds_nobody(error):
            return None
        self._heard.hear(error)
        return _PAUSE_S if monotonic() + _PAUSE_S < self._until else None

    def told(self, error: grpc.RpcError) -> grpc.RpcError:
        """Say how the call has ended: who ran out of time while nobody was there learns that nobody was there."""
        late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        return (self._heard.told() or error) if late or finds_nobody(error) else error


def failure(error: grpc.RpcError, *, target: str, timeout_s: float) -> ServiceError:
    """Turn what gRPC raised into our error."""
    status: grpc.StatusCode = error.code()
    if _hides_the_cause(error):
        return unfinished(target=target)
    if status is grpc.StatusCode.INTERNAL and error.details() == _NO_MESSAGE:
        return not_understood(target=target)
    info, field = _details(error)
    kind = _CLASSES.get(status, ServiceFailedError)
    if info is not None:
        return kind(error.details() or f"The server answered {info.reason}.", code=info.reason, field=field)
    if status is grpc.StatusCode.UNAVAILABLE:
        for sign, (sentence, fix) in _HANDSHAKES.items():
            if sign in (error.details() or ""):
                return kind(sentence.format(target=target), code=HANDSHAKE, fix=fix)
        if _NOT_PERMITTED in (error.details() or ""):
            return kind(
                f"This user may not open {target}.",
                code=status.name,
                fix="Give it the group of the socket's file, or run as the server's user.",
            )
    return _unexplained(status, kind, target=target, timeout_s=timeout_s)


def failure_of(error: grpc.RpcError | ServiceError, *, target: str, timeout_s: float) -> ServiceError:
    """Turn what ended a stream into our error, if it is not one already."""
    if isinstance(error, ServiceError):
        return error
    failed = failure(error, target=target, timeout_s=timeout_s)
    failed.__cause__ = error
    return failed


def _unexplained(status: grpc.StatusCode, kind: type[ServiceError], *, target: str, timeout_s: float) -> ServiceError:
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return late(target=target, timeout_s=timeout_s)
    if status is grpc.StatusCode.UNAVAILABLE:
        return kind(f"No iyscheck server answers at {target}.", code=status.name, fix="Is `iyscheck serve` running?")
    if status is grpc.StatusCode.UNIMPLEMENTED:
        return kind(f"What answers at {target} is not an iyscheck server, or an older one.", code=status.name)
    return kind(f"The call to {target} ended with {status.name}.", code=status.name)


def late(*, target: str, timeout_s: float | None = None) -> ServiceUnavailableError:
    """Make the error of an answer that did not come in time."""
    return ServiceUnavailableError(
        f"{target} did not answer {'in time' if timeout_s is None else f'within {timeout_s:.3g} s'}.",
        code="DEADLINE_EXCEEDED",
        fix="Try again, or allow more time. Is `iyscheck serve` running there?",
    )


def not_understood(*, target: str) -> ServiceFailedError:
    """Make the error of a reply that is none."""
    return ServiceFailedError(
        f"{target} answered what cannot be understood.",
        code="NOT_UNDERSTOOD",
        fix="Is it an iyscheck server, of a version that goes with this client?",
    )


def unfinished(*, target: str) -> ServiceUnavailableError:
    """Make the error of a stream that ended before everything was answered."""
    return ServiceUnavailableError(f"{target} ended the stream too early.", code="STREAM_ENDED", fix="Try again.")


def closed() -> ServiceUnavailableError:
    """Make the error of a call that was not over when its client was closed, or came later."""
    return ServiceUnavailableError("The client is closed.", code=CLOSED)


def forked() -> ServiceUnavailableError:
    """Make the error of a batching client that was opened before a fork: what it runs in stayed in the parent."""
    return ServiceUnavailableError(
        "The batching client was opened before this process was forked, and works only there.",
        code=CLOSED,
        fix="Open it in each process after the fork.",
    )


def patched() -> ServiceUnavailableError:
    """Make the error of a batching client in a process whose threads gevent has replaced."""
    return ServiceUnavailableError(
        "The batching client needs real threads, and gevent has replaced them in this process.",
        code=CLOSED,
        fix="Use Client without batching, or do not patch 'threading'.",
    )


ErrorT = TypeVar("ErrorT", bound=Exception)


def again(error: ErrorT) -> ErrorT:
    """Make the same error for another call: one that is raised in many places collects the traces of all."""
    if not isinstance(error, ServiceError):
        return error
    made = type(error)(error.message, code=error.code, field=error.field, fix=error.fix)
    made.__cause__ = error.__cause__
    return made


def refused_frame(error: ItemError) -> ServiceError:
    """Make the error of a frame that the server did not answer."""
    kind: type[ServiceError] = ServiceRefusedError
    if error.reason in _PASSING:
        kind = ServiceUnavailableError
    elif error.reason.startswith(_SERVER_FAULTS):
        kind = ServiceFailedError
    return kind(error.message, code=error.reason, field=error.field)


def _details(error: grpc.RpcError) -> tuple[error_details_pb2.ErrorInfo | None, str]:
    """Find our ErrorInfo and the field at fault, if an iyscheck server sent them."""
    status = status_pb2.Status()
    metadata = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())  # of grpc and of grpc.aio
    raw = dict(metadata).get(_STATUS_KEY, b"")
    try:
        status.ParseFromString(raw if isinstance(raw, bytes) else b"")
    except DecodeError:
        return None, ""
    info, field = error_details_pb2.ErrorInfo(), ""
    request = error_details_pb2.BadRequest()
    found = False
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            found = detail.Unpack(info) and info.domain == DOMAIN
        elif detail.Is(request.DESCRIPTOR) and detail.Unpack(request) and request.field_violations:
            field = request.field_violations[0].field
    return (info, field) if found else (None, "")
