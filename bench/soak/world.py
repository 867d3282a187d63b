"""What there is to ask about: brands, recipients, the rows of the feed, and questions, all from one seed.

The recipients are always the same ones: their consents change again and again, so that the store has no reason to
grow. A few hundred change and are asked about most of the time, so that many answers are about what changes just now.
"""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from bench.soak.model import Ask

CONSENTS: Final = 20_000
_UNRECORDED: Final = 0.2
"""So many recipients more have no consent at first; changes may give them one."""
_STRANGERS: Final = 10_000_000
"""From here on are recipients that no row ever names."""
_HOT_OF: Final = 40
"""One of so many recipients is hot."""
_KEYS_EACH: Final = 6
"""Brands, channels and types that one recipient has: a store that mixes them up gives a wrong answer."""

_CODES: Final = tuple(range(600_001, 600_013))
_RETAILED: Final = _CODES[:4]
_RETAILERS: Final = tuple(range(55_550_001, 55_550_009))
_TOGGLED, _LATE, _STALE, _UNREGISTERED = _CODES[8], _CODES[9], _CODES[10], _CODES[11]
_UNKNOWN_BRAND: Final = 699_999
_CHANNELS: Final = ("ARAMA", "MESAJ", "EPOSTA")
_KINDS: Final = ("BIREYSEL", "TACIR")
_SOURCES: Final = ("HS_WEB", "HS_MOBIL", "HS_KARAR", "IYS_WEB", "IYS_CM", "HS_YENI_KOD")
_STATUSES: Final = ("ONAY", "ONAY", "ONAY", "RET", "RET", "BEKLEMEDE")
_FIRST: Final = datetime(2020, 3, 1)  # noqa: DTZ001 - İYS's times have no zone
_FIRST_WITHIN_S: Final = 5 * 365 * 86_400
_CHANGES_FROM: Final = datetime(2025, 7, 1)  # noqa: DTZ001 - the same
_HOUR_S: Final = 3_600
_UNORDERED_S: Final = 2 * _HOUR_S
"""A hot recipient changes some times in an hour of the feed."""


class _Recipient(NamedTuple):
    brand: int
    channel: str
    kind: str
    recipient: str


