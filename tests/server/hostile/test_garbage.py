"""Bytes that are no HTTP/2, lengths that lie, headers without end, and messages that are packed."""

import gzip
import random
import time
import zlib
from collections.abc import Callable

import pytest

from tests.server.hostile.conftest import QUESTION, Attacked
from tests.server.hostile.http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    HEADERS,
    PATIENCE_S,
    PING,
    PREFACE,
    SETTINGS,
    WINDOW_UPDATE,
    Answer,
    Connection,
    Field,
    block,
    data,
    frame,
    message,
    request,
    settings,
)

NOISE = random.Random(20).randbytes(2_000)
OK, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 0, 3, 8, 12, 13
MEGABYTE = 1024 * 1024
KEPT_MEGABYTES = 200
"""What sixteen gigabytes of a header left, and as much that of a hundredth."""


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01" + NOISE[:500],
        NOISE,
        PREFACE + NOISE,
        PREFACE + settings() + NOISE,
        PREFACE + frame(HEADERS, 1, NOISE[:200], flags=END_HEADERS),
    ],
    ids=["HTTP/1", "TLS", "noise", "noise after the preface", "noise after SETTINGS", "a call before SETTINGS"],
)
def test_garbage(server: Attacked, said: bytes) -> None:
    """What is no HTTP/2 ends its connection, and nothing else."""
    with server.unharmed():
        for _ in range(20):
            with Connection(server.address, greets=False) as connection:
                connection.try_to_send(said)
                assert connection.ended()


@pytest.mark.parametrize(
    "lie",
    [
        frame(DATA, 1, b"x" * 100, length=2**24 - 1),
        frame(DATA, 1, b"x" * 20_000),
        frame(HEADERS, 1, b"x" * 20_000, flags=END_HEADERS),
        frame(PING, 0, b"short"),
        frame(SETTINGS, 0, b"odd"),
        frame(WINDOW_UPDATE, 0, b"\0\0\0\0"),
        frame(CONTINUATION, 1, b""),
    ],
    ids=["16 MB", "long", "long header", "PING", "SETTINGS", "no window", "continues nothing"],
)
def test_lengths_of_frames(server: Attacked, lie: bytes) -> None:
    """A frame whose length cannot be right ends its connection."""
    with server.unharmed(), Connection(server.address) as connection:
        connection.try_to_send(lie)
        assert connection.ended()


@pytest.mark.parametrize(
    ("claimed", "status"),
    [
        (2**32 - 1, RESOURCE_EXHAUSTED),
        (9 * MEGABYTE, RESOURCE_EXHAUSTED),
        (len(QUESTION) + 10, UNIMPLEMENTED),
        (3, INVALID_ARGUMENT),
        (0, INVALID_ARGUMENT),
    ],
    ids=["4 GB", "9 MB", "ten more", "three", "none"],
)
def test_lengths_of_messages(server: Attacked, claimed: int, status: int) -> None:
    """A message whose length is a lie is refused, and no memory is set aside for what it claims."""
    with server.unharmed(), Connection(server.address) as connection:
        connection.call(1)
        connection.try_to_send(data(1, message(QUESTION, length=claimed), ends=True))
        answer = connection.answer(1)

    assert answer.status in (status, INTERNAL)


def with_fields(server: Attacked, fields: list[Field]) -> Answer:
    """Make a good call with more header fields."""
    with Connection(server.address) as connection:
        connection.settle()  # until then the bound does not hold: `test_continuations` is about that
        whole = block(request("Check", *fields))
        pieces = [whole[at : at + 16_000] for at in range(0, len(whole), 16_000)]
        for number, piece in enumerate(pieces):
            ends = END_HEADERS if number == len(pieces) - 1 else 0
            if not connection.try_to_send(frame(CONTINUATION if number else HEADERS, 1, piece, flags=ends)):
                break
        connection.try_to_send(data(1, message(QUESTION), ends=True))
        return connection.answer(1)


@pytest.mark.parametrize(
    "fields",
    [
        [(b"x-large", b"y" * 40_000)],
        [(b"x-%d" % number, b"y" * 100) for number in range(1_000)],
        [(b"x-%d" % number, b"y") for number in range(20_000)],
    ],
    ids=["one large", "a thousand", "twenty thousand"],
)
def test_headers(server: Attacked, fields: list[Field]) -> None:
    """Headers beyond the bound are refused before a thread reads them. What a good client sends is far below."""
    with server.unharmed():
        refused = [with_fields(server, fields) for _ in range(5)]
        taken = with_fields(server, [(b"x-%d" % number, b"y" * 100) for number in range(50)])

    assert {answer.status for answer in refused} == {RESOURCE_EXHAUSTED}
    assert taken.status == OK


@pytest.mark.parametrize("more", [b"", block([(b"x-more", b"y" * 10_000)])], ids=["empty", "full"])
def test_continuations(curt: Attacked, more: bytes) -> None:
    """A header that goes on and on takes no more memory the longer it goes on, and its connection is soon ended."""
    with curt.unharmed(KEPT_MEGABYTES), Connection(curt.address) as connection:
        connection.send(frame(HEADERS, 1, block(request()), flags=0))
        until = time.monotonic() + PATIENCE_S
        while connection.try_to_send(frame(CONTINUATION, 1, more) * 100):
            assert time.monotonic() < until


def gzipped(content: bytes) -> bytes:
    """Pack as gzip does."""
    return gzip.compress(content)


@pytest.mark.parametrize(("encoding", "pack"), [(b"gzip", gzipped), (b"deflate", zlib.compress)])
def test_bombs(server: Attacked, encoding: bytes, pack: Callable[[bytes], bytes]) -> None:
    """What is packed is refused unopened, however much it would become."""
    bombs = [pack(bytes(size * MEGABYTE)) for size in (4, 9, 64)]
    with server.unharmed(), Connection(server.address) as connection:
        for number in range(50):
            stream = 2 * number + 1
            connection.call(stream, "Check", (b"grpc-encoding", encoding))
            connection.send(data(stream, message(bombs[number % 3][:60_000], compressed=True), ends=True))
            assert connection.answer(stream).status == UNIMPLEMENTED


def test_flag_without_encoding(server: Attacked) -> None:
    """A message that says it is packed, in a call that does not say how, is not taken for an answerable one."""
    with server.unharmed(), Connection(server.address) as connection:
        connection.call(1)
        connection.send(data(1, message(gzipped(bytes(7 * MEGABYTE)), compressed=True), ends=True))
        answer = connection.answer(1)

    assert answer.status in (INVALID_ARGUMENT, UNIMPLEMENTED, INTERNAL)
