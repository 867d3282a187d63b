"""People and their addresses: person number p has one mobile, one landline, one foreign number and one e-mail.

Every map from person to address is a bijection, so that two people never share one. E-mail domains are reserved
names (RFC 2606); phone numbers are made up inside Türkiye's numbering plan, which reserves none for examples.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from bench.population.dice import Dice
from iyscheck.consent import Channel

PEOPLE_MAX: Final = 250_000_000
"""Fewer than the smallest of the number spaces below."""

_MOBILE_PREFIXES: Final = np.array(
    [501, *range(505, 508), *range(530, 540), *range(541, 550), *range(551, 556), 559], np.int64
)
# One word a line would be three pages.
# fmt: off
_AREA_CODES: Final = np.array(
    (
        212, 216, 222, 224, 226, 228, 232, 236, 242, 246, 248, 252, 256, 258, 262, 264, 266, 272, 274, 276, 282, 284,
        286, 288, 312, 318, 322, 324, 326, 328, 332, 338, 342, 344, 346, 348, 352, 354, 356, 358, 362, 364, 366, 368,
        370, 372, 374, 376, 378, 380, 382, 384, 386, 388, 412, 414, 416, 422, 424, 426, 428, 432, 434, 436, 438, 442,
        446, 452, 454, 456, 458, 462, 464, 466, 472, 474, 476, 478, 482, 484, 486, 488,
    ),
    np.int64,
)
_FIRST_NAMES: Final = (
    "ahmet", "ali", "ayse", "baris", "burak", "can", "cem", "deniz", "elif", "emine", "emre", "eren", "esra", "fatma",
    "furkan", "gizem", "hakan", "hasan", "hatice", "huseyin", "ibrahim", "kemal", "kerem", "leyla", "mehmet", "melis",
    "merve", "murat", "mustafa", "nazli", "nur", "oguz", "omer", "ozge", "pelin", "selin", "serkan", "sevgi", "sinem",
    "tolga", "tugba", "ugur", "umut", "yasemin", "yusuf", "zehra", "zeynep",
)
_LAST_NAMES: Final = (
    "acar", "akin", "aksoy", "arslan", "aslan", "avci", "aydin", "bulut", "celik", "cetin", "coskun", "dag", "demir",
    "dogan", "erdogan", "gunes", "guler", "kaplan", "kara", "kaya", "keskin", "kilic", "koc", "korkmaz", "kurt",
    "ozcan", "ozdemir", "ozturk", "polat", "sahin", "sari", "simsek", "tas", "tekin", "turk", "unal", "yavuz",
    "yildirim", "yildiz", "yilmaz", "yuksel",
)
# fmt: on
_SUBSCRIBERS: Final = 10_000_000
_FIRST_LANDLINE: Final = 2_000_000
_FOREIGN_PREFIXES: Final = np.array([49151, 4477, 316, 337], np.int64)
_FOREIGN_SUBSCRIBERS: Final = 100_000_000
_TURKEY: Final = 90 * 10**10

_KINDS: Final = {
    # mobile, landline, foreign
    Channel.ARAMA: (0.74, 0.255, 0.005),
    Channel.MESAJ: (0.985, 0.01, 0.005),
}
_JOINTS: Final = (".", "_", "-", "", "..")
_LABELS: Final = ("", "", "", "", "", "", "", "+kampanya")
_DOMAINS: Final = ("example.com", "example.net", "example.org", "posta.example", "mail.example", "kurum.com.example")


class People:
    """The addresses of people, by their numbers (int64 below PEOPLE_MAX, shape (N,))."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        self._mobiles = dice.shuffle("mobile", len(_MOBILE_PREFIXES) * _SUBSCRIBERS)
        self._landlines = dice.shuffle("landline", len(_AREA_CODES) * (_SUBSCRIBERS - _FIRST_LANDLINE))
        self._foreign = dice.shuffle("foreign", len(_FOREIGN_PREFIXES) * _FOREIGN_SUBSCRIBERS)

    def phones(self, channel: Channel, people: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return E.164 numbers without `+`. Some people are called on a landline, few live abroad."""
        kind = self._dice.picks(f"phone kind {channel.name}", people, _KINDS[channel])
        return np.choose(kind, [self._mobile(people), self._landline(people), self._abroad(people)])

    def _mobile(self, people: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        prefix, subscriber = np.divmod(self._mobiles(people), _SUBSCRIBERS)
        return _TURKEY + _MOBILE_PREFIXES[prefix] * _SUBSCRIBERS + subscriber

    def _landline(self, people: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        area, subscriber = np.divmod(self._landlines(people), _SUBSCRIBERS - _FIRST_LANDLINE)
        return _TURKEY + _AREA_CODES[area] * _SUBSCRIBERS + subscriber + _FIRST_LANDLINE

    def _abroad(self, people: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        country, subscriber = np.divmod(self._foreign(people), _FOREIGN_SUBSCRIBERS)
        return _FOREIGN_PREFIXES[country] * _FOREIGN_SUBSCRIBERS + subscriber

    def emails(self, people: npt.NDArray[np.int64]) -> list[str]:
        """Return e-mails as İYS stores them, in lower case. The person's number is in it, so no two are equal."""
        parts = [
            [words[at] for at in self._dice.below(f"email {at}", people, len(words)).tolist()]
            for at, words in enumerate((_FIRST_NAMES, _JOINTS, _LAST_NAMES, _LABELS, _DOMAINS))
        ]
        return [
            f"{first}{joint}{last}{person}{label}@{domain}"
            for person, first, joint, last, label, domain in zip(people.tolist(), *parts, strict=True)
        ]

    def addresses(self, channel: Channel, people: npt.NDArray[np.int64]) -> list[str]:
        """Return the canonical addresses by which a channel reaches people."""
        if channel is Channel.EPOSTA:
            return self.emails(people)
        return [f"+{phone}" for phone in self.phones(channel, people).tolist()]
