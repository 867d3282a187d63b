"""Everything that the two clients do alike: what goes out, what may come back, what an error becomes.

The clients themselves only move messages. A reply that breaks the contract is an error here, never a permission:
a position older than asked for, a permission that its reason does not give, a missing or surplus item.
"""

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from iyscheck import address as addresses
from iyscheck import wire
from iyscheck.change import Position
from iyscheck.client.columns import FRAME_HEAD_BYTES, TEXT_HEAD_BYTES, Flight, Piece, cut
from iyscheck.client.failures import refused_frame
from iyscheck.consent import Channel, Reason
from iyscheck.errors import QuestionError, ServiceError, ServiceFailedError
from iyscheck.keys import BLOCK_BYTES, AddressKey
from iyscheck.question import (
    MAX_CLIENT_REFERENCE_BYTES,
    Answer,
    ColumnAnswer,
    Context,
    Envelope,
    FrameResult,
    ItemError,
    Question,
    ServerInfo,
    checked,
    checked_key_id,
    checked_recipient,
)
from iyscheck.v1 import consent_check_pb2 as pb

TARGET: Final = "127.0.0.1:50051"
UNARY_TIMEOUT_S: Final = 0.25
BATCH_TIMEOUT_S: Final = 5.0

SETTLE_S: Final = 0.2
"""How long the first call to several servers waits for one that is fresh, and at most half of its own time."""
MOVE_S: Final = 5.0
"""After so long a stream to several servers ends, when all of it is answered, and another goes on: its server may be
fresh no more, and a fresh one may have come."""

_SERVICE: Final = "iyscheck.v1.ConsentCheckService"
FRESH: Final = f"{_SERVICE}/fresh"
"""The name of health by which a server says that its newest watermark is within the limit."""
_ADMIN_SERVICE: Final = "iyscheck.v1.AdminService"
_RECEIVE_BYTES: Final = 64 * 1024 * 1024
"""Far above any reply to a request of 8 MiB; gRPC's own 4 MiB would refuse a large batch with evidence."""
_KEEPALIVE_MS: Final = 60_000
_LONGEST_TEXT: Final = 512
"""An address may be longer only by white space or separators; then its canonical text goes out instead."""
_QUESTION_BYTES: Final = 640
"""More than any cleaned question takes on the wire."""
_REASONS: Final = [Reason(number) if number in frozenset(Reason) else Reason.UNSPECIFIED for number in range(256)]
"""What each byte means: a number that this version does not know is UNSPECIFIED, which denies."""
GATHERED: Final = 512
"""Most calls that travel in one frame. With a thousand callers two such frames keep client and server busy at once and
what one wakes stays in the processor's cache: 1.3 times the rate of one frame for all (bench/sections/reach.py)."""


def _service_config(first_backoff: str, last_backoff: str, **more: object) -> str:
    config: dict[str, object] = {
        # Checks read only, so a retry is harmless; other codes would fail again (AIP-194). CANCELLED, from a server,
        # is what gRPC makes of calls that reach one while it shuts down: nobody looked at them.
        "methodConfig": [
            {
                "name": [
                    *({"service": _SERVICE, "method": name} for name in ("Check", "BatchCheck", "GetServerInfo")),
                    {"service": _ADMIN_SERVICE},
                ],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": first_backoff,
                    "maxBackoff": last_backoff,
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                },
            }
        ],
        # As many as gRPC allows: a worker that dies takes all calls of its connection with it, and half of the tokens
        # is what may fail at once before nothing is tried again.
        "retryThrottling": {"maxTokens": 1000, "tokenRatio": 0.1},
        "loadBalancingConfig": [{"round_robin": {}}],
    }
    return json.dumps(config | more)


SERVICE_CONFIG: Final = _service_config("0.05s", "0.5s")
"""No client-side health check: a server whose data is stale still answers one-time passwords."""
_FRESH_SERVICE_CONFIG: Final = _service_config("0.01s", "0.1s", healthCheckConfig={"serviceName": FRESH})
"""With it, by freshness, for a path that another one stands behind: a call that finds nobody knows it early."""

