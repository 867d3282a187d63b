"""Shaped rows → consents, by arrays from the bytes on: the way of nearly every row of a feed.

Only rows without any fault are taken here, and everything else is left to `feed`, which knows the rules one by one
and what to say of a row that breaks them. A row taken here gives exactly the change that it would give there.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from iyscheck import address
from iyscheck.address import TextColumn
from iyscheck.change import (
    HEX_TRANSACTION,
    NO_TRANSACTION,
    SOURCE_NUMBERS,
    TAG_BYTES,
    TEXT_TRANSACTION,
    TRANSACTION_BYTES,
    TRANSACTION_ID_MAX_CHARS,
    ConsentColumns,
)
from iyscheck.consent import Channel, RecipientType, Status
from iyscheck.kernel import Kernel
from iyscheck.keys import AddressKey, StoreKey
from loader.reading import times
from loader.reading import vocabulary as names
from loader.reading.fields import CodeTable, Mask, Numbers, column_of, hexadecimal, seconds
from loader.reading.shapes import ShapedRows
from loader.reading.text import Span, integers
from loader.reading.times import AHEAD_MAX_S

_TEXTS: Final = frozenset(names.FIELDS[names.Kind.CONSENT]) - {names.BRAND_CODE, names.RETAILER_ACCESS}
_NEEDED: Final = frozenset(names.NEEDED) - {names.BRAND_CODE}
_CHANNELS: Final = CodeTable(names.CHANNEL_CODES, other=0)
_TYPES: Final = CodeTable(names.RECIPIENT_TYPE_CODES, other=0)
_STATUSES: Final = CodeTable(names.STATUS_CODES, other=0)
_OTHER_SOURCE: Final = 255
_SOURCES: Final = CodeTable({"": 0, **SOURCE_NUMBERS}, other=_OTHER_SOURCE)
_KINDS: Final = CodeTable({names.USUAL_KIND: 1}, other=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evidence:
    """Source and transaction id of N rows as ConsentColumns keeps them; `text` and `texts` for the few others."""

    source: Numbers
    transaction_form: Numbers
    transaction: Numbers
    text: npt.NDArray[np.int32]
    texts: tuple[tuple[str, str], ...]


class PlainConsents:
    """Reads faultless consents of one source. `brand` is that of --brand."""

    def __init__(self, address_key: AddressKey, store_key: StoreKey, *, brand: int | None, kernel: Kernel) -> None:
        self._kernel = kernel
        self._address_key = address_key
        self._store_key = store_key
        self._brand = brand

    def read(
        self, rows: ShapedRows, sequence: npt.NDArray[np.int64], *, latest: int
    ) -> tuple[ConsentColumns | None, Mask]:
        """Read the consents of rows at these positions, `latest` being the last local second that may be registered.

        Also says which rows they are: bool (N,). None where there is none.
        """
        good = np.ones(len(rows), np.bool_)
        if not _is_consent(rows, given=self._brand):
            return None, ~good
        brand, channel, recipient_type, status = self._facts(rows, good)
        registered, consented = self._times(
            rows, good, needed=(status == Status.ONAY) & (recipient_type == RecipientType.BIREYSEL)
        )
        good &= (registered <= latest) & (consented <= registered + AHEAD_MAX_S)
        evidence = _evidence(rows, good, self._kernel)
        tag = self._tags(rows, channel, good)
        if not good.any():
            return None, good
        columns = ConsentColumns(
            brand=brand.astype(np.uint32),
            channel=channel,
            recipient_type=recipient_type,
            tag=tag,
            status=status,
            registered=registered,
            consented=consented,
            source=evidence.source,
            transaction_form=evidence.transaction_form,
            transaction=evidence.transaction,
            text=evidence.text,
            sequence=sequence,
            texts=evidence.texts,
        )
        return columns if good.all() else columns.take(good), good

    def _facts(self, rows: ShapedRows, good: Mask) -> tuple[npt.NDArray[np.int64], Numbers, Numbers, Numbers]:
        """Read brand, channel, recipient type and status; clear `good` where one is not right."""
        text, texts = rows.text, rows.texts
        brand = np.full(len(rows), self._brand or 0, np.int64)
        if names.BRAND_CODE in rows.numbers:
            brand = rows.numbers[names.BRAND_CODE]
        elif names.BRAND_CODE in texts:
            brand, right = integers(text, texts[names.BRAND_CODE])
            good &= right
        if self._brand is not None:
            good &= brand == self._brand
        good &= (brand > 0) & (brand != names.TEST_BRAND)
        channel = _CHANNELS.numbers(text, texts[names.TYPE], self._kernel)
        good &= channel > 0
        recipient_type = _TYPES.numbers(text, texts[names.RECIPIENT_TYPE], self._kernel)
        good &= recipient_type > 0
        status = _STATUSES.numbers(text, texts[names.STATUS], self._kernel)
        good &= status > 0
        if names.KIND in texts:
            good &= _KINDS.numbers(text, texts[names.KIND], self._kernel) > 0
        return brand, channel, recipient_type, status

    def _times(
        self, rows: ShapedRows, good: Mask, *, needed: Mask
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Read registration and consent time, the second one absent only where it is not needed."""
        registered = seconds(rows.text, rows.texts[names.CREATION_DATE], self._kernel)
        good &= registered > 0
        consented = np.zeros(len(rows), np.int64)
        if names.CONSENT_DATE in rows.texts:
            consented = seconds(rows.text, rows.texts[names.CONSENT_DATE], self._kernel)
        good &= (consented > 0) | ((consented == times.ABSENT) & ~needed)
        return registered, consented

    def _tags(self, rows: ShapedRows, channel: Numbers, good: Mask) -> Numbers:
        """Make the tags of the good rows; clear `good` where the address is not readable."""
        tag = np.zeros((len(rows), TAG_BYTES), np.uint8)
        emails = channel == Channel.EPOSTA
        for form, as_channel in ((~emails, Channel.MESAJ), (emails, Channel.EPOSTA)):
            places = np.flatnonzero(form & good)
            if not places.size:
                continue
            span = rows.texts[names.RECIPIENT]
            chosen = Span(start=span.start[places], length=span.length[places])
            if self._kernel is Kernel.NUMBA and as_channel is not Channel.EPOSTA:
                ends = chosen.start + chosen.length  # the loop over phones looks at nothing between them
                column = TextColumn(data=rows.text.padded, starts=chosen.start, ends=ends)
            else:
                column = column_of(rows.text, chosen)
            tokens = address.tokens(column, as_channel, self._address_key, self._kernel)
            good[places] = address.readable(tokens)
            tag[places] = self._store_key.tags(tokens)
        return tag


