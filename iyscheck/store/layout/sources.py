"""What the loader knows of its sources: how far each came, what is proved, accepted as missing, or held back."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import xxhash

from iyscheck.store.layout.checks import (
    CODE_BYTES,
    NUMBER_BYTES,
    checked,
    corrupt,
    decode_code,
    decode_number,
    encode_code,
    encode_number,
    unchecked,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Everything of a brand from one moment to before another is in, seconds UTC; what was before may not be."""

    brand: int
    start: int
    end: int


def encode_span_key(brand: int, start: int) -> bytes:
    """Write the key of a proved span: those of a brand lie in the order of time."""
    return encode_code(brand) + encode_number(start)


def encode_span(span: Span) -> bytes:
    """Write until when a proved span goes; checked."""
    return checked(encode_span_key(span.brand, span.start), encode_number(span.end))


def decode_span(key: bytes, value: bytes) -> Span:
    """Read a proved span."""
    end = decode_number(unchecked(key, value, "proved span"))
    return Span(brand=decode_code(key[:CODE_BYTES]), start=decode_number(key[CODE_BYTES:]), end=end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Somebody accepted at `accepted` that rows of a brand between two moments are missing; all seconds UTC."""

    brand: int
    start: int
    end: int
    accepted: int
    reason: str


def encode_gap_key(brand: int, end: int) -> bytes:
    """Write the key of an accepted gap."""
    return encode_code(brand) + encode_number(end)


def encode_gap(gap: Gap) -> bytes:
    """Write an accepted gap; checked."""
    body = encode_number(gap.start) + encode_number(gap.accepted) + gap.reason.encode()
    return checked(encode_gap_key(gap.brand, gap.end), body)


def decode_gap(key: bytes, value: bytes) -> Gap:
    """Read an accepted gap."""
    body, size = unchecked(key, value, "accepted gap"), NUMBER_BYTES
    try:
        reason = body[2 * size :].decode()
    except UnicodeDecodeError:
        corrupt("accepted gap")
    return Gap(
        brand=decode_code(key[:CODE_BYTES]),
        start=decode_number(body[:size]),
        end=decode_number(key[CODE_BYTES:]),
        accepted=decode_number(body[size : 2 * size]),
        reason=reason,
    )


class RejectedRow(msgspec.Struct, frozen=True, array_like=True):
    """Where a rejected row stands in its source, from 1, and what is wrong with it: never what it says.

    `field` is a name that feeds have, empty for the whole line; `reason` is for programs.
    """

    line: int
    field: str
    reason: str


class SourceState(msgspec.Struct, frozen=True, kw_only=True):
    """How far one feed source has been loaded: written with the data, in the same transaction.

    `sha256` (hex) and `bytes` cover the decompressed bytes consumed; `rejects_bytes` is the length of the rejects
    file that belongs to them. `watermarks` are asked for but not moved yet: (brand, or 0 for all, seconds UTC).
    `earliest` and `latest` are the local seconds between which its rows were registered, 0 where none was readable;
    `ends_whole` says whether what was consumed ends in a line end. What begins with `file_` tells whether a file is
    still the same. `first_rejects` are those of the rejected rows that wait to be accepted, a few of them.

    The rest is of sources that have a cursor instead of an end, such as a brand's changes at İYS. `cursor` is opaque.
    Everything of the source that was registered from `covered_from` to before `covered_until` is in; `polled_at` is
    when it was last asked to its end; all seconds UTC. `doubt` names what forbids a claim since `doubted_at`, empty if
    nothing does. `lateness` is by how many seconds its latest row came too late for the promise of the source.
    """

    name: str
    rows: int = 0
    lines: int = 0
    bytes: int = 0
    sha256: str = ""
    rejects_bytes: int = 0
    rejected: int = 0
    skipped: int = 0
    brands: tuple[int, ...] = ()
    rejected_brands: tuple[int, ...] = ()
    rejected_unknown: bool = False
    watermarks: tuple[tuple[int, int], ...] = ()
    finished: bool = False
    accepted: bool = False
    file_size: int = 0
    file_mtime_ns: int = 0
    file_ctime_ns: int = 0
    file_device: int = 0
    file_inode: int = 0
    earliest: int = 0
    latest: int = 0
    ends_whole: bool = True
    first_rejects: tuple[RejectedRow, ...] = ()
    cursor: str = ""
    covered_from: int = 0
    covered_until: int = 0
    polled_at: int = 0
    doubt: str = ""
    doubted_at: int = 0
    lateness: int = 0

    @property
    def held_brands(self) -> tuple[int, ...]:
        """Brands of which a row was rejected: all of the source's where a rejected row's brand was unreadable."""
        if not self.rejected_unknown:
            return self.rejected_brands
        asked = (brand for brand, _ in self.watermarks if brand)
        return tuple(sorted({*self.brands, *self.rejected_brands, *asked}))


def source_key(name: str) -> bytes:
    """Write the key of a source: names are paths and may be longer than an LMDB key may be."""
    return xxhash.xxh3_128_digest(name.encode("utf-8", "surrogateescape"))


def encode_source(source: SourceState) -> bytes:
    """Write a source's state as checked JSON; the name as its bytes, since not every path is UTF-8."""
    name = source.name.encode("utf-8", "surrogateescape").decode("latin-1")
    return checked(source_key(source.name), msgspec.json.encode(msgspec.structs.replace(source, name=name)))


def decode_source(key: bytes, value: bytes) -> SourceState:
    """Read a source's state."""
    body = unchecked(key, value, "source state")
    try:
        source = msgspec.json.decode(body, type=SourceState)
        name = source.name.encode("latin-1").decode("utf-8", "surrogateescape")
    except (msgspec.MsgspecError, UnicodeEncodeError):
        corrupt("source state")
    return msgspec.structs.replace(source, name=name)


def is_finished(value: bytes) -> bool:
    """Say whether a stored source is finished, in a hundredth of the time that reading all of it takes.

    No name looks like the field: JSON writes a quotation mark within a text with a backslash.
    """
    return b',"finished":true,' in value


def encode_hold(source_name: str, brands: Sequence[int]) -> bytes:
    """Write which brands a source holds back: how many, their codes, the source's name; checked."""
    codes = np.array(sorted(brands), ">u4").tobytes()
    name = source_name.encode("utf-8", "surrogateescape")
    return checked(source_key(source_name), encode_number(len(brands)) + codes + name)


def decode_hold(key: bytes, value: bytes) -> tuple[str, tuple[int, ...]]:
    """Read a hold: the source's name and the brands."""
    body = unchecked(key, value, "hold")
    brands = decode_number(body[:NUMBER_BYTES])
    end = NUMBER_BYTES + CODE_BYTES * brands
    if end > len(body):
        corrupt("hold")
    codes = np.frombuffer(body[NUMBER_BYTES:end], ">u4").tolist()
    return body[end:].decode("utf-8", "surrogateescape"), tuple(codes)
