"""Servers that answer by a rule which tells all questions apart, and hold, break or refuse where a test says so."""

import queue
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc

from iyscheck.v1 import consent_check_pb2 as pb
from tests.client.fake_server import abort, envelope

REASONS: list[int] = [1, 2, 3, *range(64, 74)]
WAIT_S = 10
"""How long a server waits for what a test promised; longer than any test needs."""
FRAME_S = 0.05
"""How long a frame may take where servers hang: there time itself is tested, and no test says how long it took."""
Frames: TypeAlias = Iterator[pb.StreamCheckRequest]
Replies: TypeAlias = Iterator[pb.StreamCheckResponse]


def reason_of(shared: Iterable[int], since: int | None, key_id: bytes, recipient: bytes) -> int:
    """Another rule for the server: each question of a frame, asked of another frame, would be answered otherwise."""
    text = f"{[*map(int, shared)]} {since} {key_id.hex()} {recipient.hex()}"
    reason: int = REASONS[zlib.crc32(text.encode()) % len(REASONS)]
    return reason


def recipients(request: pb.StreamCheckRequest) -> list[bytes]:
    """Whom a frame asks about."""
    if texts := [*request.addresses, *request.group_addresses]:
        return [address.encode() for address in texts]
    tokens = request.tokens or request.group_tokens
    return [tokens[first : first + 16] for first in range(0, len(tokens), 16)]


def told_apart(request: pb.StreamCheckRequest) -> pb.StreamCheckResponse:
    """Answer by that rule, mixed frames too."""
    since = request.min_position.sequence if request.HasField("min_position") else None
    asked = iter(recipients(request))
    reasons = []
    parts: list[tuple[pb.Group | pb.StreamCheckRequest, int]] = [(each, each.recipients) for each in request.groups]
    for part, size in parts or [(request, len(recipients(request)))]:
        shared = part.brand_code, part.channel, part.recipient_type, part.message_class, part.retailer_code
        reasons += [reason_of(shared, since, request.address_key_id, next(asked)) for _ in range(size)]
    reply = pb.StreamCheckResponse(
        frame_id=request.frame_id, reasons=bytes(reasons), envelope=envelope(request.frame_id)
    )
    for number in range(len(request.groups)):
        reply.groups.add().result.valid_until.seconds = number
    return reply


def refusal(request: pb.StreamCheckRequest, reason: str = "POSITION_OF_OTHER_LOG") -> pb.StreamCheckResponse:
    """Refuse a frame, or all groups of a mixed one, and nothing but it."""
    error = pb.ItemError(reason=reason, message="not this one")
    if not request.groups:
        return pb.StreamCheckResponse(frame_id=request.frame_id, error=error)
    reply = told_apart(request)
    reply.reasons = bytes(len(reply.reasons))
    for group in reply.groups:
        group.error.CopyFrom(error)
    return reply


def of_old(request: pb.StreamCheckRequest) -> pb.StreamCheckResponse:
    """Answer as a server that knows no groups: it sees a frame without a brand."""
    if not request.groups:
        return told_apart(request)
    error = pb.ItemError(reason="INVALID_QUESTION", field="brand_code", message="is required")
    return pb.StreamCheckResponse(frame_id=request.frame_id, error=error)


@dataclass
class Holding:
    """Takes all frames; answers those that it `holds` only when it is `over`. `arrived` says that one of them came."""

    holds: Callable[[pb.StreamCheckRequest, grpc.ServicerContext], bool] = lambda *_: True
    reply: Callable[[pb.StreamCheckRequest], pb.StreamCheckResponse] = told_apart
    arrived: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    def __call__(self, requests: Frames, context: grpc.ServicerContext) -> Replies:
        """Serve a stream."""
        for request in requests:
            if self.holds(request, context):
                self.arrived.set()
                self.over.wait(WAIT_S)
            yield self.reply(request)


@dataclass
class Meeting:
    """Answers no frame before frames have come over so many connections; `peers` are those that came."""

    size: int
    peers: set[str] = field(default_factory=set)
    _all_there: threading.Event = field(default_factory=threading.Event)

    def __call__(self, requests: Frames, context: grpc.ServicerContext) -> Replies:
        """Serve a stream."""
        for request in requests:
            self.wait(context)
            yield told_apart(request)

    def wait(self, context: grpc.ServicerContext) -> None:
        """Wait for the others."""
        self.peers.add(context.peer())
        if len(self.peers) >= self.size:
            self._all_there.set()
        self._all_there.wait(WAIT_S)


@dataclass
class Moody:
    """Does with each frame, whichever stream it comes by, what the next mood says; answers when there are no more."""

    moods: list[str]
    refused: set[bytes] = field(default_factory=set)
    broken: set[bytes] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    events: "queue.SimpleQueue[str]" = field(default_factory=queue.SimpleQueue)

    def __call__(self, requests: Frames, context: grpc.ServicerContext) -> Replies:
        """Serve a stream."""
        gone = threading.Event()
        context.add_callback(gone.set)
        for request in requests:
            with self.lock:
                mood = self.moods.pop(0) if self.moods else "answers"
            reply = self._reply(mood, request)
            self._pause(mood, gone)
            if mood == "dies":
                return
            if mood == "breaks":
                context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
            if mood == "ends":
                return
            if mood == "answers and breaks":
                yield reply
                context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
            if mood == "is full":
                abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
            yield reply

    def _reply(self, mood: str, request: pb.StreamCheckRequest) -> pb.StreamCheckResponse:
        reply = told_apart(request)
        if mood == "refuses":
            self.refused.update(recipients(request))
            return refusal(request)
        if mood == "is old":
            return of_old(request)
        if mood == "refuses a group" and request.groups:
            self.refused.update(recipients(request)[: request.groups[0].recipients])
            reply.groups[0].error.CopyFrom(pb.ItemError(reason="POSITION_OF_OTHER_LOG", message="not this one"))
        if mood == "forgets one":
            self.broken.update(recipients(request))
            reply.reasons = reply.reasons[1:]
        return reply

    def _pause(self, mood: str, gone: threading.Event) -> None:
        if mood == "is slow":  # nothing depends on how slow: it only lets more meet while this frame is on its way
            time.sleep(FRAME_S / 5)
        if mood == "hangs":  # longer than a frame may take, unless the client has left: it need not, if nobody waits
            gone.wait(3 * FRAME_S)
        if mood == "dies":
            self.events.put("died")
            gone.wait(WAIT_S)


MOODS = [
    "answers",
    "is slow",
    "breaks",
    "ends",
    "answers and breaks",
    "is full",
    "refuses",
    "forgets one",
    "hangs",
    "is old",
    "refuses a group",
]
