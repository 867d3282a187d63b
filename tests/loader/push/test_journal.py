import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.errors import SettingsError
from iyscheck.keys import AddressKey
from loader.archive.container import HEADER_BYTES
from loader.push.journal import Entry, Journal, JournalWriter, Place, segments
from tests.builders import ADDRESS_KEY
from tests.dice import often


def entry(number: int) -> Entry:
    """Make an entry that can be told from others."""
    return Entry(credential="iyscheck-1", received_s=float(number), rows=[{"transactionId": str(number)}])


def numbers(entries: tuple[Entry, ...]) -> list[str]:
    """Name entries."""
    return [str(row["transactionId"]) for each in entries for row in each.rows]


def read_all(journal: Journal, place: Place, *, most_rows: int = 1) -> tuple[list[str], Place]:
    """Read on, a little at a time, until there is no more."""
    found: list[str] = []
    while True:
        taken = journal.read(place, most_rows=most_rows)
        found += numbers(taken.entries)
        place = taken.place
        if not taken.entries:
            return found, place


batches = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@settings(max_examples=often(200), deadline=None)
@given(before=batches, cut=st.integers(0, 400), after=batches, most_rows=st.integers(1, 5), early=st.booleans())
def test_torn(*, before: list[int], cut: int, after: list[int], most_rows: int, early: bool) -> None:
    """Cut anywhere at its end, the journal gives what was kept before the cut once and in order, and all that follows.

    So it is for a reader that had read before the cut was repaired, too.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        journal, count = Journal(folder, ADDRESS_KEY), 0
        ends = []
        writer = JournalWriter(folder, ADDRESS_KEY)
        for size in before:
            writer.append([entry(count + at) for at in range(size)], 1_000.0)
            count += size
            ends.append(((folder / f"{segments(folder)[0]:020}.journal").stat().st_size, count))
        writer.close()
        path = folder / f"{segments(folder)[0]:020}.journal"
        size = path.stat().st_size - cut
        os.truncate(path, max(size, 0))
        acknowledged = max((kept for end, kept in ends if end <= size), default=0)

        place = Place()
        first: list[str] = []
        if early:
            first, place = read_all(journal, place, most_rows=most_rows)
        writer = JournalWriter(folder, ADDRESS_KEY)
        for size in after:
            writer.append([entry(count + at) for at in range(size)], 1_000.0)
            count += size
        writer.close()
        later, place = read_all(journal, Place.of(str(place)), most_rows=most_rows)

        found = list(map(int, first + later))
        new = sum(after)
        assert found == sorted(set(found)), "nothing comes twice, and all in its order"
        assert set(range(acknowledged)) <= set(found)
        assert found[len(found) - new :] == list(range(count - new, count))
        assert read_all(journal, place) == ([], place)
        assert journal.behind(place) == 0


@settings(max_examples=often(200), deadline=None)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_damaged(at: int, bit: int) -> None:
    """One bit changed anywhere in a segment: entries before it are read, none is made up, and what follows is read."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writer = JournalWriter(folder, ADDRESS_KEY)
        for number in range(3):
            writer.append([entry(number)], 1_000.0)
        writer.close_segment()
        path = folder / f"{segments(folder)[0]:020}.journal"
        content = bytearray(path.read_bytes())
        content[at % len(content)] ^= 1 << bit
        path.write_bytes(content)
        writer.append([entry(3)], 1_000.0)
        writer.close()
        found, _ = read_all(Journal(folder, ADDRESS_KEY), Place())

        assert found[-1] == "3"
        assert found[:-1] == ["0", "1", "2"][: len(found) - 1]


