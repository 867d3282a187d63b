"""What `iyscheck info --all` says of each server, in two languages."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from iyscheck.sentences import Language


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoWords:
    """The parts of a line, with places for facts."""

    fresh: str
    not_fresh: str
    primary: str
    replica: str
    alone: str
    version: str
    position: str
    lag: str
    complete: str
    no_watermark: str
    untrusted: str
    silent: str


INFO_WORDS: Final[Mapping[Language, InfoWords]] = {
    Language.ENGLISH: InfoWords(
        fresh="fresh",
        not_fresh="NOT FRESH",
        primary="primary",
        replica="replica",
        alone="in no log",
        version="iyscheck {version}",
        position="position {sequence:,}",
        lag="{lag:.1f} s behind",
        complete="data complete to {newest}",
        no_watermark="no watermark",
        untrusted="NOT TO BE BELIEVED",
        silent="DOES NOT ANSWER: {reason}",
    ),
    Language.TURKISH: InfoWords(
        fresh="güncel",
        not_fresh="GÜNCEL DEĞİL",
        primary="ana depo",
        replica="kopya",
        alone="günlüğü yok",
        version="iyscheck {version}",
        position="konum {sequence:,}",
        lag="{lag:.1f} sn geride",
        complete="veri şu ana kadar tam: {newest}",
        no_watermark="tamlık bilgisi yok",
        untrusted="GÜVENİLMİYOR",
        silent="YANIT VERMİYOR: {reason}",
    ),
}
