"""How numbers and times are written in a language. What is not known is a dash."""

import math
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from iyscheck.sentences import Language

UNKNOWN: Final = "–"
_TURKEY: Final = ZoneInfo("Europe/Istanbul")
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400
_UNITS: Final = {Language.ENGLISH: ("d", "h", "min", "s"), Language.TURKISH: ("g", "sa", "dk", "sn")}
_TO_TURKISH: Final = str.maketrans({",": ".", ".": ","})
_KIBI: Final = 1024


class Spelling:
    """Writes for people of one language; times are Turkish time, as İYS's are."""

    def __init__(self, language: Language) -> None:
        self._language = language

    def number(self, number: float | None, decimals: int = 0) -> str:
        """Write a number with its thousands apart."""
        if number is None or math.isnan(number):
            return UNKNOWN
        text = f"{number:,.{decimals}f}"
        return text.translate(_TO_TURKISH) if self._language is Language.TURKISH else text

    def rate(self, rate: float | None) -> str:
        """Write how many a second: small ones to a tenth, and what is less than that as zero point nought one."""
        if rate is None or math.isnan(rate):
            return UNKNOWN
        whole, tenths = 10, 0.1
        return self.number(rate, 0 if rate >= whole or rate == 0 else 1 if rate >= tenths else 2)

    def percent(self, share: float | None) -> str:
        """Write a share of 1."""
        if share is None or math.isnan(share):
            return UNKNOWN
        decimals = 0 if share in {0, 1} else 1 if share >= 0.1 else 2  # noqa: PLR2004 - what people can tell apart
        text = self.number(share * 100, decimals)
        return f"%{text}" if self._language is Language.TURKISH else f"{text} %"

    def milliseconds(self, seconds: float | None) -> str:
        """Write seconds as milliseconds, with three figures at most."""
        if seconds is None or math.isnan(seconds):
            return UNKNOWN
        ms = seconds * 1_000
        return self.number(ms, 0 if ms >= 100 else 1 if ms >= 10 else 2)  # noqa: PLR2004 - three figures

    def size(self, number: int | None) -> str:
        """Write bytes."""
        if number is None:
            return UNKNOWN
        left, units = float(number), ["B", "KiB", "MiB", "GiB", "TiB"]
        while left >= _KIBI and len(units) > 1:
            left /= _KIBI
            units.pop(0)
        return f"{self.number(left, 0 if units[0] == 'B' else 1)} {units[0]}"

    def time(self, utc_s: float | None) -> str:
        """Write a moment to the minute."""
        return UNKNOWN if utc_s is None else self._local(utc_s).strftime("%Y-%m-%d %H:%M")

    def moment(self, utc_s: float | None) -> str:
        """Write a moment to the second."""
        return UNKNOWN if utc_s is None else self._local(utc_s).strftime("%Y-%m-%d %H:%M:%S")

    def clock(self, utc_s: float) -> str:
        """Write a time of the day."""
        return self._local(utc_s).strftime("%H:%M:%S")

    def age(self, seconds: float | None) -> str:
        """Write how long ago something is, in its two largest units; what lies ahead has a minus."""
        if seconds is None or math.isnan(seconds):
            return UNKNOWN
        day, hour, minute, second = _UNITS[self._language]
        sign, left = ("−" if seconds < 0 else ""), round(abs(seconds))
        days, left = divmod(left, _DAY_S)
        hours, left = divmod(left, _HOUR_S)
        minutes, left = divmod(left, _MINUTE_S)
        if days:
            parts = [f"{days} {day}", f"{hours} {hour}"]
        elif hours:
            parts = [f"{hours} {hour}", f"{minutes} {minute}"]
        else:
            parts = [f"{minutes} {minute}"] if minutes else [f"{left} {second}"]
        return sign + " ".join(part for part in parts if not part.startswith("0 ") or part == parts[0])

    def _local(self, utc_s: float) -> datetime:
        return datetime.fromtimestamp(utc_s, UTC).astimezone(_TURKEY)
