"""HTTP/2 by hand: frames are sent as they are given, right or wrong, and read without a judgement."""

import socket
import ssl
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from hpack import Decoder, HPACKDecodingError

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
CANCEL: Final = 8
WINDOW_SETTING: Final = 4
SERVICE: Final = "iyscheck.v1.ConsentCheckService"
PATIENCE_S: Final = 30.0
"""How long to wait for what should come: a guard against hanging, no claim."""

Field = tuple[bytes, bytes]


def frame(kind: int, stream: int, payload: bytes = b"", *, flags: int = 0, length: int | None = None) -> bytes:
    """Write a frame; `length` is what it claims, where that is a lie."""
    claimed = len(payload) if length is None else length
    return claimed.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def settings(**values: int) -> bytes:
    """Write SETTINGS; `window` is how many bytes of a stream may come unasked."""
    numbers = {"window": WINDOW_SETTING}
    return frame(SETTINGS, 0, b"".join(struct.pack(">HI", numbers[name], value) for name, value in values.items()))


def block(fields: Iterable[Field]) -> bytes:
    """Write header fields, each as a literal that nobody has to remember."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)


def _text(value: bytes) -> bytes:
    most = 127
    if len(value) < most:
        return bytes([len(value)]) + value
    rest, length = len(value) - most, bytes([most])
    while rest >= 128:
        length += bytes([rest % 128 + 128])
        rest //= 128
    return length + bytes([rest]) + value


def request(method: str = "Check", *more: Field, service: str = SERVICE) -> list[Field]:
    """The header fields of a call."""
    path = f"/{service}/{method}".encode()
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"x"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *more,
    ]


def message(payload: bytes, *, compressed: bool = False, length: int | None = None) -> bytes:
    """Write a message of gRPC; `length` is what it claims, where that is a lie."""
    return bytes([compressed]) + (len(payload) if length is None else length).to_bytes(4, "big") + payload


def data(stream: int, content: bytes, *, ends: bool = False, most: int = 16_384) -> bytes:
    """Write content as frames of DATA, none longer than a server has to take."""
    pieces = [content[at : at + most] for at in range(0, len(content), most)] or [b""]
    flags = [0] * (len(pieces) - 1) + [END_STREAM if ends else 0]
    return b"".join(frame(DATA, stream, piece, flags=each) for piece, each in zip(pieces, flags, strict=True))


@dataclass
class Frame:
    """A frame that came."""

    kind: int
    flags: int
    stream: int
    payload: bytes


@dataclass
class Answer:
    """What came of one stream."""

    fields: dict[str, str] = field(default_factory=dict)
    content: bytes = b""
    reset: int | None = None
    """The error code of RST_STREAM."""

    @property
    def status(self) -> int | None:
        """The code of gRPC, once it is there."""
        found = self.fields.get("grpc-status")
        return None if found is None else int(found)

    @property
    def is_over(self) -> bool:
        """Whether nothing more can come."""
        return self.status is not None or self.reset is not None


class Connection:
    """One connection. `window` 0 lets nothing of an answer come until it is asked for."""

    def __init__(
        self, address: str, *, greets: bool = True, window: int | None = None, secure: ssl.SSLContext | None = None
    ) -> None:
        host, _, port = address.rpartition(":")
        plain = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
        self.socket = plain if secure is None else secure.wrap_socket(plain, server_hostname="localhost")
        self._decoder = Decoder()
        self._rest = b""
        self._greeted = greets
        self.answers: dict[int, Answer] = {}
        self.told: Frame | None = None
        """GOAWAY, if it came."""
        if greets:
            self.send(PREFACE + (settings() if window is None else settings(window=window)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()

    def send(self, content: bytes) -> None:
        """Send bytes as they are. Raises OSError where the server has ended the connection."""
        self.socket.sendall(content)

    def try_to_send(self, content: bytes) -> bool:
        """Send bytes, unless the server has ended the connection."""
        try:
            self.send(content)
        except OSError:
            return False
        return True

    def settle(self) -> None:
        """Wait until the server knows that its SETTINGS are known."""
        mark = b"settled?"
        next(found for found in self.arriving() if found.kind == SETTINGS)
        self.send(frame(PING, 0, mark))
        next(found for found in self.arriving() if (found.kind, found.payload) == (PING, mark))

    def hang_up(self) -> None:
        """Say that nothing more comes; what was sent is still read."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def call(self, stream: int, method: str = "Check", *more: Field, service: str = SERVICE) -> None:
        """Open a call."""
        self.send(frame(HEADERS, stream, block(request(method, *more, service=service)), flags=END_HEADERS))

    def arriving(self, within_s: float = PATIENCE_S) -> Iterator[Frame]:
        """Read frames until the server ends the connection. Raises TimeoutError where nothing comes for so long."""
        until = time.monotonic() + within_s
        with suppress(ConnectionError):
            while True:
                while len(self._rest) < 9 or len(self._rest) < 9 + int.from_bytes(self._rest[:3], "big"):
                    self.socket.settimeout(max(until - time.monotonic(), 0.001))
                    more = self.socket.recv(65_536)
                    if not more:
                        return
                    self._rest += more
                length = int.from_bytes(self._rest[:3], "big")
                found = Frame(
                    self._rest[3],
                    self._rest[4],
                    int.from_bytes(self._rest[5:9], "big") & 0x7FFFFFFF,
                    self._rest[9 : 9 + length],
                )
                self._rest = self._rest[9 + length :]
                self._note(found)
                yield found

    def _note(self, found: Frame) -> None:
        answer = self.answers.setdefault(found.stream, Answer())
        if found.kind == HEADERS:
            with suppress(HPACKDecodingError):
                answer.fields |= {str(name): str(value) for name, value in self._decoder.decode(found.payload)}
        elif found.kind == DATA:
            answer.content += found.payload
        elif found.kind == RESET:
            answer.reset = int.from_bytes(found.payload, "big")
        elif found.kind == GOAWAY:
            self.told = found
        elif self._greeted and (found.kind, found.flags) in ((SETTINGS, 0), (PING, 0)):
            payload = b"" if found.kind == SETTINGS else found.payload
            self.try_to_send(frame(found.kind, 0, payload, flags=ACK))

    def answer(self, stream: int, within_s: float = PATIENCE_S) -> Answer:
        """Read until a call is over, or the connection."""
        answer = self.answers.setdefault(stream, Answer())
        coming = self.arriving(within_s)
        while not answer.is_over and next(coming, None) is not None:
            pass
        return answer

    def ended(self, within_s: float = PATIENCE_S) -> bool:
        """Read until the server has ended the connection; False if it has not in that time."""
        try:
            for _ in self.arriving(within_s):
                pass
        except TimeoutError:
            return False
        return True