class TestJournal:
    """One process appends, another reads."""

    def test_one_writer(self, tmp_path: Path) -> None:
        """A second receiver is refused while the first one runs, and let in after it."""
        first = JournalWriter(tmp_path, ADDRESS_KEY)
        with pytest.raises(SettingsError, match="another receiver"):
            JournalWriter(tmp_path, ADDRESS_KEY)
        first.close()
        JournalWriter(tmp_path, ADDRESS_KEY).close()

    def test_nothing_readable(self, tmp_path: Path) -> None:
        """Nothing of a row can be read on the disk, and nobody else can open the file."""
        writer = JournalWriter(tmp_path, ADDRESS_KEY)
        writer.append([Entry(credential="c", received_s=1.0, rows=[{"recipient": "somebody@example.com"}])], 1_000.0)
        writer.close()
        (segment,) = tmp_path.glob("*.journal")
        assert b"somebody" not in segment.read_bytes()
        assert segment.stat().st_mode & 0o077 == 0

    def test_forget(self, tmp_path: Path) -> None:
        """What lies before a place is deleted, and what lies behind it stays."""
        writer = JournalWriter(tmp_path, ADDRESS_KEY)
        journal = Journal(tmp_path, ADDRESS_KEY)
        writer.append([entry(0)], 1_000.0)
        writer.close_segment()
        writer.append([entry(1)], 1_000.0)
        _, place = read_all(journal, Place())
        writer.append([entry(2)], 1_000.0)
        writer.close()

        assert journal.forget(place) == 1
        assert read_all(journal, place)[0] == ["2"]

    def test_emptied(self, tmp_path: Path) -> None:
        """A journal whose folder was emptied is read from its new beginning, though a clock went back meanwhile."""
        writer = JournalWriter(tmp_path, ADDRESS_KEY)
        journal = Journal(tmp_path, ADDRESS_KEY)
        writer.append([entry(0)], 2_000.0)
        _, place = read_all(journal, Place())
        writer.close()
        for path in tmp_path.glob("*.journal"):
            path.unlink()
        writer = JournalWriter(tmp_path, ADDRESS_KEY)
        writer.append([entry(1)], 3_000.0)
        writer.close()

        assert read_all(journal, place)[0] == ["1"]

    def test_emptied_and_earlier(self, tmp_path: Path) -> None:
        """So it is where the clock then is behind what was read last: no row waits for the time to come again."""
        writer = JournalWriter(tmp_path, ADDRESS_KEY)
        writer.append([entry(1)], 1_000.0)
        writer.close()
        journal = Journal(tmp_path, ADDRESS_KEY)
        place = Place(segment=2_000_000, offset=500, frames=3)

        assert journal.behind(place) > 0
        assert read_all(journal, place)[0] == ["1"]

    def test_moved_away(self, tmp_path: Path) -> None:
        """What goes into a segment that is not at its place any more is not taken; what comes then is, and is read."""
        folder = tmp_path / "push"
        writer = JournalWriter(folder, ADDRESS_KEY)
        writer.append([entry(0)], 1_000.0)
        folder.rename(tmp_path / "away")
        with pytest.raises(OSError, match="No such file"):
            writer.append([entry(1)], 1_000.0)
        writer.append([entry(2)], 1_000.0)
        writer.close()

        assert read_all(Journal(folder, ADDRESS_KEY), Place())[0] == ["2"]

    def test_other_key(self, tmp_path: Path) -> None:
        """A segment of another address key is told of, and does not keep what follows from being read."""
        writer = JournalWriter(tmp_path, AddressKey(bytes(32)))
        writer.append([entry(0)], 1_000.0)
        writer.close()
        writer = JournalWriter(tmp_path, ADDRESS_KEY)
        writer.append([entry(1)], 1_000.0)
        writer.close()
        taken = Journal(tmp_path, ADDRESS_KEY).read(Place(), most_rows=10)

        assert (numbers(taken.entries), taken.damaged) == (["1"], 1)

    @pytest.mark.parametrize("text", ["", "1:2", "a:b:c", "-1:52:0", "1:52:0 "])
    def test_no_place(self, text: str) -> None:
        """What is no place is the beginning."""
        assert Place.of(text) == Place(0, HEADER_BYTES, 0)
