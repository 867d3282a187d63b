"""The consents that benchmarks ask about: one brand, and everything about recipient i is computed from i.

Recipients 0 to `consents` - 1 have a record (80 % ONAY, 20 % RET), all others have none; so whoever knows i knows
whether it is a hit and what the answer must be, and no table has to be kept. The population of `bench.population`
is the realistic one; this one is for exact hit rates and for any size.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.population.dice import Dice, Shuffle
from iyscheck.consent import Channel, Reason, RecipientType, Status

BRAND = 600_123
CHANNEL = Channel.MESAJ
RECIPIENT_TYPE = RecipientType.BIREYSEL
PHONES = 1_000_000_000
"""All of +905 and nine digits: recipients beyond `NEW` never get a record but by a change."""
NEW = 600_000_000
PHONE_CHARS = 13

_SHUFFLE = Shuffle(size=PHONES, multiplier=618_033_989, offset=314_159_265)
_CONSENTED_SHARE = 0.8
SPELLINGS = (
    # Templates of a phone: the ten digits of a national number are put at the places of the letters.
    "+90abcdefghij",
    "0090abcdefghij",
    "90abcdefghij",
    "0abcdefghij",
    "abcdefghij",
    "0 abc def gh ij",
    "+90 abc def gh ij",
    "0(abc) def-gh-ij",
)


def brand_of(items: npt.NDArray[np.int64], brands: int) -> npt.NDArray[np.int64]:
    """Say which of the brands 1 to `brands` has the record of each recipient, where there are many brands."""
    return items % brands + 1


@dataclass(frozen=True, slots=True)
class Cohort:
    """So many consents of one brand; items are int64 numbers of recipients, shape (N,)."""

    consents: int
    seed: int = 1

    def phones(self, items: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Spell recipients as E.164 text, ASCII of shape (N, 13)."""
        text = np.empty((len(items), PHONE_CHARS), np.uint8)
        text[:, :4] = np.frombuffer(b"+905", np.uint8)
        rest = _SHUFFLE(items)
        for place in range(PHONE_CHARS - 1, 3, -1):
            rest, digit = np.divmod(rest, 10)
            text[:, place] = digit + ord("0")
        return text

    def blocks(self, items: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Write recipients as blocks of the address form, uint8 of shape (N, 16)."""
        blocks = np.zeros((len(items), 16), np.uint8)
        blocks[:, :PHONE_CHARS] = self.phones(items)
        return blocks

    def spelt(self, items: npt.NDArray[np.int64]) -> list[bytes]:
        """Spell recipients as customers do, each item in one of eight ways."""
        phones = self.phones(items)
        texts: list[bytes] = [b""] * len(items)
        for number, template in enumerate(SPELLINGS):
            mine = np.flatnonzero(items % len(SPELLINGS) == number)
            shaped = np.tile(np.frombuffer(template.encode(), np.uint8), (len(mine), 1))
            for place, letter in enumerate(template):
                if letter.isalpha():
                    shaped[:, place] = phones[mine, 3 + ord(letter) - ord("a")]
            packed = shaped.tobytes()
            for at, row in enumerate(mine.tolist()):
                texts[row] = packed[at * len(template) : (at + 1) * len(template)]
        return texts

    def statuses(self, items: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Say which status each recipient's record has, uint8; NONE where there is no record."""
        consented = Dice(self.seed).units("status", items) < _CONSENTED_SHARE
        statuses = np.where(consented, np.uint8(Status.ONAY), np.uint8(Status.RET))
        return np.where(items < self.consents, statuses, np.uint8(Status.NONE))

    def reasons(self, items: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Say what the answer for each recipient must be while nothing was changed, uint8."""
        by_status = np.zeros(4, np.uint8)
        by_status[Status.NONE] = Reason.NO_CONSENT
        by_status[Status.ONAY] = Reason.CONSENTED
        by_status[Status.RET] = Reason.REFUSED
        return by_status[self.statuses(items)]

    def drawn(self, count: int, *, hit_rate: float, seed: int) -> npt.NDArray[np.int64]:
        """Draw recipients at random over the whole key space, exactly the hit rate of them with a record."""
        random = np.random.default_rng(seed)
        items = random.integers(0, self.consents, count)
        misses = random.permutation(count)[: round(count * (1 - hit_rate))]
        items[misses] = random.integers(self.consents, NEW, len(misses))
        return items
