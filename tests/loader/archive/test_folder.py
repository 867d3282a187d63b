"""The folder of the archive: one file a day, sealed when the day is over, and mended where a crash tore it."""

import json
import os
import stat
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.errors import ArchiveError
from iyscheck.keys import AddressKey
from loader.archive.container import HEADER_BYTES, Content
from loader.archive.folder import Archive, Kind
from tests.builders import ADDRESS_KEY, NOW
from tests.dice import often
from tests.loader.feeds import Command, brand_row, consent, lines

DAY_S = 86_400
TODAY = "2026-01-01"


def opened(folder: Path, now_s: float = NOW, key: AddressKey = ADDRESS_KEY) -> Archive:
    """Open an archive at a time."""
    return Archive(folder, key, clock=lambda: now_s)


def rows_of(path: Path, key: AddressKey = ADDRESS_KEY) -> tuple[list[dict[str, object]], bool]:
    """Read the rows of a file as far as it goes, and say whether it is sealed."""
    found = b""
    is_sealed = True
    with path.open("rb") as file:
        content = Content(file, key, str(path))
        try:
            while piece := content.read(1000):
                found += piece
        except EOFError:
            is_sealed = False
    return [json.loads(line) for line in found.splitlines()], is_sealed


def names(folder: Path) -> list[str]:
    """Name all files."""
    return sorted(path.name for path in folder.iterdir())


