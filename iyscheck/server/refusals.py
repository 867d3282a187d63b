"""What a caller is told of an error, whatever the transport: a code, a text, and details for programs.

An exception that is not ours says nothing to the caller; the log gets its type and our own stack frames, never its
text, which could hold request data.
"""

import math
import traceback
from enum import Enum
from pathlib import Path
from typing import Final, NamedTuple

from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped] # it ships no types

from iyscheck import errors

ERROR_DOMAIN: Final = "iyscheck.v1"
_CANNOT_ANSWER: Final = "The server cannot answer. Its log tells why."
_PACKAGE: Final = Path(errors.__file__).parent


class Code(Enum):
    """How a call ended. Names and numbers are those of google.rpc.Code, which gRPC and its gateways share."""

    __hash__ = object.__hash__  # each is there once; Enum's own is written in Python, and a check takes it twice

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


CODES: Final[dict[type[errors.IyscheckError], Code]] = {
    # The errors that a call can raise; another one has the code of its nearest parent here, at last INTERNAL.
    errors.IyscheckError: Code.INTERNAL,
    errors.QuestionError: Code.INVALID_ARGUMENT,
    errors.BatchTooLargeError: Code.INVALID_ARGUMENT,
    errors.PageError: Code.INVALID_ARGUMENT,
    errors.MalformedError: Code.INVALID_ARGUMENT,
    errors.MalformedFrameError: Code.INVALID_ARGUMENT,
    errors.AddressKeyNotHeldError: Code.FAILED_PRECONDITION,
    errors.AddressKeyMismatchError: Code.FAILED_PRECONDITION,
    errors.StoreMissingError: Code.UNAVAILABLE,
    errors.StoreUnreadableError: Code.UNAVAILABLE,
    errors.StoreClosedError: Code.UNAVAILABLE,
    errors.StoreCorruptError: Code.DATA_LOSS,
    errors.PositionOfOtherLogError: Code.FAILED_PRECONDITION,
    errors.NotYetAtPositionError: Code.UNAVAILABLE,
    errors.OverloadedError: Code.RESOURCE_EXHAUSTED,
    errors.CallerUnknownError: Code.UNAUTHENTICATED,
    errors.CallersDisagreeError: Code.UNAUTHENTICATED,
    errors.ScopeError: Code.PERMISSION_DENIED,
    errors.CallNotAllowedError: Code.PERMISSION_DENIED,
    errors.BrandNotInScopeError: Code.PERMISSION_DENIED,
    errors.ChannelNotInScopeError: Code.PERMISSION_DENIED,
    errors.AddressesNotAllowedError: Code.PERMISSION_DENIED,
    errors.CallerRevokedError: Code.PERMISSION_DENIED,
    errors.RateLimitedError: Code.RESOURCE_EXHAUSTED,
}


class Fault(Enum):
    """Whose fault it is that somebody got no answer."""

    CALLER = "caller"
    SERVER = "server"


FAULTS: Final[dict[type[errors.IyscheckError], Fault]] = {
    # Whoever is on call is woken for the server's faults, so no caller may cause one by what it asks. Limits that all
    # share are the server's. Another error is its nearest parent here, by name too: at last INTERNAL. So all errors of
    # the store are one; the log's `call_failed` tells them apart.
    errors.IyscheckError: Fault.SERVER,
    errors.QuestionError: Fault.CALLER,
    errors.BatchTooLargeError: Fault.CALLER,
    errors.MalformedError: Fault.CALLER,
    errors.MalformedFrameError: Fault.CALLER,
    errors.AddressKeyNotHeldError: Fault.CALLER,
    errors.AddressKeyMismatchError: Fault.CALLER,
    errors.StoreError: Fault.SERVER,
    errors.PositionOfOtherLogError: Fault.CALLER,
    errors.NotYetAtPositionError: Fault.CALLER,  # it may name any position, also one that there never will be
    errors.OverloadedError: Fault.SERVER,  # but for a limit of its own
    errors.CallerUnknownError: Fault.CALLER,
    errors.CallersDisagreeError: Fault.CALLER,
    errors.CallNotAllowedError: Fault.CALLER,
    errors.BrandNotInScopeError: Fault.CALLER,
    errors.ChannelNotInScopeError: Fault.CALLER,
    errors.AddressesNotAllowedError: Fault.CALLER,
    errors.CallerRevokedError: Fault.CALLER,
    errors.RateLimitedError: Fault.CALLER,
}


