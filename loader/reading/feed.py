"""Rows of a feed → changes, by columns. Plaintext addresses end here.

Nearly all rows are plain. The others are laid out in columns and judged by the rules.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from iyscheck import address
from iyscheck.change import Brand, ConsentColumns, RetailerAccess, evidence_columns
from iyscheck.consent import Channel, RecipientType, Status
from iyscheck.kernel import Kernel
from iyscheck.keys import AddressKey, StoreKey
from loader.reading import faults, times
from loader.reading import vocabulary as names
from loader.reading.columns import Columns, texts_of, whole_number
from loader.reading.faults import Fault, RejectReason
from loader.reading.json_lines import with_rows
from loader.reading.plain import PlainConsents
from loader.reading.registrations import registrations
from loader.reading.rows import BadLine, Decoded
from loader.reading.rules import judge, key_fault, misspells_brand
from loader.reading.times import AHEAD_MAX_S
from loader.reading.vocabulary import Kind

_CHANNEL: Final = {channel.value: channel for channel in Channel}  # ten times as fast as Channel(…)
_RECIPIENT_TYPE: Final = {kind.value: kind for kind in RecipientType}
_LAYOUTS_MAX: Final = 1024
"""Of sets of keys that are remembered, with what is wrong with them."""


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
        columns = Columns.of(rows, brand=self._brand)
        skipped = columns.brand == names.TEST_BRAND
        self._tag(columns, ~skipped)
        columns.reject(columns.kind == Kind.UNKNOWN, faults.UNKNOWN_KIND)
        self._judge_keys(columns)
        skipped &= ~columns.among(skipped & (columns.fault > 0), misspells_brand)
        judge(columns, local_now)
        columns.fault[skipped] = 0
        brands, watermarks = registrations(columns, now_s)
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

    def _judge_keys(self, columns: Columns) -> None:
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

    def _tag(self, columns: Columns, wanted: npt.NDArray[np.bool_]) -> None:
        """Fill in the tags, by form of address: all that follows knows recipients by them only."""
        emails = columns.channel == Channel.EPOSTA
        phones = (columns.channel == Channel.ARAMA) | (columns.channel == Channel.MESAJ)
        for form, channel in ((phones, Channel.MESAJ), (emails, Channel.EPOSTA)):
            places = np.flatnonzero(form & wanted)
            if not places.size:
                continue
            recipients = texts_of([columns.rows[at] for at in places.tolist()], names.RECIPIENT)
            tokens = address.tokens(recipients, channel, self._address_key)
            columns.readable[places] = address.readable(tokens)
            columns.tag[places] = self._store_key.tags(tokens)

    def _rejects(self, columns: Columns, lines: npt.NDArray[np.int64], bad: Iterable[BadLine]) -> list[Reject]:
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
        return whole_number(line.brand_code, names.BRAND_MAX)

    def _known(self, spelled: object) -> tuple[int, ...]:
        """Name the brands that may have lost something with a row; none where that cannot be known."""
        code = whole_number(spelled, names.BRAND_MAX)
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


def _consents(columns: Columns, chosen: npt.NDArray[np.bool_], sequence: npt.NDArray[np.int64]) -> ConsentColumns:
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


def _access(columns: Columns, good: npt.NDArray[np.bool_]) -> list[RetailerAccess]:
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
