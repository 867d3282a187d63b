"""İYS's source codes as a population uses them: on which channels, by whom, since when, for which status."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.population.dice import Dice
from iyscheck.consent import Channel
from iyscheck.times import local_seconds

_ALL: Final = tuple(Channel)
_PHONES: Final = (Channel.ARAMA, Channel.MESAJ)
_EMAIL: Final = (Channel.EPOSTA,)
_ALWAYS: Final = "2015-05-01 00:00:00"
_AT_IYS: Final = "2020-09-01 00:00:00"
"""Citizens could decide at İYS itself from September 2020 on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source code. The weights are how often an approval and a refusal come from it; 0 = never."""

    code: str
    channels: tuple[Channel, ...] = _ALL
    onay: float = 0.0
    ret: float = 0.0
    since: str = _ALWAYS


SOURCES: Final = (
    # İYS API 3.2.0, "TANIMLAR" and release notes
    Source(code="HS_WEB", onay=30, ret=6),
    Source(code="HS_MOBIL", onay=22, ret=6),
    Source(code="HS_FIZIKSEL_ORTAM", onay=12, ret=1),
    Source(code="HS_ISLAK_IMZA", onay=8),
    Source(code="HS_EORTAM", onay=6, ret=2),
    Source(code="HS_ETKINLIK", onay=2),
    Source(code="HS_SOSYAL_MEDYA", onay=2),
    Source(code="HS_ATM", onay=1, since="2020-05-18 00:00:00"),
    Source(code="HS_CAGRI_MERKEZI", channels=_PHONES, onay=9, ret=8),
    Source(code="HS_MESAJ", channels=_PHONES, onay=4, ret=9),
    Source(code="HS_EPOSTA", channels=_EMAIL, onay=6, ret=25),
    Source(code="HS_KARAR", ret=8),
    Source(code="IYS_WEB", onay=2, ret=14, since=_AT_IYS),
    Source(code="IYS_WEB_YENI", onay=1, ret=1, since=_AT_IYS),
    Source(code="IYS_MOBIL", onay=2, ret=12, since=_AT_IYS),
    Source(code="IYS_CM", channels=_PHONES, ret=4, since=_AT_IYS),
    Source(code="IYS_KISAMESAJ", channels=_PHONES, onay=1, ret=18, since=_AT_IYS),
    Source(code="IYS_EPOSTA", channels=_EMAIL, onay=2, ret=12, since=_AT_IYS),
    Source(code="IYS_AHS_HAT_KAPATMA", channels=_PHONES, ret=5, since="2023-09-18 00:00:00"),
    Source(code="IYS_FRAME_SMS", channels=_PHONES, onay=1, ret=1, since="2025-04-16 00:00:00"),
    Source(code="IYS_FRAME_EPOSTA", channels=_EMAIL, onay=1, ret=1, since="2025-04-16 00:00:00"),
    Source(code="HS_2015"),
)
CODES: Final = tuple(source.code for source in SOURCES)

HS_WEB: Final = CODES.index("HS_WEB")
HS_2015: Final = CODES.index("HS_2015")
IYS_WEB: Final = CODES.index("IYS_WEB")
LINE_CLOSURE: Final = CODES.index("IYS_AHS_HAT_KAPATMA")
NO_SOURCE: Final = -1

BY_IYS: Final[npt.NDArray[np.bool_]] = np.array([code.startswith("IYS_") for code in CODES])
"""Whether the citizen decided at İYS, so that registration follows within seconds; indexed by source."""
BY_IYS.setflags(write=False)

_SINCE: Final[npt.NDArray[np.int64]] = np.array([local_seconds(source.since) for source in SOURCES])
_SINCE.setflags(write=False)


def draw_sources(
    dice: Dice,
    topic: str,
    items: npt.NDArray[np.int64],
    *,
    channel: npt.NDArray[np.uint8],
    refusal: npt.NDArray[np.bool_],
) -> npt.NDArray[np.int64]:
    """Draw a source for each consent or change, as places in SOURCES: int64 of shape (N,)."""
    drawn = np.zeros(items.shape, np.int64)
    for each in Channel:
        for refused in (False, True):
            weights = [
                (source.ret if refused else source.onay) if each in source.channels else 0.0 for source in SOURCES
            ]
            here = (channel == each) & (refusal == refused)
            drawn[here] = dice.picks(topic, items[here], weights)
    return drawn


def existing(source: npt.NDArray[np.int64], at: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Replace sources that did not exist at a time (local seconds) by the web site of the provider."""
    return np.where(_SINCE[source] > at, HS_WEB, source)
