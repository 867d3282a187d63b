"""A client of HTTP/2 that is as rude as a test wants: it sends the frames that it is told to, and no others."""

import socket
import struct
from collections.abc import Iterator
from typing import Final, Self

DATA, HEADERS, RESET, SETTINGS, WINDOW = 0, 1, 3, 4, 8
END_STREAM, END_HEADERS = 1, 4
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_INITIAL_WINDOW_SIZE: Final = 4
_CANCEL: Final = 8
_PATIENCE_S: Final = 20.0


class Http2:
    """A connection. Its streams are numbered as they are opened: 1, 3, 5 and so on."""

    def __init__(self, port: int, *, window: int | None = None) -> None:
        """`window` is the room that we leave the server on each stream, in bytes."""
        self._socket = socket.create_connection(("127.0.0.1", port), _PATIENCE_S)
        self._received = self._socket.makefile("rb")
        self._next = 1
        own = b"" if window is None else struct.pack(">HI", _INITIAL_WINDOW_SIZE, window)
        self._socket.sendall(_PREFACE)
        self.send(SETTINGS, 0, 0, own)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._received.close()
        self._socket.close()

    def send(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        """Send a frame."""
        self._socket.sendall(struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload)

    def open(self, path: str) -> int:
        """Send the headers of a call, and nothing else; returns its stream."""
        stream, self._next = self._next, self._next + 2
        fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "here"}
        fields |= {"te": "trailers", "content-type": "application/grpc"}
        block = b"".join(
            b"\x00" + b"".join(bytes([len(text)]) + text.encode() for text in field) for field in fields.items()
        )
        self.send(HEADERS, END_HEADERS, stream, block)
        return stream

    def ask(self, stream: int, message: bytes) -> None:
        """Send the one message of a call."""
        self.send(DATA, END_STREAM, stream, struct.pack(">BI", 0, len(message)) + message)

    def reset(self, stream: int) -> None:
        """Give a call up."""
        self.send(RESET, 0, stream, struct.pack(">I", _CANCEL))

    def make_room(self, stream: int, size: int = 1_000) -> None:
        """Let the server send more on a stream."""
        self.send(WINDOW, 0, stream, struct.pack(">I", size))

    def frames(self) -> Iterator[tuple[int, int, bytes]]:
        """Read what comes: kind, stream and payload of each frame, until the server hangs up."""
        while len(head := self._received.read(9)) == 9:
            yield head[3], int.from_bytes(head[5:]), self._received.read(int.from_bytes(head[:3]))

    def messages(self, count: int) -> list[bytes]:
        """Read so many messages, of whatever streams."""
        found = (payload[5:] for kind, _, payload in self.frames() if kind == DATA and payload)
        return [next(found) for _ in range(count)]

    def ended(self) -> tuple[int, bytes]:
        """Wait for the headers that end a call: its stream, and what they say. Calls that were answered have two."""
        return next((stream, payload) for kind, stream, payload in self.frames() if kind == HEADERS)
