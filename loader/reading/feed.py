"""Rows of a feed → changes, by columns. Plaintext addresses end here.

The rules of a row stand in `_judge`, in the order in which they are tried: the first that a row breaks is the one it
is rejected for. Rows of the few other kinds are read one by one. Sources: İYS API 3.2.0, "TANIMLAR" and the notes on
line closures (they come without a consentDate where the record never had one).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from iyscheck.consent import CLOCK_TOLERANCE_S, Channel, RecipientType, Status
from iyscheck.kernel import Kernel
from iyscheck.keys import AddressKey, StoreKey
from loader.reading import times
from loader.reading import vocabulary as names
from loader.reading.plain import AHEAD_MAX_S, PlainConsents
from loader.reading.rows import BadLine, Decoded, Fault, RejectReason, Row, with_rows
from loader.reading.vocabulary import Kind

BRAND_MAX: Final = 2**32 - 1
CODE_MAX: Final = 2**63 - 1
RETAILERS_MAX: Final = 3000
SOURCE_MAX_BYTES: Final = 255
"""As UTF-8; the store keeps the length in one byte."""

_CHANNEL: Final = {channel.value: channel for channel in Channel}  # ten times as fast as Channel(…)
_RECIPIENT_TYPE: Final = {kind.value: kind for kind in RecipientType}
_NO_TEXT: Final = "\0"
"""Stands for a value that should be a text and is none: nothing that is read as text takes it."""


def _missing(name: str) -> Fault:
    return Fault(name, RejectReason.MISSING, f"{name} is missing.")


def _invalid(name: str, what: str) -> Fault:
    return Fault(name, RejectReason.INVALID, f"{name} is not {what}.")


def _mistyped(name: str) -> Fault:
    return Fault(name, RejectReason.WRONG_TYPE, f"{name} has a value of the wrong JSON type.")


UNKNOWN_KIND: Final = Fault(
    names.KIND, RejectReason.UNKNOWN_KIND, "kind is none of consent, retailerAccess, brand, watermark."
)
LIST_AMONG_ROWS: Final = Fault(
    names.LIST,
    RejectReason.UNKNOWN_KEY,
    "The row is a page or push body among rows of another form: load it from a file of its own.",
)
BRAND_MISSING: Final = Fault(
    names.BRAND_CODE, RejectReason.MISSING, "Neither the row nor --brand says which brand this is about."
)
BRAND_INVALID: Final = _invalid(names.BRAND_CODE, f"a whole number from 1 to {BRAND_MAX}")
BRAND_CONFLICT: Final = Fault(names.BRAND_CODE, RejectReason.CONFLICT, "brandCode is not the brand given with --brand.")
TYPE_INVALID: Final = _invalid(names.RECIPIENT_TYPE, "BIREYSEL or TACIR")
CHANNEL_INVALID: Final = _invalid(names.TYPE, "ARAMA, MESAJ or EPOSTA")
RECIPIENT_INVALID: Final = Fault(
    names.RECIPIENT, RejectReason.INVALID_ADDRESS, "recipient is not an address of the form that its type asks for."
)
CREATION_INVALID: Final = _invalid(names.CREATION_DATE, "a time of the form YYYY-MM-DD HH:MM:SS")
CREATION_AHEAD: Final = Fault(
    names.CREATION_DATE,
    RejectReason.AHEAD_OF_CLOCK,
    f"creationDate is more than {AHEAD_MAX_S // 60} minutes in the future.",
)
CONSENT_MISSING: Final = Fault(
    names.CONSENT_DATE, RejectReason.MISSING, "consentDate is missing, and an ONAY of a BIREYSEL needs it."
)
CONSENT_INVALID: Final = _invalid(names.CONSENT_DATE, "a time of the form YYYY-MM-DD HH:MM:SS")
CONSENT_LATER: Final = Fault(
    names.CONSENT_DATE,
    RejectReason.INVALID,
    f"consentDate is more than {AHEAD_MAX_S // 60} minutes later than creationDate, which cannot be.",
)
SOURCE_INVALID: Final = _invalid(names.SOURCE, f"a printable text of at most {SOURCE_MAX_CHARS} characters")
TRANSACTION_INVALID: Final = _invalid(
    names.TRANSACTION_ID, f"a printable ASCII text of at most {TRANSACTION_ID_MAX_CHARS} characters"
)
RETAILERS_MISSING: Final = _missing(names.RETAILER_ACCESS)
RETAILERS_INVALID: Final = _invalid(names.RETAILER_ACCESS, f"a list of at most {RETAILERS_MAX} retailer codes")
IYS_CODE_INVALID: Final = _invalid(names.IYS_CODE, "a positive whole number")
ACTIVE_MISSING: Final = _missing(names.ACTIVE)
CHANNELS_INVALID: Final = _invalid(names.CHANNELS, "a list of ARAMA, MESAJ and EPOSTA")
DEADLINE_INVALID: Final = _invalid(names.LEGACY_DEADLINE, "announced, over-150k or up-to-150k")
UNTIL_MISSING: Final = _missing(names.COMPLETE_UNTIL)
UNTIL_INVALID: Final = _invalid(names.COMPLETE_UNTIL, "a time of the form YYYY-MM-DD HH:MM:SS")
UNTIL_AHEAD: Final = Fault(
    names.COMPLETE_UNTIL,
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
    """What a chunk of `rows` rows says. Watermarks are (brand, or 0 for all, seconds UTC).

    `registered` are the first and the last local second at which a row was, rejected ones too; 0 if none was readable.

    Of the consents `unknown_status` have a status that is neither ONAY nor RET, and of `mended`, which are none of
    them an ONAY, something beside the point was unreadable and is taken as absent.
    """

    consents: ConsentColumns
    access: list[RetailerAccess]
    brands: list[Brand]
    watermarks: list[tuple[int, int]]
    rejects: list[Reject]
    rows: int
    skipped: int
    brands_seen: frozenset[int]
    unknown_status: int = 0
    mended: int = 0
    registered: tuple[int, int] = (0, 0)


_NO_BRAND: Final = 0
_BAD_BRAND: Final = -1
_OTHER_BRAND: Final = -2
_MISTYPED_BRAND: Final = -3
_LAYOUTS_MAX: Final = 1024


class _Brands(dict[int | str | None, int]):
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
        elif self._given not in (None, code) and code != names.TEST_BRAND:
            code = _OTHER_BRAND
        self[spelled] = code
        return code


class _Codes(dict[str, int]):
    """Codes as rows spell them → their numbers, `other` for what is in no table; each folded once for a chunk."""

    def __init__(self, numbers: Mapping[str, int], *, other: int) -> None:
        super().__init__(numbers)
        self._numbers = numbers
        self._other = other

    def __missing__(self, spelled: str) -> int:
        self[spelled] = self._numbers.get(names.code(spelled), self._other)
        return self[spelled]


class _Lists(dict[tuple[int | str, ...], frozenset[int] | None]):
    """Lists of retailers as rows spell them → their codes, None where one is wrong; few lists serve many consents."""

    def __missing__(self, spelled: tuple[int | str, ...]) -> frozenset[int] | None:
        codes = [whole_number(code, CODE_MAX) for code in spelled[: RETAILERS_MAX + 1]]
        wrong = len(codes) > RETAILERS_MAX or None in codes
        self[spelled] = None if wrong else frozenset(code for code in codes if code is not None)
        return self[spelled]

    def of(self, row: Row) -> frozenset[int] | None:
        """Read the list of a row that has one; None where it is no list of retailers."""
        spelled = row.get(names.RETAILER_ACCESS)
        if not isinstance(spelled, list) or not all(type(code) in {int, str} for code in spelled):
            return None
        return self[tuple(spelled)]


def whole_number(spelled: object, largest: int) -> int | None:
    """Read a number from 1 to `largest`, given as such or as ASCII digits; None if it is not one."""
    if isinstance(spelled, str):
        if not (spelled.isascii() and spelled.isdigit()) or len(spelled) > len(str(largest)):
            return None
        spelled = int(spelled)
    return spelled if type(spelled) is int and 1 <= spelled <= largest else None


def _texts(rows: Sequence[Row], name: str) -> list[str]:
    """Return a field of all rows: empty where it is absent, _NO_TEXT where it is something else than a text."""
    found = [row.get(name) for row in rows]
    return [text if type(text) is str else "" if text is None else _NO_TEXT for text in found]


@dataclass(slots=True)
class _Columns:
    """The columns of a chunk while it is judged; `fault` is 0 or 1 + the place in `faults`."""

    rows: Sequence[Row]
    kind: npt.NDArray[np.uint8]
    brand: npt.NDArray[np.int64]
    channel: npt.NDArray[np.uint8]
    recipient_type: npt.NDArray[np.uint8]
    status: npt.NDArray[np.uint8]
    registered: npt.NDArray[np.int64]
    consented: npt.NDArray[np.int64]
    sources: list[str]
    transactions: list[str]
    tag: npt.NDArray[np.uint8]
    readable: npt.NDArray[np.bool_]
    mended: npt.NDArray[np.bool_]
    listed: npt.NDArray[np.bool_]
    fault: npt.NDArray[np.int64]
    faults: list[Fault] = field(default_factory=list)
    lists: _Lists = field(default_factory=_Lists)

    def reject(self, broken: npt.NDArray[np.bool_], fault: Fault) -> None:
        """Reject rows that no earlier rule rejected."""
        if broken.any():
            self.faults.append(fault)
            self.fault[broken & (self.fault == 0)] = len(self.faults)

    def among(self, asked: npt.NDArray[np.bool_], is_broken: Callable[[Row], bool]) -> npt.NDArray[np.bool_]:
        """Ask the few rows in question one by one."""
        broken = np.zeros(len(self.rows), np.bool_)
        for at in np.flatnonzero(asked).tolist():
            broken[at] = is_broken(self.rows[at])
        return broken

    def reject_field(self, wrong: npt.NDArray[np.bool_], name: str, invalid: Fault) -> None:
        """Reject rows whose field is absent, of the wrong type or invalid, and say which of these."""
        if wrong.any():
            self.reject(self.among(wrong, lambda row: row.get(name) is None or row[name] == ""), _missing(name))
            self.reject(self.among(wrong, lambda row: type(row.get(name)) is not str), _mistyped(name))
            self.reject(wrong, invalid)

    def set_right(self, wrong: npt.NDArray[np.bool_], fault: Fault) -> list[int]:
        """Reject the ONAY among rows in which something beside the point is wrong.

        The others are to be loaded as if it were absent: says which these are.
        """
        self.reject(wrong & (self.status == Status.ONAY), fault)
        others = wrong & (self.status != Status.ONAY)
        self.mended |= others
        return np.flatnonzero(others).tolist()


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
        self._plain = PlainConsents(address_key, store_key, brand=brand, kernel=kernel)
        self._slips: dict[tuple[int, tuple[str, ...]], Fault | None] = {}

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
        skipped = columns.brand == names.TEST_BRAND
        self._tag(columns, ~skipped)
        columns.reject(columns.kind == Kind.UNKNOWN, UNKNOWN_KIND)
        self._judge_keys(columns)
        skipped &= ~columns.among(skipped & (columns.fault > 0), _misspells_brand)
        _judge(columns, local_now)
        columns.fault[skipped] = 0
        brands, watermarks = self._registrations(columns, now_s)
        good = (columns.fault == 0) & ~skipped
        bad = [line for line in decoded.bad if self._brand_of(line) != names.TEST_BRAND]
        rejects = self._rejects(columns, decoded.lines, bad)
        seen = columns.brand[(columns.brand > 0) & ~skipped]
        consents = good & (columns.kind == Kind.CONSENT)
        return Parsed(
            consents=_consents(columns, consents, sequence + decoded.ordinals),
            access=_access(columns, good),
            brands=brands,
            watermarks=watermarks,
            rejects=rejects,
            rows=decoded.count,
            skipped=int(skipped.sum()) + len(decoded.bad) - len(bad),
            brands_seen=frozenset(np.unique(seen).tolist()),
            unknown_status=int((consents & (columns.status == Status.UNKNOWN)).sum()),
            mended=int((consents & columns.mended).sum()),
            registered=_between(columns.registered[~skipped]),
        )

    def _judge_keys(self, columns: _Columns) -> None:
        """Reject rows with a key that is not known where it may be one of ours, misspelt."""
        for at, layout in enumerate(zip(columns.kind.tolist(), map(tuple, columns.rows), strict=True)):
            if layout not in self._slips:
                if len(self._slips) >= _LAYOUTS_MAX:
                    self._slips.clear()
                self._slips[layout] = key_fault(Kind(layout[0]), layout[1])
            fault = self._slips[layout]
            if fault is None or columns.fault[at]:
                continue
            beside = layout[0] == Kind.CONSENT and fault.field in names.BESIDE_THE_POINT
            if beside and columns.status[at] != Status.ONAY:
                columns.mended[at] = True  # a refusal counts without it
                continue
            columns.faults.append(fault)
            columns.fault[at] = len(columns.faults)

    def _columns(self, rows: Sequence[Row]) -> _Columns:
        brands = _Brands(self._brand)
        kinds = _Codes(names.KIND_CODES | {"": Kind.CONSENT}, other=Kind.UNKNOWN)
        channels = _Codes(names.CHANNEL_CODES, other=0)
        types = _Codes(names.RECIPIENT_TYPE_CODES, other=0)
        statuses = _Codes(names.STATUS_CODES, other=Status.UNKNOWN)
        codes = [row.get(names.BRAND_CODE) for row in rows]
        count = len(rows)
        return _Columns(
            rows=rows,
            kind=np.array([kinds[text] for text in _texts(rows, names.KIND)], np.uint8),
            brand=np.array(
                [
                    brands[code]
                    if code is None or (isinstance(code, int | str) and not isinstance(code, bool))
                    else _MISTYPED_BRAND
                    for code in codes
                ],
                np.int64,
            ),
            channel=np.array([channels[text] for text in _texts(rows, names.TYPE)], np.uint8),
            recipient_type=np.array([types[text] for text in _texts(rows, names.RECIPIENT_TYPE)], np.uint8),
            status=np.array([statuses[text] for text in _texts(rows, names.STATUS)], np.uint8),
            registered=times.local_seconds([text.strip() for text in _texts(rows, names.CREATION_DATE)]),
            consented=times.local_seconds([text.strip() for text in _texts(rows, names.CONSENT_DATE)]),
            sources=_texts(rows, names.SOURCE),
            transactions=_texts(rows, names.TRANSACTION_ID),
            tag=np.zeros((count, TAG_BYTES), np.uint8),
            readable=np.zeros(count, np.bool_),
            mended=np.zeros(count, np.bool_),
            listed=np.array([row.get(names.RETAILER_ACCESS) is not None for row in rows], np.bool_),
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
            recipients = _texts([columns.rows[at] for at in places.tolist()], names.RECIPIENT)
            tokens = address.tokens(recipients, channel, self._address_key)
            columns.readable[places] = address.readable(tokens)
            columns.tag[places] = self._store_key.tags(tokens)

    def _registrations(self, columns: _Columns, now_s: float) -> tuple[list[Brand], list[tuple[int, int]]]:
        """Read the rows about brands and watermarks one by one, rejecting those that are wrong."""
        brands: list[Brand] = []
        watermarks: list[tuple[int, int]] = []
        about = (columns.kind == Kind.BRAND) | (columns.kind == Kind.WATERMARK)
        for at in np.flatnonzero(about & (columns.fault == 0) & (columns.brand != names.TEST_BRAND)).tolist():
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
        rejects = [
            Reject(
                line=line.line,
                fault=line.fault,
                brands=() if line.fault.field == names.BRAND_CODE else self._known(line.brand_code),
            )
            for line in bad
        ]
        for at in np.flatnonzero(columns.fault).tolist():
            fault = columns.faults[columns.fault[at] - 1]
            brands = self._known(columns.rows[at].get(names.BRAND_CODE))
            if fault.field == names.BRAND_CODE and fault.reason is RejectReason.UNKNOWN_KEY:
                brands = ()  # --brand is not what it says
            rejects.append(Reject(line=int(lines[at]), fault=fault, brands=brands))
        return sorted(rejects, key=lambda reject: reject.line)

    def _brand_of(self, line: BadLine) -> int | None:
        return whole_number(line.brand_code, BRAND_MAX)

    def _known(self, spelled: object) -> tuple[int, ...]:
        """Name the brands that may have lost something with a row; none where that cannot be known."""
        code = whole_number(spelled, BRAND_MAX)
        if spelled is not None and code is None:
            return ()
        return tuple(sorted({brand for brand in (code, self._brand) if brand is not None}))


def _together(parsed: Parsed, plain: list[ConsentColumns]) -> Parsed:
    """Add the consents that needed no judging."""
    consents = ConsentColumns.join([*plain, parsed.consents])
    seen = {brand for columns in plain for brand in np.unique(columns.brand).tolist()}
    times_of_all = [time for columns in plain for time in _between(columns.registered)] + [*parsed.registered]
    registered = _between(np.array(times_of_all, np.int64))
    return replace(parsed, consents=consents, brands_seen=parsed.brands_seen | seen, registered=registered)


def _between(registered: npt.NDArray[np.int64]) -> tuple[int, int]:
    """Return the first and the last of the times that are readable, 0 where none is."""
    readable = registered[registered > 0]
    return (int(readable.min()), int(readable.max())) if readable.size else (0, 0)


def _misspells_brand(row: Row) -> bool:
    """Say whether another key of a row may be the one that names its brand."""
    return any(names.meant(key, Kind.CONSENT) == names.BRAND_CODE for key in row)


def key_fault(kind: Kind, keys: Iterable[str]) -> Fault | None:
    """Find a key that a row of this kind must not have: a slip of one that is read, in our own kinds any other.

    Slips of what a refusal counts without are found last.
    """
    if kind is Kind.UNKNOWN:
        return None
    beside: Fault | None = None
    for key in keys:
        right = names.meant(key, kind)
        if right is not None:
            message = f"A key of the row is nearly '{right}' and not quite: it must be written exactly so."
            fault = Fault(right, RejectReason.UNKNOWN_KEY, message)
            if kind is not Kind.CONSENT or right not in names.BESIDE_THE_POINT:
                return fault
            beside = beside or fault
            continue
        if kind is not Kind.CONSENT and key not in names.FIELDS[kind]:
            message = f"The row has a key beside those of its kind: {', '.join(names.FIELDS[kind])}."
            return Fault("", RejectReason.UNKNOWN_KEY, message)
        if key == names.LIST:
            return LIST_AMONG_ROWS
    return beside


def _judge(columns: _Columns, local_now: int) -> None:
    """Try the rules of a row, in order."""
    consent = columns.kind == Kind.CONSENT
    keyed = consent | (columns.kind == Kind.RETAILER_ACCESS)
    dated = keyed | (columns.kind == Kind.BRAND)
    columns.reject((columns.brand == _NO_BRAND) & (columns.kind != Kind.WATERMARK), BRAND_MISSING)
    columns.reject(columns.brand == _MISTYPED_BRAND, _mistyped(names.BRAND_CODE))
    columns.reject(columns.brand == _BAD_BRAND, BRAND_INVALID)
    columns.reject(columns.brand == _OTHER_BRAND, BRAND_CONFLICT)
    columns.reject_field(keyed & (columns.recipient_type == 0), names.RECIPIENT_TYPE, TYPE_INVALID)
    columns.reject_field(keyed & (columns.channel == 0), names.TYPE, CHANNEL_INVALID)
    columns.reject_field(keyed & ~columns.readable, names.RECIPIENT, RECIPIENT_INVALID)
    columns.reject_field(dated & (columns.registered <= times.ABSENT), names.CREATION_DATE, CREATION_INVALID)
    columns.reject(dated & (columns.registered > local_now + AHEAD_MAX_S), CREATION_AHEAD)
    columns.reject((columns.kind == Kind.RETAILER_ACCESS) & ~columns.listed, RETAILERS_MISSING)
    wrong_list = columns.among(keyed & columns.listed, lambda row: columns.lists.of(row) is None)
    columns.reject(wrong_list & ~consent, RETAILERS_INVALID)
    _judge_beside_the_point(columns, consent, wrong_list)


def _judge_beside_the_point(
    columns: _Columns, consent: npt.NDArray[np.bool_], wrong_list: npt.NDArray[np.bool_]
) -> None:
    """Try what an ONAY has to get right, and nothing else: a refusal counts without it."""
    needs_date = (columns.status == Status.ONAY) & (columns.recipient_type == RecipientType.BIREYSEL)
    columns.reject(consent & needs_date & (columns.consented == times.ABSENT), CONSENT_MISSING)
    unreadable = columns.set_right(consent & (columns.consented == times.INVALID), CONSENT_INVALID)
    columns.consented[unreadable] = times.ABSENT
    later = columns.set_right(consent & (columns.consented > columns.registered + AHEAD_MAX_S), CONSENT_LATER)
    columns.consented[later] = times.ABSENT
    for texts, is_right, fault in (
        (columns.sources, _is_source, SOURCE_INVALID),
        (columns.transactions, _is_transaction_id, TRANSACTION_INVALID),
    ):
        wrong = {text for text in set(texts) if not is_right(text)}
        if wrong:
            for at in columns.set_right(consent & np.array([text in wrong for text in texts]), fault):
                texts[at] = ""
    columns.listed[columns.set_right(consent & wrong_list, RETAILERS_INVALID)] = False


def _is_source(text: str) -> bool:
    return len(text) <= SOURCE_MAX_CHARS and text.isprintable() and len(text.encode()) <= SOURCE_MAX_BYTES


def _is_transaction_id(text: str) -> bool:
    return len(text) <= TRANSACTION_ID_MAX_CHARS and text.isascii() and text.isprintable()


def _consents(columns: _Columns, chosen: npt.NDArray[np.bool_], sequence: npt.NDArray[np.int64]) -> ConsentColumns:
    places = np.flatnonzero(chosen).tolist()
    evidence = evidence_columns([columns.sources[at] for at in places], [columns.transactions[at] for at in places])
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


def _brand(row: Row, code: int, registered: int) -> Brand | Fault:
    iys_code = whole_number(row.get(names.IYS_CODE), CODE_MAX)
    active = row.get(names.ACTIVE)
    channels = _channels(row.get(names.CHANNELS, [*names.CHANNEL_CODES]))
    deadline = row.get(names.LEGACY_DEADLINE)
    if iys_code is None:
        return IYS_CODE_INVALID
    if not isinstance(active, bool):
        return ACTIVE_MISSING if active is None else _mistyped(names.ACTIVE)
    if channels is None:
        return CHANNELS_INVALID
    if not (
        deadline is None
        or (isinstance(deadline, int | str) and deadline is not True and deadline in names.DEADLINE_CODES)
    ):
        return DEADLINE_INVALID
    return Brand(
        brand=code,
        iys_code=iys_code,
        active=active,
        channels=channels,
        legacy_deadline=0 if deadline is None else names.DEADLINE_CODES[deadline],
        registered=registered,
    )


def _channels(spelled: object) -> frozenset[Channel] | None:
    """Read a list of channels; None where it is none. Only one that is not there at all stands for every channel."""
    if not isinstance(spelled, list) or not all(isinstance(name, str) for name in spelled):
        return None
    numbers = {names.CHANNEL_CODES.get(names.code(name), 0) for name in spelled}
    return None if 0 in numbers else frozenset(_CHANNEL[number] for number in numbers)


def _complete_until(row: Row, now_s: float) -> int | Fault:
    spelled = row.get(names.COMPLETE_UNTIL)
    if spelled is None:
        return UNTIL_MISSING
    try:
        until = times.watermark(spelled if isinstance(spelled, str) else _NO_TEXT)
    except ValueError:
        return UNTIL_INVALID
    return UNTIL_AHEAD if until > now_s + CLOCK_TOLERANCE_S else until
