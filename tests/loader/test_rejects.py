import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.errors import SourceUnreadableError
from iyscheck.store.layout import RejectedRow
from iyscheck.store.snapshot import Store
from loader.loading.rejects import RejectsFile, entry, rejects_name
from loader.reading.faults import MALFORMED_JSON
from tests.dice import often
from tests.loader.feeds import Desk, brand_row, consent, watermark_row
from tests.strategies import any_text


class TestFile:
    """Its length belongs to the resume point."""

    def test_private(self, tmp_path: Path) -> None:
        """Directory and file belong to their owner alone, and are made for the first reject."""
        file = RejectsFile.open(tmp_path / "rejects", "feed", length=0)
        assert not (tmp_path / "rejects").exists()

        file.append([b"one\n"])

        assert (tmp_path / "rejects").stat().st_mode & 0o777 == 0o700
        assert file.path.stat().st_mode & 0o777 == 0o600
        file.close()

    def test_cut_back(self, tmp_path: Path) -> None:
        """What was written beyond the resume point is cut off and written again."""
        file = RejectsFile.open(tmp_path, "feed", length=0)
        file.append([b"one\n", b"two\n"])
        file.close()

        file = RejectsFile.open(tmp_path, "feed", length=4)
        file.append([b"three\n"])
        file.close()

        assert file.path.read_bytes() == b"one\nthree\n"
        assert file.length == 10

    def test_gone(self, tmp_path: Path) -> None:
        """A file that is shorter than the resume point says is an error."""
        with pytest.raises(SourceUnreadableError, match="gone or shorter"):
            RejectsFile.open(tmp_path, "feed", length=1)

    @given(any_text, any_text)
    @settings(max_examples=often(100), deadline=None)
    def test_names(self, one: str, other: str) -> None:
        """Any two sources have two files, whose names are plain ones."""
        name = rejects_name(one)

        assert name.isascii()
        assert "/" not in name
        assert not name.startswith(".")
        assert len(name) < 255
        assert name == rejects_name(one)
        assert one == other or name != rejects_name(other)


class TestEntry:
    """What an entry shows."""

    def test_no_names(self) -> None:
        """The citizenName is dropped, wherever it stands."""
        shown = entry(3, MALFORMED_JSON, {"a": [{"citizenName": "A B", "c": 1}], "citizenName": "A B"}, b"")

        assert json.loads(shown) == {
            "line": 3,
            "field": "",
            "reason": "MALFORMED",
            "message": MALFORMED_JSON.message,
            "row": {"a": [{"c": 1}]},
        }

    @pytest.mark.parametrize("raw", [b'{"citizenName":"A B', b'{"citizen\\u004eame":"A B', b'{"CITIZENNAME'])
    def test_no_names_in_text(self, raw: bytes) -> None:
        """A line that does not decode is left out if it might name somebody."""
        assert json.loads(entry(1, MALFORMED_JSON, None, raw))["row"] is None

    @given(st.binary(max_size=50))
    @settings(max_examples=often(100), deadline=None)
    def test_any_bytes(self, raw: bytes) -> None:
        """Any line makes one line."""
        shown = entry(1, MALFORMED_JSON, None, raw)

        assert shown.count(b"\n") == 1
        assert json.loads(shown)["line"] == 1


class TestKept:
    """What the store itself knows of rejected rows: where they stand and what is wrong, for who has no rejects file."""

    FEED: tuple[Mapping[str, object] | bytes, ...] = (
        brand_row(),
        consent(),
        b"{",
        *(consent(recipient=f"+9053210{at:05} dahili") for at in range(25)),
        consent(creationDate="2099-01-01 00:00:00"),
        watermark_row(),
    )

    @staticmethod
    def kept(desk: Desk) -> tuple[RejectedRow, ...]:
        """Read what the store knows of the only source."""
        with Store.open(desk.store) as store, store.snapshot() as snapshot:
            (source,) = snapshot.sources()
            return source.first_rejects

    @pytest.mark.parametrize("commit_rows", [1, 4, 1000])
    def test_first(self, tmp_path: Path, commit_rows: int) -> None:
        """The first twenty are kept, as the rejects file tells them, whatever the size of the commits."""
        desk = Desk(tmp_path)

        desk.load(desk.file("a", *self.FEED), commit_rows=commit_rows)

        entries = [(entry["line"], entry["field"], entry["reason"]) for entry in desk.rejected()]
        assert len(entries) == 27
        assert [(row.line, row.field, row.reason) for row in self.kept(desk)] == entries[:20]

    def test_accepted(self, tmp_path: Path) -> None:
        """Those that were accepted are forgotten."""
        desk = Desk(tmp_path)
        path = desk.file("a", *self.FEED)
        desk.load(path)
        with desk.writer() as writer:
            writer.accept_rejects(path)

        assert self.kept(desk) == ()

    def test_no_content(self, tmp_path: Path) -> None:
        """Nothing that a rejected row says is in the store."""
        desk = Desk(tmp_path)
        desk.load(desk.file("a", *self.FEED, b'{"recipient":"ayse@example.com","brandcode":7}'))

        stored = (desk.store / "data.mdb").read_bytes()
        assert not [text for text in (b"53210000", b"dahili", b"ayse", b"brandcode") if text in stored]
