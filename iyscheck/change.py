"""A change of a consent, a place in the log, and which change wins over which.

The order of changes to one consent is total on their content and never looks at when a row arrived, so any
order of arrival and any replay give the same store: the greater `precedence` wins, an equal one changes nothing.
Sources: İYS API 3.2.0, notes of 03/10/2023 on line closures (they repeat the old consentDate) and of the
reconciliation chapter (two movements in one second share a transactionId).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from iyscheck.consent import Channel, RecipientType, Status, is_citizens_own

TAG_BYTES: Final = 16
LOG_ID_BYTES: Final = 16
TRANSACTION_ID_MAX_CHARS: Final = 64
"""İYS: "always 64 characters"; partners send shorter ones."""
TRANSACTION_BYTES: Final = TRANSACTION_ID_MAX_CHARS // 2
SOURCE_MAX_CHARS: Final = 64

STATUS_PRECEDENCE: Final[npt.NDArray[np.uint8]] = np.array([0, 1, 3, 2], np.uint8)
"""Indexed by Status: on a tie of registration times RET wins over unknown over ONAY."""

KNOWN_SOURCES: Final = (
    # The numbers are the places in this tuple, starting at 1; append only. İYS API 3.2.0, "TANIMLAR".
    "HS_2015",
    "HS_KARAR",
    "HS_FIZIKSEL_ORTAM",
    "HS_ISLAK_IMZA",
    "HS_ETKINLIK",
    "HS_ATM",
    "HS_EORTAM",
    "HS_WEB",
    "HS_MOBIL",
    "HS_MESAJ",
    "HS_EPOSTA",
    "HS_CAGRI_MERKEZI",
    "HS_SOSYAL_MEDYA",
    "IYS_KISAMESAJ",
    "IYS_CM",
    "IYS_WEB",
    "IYS_WEB_YENI",
    "IYS_MOBIL",
    "IYS_EPOSTA",
    "IYS_AHS_HAT_KAPATMA",
    "IYS_FRAME_EPOSTA",
    "IYS_FRAME_SMS",
    # Retired at İYS or seen at partners only
    "HS_TACIR",
    "HS_FIZIKSEL_MAGAZA",
    "IYS_3338",
    "IYS_KISA_LINK",
)


CITIZENS_SOURCES: Final[npt.NDArray[np.bool_]] = np.array([False, *map(is_citizens_own, KNOWN_SOURCES)])
"""Whether a source is the citizen's own act, by its number; 0, any other text, has to be read."""
CITIZENS_SOURCES.setflags(write=False)


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a store's log: `sequence` feed rows of log `log_id` (16 bytes) have been consumed."""

    log_id: bytes
    sequence: int


class LogStanding(NamedTuple):
    """How a store stands in the log that replicas follow: `role` is "primary" or "replica".

    `batch` of `term` is the newest that is in. `lag_s` is how long ago the primary made it, 0 where the clocks differ
    the other way; a primary has none. Of an `untrusted` store nothing commercial is answered.
    """

    role: str
    term: int
    batch: int
    lag_s: float | None
    untrusted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentChange:
    """One change of one consent. Times are local seconds (see `times.local_seconds`), 0 = absent.

    `source` is İYS's code as text (any code, known or not, may be empty); `transaction_id` at most 64 ASCII
    characters, empty = absent; `sequence` the position of the row.
    """

    brand: int
    channel: Channel
    recipient_type: RecipientType
    tag: bytes
    status: Status
    registered: int
    consented: int
    source: str
    transaction_id: str
    sequence: int

    @property
    def precedence(self) -> tuple[int, int, int, bytes, bytes]:
        """What decides between two changes of the same consent: the greater one stays."""
        return (
            self.registered,
            int(STATUS_PRECEDENCE[self.status]),
            self.consented,
            self.source.encode(),
            self.transaction_id.encode(),
        )


NO_TRANSACTION: Final = 0
HEX_TRANSACTION: Final = 1
"""64 lower-case hexadecimal digits, kept as 32 bytes."""
TEXT_TRANSACTION: Final = 2

