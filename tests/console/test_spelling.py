"""Numbers and times as people of each language write them."""

import math

import pytest

from iyscheck.console.spelling import Spelling
from iyscheck.sentences import Language

ENGLISH, TURKISH = Spelling(Language.ENGLISH), Spelling(Language.TURKISH)


def test_numbers() -> None:
    """Thousands and decimals have the signs of the language."""
    assert (ENGLISH.number(1234567), TURKISH.number(1234567)) == ("1,234,567", "1.234.567")
    assert (ENGLISH.percent(0.0005), TURKISH.percent(0.0005)) == ("0.05 %", "%0,05")
    assert (ENGLISH.rate(0), ENGLISH.rate(0.04), ENGLISH.rate(3.21), ENGLISH.rate(1234.5)) == (
        "0",
        "0.04",
        "3.2",
        "1,234",
    )
    assert (ENGLISH.milliseconds(0.00042), TURKISH.milliseconds(0.123)) == ("0.42", "123")
    assert (ENGLISH.size(512), TURKISH.size(3 * 1024**3 // 2)) == ("512 B", "1,5 GiB")


@pytest.mark.parametrize("write", [ENGLISH.number, ENGLISH.rate, ENGLISH.percent, ENGLISH.milliseconds, ENGLISH.age])
@pytest.mark.parametrize("unknown", [None, math.nan])
def test_unknown(write: object, unknown: float | None) -> None:
    """What is not known is a dash, and never a zero."""
    assert callable(write)
    assert write(unknown) == "–"


def test_times() -> None:
    """Times are Turkish time, in every language."""
    assert ENGLISH.moment(1_795_990_000) == TURKISH.moment(1_795_990_000) == "2026-11-30 01:06:40"
    assert ENGLISH.time(None) == ENGLISH.size(None) == "–"


@pytest.mark.parametrize(
    ("seconds", "english", "turkish"),
    [
        (0, "0 s", "0 sn"),
        (59, "59 s", "59 sn"),
        (60, "1 min", "1 dk"),
        (3 * 3600 + 12 * 60 + 5, "3 h 12 min", "3 sa 12 dk"),
        (2 * 86400, "2 d", "2 g"),
        (2 * 86400 + 3600, "2 d 1 h", "2 g 1 sa"),
        (-90, "−1 min", "−1 dk"),
    ],
)
def test_ages(seconds: float, english: str, turkish: str) -> None:
    """An age has its two largest units; what lies ahead has a minus."""
    assert (ENGLISH.age(seconds), TURKISH.age(seconds)) == (english, turkish)
