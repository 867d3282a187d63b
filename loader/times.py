"""İYS times as columns: Turkish local texts to seconds, without a zone.

`local_seconds` never corrects anything by a zone: İYS compares its own local times, and so do we. Only a watermark
is turned into UTC, because freshness is measured against a clock.
"""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from iyscheck.change import LOCAL_SECONDS_MAX

TIME_CHARS: Final = len("YYYY-MM-DD HH:MM:SS")
ISTANBUL: Final = ZoneInfo("Europe/Istanbul")
ABSENT: Final = 0
INVALID: Final = -1

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - İYS times have no zone
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
DAY_S: Final = 24 * 3600
_FRACTION: Final = re.compile(r"\.[0-9]+")
_DIGITS_AT: Final = [0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18]
_SEPARATORS_AT: Final = [4, 7, 10, 13, 16]
_SEPARATORS: Final = np.frombuffer(b"-- ::", np.uint8)
_DAYS_IN_MONTH: Final = np.array([0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], np.int64)
_FEBRUARY: Final = 2
_MONTHS: Final = 12


def local_seconds(texts: Sequence[str | None]) -> npt.NDArray[np.int64]:
    """Read N texts as local seconds since 1970: ABSENT for None or an empty text, INVALID for anything wrong.

    Accepted is exactly `YYYY-MM-DD HH:MM:SS`, a real time of the calendar after 1970 and before 2106, with an
    optional fraction of a second that is cut.
    """
    cut = [text or "" for text in texts]
    lengths = np.fromiter(map(len, cut), np.int64, len(cut))
    for at in np.flatnonzero(lengths > TIME_CHARS).tolist():
        fraction = _FRACTION.fullmatch(cut[at], TIME_CHARS)
        lengths[at] = TIME_CHARS if fraction else INVALID
        cut[at] = cut[at][:TIME_CHARS]
    whole = lengths == TIME_CHARS
    seconds = np.where(lengths == 0, ABSENT, INVALID)
    if not whole.any():
        return seconds
    picked = cut if whole.all() else [cut[at] for at in np.flatnonzero(whole).tolist()]
    column = np.frombuffer("".join(picked).encode("ascii", "replace"), np.uint8).reshape(-1, TIME_CHARS)
    seconds[whole] = _seconds(column)
    return seconds


def _seconds(column: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Read an (N, 19) column of bytes."""
    digits = column[:, _DIGITS_AT] - np.uint8(ord("0"))
    valid = (digits < 10).all(axis=1) & (column[:, _SEPARATORS_AT] == _SEPARATORS).all(axis=1)  # noqa: PLR2004 - digits
    tens = digits.astype(np.int64)
    pairs = np.where(valid[:, None], tens[:, 0::2] * 10 + tens[:, 1::2], 0)
    year = pairs[:, 0] * 100 + pairs[:, 1]
    month, day, hour, minute, second = pairs[:, 2:].T
    month_exists = (month >= 1) & (month <= _MONTHS)
    month = np.where(month_exists, month, 1)
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    longest = _DAYS_IN_MONTH[month] - ((month == _FEBRUARY) & ~leap)
    valid &= month_exists & (day >= 1) & (day <= longest) & (hour < 24) & (minute < 60) & (second < 60)  # noqa: PLR2004 - clock
    seconds = ((_days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second
    valid &= (seconds > 0) & (seconds <= LOCAL_SECONDS_MAX)
    return np.where(valid, seconds, INVALID)


def _days(
    year: npt.NDArray[np.int64], month: npt.NDArray[np.int64], day: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Count the days from 1970-01-01 in the Gregorian calendar, with years that begin in March."""
    year = year - (month <= _FEBRUARY)
    of_year = (153 * ((month + 9) % _MONTHS) + 2) // 5 + day - 1
    return year * 365 + year // 4 - year // 100 + year // 400 + of_year - 719_468


def local_now(utc_s: float) -> int:
    """Turn a clock's UTC seconds into Turkish local seconds."""
    now = datetime.fromtimestamp(utc_s, ISTANBUL).replace(tzinfo=None)
    return int((now - _EPOCH).total_seconds())


def utc_seconds(local_s: int) -> int:
    """Turn Turkish local seconds into UTC seconds; of an hour that came twice the earlier one."""
    return int((_EPOCH + timedelta(seconds=local_s)).replace(tzinfo=ISTANBUL).timestamp())


def watermark(text: str) -> int:
    """Read a Turkish local time as UTC seconds. Raises ValueError if it is not one."""
    seconds = int(local_seconds([text])[0])
    utc_s = utc_seconds(seconds) if seconds > 0 else 0
    if utc_s <= 0:
        raise ValueError("not a time of the form YYYY-MM-DD HH:MM:SS")
    return utc_s


def end_of_day(text: str) -> int:
    """Read a day `YYYY-MM-DD` and return the UTC second in which it ends in Turkey. Raises ValueError."""
    if not _DAY.fullmatch(text):
        raise ValueError("not a day of the form YYYY-MM-DD")
    date.fromisoformat(text)
    return watermark(f"{text} 00:00:00") + DAY_S


def local_text(utc_s: int) -> str:
    """Write UTC seconds as Turkish local time."""
    return f"{datetime.fromtimestamp(utc_s, UTC).astimezone(ISTANBUL):%Y-%m-%d %H:%M:%S}"
