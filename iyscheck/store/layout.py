"""The whole key space and every value on disk; FORMAT.md says the same with a worked example.

Numbers are big-endian where byte order must be key order; every encode stands beside its decode. A value that
does not decode is damage and raises `StoreCorruptError`: it is never read as a consent.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from iyscheck.change import (
    CITIZENS_SOURCES,
    HEX_TRANSACTION,
    KNOWN_SOURCES,
    TAG_BYTES,
    TEXT_TRANSACTION,
    Brand,
    ConsentChange,
    ConsentColumns,
    local_text,
)
from iyscheck.consent import (
    LEGACY_CONSENTS_BEFORE,
    Channel,
    LegacyDeadline,
    RecipientType,
    Status,
    is_citizens_own,
    state,
)
from iyscheck.errors import RESTORE, StoreCorruptError
from iyscheck.kernel import Kernel
from iyscheck.question import Evidence

FORMAT_VERSION: Final = 3
"""Readers and writers refuse a store of a greater one. Format 1 had no decision index; a writer adds it."""

# Named databases of the environment: name → key → value.
META: Final = b"meta"  # field name → bytes: format, log_id, sequence, address_key_id, store_key_id, index
RECORDS: Final = b"records"  # consent key → record: the truth
BRANDS: Final = b"brands"  # brand code → Brand
WATERMARKS: Final = b"watermarks"  # brand code → seconds UTC: everything up to here is in
WITHHELD: Final = b"withheld"  # brand code → seconds UTC: a watermark that waits for accept-rejects
HOLDS: Final = b"holds"  # xxh3-128 of the source name → brand codes whose rejected rows nobody has accepted yet
ACCESS: Final = b"retailer_access"  # consent key → registration time, list id
LISTS: Final = b"retailer_lists"  # list id → number of users, retailer codes
COUNTS: Final = b"counts"  # brand, channel, recipient type, status → number of records
SOURCES: Final = b"sources"  # xxh3-128 of the source name → SourceState
INDEX: Final = b"index"  # generation, shard → page of the decision index (pages.py)
INDEX_CHANGES: Final = b"index_changes"  # index revision → the pages it changed
SPANS: Final = b"proved_spans"  # brand code, seconds UTC: from when → until when all is in, though not what was before
GAPS: Final = (
    b"accepted_gaps"  # brand code, seconds UTC: until when → from when it is accepted that rows are missing, why
)
SINCE_FORMAT_3: Final = (SPANS, GAPS)
"""Readers take a store without them for one in which they are empty; the next writer makes them."""
DATABASES: Final = (
    *(META, RECORDS, BRANDS, WATERMARKS, WITHHELD, HOLDS, ACCESS, LISTS, COUNTS, SOURCES),
    *(INDEX, INDEX_CHANGES),
    *SINCE_FORMAT_3,
)

# meta
META_FORMAT: Final = b"format"
META_LOG_ID: Final = b"log_id"
META_SEQUENCE: Final = b"sequence"
META_ADDRESS_KEY_ID: Final = b"address_key_id"
META_STORE_KEY_ID: Final = b"store_key_id"
META_INDEX: Final = b"index"  # IndexState
META_INDEX_STATES: Final = b"index_states"  # STATE_VERSION of the state bytes in the index; absent: 1

_KEY: Final = struct.Struct(">IBB16s")
KEY_BYTES: Final = _KEY.size
_PREFIX: Final = struct.Struct(">IBB")
# check, status, source number, registered, consented, sequence, transaction form, transaction id
_RECORD: Final = struct.Struct(">IBBIIQB32s")
RECORD_BYTES: Final = _RECORD.size
"""Length of a record without its rare tail."""
CHECKED_FROM: Final = 4
"""Where the body of a record begins: all behind its check."""
CHECKED_AT_ONCE_MAX_BYTES: Final = 128
"""Key and body that the compiled loop can check; `digests` knows the shorter half of the hash only."""
_TRANSACTION_AT: Final = RECORD_BYTES - 32
_NUMBER: Final = struct.Struct(">Q")
_CODE: Final = struct.Struct(">I")
_COUNT_KEY: Final = struct.Struct(">IBBB")
_BRAND: Final = struct.Struct(">QBBBI")
_ACCESS: Final = struct.Struct(">I16s")
_SHARD: Final = struct.Struct(">II")
_INDEX_STATE: Final = struct.Struct(">QIIQIIIQ")

RECORD_DTYPE: Final = np.dtype(
    [
        ("check", ">u4"),
        ("status", "u1"),
        ("source", "u1"),
        ("registered", ">u4"),
        ("consented", ">u4"),
        ("sequence", ">u8"),
        ("transaction_form", "u1"),
        ("transaction", "u1", (32,)),
    ]
)
"""The fixed part of a record as a numpy row; the same bytes as `_RECORD`."""
KEY_DTYPE: Final = np.dtype([("brand", ">u4"), ("channel", "u1"), ("recipient_type", "u1"), ("tag", "u1", (16,))])

_SOURCES: Final = dict(enumerate(("", *KNOWN_SOURCES)))
"""0 stands for any other source: its name is in the tail."""
_STATUSES: Final = {int(status): status for status in (Status.ONAY, Status.RET, Status.UNKNOWN)}


def _corrupt(what: str) -> NoReturn:
    raise StoreCorruptError(
        f"The store holds a damaged {what}.",
        fix=f"Run 'iyscheck-loader verify'. {RESTORE}",
    )


def record_check(key: bytes, body: bytes) -> int:
    """Return the 32 bits that bind a record's body to its key, so that no torn or moved value is believed."""
    return xxhash.xxh3_64_intdigest(key + body) & 0xFFFFFFFF


