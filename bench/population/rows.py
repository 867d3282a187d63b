"""Columns → feed rows: JSON Lines as the loader takes them, and İYS's daily CSV; one text per row, made in batches."""

import gzip
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, Protocol

import numpy as np
import numpy.typing as npt
import zstandard

from bench.population.brands import Brand
from bench.population.consents import Column, Consents
from bench.population.people import People
from bench.population.sources import CODES, LINE_CLOSURE
from iyscheck.consent import Channel, RecipientType, Status

ODD_STATUS: Final = "ASKIDA"
"""A status that İYS has not; the loader must keep it as unknown."""

CSV_HEADER: Final = "creationDate,transactionId,recipient,recipientType,type,status,consentDate,source"

_STATUS_CODES: Final = {Status.ONAY: "ONAY", Status.RET: "RET", Status.UNKNOWN: ODD_STATUS}
_TRANSACTION_DIGITS: Final = 64
_TURKISH_MOBILE: Final = 905
_EXTRA_ZERO: Final = (900 - 90) * 10**10
"""Turns 905… into 9005…"""


class Rows:
    """Writes rows of one population: knows its brands and its people."""

    def __init__(self, brands: Sequence[Brand], people: People) -> None:
        self._brands = brands
        self._people = people

    def recipients(self, consents: Consents) -> list[str]:
        """Return the addresses as İYS spells them, the few poisoned ones (`+9005…`) included."""
        found: list[str] = [""] * len(consents)
        for channel in Channel:
            here = np.flatnonzero(consents.channel == channel)
            texts = self._spelt(channel, consents.person[here], consents.old_spelling[here])
            for at, text in zip(here.tolist(), texts, strict=True):
                found[at] = text
        return found

    def _spelt(self, channel: Channel, people: Column, old: npt.NDArray[np.bool_]) -> list[str]:
        if channel is Channel.EPOSTA:
            return self._people.emails(people)
        phones = self._people.phones(channel, people)
        mobile = phones // 10**9 == _TURKISH_MOBILE
        return [f"+{phone}" for phone in np.where(old & mobile, phones + _EXTRA_ZERO, phones).tolist()]

    def retailers(self, brand: int, first: int, count: int) -> list[int]:
        """Return the `count` retailers of a brand from `first` on, round again at the end; sorted."""
        codes = self._brands[brand].retailers
        return sorted(codes[(first + at) % len(codes)] for at in range(count))

    def consent_rows(self, consents: Consents) -> list[str]:
        """Return a JSON row for each consent; absent fields are absent, as İYS demands."""
        heads = [f'{{"brandCode":{brand.code},' for brand in self._brands]
        sources = [f'"source":"{code}",' for code in CODES] + [""]
        columns = zip(
            consents.brand.tolist(),
            self._consent_dates(consents),
            times(consents.registered),
            consents.source.tolist(),
            self.recipients(consents),
            _contexts(consents),
            hexadecimal(consents.transaction),
            self._inline_lists(consents),
            strict=True,
        )
        return [
            f'{heads[brand]}{consented}"creationDate":"{registered}",{sources[source]}"recipient":"{recipient}",'
            f'{context}"transactionId":"{transaction}"{retailers}}}'
            for brand, consented, registered, source, recipient, context, transaction, retailers in columns
        ]

    @staticmethod
    def _consent_dates(consents: Consents) -> list[str]:
        # The closure of a line that a merchant's dateless consent stands on carries an empty date, not none.
        return [
            f'"consentDate":"{text}",' if text or source == LINE_CLOSURE else ""
            for text, source in zip(times(consents.consented), consents.source.tolist(), strict=True)
        ]

    def _inline_lists(self, consents: Consents) -> list[str]:
        texts = [""] * len(consents)
        for at in np.flatnonzero((consents.retailers > 0) & ~consents.listed_apart).tolist():
            codes = self._list(consents, at)
            texts[at] = f',"retailerCode":{codes[0]},"retailerAccess":{_json(codes)}'
        return texts

    def _list(self, consents: Consents, at: int) -> list[int]:
        return self.retailers(int(consents.brand[at]), int(consents.first_retailer[at]), int(consents.retailers[at]))

    def access_rows(self, consents: Consents) -> list[str]:
        """Return the `retailerAccess` rows of the consents whose list does not come with them."""
        apart = np.flatnonzero((consents.retailers > 0) & consents.listed_apart)
        if not len(apart):
            return []
        recipients, created = self.recipients(consents), times(consents.registered)
        return [
            _json(
                {
                    "kind": "retailerAccess",
                    "brandCode": self._brands[int(consents.brand[at])].code,
                    "recipient": recipients[at],
                    "recipientType": RecipientType(consents.recipient_type[at]).name,
                    "type": Channel(consents.channel[at]).name,
                    "retailerAccess": self._list(consents, at),
                    "creationDate": created[at],
                }
            )
            for at in apart.tolist()
        ]

    def csv_rows(self, consents: Consents) -> list[str]:
        """Return the rows of a daily file, in the order given."""
        columns = zip(
            times(consents.registered),
            hexadecimal(consents.transaction),
            self.recipients(consents),
            consents.recipient_type.tolist(),
            consents.channel.tolist(),
            consents.status.tolist(),
            times(consents.consented),
            consents.source.tolist(),
            strict=True,
        )
        sources = [*CODES, ""]
        return [
            f"{registered},{transaction},{recipient},{RecipientType(kind).name},{Channel(channel).name},"
            f"{_STATUS_CODES[Status(status)]},{consented},{sources[source]}"
            for registered, transaction, recipient, kind, channel, status, consented, source in columns
        ]


