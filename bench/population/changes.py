"""What happens after the first feed: refusals, refreshed and renewed approvals, closed lines, new consents.

Change t of a population is the same whoever asks for it; only its times depend on when. No consent changes twice
before each has changed once.
"""

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.population.brands import Brand
from bench.population.consents import Book, Column, Consents, registration_lag
from bench.population.dice import Dice
from bench.population.sources import HS_WEB, LINE_CLOSURE, draw_sources
from iyscheck.consent import LEGACY_CONSENTS_BEFORE, REGISTERED_BEFORE, Channel, LegacyDeadline, RecipientType, Status

_NEW_SHARE: Final = 0.1
_LAG_MOST_S: Final = 2 * 86_400


class Kind(IntEnum):
    """What a change does."""

    REFUSED = 0
    REFRESHED = 1
    CLOSED = 2
    RENEWED = 3
    ADDED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """N changes: the consents as they were and as they become, in order of registration, and what happened (int64)."""

    before: Consents
    after: Consents
    kind: Column

    def count(self, kind: Kind) -> int:
        """Count the changes of a kind."""
        return int((self.kind == kind).sum())


class History:
    """Makes the changes of a population."""

    def __init__(self, dice: Dice, book: Book, brands: tuple[Brand, ...]) -> None:
        self._dice = dice
        self._book = book
        self._brands = brands
        self._consents = sum(brand.size for brand in brands)
        self._order = dice.shuffle("order of changes", self._consents)

    def wave(self, first: int, registered: Column) -> Changes:
        """Make the changes `first`, `first` + 1, … registered at these times, shape (N,), rising.

        Change 0 refuses a permitted individual of the flagship.
        """
        serials = np.arange(first, first + len(registered), dtype=np.int64)
        numbers = self._order(serials % self._consents)
        added = self._book.is_scripted(numbers) | (self._dice.units("added", serials) < _NEW_SHARE)
        if first == 0:
            numbers[0] = self._book.scripted(0, "to be refused")
            added[0] = False
        before = self._book.consents(numbers)
        # Persons from 2 · people on are in no feed before, and in no campaign.
        before.person[added] = self._book.people * 2 + serials[added] % self._book.people
        before.old_spelling[added] = False
        kind = np.where(added, Kind.ADDED, self._kinds("change", serials, before))
        if first == 0:
            kind[0] = Kind.REFUSED
        return self._changed("change", serials, before, kind, registered)

    def of_day(self, brand: Brand, topic: str, registered: Column) -> Changes:
        """Make changes of one brand's consents, registered at these times."""
        serials = np.arange(len(registered), dtype=np.int64)
        chosen = self._dice.shuffle(f"{topic} {brand.code}", brand.size)(serials % brand.size)
        numbers = brand.first + chosen
        numbers = numbers[~self._book.is_scripted(numbers)]
        serials, registered = serials[: len(numbers)], registered[: len(numbers)]
        before = self._book.consents(numbers)
        topic = f"{topic} {brand.code}"
        return self._changed(topic, serials, before, self._kinds(topic, serials, before), registered)

    def _kinds(self, topic: str, serials: Column, before: Consents) -> Column:
        kind = self._dice.picks(f"{topic} kind", serials, (0.5, 0.35, 0.15))
        kind[(kind == Kind.CLOSED) & (before.channel == Channel.EPOSTA)] = Kind.REFUSED
        kind[before.status != Status.ONAY] = Kind.RENEWED
        return kind

    def _changed(self, topic: str, serials: Column, before: Consents, kind: Column, registered: Column) -> Changes:
        refusal = (kind == Kind.REFUSED) | (kind == Kind.CLOSED)
        source = draw_sources(self._dice, f"{topic} source", serials, channel=before.channel, refusal=refusal)
        # Only a closed line may say so: a refusal drawn with that source was the citizen's own.
        source[refusal & (source == LINE_CLOSURE)] = HS_WEB
        source[kind == Kind.CLOSED] = LINE_CLOSURE
        lag = np.minimum(registration_lag(self._dice, f"{topic} lag", serials, source), _LAG_MOST_S)
        after = replace(
            before,
            status=np.where(refusal, Status.RET, Status.ONAY).astype(np.uint8),
            source=source,
            # A closed line repeats the consent time it ends, or its absence (İYS API 3.2.0, note of 03/10/2023).
            consented=np.where(kind == Kind.CLOSED, before.consented, registered - lag),
            registered=registered,
            retailers=np.zeros_like(before.retailers),
            transaction=self._book.transactions(f"{topic} transaction", serials),
        )
        order = np.lexsort((after.transaction[:, 0], after.registered))
        return Changes(before=before.take(order), after=after.take(order), kind=kind[order])

    def flips(self, changes: Changes, most: int) -> npt.NDArray[np.int64]:
        """Return places of changes that turn CONSENTED into REFUSED, change 0 first, at most so many."""
        before = changes.before
        answering = np.array([[brand.answers(channel) for channel in Channel] for brand in self._brands])
        deadlines = [brand.legacy_deadline or LegacyDeadline.UP_TO_150K for brand in self._brands]
        in_time = before.registered < np.array([REGISTERED_BEFORE[each] for each in deadlines])[before.brand]
        young = before.consented >= LEGACY_CONSENTS_BEFORE
        merchant = before.recipient_type == RecipientType.TACIR
        permitted = (before.status == Status.ONAY) & (in_time | young | merchant)
        permitted &= answering[before.brand, before.channel - 1] & (changes.kind != Kind.ADDED)
        places = np.flatnonzero(permitted & (changes.after.status == Status.RET))
        first = before.number[places] == self._book.scripted(0, "to be refused")
        return places[np.argsort(~first, kind="stable")][:most]
