"""The recipients of a campaign as customers hand them over: every spelling, strangers, and some that are no address."""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.population.dice import Dice
from bench.population.people import People
from iyscheck.consent import Channel

_Spelling = Callable[[str], str]

INVALID_SHARE: Final = 0.002

_TURKISH: Final[tuple[_Spelling, ...]] = (
    # From the ten national digits
    lambda n: f"0{n}",
    lambda n: f"90{n}",
    lambda n: f"+90{n}",
    lambda n: n,
    lambda n: f"+90 {n[:3]} {n[3:6]} {n[6:8]} {n[8:]}",
    lambda n: f"0 ({n[:3]}) {n[3:6]} {n[6:8]} {n[8:]}",
    lambda n: f"0{n[:3]}-{n[3:6]}-{n[6:]}",
    lambda n: f"0090{n}",
)
_TURKISH_WEIGHTS: Final = (0.3, 0.25, 0.2, 0.1, 0.05, 0.04, 0.03, 0.03)
_EMAIL: Final[tuple[_Spelling, ...]] = (str, str.title, str.upper, lambda email: f" {email} ")
_EMAIL_WEIGHTS: Final = (0.85, 0.07, 0.05, 0.03)
_INVALID_PHONES: Final = ("", "yok", "0532123456", "+90 1", "0532 123 45 678", "0 (532) l23 45 67", "905321234567x")
_INVALID_EMAILS: Final = ("", "yok", "ayse@", "ayse.example.com", "ayşe@example.com", "a b@example.com", "@example.com")


def _foreign(number: str) -> str:
    return f"+{number[:2]} {number[2:]}"


class Spellings:
    """Spells the addresses of a campaign."""

    def __init__(self, dice: Dice, people: People) -> None:
        self._dice = dice
        self._people = people

    def spell(self, topic: str, channel: Channel, people: npt.NDArray[np.int64]) -> list[str]:
        """Spell the addresses of people as customers do; a few are replaced by what is no address at all."""
        items = np.arange(len(people), dtype=np.int64)
        email = channel is Channel.EPOSTA
        spelt = self._emails(topic, items, people) if email else self._phones(topic, items, channel, people)
        wrong = np.flatnonzero(self._dice.units(f"{topic} invalid", items) < INVALID_SHARE)
        texts = _INVALID_EMAILS if email else _INVALID_PHONES
        for at, which in zip(
            wrong.tolist(), self._dice.below(f"{topic} wrong", wrong, len(texts)).tolist(), strict=True
        ):
            spelt[at] = texts[which]
        return spelt

    def _emails(self, topic: str, items: npt.NDArray[np.int64], people: npt.NDArray[np.int64]) -> list[str]:
        how = self._dice.picks(f"{topic} spelling", items, _EMAIL_WEIGHTS).tolist()
        return [_EMAIL[way](email) for way, email in zip(how, self._people.emails(people), strict=True)]

    def _phones(
        self, topic: str, items: npt.NDArray[np.int64], channel: Channel, people: npt.NDArray[np.int64]
    ) -> list[str]:
        how = self._dice.picks(f"{topic} spelling", items, _TURKISH_WEIGHTS).tolist()
        numbers = map(str, self._people.phones(channel, people).tolist())
        return [
            _TURKISH[way](number[2:]) if number.startswith("90") else _foreign(number)
            for way, number in zip(how, numbers, strict=True)
        ]
