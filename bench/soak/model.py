"""What the right answer is, written down a second time: the rule and the order of changes in plain Python.

It shares no code with the engine, on purpose: a mistake in one of the two shows as a difference. It keeps, for each
key, what stood there from which place of the log on. An answer names the place it was given from, so that there is
exactly one right answer, however late it arrives.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

REASONS: Final = {
    1: "CONSENTED",
    2: "MERCHANT_NOT_REFUSED",
    3: "EXEMPT_MESSAGE",
    64: "INVALID_ADDRESS",
    65: "BRAND_NOT_REGISTERED",
    66: "BRAND_INACTIVE",
    67: "DATA_STALE",
    68: "STATUS_UNKNOWN",
    69: "REFUSED",
    70: "REGISTERED_TOO_LATE",
    71: "RETAILER_NOT_AUTHORISED",
    73: "NO_CONSENT",
}
"""The reasons that a server with its defaults may give, as the README lists them."""
YES: Final = frozenset({"CONSENTED", "MERCHANT_NOT_REFUSED", "EXEMPT_MESSAGE"})

_RANKS: Final = {"ONAY": 1, "RET": 3}
"""Which status wins within a second; any other one is unknown, and stands between the two."""
_UNKNOWN: Final = 2
_OLD_CONSENTS_BEFORE: Final = "2020-12-01 00:00:00"
_TOO_LATE_FROM: Final = {"announced": "2020-12-01 00:00:00", "over-150k": "2021-01-01 00:00:00"}
_USUALLY_TOO_LATE_FROM: Final = "2021-06-01 00:00:00"

Row = Mapping[str, Any]
"""A row of a feed, as it is written to the file."""
Key = tuple[int, str, str, str]
"""brandCode, type, recipientType, recipient."""


class Ask(NamedTuple):
    """One question; `number` stands for its recipient wherever something is printed."""

    number: int
    brand: int
    channel: str
    kind: str
    recipient: str
    """The address as rows write it, whatever its spelling in the question is."""
    spelt: str
    retailer: int | None = None
    exempt: bool = False
    readable: bool = True


class Consent(NamedTuple):
    """What a row says of a consent. Of two, the greater one stands: the order of the fields is İYS's."""

    registered: str
    rank: int
    consented: str
    source: str
    transaction: str


class _Access(NamedTuple):
    registered: str
    retailers: frozenset[int]


class _Brand(NamedTuple):
    registered: str
    active: bool
    channels: frozenset[str]
    too_late_from: str


KeyT = TypeVar("KeyT")
FactT = TypeVar("FactT")
_History = list[tuple[int, FactT]]


def _at(history: Sequence[tuple[int, FactT]] | None, sequence: int) -> FactT | None:
    """Return what stood when so many rows were in."""
    place = bisect_right(history, sequence, key=lambda entry: entry[0]) if history else 0
    return history[place - 1][1] if history and place else None


