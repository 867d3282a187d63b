"""Requests both ways: what a server reads of them, and what a client writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from iyscheck.address import TextColumn
from iyscheck.change import LOG_ID_BYTES, Position
from iyscheck.consent import MessageClass
from iyscheck.errors import (
    BatchTooLargeError,
    MalformedFrameError,
    QuestionError,
)
from iyscheck.kernel import Kernel
from iyscheck.keys import KEY_ID_BYTES, TOKEN_BYTES
from iyscheck.question import (
    MAX_BATCH_QUESTIONS,
    MAX_CLIENT_REFERENCE_BYTES,
    MAX_FRAME_RECIPIENTS,
    MAX_RETAILER_CODE,
    Context,
    ItemError,
    Question,
)
from iyscheck.v1 import consent_check_pb2 as v1
from iyscheck.wire import cut
from iyscheck.wire.cut import Cut
from iyscheck.wire.fields import (
    CHANNELS,
    CLASSES,
    TYPES,
    parse,
    position_message,
)

# --- As a server reads them ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One frame of a stream: exactly one of `addresses` and `tokens` (uint8, shape (N, 16)) is given.

    Both may lie in the bytes of the frame, tokens at any place of them: they need not be aligned.
    """

    frame_id: int
    context: Context
    addresses: Sequence[str] | TextColumn | None
    tokens: npt.NDArray[np.uint8] | None
    address_key_id: bytes | None
    min_position: Position | None

    def __len__(self) -> int:
        """Count the recipients."""
        return len(self.addresses or ()) if self.tokens is None else len(self.tokens)


def context_of(message: v1.Question | v1.StreamCheckRequest | v1.Group, path: str = "") -> Context:
    """Read what a question or frame says besides its recipients; `path` goes before the field names of errors.

    Raises QuestionError.
    """
    if not message.brand_code:
        raise QuestionError(f"{path}brand_code", "is required.", fix="Give the İYS brandCode (not iysCode).")
    channel = CHANNELS.get(message.channel)
    if channel is None:
        raise QuestionError(f"{path}channel", f"{int(message.channel)} is not ARAMA, MESAJ or EPOSTA.")
    recipient_type = TYPES.get(message.recipient_type)
    if recipient_type is None:
        raise QuestionError(f"{path}recipient_type", f"{int(message.recipient_type)} is neither BIREYSEL nor TACIR.")
    retailer = message.retailer_code if message.HasField("retailer_code") else None
    if retailer is not None and not 0 < retailer <= MAX_RETAILER_CODE:
        raise QuestionError(
            f"{path}retailer_code",
            f"must be from 1 to {MAX_RETAILER_CODE}.",
            fix="It is the İYS retailerCode. Leave the field out where the brand itself sends.",
        )
    return Context(
        brand=message.brand_code,
        channel=channel,
        recipient_type=recipient_type,
        message_class=CLASSES.get(message.message_class, MessageClass.COMMERCIAL),
        retailer=retailer,
    )


def question_of(message: v1.Question, path: str = "") -> Question:
    """Read a question; `path` goes before the field names of errors. Raises QuestionError."""
    context = context_of(message, path)
    if message.HasField("address"):
        return Question(context=context, address=message.address)
    if not message.HasField("token"):
        raise QuestionError(f"{path}recipient", "is required.", fix="Give an address or a token.")
    token, key_id = message.token, message.address_key_id
    if len(token) != TOKEN_BYTES:
        raise QuestionError(f"{path}token", f"has {len(token)} bytes instead of {TOKEN_BYTES}.")
    require_key_id(key_id, path)
    return Question(context=context, token=token, address_key_id=key_id)


def questions_of(messages: Sequence[v1.Question]) -> list[Question | ItemError]:
    """Read the questions of a batch; one that cannot be read becomes its ItemError.

    Raises BatchTooLargeError, and QuestionError where there is none.
    """
    if not messages:
        raise QuestionError("questions", "is empty.", fix="Ask at least one question.")
    if len(messages) > MAX_BATCH_QUESTIONS:
        raise BatchTooLargeError("questions", maximum=MAX_BATCH_QUESTIONS, actual=len(messages))
    return [_question_or_error(message) for message in messages]


def _question_or_error(message: v1.Question) -> Question | ItemError:
    try:
        return question_of(message)
    except QuestionError as error:
        return ItemError.of(error)


def parse_frame(data: bytes, kernel: Kernel = Kernel.NUMPY) -> tuple[v1.StreamCheckRequest, Cut]:
    """Read a frame from its bytes: the message, and what was cut out of it as columns.

    Raises MalformedFrameError where the bytes are no frame (bad UTF-8 among it).
    """
    parts = cut.cut(data, most=MAX_FRAME_RECIPIENTS, kernel=kernel)
    return parse(v1.StreamCheckRequest, parts.head, MalformedFrameError), parts


