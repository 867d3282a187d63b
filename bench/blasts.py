"""A client of unary calls that knows just enough of HTTP/2 to keep the fastest server busy with distinct questions.

Each request is bytes made beforehand, in which only the number of its stream is filled in. Of what comes back the
frames are counted and, where that is asked for, compared. It sends no header but those that gRPC needs.
"""

import selectors
import socket
import struct
import time
from collections import deque
from typing import Final

import numpy as np

from bench.arrivals import percentiles
from bench.callers import CHECK, WrongAnswersError
from bench.cohort import Cohort
from bench.frames import Kind, Questions
from iyscheck.v1 import consent_check_pb2 as v1

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_LARGE_WINDOW: Final = 2**30
_FRAME: Final = struct.Struct(">HBBBI")  # length in three bytes: two of 16 bits would be read as one of 24
_READ_BYTES: Final = 262_144
_FIRST_WINDOW: Final = 65_535


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    size = len(content)
    return _FRAME.pack(size >> 8, size & 255, kind, flags, stream) + content


def _literal(name: bytes, value: bytes) -> bytes:
    """Write a header that no table remembers: so each request has the same bytes."""
    return b"\x10" + bytes((len(name),)) + name + bytes((len(value),)) + value


_HEADER: Final = (
    b"\x83\x86"  # :method POST, :scheme http, of the table that both sides know
    + _literal(b":path", CHECK.encode())
    + _literal(b":authority", b"localhost")
    + _literal(b"te", b"trailers")
    + _literal(b"content-type", b"application/grpc")
)


class _Connection:
    """One connection with `window` calls on their way."""

    def __init__(self, host: str, port: int, window: int, at: int) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(
            _PREFACE
            + _frame(_SETTINGS, 0, 0, struct.pack(">HI", 4, _LARGE_WINDOW))
            + _frame(_WINDOW, 0, 0, struct.pack(">I", _LARGE_WINDOW))
        )
        self.window = window
        self.at = at
        self.stream = 1
        self.may_send = _FIRST_WINDOW
        self.received = 0
        self.unread = b""
        self.sent: deque[float] = deque()
        self.replies: dict[int, bytes] = {}