def encode_key(brand: int, channel: int, recipient_type: int, tag: bytes) -> bytes:
    """Write the key of a consent: 22 bytes, one brand's consents lie together."""
    return _KEY.pack(brand, channel, recipient_type, tag)


def key_prefix(brand: int, channel: int, recipient_type: int) -> bytes:
    """Write what the keys of these consents begin with; the tag follows."""
    return _PREFIX.pack(brand, channel, recipient_type)


def decode_key(key: bytes) -> tuple[int, Channel, RecipientType, bytes]:
    """Read the key of a consent."""
    if len(key) != KEY_BYTES:
        _corrupt("consent key")
    brand, channel, recipient_type, tag = _KEY.unpack(key)
    try:
        return brand, Channel(channel), RecipientType(recipient_type), tag
    except ValueError:
        _corrupt("consent key")


def encode_keys(columns: ConsentColumns) -> npt.NDArray[np.void]:
    """Write the keys of N changes as a packed array of KEY_DTYPE."""
    keys = np.empty(len(columns), KEY_DTYPE)
    write_keys(keys, columns)
    return keys


def write_keys(keys: npt.NDArray[np.void], columns: ConsentColumns) -> None:
    """Write the keys of N changes into rows of KEY_DTYPE."""
    keys["brand"] = columns.brand
    keys["channel"] = columns.channel
    keys["recipient_type"] = columns.recipient_type
    _copy_bytes(keys["tag"], columns.tag)


def _copy_bytes(into: npt.NDArray[np.uint8], rows: npt.NDArray[np.uint8]) -> None:
    """Copy rows of bytes, each as one item: many times as fast as byte by byte along the short axis."""
    item = f"V{rows.shape[1]}"
    into.view(item)[:] = np.ascontiguousarray(rows).view(item)


def column_of_keys(columns: ConsentColumns) -> list[bytes]:
    """Write the keys of N changes."""
    packed = encode_keys(columns).tobytes()
    return [packed[at : at + KEY_BYTES] for at in range(0, len(packed), KEY_BYTES)]


def column_keys(brand: int, channel: int, recipient_type: int, tags: npt.NDArray[np.uint8]) -> list[bytes]:
    """Write the keys of one frame's recipients; tags uint8 (N, 16)."""
    prefix = key_prefix(brand, channel, recipient_type)
    packed = tags.tobytes()
    return [prefix + packed[at : at + TAG_BYTES] for at in range(0, len(packed), TAG_BYTES)]


def rows_bytes(rows: npt.NDArray[np.void]) -> list[bytes]:
    """Return each row of a packed array as bytes, in one call; rows of shape (N,)."""
    listed: list[bytes] = np.ascontiguousarray(rows).view(f"V{rows.itemsize}").tolist()
    return listed


def write_records(records: npt.NDArray[np.void], columns: ConsentColumns) -> None:
    """Write the records of N changes into rows of RECORD_DTYPE, all but their checks and tails."""
    records["status"] = columns.status
    records["source"] = columns.source
    records["registered"] = columns.registered
    records["consented"] = columns.consented
    records["sequence"] = columns.sequence
    records["transaction_form"] = columns.transaction_form
    _copy_bytes(records["transaction"], columns.transaction)