class Model:
    """Everything the feed has said, row by row. One thread adds rows; any thread asks."""

    def __init__(self) -> None:
        self.rows = 0
        """How many rows there are: no answer can be from behind them."""
        self._consents: dict[Key, _History[Consent]] = {}
        self._access: dict[Key, _History[_Access]] = {}
        self._brands: dict[int, _History[_Brand]] = {}
        self._fresh: set[int] = set()

    def add(self, row: Row) -> None:
        """Take the next row of the feed."""
        match row.get("kind", "consent"):
            case "brand":
                self._add_brand(row)
            case "retailerAccess":
                self._add_access(row)
            case "watermark":
                self._fresh.add(row["brandCode"])  # only in the first load, or of a brand that has one
            case _:
                consent = _consent_of(row)
                stands = _last(self._consents, _key_of(row))
                if stands is None or consent > stands:
                    self._note(self._consents, _key_of(row), consent)
                if "retailerAccess" in row:
                    self._add_access(row)
        self.rows += 1  # last: whoever asks from another thread may see no row that is there in part

    def reason(self, ask: Ask, sequence: int) -> str:  # noqa: PLR0911 - one for each row of the table of reasons
        """Return the right answer when so many rows are in."""
        brand = _at(self._brands.get(ask.brand), sequence)
        if ask.exempt or not ask.readable:
            return "EXEMPT_MESSAGE" if ask.exempt else "INVALID_ADDRESS"
        if brand is None:
            return "BRAND_NOT_REGISTERED"
        if not brand.active or ask.channel not in brand.channels:
            return "BRAND_INACTIVE"
        if ask.brand not in self._fresh:
            return "DATA_STALE"
        consent = self.consent(ask, sequence)
        if consent is None:
            return "NO_CONSENT" if ask.kind == "BIREYSEL" else "MERCHANT_NOT_REFUSED"
        if consent.rank != _RANKS["ONAY"]:
            return "REFUSED" if consent.rank == _RANKS["RET"] else "STATUS_UNKNOWN"
        if ask.kind == "BIREYSEL" and _is_too_late(consent, brand.too_late_from):
            return "REGISTERED_TOO_LATE"
        if ask.retailer is not None and not self._lists(ask, sequence):
            return "RETAILER_NOT_AUTHORISED"
        return "CONSENTED"

    def consent(self, ask: Ask, sequence: int) -> Consent | None:
        """Return what stands for a recipient when so many rows are in."""
        return _at(self._consents.get(_key_asked(ask)), sequence)

    def _lists(self, ask: Ask, sequence: int) -> bool:
        access = _at(self._access.get(_key_asked(ask)), sequence)
        return access is not None and ask.retailer in access.retailers

    def _add_brand(self, row: Row) -> None:
        new = _Brand(
            row["creationDate"],
            row["active"],
            frozenset(row.get("channels", ("ARAMA", "MESAJ", "EPOSTA"))),
            _TOO_LATE_FROM.get(row.get("legacyDeadline", ""), _USUALLY_TOO_LATE_FROM),
        )
        stands = _last(self._brands, row["brandCode"])
        if stands is not None and stands.registered == new.registered:  # of one second what both allow stays
            new = _Brand(
                new.registered,
                stands.active and new.active,
                stands.channels & new.channels,
                min(stands.too_late_from, new.too_late_from),
            )
        if stands is None or new.registered >= stands.registered:
            self._note(self._brands, row["brandCode"], new)

    def _add_access(self, row: Row) -> None:
        new = _Access(row["creationDate"], frozenset(row["retailerAccess"]))
        stands = _last(self._access, _key_of(row))
        if stands is not None and stands.registered == new.registered:
            new = _Access(new.registered, stands.retailers & new.retailers)
        if stands is None or new.registered >= stands.registered:
            self._note(self._access, _key_of(row), new)

    def _note(self, histories: dict[KeyT, _History[FactT]], key: KeyT, fact: FactT) -> None:
        histories.setdefault(key, []).append((self.rows + 1, fact))


def _last(histories: Mapping[KeyT, _History[FactT]], key: KeyT) -> FactT | None:
    history = histories.get(key)
    return history[-1][1] if history else None


def _key_of(row: Row) -> Key:
    return row["brandCode"], row["type"], row["recipientType"], row["recipient"]


def _key_asked(ask: Ask) -> Key:
    return ask.brand, ask.channel, ask.kind, ask.recipient


def _consent_of(row: Row) -> Consent:
    return Consent(
        row["creationDate"],
        _RANKS.get(row["status"], _UNKNOWN),
        row.get("consentDate", ""),
        row.get("source", ""),
        row.get("transactionId", ""),
    )


def _is_too_late(consent: Consent, from_then_on: str) -> bool:
    old = consent.consented < _OLD_CONSENTS_BEFORE
    return old and consent.registered >= from_then_on and not consent.source.startswith("IYS_")