class World:
    """Recipients by number, and rows and questions about them."""

    def __init__(self, seed: int, consents: int = CONSENTS) -> None:
        self._consents = consents
        self._random = random.Random(f"rows {seed}")
        self._recipients = list(self._made(random.Random(f"recipients {seed}"), round(consents * (1 + _UNRECORDED))))
        self._hot = random.Random(f"hot {seed}").sample(range(len(self._recipients)), consents // _HOT_OF)
        self._alike: dict[tuple[int, str, str], list[int]] = defaultdict(list)
        for number, each in enumerate(self._recipients):
            self._alike[each.brand, each.channel, each.kind].append(number)
        self._seconds = 0

    @staticmethod
    def _made(dice: random.Random, count: int) -> Iterator[_Recipient]:
        person, made = 0, 0
        while made < count:
            draws = {(dice.choice(_CODES), dice.choice(_CHANNELS), dice.choice(_KINDS)) for _ in range(_KEYS_EACH)}
            for brand, channel, kind in sorted(draws)[: count - made]:
                yield _Recipient(brand, channel, kind, _address(person, channel))
                made += 1
            person += 1

    # --- Rows -------------------------------------------------------------------------------------------------

    def first(self, complete_until: str) -> list[dict[str, Any]]:
        """Make the rows of the first load: brands, consents, and watermarks of that time."""
        rows = [_brand_row(code, _FIRST) for code in _CODES if code != _UNREGISTERED]
        for number in range(self._consents):
            registered = _FIRST + timedelta(seconds=self._random.randrange(_FIRST_WITHIN_S))
            rows.append(self._consent_row(number, registered))
        return rows + [
            {"kind": "watermark", "brandCode": code, "completeUntil": complete_until}
            for code in _CODES
            if code not in {_STALE, _UNREGISTERED}
        ]

    def delta(self, size: int) -> list[dict[str, Any]]:
        """Make the next rows: mostly newer, some of one second, some older than what stands."""
        return [self._change() for _ in range(size)]

    def _change(self) -> dict[str, Any]:
        dice = self._random
        self._seconds += dice.random() < 0.8
        at = _CHANGES_FROM + timedelta(seconds=self._when(dice))
        number = self._drawn(dice)
        drawn = dice.random()
        if drawn < 0.01:  # in no order, and some of the same second
            at = _CHANGES_FROM + timedelta(seconds=(self._seconds // 60 - dice.randrange(3)) * 60)
            active, channels = dice.random() < 0.7, dice.sample(_CHANNELS, dice.randint(1, 3))
            return _brand_row(_TOGGLED, at) | {"active": active, "channels": channels}
        if drawn < 0.05:
            return {"kind": "retailerAccess", **self._who(number), "retailerAccess": self._list(), **_created(at)}
        return self._consent_row(number, at)

    def _when(self, dice: random.Random) -> int:
        """Say when the next row is of: mostly now, sometimes before what stands, sometimes in the same second."""
        drawn = dice.random()
        if drawn < 0.7:
            return self._seconds
        if drawn < 0.9:
            return self._seconds - dice.randrange(_UNORDERED_S)
        step = dice.choice((_HOUR_S // 60, _HOUR_S))
        return (self._seconds // step + 1) * step

    def _consent_row(self, number: int, registered: datetime) -> dict[str, Any]:
        dice = self._random
        consented = registered - timedelta(seconds=dice.choice((60, 86_400, 400 * 86_400, 2_000 * 86_400)))
        transaction = dice.choice(("", f"{dice.getrandbits(256):064x}", f"T-{dice.getrandbits(32)}"))
        row = {
            **self._who(number),
            "status": dice.choice(_STATUSES),
            "source": dice.choice(_SOURCES),
            "consentDate": _text(consented),
            "transactionId": transaction,
            **_created(registered),
        }
        if self._recipients[number].brand in _RETAILED and dice.random() < 0.5:
            row["retailerAccess"] = self._list()
        return row

    def _list(self) -> list[int]:
        return sorted(self._random.sample(_RETAILERS, self._random.randrange(len(_RETAILERS))))

    def _who(self, number: int) -> dict[str, Any]:
        brand, channel, kind, recipient = self._recipients[number]
        return {"brandCode": brand, "type": channel, "recipientType": kind, "recipient": recipient}

    # --- Questions --------------------------------------------------------------------------------------------

    def ask(self, dice: random.Random) -> Ask:
        """Draw a question."""
        number = self._drawn(dice)
        brand, channel, kind, _ = self._recipients[number]
        exempt = dice.random() < 0.03
        if dice.random() < 0.01:
            brand = _UNKNOWN_BRAND
        return self._about(dice, number, (brand, channel, kind), retailer=_retailer(dice, brand), exempt=exempt)

    def column(self, dice: random.Random, size: int) -> list[Ask]:
        """Draw questions that differ in nothing but their recipient."""
        brand, channel, kind, _ = self._recipients[self._drawn(dice)]
        retailer, exempt = _retailer(dice, brand), dice.random() < 0.03
        numbers = dice.choices(self._alike[brand, channel, kind], k=size)
        return [
            self._about(dice, number, (brand, channel, kind), retailer=retailer, exempt=exempt) for number in numbers
        ]

    def _about(
        self, dice: random.Random, number: int, where: tuple[int, str, str], *, retailer: int | None, exempt: bool
    ) -> Ask:
        brand, channel, kind = where
        drawn = dice.random()
        if drawn < 0.03:
            return Ask(number, brand, channel, kind, "", _unreadable(channel), retailer, exempt, readable=False)
        if drawn < 0.13:
            number = _STRANGERS + dice.randrange(10_000)
            recipient = _address(number % _STRANGERS + 9_000_000, channel)
        else:
            recipient = self._recipients[number].recipient
        return Ask(number, brand, channel, kind, recipient, _spelt(dice, recipient), retailer, exempt)

    def _drawn(self, dice: random.Random) -> int:
        return dice.choice(self._hot) if dice.random() < 0.5 else dice.randrange(len(self._recipients))


def _address(person: int, channel: str) -> str:
    return f"kisi{person}@ornek.com.tr" if channel == "EPOSTA" else f"+90532{person % 10_000_000:07}"


def _unreadable(channel: str) -> str:
    return "+905321234567" if channel == "EPOSTA" else "kisi@ornek.com.tr"


def _spelt(dice: random.Random, recipient: str) -> str:
    """Write an address in one of its usual spellings."""
    if not recipient.startswith("+90"):
        return recipient
    rest = recipient[3:]
    return dice.choice((recipient, f"0{rest}", f"90{rest}", f"0 ({rest[:3]}) {rest[3:6]} {rest[6:8]} {rest[8:]}"))


def _retailer(dice: random.Random, brand: int) -> int | None:
    return dice.choice(_RETAILERS) if brand in _RETAILED and dice.random() < 0.4 else None


def _brand_row(code: int, at: datetime) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": "brand", "brandCode": code, "iysCode": code, "active": True, **_created(at)}
    return row | ({"legacyDeadline": "announced"} if code == _LATE else {})


def _created(at: datetime) -> Mapping[str, str]:
    return {"creationDate": _text(at)}


def _text(at: datetime) -> str:
    return at.isoformat(" ", "seconds")