def _is_consent(rows: ShapedRows, *, given: int | None) -> bool:
    """Say whether rows of this shape may be consents: what is needed is there, as text, and no key is a slip."""
    texts, numbers = rows.texts.keys(), rows.numbers.keys()
    strange = (texts | numbers) - _TEXTS
    fits = texts >= _NEEDED and not numbers & _TEXTS and names.RETAILER_ACCESS not in strange
    fits &= names.BRAND_CODE in strange or given is not None
    return fits and names.LIST not in strange and not any(names.meant(key, names.Kind.CONSENT) for key in strange)


def _evidence(rows: ShapedRows, good: Mask, kernel: Kernel) -> _Evidence:
    """Read source and transaction id; clear `good` where one is not right."""
    count = len(rows)
    source = np.zeros(count, np.uint8)
    if names.SOURCE in rows.texts:
        source = _SOURCES.numbers(rows.text, rows.texts[names.SOURCE], kernel)
    form = np.full(count, NO_TRANSACTION, np.uint8)
    transaction = np.zeros((count, TRANSACTION_BYTES), np.uint8)
    if names.TRANSACTION_ID in rows.texts:
        span = rows.texts[names.TRANSACTION_ID]
        transaction, right = hexadecimal(rows.text, span, kernel)
        form = np.where(right, HEX_TRANSACTION, TEXT_TRANSACTION).astype(np.uint8)
        form[span.length == 0] = NO_TRANSACTION
    text = np.zeros(count, np.int32)
    places: dict[tuple[str, str], int] = {("", ""): 0}
    for row in np.flatnonzero(good & ((source == _OTHER_SOURCE) | (form == TEXT_TRANSACTION))).tolist():
        pair = (
            _one(rows, names.SOURCE, row) if source[row] == _OTHER_SOURCE else "",
            _one(rows, names.TRANSACTION_ID, row) if form[row] == TEXT_TRANSACTION else "",
        )
        if all(len(each) <= TRANSACTION_ID_MAX_CHARS and each.isprintable() for each in pair):
            text[row] = places.setdefault(pair, len(places))
        else:
            good[row] = False
    source[source == _OTHER_SOURCE] = 0
    return _Evidence(source=source, transaction_form=form, transaction=transaction, text=text, texts=tuple(places))


def _one(rows: ShapedRows, name: str, row: int) -> str:
    """Return one text; shaped rows are ASCII."""
    span = rows.texts[name]
    return rows.text.one(int(span.start[row]), int(span.length[row])).decode("ascii")