class TestArchive:
    """What is kept, and for how long."""

    def test_rows(self, tmp_path: Path) -> None:
        """Rows are kept with their brand, without names of citizens, readable by the owner, on no disk in clear."""
        folder = tmp_path / "archive"
        archive = opened(folder)
        archive.add(Kind.PULL, [{"recipient": "+905321112233", "citizenName": "Ayşe Özel"}], brand=7)
        archive.add(Kind.PULL, [{"kind": "watermark", "completeUntil": "2026-01-01 00:00:00"}], brand=7)
        archive.add(Kind.PUSH, [{"brandCode": 8, "recipient": "a@example.com", "CitizenName": "Ayşe Özel"}])
        pull, push = folder / f"pull-{TODAY}-1.archive.part", folder / f"push-{TODAY}-1.archive.part"

        assert rows_of(pull) == ([{"brandCode": 7, "recipient": "+905321112233"}], False)
        assert rows_of(push) == ([{"brandCode": 8, "recipient": "a@example.com"}], False)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for path in (pull, push):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert not any(text in path.read_bytes() for text in (b"532111", b"example", b"recipient", "Özel".encode()))
        archive.close()
        assert names(folder) == [f"pull-{TODAY}-1.archive", f"push-{TODAY}-1.archive"]

    def test_days(self, tmp_path: Path) -> None:
        """A day's file is sealed when the next one begins, and whoever opens the archive begins another one."""
        now_s = [NOW]
        for _ in range(2):
            with Archive(tmp_path, ADDRESS_KEY, clock=lambda: now_s[0]) as archive:
                archive.add(Kind.PULL, [{"n": now_s[0]}])
                now_s[0] += DAY_S
                archive.add(Kind.PULL, [{"n": now_s[0]}])
                archive.add(Kind.PULL, [{"n": now_s[0]}])

        assert {name: rows_of(tmp_path / name) for name in names(tmp_path)} == {
            "pull-2026-01-01-1.archive": ([{"n": NOW}], True),
            "pull-2026-01-02-1.archive": ([{"n": NOW + DAY_S}] * 2, True),
            "pull-2026-01-02-2.archive": ([{"n": NOW + DAY_S}], True),
            "pull-2026-01-03-1.archive": ([{"n": NOW + 2 * DAY_S}] * 2, True),
        }

    @given(st.data())
    @settings(max_examples=often(30), deadline=None)
    def test_torn(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        """Whatever a crash left of the last rows is cut, and what is whole is sealed, by who opens the archive next."""
        folder = tmp_path_factory.mktemp("archive")
        path = folder / f"pull-{TODAY}-1.archive.part"
        archive = opened(folder)
        archive.add(Kind.PULL, [{"n": 1}])
        kept = path.stat().st_size
        archive.add(Kind.PULL, [{"n": 2}])
        both = path.stat().st_size
        archive.close()
        path.with_suffix("").rename(path)
        length = data.draw(st.integers(kept, path.stat().st_size))
        os.truncate(path, length)

        opened(folder).close()

        kept_rows = [{"n": 1}, {"n": 2}] if length >= both else [{"n": 1}]
        assert names(folder) == [f"pull-{TODAY}-1.archive"]
        assert rows_of(folder / f"pull-{TODAY}-1.archive") == (kept_rows, True)

    @pytest.mark.parametrize("cause", ["header torn", "bits lost", "other key"])
    def test_unusable(self, tmp_path: Path, cause: str) -> None:
        """A file that cannot be sealed stays as it is, byte for byte, and another one is begun."""
        path = tmp_path / f"pull-{TODAY}-1.archive.part"
        archive = opened(tmp_path, key=AddressKey(bytes(32)) if cause == "other key" else ADDRESS_KEY)
        archive.add(Kind.PULL, [{"n": 1}])
        archive.add(Kind.PULL, [{"n": 2}])
        left = bytearray(path.read_bytes())
        archive.close()
        if cause == "header torn":
            del left[HEADER_BYTES - 1 :]
        if cause == "bits lost":
            left[HEADER_BYTES + 30] ^= 1
        (tmp_path / f"pull-{TODAY}-1.archive").unlink()
        path.write_bytes(left)

        with opened(tmp_path) as archive:
            archive.add(Kind.PULL, [{"n": 3}])

        assert path.read_bytes() == left
        assert rows_of(tmp_path / f"pull-{TODAY}-2.archive") == ([{"n": 3}], True)

    def test_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the disk takes half a frame the rows are not kept, it is said, and all others are."""
        write = os.write

        def half(descriptor: int, data: bytes) -> int:
            if len(data) < 10:
                raise OSError(28, "No space left on device")
            return write(descriptor, data[: len(data) // 2])

        archive = opened(tmp_path)
        archive.add(Kind.PULL, [{"n": 1}])
        monkeypatch.setattr(os, "write", half)
        with pytest.raises(ArchiveError, match="No space left"):
            archive.add(Kind.PULL, [{"n": 2}])
        monkeypatch.undo()
        archive.add(Kind.PULL, [{"n": 3}])
        archive.close()
        opened(tmp_path).close()

        kept = [rows_of(tmp_path / name) for name in names(tmp_path)]
        assert kept == [([{"n": 1}], True), ([{"n": 3}], True)]

    def test_daily_file(self, tmp_path: Path) -> None:
        """A daily file is kept byte for byte and sealed at once; a later version takes its place."""
        file = tmp_path / "x.csv"
        folder = tmp_path / "archive"
        for content in (b"first", b"second\n" * 400_000):
            file.write_bytes(content)
            with opened(folder) as archive:
                kept = archive.add_day(7, date(2025, 12, 31), file)
            with kept.open("rb") as stream:
                assert Content(stream, ADDRESS_KEY, "x").read(len(content) + 1) == content[: 2**20]
            assert names(folder) == ["day-7-2025-12-31.archive"]

    def test_expire(self, tmp_path: Path) -> None:
        """What is older than is wished for goes; what is no file of ours stays."""
        (tmp_path / "x.csv").write_bytes(b"")
        (tmp_path / "pull-2020-01-01.txt").write_bytes(b"")
        for days in range(4):
            with opened(tmp_path, NOW + days * DAY_S) as archive:
                archive.add(Kind.PULL, [{"n": 1}])
                archive.add_day(7, date(2026, 1, 1 + days), tmp_path / "x.csv")
                deleted = archive.expire(DAY_S)

        assert deleted == 2

        assert names(tmp_path) == [
            "day-7-2026-01-03.archive",
            "day-7-2026-01-04.archive",
            "pull-2020-01-01.txt",
            "pull-2026-01-03-1.archive",
            "pull-2026-01-04-1.archive",
            "x.csv",
        ]


class TestLoad:
    """`load` reads the archive back."""

    def test_back(self, tmp_path: Path) -> None:
        """An archive loads into a store under a new address key, with the old one given, and only once."""
        command = Command(tmp_path)
        old = AddressKey.create(tmp_path / "old.key")
        with opened(tmp_path / "archive", key=old) as archive:
            archive.add(Kind.PULL, [consent(brand=None), consent(brand=None, recipient="+905321000002")], brand=1)
            archive.add(Kind.PULL, [consent(brand=2, status="RET")])
        (tmp_path / "brands.jsonl").write_bytes(lines([brand_row()]))
        command.run("load", "brands.jsonl")

        refused = command.run("load", "archive")
        loaded = command.run("load", "archive", "--archive-key", "old.key", "--json")
        again = command.run("load", "archive", "--archive-key", "old.key", "--json")

        assert (refused.returncode, loaded.returncode, again.returncode) == (2, 0, 0)
        assert b"--archive-key" in refused.stderr
        assert json.loads(loaded.stdout)["applied"] == 3
        assert json.loads(again.stdout)["unchanged"] == 1

    def test_unsealed(self, tmp_path: Path) -> None:
        """A file that is not sealed is none to load: its end may be missing."""
        command = Command(tmp_path)
        archive = opened(tmp_path / "archive", key=AddressKey.load(tmp_path / "address.key"))
        archive.add(Kind.PULL, [consent()])

        loaded = command.run("load", f"archive/pull-{TODAY}-1.archive.part")

        assert loaded.returncode == 2
        assert b"cut off or damaged" in loaded.stderr
        archive.close()
