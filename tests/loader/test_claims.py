"""What a daily file may claim: no proof moves a watermark past a row that was not loaded."""

import gzip
import hashlib
import os
from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.errors import GapError, SettingsError, SourceUnreadableError
from iyscheck.store.layout import SourceState, Span
from iyscheck.store.writer import Writer
from loader.loading.claims import Claim, Unproved
from loader.loading.loader import Loader
from loader.loading.options import Options
from loader.loading.progress import Report
from loader.sources.files.given import sources_of
from tests.builders import ADDRESS_KEY, STORE_KEY, a_batch, a_brand

BRAND = 600123
ISTANBUL = ZoneInfo("Europe/Istanbul")
FIRST = date(2026, 11, 20)
DAYS = [FIRST + timedelta(days=days) for days in range(4)]
HEADER = "creationDate,transactionId,recipient,recipientType,type,status,consentDate,source"


def midnight(day: date) -> int:
    """Return when a day begins in Turkey, seconds UTC."""
    return int(datetime(day.year, day.month, day.day, tzinfo=ISTANBUL).timestamp())


LATER = midnight(DAYS[-1] + timedelta(days=3)) + 12 * 3600
"""When all days are long over."""


def row(day: date, number: int, status: str = "RET") -> str:
    """Write one row of a day."""
    time = f"{day} {number % 24:02}:10:00"
    return f"{time},,+9053299{number:05},BIREYSEL,MESAJ,{status},{time},HS_WEB"


def content(day: date, rows: int, *, header: bool = True) -> bytes:
    """Write the file of a day."""
    lines = [HEADER] * header + [row(day, number) for number in range(rows)]
    return "".join(f"{line}\n" for line in lines).encode()