CHANNEL_OPTIONS: Final = (
    ("grpc.service_config", SERVICE_CONFIG),
    ("grpc.enable_retries", 1),
    ("grpc.max_receive_message_length", _RECEIVE_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.initial_reconnect_backoff_ms", 100),  # gRPC's own second, doubling to two minutes, outlasts a restart
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_http_proxy", 0),  # consent questions go to the server that was named and nowhere else
)

_SEPARATE: Final = ("grpc.use_local_subchannel_pool", 1)
SEPARATE_CHANNEL_OPTIONS: Final = (*CHANNEL_OPTIONS, _SEPARATE)
"""For a connection of one's own: else all channels of a process to one target share one."""

_NEVER_IDLE: Final = ("grpc.client_idle_timeout_ms", 2**31 - 1)  # who asks nothing goes on to watch who is fresh
SEVERAL_CHANNEL_OPTIONS: Final = (*CHANNEL_OPTIONS, _NEVER_IDLE)
"""For the path to all of several servers. It shares its connections with the next one: all else is the same."""
FRESH_CHANNEL_OPTIONS: Final = (
    ("grpc.service_config", _FRESH_SERVICE_CONFIG),
    *(option for option in SEVERAL_CHANNEL_OPTIONS if option[0] != "grpc.service_config"),
)
"""For the path to those of several servers that say they are fresh."""
SEPARATE_FRESH_CHANNEL_OPTIONS: Final = (*FRESH_CHANNEL_OPTIONS, _SEPARATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnCall:
    """What all frames of one column share, or calls that gather: these have written already what their group says."""

    context: Context
    address_key_id: bytes | None
    min_position: Position | None
    group_head: bytes = b""
    travels: object = None
    """Calls of which this is equal may share a frame."""


Part: TypeAlias = tuple[ColumnCall, Sequence[str | bytes]]
"""Calls that gathered, of one kind: what they share, and their recipients."""


class GroupsUnknownError(Exception):
    """A mixed frame met a server that knows none. Its calls are asked again, in a frame for each kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One batch on its way: what the server was asked, and the places of what it need not be asked."""

    items: Sequence[Question | ItemError]
    request: pb.BatchCheckRequest

    @property
    def refused(self) -> list[ItemError]:
        """What the server is not asked, since it cannot be right."""
        return [item for item in self.items if isinstance(item, ItemError)]


class Conversation:
    """What a client knows between calls: its key, the server's limits, the last position seen. Thread-safe."""

    def __init__(self, *, address_key: AddressKey | None, monotonic: bool) -> None:
        self._key = address_key
        self._monotonic = monotonic
        self._seen: Position | None = None
        self._lock = threading.Lock()
        self.limits: ServerInfo | None = None

    # --- Single questions -------------------------------------------------------------------------------------

    def check_request(
        self, question: Question, *, min_position: Position | None, client_reference: str
    ) -> pb.CheckRequest:
        """Make the request of one question. Raises QuestionError."""
        checked_reference(client_reference)
        prepared = self.prepared(question)
        since = self._since(min_position, [prepared.context])
        return wire.check_request(prepared, min_position=since, client_reference=client_reference)

    def check_reply(self, request: pb.CheckRequest, response: pb.CheckResponse) -> Answer:
        """Read the answer to one question. Raises ServiceFailedError."""
        answer = wire.answer_of(response)
        self._observe(answer.envelope.position, request)
        return answer

    def prepared(self, question: Question) -> Question:
        """Check a question and turn its address into a token if there is a key. Raises QuestionError."""
        context = checked(question.context)
        if (question.address is None) == (question.token is None):
            raise QuestionError("address", "exactly one of address and token must be given.")
        if question.token is not None:
            key_id = checked_key_id(question.address_key_id or (self._key.key_id if self._key else None))
            if len(question.token) != len(addresses.UNREADABLE):
                raise QuestionError("token", f"must have {len(addresses.UNREADABLE)} bytes.")
            return replace(question, context=context, address_key_id=key_id)
        if self._key is None:
            return replace(question, context=context, address=cleaned(question.address or "", context.channel))
        token = addresses.token(question.address or "", context.channel, self._key)
        return Question(context=context, token=token, address_key_id=self._key.key_id)

    # --- Batches ----------------------------------------------------------------------------------------------

    def batches(
        self,
        questions: Iterable[Question],
        *,
        limits: ServerInfo,
        min_position: Position | None,
        client_reference: str,
    ) -> Iterator[Batch]:
        """Cut questions into batches within the server's limits; each is made when it is asked for."""
        checked_reference(client_reference)
        fitting = (limits.max_message_bytes - _QUESTION_BYTES) // _QUESTION_BYTES
        size = max(min(limits.max_batch_questions, fitting), 1)
        rest = iter(questions)
        while part := list(islice(rest, size)):
            items = [self._prepared_or_error(question) for question in part]
            sent = [item for item in items if isinstance(item, Question)]
            since = self._since(min_position, [question.context for question in sent])
            request = wire.batch_request(sent, min_position=since, client_reference=client_reference)
            yield Batch(items=items, request=request)

    def _prepared_or_error(self, question: Question) -> Question | ItemError:
        try:
            return self.prepared(question)
        except QuestionError as error:
            return ItemError.of(error)

    def batch_reply(self, batch: Batch, response: pb.BatchCheckResponse) -> list[Answer | ItemError]:
        """Read the answers to a batch, in the order asked. Raises ServiceFailedError."""
        answer = wire.batch_answer_of(response, len(batch.request.questions))
        self._observe(answer.envelope.position, batch.request)
        answers = iter(answer.items)
        return [item if isinstance(item, ItemError) else next(answers) for item in batch.items]

    # --- Columns ----------------------------------------------------------------------------------------------

    def flight(
        self,
        recipients: Iterable[str] | npt.NDArray[np.uint8],
        call: ColumnCall,
        *,
        limits: ServerInfo,
        frame_size: int,
        window: int,
    ) -> Flight[pb.StreamCheckRequest]:
        """Prepare a column for its stream. Raises QuestionError."""
        for field, number in (("frame_size", frame_size), ("window", window)):
            if number < 1:
                raise QuestionError(field, "must be at least 1.")
        context = checked(call.context)
        key_id = call.address_key_id
        if isinstance(recipients, np.ndarray):
            key_id = checked_key_id(key_id or (self._key.key_id if self._key else None))
        pieces = cut(
            recipients,
            size=min(frame_size, limits.max_frame_recipients),
            max_bytes=limits.max_message_bytes,
            clean=lambda text: cleaned(text, context.channel),
        )

        shared = ColumnCall(context=context, address_key_id=key_id, min_position=call.min_position)
        return Flight(pieces, lambda frame_id, piece: self.frame_request(frame_id, piece, shared), window=window)

    def frame_request(self, frame_id: int, piece: Piece, call: ColumnCall) -> pb.StreamCheckRequest:
        """Make the request of one frame: texts, cleaned before, become tokens if there is a key."""
        context, since = call.context, self._since(call.min_position, [call.context])
        if isinstance(piece, np.ndarray):
            tokens, key_id = piece, call.address_key_id
        elif self._key is not None:
            tokens, key_id = addresses.tokens(piece, context.channel, self._key), self._key.key_id
        else:
            return wire.frame(context, addresses=piece, frame_id=frame_id, min_position=since)
        return wire.frame(context, tokens=tokens, address_key_id=key_id, frame_id=frame_id, min_position=since)

    def frame_answer(
        self, request: pb.StreamCheckRequest, asked: int, response: pb.StreamCheckResponse
    ) -> ColumnAnswer:
        """Read the reply to a frame of `asked` recipients. Raises ServiceError, also where the server refuses it."""
        answer = wire.column_answer_of(response, asked)
        if isinstance(answer, ItemError):
            raise refused_frame(answer)
        self._observe(answer.envelope.position, request)
        return answer

    def frame_reply(self, flight: Flight[pb.StreamCheckRequest], response: pb.StreamCheckResponse) -> FrameResult:
        """Read the reply to the frame owed. Raises ServiceError, also where the server refuses the frame."""
        owed = flight.expect(response.frame_id)
        return flight.land(self.frame_answer(owed.request, owed.recipients, response))

    # --- Gathered calls ---------------------------------------------------------------------------------------

    def recipient(
        self, address: str | None, token: bytes | None, address_key_id: bytes | None
    ) -> tuple[str | bytes, bytes | None]:
        """Check who is asked about: the address and None, or the token and the id of its key. Raises QuestionError."""
        key_id = checked_recipient(address, token, address_key_id, self._key.key_id if self._key else None)
        return cast("str | bytes", address if token is None else token), key_id

    def gathered_request(self, frame_id: int, parts: Sequence[Part]) -> pb.StreamCheckRequest:
        """Make the frame of calls that gathered: a mixed one where they are of several kinds.

        Those kinds travel together: of tokens where they name a key, all the same one, else of addresses.
        """
        (call, recipients), *others = parts
        if others:
            return self._mixed_request(frame_id, parts)
        if call.address_key_id is not None:
            return self.frame_request(frame_id, _packed(recipients), call)
        texts = cast("Sequence[str]", recipients)
        if self._key is None:
            texts = [cleaned(text, call.context.channel) for text in texts]
        return self.frame_request(frame_id, texts, call)

    def _mixed_request(self, frame_id: int, parts: Sequence[Part]) -> pb.StreamCheckRequest:
        shared = parts[0][0]
        groups = [(call.group_head, len(recipients)) for call, recipients in parts]
        tokens, key_id, texts = None, shared.address_key_id, None
        if key_id is not None:
            tokens = _packed([recipient for _, recipients in parts for recipient in recipients])
        elif self._key is not None:
            every = [cast("str", recipient) for _, recipients in parts for recipient in recipients]
            emails = np.array([call.context.channel is Channel.EPOSTA for call, _ in parts], np.bool_)
            counts = [len(recipients) for _, recipients in parts]
            tokens = addresses.mixed_tokens(every, emails.repeat(counts), self._key)
            key_id = self._key.key_id
        else:
            texts = [
                cleaned(cast("str", recipient), call.context.channel)
                for call, recipients in parts
                for recipient in recipients
            ]
        return wire.mixed_frame(
            groups,
            addresses=texts,
            tokens=tokens,
            address_key_id=key_id,
            frame_id=frame_id,
            min_position=self._since(shared.min_position, [call.context for call, _ in parts]),
        )

    def gathered_answers(
        self, request: pb.StreamCheckRequest, parts: Sequence[Part], response: pb.StreamCheckResponse
    ) -> list[list[Answer] | ServiceError]:
        """Read the answers of a frame, for each part in the order asked: equal ones are one object.

        What a server refused of a mixed frame stands in its place. Raises what `frame_answer` does, and
        GroupsUnknownError where the server knows no mixed frames: then nothing was answered.
        """
        sizes = [len(recipients) for _, recipients in parts]
        if len(parts) == 1:
            column = self.frame_answer(request, sizes[0], response)
            return [_answers(column.reasons.tolist(), column.envelope, parts[0][0])]
        if not wire.knows_groups(response):
            raise GroupsUnknownError("The server knows no mixed frames.")
        mixed = wire.mixed_answer_of(response, len(parts), sum(sizes))
        if any(isinstance(slot, Envelope) for slot in mixed.groups):
            self._observe(mixed.envelope.position, request)
        numbers, first = mixed.reasons.tolist(), 0
        found: list[list[Answer] | ServiceError] = []
        for (call, _), size, slot in zip(parts, sizes, mixed.groups, strict=True):
            of_part = numbers[first : first + size]
            found.append(refused_frame(slot) if isinstance(slot, ItemError) else _answers(of_part, slot, call))
            first += size
        return found

    # --- The server itself ------------------------------------------------------------------------------------

    def info_reply(self, response: pb.GetServerInfoResponse) -> ServerInfo:
        """Read what the server says about itself and keep its limits. Raises ServiceFailedError."""
        info = wire.server_info_of(response)
        self.limits = info
        return info

    # --- Read your writes -------------------------------------------------------------------------------------

    def _since(self, asked: Position | None, contexts: Sequence[Context]) -> Position | None:
        """From which position on the next questions must be answered.

        From none where all are exempt: for them no server looks into its store, however old that is.
        """
        if all(context.message_class.exempt for context in contexts):
            return None
        if not self._monotonic or self._seen is None:
            return asked
        if asked is None or asked.log_id == self._seen.log_id:
            return self._seen if asked is None else max(asked, self._seen)
        return asked  # of another log than the server's: it will say so

    def _observe(
        self, answered: Position, request: pb.CheckRequest | pb.BatchCheckRequest | pb.StreamCheckRequest
    ) -> None:
        """Note from where an answer came. Raises ServiceFailedError if that is not what was asked for."""
        if request.HasField("min_position"):
            asked = request.min_position
            if answered.log_id != asked.log_id or answered.sequence < asked.sequence:
                raise ServiceFailedError(
                    "The server answered from before the position that was asked for.", code="POSITION_WENT_BACK"
                )
        with self._lock:
            seen = self._seen
            if seen is None or seen.log_id != answered.log_id or seen.sequence < answered.sequence:
                self._seen = answered


def _packed(recipients: Sequence[str | bytes]) -> npt.NDArray[np.uint8]:
    """Lay tokens out as a column."""
    return np.frombuffer(b"".join(cast("Sequence[bytes]", recipients)), np.uint8).reshape(-1, BLOCK_BYTES)


def _answers(numbers: list[int], envelope: Envelope, call: ColumnCall) -> list[Answer]:
    """Make the answers of a column of reason numbers; equal ones are one object."""
    message_class = call.context.message_class
    made: dict[int, Answer] = {}
    found: list[Answer] = []
    for number in numbers:
        answer = made.get(number)
        if answer is None:
            answer = Answer(reason=_REASONS[number], message_class=message_class, evidence=None, envelope=envelope)
            made[number] = answer
        found.append(answer)
    return found


def gathered_groups(limits: ServerInfo) -> int:
    """Count the kinds of calls that may share a frame; an older server takes one."""
    return max(limits.max_frame_groups, 1)


def gathered_size(limits: ServerInfo) -> int:
    """Count the recipients that surely fit into one frame, however long their addresses are."""
    fitting = (limits.max_message_bytes - FRAME_HEAD_BYTES) // (_LONGEST_TEXT + TEXT_HEAD_BYTES)
    return max(min(GATHERED, limits.max_frame_recipients, fitting), 1)


def checked_reference(client_reference: str) -> None:
    """Check a client reference. Raises QuestionError."""
    if len(client_reference.encode("utf-8", "replace")) > MAX_CLIENT_REFERENCE_BYTES:
        raise QuestionError("client_reference", f"must have at most {MAX_CLIENT_REFERENCE_BYTES} bytes.")


def cleaned(text: str, channel: Channel) -> str:
    """Make an address fit to travel: what no form accepts becomes empty, what is far too long canonical."""
    if text.isascii() and len(text) <= _LONGEST_TEXT:
        return text
    return addresses.canonical(text, channel) or ""
