"""İYS times as columns: Turkish local texts to seconds, without a zone.

`seconds_of` never corrects anything by a zone: İYS compares its own local times, and so do we. Only a watermark
is turned into UTC, because freshness is measured against a clock.
"""

import re
from calendar import monthrange
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from iyscheck.times import LOCAL_SECONDS_MAX

TIME_CHARS: Final = len("YYYY-MM-DD HH:MM:SS")
TIME_WORDS: Final = 3
ISTANBUL: Final = ZoneInfo("Europe/Istanbul")
AHEAD_MAX_S: Final = 600
"""How far a creationDate may lie in the future: a typo of 2099 would freeze a consent for ever.

So far a consentDate may lie behind its creationDate, too.
"""
ABSENT: Final = 0
INVALID: Final = -1

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - İYS times have no zone
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
DAY_S: Final = 24 * 3600
_FRACTION: Final = re.compile(r"\.[0-9]+")
_MONTHS: Final = 12


def seconds_of(texts: Sequence[str | None]) -> npt.NDArray[np.int64]:
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
    words = np.zeros((len(column), TIME_WORDS * 8), np.uint8)
    words[:, :TIME_CHARS] = column
    seconds[whole] = seconds_of_words(words.view(np.uint64))
    return seconds


def _word(text: bytes) -> np.uint64:
    """Read 8 bytes as a word whose lowest byte is the first character."""
    return np.uint64(int.from_bytes(text, "little"))


# A text of 19 characters is three words. XORed with this pattern its digits are their values and its separators 0,
# and then all of it is checked and read eight characters at a time.
PATTERN: Final = np.array([_word(b"0000-00-"), _word(b"00 00:00"), _word(b":00\0\0\0\0\0")], np.uint64)
TOO_MUCH: Final = np.array(
    [
        _word(bytes(0x80 - (10 if character == ord("0") else 1) for character in int(word).to_bytes(8, "little")))
        for word in PATTERN
    ],
    np.uint64,
)
"""Added to a byte, this sets its high bit if it is no digit where one belongs, or not the separator."""
PATTERN.setflags(write=False)
TOO_MUCH.setflags(write=False)
_HIGH_BITS: Final = _word(b"\x80" * 8)
_LAST_MASK: Final = _word(b"\xff\xff\xff\0\0\0\0\0")


def _first_seconds() -> npt.NDArray[np.int64]:
    """Return when each month begins, by (year - 1970) * 16 + month."""
    starts = np.zeros(_YEARS * 16, np.int64)
    for year in range(_YEARS):
        for month in range(1, 13):
            starts[year * 16 + month] = (date(_YEAR_MIN + year, month, 1) - _EPOCH.date()).days * DAY_S
    starts.setflags(write=False)
    return starts


def _days_in_months() -> npt.NDArray[np.int64]:
    """Return how many days each month has, by (year - 1970) * 16 + month; 0 for what is no month."""
    days = np.zeros(_YEARS * 16, np.int64)
    for year in range(_YEARS):
        for month in range(1, 13):
            days[year * 16 + month] = monthrange(_YEAR_MIN + year, month)[1]
    days.setflags(write=False)
    return days


_YEAR_MIN: Final = 1970
_YEARS: Final = 2107 - _YEAR_MIN
MONTHS: Final = _first_seconds()
DAYS_IN_MONTHS: Final = _days_in_months()


def seconds_of_words(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Read N texts of 19 characters, each as three words (N, 3) of this machine, what follows it of no matter.

    The result is local seconds, or INVALID.
    """
    parts: list[npt.NDArray[np.uint64]] = [
        words[:, 0] ^ PATTERN[0],
        words[:, 1] ^ PATTERN[1],
        words[:, 2] & _LAST_MASK ^ PATTERN[2],
    ]
    wrong = np.zeros(len(words), np.uint64)
    for part, too_much in zip(parts, TOO_MUCH, strict=True):
        wrong |= (part + too_much) | part
    # Now a byte holds ten times its digit and the next one: the number of two digits where the first of them stands.
    pairs = [part * np.uint64(10) + (part >> np.uint64(8)) for part in parts]

    def pair(word: int, byte: int) -> npt.NDArray[np.int64]:
        return (pairs[word] >> np.uint64(8 * byte) & np.uint64(0xFF)).astype(np.int64)

    year = pair(0, 0) * 100 + pair(0, 2) - _YEAR_MIN
    month = year * 16 + pair(0, 5)
    valid = (wrong & _HIGH_BITS == 0) & (year >= 0) & (year < _YEARS)
    valid &= pair(0, 5) <= _MONTHS
    month = np.where(valid, month, 0)
    day, hour, minute, second = pair(1, 0), pair(1, 3), pair(1, 6), pair(2, 1)
    valid &= (day >= 1) & (day <= DAYS_IN_MONTHS[month]) & (hour < 24) & (minute < 60) & (second < 60)  # noqa: PLR2004 - clock
    seconds = MONTHS[month] + (day - 1) * DAY_S + (hour * 60 + minute) * 60 + second
    valid &= (seconds > 0) & (seconds <= LOCAL_SECONDS_MAX)
    return np.where(valid, seconds, INVALID)


def local_now(utc_s: float) -> int:
    """Turn a clock's UTC seconds into Turkish local seconds."""
    now = datetime.fromtimestamp(utc_s, ISTANBUL).replace(tzinfo=None)
    return int((now - _EPOCH).total_seconds())


def utc_seconds(local_s: int) -> int:
    """Turn Turkish local seconds into UTC seconds; of an hour that came twice the earlier one."""
    return int((_EPOCH + timedelta(seconds=local_s)).replace(tzinfo=ISTANBUL).timestamp())


def watermark(text: str) -> int:
    """Read a Turkish local time as UTC seconds. Raises ValueError if it is not one."""
    seconds = int(seconds_of([text])[0])
    utc_s = utc_seconds(seconds) if seconds > 0 else 0
    if utc_s <= 0:
        raise ValueError("not a time of the form YYYY-MM-DD HH:MM:SS")
    return utc_s


def day(text: str) -> date:
    """Read a day `YYYY-MM-DD`. Raises ValueError."""
    if not _DAY.fullmatch(text):
        raise ValueError("not a day of the form YYYY-MM-DD")
    found = date.fromisoformat(text)
    watermark(f"{found} 00:00:00")
    return found


def day_of(utc_s: int) -> date:
    """Say which day it is in Turkey at a second UTC."""
    return datetime.fromtimestamp(utc_s, ISTANBUL).date()


def turkish_text(utc_s: int) -> str:
    """Write UTC seconds as Turkish local time."""
    return f"{datetime.fromtimestamp(utc_s, UTC).astimezone(ISTANBUL):%Y-%m-%d %H:%M:%S}"