def record_checks(
    rows: npt.NDArray[np.uint8], tail: bytes = b"", kernel: Kernel = Kernel.NUMPY
) -> npt.NDArray[np.uint32]:
    """Return the checks of N records that have the same tail or none, uint32 (N,).

    A row is a key and a record without its tail, whose own check is of no matter, and perhaps more: uint8 (N, at
    least 77).
    """
    body, end = KEY_BYTES + CHECKED_FROM, KEY_BYTES + RECORD_BYTES
    if tail:
        tails = np.broadcast_to(np.frombuffer(tail, np.uint8), (len(rows), len(tail)))
        rows, end = np.concatenate((rows[:, :end], tails), axis=1), end + len(tail)
    if kernel is Kernel.NUMBA and end - CHECKED_FROM <= CHECKED_AT_ONCE_MAX_BYTES:
        from iyscheck.store.digests import digests

        found = np.empty(len(rows), np.uint64)
        digests(rows, KEY_BYTES, body, end, found)
        return found.astype(np.uint32)  # the lower half, as record_check takes
    bound = np.concatenate((rows[:, :KEY_BYTES], rows[:, body:end]), axis=1)
    texts = bound.view(f"V{bound.shape[1]}")[:, 0].tolist()
    return np.fromiter(map(xxhash.xxh3_64_intdigest, texts), np.uint64, len(texts)).astype(np.uint32)


def encode_tail(columns: ConsentColumns, row: int) -> bytes:
    """Write what follows the fixed part of one record."""
    source, transaction_id = columns.texts[columns.text[row]]
    tail = _text(transaction_id) if columns.transaction_form[row] == TEXT_TRANSACTION else b""
    return tail + (b"" if columns.source[row] else _text(source))


def columns_of(keys: npt.NDArray[np.void], records: npt.NDArray[np.void], tails: Sequence[bytes]) -> ConsentColumns:
    """Read N changes that were written just now: rows of KEY_DTYPE and RECORD_DTYPE and the tails of the records."""
    texts: dict[tuple[str, str], int] = {("", ""): 0}
    text = np.zeros(len(keys), np.int32)
    for row, tail in enumerate(tails):
        if tail:
            found = _texts_of(tail)
            pair = (
                "" if records["source"][row] else found[-1],
                found[0] if records["transaction_form"][row] == TEXT_TRANSACTION else "",
            )
            text[row] = texts.setdefault(pair, len(texts))
    return ConsentColumns(
        brand=keys["brand"].astype(np.uint32),
        channel=keys["channel"],
        recipient_type=keys["recipient_type"],
        tag=keys["tag"],
        status=records["status"],
        registered=records["registered"].astype(np.int64),
        consented=records["consented"].astype(np.int64),
        source=records["source"],
        transaction_form=records["transaction_form"],
        transaction=records["transaction"],
        text=text,
        sequence=records["sequence"].astype(np.int64),
        texts=tuple(texts),
    )


def _text(text: str) -> bytes:
    encoded = text.encode()
    return bytes((len(encoded),)) + encoded


def intact(key: bytes, value: bytes) -> bool:
    """Say whether a record is exactly what was written for this key."""
    return (
        len(value) >= RECORD_BYTES
        and _CODE.unpack_from(value)[0] == record_check(key, value[CHECKED_FROM:])
        and value[CHECKED_FROM] in _STATUSES
    )


def decode_record(key: bytes, value: bytes) -> ConsentChange:
    """Read one record with its key."""
    status, registered, consented, source, transaction_id, sequence = _facts(key, value)
    brand, channel, recipient_type, tag = decode_key(key)
    return ConsentChange(
        brand=brand,
        channel=channel,
        recipient_type=recipient_type,
        tag=tag,
        status=status,
        registered=registered,
        consented=consented,
        source=source,
        transaction_id=transaction_id,
        sequence=sequence,
    )


def decode_evidence(key: bytes, value: bytes) -> tuple[int, Evidence]:
    """Read what a check needs of the record at a key that it made itself: state byte and evidence."""
    status, registered, consented, source, transaction_id, _ = _facts(key, value)
    return state(status, consented, registered, source), Evidence(
        status=status,
        source=source,
        consent_time=local_text(consented),
        registration_time=local_text(registered),
        transaction_id=transaction_id,
    )


