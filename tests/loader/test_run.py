import gzip
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from iyscheck.errors import SettingsError, SourceChangedError, SourceUnknownError, SourceUnreadableError, WatermarkError
from iyscheck.store.layout import SourceState
from iyscheck.store.snapshot import Store
from loader.loading.loader import Loader
from loader.loading.options import Options
from loader.loading.progress import Progress, Report
from loader.sources.files import opening
from loader.sources.files.given import sources_of
from tests.builders import ADDRESS_KEY, NOW, STORE_KEY, content
from tests.loader.feeds import Desk, brand_row, consent, watermark_row


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A place to load at."""
    return Desk(tmp_path)


def rows(count: int, **fields: object) -> list[dict[str, object]]:
    """Consents of so many recipients."""
    return [consent(recipient=f"+90532100{at:04}", **fields) for at in range(count)]


def outcome(report: Report) -> tuple[int, int, int, int, int]:
    """Read, applied, superseded, skipped, rejected."""
    return report.read, report.applied, report.superseded, report.skipped, report.rejected


def state(desk: Desk) -> SourceState:
    """The state of the only source."""
    with Store.open(desk.store) as store, store.snapshot() as snapshot:
        (found,) = snapshot.sources()
        return found


class TestOutcome:
    """What a load says that it did."""

    def test_counts(self, desk: Desk) -> None:
        """Rows are applied, superseded, skipped or rejected, and the position counts them all."""
        path = desk.file("a", brand_row(), *rows(3), *rows(2), consent(121212), b"{", b"", watermark_row())

        report = desk.load(path)

        assert outcome(report) == (9, 3, 2, 1, 1)
        assert report.position.sequence == 9
        assert state(desk).lines == 10

    def test_kinds_of_files(self, desk: Desk) -> None:
        """A directory of plain, compressed and CSV files is loaded in the order of their names."""
        inner = desk.path / "inner"
        inner.mkdir()
        (inner / "b.jsonl.gz").write_bytes(gzip.compress(Path(desk.file("x", *rows(5))).read_bytes()))
        (inner / "a.csv").write_text("2025-06-01 12:00:00,,+905321000001,BIREYSEL,MESAJ,RET,,HS_WEB\n")

        report = desk.load(str(inner), brand=1)

        assert outcome(report) == (6, 5, 1, 0, 0)
        assert [Path(name).name for name in report.sources] == ["a.csv", "b.jsonl.gz"]

    @pytest.mark.parametrize("commit_rows", [1, 2, 3, 7, 1000])
    def test_commit_size(self, desk: Desk, tmp_path: Path, commit_rows: int) -> None:
        """How many rows a commit holds changes nothing in the store or the rejects file."""
        feed: list[dict[str, object] | bytes] = [
            brand_row(),
            *rows(4),
            b"{",
            *rows(3, status="RET"),
            b"",
            consent(recipient="?"),
            watermark_row(),
        ]
        other = Desk(tmp_path / "other")
        other.path.mkdir()
        path = desk.file("a", *feed)

        desk.load(path, commit_rows=commit_rows)
        other.load(path)

        with Store.open(desk.store) as one, Store.open(other.store) as two:
            assert content(one) == content(two)
        assert desk.rejected() == other.rejected()

    def test_nothing(self, desk: Desk) -> None:
        """An empty file is a source like any other; an empty directory is none."""
        (desk.path / "inner").mkdir()

        assert outcome(desk.load(desk.file("a"))) == (0, 0, 0, 0, 0)
        assert state(desk).finished
        with pytest.raises(SettingsError, match="no file"):
            desk.load(str(desk.path / "inner"))

    def test_long_line(self, desk: Desk) -> None:
        """A line of 20 MiB is rejected without its content, and the row behind it is loaded."""
        path = desk.file("a", brand_row(), b"x" * 20 * 2**20, consent())

        report = desk.load(path)

        assert outcome(report) == (3, 1, 0, 0, 1)
        assert [(entry["line"], entry["reason"], entry["row"]) for entry in desk.rejected()] == [
            (2, "LINE_TOO_LONG", None)
        ]

    def test_odd_name(self, desk: Desk) -> None:
        """A file name that is not UTF-8 is a source like any other."""
        path = desk.file("a\udcff", b"{}}")

        assert outcome(desk.load(path)) == (1, 0, 0, 0, 1)
        assert desk.load(path).unchanged == 1


class TestResume:
    """A source goes on where it stopped."""

    def stopped(self, desk: Desk, path: str, *, after: int) -> None:
        """Load, and stop after so many commits of two rows."""
        stop = threading.Event()
        commits: list[Progress] = []

        def watch(commit: Progress) -> None:
            commits.append(commit)
            if len(commits) == after:
                stop.set()

        with desk.writer() as writer:
            options = Options(rejects=desk.rejects, commit_rows=2)
            loader = Loader(
                writer,
                address_key=ADDRESS_KEY,
                store_key=STORE_KEY,
                options=options,
                clock=lambda: NOW,
                stop=stop,
                watch=watch,
            )  # fmt: skip - what it is made of, and what this test is about
            assert loader.load(sources_of([path])).stopped

    def test_goes_on(self, desk: Desk) -> None:
        """Rows committed before the stop are not read as rows again."""
        path = desk.file("a", *rows(3), b"{", *rows(3))
        self.stopped(desk, path, after=2)

        report = desk.load(path)

        assert outcome(report) == (3, 0, 3, 0, 0)
        assert report.position.sequence == 7
        assert len(desk.rejected()) == 1

    def test_changed(self, desk: Desk) -> None:
        """A beginning that is not what was loaded is an error that says what to do."""
        path = desk.file("a", *rows(8))
        self.stopped(desk, path, after=1)
        desk.file("a", *rows(8, status="RET"))

        with pytest.raises(SourceChangedError, match="--source"):
            desk.load(path)

    def test_grown_before_end(self, desk: Desk) -> None:
        """Before it is finished a file may grow."""
        path = desk.file("a", *rows(4))
        self.stopped(desk, path, after=1)
        desk.file("a", *rows(6))

        assert desk.load(path).read == 4

    def test_finished(self, desk: Desk) -> None:
        """A finished file that nobody touched is not even read."""
        path = desk.file("a", *rows(2))
        desk.load(path)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(opening, "opened", None)
            report = desk.load(path)

        assert (outcome(report), report.unchanged) == ((0, 0, 0, 0, 0), 1)

    def test_same_size_and_time(self, desk: Desk) -> None:
        """Other content under the same name, size and time is an error: tar and zip give files their old times."""
        path = desk.file("a", *rows(2))
        desk.load(path)
        stamp = Path(path).stat()
        desk.file("a", *rows(2, transactionId="cd" * 32))
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        assert Path(path).stat().st_size == stamp.st_size

        with pytest.raises(SourceChangedError):
            desk.load(path)

    def test_touched(self, desk: Desk) -> None:
        """A finished file that was touched is compared, and loads nothing."""
        path = desk.file("a", *rows(2))
        desk.load(path)
        os.utime(path, ns=(1, 1))

        assert desk.load(path).unchanged == 1

    @pytest.mark.parametrize("now", [rows(3), rows(1), rows(2, status="RET")], ids=["longer", "shorter", "other"])
    def test_finished_changed(self, desk: Desk, now: list[dict[str, object]]) -> None:
        """A finished file with another content, also with rows added, is an error."""
        path = desk.file("a", *rows(2))
        desk.load(path)
        desk.file("a", *now)
        os.utime(path, ns=(1, 1))

        with pytest.raises(SourceChangedError):
            desk.load(path)

    def test_named(self, desk: Desk) -> None:
        """With --source the path does not matter."""
        desk.load(desk.file("a", *rows(2)), source="feed")
        one = state(desk)

        report = desk.load(desk.file("b", *rows(2)), source="feed")

        assert report.unchanged == 1
        assert state(desk) == one
        with pytest.raises(SettingsError, match="one name"):
            desk.load(desk.file("a"), desk.file("b"), source="feed")

    def test_rejects_gone(self, desk: Desk) -> None:
        """A load does not go on without the rejects file of its beginning."""
        path = desk.file("a", b"{", *rows(5))
        self.stopped(desk, path, after=1)
        next(desk.rejects.iterdir()).unlink()

        with pytest.raises(SourceUnreadableError, match="rejects"):
            desk.load(path)


class TestWatermarks:
    """They say that everything up to here is in, so they move with the end of a source only, and forward."""

    def test_row(self, desk: Desk) -> None:
        """A watermark row moves all registered brands, or the one it names."""
        path = desk.file(
            "a", brand_row(1), watermark_row(), watermark_row("2025-12-01 00:00:00", brandCode=3), brand_row(2)
        )

        report = desk.load(path)

        assert report.watermarks == {1: NOW, 2: NOW, 3: NOW - 31 * 86400 - 3 * 3600}
        assert desk.watermarks() == report.watermarks

    def test_only_at_the_end(self, desk: Desk) -> None:
        """A load that stopped has moved none; the rest of it moves what the beginning asked for."""
        path = desk.file("a", brand_row(), watermark_row(), *rows(4))
        TestResume().stopped(desk, path, after=2)
        assert desk.watermarks() == {}

        desk.load(path)

        assert desk.watermarks() == {1: NOW}

    def test_asked(self, desk: Desk) -> None:
        """An asked watermark moves with the last file, also where that was loaded before."""
        paths = [desk.file("a", brand_row()), desk.file("b", *rows(2))]

        desk.load(*paths)
        assert desk.watermarks() == {}
        desk.load(*paths, watermarks=((0, NOW),))

        assert desk.watermarks() == {1: NOW}

    def test_only_forward(self, desk: Desk) -> None:
        """An older one changes nothing."""
        desk.load(desk.file("a", brand_row(), watermark_row()))

        desk.load(desk.file("b", watermark_row("2025-12-01 00:00:00")))

        assert desk.watermarks() == {1: NOW}

    def test_ahead(self, desk: Desk) -> None:
        """One more than five minutes ahead of the clock is an error before anything is loaded."""
        path = desk.file("a", *rows(2))

        with pytest.raises(WatermarkError):
            desk.load(path, watermarks=((1, NOW + 301),))

        assert desk.load(path, watermarks=((1, NOW + 300),)).applied == 2

    def test_failed_file(self, desk: Desk) -> None:
        """Where a file fails the ones behind it are not loaded, and the watermark stays."""
        with pytest.raises(SourceUnreadableError):
            desk.load(desk.file("a", brand_row()), str(desk.path / "none"), watermarks=((0, NOW),))

        assert desk.watermarks() == {}


class TestHolds:
    """A rejected row may be a lost refusal."""

    def test_brand(self, desk: Desk) -> None:
        """A reject holds back its brand, and no other, until it is accepted."""
        path = desk.file("a", brand_row(1), brand_row(2), consent(2, "nobody"), watermark_row())

        report = desk.load(path)

        assert (report.watermarks, report.withheld, report.unaccepted) == ({1: NOW}, {2: NOW}, 1)
        with desk.writer() as writer:
            writer.accept_rejects(path)
        assert desk.watermarks() == {1: NOW, 2: NOW}
        assert desk.load(path).unaccepted == 0

    def test_unreadable(self, desk: Desk) -> None:
        """A reject whose brand is unreadable holds back all brands of its source."""
        path = desk.file("a", brand_row(1), brand_row(2), b"{", watermark_row())

        report = desk.load(path)

        assert (report.watermarks, report.withheld) == ({}, {1: NOW, 2: NOW})

    def test_later_source(self, desk: Desk) -> None:
        """The hold lasts for watermarks of later sources too."""
        desk.load(desk.file("a", brand_row(1), consent(1, "nobody")))

        report = desk.load(desk.file("b", watermark_row()))

        assert (report.watermarks, report.withheld) == ({}, {1: NOW})

    def test_given_brand(self, desk: Desk) -> None:
        """A source of --brand that has only bad lines holds back that brand."""
        desk.load(desk.file("a", brand_row(1)))

        report = desk.load(desk.file("b", b"{}}"), brand=1, watermarks=((1, NOW),))

        assert report.withheld == {1: NOW}

    def test_rejected_after_acceptance(self, desk: Desk) -> None:
        """Rows rejected after an acceptance hold their brand again."""
        path = desk.file("a", brand_row(), consent(1, "nobody"), *rows(2), consent(1, "nobody"), watermark_row())
        TestResume().stopped(desk, path, after=1)
        with desk.writer() as writer:
            writer.accept_rejects(path)

        report = desk.load(path)

        assert (report.watermarks, report.withheld) == ({}, {1: NOW})
        assert report.unaccepted > 0

    def test_nothing_to_accept(self, desk: Desk) -> None:
        """Accepting what does not wait is an error."""
        desk.load(desk.file("a", brand_row()))

        with desk.writer() as writer, pytest.raises(SourceUnknownError):
            writer.accept_rejects("other")


def test_report_adds_up(desk: Desk) -> None:
    """A report over several files is the sum of the files'."""
    paths = [desk.file(name, *rows(2)) for name in "abc"]

    report = desk.load(*paths)

    assert outcome(replace(report)) == (6, 2, 4, 0, 0)
