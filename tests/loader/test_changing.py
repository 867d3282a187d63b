"""Files that are not what they were, or change while they are read, are not believed to be complete."""

import os
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from iyscheck.errors import SourceChangedError
from loader.loading.loader import Loader
from loader.loading.options import Options
from loader.loading.progress import Report
from loader.reports.metrics import FeedMetrics
from loader.sources.directory import Follower
from loader.sources.files.given import sources_of
from loader.sources.files.source import FileSource
from tests.builders import ADDRESS_KEY, STORE_KEY
from tests.loader.test_claims import BRAND, DAYS, FIRST, LATER, Desk, claim, content, midnight


def test_other_content(tmp_path: Path) -> None:
    """Other content under the same name, size and times is not the file that was loaded, and moves no watermark."""
    with closing(Desk(tmp_path)) as desk:
        desk.load(content(FIRST, 3), claim(), name="day.csv")
        path = tmp_path / "day.csv"
        path.unlink()
        path.write_bytes(content(FIRST, 3).replace(b"RET", b"RED"))
        os.utime(path, (LATER, LATER))

        for asked in ({"claim": claim(rows=3)}, {"claim": None, "watermarks": ((BRAND, midnight(DAYS[2])),)}):
            with pytest.raises(SourceChangedError, match="content has changed"):
                desk.load(b"", name="day.csv", **asked)

        assert desk.watermark == midnight(FIRST)


def test_same_content(tmp_path: Path) -> None:
    """The same content in a new file is unchanged: it is read, and only then believed."""
    with closing(Desk(tmp_path)) as desk:
        desk.load(content(FIRST, 3), claim(), name="day.csv")
        (tmp_path / "copy").write_bytes(content(FIRST, 3))
        (tmp_path / "copy").replace(tmp_path / "day.csv")
        os.utime(tmp_path / "day.csv", (LATER, LATER))

        assert desk.load(b"", claim(rows=3), name="day.csv").unchanged == 1
        assert desk.watermark == midnight(DAYS[1])


@pytest.mark.parametrize("change", ["shrinks", "grows", "is replaced", "is touched"])
def test_while_read(tmp_path: Path, change: str) -> None:
    """A file that changes while it is read is not finished and moves nothing; loaded again, it counts."""
    path = tmp_path / "big.csv"
    rows = 40_000
    line = content(FIRST, 1, header=False).replace(b"00000", b"%05d")
    whole = b"".join(line % number for number in range(rows))
    path.write_bytes(whole)
    os.utime(path, (LATER, LATER))

    def disturb(_: object) -> None:
        if change == "shrinks":
            os.truncate(path, len(whole) - 200)
        elif change == "grows":
            with path.open("ab") as file:
                file.write(content(FIRST, 1, header=False))
        elif change == "is replaced":
            (tmp_path / "new").write_bytes(whole)
            (tmp_path / "new").replace(path)
        else:
            os.utime(path, (LATER, LATER + 1))

    with closing(Desk(tmp_path)) as desk:
        options = Options(rejects=tmp_path / "rejects", brand=BRAND, claim=claim(whole=True), commit_rows=1_000)
        more: dict[str, Any] = {"address_key": ADDRESS_KEY, "store_key": STORE_KEY, "clock": lambda: LATER}
        with pytest.raises(SourceChangedError, match="changed while it was read"):
            Loader(desk.writer, options=options, watch=disturb, **more).load(sources_of([str(path)]))
        before = desk.watermark
        path.write_bytes(whole)
        os.utime(path, (LATER, LATER))
        Loader(desk.writer, options=options, **more).load(sources_of([str(path)]))

        assert before == midnight(FIRST)
        assert desk.watermark == midnight(DAYS[1])


class Spool:
    """A followed folder, whose follower has a clock and a watch of the test's."""

    def __init__(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = desk.folder / "in" / "rows.csv"
        self.path.parent.mkdir()
        self.clock_s = self.watch_s = 0.0
        monkeypatch.setattr("loader.sources.directory.time.monotonic", lambda: self.watch_s)
        options = Options(rejects=desk.folder / "rejects", brand=BRAND)
        self._follower = Follower(
            str(self.path.parent),
            source_of=FileSource,
            loader=Loader(desk.writer, address_key=ADDRESS_KEY, store_key=STORE_KEY, options=options),
            writer=desk.writer,
            metrics=FeedMetrics(),
            stop=threading.Event(),
            settle_s=5,
            clock=lambda: self.clock_s,
        )
        self._total = Report(position=desk.writer.position)

    def read(self) -> int:
        """Look once; say how many rows were read in all."""
        self._follower.poll(self._total)
        return self._total.read


def test_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is taken when nobody has written to it for a while, not before."""
    with closing(Desk(tmp_path)) as desk:
        spool = Spool(desk, monkeypatch)
        spool.path.write_bytes(content(FIRST, 2))
        written_s = spool.path.stat().st_ctime

        spool.clock_s = written_s + 4
        early = spool.read()
        spool.clock_s = written_s + 5.01

        assert (early, spool.read()) == (0, 2)


def test_times_of_the_future(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file's times lie ahead of the clock our own watch counts, from its last change on."""
    with closing(Desk(tmp_path)) as desk:
        spool = Spool(desk, monkeypatch)
        spool.path.write_bytes(content(FIRST, 1))
        read = [spool.read()]
        spool.watch_s = 4
        spool.path.write_bytes(content(FIRST, 2))
        read.append(spool.read())
        spool.watch_s = 8
        read.append(spool.read())
        spool.watch_s = 9

        assert [*read, spool.read()] == [0, 0, 0, 2]