def brand_row(brand: Brand) -> str:
    """Return the row that registers a brand; fields with their usual value are absent in most brands."""
    row: dict[str, object] = {
        "kind": "brand",
        "brandCode": brand.code,
        "iysCode": brand.iys_code,
        "active": brand.active,
        "creationDate": times(np.array([brand.registered_at]))[0],
    }
    if brand.channels != frozenset(Channel):
        row["channels"] = [channel.name for channel in sorted(brand.channels)]
    if brand.legacy_deadline:
        row["legacyDeadline"] = brand.legacy_deadline.name
    return _json(row)


def watermark_row(brand: Brand, complete_until: int) -> str:
    """Return the row that says: everything of this brand up to here (local seconds) is in."""
    until = times(np.array([complete_until]))[0]
    return _json({"kind": "watermark", "brandCode": brand.code, "completeUntil": until})


def times(seconds: Column) -> list[str]:
    """Write local seconds as 19-character texts; 0 gives an empty text."""
    texts = np.datetime_as_string(seconds.astype("datetime64[s]"))
    letters = texts.view(np.uint32).reshape(len(texts), texts.itemsize // np.uint32().itemsize)
    letters[:, len("YYYY-MM-DD")] = ord(" ")
    letters[seconds == 0] = 0
    written: list[str] = texts.tolist()
    return written


def hexadecimal(transactions: npt.NDArray[np.uint64]) -> list[str]:
    """Write (N, 4) words as N texts of 64 hexadecimal digits."""
    text = transactions.astype(">u8").tobytes().hex()
    return [text[at : at + _TRANSACTION_DIGITS] for at in range(0, len(text), _TRANSACTION_DIGITS)]


def _contexts(consents: Consents) -> list[str]:
    pieces = {
        (kind, status, channel): f'"recipientType":"{kind.name}","status":"{code}","type":"{channel.name}",'
        for kind in RecipientType
        for status, code in _STATUS_CODES.items()
        for channel in Channel
    }
    keys = zip(consents.recipient_type.tolist(), consents.status.tolist(), consents.channel.tolist(), strict=True)
    return [pieces[key] for key in keys]


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


class _Stream(Protocol):
    def write(self, data: bytes, /) -> int: ...


class Sink:
    """Takes texts and writes them as lines; counts them."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream
        self.rows = 0

    def write(self, texts: Sequence[str]) -> None:
        """Append lines."""
        if texts:
            self._stream.write(("\n".join(texts) + "\n").encode())
            self.rows += len(texts)


@contextmanager
def sink(path: Path) -> Iterator[Sink]:
    """Open a feed file for writing: `.gz` and `.zst` are compressed. It appears under its name when it is whole."""
    unfinished = path.with_name(f".{path.name}.part")
    try:
        with unfinished.open("wb") as raw, _packed(path.suffix, raw) as stream:
            yield Sink(stream)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def _packed(suffix: str, raw: IO[bytes]) -> Iterator[_Stream]:
    if suffix == ".gz":
        # No name and no time inside: equal rows make equal bytes.
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as stream:
            yield stream
    elif suffix == ".zst":
        with zstandard.ZstdCompressor(level=3).stream_writer(raw, closefd=False) as stream:
            yield stream
    else:
        yield raw
