"""What a population knows about its consents, in columns: who, when, from where, and whether.

Consent i belongs to the brand whose range holds i. Inside a brand a shuffle scatters channels, recipient types and
people, so that any run of consents looks like the whole. The first few individuals of two brands' MESAJ consents
are written by hand: they are what `examples` asks about.
"""

from dataclasses import dataclass, fields
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from bench.population.brands import RETAILERS, Brand, Cast
from bench.population.dice import Dice, Shuffle, Shuffles
from bench.population.people import PEOPLE_MAX
from bench.population.sources import BY_IYS, HS_2015, HS_WEB, LINE_CLOSURE, NO_SOURCE, draw_sources, existing
from iyscheck.consent import Channel, RecipientType, Status
from iyscheck.times import local_seconds

Column = npt.NDArray[np.int64]

FIRST_CONSENT: Final = local_seconds("2015-05-01 00:00:00")
CONSENTS_BEFORE: Final = local_seconds("2026-02-01 00:00:00")
"""No consent of the first feed is younger, and none is registered more than three days later."""

CONTEXTS: Final = tuple((channel, kind) for channel in Channel for kind in RecipientType)
_CONTEXT_CHANNELS: Final = np.array([channel for channel, _ in CONTEXTS], np.uint8)
_CONTEXT_TYPES: Final = np.array([kind for _, kind in CONTEXTS], np.uint8)
_SHOWCASE: Final = CONTEXTS.index((Channel.MESAJ, RecipientType.BIREYSEL))
_CHANNEL_SHARES: Final = {Channel.ARAMA: 0.25, Channel.MESAJ: 0.62, Channel.EPOSTA: 0.13}
_TYPE_SHARES: Final = {RecipientType.BIREYSEL: 0.85, RecipientType.TACIR: 0.15}

_REFUSED_SHARE: Final = 0.22
_ODD_STATUS_SHARE: Final = 1 / 40_000
_MAY_2015_SHARE: Final = 0.03
_LEGACY_SHARE: Final = 0.25
_TOO_LATE_SHARE: Final = 0.02
_DATELESS_MERCHANT_SHARE: Final = 0.2
_RETAILER_SHARE: Final = 0.06
_OLD_SPELLING_SHARE: Final = 1 / 2_000
_MOST_RETAILERS: Final = 4

_LEGACY_BEFORE: Final = local_seconds("2020-12-01 00:00:00")
_UPLOADS_FROM: Final = local_seconds("2020-06-01 00:00:00")
_UPLOADS_BEFORE: Final = local_seconds("2021-06-01 00:00:00")
_LATE_UPLOADS_BEFORE: Final = local_seconds("2022-01-01 00:00:00")
_THREE_DAYS_S: Final = 3 * 86_400


@dataclass(frozen=True, slots=True)
class Script:
    """A consent written by hand: status, times, how many retailers (the brand's first ones) may use it."""

    status: Status = Status.ONAY
    consented: str = "2023-04-11 14:05:10"
    registered: str = "2023-04-11 14:05:12"
    retailers: int = 0


