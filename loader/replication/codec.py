"""The messages of the log: batches sealed for the replicas of one log, and signed by who may make them. See FORMAT.md.

Who carries them can neither read nor change them; who reads them cannot make any: that takes the signing key. Nothing
is decrypted, and no byte of it looked at, before a signature that counts was found.
"""

import hashlib
import secrets
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import msgspec
import numpy as np
import zstandard

from iyscheck.errors import MessageRejectedError, SettingsError
from iyscheck.keys import KEY_ID_BYTES, NONCE_BYTES, SEAL_BYTES, SIGNATURE_BYTES, Signers, SigningKey, StreamKey
from iyscheck.store import layout
from iyscheck.store.encoded import ROW_DTYPE, EncodedChanges
from iyscheck.store.log_batch import Kind, LogBatch, Value

MAGIC: Final = b"IYSB"
VERSION: Final = 1
SLICE_MAX_BYTES: Final = 480 * 1024
"""Of a batch in one message: a server of NATS takes messages of 1 MiB unless it is told otherwise."""
PAYLOAD_MAX_BYTES: Final = 2**30
"""Of a batch, decompressed: 13 million rows. What a replica has to hold in memory."""
LOG_ID_BYTES: Final = 16

_HEADER: Final = struct.Struct(f">4sBBH{KEY_ID_BYTES}s{LOG_ID_BYTES}sIQHHQQQ{layout.CHAIN_BYTES}s{NONCE_BYTES}s")
HEADER_BYTES: Final = _HEADER.size
_LEAST_BYTES: Final = HEADER_BYTES + SEAL_BYTES + SIGNATURE_BYTES
_PARTS_MAX: Final = 2**16 - 1
_HEAD_SIZE: Final = struct.Struct(">I")
_KEY_MAX_BYTES: Final = 511
_ROW_BYTES: Final = ROW_DTYPE.itemsize
_LEVEL: Final = 1
_KINDS: Final = frozenset(Kind)

VALUES: Final = frozenset(layout.REPLICATED) - {layout.RECORDS}
"""Databases whose values travel as they are. Of META the fields of feeds only. Records travel as rows."""

PART_MAGIC: Final = b"IYSS"
_PART_HEADER: Final = struct.Struct(f">4sBBBB{KEY_ID_BYTES}s{NONCE_BYTES}s")
PART_HEADER_BYTES: Final = _PART_HEADER.size


class Rejection(StrEnum):
    """Why a message is of no use."""

    MAGIC = "magic"
    VERSION = "version"
    TRUNCATED = "truncated"
    SIGNER = "signer"
    KEY = "key"
    LOG = "log"
    PARTS = "parts"
    CIPHERTEXT = "ciphertext"
    PAYLOAD = "payload"


_SENTENCES: Final[Mapping[Rejection, tuple[str, str]]] = {
    Rejection.MAGIC: ("It is no message of ours.", "Does anybody else write there?"),
    Rejection.VERSION: (
        "It was made by a newer iyscheck.",
        "Upgrade this replica: replicas come before their primary.",
    ),
    Rejection.TRUNCATED: ("It is cut off.", ""),
    Rejection.SIGNER: (
        "Nobody whose signature counts here has signed it, or it was changed.",
        "If the primary has a new signing key, name its public key in the cluster file.",
    ),
    Rejection.KEY: (
        "It is sealed with another stream key than the one that is held here.",
        "Copy the stream key from the primary.",
    ),
    Rejection.LOG: ("It is of another log.", "Is it the right stream? A log that was made anew needs a new replica."),
    Rejection.PARTS: ("The parts of a batch are not all there, or not in their order.", ""),
    Rejection.CIPHERTEXT: ("It cannot be decrypted, though its signature is good.", ""),
    Rejection.PAYLOAD: ("What is in it is no batch, though it was sealed and signed.", ""),
}


