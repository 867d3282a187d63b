import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.consent import Status
from iyscheck.errors import SourceUnreadableError
from iyscheck.store import layout
from iyscheck.store.snapshot import Store
from iyscheck.store.writer import Writer
from loader.loading.options import Options
from loader.push.journal import Entry, Journal, JournalWriter
from loader.sources.journal import NAME, Memory, Pushed, Read
from tests.builders import ADDRESS_KEY, STORE_KEY, content
from tests.dice import often
from tests.iys.clock import VirtualClock

BRANDS = (600_001, 600_002)
NOW = 1_767_787_200.0
"""2026-01-07 12:00:00 UTC."""

statuses = st.sampled_from(["ONAY", "RET", "onay ", "RED", "", None, "BEKLEMEDE", 1])
rows: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "iysCode": st.just(700_001),
        "brandCode": st.sampled_from(BRANDS),
        "recipient": st.sampled_from(["+905321000001", "+905321000002", "a@example.com", "x", None]),
        "recipientType": st.sampled_from(["BIREYSEL", "TACIR", None]),
        "type": st.sampled_from(["MESAJ", "ARAMA", "EPOSTA", None]),
        "creationDate": st.sampled_from(["2026-01-05 10:00:00", "2026-01-06 10:00:00", "2026-01-09 10:00:00", "x"]),
        "transactionId": st.sampled_from(["a" * 64, "b" * 64]),
    },
    optional={
        "status": statuses,
        "consentDate": st.sampled_from(["2026-01-05 09:00:00", "", "x"]),
        "source": st.sampled_from(["IYS_MOBIL", "HS_WEB", "NEU"]),
        "retailerAccess": st.just([1234]),
        "kind": st.sampled_from(["brand", "watermark", "consent", "retailerAccess"]),
        "active": st.just(True),
        "completeUntil": st.just("2026-01-07 12:00:00"),
    },
)


class Bench:
    """A store and a journal that is brought into it."""

    def __init__(self, folder: Path, *, applies_all: bool = False) -> None:
        self.folder = folder
        self.applies_all = applies_all
        self.clock = VirtualClock(NOW)
        self.kept: list[dict[str, object]] = []

    def push(self, pushed: Sequence[dict[str, object]]) -> None:
        """Write rows into the journal, as the receiver does."""
        writer = JournalWriter(self.folder / "journal", ADDRESS_KEY)
        writer.append([Entry(credential="c", received_s=NOW, rows=list(pushed))], NOW)
        writer.close()

    def writer(self) -> Writer:
        """Open the store."""
        return Writer.open(self.folder / "store", address_key_id=ADDRESS_KEY.key_id, store_key_id=STORE_KEY.key_id)

    def read(self) -> Read | None:
        """Bring what there is into the store, as a process that has just started."""
        with self.writer() as writer:
            return self.pushed(writer).poll()

    def pushed(self, writer: Writer) -> Pushed:
        """Make what brings rows into an open store."""
        return Pushed(
            writer,
            Journal(self.folder / "journal", ADDRESS_KEY),
            keys=(ADDRESS_KEY, STORE_KEY),
            options=Options(rejects=self.folder / "rejects"),
            clock=self.clock.now,
            applies_all=self.applies_all,
            keep=self.kept.extend,
        )

    def stored(self) -> dict[bytes, list[tuple[bytes, object]]]:
        """Return what is in the store, but for how far sources are."""
        with self.writer() as writer, Store(writer.environment) as store:
            found = content(store)
        found.pop(layout.SOURCES)
        found.pop(layout.META)
        return found


@settings(max_examples=often(150), deadline=None)
@given(pushed=st.lists(rows, min_size=1, max_size=8), applies_all=st.booleans())
def test_push_never_permits(pushed: list[dict[str, Any]], *, applies_all: bool) -> None:
    """Whatever is pushed, no brand is registered, no watermark moves or waits, no list of retailers is written.

    Nothing holds a brand. And unless somebody wants all rows, no record is a permission.
    """
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), applies_all=applies_all)
        bench.push(pushed)
        bench.read()
        with bench.writer() as writer, Store(writer.environment).snapshot() as snapshot:
            assert not list(snapshot.brands())
            assert not snapshot.watermarks()
            assert not snapshot.withheld()
            assert not snapshot.holds()
            counts = snapshot.counts()
        stored = bench.stored()
        assert not stored[layout.ACCESS]
        assert not stored[layout.SPANS]
        permits = sum(number for (*_, status), number in counts.items() if status == Status.ONAY)
        assert applies_all or not permits


@settings(max_examples=often(150), deadline=None)
@given(pushed=st.lists(rows, min_size=1, max_size=6), order=st.randoms(use_true_random=False))
def test_push_replayed(pushed: list[dict[str, Any]], order: random.Random) -> None:
    """Pushed again, and in any order, rows change nothing more."""
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        bench.push(pushed)
        bench.read()
        before = bench.stored()
        again = [*pushed, *pushed]
        order.shuffle(again)
        bench.push(again)
        bench.read()
        assert bench.stored() == before
        assert bench.read() is None


