from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2  # type: ignore[import-untyped] # it ships no types

from iyscheck import errors
from iyscheck.server.boundary import CODES, ERROR_DOMAIN, our_frames, status_of


def _tree(root: type[errors.IyscheckError]) -> Iterator[type[errors.IyscheckError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


ALL = [kind for kind in _tree(errors.IyscheckError) if kind.__module__ == "iyscheck.errors"]
OURS_TO_MEND = [
    kind
    for kind in ALL
    if CODES[kind] in (grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS) or issubclass(kind, errors.StoreError)
]


def _make(kind: type[errors.IyscheckError], text: str) -> errors.IyscheckError:
    if issubclass(kind, errors.BatchTooLargeError):
        return kind("questions", maximum=1, actual=2)
    return kind("questions", text) if issubclass(kind, errors.InputError) else kind(text)


def _details(error: Exception) -> tuple[grpc.StatusCode, str, list[str], error_details_pb2.ErrorInfo]:
    code, status = status_of(error)
    kinds = [detail.TypeName().rpartition(".")[2] for detail in status.details]
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert status.code == code.value[0]
    return code, status.message, kinds, info


def test_table() -> None:
    """Every error of ours has its code, and the table names nothing else."""
    assert set(CODES) == set(ALL)


@pytest.mark.parametrize("kind", ALL)
def test_status(kind: type[errors.IyscheckError]) -> None:
    """A status has exactly one ErrorInfo with our domain and reason, and each other detail at most once."""
    code, _, kinds, info = _details(_make(kind, "text"))

    assert code is CODES[kind]
    assert (info.domain, info.reason) == (ERROR_DOMAIN, kind.reason)
    assert kinds.count("ErrorInfo") == 1
    assert len(kinds) == len(set(kinds))
    assert ("RetryInfo" in kinds) == (code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED))
    assert ("BadRequest" in kinds) == (code is grpc.StatusCode.INVALID_ARGUMENT)


@pytest.mark.parametrize("kind", OURS_TO_MEND)
def test_ours_to_mend(kind: type[errors.IyscheckError]) -> None:
    """What is ours to mend is not told to callers: its text may name paths."""
    _, message, _, _ = _details(_make(kind, "secret path"))

    assert "secret" not in message


def test_field() -> None:
    """An input error carries its field and reason for programs."""
    _, status = status_of(errors.QuestionError("question.channel", "is wrong."))
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

    assert code is grpc.StatusCode.INTERNAL
    assert (kinds, info.reason) == (["ErrorInfo"], "INTERNAL")
    assert "532" not in message


def test_subclass() -> None:
    """A subclass that the table does not know has the code of its parent."""

    class LaterError(errors.QuestionError):
        """A later error."""

    assert status_of(LaterError("f", "m"))[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_our_frames() -> None:
    """A log line about an exception names our own frames only, without text."""
    try:
        errors.InputError.__init__(object(), "field", "secret")  # type: ignore[arg-type] # fails inside our code
    except TypeError as error:
        frames = our_frames(error)

    assert len(frames) == 1
    assert frames[0].startswith("iyscheck/errors.py:")
    assert "secret" not in frames[0]