class Ending(NamedTuple):
    """Why somebody got no answer, as metrics call it: one of few reasons, and whose fault it is."""

    reason: str
    fault: Fault

    @classmethod
    def of(cls, error: Exception) -> "Ending":
        """Say it of any error; one that is not ours is our fault."""
        if isinstance(error, errors.OverloadedError) and error.of_caller:
            return cls(error.reason, Fault.CALLER)
        return cls._of(type(error) if isinstance(error, errors.IyscheckError) else errors.IyscheckError)

    @classmethod
    def of_reason(cls, reason: str) -> "Ending":
        """Say it of the reason of an error of ours, which may be all that is left of it."""
        return _BY_REASON.get(reason, cls._of(errors.IyscheckError))

    @classmethod
    def _of(cls, kind: type[errors.IyscheckError]) -> "Ending":
        nearest = next(each for each in kind.__mro__ if each in FAULTS)
        return cls(nearest.reason, FAULTS[nearest])


_BY_REASON: Final = {
    kind.reason: Ending._of(kind)  # noqa: SLF001 - of this module
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.IyscheckError)
}
OVERLOADED: Final = Ending.of_reason(errors.OverloadedError.reason)
CANCELED: Final = Ending("CANCELED", Fault.CALLER)
"""The caller left, or its connection ended: never the server's fault."""
TOO_LATE: Final = Ending("DEADLINE_EXCEEDED", Fault.SERVER)
"""The request was there, and its deadline passed before the answer was."""
HASTY: Final = Ending("DEADLINE_EXCEEDED", Fault.CALLER)
"""The same, where the caller gave it less time than any server promises."""
REQUEST_LATE: Final = Ending("REQUEST_LATE", Fault.CALLER)
"""The request was not there in time."""

_RETRY_AFTER_MS: Final = {Code.UNAVAILABLE: 100, Code.RESOURCE_EXHAUSTED: 1000}


class Refusal(Exception):  # noqa: N818 - not an error of ours: it is what an error becomes where a call leaves
    """How a call ends that is not answered. `status` is the google.rpc.Status with its details.

    `retry` is false where the same call should not be made again by itself: a position that did not come while the
    server waited will not come in the next 50 ms, and the caller should learn why instead of running into its deadline.
    """

    def __init__(self, code: Code, status: status_pb2.Status, *, retry: bool) -> None:
        super().__init__(code.name)
        self.code = code
        self.status = status
        self.retry = retry

    @classmethod
    def of(cls, error: Exception) -> "Refusal":
        """Say what a caller is told of an error: code, text, one ErrorInfo, and the field or delay where one helps."""
        ours = error if isinstance(error, errors.IyscheckError) else errors.IyscheckError(_CANNOT_ANSWER)
        code = next(CODES[kind] for kind in type(ours).__mro__ if kind in CODES)
        told = is_callers(error, code)
        status = status_pb2.Status(code=code.value, message=str(ours) if told else _CANNOT_ANSWER)
        info = error_details_pb2.ErrorInfo(reason=ours.reason, domain=ERROR_DOMAIN)
        if isinstance(ours, errors.BatchTooLargeError):
            info.metadata["maximum"] = str(ours.maximum)
            info.metadata["actual"] = str(ours.actual)
        status.details.add().Pack(info)
        if isinstance(ours, errors.InputError) and told:
            violation = error_details_pb2.BadRequest.FieldViolation(field=ours.field, description=ours.message)
            status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
        wait_ms = _RETRY_AFTER_MS.get(code)
        if isinstance(ours, errors.RateLimitedError):
            wait_ms = math.ceil(ours.wait_s * 1_000)
            exceeded = error_details_pb2.QuotaFailure.Violation(subject="caller", description=ours.message)
            status.details.add().Pack(error_details_pb2.QuotaFailure(violations=[exceeded]))
        if wait_ms is not None:
            delay = Duration()
            delay.FromMilliseconds(wait_ms)
            status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        # A replica's caller may well ask another one, by itself.
        return cls(code, status, retry=not isinstance(error, errors.NotYetAtPositionError) or error.elsewhere)


def is_callers(error: Exception, code: Code) -> bool:
    """Whether the text of an error is for the caller; what is ours to mend names paths and goes to the log."""
    ours = isinstance(error, errors.IyscheckError) and not isinstance(error, errors.StoreError)
    return ours and code is not Code.INTERNAL


def our_frames(error: BaseException) -> list[str]:
    """List where in our own code an exception passed, outermost first."""
    return [
        f"{Path(frame.filename).relative_to(_PACKAGE.parent)}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(_PACKAGE)
    ]
