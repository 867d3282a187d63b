from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2  # type: ignore[import-untyped] # it ships no types

from iyscheck import errors
from iyscheck.server.refusals import CODES, ERROR_DOMAIN, FAULTS, Code, Ending, Fault, Refusal, our_frames


def _tree(root: type[errors.IyscheckError]) -> Iterator[type[errors.IyscheckError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


ALL = [kind for kind in _tree(errors.IyscheckError) if kind.__module__ == "iyscheck.errors"]
RAISED = [kind for kind in ALL if kind in CODES]
OURS_TO_MEND = [kind for kind in ALL if kind not in CODES or issubclass(kind, errors.StoreError)]


def _make(kind: type[errors.IyscheckError], text: str) -> errors.IyscheckError:
    if issubclass(kind, errors.BatchTooLargeError):
        return kind("questions", maximum=1, actual=2)
    if issubclass(kind, errors.RateLimitedError):
        return kind(text, wait_s=0.25)
    return kind("questions", text) if issubclass(kind, errors.InputError) else kind(text)


def _details(error: Exception) -> tuple[Code, str, list[str], error_details_pb2.ErrorInfo]:
    refusal = Refusal.of(error)
    code, status = refusal.code, refusal.status
    kinds = [detail.TypeName().rpartition(".")[2] for detail in status.details]
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert status.code == code.value
    return code, status.message, kinds, info


def test_others() -> None:
    """An error that no call raises is never blamed on the caller, whatever its parent is."""
    others = {kind: Refusal.of(_make(kind, "text")).code for kind in ALL if kind not in CODES}

    assert errors.SettingsError in others
    assert set(others.values()) == {Code.INTERNAL}


def test_codes() -> None:
    """Codes are gRPC's own, by name and number."""
    assert {code.name: code.value for code in Code} == {code.name: code.value[0] for code in grpc.StatusCode}


def test_retry() -> None:
    """Only a position that did not come while the server waited is not asked for again at once."""
    never = [kind for kind in ALL if not Refusal.of(_make(kind, "text")).retry]

    assert never == [errors.NotYetAtPositionError]


@pytest.mark.parametrize("kind", RAISED)
def test_status(kind: type[errors.IyscheckError]) -> None:
    """A status has exactly one ErrorInfo with our domain and reason, and each other detail at most once."""
    code, _, kinds, info = _details(_make(kind, "text"))

    assert code is CODES[kind]
    assert (info.domain, info.reason) == (ERROR_DOMAIN, kind.reason)
    assert kinds.count("ErrorInfo") == 1
    assert len(kinds) == len(set(kinds))
    assert ("RetryInfo" in kinds) == (code in (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED))
    assert ("BadRequest" in kinds) == (code is Code.INVALID_ARGUMENT)


@pytest.mark.parametrize("kind", OURS_TO_MEND)
def test_ours_to_mend(kind: type[errors.IyscheckError]) -> None:
    """What is ours to mend is not told to callers: its text may name paths."""
    _, message, _, _ = _details(_make(kind, "secret path"))

    assert "secret" not in message


def test_field() -> None:
    """An input error carries its field and reason for programs."""
    status = Refusal.of(errors.QuestionError("question.channel", "is wrong.")).status
    bad = error_details_pb2.BadRequest()

    assert status.details[1].Unpack(bad)

    assert [violation.field for violation in bad.field_violations] == ["question.channel"]


def test_limits() -> None:
    """Too large a batch says what the maximum is and what was sent."""
    _, _, _, info = _details(errors.BatchTooLargeError("questions", maximum=10, actual=11))

    assert dict(info.metadata) == {"maximum": "10", "actual": "11"}


def test_foreign_exception() -> None:
    """An exception that is not ours is INTERNAL with a fixed text."""
    code, message, kinds, info = _details(ValueError("+905321234567"))

    assert code is Code.INTERNAL
    assert (kinds, info.reason) == (["ErrorInfo"], "INTERNAL")
    assert "532" not in message


def test_subclass() -> None:
    """A subclass that the table does not know has the code of its parent."""

    class LaterError(errors.QuestionError):
        """A later error."""

    assert Refusal.of(LaterError("f", "m")).code is Code.INVALID_ARGUMENT


def test_our_frames() -> None:
    """A log line about an exception names our own frames only, without text."""
    try:
        errors.InputError.__init__(object(), "field", "secret")  # type: ignore[arg-type] # fails inside our code
    except TypeError as error:
        frames = our_frames(error)

    assert len(frames) == 1
    assert frames[0].startswith("iyscheck/errors.py:")
    assert "secret" not in frames[0]


CALLERS = {
    "INVALID_QUESTION",
    "BATCH_TOO_LARGE",
    "MALFORMED_REQUEST",
    "MALFORMED_FRAME",
    "ADDRESS_KEY_NOT_HELD",
    "ADDRESS_KEY_MISMATCH",
    "POSITION_OF_OTHER_LOG",
    "NOT_YET_AT_POSITION",
    "CALLER_UNKNOWN",
    "CALLERS_DISAGREE",
    "CALLER_REVOKED",
    "CALL_NOT_ALLOWED",
    "BRAND_NOT_IN_SCOPE",
    "CHANNEL_NOT_IN_SCOPE",
    "ADDRESSES_NOT_ALLOWED",
    "RATE_LIMITED",
}
"""The reasons that are the caller's fault; all others wake somebody."""


class TestFaults:
    """Whose fault an error is."""

    @pytest.mark.parametrize("kind", ALL)
    def test_all(self, kind: type[errors.IyscheckError]) -> None:
        """Every error has a fault, whatever it is, by itself and by its reason alone; the caller's are told apart."""
        ending = Ending.of(_make(kind, "text"))

        assert ending == Ending.of_reason(kind.reason)
        assert ending.fault is (Fault.CALLER if kind.reason in CALLERS else Fault.SERVER)
        if kind.reason in CALLERS:
            assert ending.reason == kind.reason
        else:
            assert ending.reason in {"INTERNAL", "STORE", "OVERLOADED"}

    def test_raised(self) -> None:
        """Every error that has a code has a fault of its own, or that of the store as a whole."""
        missing = {kind for kind in CODES if kind not in FAULTS and not issubclass(kind, errors.StoreError)}

        # The one is never raised itself, the other by calls of operators only, which no metric counts.
        assert missing == {errors.ScopeError, errors.PageError}

    def test_foreign(self) -> None:
        """What is no error of ours is our fault, and so is a reason that nobody knows."""
        assert Ending.of(ValueError("x")) == Ending.of_reason("NEVER_SEEN") == Ending("INTERNAL", Fault.SERVER)

    def test_limits(self) -> None:
        """A limit that all share is the server's fault, a caller's own limit is the caller's."""
        shared, own = errors.OverloadedError("x"), errors.OverloadedError("x", of_caller=True)

        assert Ending.of(shared) == Ending("OVERLOADED", Fault.SERVER)
        assert Ending.of(own) == Ending("OVERLOADED", Fault.CALLER)