def _facts(key: bytes, value: bytes) -> tuple[Status, int, int, str, str, int]:
    """Read a record's status, registration and consent time, source, transaction id and position."""
    if len(value) < RECORD_BYTES:
        _corrupt("consent record")
    check, number, source_number, registered, consented, sequence, form, transaction = _RECORD.unpack_from(value)
    status, source = _STATUSES.get(number), _SOURCES.get(source_number)
    if check != record_check(key, value[CHECKED_FROM:]) or status is None or source is None:
        _corrupt("consent record")
    transaction_id = transaction.hex() if form == HEX_TRANSACTION else ""
    if len(value) > RECORD_BYTES or form > HEX_TRANSACTION or not source_number:
        texts = _texts_of(value[RECORD_BYTES:])
        if form > TEXT_TRANSACTION or len(texts) != (form == TEXT_TRANSACTION) + (not source_number):
            _corrupt("consent record")
        transaction_id = texts[0] if form == TEXT_TRANSACTION else transaction_id
        source = source or texts[-1]
    return status, registered, consented, source, transaction_id, sequence


def _texts_of(tail: bytes) -> Sequence[str]:
    """Read the texts behind a record's fixed part, each after its length in one byte: transaction id, source."""
    texts, at = [], 0
    while at < len(tail):
        end = at + 1 + tail[at]
        if end > len(tail):
            _corrupt("consent record")
        try:
            texts.append(tail[at + 1 : end].decode())
        except UnicodeDecodeError:
            _corrupt("consent record")
        at = end
    return texts


def by_citizen(rows: npt.NDArray[np.void], tail_of: Callable[[int], bytes]) -> npt.NDArray[np.bool_]:
    """Say which of N records, rows of RECORD_DTYPE, are the citizen's own act at İYS: bool (N,).

    `tail_of` gives the tail of a row; it is asked only where that decides something.
    """
    found: npt.NDArray[np.bool_] = CITIZENS_SOURCES[rows["source"]]
    told = (rows["source"] == 0) & (rows["consented"] < LEGACY_CONSENTS_BEFORE)  # of later ones nothing depends on it
    for at in np.flatnonzero(told).tolist():
        tail = tail_of(at)
        found[at] = bool(tail) and is_citizens_own(_texts_of(tail)[-1])
    return found


def decode_columns(keys: Sequence[bytes], values: Sequence[bytes]) -> npt.NDArray[np.void]:
    """Read the fixed parts of N records as an array of RECORD_DTYPE; one damaged record fails the column."""
    fixed = list(values)
    tailed = [at for at, value in enumerate(values) if len(value) != RECORD_BYTES]
    for at in tailed:
        if not intact(keys[at], values[at]):
            _corrupt("consent record")
        fixed[at] = values[at][:RECORD_BYTES]
    rows = np.frombuffer(b"".join(fixed), RECORD_DTYPE)
    packed = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)
    fits = rows["check"] == record_checks(
        np.concatenate((packed, rows.view(np.uint8).reshape(-1, RECORD_BYTES)), axis=1)
    )
    fits &= (rows["status"] > Status.NONE) & (rows["status"] <= Status.UNKNOWN)
    fits[tailed] = True
    if not fits.all():
        _corrupt("consent record")
    return rows


def encode_number(number: int) -> bytes:
    """Write an unsigned number of 8 bytes."""
    return _NUMBER.pack(number)


def decode_number(value: bytes) -> int:
    """Read an unsigned number of 8 bytes."""
    if len(value) != _NUMBER.size:
        _corrupt("number")
    return int(_NUMBER.unpack(value)[0])


def encode_code(brand: int) -> bytes:
    """Write a brand code as key."""
    return _CODE.pack(brand)


def decode_code(key: bytes) -> int:
    """Read a brand code from a key."""
    if len(key) != _CODE.size:
        _corrupt("brand code")
    return int(_CODE.unpack(key)[0])


def encode_count_key(brand: int, channel: int, recipient_type: int, status: int) -> bytes:
    """Write the key of a count."""
    return _COUNT_KEY.pack(brand, channel, recipient_type, status)


def decode_count_key(key: bytes) -> tuple[int, int, int, int]:
    """Read the key of a count: brand, channel, recipient type, status."""
    if len(key) != _COUNT_KEY.size:
        _corrupt("count")
    brand, channel, recipient_type, status = _COUNT_KEY.unpack(key)
    return brand, channel, recipient_type, status