class Desk:
    """A store whose brand is complete to the beginning of FIRST, and a loader with a clock of its own."""

    def __init__(self, folder: Path, *, watermark: int | None = midnight(FIRST)) -> None:
        self.folder = folder
        self.now_s = float(LATER)
        self.writer = Writer.open(folder / "store", address_key_id=ADDRESS_KEY.key_id, store_key_id=STORE_KEY.key_id)
        asked = () if watermark is None else ((BRAND, watermark),)
        self.writer.apply(a_batch(brands=[a_brand(BRAND)]), SourceState(name="brand", watermarks=asked), finished=True)
        self._files = 0

    def load(
        self,
        data: bytes,
        claim: Claim | None,
        *,
        written_s: float = LATER,
        name: str = "",
        **more: Any,  # noqa: ANN401 - options
    ) -> Report:
        """Load a file with what is claimed of it."""
        self._files += 1
        path = self.folder / (name or f"{self._files}.csv")
        if not path.exists():
            path.write_bytes(data)
            os.utime(path, (written_s, written_s))
        options = Options(rejects=self.folder / "rejects", brand=BRAND, claim=claim, **more)
        loader = Loader(
            self.writer, address_key=ADDRESS_KEY, store_key=STORE_KEY, options=options, clock=lambda: self.now_s
        )
        return loader.load(sources_of([str(path)]))

    @property
    def watermark(self) -> int | None:
        """Where the brand stands."""
        return self.writer.coverage(BRAND)[0]

    def close(self) -> None:
        """Close the store."""
        self.writer.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A desk for one test."""
    found = Desk(tmp_path)
    yield found
    found.close()


def claim(day: date = FIRST, **proof: Any) -> Claim:  # noqa: ANN401 - a proof
    """Claim a day."""
    return Claim(brand=BRAND, day=day, **proof)


def proofs(data: bytes, rows: int) -> list[dict[str, Any]]:
    """All true proofs of a file."""
    return [
        {"rows": rows},
        {"whole": True},
        {"hash": hashlib.sha384(data).hexdigest()},
        {"hash": hashlib.sha256(data).hexdigest()},
    ]


class TestOneDay:
    """A day that touches the watermark."""

    @pytest.mark.parametrize("which", range(4), ids=["rows", "whole", "sha384", "sha256"])
    @pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
    def test_proved(self, desk: Desk, which: int, packed: bool) -> None:  # noqa: FBT001 - a parameter
        """With a proof the watermark moves to the end of the day and no further; a digest is that of the rows."""
        data = content(FIRST, 30)
        report = desk.load(gzip.compress(data) if packed else data, claim(**proofs(data, 30)[which]))

        assert desk.watermark == midnight(DAYS[1])
        assert report.watermarks == {BRAND: midnight(DAYS[1])}
        assert report.claims[0].reached

    @pytest.mark.parametrize(
        ("data", "asked", "faults"),
        [
            (content(FIRST, 3), {}, [Unproved.NO_PROOF]),
            (content(FIRST, 3), {"rows": 4}, [Unproved.OTHER_ROWS]),
            (content(FIRST, 3), {"hash": "0" * 96}, [Unproved.OTHER_HASH]),
            (b"", {"whole": True}, [Unproved.NO_ROWS]),
            (f"{HEADER}\n".encode(), {"whole": True}, [Unproved.NO_ROWS]),
            (content(FIRST, 3)[:-1], {"whole": True}, [Unproved.LINE_CUT]),
            (content(DAYS[1], 3), {"rows": 3}, [Unproved.OTHER_DAY]),
            (content(FIRST, 3) + content(DAYS[1], 1, header=False), {"rows": 4}, [Unproved.OTHER_DAY]),
            (
                row(FIRST - timedelta(days=1), 23).encode() + b"\n" + content(FIRST, 3, header=False),
                {"rows": 4},
                [Unproved.OTHER_DAY],
            ),
        ],
        ids=range(9),
    )
    def test_not_proved(self, desk: Desk, data: bytes, asked: dict[str, Any], faults: list[Unproved]) -> None:
        """What is wrong is told by its code, the rows are loaded, and the watermark stays."""
        report = desk.load(data, claim(**asked))

        assert list(report.claims[0].faults) == faults
        assert desk.watermark == midnight(FIRST)
        assert report.read == len(data.splitlines()) - data.startswith(b"creation")

    @pytest.mark.parametrize("asked", [{"rows": 0}, {"hash": hashlib.sha384(b"").hexdigest()}], ids=["rows", "hash"])
    def test_empty_day(self, desk: Desk, asked: dict[str, Any]) -> None:
        """A day without rows is proved by their number or its digest."""
        desk.load(b"", claim(**asked))

        assert desk.watermark == midnight(DAYS[1])

    @pytest.mark.parametrize("seconds", [-1, 0])
    def test_too_early(self, desk: Desk, seconds: int) -> None:
        """İYS shows rows late: before 01:02 of the next day neither clock nor file may say that all is there."""
        shown = midnight(DAYS[1]) + 3_720
        desk.now_s = shown + seconds
        by_clock = desk.load(content(FIRST, 1), claim(rows=1), written_s=shown).claims[0].faults
        desk.now_s = LATER
        by_file = desk.load(content(FIRST, 2), claim(rows=2), written_s=shown + seconds).claims[0].faults

        early = seconds < 0
        assert by_clock == ((Unproved.TOO_EARLY,) if early else ())
        assert by_file == ((Unproved.FILE_TOO_EARLY,) if early else ())

    def test_proved_later(self, desk: Desk) -> None:
        """A file that was loaded without a proof is proved when it is loaded again with one, read once more."""
        desk.load(content(FIRST, 5), claim(), name="day.csv")
        report = desk.load(b"", claim(hash=hashlib.sha384(content(FIRST, 5)).hexdigest()), name="day.csv")

        assert (report.read, report.unchanged) == (0, 1)
        assert desk.watermark == midnight(DAYS[1])

    def test_rejects_hold(self, desk: Desk) -> None:
        """A proved day with a rejected row waits until that is accepted, and then counts."""
        data = content(FIRST, 2) + b"2026-11-20 10:00:00,,nobody,BIREYSEL,MESAJ,RET,,HS_WEB\n"
        report = desk.load(data, claim(rows=3), name="day.csv")
        held = desk.watermark
        desk.writer.accept_rejects(str(desk.folder / "day.csv"))

        assert (held, report.claims[0].held) == (midnight(FIRST), True)
        assert desk.watermark == midnight(DAYS[1])

    def test_several_files(self, desk: Desk) -> None:
        """A day is one file."""
        for name in ("a.csv", "b.csv"):
            (desk.folder / name).write_bytes(content(FIRST, 1))
        options = Options(rejects=desk.folder / "rejects", brand=BRAND, claim=claim(whole=True))
        loader = Loader(desk.writer, address_key=ADDRESS_KEY, store_key=STORE_KEY, options=options)

        with pytest.raises(SettingsError, match="one file"):
            loader.load(sources_of([str(desk.folder / "a.csv"), str(desk.folder / "b.csv")]))


class TestGaps:
    """Days that do not touch the watermark."""

    def test_kept(self, desk: Desk) -> None:
        """A proved day behind a gap is kept, and the missing days are named; when they come, all count."""
        kept = desk.load(content(DAYS[2], 2), claim(DAYS[2], rows=2)).claims[0]
        desk.load(content(DAYS[1], 1), claim(DAYS[1], rows=1))
        before = desk.watermark
        desk.load(content(FIRST, 1), claim(rows=1))

        assert kept.missing == (FIRST, DAYS[1])
        assert before == midnight(FIRST)
        assert desk.watermark == midnight(DAYS[3])

    def test_accepted(self, desk: Desk) -> None:
        """An accepted gap is kept with its reason and moves the watermark, also over the proved days behind."""
        desk.load(content(DAYS[1], 1), claim(DAYS[1], rows=1))
        desk.writer.accept_gap(BRAND, until=midnight(DAYS[1]), reason="lost", now_s=LATER)

        assert desk.watermark == midnight(DAYS[2])

    def test_refused(self, desk: Desk, tmp_path: Path) -> None:
        """A gap is not accepted behind the watermark, without one, or while rejects hold it."""
        (tmp_path / "other").mkdir()
        other = Desk(tmp_path / "other", watermark=None)
        with pytest.raises(GapError, match="no watermark"):
            other.writer.accept_gap(BRAND, until=midnight(DAYS[1]), reason="lost", now_s=LATER)
        other.close()
        with pytest.raises(GapError, match="not before"):
            desk.writer.accept_gap(BRAND, until=midnight(FIRST), reason="lost", now_s=LATER)
        desk.load(b"2026-11-20 10:00:00,,nobody,BIREYSEL,MESAJ,RET,,HS_WEB\n", None)
        with pytest.raises(GapError, match="Rejected rows"):
            desk.writer.accept_gap(BRAND, until=midnight(DAYS[1]), reason="lost", now_s=LATER)

    def test_first_watermark(self, tmp_path: Path) -> None:
        """A brand without a watermark gets none from a day; from the list that gives it one the kept day counts."""
        desk = Desk(tmp_path, watermark=None)
        desk.load(content(FIRST, 1), claim(rows=1))
        without = desk.watermark
        desk.load(content(FIRST, 1, header=False), None, watermarks=((BRAND, midnight(FIRST)),))

        assert without is None
        assert desk.watermark == midnight(DAYS[1])
        desk.close()


steps = st.lists(
    st.tuples(
        st.sampled_from(range(4)),  # whose claim
        st.sampled_from(range(4)),  # whose content
        st.integers(0, 3),  # which proof, true for that content
        st.none() | st.floats(0, 1),  # where it is cut; the proof is of the whole file
    ),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(steps=steps, order=st.permutations(range(4)))
def test_never_past_a_lost_row(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, int, float | None]], order: list[int]
) -> None:
    """Whatever is claimed with true proofs, the watermark stays before the first day that is not in; at last all count.

    A word (`--whole`) is true of whole files only. A row that is cut is rejected and holds the brand until accepted.
    """
    with closing(Desk(tmp_path_factory.mktemp("claims"))) as desk:
        whole, held = set(), set()
        reached = 0
        for claimed, which, proof, cut in steps:
            data = content(DAYS[which], 3 + which)
            kept = data if cut is None else data[: round(cut * len(data))]
            truth = proofs(data, 3 + which)[proof]
            if kept != data and truth.get("whole"):
                continue
            try:
                report = desk.load(kept, claim(DAYS[claimed], **truth))
            except SourceUnreadableError:
                continue  # not even its header was whole
            if report.rejected:
                held.update(report.sources)
            if kept == data and claimed == which:
                whole.add(which)
            if not held:
                reached = next((day for day in range(4) if day not in whole), 4)
            assert desk.watermark == midnight(FIRST + timedelta(days=reached))
        for day in order:
            desk.load(content(DAYS[day], 3 + day), claim(DAYS[day], rows=3 + day))
        for source in held:
            desk.writer.accept_rejects(source)
        assert desk.watermark == midnight(FIRST + timedelta(days=4))
        assert desk.writer.coverage(BRAND)[1] == []


def test_span() -> None:
    """A day's span is from midnight to midnight in Turkey."""
    assert claim(date(2016, 3, 27)).span == Span(brand=BRAND, start=1_459_029_600, end=1_459_029_600 + 23 * 3600)
