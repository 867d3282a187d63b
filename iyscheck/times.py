"""Times as text: İYS's own, which are Turkish local time without a zone, RFC 3339, and how long something takes.

İYS's times are never corrected by a zone: İYS compares its own local times, and so do we.
"""

import functools
import re
from datetime import UTC, date, datetime
from typing import Final

LOCAL_SECONDS_MAX: Final = 2**32 - 1
DURATION_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"([0-9]{1,9})([smhd]?)")


def local_seconds(text: str) -> int:
    """Count the seconds from 1970-01-01 00:00:00 to a 19-character İYS time, both without a zone.

    İYS times are Turkish local time; no zone arithmetic is done on them, ever. Raises ValueError.
    """
    return int((datetime.fromisoformat(text) - datetime(1970, 1, 1)).total_seconds())  # noqa: DTZ001 - naive on purpose


def local_text(seconds: int) -> str:
    """Write local seconds as the 19-character İYS text; 0 is absent and gives an empty text."""
    if not seconds:
        return ""
    return _hour_text(seconds // _HOUR_S) + _REST_TEXTS[seconds % _HOUR_S]


_HOUR_S: Final = 3600
_REST_TEXTS: Final = tuple(f"{minute:02}:{second:02}" for minute in range(60) for second in range(60))
_FIRST_DAY: Final = date(1970, 1, 1).toordinal()


@functools.lru_cache(16_384)
def _hour_text(hour: int) -> str:
    """Write an hour counted from 1970. Two years' worth are kept, since each check writes two times."""
    day, hour = divmod(hour, 24)
    return f"{date.fromordinal(_FIRST_DAY + day)} {hour:02}:"


def duration_s(text: str) -> int:
    """Read `26h`, `5m`, `300s` or `300` as seconds. Raises ValueError."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError("not a number with s, m, h or d behind it")
    return int(found[1]) * DURATION_UNITS[found[2]]


def duration_text(seconds: int) -> str:
    """Write seconds in the largest unit that leaves no rest, from two of it on: `26 h`, `90 m`, `30 d`, `45 s`."""
    for unit in "dhm":
        of_s = DURATION_UNITS[unit]
        if seconds % of_s == 0 and seconds >= 2 * of_s:
            return f"{seconds // of_s} {unit}"
    return f"{seconds} s"


def rfc3339(utc_s: float) -> str:
    """Write UTC seconds as RFC 3339, to the second."""
    return datetime.fromtimestamp(int(utc_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