class TestPushed:
    """What becomes of rows that were pushed."""

    ROW = {  # noqa: RUF012 - a row as it comes
        "iysCode": 700_001,
        "brandCode": 600_001,
        "recipient": "+905321000001",
        "recipientType": "BIREYSEL",
        "type": "MESAJ",
        "status": "RET",
        "source": "IYS_MOBIL",
        "creationDate": "2026-01-06 10:00:00",
        "consentDate": "2026-01-06 10:00:00",
        "transactionId": "a" * 64,
    }

    def test_refusal(self, tmp_path: Path) -> None:
        """A refusal is stored, and its brand is known to be pushed."""
        bench = Bench(tmp_path)
        bench.push([self.ROW])
        read = bench.read()
        assert read is not None
        assert (read.applied.applied, read.left_out, read.brands) == (1, 0, {600_001: NOW})
        assert len(bench.stored()[layout.RECORDS]) == 1

    def test_forged(self, tmp_path: Path) -> None:
        """A forged permission after a refusal is left out; a row ten minutes ahead of the clock is rejected."""
        bench = Bench(tmp_path)
        bench.push([self.ROW])
        bench.read()
        before = bench.stored()
        forged = self.ROW | {
            "status": "ONAY",
            "creationDate": "2026-01-07 10:00:00",
            "consentDate": "2026-01-07 10:00:00",
        }
        ahead = self.ROW | {"creationDate": "2026-01-07 15:11:00"}
        bench.push([forged, ahead])
        read = bench.read()
        assert read is not None
        assert (read.applied.applied, read.left_out, read.totals.rejected) == (0, 1, 1)
        assert bench.stored() == before

    def test_interrupted(self, tmp_path: Path) -> None:
        """The place is in the transaction of the rows: what was read once is not read again by the next process."""
        bench = Bench(tmp_path)
        bench.push([self.ROW])
        bench.read()
        assert bench.read() is None
        with bench.writer() as writer:
            state = writer.source(NAME)
        assert state is not None
        assert (state.rows, state.held_brands) == (1, ())

    def test_memory(self) -> None:
        """Rows that came by pull and were never pushed are counted, from the first push on."""
        memory = Memory()
        row = self.ROW | {"creationDate": "2026-01-07 15:30:00"}
        other = row | {"transactionId": "b" * 64}
        assert memory.unseen([row, other]) == 0
        memory.note([row], NOW)
        assert memory.unseen([row, other]) == 1
        assert memory.unseen([row | {"status": "ONAY"}]) == 1, "twins share a transaction"

    def test_memory_begins(self) -> None:
        """What was registered before the oldest push that is remembered says nothing of pushes."""
        memory = Memory(most=1)
        old = self.ROW | {"transactionId": "b" * 64, "creationDate": "2026-01-07 14:59:59"}
        new = self.ROW | {"transactionId": "c" * 64, "creationDate": "2026-01-07 15:00:01"}
        memory.note([self.ROW], NOW)  # 15:00:00 in Turkey
        assert memory.unseen([old, new, self.ROW | {"creationDate": "x"}]) == 1
        memory.note([new], NOW + 60)
        assert memory.unseen([self.ROW | {"creationDate": "2026-01-07 15:00:02"}]) == 1
        memory.note([old], NOW + 120)
        assert memory.unseen([self.ROW | {"creationDate": "2026-01-07 15:00:59"}]) == 0, "as new as what it forgot"

    def test_rejects_taken_away(self, tmp_path: Path) -> None:
        """Whoever takes the rejects file away has read it: pushes go on, and their rejects are told of in a new one."""
        bench = Bench(tmp_path)
        bench.push([self.ROW | {"recipient": "x"}])
        bench.read()
        (path,) = (tmp_path / "rejects").iterdir()
        path.unlink()
        bench.push([self.ROW, self.ROW | {"recipient": "y"}])
        read = bench.read()

        assert read is not None
        assert (read.applied.applied, read.totals.rejected) == (1, 1)
        assert len(path.read_bytes().splitlines()) == 1

    def test_rejects_bounded(self, tmp_path: Path) -> None:
        """Rejects do not fill the disk: beyond 8 MiB they are counted only, and what is good is applied."""
        bench = Bench(tmp_path)
        for _ in range(2):
            bench.push([self.ROW, *(self.ROW | {"recipient": "x" * 100_000} for _ in range(50))])
            read = bench.read()
            assert read is not None
            assert read.totals.rejected == 50
        (path,) = (tmp_path / "rejects").iterdir()

        assert 7 * 2**20 < path.stat().st_size <= 8 * 2**20
        assert path.read_bytes().endswith(b"\n")
        assert len(bench.stored()[layout.RECORDS]) == 1

    def test_kept_once(self, tmp_path: Path) -> None:
        """Rows whose commit fails again and again go into the archive once, and with the commit into the store."""
        bench = Bench(tmp_path)
        (tmp_path / "rejects").write_text("no folder")
        second = self.ROW | {"transactionId": "b" * 64}
        with bench.writer() as writer:
            pushed = bench.pushed(writer)
            for rows in ([self.ROW, self.ROW | {"recipient": "x"}], [second]):
                bench.push(rows)
                for _ in range(3):
                    with pytest.raises(SourceUnreadableError):
                        pushed.poll()
            assert bench.kept == [self.ROW, second]
            (tmp_path / "rejects").unlink()
            read = pushed.poll()
            assert read is not None
            assert (read.totals.rows, read.totals.rejected) == (3, 1)
            bench.push([self.ROW])
            assert pushed.poll() is not None

        assert bench.kept == [self.ROW, second, self.ROW]
