from datetime import date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.times import local_seconds as one_by_one
from loader.reading import times
from tests.dice import often

moments = st.datetimes(datetime(1970, 1, 1, 0, 0, 1), datetime(2106, 2, 7, 6, 28, 15))  # noqa: DTZ001 - İYS times have no zone
near_times = st.one_of(
    st.from_regex(r"\A[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]*)?\Z"),
    moments.map(str),
    st.text(st.sampled_from("0123456789-: .T٣Z+"), max_size=24),
    st.builds(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}".format,
        st.sampled_from([1900, 1970, 2000, 2023, 2024, 2100]),
        st.integers(0, 13),
        st.integers(0, 32),
        st.integers(0, 24),
        st.sampled_from([0, 59, 60]),
        st.sampled_from([0, 59, 60]),
    ),
)


def expected(text: str) -> int:
    """Read one text with the standard library."""
    if not text:
        return times.ABSENT
    head, dot, fraction = text.partition(".")
    if dot and not (fraction.isascii() and fraction.isdigit()):
        return times.INVALID
    try:
        datetime.strptime(head, "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007 - İYS times have no zone
        seconds = one_by_one(head)
    except ValueError:
        return times.INVALID
    return seconds if len(head) == 19 and head.isascii() and 0 < seconds < 2**32 else times.INVALID


class TestColumns:
    """Exactly `YYYY-MM-DD HH:MM:SS` of the calendar, a fraction cut."""

    @given(st.lists(near_times | st.none(), max_size=20))
    @settings(max_examples=often(300), deadline=None)
    def test_equals_datetime(self, texts: list[str | None]) -> None:
        """A column reads each text as the standard library reads it alone."""
        read = times.seconds_of(texts)

        assert read.tolist() == [expected(text or "") for text in texts]

    def test_edges(self) -> None:
        """The first and last second are 1 and 2³²−1; those beside them are invalid."""
        texts = ["1970-01-01 00:00:00", "1970-01-01 00:00:01", "2106-02-07 06:28:15", "2106-02-07 06:28:16"]

        read = times.seconds_of(texts)

        assert read.tolist() == [-1, 1, 2**32 - 1, -1]

    def test_leap_years(self) -> None:
        """29 February is in every fourth year but for three of four centuries."""
        years = [2023, 2024, 2100, 2000, 1999]

        read = times.seconds_of([f"{year}-02-29 00:00:00" for year in years])

        assert [seconds > 0 for seconds in read.tolist()] == [False, True, False, True, False]


class TestZone:
    """Watermarks are Turkish local time, stored as UTC."""

    @given(moments)
    @settings(max_examples=often(100), deadline=None)
    def test_round_trip(self, moment: datetime) -> None:
        """From local to UTC and back is the same text but for hours that came twice or never."""
        moment = max(moment, datetime(2016, 10, 1))  # noqa: DTZ001 - before, Turkey moved its clocks
        text = str(moment.replace(microsecond=0))

        assert times.turkish_text(times.watermark(text)) == text

    def test_both_offsets(self) -> None:
        """Winter 2015 is UTC+2, everything since September 2016 UTC+3."""
        assert times.watermark("2015-12-01 02:00:00") == 1448928000
        assert times.watermark("2026-01-01 03:00:00") == 1767225600
        assert times.local_now(1767225600) == one_by_one("2026-01-01 03:00:00")

    def test_day(self) -> None:
        """A day is one of the calendar, and the one that a clock in Turkey shows."""
        assert times.day("2024-02-29") == date(2024, 2, 29)
        assert times.day_of(times.watermark("2024-02-29 00:00:00")) == date(2024, 2, 29)
        assert times.day_of(times.watermark("2024-02-29 23:59:59")) == date(2024, 2, 29)

    @pytest.mark.parametrize("text", ["", "2023-02-29", "2024-2-9", "20240229", "2024-02-29 ", "1969-12-31"])
    def test_no_day(self, text: str) -> None:
        """What is no day of the calendar, or written otherwise, is an error."""
        with pytest.raises(ValueError, match=r"."):
            times.day(text)
