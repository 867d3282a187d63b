"""The brands of a population: few large, many small, and one of each kind that the rule treats specially."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.population.dice import Dice
from iyscheck.consent import Channel, LegacyDeadline
from iyscheck.times import local_seconds

ALL_CHANNELS: Final = frozenset(Channel)
RETAILERS: Final = 24
"""How many retailers a brand has that has any."""
BRANDS_MIN: Final = 12
CONSENTS_PER_BRAND_MIN: Final = 50

_SIZE_EXPONENT: Final = 1.05
_SMALLEST: Final = 4
_FURTHER_SHARE: Final = 1 / 3
_INACTIVE_SHARE: Final = 0.02
_RESTRICTED_SHARE: Final = 0.1
_FIRST_CODE: Final = 600_000
_CODES: Final = 300_000
_BRANDS_WITH_RETAILERS: Final = 3
_FIRST_RETAILER: Final = 55_550_000
_RETAILERS_APART: Final = 100
_FIRST_REGISTERED: Final = local_seconds("2020-01-07 09:00:00")
_REGISTERED_WITHIN_S: Final = 150 * 86_400


class Watermark(StrEnum):
    """What a feed says about how complete a brand's data is."""

    CURRENT = "current"
    OLD = "old"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Brand:
    """One brand: consents `first` to `first + size - 1` of the population are its own.

    `registered` is False for a code that has consents but no brand row; `registered_at` counts local seconds.
    """

    code: int
    iys_code: int
    first: int
    size: int
    registered: bool = True
    registered_at: int
    active: bool = True
    channels: frozenset[Channel] = ALL_CHANNELS
    legacy_deadline: LegacyDeadline | None = None
    retailers: tuple[int, ...] = ()
    watermark: Watermark = Watermark.CURRENT

    def answers(self, channel: Channel) -> bool:
        """Say whether consents decide here: registered, active, authorised for the channel, data fresh."""
        usable = self.registered and self.active and self.watermark is Watermark.CURRENT
        return usable and channel in self.channels


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Who plays which part: places in the tuple of brands, the same in every population of that many brands."""

    flagship: int
    own_deadline: int
    inactive: int
    unauthorised: int
    old_watermark: int
    no_watermark: int
    unregistered: int

    @classmethod
    def of(cls, brands: int) -> "Cast":
        """Give the largest brands the parts that need many consents, brands of the middle the others."""
        middle = brands // 2
        return cls(
            flagship=0,
            own_deadline=3,
            inactive=middle,
            unauthorised=middle + 1,
            old_watermark=middle + 2,
            no_watermark=middle + 3,
            unregistered=middle + 4,
        )


def sizes(consents: int, brands: int) -> npt.NDArray[np.int64]:
    """Share consents out by rank (Zipf, exponent 1.05): int64 of shape (brands,), falling.

    Raises ValueError below 12 brands or 50 consents a brand: the special ones would have too few to show.
    """
    if brands < BRANDS_MIN or consents < brands * CONSENTS_PER_BRAND_MIN:
        raise ValueError(
            f"{consents} consents over {brands} brands: needs at least {BRANDS_MIN} brands and "
            f"{CONSENTS_PER_BRAND_MIN} consents for each."
        )
    shares = np.arange(1, brands + 1, dtype=np.float64) ** -_SIZE_EXPONENT
    counts: npt.NDArray[np.int64] = np.maximum((consents * shares / shares.sum()).astype(np.int64), _SMALLEST)
    counts[0] += consents - counts.sum()
    return counts


def make_brands(dice: Dice, consents: int, brands: int) -> tuple[Brand, ...]:
    """Make the brands, the largest first."""
    counts = sizes(consents, brands)
    firsts = np.cumsum(counts) - counts
    cast = Cast.of(brands)
    places = np.arange(brands)
    apart = _CODES // brands
    ranks = np.argsort(dice.words("brand code rank", places))
    codes = (_FIRST_CODE + ranks * apart + dice.below("brand code", places, apart)).tolist()
    # A third are further brands of the provider before them; its master brand's code is its iysCode.
    further = dice.units("further brand", places) < _FURTHER_SHARE
    registered_at = _FIRST_REGISTERED + dice.below("brand registered", places, _REGISTERED_WITHIN_S)
    usual = (places > cast.own_deadline) & ((places < cast.inactive) | (places > cast.unregistered))
    inactive = usual & (dice.units("inactive", places) < _INACTIVE_SHARE)
    restricted = usual & (dice.units("restricted", places) < _RESTRICTED_SHARE)
    made: list[Brand] = []
    for place, code in enumerate(codes):
        made.append(
            Brand(
                code=code,
                iys_code=made[-1].iys_code if made and further[place] else code,
                first=int(firsts[place]),
                size=int(counts[place]),
                registered=place != cast.unregistered,
                registered_at=int(registered_at[place]),
                active=place != cast.inactive and not inactive[place],
                channels=_channels(cast, place, restricted=bool(restricted[place])),
                legacy_deadline=LegacyDeadline.OVER_150K if place == cast.own_deadline else None,
                retailers=_retailers(place) if place < _BRANDS_WITH_RETAILERS else (),
                watermark=_watermark(cast, place),
            )
        )
    return tuple(made)


def _channels(cast: Cast, place: int, *, restricted: bool) -> frozenset[Channel]:
    if place == cast.unauthorised:
        return frozenset((Channel.ARAMA, Channel.EPOSTA))
    return frozenset((Channel.MESAJ, Channel.EPOSTA)) if restricted else ALL_CHANNELS


def _retailers(place: int) -> tuple[int, ...]:
    first = _FIRST_RETAILER + place * _RETAILERS_APART + 1
    return tuple(range(first, first + RETAILERS))


def _watermark(cast: Cast, place: int) -> Watermark:
    marks = {cast.old_watermark: Watermark.OLD, cast.no_watermark: Watermark.NONE}
    return marks.get(place, Watermark.CURRENT)