class Blaster:
    """Asks distinct single questions over few connections, as fast as they are answered."""

    def __init__(
        self, *, target: str, kind: Kind, consents: int, keys: str, hit_rate: float, count: int = 20_000
    ) -> None:
        self._questions = Questions.make(
            Cohort(consents), kind=kind, hit_rate=hit_rate, keys=keys, seed=13, count=count
        )
        self._sizes = [len(payload) + 5 for payload in self._questions.payloads]
        host, _, port = target.rpartition(":")
        self._host, self._port = host, int(port)
        self._parts = [self._part(payload) for payload in self._questions.payloads]

    @staticmethod
    def _part(payload: bytes) -> tuple[bytes, bytes]:
        """Give what stands behind the two places of a stream's number: headers and the head of the data, and that."""
        message = b"\0" + len(payload).to_bytes(4, "big") + payload
        return _HEADER + _frame(_DATA, _END_STREAM, 0, message)[:5], _frame(_DATA, 0, 0, message)[9:]

    def verify(self) -> dict[str, float]:
        """Ask every question once, many at a time, and compare each reason."""
        connection = _Connection(self._host, self._port, 100, 0)
        asked, streams = 0, dict[int, int]()
        while asked < len(self._parts) or streams:
            while asked < len(self._parts) and len(streams) < connection.window and connection.may_send > 1_000:
                streams[connection.stream] = asked
                connection.socket.sendall(self._request(connection, asked))
                asked += 1
            for stream in self._receive(connection, keep=True):
                reply = v1.CheckResponse.FromString(connection.replies.pop(stream)[5:])
                reason = self._questions.reasons[streams.pop(stream)]
                has_evidence = reply.HasField("evidence") == (reason != v1.REASON_NO_CONSENT)
                if reply.reason != reason or not reply.envelope.decision_id or not has_evidence:
                    raise WrongAnswersError("a single check was answered wrongly")
        connection.socket.close()
        return {"questions": asked}

    def closed(self, *, concurrency: int, connections: int, seconds: float, warm_s: float) -> dict[str, float]:
        """Keep so many questions on their way over so many connections."""
        share = len(self._parts) // connections
        each = [
            _Connection(self._host, self._port, concurrency // connections, share * number)
            for number in range(connections)
        ]
        ready = selectors.DefaultSelector()
        for connection in each:
            ready.register(connection.socket, selectors.EVENT_READ, connection)
        begin = time.perf_counter() + warm_s
        end, answered, taken = begin + seconds, 0, list[float]()
        for connection in each:
            self._send(connection, connection.window)
        while (now := time.perf_counter()) < end:
            for key, _ in ready.select(1.0):
                connection = key.data
                ended = len(self._receive(connection))
                now = time.perf_counter()
                waits = [now - connection.sent.popleft() for _ in range(ended)]
                if begin <= now < end:
                    answered += ended
                    taken += waits
                self._send(connection, ended)
        for connection in each:
            connection.socket.close()
        if not answered:
            raise WrongAnswersError("no question was answered")
        return {"rate": answered / seconds, **percentiles(np.array(taken))}

    def _send(self, connection: _Connection, count: int) -> None:
        requests = []
        for _ in range(count):
            requests.append(self._request(connection, connection.at % len(self._parts)))
            connection.at += 1
        now = time.perf_counter()
        connection.sent.extend([now] * count)
        if requests:
            connection.socket.sendall(b"".join(requests))

    def _request(self, connection: _Connection, at: int) -> bytes:
        head, message = self._parts[at]
        number = connection.stream.to_bytes(4, "big")
        connection.stream += 2
        connection.may_send -= self._sizes[at]
        return _HEAD + number + head + number + message

    def _receive(self, connection: _Connection, *, keep: bool = False) -> list[int]:
        """Read what is there; returns the streams that have ended."""
        data = connection.unread + connection.socket.recv(_READ_BYTES)
        if len(data) == len(connection.unread):
            raise WrongAnswersError("the server has closed the connection")
        at, ended = 0, []
        while at + 9 <= len(data):
            size = int.from_bytes(data[at : at + 3], "big")
            if at + 9 + size > len(data):
                break
            kind, flags = data[at + 3], data[at + 4]
            if kind == _HEADERS:
                if flags & _END_STREAM:
                    ended.append(int.from_bytes(data[at + 5 : at + 9], "big"))
            elif kind == _DATA:
                connection.received += size
                if keep:
                    stream = int.from_bytes(data[at + 5 : at + 9], "big")
                    connection.replies[stream] = connection.replies.get(stream, b"") + data[at + 9 : at + 9 + size]
            else:
                self._other(
                    connection, kind, flags, int.from_bytes(data[at + 5 : at + 9], "big"), data[at + 9 : at + 9 + size]
                )
            at += 9 + size
        connection.unread = data[at:]
        if connection.received > _LARGE_WINDOW // 2:
            connection.socket.sendall(_frame(_WINDOW, 0, 0, struct.pack(">I", connection.received)))
            connection.received = 0
        return ended

    @staticmethod
    def _other(connection: _Connection, kind: int, flags: int, stream: int, content: bytes) -> None:
        if kind == _SETTINGS and not flags & _ACK:
            connection.socket.sendall(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            connection.socket.sendall(_frame(_PING, _ACK, 0, content))
        elif kind == _WINDOW and not stream:
            connection.may_send += int.from_bytes(content, "big")
        elif kind in (_RESET, _GOAWAY):
            raise WrongAnswersError("the server has ended a call or the connection")


_HEAD: Final = _frame(_HEADERS, _END_HEADERS, 0, _HEADER)[:5]