SOURCE_NUMBERS: Final = {name: number for number, name in enumerate(KNOWN_SOURCES, 1)}
_LOWER_HEX: Final = re.compile("[0-9a-f]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentColumns:
    """N changes as columns.

    brand uint32, channel uint8, recipient_type uint8, tag uint8 (N, 16), status uint8, registered and consented
    int64 local seconds (0 = absent), sequence int64. `source` uint8 is a place in KNOWN_SOURCES counted from 1, or 0
    for any other text; `transaction_form` uint8 is one of the three forms above and `transaction` uint8 (N, 32) the
    id of a hexadecimal one, zero otherwise. What these cannot say is a text: `text` int32 is a place in `texts`,
    (source, transaction id), each empty where a column says it; `texts[0]` is two empty ones.
    """

    brand: npt.NDArray[np.uint32]
    channel: npt.NDArray[np.uint8]
    recipient_type: npt.NDArray[np.uint8]
    tag: npt.NDArray[np.uint8]
    status: npt.NDArray[np.uint8]
    registered: npt.NDArray[np.int64]
    consented: npt.NDArray[np.int64]
    source: npt.NDArray[np.uint8]
    transaction_form: npt.NDArray[np.uint8]
    transaction: npt.NDArray[np.uint8]
    text: npt.NDArray[np.int32]
    sequence: npt.NDArray[np.int64]
    texts: tuple[tuple[str, str], ...] = (("", ""),)

    def __len__(self) -> int:
        """Count the changes."""
        return len(self.brand)

    @property
    def by_citizen(self) -> npt.NDArray[np.bool_]:
        """Which changes are the citizen's own act at İYS: bool (N,)."""
        texts = np.array([is_citizens_own(source) for source, _ in self.texts])
        by_text: npt.NDArray[np.bool_] = texts[self.text] & (self.source == 0)
        return CITIZENS_SOURCES[self.source] | by_text

    @classmethod
    def of(cls, changes: Sequence[ConsentChange]) -> "ConsentColumns":
        """Turn single changes into columns."""
        tags = np.frombuffer(b"".join(c.tag for c in changes), np.uint8).reshape(-1, TAG_BYTES)
        evidence = evidence_columns([c.source for c in changes], [c.transaction_id for c in changes])
        return cls(
            brand=np.array([c.brand for c in changes], np.uint32),
            channel=np.array([c.channel for c in changes], np.uint8),
            recipient_type=np.array([c.recipient_type for c in changes], np.uint8),
            tag=tags,
            status=np.array([c.status for c in changes], np.uint8),
            registered=np.array([c.registered for c in changes], np.int64),
            consented=np.array([c.consented for c in changes], np.int64),
            source=evidence.source,
            transaction_form=evidence.transaction_form,
            transaction=evidence.transaction,
            text=evidence.text,
            sequence=np.array([c.sequence for c in changes], np.int64),
            texts=evidence.texts,
        )

    @classmethod
    def join(cls, parts: Sequence["ConsentColumns"]) -> "ConsentColumns":
        """Put columns behind one another; there must be at least one part."""
        texts: list[tuple[str, str]] = [("", "")]
        text = []
        for part in parts:
            # Each part's texts follow those before, except the empty pair that all share as the first.
            text.append(np.where(part.text > 0, part.text + np.int32(len(texts) - 1), np.int32(0)))
            texts += part.texts[1:]
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ROW_COLUMNS}
        return cls(**joined | {"text": np.concatenate(text)}, texts=tuple(texts))

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_] | slice) -> "ConsentColumns":
        """Return the named rows, in that order; the texts are shared."""
        return ConsentColumns(**{name: getattr(self, name)[rows] for name in _ROW_COLUMNS}, texts=self.texts)

    def change(self, row: int) -> ConsentChange:
        """Return one row as a change."""
        source, transaction_id = self.evidence(row)
        return ConsentChange(
            brand=int(self.brand[row]),
            channel=Channel(self.channel[row]),
            recipient_type=RecipientType(self.recipient_type[row]),
            tag=self.tag[row].tobytes(),
            status=Status(self.status[row]),
            registered=int(self.registered[row]),
            consented=int(self.consented[row]),
            source=source,
            transaction_id=transaction_id,
            sequence=int(self.sequence[row]),
        )

    def evidence(self, row: int) -> tuple[str, str]:
        """Return source and transaction id of one row."""
        source, transaction_id = self.texts[self.text[row]]
        if self.source[row]:
            source = KNOWN_SOURCES[self.source[row] - 1]
        if self.transaction_form[row] == HEX_TRANSACTION:
            transaction_id = self.transaction[row].tobytes().hex()
        return source, transaction_id