SCRIPTS: Final = {
    "consented": Script(),
    "refused": Script(Status.RET),
    "odd status": Script(Status.UNKNOWN),
    "too late": Script(consented="2019-08-20 10:00:00", registered="2021-07-05 09:12:44"),
    "too late for a large sender": Script(consented="2019-08-20 10:00:00", registered="2021-03-02 16:30:00"),
    "with retailers": Script(retailers=2),
    "to be refused": Script(),
}
"""The consents k = 0, 1, … of the showcase brands, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consents:
    """N consents as columns, each int64 of shape (N,) if not said otherwise.

    `number` is the consent's own; `brand` the place in the tuple of brands; channel, recipient_type and status are
    uint8; `source` a place in SOURCES or -1; times are local seconds, 0 = absent. `retailers` of the brand's
    retailers from `first_retailer` on (round again at the end) may use the consent; 0 = it has no list.
    `listed_apart` (bool): the list comes in a row of its own. `old_spelling` (bool): the number carries the extra 0
    of some old rows at İYS. `transaction` is uint64 of shape (N, 4).
    """

    number: Column
    brand: Column
    channel: npt.NDArray[np.uint8]
    recipient_type: npt.NDArray[np.uint8]
    person: Column
    status: npt.NDArray[np.uint8]
    source: Column
    consented: Column
    registered: Column
    first_retailer: Column
    retailers: Column
    listed_apart: npt.NDArray[np.bool_]
    old_spelling: npt.NDArray[np.bool_]
    transaction: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        """Count the consents."""
        return len(self.number)

    def take(self, which: slice | Column) -> Self:
        """Return the consents at these places."""
        return type(self)(**{column.name: getattr(self, column.name)[which] for column in fields(self)})


class Book:
    """Says everything about any consent, by its number. Holds a few numbers for each brand, nothing for a consent.

    `people` is how many people have consents: persons from that number on have none.
    """

    def __init__(self, dice: Dice, brands: tuple[Brand, ...]) -> None:
        self._dice = dice
        self._firsts = np.array([brand.first for brand in brands], np.int64)
        self._sizes = np.array([brand.size for brand in brands], np.int64)
        self._has_retailers = np.array([bool(brand.retailers) for brand in brands])
        self._limits = self._context_limits()
        cast = Cast.of(len(brands))
        self._showcases = (cast.flagship, cast.own_deadline)
        consents = int(self._sizes.sum())
        self.people = max(consents // 4, int(np.diff(self._limits, axis=1).max()) * 5 // 4)
        if self.people * 3 > PEOPLE_MAX:
            raise ValueError(f"{consents} consents: there are not enough phone numbers for so many.")
        places = range(len(brands))
        self._scatter = Shuffles([dice.shuffle(f"scatter {place}", brands[place].size) for place in places])
        self._audiences = Shuffles(
            [
                dice.shuffle(f"audience {place} {context}", self.people)
                for place in places
                for context in range(len(CONTEXTS))
            ]
        )

    def _context_limits(self) -> Column:
        """Return where the contexts of each brand begin and end, shape (brands, contexts + 1)."""
        shares = [_CHANNEL_SHARES[channel] * _TYPE_SHARES[kind] for channel, kind in CONTEXTS]
        limits = np.append(0.0, np.cumsum(shares))
        limits[-1] = 1.0
        return (limits * self._sizes[:, None]).astype(np.int64)

    def audience(self, brand: int, channel: Channel, recipient_type: RecipientType) -> tuple[int, Shuffle]:
        """Return how many people the brand knows so, and the shuffle of which its first values are they."""
        context = CONTEXTS.index((channel, recipient_type))
        return int(np.diff(self._limits[brand])[context]), self._audiences.each[brand * len(CONTEXTS) + context]

    def scripted(self, brand: int, script: str) -> int:
        """Return the number of a showcase brand's hand-written consent."""
        place = int(self._limits[brand, _SHOWCASE]) + list(SCRIPTS).index(script)
        return int(self._firsts[brand]) + self._scatter.each[brand].back(place)

    def consents(self, numbers: Column) -> Consents:
        """Tell all about the consents of these numbers, shape (N,)."""
        brand, context, place = self._places(numbers)
        channel, recipient_type = _CONTEXT_CHANNELS[context], _CONTEXT_TYPES[context]
        dice = self._dice
        status = self._statuses(numbers)
        source = draw_sources(dice, "source", numbers, channel=channel, refusal=status == Status.RET)
        source, consented, registered = self._history(numbers, source, status, recipient_type)
        listed = self._has_retailers[brand] & (status == Status.ONAY)
        listed &= dice.units("has retailers", numbers) < _RETAILER_SHARE
        found = Consents(
            number=numbers,
            brand=brand,
            channel=channel,
            recipient_type=recipient_type,
            person=self._audiences(brand * len(CONTEXTS) + context, place),
            status=status,
            source=source,
            consented=consented,
            registered=registered,
            first_retailer=dice.below("first retailer", numbers, RETAILERS),
            retailers=np.where(listed, 1 + dice.below("retailers", numbers, _MOST_RETAILERS), 0),
            listed_apart=dice.units("listed apart", numbers) < 0.5,
            old_spelling=dice.units("old spelling", numbers) < _OLD_SPELLING_SHARE,
            transaction=self.transactions("transaction", numbers),
        )
        self._write_scripts(found, context, place)
        return found

    def is_scripted(self, numbers: Column) -> npt.NDArray[np.bool_]:
        """Say which consents are written by hand: changes leave those alone."""
        brand, context, place = self._places(numbers)
        return self._on_show(brand, context) & (place < len(SCRIPTS))

    def transactions(self, topic: str, items: Column) -> npt.NDArray[np.uint64]:
        """Draw transaction ids of 32 bytes, as uint64 of shape (N, 4)."""
        return np.stack([self._dice.words(f"{topic} {word}", items) for word in range(4)], axis=1)

    def _places(self, numbers: Column) -> tuple[Column, Column, Column]:
        """Return each consent's brand, its context and its place among the brand's consents of that context."""
        brand = np.searchsorted(self._firsts, numbers, side="right") - 1
        scattered = self._scatter(brand, numbers - self._firsts[brand])
        limits = self._limits[brand]
        context = (scattered[:, None] >= limits[:, 1:-1]).sum(axis=1)
        return brand, context, scattered - np.take_along_axis(limits, context[:, None], axis=1)[:, 0]

    def _statuses(self, numbers: Column) -> npt.NDArray[np.uint8]:
        luck = self._dice.units("status", numbers)
        status = np.where(luck < _REFUSED_SHARE, Status.RET, Status.ONAY).astype(np.uint8)
        status[luck >= 1 - _ODD_STATUS_SHARE] = Status.UNKNOWN
        return status

    def _history(
        self, numbers: Column, source: Column, status: npt.NDArray[np.uint8], recipient_type: npt.NDArray[np.uint8]
    ) -> tuple[Column, Column, Column]:
        """Draw source, consent time and registration time so that they could have been."""
        dice = self._dice
        onay = status == Status.ONAY
        era = dice.picks("era", numbers, (_MAY_2015_SHARE, _LEGACY_SHARE, 1 - _MAY_2015_SHARE - _LEGACY_SHARE))
        may_2015, legacy = onay & (era == 0), onay & (era == 1)
        when = dice.units("consent time", numbers)
        start = np.where(legacy, FIRST_CONSENT, _LEGACY_BEFORE)
        end = np.where(legacy, _LEGACY_BEFORE, CONSENTS_BEFORE)
        consented = np.where(may_2015, FIRST_CONSENT, start + (when * (end - start)).astype(np.int64))
        source = np.where(may_2015, HS_2015, existing(source, consented))
        source[legacy & BY_IYS[source]] = HS_WEB
        registered = consented + registration_lag(dice, "registration", numbers, source)
        uploaded = may_2015 | legacy
        registered[uploaded] = self._upload_times(numbers[uploaded], consented[uploaded])
        closed = source == LINE_CLOSURE
        left = CONSENTS_BEFORE - consented[closed]
        # A closed line keeps the consent time of what it ends (İYS API 3.2.0, note of 03/10/2023).
        registered[closed] = consented[closed] + (dice.units("closed", numbers[closed]) * left).astype(np.int64)
        dateless = onay & ~uploaded & ~BY_IYS[source] & (recipient_type == RecipientType.TACIR)
        dateless &= dice.units("dateless", numbers) < _DATELESS_MERCHANT_SHARE
        return np.where(dateless, NO_SOURCE, source), np.where(dateless, 0, consented), registered

    def _upload_times(self, numbers: Column, consented: Column) -> Column:
        """Draw when consents from before December 2020 came to İYS: most in time, some too late."""
        late = self._dice.units("too late", numbers) < _TOO_LATE_SHARE
        start = np.where(late, _UPLOADS_BEFORE, np.maximum(consented, _UPLOADS_FROM))
        end = np.where(late, _LATE_UPLOADS_BEFORE, _UPLOADS_BEFORE)
        uploaded: Column = start + (self._dice.units("upload time", numbers) * (end - start)).astype(np.int64)
        return uploaded

    def _write_scripts(self, found: Consents, context: Column, place: Column) -> None:
        on_show = self._on_show(found.brand, context)
        for number, script in enumerate(SCRIPTS.values()):
            here = on_show & (place == number)
            found.status[here] = script.status
            found.source[here] = HS_WEB
            found.consented[here] = local_seconds(script.consented)
            found.registered[here] = local_seconds(script.registered)
            found.first_retailer[here] = 0
            found.retailers[here] = np.where(self._has_retailers[found.brand[here]], script.retailers, 0)

    def _on_show(self, brand: Column, context: Column) -> npt.NDArray[np.bool_]:
        on_show: npt.NDArray[np.bool_] = np.isin(brand, self._showcases) & (context == _SHOWCASE)
        return on_show


def registration_lag(dice: Dice, topic: str, items: Column, source: Column) -> Column:
    """Draw how many seconds later İYS had it: at once if given there, else mostly within hours, always 3 days."""
    luck = dice.units(topic, items)
    return np.where(BY_IYS[source], luck * 3, luck**4 * _THREE_DAYS_S).astype(np.int64)