def frame_of(message: v1.StreamCheckRequest, cut: Cut | None = None) -> Frame:
    """Read a frame, with the columns that were cut out of it. Raises QuestionError or BatchTooLargeError."""
    context = context_of(message)
    min_position = min_position_of(message)
    addresses = cut.addresses if cut and cut.addresses is not None else message.addresses
    packed = cut.tokens if cut and cut.tokens is not None else np.frombuffer(message.tokens, np.uint8)
    if addresses and packed.size:
        raise QuestionError("tokens", "are given together with addresses.", fix="Send one of the two.")
    texts: Sequence[str] | TextColumn | None = None
    tokens, key_id = None, None
    if addresses:
        require_fits("addresses", len(addresses))
        texts = addresses if isinstance(addresses, TextColumn) else list(addresses)
    else:
        tokens, key_id = tokens_of(packed, "tokens"), message.address_key_id
        require_key_id(key_id, "")
    return Frame(
        frame_id=message.frame_id,
        context=context,
        addresses=texts,
        tokens=tokens,
        address_key_id=key_id,
        min_position=min_position,
    )


def tokens_of(packed: npt.NDArray[np.uint8], field: str) -> npt.NDArray[np.uint8]:
    """Lay the packed tokens of a frame out in rows. Raises QuestionError, BatchTooLargeError."""
    recipients, rest = divmod(packed.size, TOKEN_BYTES)
    if not packed.size:
        raise QuestionError(field, "the frame names no recipient.", fix="Give addresses or tokens.")
    if rest:
        raise QuestionError(field, f"have {packed.size} bytes, which is no multiple of {TOKEN_BYTES}.")
    require_fits(field, recipients)
    return packed.reshape(recipients, TOKEN_BYTES)


def min_position_of(message: v1.CheckRequest | v1.BatchCheckRequest | v1.StreamCheckRequest) -> Position | None:
    """Read from which position on the answer is wanted, if it is said. Raises QuestionError."""
    if not message.HasField("min_position"):
        return None
    position = message.min_position
    if len(position.log_id) != LOG_ID_BYTES:
        raise QuestionError(
            "min_position.log_id",
            f"has {len(position.log_id)} bytes instead of {LOG_ID_BYTES}.",
            fix="Send a position back as it was received.",
        )
    return Position(position.log_id, position.sequence)


def client_reference_of(message: v1.CheckRequest | v1.BatchCheckRequest) -> str:
    """Read the caller's own reference. Raises QuestionError where it is too long."""
    reference = message.client_reference
    size = len(reference.encode())
    if size > MAX_CLIENT_REFERENCE_BYTES:
        raise QuestionError(
            "client_reference", f"has {size} bytes; at most {MAX_CLIENT_REFERENCE_BYTES} are carried along."
        )
    return reference


def require_key_id(key_id: bytes, path: str) -> None:
    """Raise QuestionError where tokens come without the id of their key."""
    if len(key_id) != KEY_ID_BYTES:
        raise QuestionError(
            f"{path}address_key_id",
            f"has {len(key_id)} bytes; with tokens it must name their key in {KEY_ID_BYTES}.",
            fix="GetServerInfo names the key.",
        )


def require_fits(field: str, recipients: int) -> None:
    """Raise BatchTooLargeError where a frame has more recipients than one may have."""
    if recipients > MAX_FRAME_RECIPIENTS:
        raise BatchTooLargeError(field, maximum=MAX_FRAME_RECIPIENTS, actual=recipients)


# --- As a client writes them --------------------------------------------------------------------------------


def check_request(
    question: Question, *, min_position: Position | None = None, client_reference: str = ""
) -> v1.CheckRequest:
    """Write one question."""
    return v1.CheckRequest(
        question=_question_message(question),
        min_position=position_message(min_position),
        client_reference=client_reference,
    )


def batch_request(
    questions: Sequence[Question], *, min_position: Position | None = None, client_reference: str = ""
) -> v1.BatchCheckRequest:
    """Write a batch of questions."""
    return v1.BatchCheckRequest(
        questions=[_question_message(question) for question in questions],
        min_position=position_message(min_position),
        client_reference=client_reference,
    )


def frame(
    context: Context,
    *,
    addresses: Sequence[str] | None = None,
    tokens: npt.NDArray[np.uint8] | None = None,
    address_key_id: bytes | None = None,
    frame_id: int = 0,
    min_position: Position | None = None,
) -> v1.StreamCheckRequest:
    """Write a frame of either addresses or tokens (uint8, shape (N, 16))."""
    try:
        return v1.StreamCheckRequest(
            frame_id=frame_id,
            brand_code=context.brand,
            channel=cast("v1.Channel", context.channel),
            recipient_type=cast("v1.RecipientType", context.recipient_type),
            message_class=cast("v1.MessageClass", context.message_class),
            retailer_code=context.retailer,
            addresses=addresses,
            tokens=None if tokens is None else tokens.tobytes(),
            address_key_id=address_key_id,
            min_position=position_message(min_position),
        )
    except UnicodeEncodeError:
        return frame(
            context,
            addresses=[encodable(address) for address in addresses or ()],
            frame_id=frame_id,
            min_position=min_position,
        )


def _question_message(question: Question) -> v1.Question:
    context = question.context
    return v1.Question(
        brand_code=context.brand,
        channel=cast("v1.Channel", context.channel),
        recipient_type=cast("v1.RecipientType", context.recipient_type),
        message_class=cast("v1.MessageClass", context.message_class),
        retailer_code=context.retailer,
        address=None if question.address is None else encodable(question.address),
        token=question.token,
        address_key_id=question.address_key_id,
    )


def encodable(address: str) -> str:
    """Keep a text with lone surrogates sendable and unreadable: it must harm its own recipient only."""
    return address if address.isascii() else address.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