_ROW_COLUMNS: Final = tuple(name for name in ConsentColumns.__slots__ if name != "texts")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceColumns:
    """Sources and transaction ids as ConsentColumns keeps them."""

    source: npt.NDArray[np.uint8]
    transaction_form: npt.NDArray[np.uint8]
    transaction: npt.NDArray[np.uint8]
    text: npt.NDArray[np.int32]
    texts: tuple[tuple[str, str], ...]


def evidence_columns(sources: Sequence[str], transaction_ids: Sequence[str]) -> EvidenceColumns:
    """Turn N sources and N transaction ids, empty where absent, into columns."""
    source = np.array([SOURCE_NUMBERS.get(name, 0) for name in sources], np.uint8)
    form, transaction = _transactions(transaction_ids)
    text = np.zeros(len(sources), np.int32)
    places: dict[tuple[str, str], int] = {("", ""): 0}
    for row in np.flatnonzero((source == 0) | (form == TEXT_TRANSACTION)).tolist():
        pair = (
            "" if source[row] else sources[row],
            transaction_ids[row] if form[row] == TEXT_TRANSACTION else "",
        )
        text[row] = places.setdefault(pair, len(places))
    return EvidenceColumns(
        source=source, transaction_form=form, transaction=transaction, text=text, texts=tuple(places)
    )


def _transactions(texts: Sequence[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return the forms of N transaction ids and the 32 bytes of each."""
    joined = "".join(texts)
    if set(map(len, texts)) == {TRANSACTION_ID_MAX_CHARS} and _LOWER_HEX.fullmatch(joined):
        packed = bytes.fromhex(joined)
        form = np.full(len(texts), HEX_TRANSACTION, np.uint8)
    else:
        whole = [len(text) == TRANSACTION_ID_MAX_CHARS and _LOWER_HEX.fullmatch(text) is not None for text in texts]
        packed = b"".join(
            bytes.fromhex(text) if is_hex else bytes(TRANSACTION_BYTES)
            for text, is_hex in zip(texts, whole, strict=True)
        )
        form = np.where(whole, HEX_TRANSACTION, TEXT_TRANSACTION).astype(np.uint8)
        form[[not text for text in texts]] = NO_TRANSACTION
    return form, np.frombuffer(packed, np.uint8).reshape(-1, TRANSACTION_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetailerAccess:
    """Which retailers may use a consent, as registered at `registered` (local seconds). Empty = nobody."""

    brand: int
    channel: Channel
    recipient_type: RecipientType
    tag: bytes
    registered: int
    retailers: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Brand:
    """A brand's registration. `channels` are those it is authorised for; `legacy_deadline` 0 = the policy's."""

    brand: int
    iys_code: int
    active: bool
    channels: frozenset[Channel]
    legacy_deadline: int
    registered: int


def merge_access(stored: RetailerAccess, new: RetailerAccess) -> RetailerAccess:
    """Newest wins; of two of the same second only what both allow stays."""
    if new.registered != stored.registered:
        return new if new.registered > stored.registered else stored
    both = stored.retailers & new.retailers
    return stored if both == stored.retailers else new if both == new.retailers else replace(stored, retailers=both)


def merge_brand(stored: Brand, new: Brand) -> Brand:
    """Newest wins; of two of the same second the restrictive value of each field stays."""
    if new.registered != stored.registered:
        return new if new.registered > stored.registered else stored
    own_deadlines = [deadline for deadline in (stored.legacy_deadline, new.legacy_deadline) if deadline]
    return Brand(
        brand=stored.brand,
        iys_code=min(stored.iys_code, new.iys_code),
        active=stored.active and new.active,
        channels=stored.channels & new.channels,
        legacy_deadline=min(own_deadlines, default=0),
        registered=stored.registered,
    )