def rejected(why: Rejection) -> MessageRejectedError:
    """Make the error for a message of no use."""
    message, fix = _SENTENCES[why]
    return MessageRejectedError(message, fix=fix, why=why)


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageHeader:
    """What everybody sees of a message: one of `parts` parts of a batch, `part` from 1.

    `first` and `last` are the position's sequence before and after the batch, `created_ms` UTC milliseconds. `prev` is
    SHA-256 of the message before.
    """

    kind: int
    stream_key_id: bytes
    log_id: bytes
    term: int
    batch: int
    part: int
    parts: int
    first: int
    last: int
    created_ms: int
    prev: bytes
    nonce: bytes
    flags: int = 0

    def pack(self) -> bytes:
        """Write it: HEADER_BYTES. Raises ValueError where something does not fit."""
        for field, size in (
            (self.stream_key_id, KEY_ID_BYTES),
            (self.log_id, LOG_ID_BYTES),
            (self.prev, layout.CHAIN_BYTES),
            (self.nonce, NONCE_BYTES),
        ):
            if len(field) != size:
                raise ValueError(f"a field of a header has {size} bytes, not {len(field)}")
        try:
            return _HEADER.pack(
                *(MAGIC, VERSION, self.kind, self.flags, self.stream_key_id, self.log_id, self.term, self.batch),
                *(self.part, self.parts, self.first, self.last, self.created_ms, self.prev, self.nonce),
            )
        except struct.error as error:
            raise ValueError(f"a number of a header does not fit: {error}") from None

    def of_part(self, part: int, prev: bytes, nonce: bytes) -> "MessageHeader":
        """Make that of another part of the same batch."""
        return replace(self, part=part, prev=prev, nonce=nonce)


def header_of(message: bytes) -> MessageHeader:
    """Read the header of a message, which is only what it says of itself. Raises MessageRejectedError."""
    if not message or message[: len(MAGIC)] != MAGIC[: len(message)]:
        raise rejected(Rejection.MAGIC)
    if len(message) > len(MAGIC) and message[len(MAGIC)] != VERSION:
        raise rejected(Rejection.VERSION)
    if len(message) < _LEAST_BYTES:
        raise rejected(Rejection.TRUNCATED)
    _, _, kind, flags, *rest = _HEADER.unpack_from(message)
    stream_key_id, log_id, term, batch, part, parts, first, last, created_ms, prev, nonce = rest
    return MessageHeader(
        kind=kind,
        flags=flags,
        stream_key_id=stream_key_id,
        log_id=log_id,
        term=term,
        batch=batch,
        part=part,
        parts=parts,
        first=first,
        last=last,
        created_ms=created_ms,
        prev=prev,
        nonce=nonce,
    )


def hash_of(message: bytes) -> bytes:
    """Return what the message behind this one names it by: SHA-256, of the last part of a batch the chain after it."""
    return hashlib.sha256(message).digest()


