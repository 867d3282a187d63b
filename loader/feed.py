"""Rows of a feed → changes, by columns. Plaintext addresses end here.

The rules of a row stand in `_judge`, in the order in which they are tried: the first that a row breaks is the one it
is rejected for. Rows of the few other kinds are read one by one. Sources: İYS API 3.2.0, "TANIMLAR" and the notes on
line closures (they come without a consentDate where the record never had one).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from iyscheck import address
from iyscheck.change import (
    SOURCE_MAX_CHARS,
    TAG_BYTES,
    TRANSACTION_ID_MAX_CHARS,
    Brand,
    ConsentColumns,
    RetailerAccess,
    evidence_columns,
)
from iyscheck.consent import CLOCK_TOLERANCE_S, Channel, LegacyDeadline, RecipientType, Status
from iyscheck.kernel import Kernel
from iyscheck.keys import AddressKey, StoreKey
from loader import times
from loader.plain import PlainConsents
from loader.rows import BadLine, Decoded, Fault, FeedRow, RejectReason, with_rows

TEST_BRAND: Final = 121212
"""İYS sends one dummy row of it when a push address is registered; it must not enter the mirror."""
BRAND_MAX: Final = 2**32 - 1
CODE_MAX: Final = 2**63 - 1
RETAILERS_MAX: Final = 3000
AHEAD_MAX_S: Final = 600
"""How far a creationDate may lie in the future: a typo of 2099 would freeze a consent for ever."""
SOURCE_MAX_BYTES: Final = 255
"""As UTF-8; the store keeps the length in one byte."""


class Kind(IntEnum):
    """The kinds of rows."""

    CONSENT = 0
    RETAILER_ACCESS = 1
    BRAND = 2
    WATERMARK = 3
    UNKNOWN = 4


_KINDS: Final = {
    None: Kind.CONSENT,
    "consent": Kind.CONSENT,
    "retailerAccess": Kind.RETAILER_ACCESS,
    "brand": Kind.BRAND,
    "watermark": Kind.WATERMARK,
}
_CHANNEL: Final = {channel.value: channel for channel in Channel}  # ten times as fast as Channel(…)
_RECIPIENT_TYPE: Final = {kind.value: kind for kind in RecipientType}
_CHANNELS: Final[dict[str | None, int]] = {channel.name: channel.value for channel in Channel}
_TYPES: Final[dict[str | None, int]] = {None: RecipientType.BIREYSEL} | {
    kind.name: kind.value for kind in RecipientType
}
_STATUSES: Final[dict[str | None, int]] = {
    None: Status.NONE,
    "": Status.NONE,
    "ONAY": Status.ONAY,
    "RET": Status.RET,
    "RED": Status.RET,  # how partners spell it
}
_DEADLINES: Final[dict[int | str | None, int]] = {
    None: 0,
    **{deadline.name: deadline.value for deadline in LegacyDeadline},
    "announced": LegacyDeadline.ANNOUNCED,
    "over-150k": LegacyDeadline.OVER_150K,
    "up-to-150k": LegacyDeadline.UP_TO_150K,
    1: LegacyDeadline.ANNOUNCED,
    2: LegacyDeadline.OVER_150K,
    3: LegacyDeadline.UP_TO_150K,
}


def _missing(name: str) -> Fault:
    return Fault(name, RejectReason.MISSING, f"{name} is missing.")


def _invalid(name: str, what: str) -> Fault:
    return Fault(name, RejectReason.INVALID, f"{name} is not {what}.")


UNKNOWN_KIND: Final = Fault(
    "kind", RejectReason.UNKNOWN_KIND, "kind is none of consent, retailerAccess, brand, watermark."
)
BRAND_MISSING: Final = Fault(
    "brandCode", RejectReason.MISSING, "Neither the row nor --brand says which brand this is about."
)
BRAND_INVALID: Final = _invalid("brandCode", f"a whole number from 1 to {BRAND_MAX}")
BRAND_CONFLICT: Final = Fault("brandCode", RejectReason.CONFLICT, "brandCode is not the brand given with --brand.")
TYPE_INVALID: Final = _invalid("recipientType", "BIREYSEL or TACIR")
CHANNEL_MISSING: Final = _missing("type")
CHANNEL_INVALID: Final = _invalid("type", "ARAMA, MESAJ or EPOSTA")
RECIPIENT_MISSING: Final = _missing("recipient")
RECIPIENT_INVALID: Final = Fault(
    "recipient", RejectReason.INVALID_ADDRESS, "recipient is not an address of the form that its type asks for."
)
STATUS_MISSING: Final = _missing("status")
CREATION_MISSING: Final = _missing("creationDate")
CREATION_INVALID: Final = _invalid("creationDate", "a time of the form YYYY-MM-DD HH:MM:SS")
CREATION_AHEAD: Final = Fault(
    "creationDate", RejectReason.AHEAD_OF_CLOCK, f"creationDate is more than {AHEAD_MAX_S // 60} minutes in the future."
)
CONSENT_MISSING: Final = Fault(
    "consentDate", RejectReason.MISSING, "consentDate is missing, and an ONAY of a BIREYSEL needs it."
)
CONSENT_INVALID: Final = _invalid("consentDate", "a time of the form YYYY-MM-DD HH:MM:SS")
SOURCE_INVALID: Final = _invalid("source", f"a printable text of at most {SOURCE_MAX_CHARS} characters")
TRANSACTION_INVALID: Final = _invalid(
    "transactionId", f"a printable ASCII text of at most {TRANSACTION_ID_MAX_CHARS} characters"
)
RETAILERS_MISSING: Final = _missing("retailerAccess")
RETAILERS_INVALID: Final = _invalid("retailerAccess", f"a list of at most {RETAILERS_MAX} retailer codes")
IYS_CODE_INVALID: Final = _invalid("iysCode", "a positive whole number")
ACTIVE_MISSING: Final = _missing("active")
CHANNELS_INVALID: Final = _invalid("channels", "a list of ARAMA, MESAJ and EPOSTA")
DEADLINE_INVALID: Final = _invalid("legacyDeadline", "announced, over-150k or up-to-150k")
UNTIL_MISSING: Final = _missing("completeUntil")
UNTIL_INVALID: Final = _invalid("completeUntil", "a time of the form YYYY-MM-DD HH:MM:SS")
UNTIL_AHEAD: Final = Fault(
    "completeUntil",
    RejectReason.AHEAD_OF_CLOCK,
    f"completeUntil is more than {CLOCK_TOLERANCE_S // 60} minutes in the future.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """A row that is not loaded; `line` counts from 0 in its chunk, `brands` are those that may have lost it."""

    line: int
    fault: Fault
    brands: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """What a chunk of `rows` rows says. Watermarks are (brand, or 0 for all, seconds UTC)."""

    consents: ConsentColumns
    access: list[RetailerAccess]
    brands: list[Brand]
    watermarks: list[tuple[int, int]]
    rejects: list[Reject]
    rows: int
    skipped: int
    brands_seen: frozenset[int]


_NO_BRAND: Final = 0
_BAD_BRAND: Final = -1
_OTHER_BRAND: Final = -2


class _Codes(dict[int | str | None, int]):
    """Brand codes as rows spell them → what they mean, computed once each for a chunk."""

    def __init__(self, given: int | None) -> None:
        super().__init__()
        self._given = given

    def __missing__(self, spelled: int | str | None) -> int:
        code = whole_number(spelled, BRAND_MAX)
        if spelled is None:
            code = self._given or _NO_BRAND
        elif code is None:
            code = _BAD_BRAND
        elif self._given not in (None, code) and code != TEST_BRAND:
            code = _OTHER_BRAND
        self[spelled] = code
        return code


class _Lists(dict[tuple[int | str, ...], frozenset[int] | None]):
    """Lists of retailers as rows spell them → their codes, None where one is wrong; few lists serve many consents."""

    def __missing__(self, spelled: tuple[int | str, ...]) -> frozenset[int] | None:
        codes = [whole_number(code, CODE_MAX) for code in spelled[: RETAILERS_MAX + 1]]
        wrong = len(codes) > RETAILERS_MAX or None in codes
        self[spelled] = None if wrong else frozenset(code for code in codes if code is not None)
        return self[spelled]

    def of(self, row: FeedRow) -> frozenset[int] | None:
        """Read the list of a row that has one."""
        return self[tuple(row.retailer_access or ())]


def whole_number(spelled: object, largest: int) -> int | None:
    """Read a number from 1 to `largest`, given as such or as ASCII digits; None if it is not one."""
    if isinstance(spelled, str):
        if not (spelled.isascii() and spelled.isdigit()) or len(spelled) > len(str(largest)):
            return None
        spelled = int(spelled)
    return spelled if isinstance(spelled, int) and 1 <= spelled <= largest else None


@dataclass(slots=True)
class _Columns:
    """The columns of a chunk while it is judged; `fault` is 0 or 1 + the place in `faults`."""

    rows: Sequence[FeedRow]
    kind: npt.NDArray[np.uint8]
    brand: npt.NDArray[np.int64]
    channel: npt.NDArray[np.uint8]
    recipient_type: npt.NDArray[np.uint8]
    status: npt.NDArray[np.uint8]
    registered: npt.NDArray[np.int64]
    consented: npt.NDArray[np.int64]
    tag: npt.NDArray[np.uint8]
    readable: npt.NDArray[np.bool_]
    listed: npt.NDArray[np.bool_]
    fault: npt.NDArray[np.int64]
    faults: list[Fault] = field(default_factory=list)
    lists: _Lists = field(default_factory=_Lists)

    def reject(self, broken: npt.NDArray[np.bool_], fault: Fault) -> None:
        """Reject rows that no earlier rule rejected."""
        if broken.any():
            self.faults.append(fault)
            self.fault[broken & (self.fault == 0)] = len(self.faults)

    def among(self, asked: npt.NDArray[np.bool_], is_broken: Callable[[FeedRow], bool]) -> npt.NDArray[np.bool_]:
        """Ask the few rows in question one by one."""
        broken = np.zeros(len(self.rows), np.bool_)
        for at in np.flatnonzero(asked).tolist():
            broken[at] = is_broken(self.rows[at])
        return broken


class Feed:
    """Turns decoded chunks of one source into changes. `brand` is that of --brand."""

    def __init__(
        self,
        address_key: AddressKey,
        store_key: StoreKey,
        *,
        brand: int | None = None,
        kernel: Kernel = Kernel.NUMPY,
    ) -> None:
        self._address_key = address_key
        self._store_key = store_key
        self._brand = brand
        self._plain = PlainConsents(address_key, store_key, brand=brand, test_brand=TEST_BRAND, kernel=kernel)

    def parse(self, decoded: Decoded, *, now_s: float, sequence: int) -> Parsed:
        """Read a chunk: `now_s` is the clock in UTC seconds, `sequence` the position before it.

        Raises nothing for any content: what cannot be loaded is among the rejects.
        """
        local_now = times.local_now(now_s)
        plain: list[ConsentColumns] = []
        for rows, ordinals in decoded.shaped:
            consents, good = self._plain.read(rows, sequence + ordinals, latest=local_now + AHEAD_MAX_S)
            if consents is not None:
                plain.append(consents)
            if not good.all():
                decoded = with_rows(decoded, rows.lines(~good), rows.line[~good], ordinals[~good])
        parsed = self._judged(decoded, now_s=now_s, local_now=local_now, sequence=sequence)
        return _together(parsed, plain) if plain else parsed

    def _judged(self, decoded: Decoded, *, now_s: float, local_now: int, sequence: int) -> Parsed:
        """Read the rows of a chunk that were decoded, and tell what is wrong with any."""
        rows = decoded.rows
        columns = self._columns(rows)
        skipped = columns.brand == TEST_BRAND
        self._tag(columns, ~skipped)
        _judge(columns, local_now)
        columns.fault[skipped] = 0
        brands, watermarks = self._registrations(columns, now_s)
        good = (columns.fault == 0) & ~skipped
        bad = [line for line in decoded.bad if self._brand_of(line) != TEST_BRAND]
        rejects = self._rejects(columns, decoded.lines, bad)
        seen = columns.brand[(columns.brand > 0) & ~skipped]
        return Parsed(
            consents=_consents(columns, good & (columns.kind == Kind.CONSENT), sequence + decoded.ordinals),
            access=_access(columns, good),
            brands=brands,
            watermarks=watermarks,
            rejects=rejects,
            rows=decoded.count,
            skipped=int(skipped.sum()) + len(decoded.bad) - len(bad),
            brands_seen=frozenset(np.unique(seen).tolist()),
        )

    def _columns(self, rows: Sequence[FeedRow]) -> _Columns:
        codes = _Codes(self._brand)
        count = len(rows)
        return _Columns(
            rows=rows,
            kind=np.array([_KINDS.get(row.kind, Kind.UNKNOWN) for row in rows], np.uint8),
            brand=np.array([codes[row.brand_code] for row in rows], np.int64),
            channel=np.array([_CHANNELS.get(row.type, 0) for row in rows], np.uint8),
            recipient_type=np.array([_TYPES.get(row.recipient_type, 0) for row in rows], np.uint8),
            status=np.array([_STATUSES.get(row.status, Status.UNKNOWN) for row in rows], np.uint8),
            registered=times.local_seconds([row.creation_date for row in rows]),
            consented=times.local_seconds([row.consent_date for row in rows]),
            tag=np.zeros((count, TAG_BYTES), np.uint8),
            readable=np.zeros(count, np.bool_),
            listed=np.array([row.retailer_access is not None for row in rows], np.bool_),
            fault=np.zeros(count, np.int64),
        )

    def _tag(self, columns: _Columns, wanted: npt.NDArray[np.bool_]) -> None:
        """Fill in the tags, by form of address: all that follows knows recipients by them only."""
        emails = columns.channel == Channel.EPOSTA
        phones = (columns.channel == Channel.ARAMA) | (columns.channel == Channel.MESAJ)
        for form, channel in ((phones, Channel.MESAJ), (emails, Channel.EPOSTA)):
            places = np.flatnonzero(form & wanted)
            if not places.size:
                continue
            recipients = [columns.rows[at].recipient or "" for at in places.tolist()]
            tokens = address.tokens(recipients, channel, self._address_key)
            columns.readable[places] = address.readable(tokens)
            columns.tag[places] = self._store_key.tags(tokens)

    def _registrations(self, columns: _Columns, now_s: float) -> tuple[list[Brand], list[tuple[int, int]]]:
        """Read the rows about brands and watermarks one by one, rejecting those that are wrong."""
        brands: list[Brand] = []
        watermarks: list[tuple[int, int]] = []
        about = (columns.kind == Kind.BRAND) | (columns.kind == Kind.WATERMARK)
        for at in np.flatnonzero(about & (columns.fault == 0) & (columns.brand != TEST_BRAND)).tolist():
            row, code = columns.rows[at], int(columns.brand[at])
            if columns.kind[at] == Kind.BRAND:
                found: Brand | int | Fault = _brand(row, code, int(columns.registered[at]))
            else:
                found = _complete_until(row, now_s)
            if isinstance(found, Fault):
                columns.faults.append(found)
                columns.fault[at] = len(columns.faults)
            elif isinstance(found, Brand):
                brands.append(found)
            else:
                watermarks.append((code, found))
        return brands, watermarks

    def _rejects(self, columns: _Columns, lines: npt.NDArray[np.int64], bad: Iterable[BadLine]) -> list[Reject]:
        rejects = [Reject(line=line.line, fault=line.fault, brands=self._known(line.brand_code)) for line in bad]
        for at in np.flatnonzero(columns.fault).tolist():
            fault = columns.faults[columns.fault[at] - 1]
            brands = self._known(columns.rows[at].brand_code)
            rejects.append(Reject(line=int(lines[at]), fault=fault, brands=brands))
        return sorted(rejects, key=lambda reject: reject.line)

    def _brand_of(self, line: BadLine) -> int | None:
        return whole_number(line.brand_code, BRAND_MAX)

    def _known(self, spelled: int | str | None) -> tuple[int, ...]:
        """Name the brands that may have lost something with a row; none where that cannot be known."""
        code = whole_number(spelled, BRAND_MAX)
        if spelled is not None and code is None:
            return ()
        return tuple(sorted({brand for brand in (code, self._brand) if brand is not None}))


def _together(parsed: Parsed, plain: list[ConsentColumns]) -> Parsed:
    """Add the consents that needed no judging."""
    consents = ConsentColumns.join([*plain, parsed.consents])
    seen = {brand for columns in plain for brand in np.unique(columns.brand).tolist()}
    return replace(parsed, consents=consents, brands_seen=parsed.brands_seen | seen)


def _judge(columns: _Columns, local_now: int) -> None:
    """Try the rules of a row, in order."""
    consent = columns.kind == Kind.CONSENT
    keyed = consent | (columns.kind == Kind.RETAILER_ACCESS)
    dated = keyed | (columns.kind == Kind.BRAND)
    rows = columns.rows
    columns.reject(columns.kind == Kind.UNKNOWN, UNKNOWN_KIND)
    columns.reject((columns.brand == _NO_BRAND) & (columns.kind != Kind.WATERMARK), BRAND_MISSING)
    columns.reject(columns.brand == _BAD_BRAND, BRAND_INVALID)
    columns.reject(columns.brand == _OTHER_BRAND, BRAND_CONFLICT)
    columns.reject(keyed & (columns.recipient_type == 0), TYPE_INVALID)
    unknown_channel = keyed & (columns.channel == 0)
    columns.reject(columns.among(unknown_channel, lambda row: row.type is None), CHANNEL_MISSING)
    columns.reject(unknown_channel, CHANNEL_INVALID)
    unreadable = keyed & ~columns.readable
    columns.reject(columns.among(unreadable, lambda row: row.recipient is None), RECIPIENT_MISSING)
    columns.reject(unreadable, RECIPIENT_INVALID)
    columns.reject(consent & (columns.status == Status.NONE), STATUS_MISSING)
    columns.reject(dated & (columns.registered == times.ABSENT), CREATION_MISSING)
    columns.reject(dated & (columns.registered == times.INVALID), CREATION_INVALID)
    columns.reject(dated & (columns.registered > local_now + AHEAD_MAX_S), CREATION_AHEAD)
    needs_date = (columns.status == Status.ONAY) & (columns.recipient_type == RecipientType.BIREYSEL)
    columns.reject(consent & needs_date & (columns.consented == times.ABSENT), CONSENT_MISSING)
    columns.reject(consent & (columns.consented == times.INVALID), CONSENT_INVALID)
    known = {source for source in {row.source or "" for row in rows} if _is_source(source)}
    if any((row.source or "") not in known for row in rows):
        columns.reject(consent & np.array([(row.source or "") not in known for row in rows]), SOURCE_INVALID)
    if not all(map(_is_transaction_id, (row.transaction_id for row in rows))):
        wrong = np.array([not _is_transaction_id(row.transaction_id) for row in rows])
        columns.reject(consent & wrong, TRANSACTION_INVALID)
    columns.reject((columns.kind == Kind.RETAILER_ACCESS) & ~columns.listed, RETAILERS_MISSING)
    columns.reject(columns.among(keyed & columns.listed, lambda row: columns.lists.of(row) is None), RETAILERS_INVALID)


def _is_source(text: str) -> bool:
    return len(text) <= SOURCE_MAX_CHARS and text.isprintable() and len(text.encode()) <= SOURCE_MAX_BYTES


def _is_transaction_id(text: str | None) -> bool:
    return not text or (len(text) <= TRANSACTION_ID_MAX_CHARS and text.isascii() and text.isprintable())


def _consents(columns: _Columns, chosen: npt.NDArray[np.bool_], sequence: npt.NDArray[np.int64]) -> ConsentColumns:
    rows = columns.rows
    places = np.flatnonzero(chosen).tolist()
    evidence = evidence_columns(
        [rows[at].source or "" for at in places], [rows[at].transaction_id or "" for at in places]
    )
    return ConsentColumns(
        brand=columns.brand[chosen].astype(np.uint32),
        channel=columns.channel[chosen],
        recipient_type=columns.recipient_type[chosen],
        tag=columns.tag[chosen],
        status=columns.status[chosen],
        registered=columns.registered[chosen],
        consented=columns.consented[chosen],
        source=evidence.source,
        transaction_form=evidence.transaction_form,
        transaction=evidence.transaction,
        text=evidence.text,
        sequence=sequence[chosen],
        texts=evidence.texts,
    )


def _access(columns: _Columns, good: npt.NDArray[np.bool_]) -> list[RetailerAccess]:
    keyed = (columns.kind == Kind.CONSENT) | (columns.kind == Kind.RETAILER_ACCESS)
    return [
        RetailerAccess(
            brand=int(columns.brand[at]),
            channel=_CHANNEL[columns.channel[at]],
            recipient_type=_RECIPIENT_TYPE[columns.recipient_type[at]],
            tag=columns.tag[at].tobytes(),
            registered=int(columns.registered[at]),
            retailers=columns.lists.of(columns.rows[at]) or frozenset(),
        )
        for at in np.flatnonzero(good & keyed & columns.listed).tolist()
    ]


def _brand(row: FeedRow, code: int, registered: int) -> Brand | Fault:
    iys_code = whole_number(row.iys_code, CODE_MAX)
    names = [channel.name for channel in Channel] if row.channels is None else row.channels
    if iys_code is None:
        return IYS_CODE_INVALID
    if row.active is None:
        return ACTIVE_MISSING
    if any(name not in _CHANNELS for name in names):
        return CHANNELS_INVALID
    if row.legacy_deadline not in _DEADLINES:
        return DEADLINE_INVALID
    return Brand(
        brand=code,
        iys_code=iys_code,
        active=row.active,
        channels=frozenset(Channel[name] for name in names),
        legacy_deadline=_DEADLINES[row.legacy_deadline],
        registered=registered,
    )


def _complete_until(row: FeedRow, now_s: float) -> int | Fault:
    if row.complete_until is None:
        return UNTIL_MISSING
    try:
        until = times.watermark(row.complete_until)
    except ValueError:
        return UNTIL_INVALID
    return UNTIL_AHEAD if until > now_s + CLOCK_TOLERANCE_S else until
