"""Clients that no honest program is, as a process of their own: python -m bench.soak.hostile KIND HOST:PORT SECONDS.

A process, since ten thousand resets a second would keep the honest callers from running.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Final

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS = 0, 1, 3, 4
_END_STREAM, _END_HEADERS = 1, 4
_NO_WINDOW: Final = b"\0\x04\0\0\0\0"
"""The setting by which no message has room on any stream."""
_HEALTH: Final = "grpc.health.v1.Health"
_WATCHES_EACH: Final = 30
_CANCEL: Final = b"\0\0\0\x08"
_SILENT: Final = 20
_REQUESTS_EACH: Final = 40
"""Together less than the 64 kB that HTTP/2 lets a client send unasked."""


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _headers(stream: int, method: str, service: str = "iyscheck.v1.ConsentCheckService") -> bytes:
    fields = {":method": "POST", ":scheme": "http", ":path": f"/{service}/{method}"}
    fields |= {":authority": "x", "content-type": "application/grpc", "te": "trailers"}
    block = b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )
    return _frame(_HEADERS, _END_HEADERS, stream, block)


def _connected(target: str) -> socket.socket:
    host, _, port = target.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=2.0)


def resets(target: str, until: float) -> None:
    """Open calls and reset each at once, on four connections at a time."""

    def work() -> None:
        while time.monotonic() < until:
            with suppress(OSError), _connected(target) as connection:
                connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, b""))
                threading.Thread(target=_read, args=(connection,), daemon=True).start()
                stream = 1
                while time.monotonic() < until:
                    streams = range(stream, stream + 200, 2)
                    connection.sendall(
                        b"".join(_headers(each, "Check") + _frame(_RESET, 0, each, _CANCEL) for each in streams)
                    )
                    stream += 200
            time.sleep(0.05)  # where the server is gone for a moment

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _read(connection: socket.socket) -> None:
    with suppress(OSError):
        while connection.recv(65536):
            pass


def garbage(target: str, until: float) -> None:
    """Send what is no HTTP/2, and what begins as if it were."""
    heads = (b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", _PREFACE, _PREFACE + _frame(_SETTINGS, 0, 0, b""))
    number = 0
    while time.monotonic() < until:
        number += 1
        with suppress(OSError), _connected(target) as connection:
            connection.sendall(heads[number % len(heads)] + os.urandom(2_000))
        time.sleep(0.02)


def silent(target: str, until: float) -> None:
    """Open streams, send many frames, and never read an answer."""
    # frame_id, brand, channel and type of a frame, then a hundred addresses; see the contract for the numbers.
    frame = b"\x08\x01\x10\xc1\xcf\x24\x18\x02\x20\x01" + b"\x3a\x0d+905320000001" * 100
    message = b"\0" + len(frame).to_bytes(4, "big") + frame
    with ExitStack() as open_ones:
        for _ in range(_SILENT):
            with suppress(OSError):
                connection = open_ones.enter_context(_connected(target))
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, b"") + _headers(1, "StreamCheck"))
                connection.settimeout(0.2)
                for _ in range(_REQUESTS_EACH):
                    connection.sendall(_frame(_DATA, 0, 1, message))
        time.sleep(max(until - time.monotonic(), 0))


def deaf(target: str, until: float) -> None:
    """Watch the health many times, with a window in which no status has room."""
    with ExitStack() as open_ones:
        for _ in range(_SILENT):
            with suppress(OSError):
                open_ones.enter_context(deaf_watchers(target, _WATCHES_EACH))
        time.sleep(max(until - time.monotonic(), 0))


def deaf_watchers(target: str, count: int) -> socket.socket:
    """Open watches on a connection that leaves no room for what they are told."""
    connection = _connected(target)
    connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, _NO_WINDOW))
    for stream in range(1, 2 * count, 2):
        asked = _frame(_DATA, _END_STREAM, stream, bytes(5))
        connection.sendall(_headers(stream, "Watch", _HEALTH) + asked)
    return connection


def mute(target: str, until: float) -> None:
    """Open calls of all kinds that take one request, and send none."""
    methods = [(method, "iyscheck.v1.ConsentCheckService") for method in ("Check", "BatchCheck", "GetServerInfo")]
    methods += [(method, _HEALTH) for method in ("Check", "Watch", "List")]
    with ExitStack() as open_ones:
        for _ in range(_SILENT):
            with suppress(OSError):
                connection = open_ones.enter_context(_connected(target))
                calls = [_headers(stream, *methods[stream // 2 % len(methods)]) for stream in range(1, 61, 2)]
                connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, b"") + b"".join(calls))
        time.sleep(max(until - time.monotonic(), 0))


KINDS: Final[Mapping[str, Callable[[str, float], None]]] = {
    "resets": resets,
    "garbage": garbage,
    "silent": silent,
    "deaf": deaf,
    "mute": mute,
}


def main(arguments: list[str]) -> None:
    """Do it for so many seconds."""
    kind, target, seconds = arguments
    KINDS[kind](target, time.monotonic() + float(seconds))


if __name__ == "__main__":
    main(sys.argv[1:])
