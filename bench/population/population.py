"""The population as its users see it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np

from bench.population.brands import Brand, Cast, Watermark, make_brands
from bench.population.campaign import Spellings
from bench.population.changes import History, Kind
from bench.population.consents import CONSENTS_BEFORE, Book, Column, Consents
from bench.population.dice import Dice
from bench.population.examples import Example, Examples, Flip
from bench.population.people import People
from bench.population.rows import CSV_HEADER, Rows, brand_row, hexadecimal, sink, times, watermark_row
from bench.population.sources import CODES, NO_SOURCE
from bench.population.summaries import ChangeSummary, DailySummary, FeedSummary
from iyscheck.consent import Channel, RecipientType, Status
from iyscheck.times import local_seconds

_TURKEY: Final = ZoneInfo("Europe/Istanbul")
_DAY_S: Final = 86_400
_BATCH: Final = 65_536
_SETTLED_AFTER_S: Final = 8 * _DAY_S
"""Changes begin so long after the last consent of the first feed, so that they are younger in every respect."""
_WAVE_S: Final = 2 * 3600
_OLD_WATERMARK_S: Final = 40 * 3600
_FLIPS_MOST: Final = 100
_DAILY_MOVERS: Final = 200
"""One consent of so many moves in a day."""
_DAILY_LEAST: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """One consent as the first feed leaves it. Times are the 19-character İYS texts, empty if absent.

    `address` is canonical; `retailers` is None where no list was ever given.
    """

    brand: int
    channel: Channel
    recipient_type: RecipientType
    address: str
    status: Status
    source: str
    consent_time: str
    registration_time: str
    transaction_id: str
    retailers: frozenset[int] | None


class Population:
    """All of it. `directory` holds the brands, the largest first; consents are numbered from 0.

    Raises ValueError for fewer than 12 brands, fewer than 50 consents a brand, or more than there are numbers for.
    """

    def __init__(self, seed: int, consents: int, brands: int) -> None:
        dice = Dice(seed)
        self.consents = consents
        self.brands = brands
        self.directory = make_brands(dice, consents, brands)
        self._dice = dice
        self._cast = Cast.of(brands)
        self._people = People(dice)
        self._book = Book(dice, self.directory)
        self._history = History(dice, self._book, self.directory)
        self._rows = Rows(self.directory, self._people)
        self._spellings = Spellings(dice, self._people)

    @property
    def largest_brand(self) -> int:
        """The code of the largest brand: it has retailers and may use every channel."""
        return self.directory[self._cast.flagship].code

    # --- What is true ---------------------------------------------------------------------------------------

    def columns(self, start: int, stop: int) -> Consents:
        """Tell all about the consents `start` to `stop - 1`, as columns."""
        if not 0 <= start <= stop <= self.consents:
            raise ValueError(f"There are {self.consents} consents.")
        return self._book.consents(np.arange(start, stop, dtype=np.int64))

    def addresses(self, consents: Consents) -> list[str]:
        """Return the canonical addresses of consents."""
        found = [""] * len(consents)
        for channel in Channel:
            here = np.flatnonzero(consents.channel == channel)
            texts = self._people.addresses(channel, consents.person[here])
            for at, text in zip(here.tolist(), texts, strict=True):
                found[at] = text
        return found

    def consent(self, number: int) -> Consent:
        """Tell all about one consent. Raises ValueError for a number that has none."""
        found = self.columns(number, number + 1)
        (brand,), (source,) = found.brand.tolist(), found.source.tolist()
        first, retailers = int(found.first_retailer[0]), int(found.retailers[0])
        return Consent(
            brand=self.directory[brand].code,
            channel=Channel(found.channel[0]),
            recipient_type=RecipientType(found.recipient_type[0]),
            address=self.addresses(found)[0],
            status=Status(found.status[0]),
            source="" if source == NO_SOURCE else CODES[source],
            consent_time=times(found.consented)[0],
            registration_time=times(found.registered)[0],
            transaction_id=hexadecimal(found.transaction)[0],
            retailers=frozenset(self._rows.retailers(brand, first, retailers)) if retailers else None,
        )

    def examples(self) -> tuple[Example, ...]:
        """Return one question or more for each reason that the default policy can give."""
        return Examples(self.directory, self._book, self._people).all()

    # --- Feed files -----------------------------------------------------------------------------------------

    def write_feed(self, path: Path, *, now: datetime) -> FeedSummary:
        """Write the first feed as JSON Lines, plain or `.gz` or `.zst`: brands, consents, access lists, watermarks.

        `now` without a zone is Turkish local time; it is later than 9 February 2026, else ValueError. The watermarks
        say: complete until now.
        """
        until = _settled(now)
        counts = dict.fromkeys(Status, 0)
        apart = 0
        with sink(path) as out:
            out.write([brand_row(brand) for brand in self.directory if brand.registered])
            registered = out.rows
            for start in range(0, self.consents, _BATCH):
                consents = self.columns(start, min(start + _BATCH, self.consents))
                out.write(self._rows.consent_rows(consents))
                access = self._rows.access_rows(consents)
                out.write(access)
                apart += len(access)
                for status in counts:
                    counts[status] += int((consents.status == status).sum())
            marks = list(self._watermarks(until, old_too=True))
            out.write(marks)
        return FeedSummary(
            path=path,
            rows=out.rows,
            brands=registered,
            consents=self.consents,
            onay=counts[Status.ONAY],
            ret=counts[Status.RET],
            unknown=counts[Status.UNKNOWN],
            retailer_access=apart,
            watermarks=len(marks),
            complete_until=times(np.array([until]))[0],
        )

    def _watermarks(self, until: int, *, old_too: bool) -> Iterator[str]:
        for brand in self.directory:
            if brand.registered and brand.watermark is Watermark.CURRENT:
                yield watermark_row(brand, until)
            elif brand.watermark is Watermark.OLD and old_too:
                yield watermark_row(brand, until - _OLD_WATERMARK_S)

    def write_changes(self, path: Path, *, now: datetime, changes: int, skip: int = 0) -> ChangeSummary:
        """Write changes of the last two hours before `now` as JSON Lines, sorted as İYS sorts them; then watermarks.

        A later wave skips the changes of the waves before it; no consent changes twice in `consents` changes, and a
        wave that would go beyond raises ValueError. Without `skip` the first flip is a MESAJ individual of the largest
        brand.
        """
        if changes < 1 or skip < 0 or skip + changes > self.consents:
            raise ValueError(f"There are {self.consents} consents to change.")
        until = _settled(now)
        wave = self._history.wave(skip, _spread(until - _WAVE_S, until, changes))
        places = self._history.flips(wave, _FLIPS_MOST)
        with sink(path) as out:
            for start in range(0, changes, _BATCH):
                out.write(self._rows.consent_rows(wave.after.take(slice(start, start + _BATCH))))
            marks = list(self._watermarks(until, old_too=False))
            out.write(marks)
        return ChangeSummary(
            path=path,
            rows=out.rows,
            changes=changes,
            refused=wave.count(Kind.REFUSED),
            refreshed=wave.count(Kind.REFRESHED),
            closed=wave.count(Kind.CLOSED),
            renewed=wave.count(Kind.RENEWED),
            added=wave.count(Kind.ADDED),
            watermarks=len(marks),
            complete_until=times(np.array([until]))[0],
            flips=self._flips(wave.before.take(places)),
        )

    def _flips(self, consents: Consents) -> tuple[Flip, ...]:
        columns = zip(
            consents.brand.tolist(),
            consents.channel.tolist(),
            consents.recipient_type.tolist(),
            self.addresses(consents),
            strict=True,
        )
        return tuple(
            Flip(
                brand=self.directory[brand].code,
                channel=Channel(channel),
                recipient_type=RecipientType(kind),
                address=address,
            )
            for brand, channel, kind, address in columns
        )

    def write_daily_csv(self, path: Path, *, brand: int, day: date) -> DailySummary:
        """Write the daily file of a brand code with its movements on `day`, later than 9 February 2026.

        Raises ValueError for an earlier day or an unknown brand.
        """
        start = local_seconds(f"{day} 00:00:00")
        if start < CONSENTS_BEFORE + _SETTLED_AFTER_S:
            raise ValueError("Daily files begin on 9 February 2026, after the first feed.")
        found = self.brand(brand)
        count = min(found.size, max(_DAILY_LEAST, found.size // _DAILY_MOVERS))
        moved = self._history.of_day(found, f"day {day}", _spread(start, start + _DAY_S, count))
        with sink(path) as out:
            out.write([CSV_HEADER, *self._rows.csv_rows(moved.after)])
        return DailySummary(path=path, rows=out.rows - 1, brand=brand, day=day)

    def brand(self, code: int) -> Brand:
        """Find a brand by its code. Raises ValueError if there is none."""
        return self.directory[self._place(code)]

    def _place(self, code: int) -> int:
        for place, brand in enumerate(self.directory):
            if brand.code == code:
                return place
        raise ValueError(f"The population has no brand {code}.")

    # --- Campaigns ------------------------------------------------------------------------------------------

    def campaign(
        self, n: int, *, brand: int, channel: Channel, recipient_type: RecipientType, hit_rate: float
    ) -> list[str]:
        """Return `n` recipients as customers spell them, in no order; 0.2 % of them are no address.

        Of the others `hit_rate` have a consent (of any status) in the first feed, and no two are the same person as
        long as the brand knows enough people there. Raises ValueError for an unknown brand, or hits where it knows
        nobody.
        """
        known, audience = self._book.audience(self._place(brand), channel, recipient_type)
        topic = f"campaign {brand} {channel.name} {recipient_type.name}"
        items = np.arange(n, dtype=np.int64)
        hit = self._dice.units(f"{topic} hit", items) < hit_rate
        if hit.any() and not known:
            raise ValueError(f"Brand {brand} knows no {recipient_type.name} on {channel.name}.")
        strangers = self._dice.shuffle(f"{topic} strangers", self._book.people)
        people = self._book.people + strangers(items % self._book.people)
        hits = np.cumsum(hit)[hit] - 1
        if len(hits):
            people[hit] = audience(self._dice.shuffle(f"{topic} known", known)(hits % known))
        return self._spellings.spell(topic, channel, people)


def _settled(now: datetime) -> int:
    """Turn `now` into Turkish local seconds."""
    local = now.astimezone(_TURKEY) if now.tzinfo else now
    seconds = local_seconds(f"{local:%Y-%m-%d %H:%M:%S}")
    if seconds < CONSENTS_BEFORE + _SETTLED_AFTER_S:
        raise ValueError("now: the population lives until February 2026; feeds are written later than the 9th.")
    return seconds


def _spread(start: int, end: int, count: int) -> Column:
    """Return `count` rising seconds from `start` to before `end`."""
    return start + np.arange(count, dtype=np.int64) * (end - start) // count