def encode_brand(brand: Brand) -> bytes:
    """Write a brand: İYS code, active, channels as bits, own legacy deadline, registration time; checked."""
    bits = sum(1 << channel for channel in brand.channels)
    return _checked(
        encode_code(brand.brand),
        _BRAND.pack(brand.iys_code, brand.active, bits, brand.legacy_deadline, brand.registered),
    )


def decode_brand(key: bytes, value: bytes) -> Brand:
    """Read a brand."""
    body = _unchecked(key, value, "brand")
    if len(body) != _BRAND.size:
        _corrupt("brand")
    iys_code, active, bits, legacy_deadline, registered = _BRAND.unpack(body)
    if legacy_deadline > max(LegacyDeadline):
        _corrupt("brand")
    return Brand(
        brand=decode_code(key),
        iys_code=iys_code,
        active=active == 1,
        channels=frozenset(channel for channel in Channel if bits >> channel & 1),
        legacy_deadline=legacy_deadline,
        registered=registered,
    )


def encode_watermark(brand: int, seconds: int) -> bytes:
    """Write a watermark in seconds since 1970 UTC; checked."""
    return _checked(encode_code(brand), encode_number(seconds))


def decode_watermark(key: bytes, value: bytes) -> int:
    """Read a watermark."""
    return decode_number(_unchecked(key, value, "watermark"))


def encode_access(key: bytes, registered: int, list_id: bytes) -> bytes:
    """Write which list of retailers may use the consent at `key`; checked."""
    return _checked(key, _ACCESS.pack(registered, list_id))


def decode_access(key: bytes, value: bytes) -> tuple[int, bytes]:
    """Read registration time and list id."""
    body = _unchecked(key, value, "retailer access")
    if len(body) != _ACCESS.size:
        _corrupt("retailer access")
    registered, list_id = _ACCESS.unpack(body)
    return registered, list_id


@dataclass(frozen=True, slots=True, kw_only=True)
class RetailerList:
    """A list of retailer codes and how many consents use it."""

    users: int
    retailers: frozenset[int]


def list_id(retailers: frozenset[int]) -> bytes:
    """Name a list by its content, so that the same list has the same name whatever came first."""
    return xxhash.xxh3_128_digest(_retailers(retailers))


def encode_list(entry: RetailerList) -> bytes:
    """Write a retailer list; checked."""
    return _checked(list_id(entry.retailers), encode_number(entry.users) + _retailers(entry.retailers))


def decode_list(key: bytes, value: bytes) -> RetailerList:
    """Read a retailer list."""
    body = _unchecked(key, value, "retailer list")
    if len(body) % _NUMBER.size or not body:
        _corrupt("retailer list")
    users, *retailers = np.frombuffer(body, ">u8").tolist()
    return RetailerList(users=users, retailers=frozenset(retailers))


def _retailers(retailers: frozenset[int]) -> bytes:
    return np.array(sorted(retailers), ">u8").tobytes()


def _checked(key: bytes, body: bytes) -> bytes:
    return _CODE.pack(record_check(key, body)) + body


def _unchecked(key: bytes, value: bytes, what: str) -> bytes:
    body = value[CHECKED_FROM:]
    if len(value) < CHECKED_FROM or _CODE.unpack_from(value)[0] != record_check(key, body):
        _corrupt(what)
    return body


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
    return _checked(encode_span_key(span.brand, span.start), encode_number(span.end))


def decode_span(key: bytes, value: bytes) -> Span:
    """Read a proved span."""
    end = decode_number(_unchecked(key, value, "proved span"))
    return Span(brand=decode_code(key[: _CODE.size]), start=decode_number(key[_CODE.size :]), end=end)


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
    return _checked(encode_gap_key(gap.brand, gap.end), body)


def decode_gap(key: bytes, value: bytes) -> Gap:
    """Read an accepted gap."""
    body, size = _unchecked(key, value, "accepted gap"), _NUMBER.size
    try:
        reason = body[2 * size :].decode()
    except UnicodeDecodeError:
        _corrupt("accepted gap")
    return Gap(
        brand=decode_code(key[: _CODE.size]),
        start=decode_number(body[:size]),
        end=decode_number(key[_CODE.size :]),
        accepted=decode_number(body[size : 2 * size]),
        reason=reason,
    )


