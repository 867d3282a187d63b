"""What a store knows of the log that it writes or follows, and the messages that wait to be published.

A store that is in no log has none of this: no state, no messages, no sums.
"""

import struct
from dataclasses import dataclass
from typing import Final

import msgspec

from iyscheck.store.layout.checks import checked, corrupt, encode_code, unchecked

META_LOG: Final = b"log"
"""The field of `meta` that holds a LogState."""
PRIMARY: Final = "primary"
REPLICA: Final = "replica"
CHAIN_BYTES: Final = 32
DIGEST_BYTES: Final = 16
DIGEST_MODULUS: Final = 1 << 8 * DIGEST_BYTES
NO_CHAIN: Final = bytes(CHAIN_BYTES)
"""What names the message before the first."""
CHUNK_BYTES: Final = 4076
"""With its check a chunk fills a page of the file: so no commit has to look for pages that lie together."""
_OUTBOX_KEY: Final = struct.Struct(">QHH")
_WAITING: Final = struct.Struct(">QQH")


class LogState(msgspec.Struct, frozen=True, kw_only=True):
    """How a store stands in its log: `role` is PRIMARY or REPLICA.

    `term`, `batch`, `chain` and `created_ms` are those of the newest batch that is in: `chain` (32 bytes) names its
    last message, `created_ms` is when the primary made it, UTC. `digest` (16 bytes) is of all that is replicated.

    A primary has in its outbox the batches from `oldest` on, none if that is behind `batch`; `settings` is the path of
    its cluster file. A replica applied the message of number `stream_sequence` of the stream `stream_created` last.
    `untrusted` says why nothing in it may be believed, empty if it may.
    """

    role: str
    term: int = 0
    batch: int = 0
    chain: bytes = NO_CHAIN
    digest: bytes = bytes(DIGEST_BYTES)
    created_ms: int = 0
    oldest: int = 1
    stream_created: str = ""
    stream_sequence: int = 0
    untrusted: str = ""
    settings: str = ""


def encode_log_state(state: LogState) -> bytes:
    """Write the state as checked JSON."""
    return checked(META_LOG, msgspec.json.encode(state))


def decode_log_state(value: bytes) -> LogState:
    """Read the state."""
    body = unchecked(META_LOG, value, "state of the log")
    try:
        state = msgspec.json.decode(body, type=LogState)
    except msgspec.MsgspecError:
        corrupt("state of the log")
    if state.role not in {PRIMARY, REPLICA} or len(state.chain) != CHAIN_BYTES or len(state.digest) != DIGEST_BYTES:
        corrupt("state of the log")
    return state


def encode_sum(brand: int, total: int) -> bytes:
    """Write the part of the digest that is of a brand, or of none (0); checked."""
    return checked(encode_code(brand), total.to_bytes(DIGEST_BYTES))


def decode_sum(key: bytes, value: bytes) -> int:
    """Read a brand's part of the digest."""
    body = unchecked(key, value, "sum of a brand")
    if len(body) != DIGEST_BYTES:
        corrupt("sum of a brand")
    return int.from_bytes(body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What is said of a batch in the outbox: when it was made (ms UTC), bytes of its messages, how many there are."""

    created_ms: int
    bytes: int
    messages: int


def waiting_key(batch: int) -> bytes:
    """Write the key of what is said of a batch; those of its messages follow."""
    return _OUTBOX_KEY.pack(batch, 0, 0)


def chunk_key(batch: int, message: int, chunk: int) -> bytes:
    """Write the key of a piece of a message; messages count from 1, chunks from 0."""
    return _OUTBOX_KEY.pack(batch, message, chunk)


def decode_outbox_key(key: bytes) -> tuple[int, int, int]:
    """Read batch, message and chunk."""
    if len(key) != _OUTBOX_KEY.size:
        corrupt("key of the outbox")
    batch, message, chunk = _OUTBOX_KEY.unpack(key)
    return batch, message, chunk


def encode_waiting(batch: int, waiting: Waiting) -> bytes:
    """Write what is said of a batch; checked."""
    return checked(waiting_key(batch), _WAITING.pack(waiting.created_ms, waiting.bytes, waiting.messages))


def decode_waiting(key: bytes, value: bytes) -> Waiting:
    """Read what is said of a batch."""
    body = unchecked(key, value, "batch of the outbox")
    if len(body) != _WAITING.size:
        corrupt("batch of the outbox")
    created_ms, size, messages = _WAITING.unpack(body)
    return Waiting(created_ms=created_ms, bytes=size, messages=messages)


def encode_chunk(key: bytes, chunk: bytes) -> bytes:
    """Write a piece of a message; checked."""
    return checked(key, chunk)


def decode_chunk(key: bytes, value: bytes) -> bytes:
    """Read a piece of a message."""
    return unchecked(key, value, "message of the outbox")
