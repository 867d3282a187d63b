"""The native front under the attacks that it has to stand, and what it is known not to bound."""

import gzip
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.server.conftest import Site
from tests.server.hostile import test_garbage, test_resets, test_silence
from tests.server.hostile.conftest import QUESTION, Attacked
from tests.server.hostile.http2 import (
    CANCEL,
    END_HEADERS,
    HEADERS,
    RESET,
    Connection,
    block,
    data,
    frame,
    message,
    request,
)
from tests.server.processes.running import running

INVALID_ARGUMENT = 3


@pytest.fixture(scope="module")
def native(hostile_site: Site) -> Iterator[Attacked]:
    """A server that is reached by its native front."""
    with running(hostile_site, "--workers=1", "--native-listen=127.0.0.1:0") as server:
        said = server.wait_for("serving")
        yield Attacked(said["native_listen"], said["metrics_listen"], server.process.pid)


def as_before(attack: Callable[..., None]) -> pytest.MarkDecorator:
    """Give an attack the cases that it has for the other front."""
    (mark,) = attack.pytestmark  # type: ignore[attr-defined] # pytest keeps them there
    names, cases = mark.args
    return pytest.mark.parametrize(names, cases, ids=mark.kwargs["ids"])


@as_before(test_garbage.test_garbage)
def test_no_http2(native: Attacked, said: bytes) -> None:
    """What is no HTTP/2 ends its connection, and nothing else."""
    test_garbage.test_garbage(native, said)


@as_before(test_garbage.test_lengths_of_frames)
def test_frames(native: Attacked, lie: bytes) -> None:
    """A frame whose length cannot be right ends its connection."""
    test_garbage.test_lengths_of_frames(native, lie)


@as_before(test_garbage.test_lengths_of_messages)
def test_messages(native: Attacked, claimed: int, status: int) -> None:
    """A message whose length is a lie is refused, and no memory is set aside for what it claims."""
    test_garbage.test_lengths_of_messages(native, claimed, status)


@as_before(test_resets.test_floods)
def test_small_frames(native: Attacked, small: bytes) -> None:
    """A flood of frames that mean nothing costs time while it lasts, and no memory."""
    test_resets.test_floods(native, small)


@pytest.mark.thorough
@as_before(test_silence.test_many)
def test_many_connections(native: Attacked, greets: bool) -> None:  # noqa: FBT001 - pytest's
    """Five thousand connections hold descriptors and little else, and others are answered."""
    test_silence.test_many(native, greets)


def test_rapid_resets(native: Attacked) -> None:
    """Who opens calls and resets them at once loses the connection, and nobody else does."""
    header, reset = block(request()), CANCEL.to_bytes(4, "big")
    whole = [
        frame(HEADERS, stream, header, flags=END_HEADERS)
        + data(stream, message(QUESTION), ends=True)
        + frame(RESET, stream, reset)
        for stream in range(1, 6_001, 2)
    ]
    with native.unharmed():
        for _ in range(4):
            with Connection(native.address) as connection:
                reader = threading.Thread(target=connection.ended)
                reader.start()
                connection.try_to_send(b"".join(whole))
                reader.join()


def test_endless_headers(native: Attacked) -> None:
    """A call with far more headers than the bound is not answered, and harms nobody."""
    with native.unharmed():
        fields = [(b"x-%d" % number, b"y" * 100) for number in range(1_000)]
        refused = [test_garbage.with_fields(native, fields).status for _ in range(5)]
        good = test_garbage.with_fields(native, [(b"x-%d" % number, b"y" * 100) for number in range(50)])

    assert 0 not in refused
    assert good.status == 0


def test_what_is_packed_is_opened(native: Attacked) -> None:
    """The package opens what is packed before we can refuse it, as README says. If it stops that, so may README."""
    with native.unharmed(megabytes=256), Connection(native.address) as connection:
        connection.call(1, "Check", (b"grpc-encoding", b"gzip"))
        packed = gzip.compress(bytes(4_000_000))
        connection.send(data(1, message(packed, compressed=True), ends=True))
        answer = connection.answer(1)

    assert answer.status == INVALID_ARGUMENT
