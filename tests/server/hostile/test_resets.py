"""Calls that are opened and reset at once, and floods of small frames that ask for nothing."""

import threading
from contextlib import suppress

import pytest

from tests.server.hostile.conftest import QUESTION, Attacked
from tests.server.hostile.http2 import (
    CANCEL,
    END_HEADERS,
    HEADERS,
    PING,
    RESET,
    WINDOW_UPDATE,
    Connection,
    block,
    data,
    frame,
    message,
    request,
    settings,
)

AT_ONCE = 100
PRIORITY = 2
KEPT_MEGABYTES = 250
"""What a flood of resets may leave: 8,000 waiting calls of 25 KB, and some."""


def reset_all(address: str, asked: bytes, resets: int) -> None:
    """Open calls and reset each at once."""
    header, reset = block(request()), CANCEL.to_bytes(4, "big")
    with suppress(OSError), Connection(address) as connection:
        reader = threading.Thread(target=connection.ended)
        reader.start()
        for first in range(1, 2 * resets, 2 * AT_ONCE):
            connection.send(
                b"".join(
                    frame(HEADERS, stream, header, flags=END_HEADERS)
                    + asked_by(stream, asked)
                    + frame(RESET, stream, reset)
                    for stream in range(first, first + 2 * AT_ONCE, 2)
                )
            )
        connection.hang_up()
        reader.join()


def asked_by(stream: int, asked: bytes) -> bytes:
    """The question of a call, if it has one."""
    return data(stream, message(asked), ends=True) if asked else b""


@pytest.mark.parametrize("asked", [b"", QUESTION], ids=["headers only", "with a question"])
@pytest.mark.parametrize("resets", [3_000, pytest.param(50_000, marks=pytest.mark.thorough)])
def test_resets(server: Attacked, asked: bytes, resets: int) -> None:
    """Rapid resets on four connections make others slower, and fail none."""
    with server.unharmed(KEPT_MEGABYTES):
        threads = [threading.Thread(target=reset_all, args=(server.address, asked, resets)) for _ in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()


def test_reset_and_ping(server: Attacked) -> None:
    """Each reset is followed by a PING of the server's: that is what makes room for others (decision 77)."""
    with Connection(server.address) as connection:
        connection.settle()
        for stream in (1, 3, 5):
            connection.call(stream)
            connection.send(frame(RESET, stream, CANCEL.to_bytes(4, "big")))
            ping = next(found for found in connection.arriving() if found.kind == PING)
            assert ping.flags == 0


@pytest.mark.parametrize(
    "small",
    [
        settings(window=65_535),
        frame(PING, 0, b"12345678"),
        frame(PRIORITY, 1, b"\0\0\0\0\1"),
        frame(WINDOW_UPDATE, 0, b"\0\0\0\1"),
        frame(0x4D, 0),
    ],
    ids=["SETTINGS", "PING", "PRIORITY", "WINDOW_UPDATE", "unknown"],
)
def test_floods(server: Attacked, small: bytes) -> None:
    """A flood of frames that mean nothing costs time while it lasts, and no memory. It is not argued with."""
    with server.unharmed(), Connection(server.address) as connection:
        reader = threading.Thread(target=connection.ended)
        reader.start()
        for _ in range(100):
            if not connection.try_to_send(small * 1_000):
                break
        connection.hang_up()
        reader.join()
        assert connection.told is None  # each frame would be refused for itself, and others would wait for that


def test_unread_pings(server: Attacked) -> None:
    """Nobody has to keep the answers for a client that does not read them."""
    with server.unharmed(), Connection(server.address) as connection:
        connection.socket.settimeout(0.5)
        for _ in range(50):
            if not connection.try_to_send((frame(PING, 0, b"12345678") + settings(window=65_535)) * 1_000):
                break