class _Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What stands before the rows of a payload. `tails` are those that rows name, the first of them empty."""

    digest: bytes
    rows: int
    tails: list[bytes]
    values: list[Value]


class BatchSealer:
    """Turns batches into messages. For one thread at a time. `nonces` gives NONCE_BYTES that are never the same."""

    def __init__(
        self,
        stream_key: StreamKey,
        signing_key: SigningKey,
        *,
        nonces: Callable[[], bytes] = lambda: secrets.token_bytes(NONCE_BYTES),
    ) -> None:
        self._stream_key = stream_key
        self._signing_key = signing_key
        self._nonces = nonces
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self._encoder = msgspec.msgpack.Encoder()

    def seal(self, batch: LogBatch) -> list[bytes]:
        """Return the messages of a batch in their order; `prev` of the next batch is `hash_of` the last of them.

        Raises SettingsError for more than PAYLOAD_MAX_BYTES, ValueError for what is no batch.
        """
        return self.sealed_payload(batch, self._compressor.compress(self._payload(batch)))

    def sealed_payload(self, batch: LogBatch, compressed: bytes) -> list[bytes]:
        """Return the messages of a payload that is there already; of the batch only the header's facts are taken."""
        parts = -(-len(compressed) // SLICE_MAX_BYTES)
        if parts > _PARTS_MAX:
            raise _too_large()
        header = MessageHeader(
            kind=batch.kind,
            stream_key_id=self._stream_key.key_id,
            log_id=batch.log_id,
            term=batch.term,
            batch=batch.batch,
            part=1,
            parts=parts,
            first=batch.first,
            last=batch.last,
            created_ms=batch.created_ms,
            prev=batch.prev,
            nonce=self._nonces(),
        )
        messages: list[bytes] = []
        for part in range(1, parts + 1):
            if part > 1:
                header = header.of_part(part, hash_of(messages[-1]), self._nonces())
            clear = header.pack()
            sliced = compressed[(part - 1) * SLICE_MAX_BYTES : part * SLICE_MAX_BYTES]
            signed = clear + self._stream_key.seal(header.nonce, sliced, clear)
            messages.append(signed + self._signing_key.sign(signed))
        return messages

    def _payload(self, batch: LogBatch) -> bytes:
        if len(batch.digest) != layout.DIGEST_BYTES:
            raise ValueError(f"a digest has {layout.DIGEST_BYTES} bytes, not {len(batch.digest)}")
        changes = _with_used_tails(batch.rows)
        head = self._encoder.encode(
            _Head(digest=batch.digest, rows=len(changes), tails=list(changes.tails), values=list(batch.values))
        )
        if _HEAD_SIZE.size + len(head) + changes.rows.nbytes > PAYLOAD_MAX_BYTES:
            raise _too_large()
        rows = np.ascontiguousarray(changes.rows).view(np.uint8).reshape(-1, _ROW_BYTES)
        return b"".join((_HEAD_SIZE.pack(len(head)), head, rows.T.tobytes()))


class BatchOpener:
    """Reads messages whose signature counts. Safe to share between threads. With a `log_id`, only those of that log."""

    def __init__(self, stream_key: StreamKey, signers: Signers, *, log_id: bytes | None = None) -> None:
        self._stream_key = stream_key
        self._signers = signers
        self._log_id = log_id
        self._decoder = msgspec.msgpack.Decoder(_Head)

    def verified(self, message: bytes) -> MessageHeader:
        """Return the header of a message that somebody sent whose signature counts. Raises MessageRejectedError."""
        try:
            header = header_of(message)
        except MessageRejectedError as error:
            if error.why == Rejection.VERSION and not self._is_signed(message):
                raise rejected(Rejection.SIGNER) from None  # a stranger may say what he likes
            raise
        if not self._is_signed(message):
            raise rejected(Rejection.SIGNER)
        if header.flags or header.kind not in _KINDS:
            raise rejected(Rejection.VERSION)
        if header.stream_key_id != self._stream_key.key_id:
            raise rejected(Rejection.KEY)
        if self._log_id is not None and header.log_id != self._log_id:
            raise rejected(Rejection.LOG)
        return header

    def _is_signed(self, message: bytes) -> bool:
        """Say whether a signature that counts is where every version has it: over all that is before it."""
        seen = memoryview(message)
        return self._signers.signed(seen[-SIGNATURE_BYTES:], seen[:-SIGNATURE_BYTES])

    def opened(self, messages: Sequence[bytes]) -> LogBatch:
        """Read a batch: all its parts in their order. Raises MessageRejectedError.

        What it says is not compared with a store: neither batch nor term, neither prev nor digest.
        """
        headers = [self.verified(message) for message in messages]
        if not headers or headers[0].parts != len(headers):
            raise rejected(Rejection.PARTS)
        first, prev = headers[0], headers[0].prev
        for part, (header, message) in enumerate(zip(headers, messages, strict=True), 1):
            if header != first.of_part(part, prev, header.nonce):
                raise rejected(Rejection.PARTS)
            if part < len(messages):  # the hash of the last is of no use here
                prev = hash_of(message)
        head, rows = self._parsed(_decompressed(b"".join(self._slices(headers, messages))))
        return LogBatch(
            kind=Kind(first.kind),
            log_id=first.log_id,
            term=first.term,
            batch=first.batch,
            first=first.first,
            last=first.last,
            created_ms=first.created_ms,
            prev=first.prev,
            digest=head.digest,
            rows=rows,
            values=head.values,
        )

    def _slices(self, headers: Sequence[MessageHeader], messages: Sequence[bytes]) -> Iterator[bytes]:
        for header, message in zip(headers, messages, strict=True):
            sealed = memoryview(message)[HEADER_BYTES:-SIGNATURE_BYTES]
            plain = self._stream_key.open(header.nonce, sealed, message[:HEADER_BYTES])
            if plain is None:
                raise rejected(Rejection.CIPHERTEXT)
            yield plain

    def _parsed(self, payload: bytes) -> tuple[_Head, EncodedChanges]:
        size = int.from_bytes(payload[: _HEAD_SIZE.size])
        end = _HEAD_SIZE.size + size
        try:
            head = self._decoder.decode(payload[_HEAD_SIZE.size : end])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise rejected(Rejection.PAYLOAD) from None
        planes = np.frombuffer(payload, np.uint8)[end:]
        if (
            len(payload) < end
            or len(head.digest) != layout.DIGEST_BYTES
            or head.rows * _ROW_BYTES != planes.size
            or head.tails[:1] != [b""]
            or not all(_is_replicated(database, key) for database, key, _ in head.values)
        ):
            raise rejected(Rejection.PAYLOAD)
        rows = np.array(planes.reshape(_ROW_BYTES, head.rows).T, order="C").reshape(-1).view(ROW_DTYPE)
        if head.rows and int(rows["tail"].max()) >= len(head.tails):
            raise rejected(Rejection.PAYLOAD)
        return head, EncodedChanges(rows=rows, tails=head.tails)


def seal_bytes(key: StreamKey, kind: int, context: bytes, plain: bytes) -> bytes:
    """Seal a part of a copy of the store; `context` says which part of what it is, and opens nothing else.

    This keeps it from who has no stream key. It tells nothing of who made it: sign its SHA-256.
    """
    nonce = secrets.token_bytes(NONCE_BYTES)
    clear = _PART_HEADER.pack(PART_MAGIC, VERSION, kind, 0, 0, key.key_id, nonce)
    return clear + key.seal(nonce, plain, clear + context)


def open_bytes(key: StreamKey, kind: int, context: bytes, sealed: bytes) -> bytes:
    """Open what `seal_bytes` made with the same kind and context. Raises MessageRejectedError."""
    if sealed[: len(PART_MAGIC)] != PART_MAGIC:
        raise rejected(Rejection.MAGIC)
    if len(sealed) < PART_HEADER_BYTES + SEAL_BYTES:
        raise rejected(Rejection.TRUNCATED)
    _, version, _, _, _, key_id, nonce = _PART_HEADER.unpack_from(sealed)
    if version != VERSION:
        raise rejected(Rejection.VERSION)
    if key_id != key.key_id:
        raise rejected(Rejection.KEY)
    clear = _PART_HEADER.pack(PART_MAGIC, VERSION, kind, 0, 0, key_id, nonce)
    plain = key.open(nonce, memoryview(sealed)[PART_HEADER_BYTES:], clear + context)
    if plain is None or sealed[:PART_HEADER_BYTES] != clear:
        raise rejected(Rejection.CIPHERTEXT)
    return plain


def _with_used_tails(changes: EncodedChanges) -> EncodedChanges:
    """Leave out tails that no row names: winners share those of all that were loaded with them."""
    if len(changes.tails) <= 1:
        return changes
    used, place = np.unique(np.append(changes.rows["tail"], np.uint32(0)), return_inverse=True)
    rows = changes.rows.copy()
    rows["tail"] = place[:-1]
    return EncodedChanges(rows=rows, tails=[changes.tails[tail] for tail in used.tolist()])


def _decompressed(compressed: bytes) -> bytes:
    """Decompress a whole frame that says beforehand how large it will be."""
    try:
        size = zstandard.frame_content_size(compressed)
        if not 0 <= size <= PAYLOAD_MAX_BYTES:
            raise rejected(Rejection.PAYLOAD)
        return zstandard.ZstdDecompressor().decompress(compressed, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError:
        raise rejected(Rejection.PAYLOAD) from None


def _is_replicated(database: bytes, key: bytes) -> bool:
    return (
        database in VALUES
        and 0 < len(key) <= _KEY_MAX_BYTES
        and (database != layout.META or key.startswith(layout.META_FEED))
    )


def _too_large() -> SettingsError:
    return SettingsError(
        "--commit-rows",
        f"one commit is more than can be sent to replicas ({PAYLOAD_MAX_BYTES} bytes).",
        fix=f"Take less than {PAYLOAD_MAX_BYTES // (2 * _ROW_BYTES)}.",
    )