class SourceState(msgspec.Struct, frozen=True, kw_only=True):
    """How far one feed source has been loaded: written with the data, in the same transaction.

    `sha256` (hex) and `bytes` cover the decompressed bytes consumed; `rejects_bytes` is the length of the rejects
    file that belongs to them. `watermarks` are asked for but not moved yet: (brand, or 0 for all, seconds UTC).
    `earliest` and `latest` are the local seconds between which its rows were registered, 0 where none was readable;
    `ends_whole` says whether what was consumed ends in a line end. What begins with `file_` tells whether a file is
    still the same.
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
    return _checked(source_key(source.name), msgspec.json.encode(msgspec.structs.replace(source, name=name)))


def decode_source(key: bytes, value: bytes) -> SourceState:
    """Read a source's state."""
    body = _unchecked(key, value, "source state")
    try:
        source = msgspec.json.decode(body, type=SourceState)
        name = source.name.encode("latin-1").decode("utf-8", "surrogateescape")
    except (msgspec.MsgspecError, UnicodeEncodeError):
        _corrupt("source state")
    return msgspec.structs.replace(source, name=name)


def encode_hold(source_name: str, brands: Sequence[int]) -> bytes:
    """Write which brands a source holds back: how many, their codes, the source's name; checked."""
    codes = np.array(sorted(brands), ">u4").tobytes()
    name = source_name.encode("utf-8", "surrogateescape")
    return _checked(source_key(source_name), encode_number(len(brands)) + codes + name)


def decode_hold(key: bytes, value: bytes) -> tuple[str, tuple[int, ...]]:
    """Read a hold: the source's name and the brands."""
    body = _unchecked(key, value, "hold")
    brands = decode_number(body[: _NUMBER.size])
    end = _NUMBER.size + _CODE.size * brands
    if end > len(body):
        _corrupt("hold")
    codes = np.frombuffer(body[_NUMBER.size : end], ">u4").tolist()
    return body[end:].decode("utf-8", "surrogateescape"), tuple(codes)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexState:
    """What the decision index consists of.

    `revision` counts commits that changed it. Of the generation in use: its number, shards and words in use. Of the
    one that is being built, if `building` is not 0: the same, and `frontier`, the first shard that is not built yet.
    """

    revision: int = 0
    generation: int = 0
    shards: int = 0
    entries: int = 0
    building: int = 0
    building_shards: int = 0
    frontier: int = 0
    building_entries: int = 0

    @property
    def bytes(self) -> int:
        """What the pages take on disk, those being built included; the tree above them takes less than a hundredth."""
        return (self.shards + self.frontier) * 4096


def encode_index_state(state: IndexState) -> bytes:
    """Write the state of the decision index; checked."""
    numbers = (getattr(state, name) for name in IndexState.__slots__)
    return _checked(META_INDEX, _INDEX_STATE.pack(*numbers))


def decode_index_state(value: bytes) -> IndexState:
    """Read the state of the decision index."""
    body = _unchecked(META_INDEX, value, "index state")
    if len(body) != _INDEX_STATE.size:
        _corrupt("index state")
    return IndexState(**dict(zip(IndexState.__slots__, _INDEX_STATE.unpack(body), strict=True)))


def encode_shard(generation: int, shard: int) -> bytes:
    """Write the key of a page of the decision index."""
    return _SHARD.pack(generation, shard)


def encode_shards(generation: int, shards: Sequence[int]) -> list[bytes]:
    """Write the keys of many pages of one generation."""
    return [_SHARD.pack(generation, shard) for shard in shards]


def decode_shard(key: bytes) -> tuple[int, int]:
    """Read the key of a page: generation and shard."""
    if len(key) != _SHARD.size:
        _corrupt("index key")
    generation, shard = _SHARD.unpack(key)
    return generation, shard


def encode_index_changes(revision: int, changed: Mapping[int, npt.NDArray[np.int64]]) -> bytes:
    """Write which shards of which generations a revision changed: generation, how many, which (4 each); checked."""
    parts = [
        _SHARD.pack(generation, len(shards)) + shards.astype(">u4").tobytes() for generation, shards in changed.items()
    ]
    return _checked(encode_number(revision), b"".join(parts))


def decode_index_changes(key: bytes, value: bytes) -> dict[int, npt.NDArray[np.int64]]:
    """Read which shards a revision changed, by generation."""
    body, at = _unchecked(key, value, "index change"), 0
    changed: dict[int, npt.NDArray[np.int64]] = {}
    while at < len(body):
        generation, count = _SHARD.unpack_from(body, at)
        at += _SHARD.size
        changed[generation] = np.frombuffer(body, ">u4", count, at).astype(np.int64)
        at += count * _CODE.size
    return changed
