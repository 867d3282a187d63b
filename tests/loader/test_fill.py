"""Filling an empty store from sorted runs: the same store as from commits, and nothing left of it on a failure."""

import gzip
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import xxhash
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iyscheck.change import ConsentChange, ConsentColumns
from iyscheck.errors import SourceUnreadableError
from iyscheck.kernel import Kernel
from iyscheck.store import layout, records
from iyscheck.store.encoded import EncodedChanges
from iyscheck.store.index import place_order
from iyscheck.store.layout import SourceState
from iyscheck.store.snapshot import Store
from iyscheck.store.verification import verify
from iyscheck.store.writer import Writer
from loader.loading.ahead import ahead
from loader.loading.loader import Loader
from loader.loading.options import Options
from loader.loading.progress import Progress, Report
from loader.loading.sorted_runs import Runs
from loader.reading.feed import Feed
from loader.reading.json_lines import JsonLines
from loader.sources.files.given import kernel_for, sources_of
from tests.builders import ADDRESS_KEY, DERIVED, NOW, STORE_KEY, StoreBuilder, a_change, an_access, fill, supersedes
from tests.dice import often
from tests.loader.feeds import Desk, brand_row, consent, lines, watermark_row
from tests.strategies import consent_changes

FILL = 0
COMMITS = sys.maxsize

rows = st.one_of(
    st.builds(
        consent,
        st.sampled_from([1, 2]),
        st.sampled_from(["+905321000001", "+905321000002", "nobody"]),
        status=st.sampled_from(["ONAY", "RET", "?"]),
        creationDate=st.sampled_from(["2025-06-01 12:00:00", "2025-06-01 12:00:01"]),
        source=st.sampled_from(["HS_WEB", "HS_ATM", "HS_NEU", None]),
        transactionId=st.sampled_from(["ab" * 32, "ac" * 32, "short", None]),
        retailerAccess=st.sampled_from([None, None, None, [], [1], [1, 2]]),
    ),
    st.builds(brand_row, st.sampled_from([1, 2, 3]), active=st.booleans()),
    st.builds(watermark_row, st.sampled_from(["2026-01-01 03:00:00", "2025-12-31 03:00:00"]), brandCode=st.just(1)),
    st.sampled_from([b"{", b'{"brandCode":', b"", b'{"brandCode":2}']),
)
feeds = st.lists(rows, max_size=14)


def dump(path: Path) -> dict[bytes, list[tuple[bytes, bytes]]]:
    """Every byte of a store but its log id and what follows from its records: the index says what they say."""
    with Store.open(path) as store, store.snapshot() as snapshot:
        found = {name: list(snapshot.items(name)) for name in layout.DATABASES if name not in DERIVED}
        assert verify(store).faults == []
    left_out = (layout.META_LOG_ID, layout.META_INDEX)
    found[layout.META] = [(key, value) for key, value in found[layout.META] if key not in left_out]
    return found


def load(directory: Path, data: bytes, fill_bytes: int, **options: int) -> tuple[Desk, Report]:
    """Load a feed into an empty store."""
    desk = Desk(directory)
    (directory / "feed.jsonl").write_bytes(data)
    report = desk.load(str(directory / "feed.jsonl"), now=NOW, source="feed", fill_bytes=fill_bytes, **options)
    return desk, report


class TestSameStore:
    """Whatever is loaded first, and however the runs are cut, the store is the one that commits leave."""

    @settings(max_examples=often(100), deadline=None)
    @given(feeds, st.integers(1, 6), st.integers(1, 6))
    @example([b"{"], 1, 1)
    def test_any_feed(self, feed: Sequence[dict[str, object] | bytes], run_rows: int, commit_rows: int) -> None:
        """Records with positions, registers, counts, watermarks, holds, resume point and rejects are equal.

        So is the refusal of a file that cannot be read at all: a lone brace begins a document that has no end.
        """
        data = lines(feed)
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
            try:
                filled, report = load(Path(one), data, FILL, run_rows=run_rows, commit_rows=commit_rows)
            except SourceUnreadableError as error:
                with pytest.raises(SourceUnreadableError, match=error.message.rpartition("'")[2]):
                    load(Path(other), data, COMMITS, commit_rows=commit_rows)
                return
            committed, other_report = load(Path(other), data, COMMITS, commit_rows=commit_rows)

            assert without_times(dump(filled.store)) == without_times(dump(committed.store))
            assert filled.rejected() == committed.rejected()
            for name in ("read", "skipped", "rejected", "unaccepted", "watermarks", "withheld"):
                assert getattr(report, name) == getattr(other_report, name)
            assert report.applied + report.superseded == other_report.applied + other_report.superseded
            with Store.open(filled.store) as store, store.snapshot() as snapshot:
                stored = [layout.decode_record(key, value) for key, value in snapshot.items(layout.RECORDS)]
            assert stored == kept(data)


OF_THE_FILE = {"file_mtime_ns", "file_ctime_ns", "file_device", "file_inode"}


def without_times(found: dict[bytes, list[tuple[bytes, bytes]]]) -> dict[bytes, list[object]]:
    """Decode the sources, whose files are two of the same content."""
    decoded = [layout.decode_source(key, value) for key, value in found[layout.SOURCES]]
    plain: dict[bytes, list[object]] = {name: list(items) for name, items in found.items()}
    plain[layout.SOURCES] = [
        {name: getattr(source, name) for name in SourceState.__struct_fields__ if name not in OF_THE_FILE}
        for source in decoded
    ]
    return plain


def kept(data: bytes) -> list[ConsentChange]:
    """What stays of a feed, in key order, by a dictionary."""
    parsed = Feed(ADDRESS_KEY, STORE_KEY).parse(JsonLines().decode(data, first=True), now_s=NOW, sequence=0)
    changes = sorted(
        (parsed.consents.change(at) for at in range(len(parsed.consents))), key=lambda change: change.sequence
    )
    return [stays for _, stays in sorted(newest(changes).items())]


def newest(changes: Sequence[ConsentChange]) -> dict[tuple[int, int, int, bytes], ConsentChange]:
    """Apply changes one by one to a dictionary."""
    found: dict[tuple[int, int, int, bytes], ConsentChange] = {}
    for change in changes:
        key = (change.brand, change.channel, change.recipient_type, change.tag)
        if key not in found or supersedes(change, found[key]):
            found[key] = change
    return found


class TestRuns:
    """Runs on disk give back what a dictionary holds, sorted."""

    @settings(max_examples=often(150), deadline=None)
    @given(
        st.lists(st.lists(consent_changes, max_size=6), max_size=8),
        st.integers(1, 12),
        st.integers(1, 5),
        st.sampled_from(Kernel),
    )
    def test_any_changes(
        self, batches: list[list[ConsentChange]], run_rows: int, merged_rows: int, kernel: Kernel
    ) -> None:
        """Keys rise within and between chunks, each is there once, and its greatest change stayed."""
        numbered = [
            [replace(change, sequence=100 * at + place) for place, change in enumerate(batch)]
            for at, batch in enumerate(batches)
        ]
        with (
            tempfile.TemporaryDirectory() as directory,
            Runs(Path(directory), run_rows=run_rows, merged_rows=merged_rows, kernel=kernel) as runs,
        ):
            for batch in numbered:
                runs.add(ConsentColumns.of(batch))

            merged = [chunk.columns().change(at) for chunk in runs.merged() for at in range(len(chunk))]

            assert list(Path(directory).iterdir()) == []
        expected = newest([change for batch in numbered for change in batch])
        assert merged == [stays for _, stays in sorted(expected.items())]

    def test_tails(self, tmp_path: Path) -> None:
        """Sources and transaction ids that no column can say come back with their changes, from each of many runs."""
        changes = [
            replace(a_change(tag=bytes([number % 7, number]) + bytes(14)), source=source, transaction_id=text)
            for number, (source, text) in enumerate(
                [("", ""), ("HS_NEU", "kısa".encode().hex()), ("HS_WEB", "t-1"), ("HS_WEB", "ab" * 32)] * 6
            )
        ]
        with Runs(tmp_path, run_rows=5, merged_rows=3) as runs:
            for at in range(0, len(changes), 2):
                runs.add(ConsentColumns.of(changes[at : at + 2]))

            merged = [chunk.columns().change(at) for chunk in runs.merged() for at in range(len(chunk))]

        assert merged == sorted(changes, key=lambda change: change.tag)

    def test_small_source(self, tmp_path: Path) -> None:
        """What fits into one run is sorted in memory: no file is made for it."""
        with Runs(tmp_path / "missing") as runs:
            runs.add(ConsentColumns.of([a_change(tag=b"\2" * 16), a_change(tag=b"\1" * 16)]))

            (merged,) = runs.merged()

        assert merged.columns().tag[:, 0].tolist() == [1, 2]


def then_failing(changes: ConsentColumns) -> Generator[ConsentColumns, None, None]:
    """Give changes, then fail."""
    yield changes
    raise ZeroDivisionError


class TestFilling:
    """The one transaction that fills a store."""

    def test_unfinished(self, tmp_path: Path) -> None:
        """A filling that is not finished, or fails, leaves the store empty and usable."""
        changes = ConsentColumns.of([a_change()])
        with StoreBuilder(tmp_path / "store") as builder:
            with builder.writer.filling() as filling:
                filling.append(EncodedChanges.of(changes))
            with pytest.raises(ZeroDivisionError):
                fill(builder.writer, then_failing(changes), rows=1)
            assert builder.writer.is_empty

            fill(builder.writer, [changes], rows=1)

            assert not builder.writer.is_empty

    def test_unsorted(self, tmp_path: Path) -> None:
        """Keys that do not rise, within a chunk or between two, are refused, and nothing is written."""
        first, second = (ConsentColumns.of([a_change(tag=bytes([number]) * 16)]) for number in (1, 2))
        with StoreBuilder(tmp_path / "store") as builder:
            for chunks in ([second, first], [ConsentColumns.join([second, first])], [first, first]):
                with pytest.raises(ValueError, match="must rise"):
                    fill(builder.writer, chunks, rows=2)
                assert builder.writer.is_empty

    def test_not_empty(self, tmp_path: Path) -> None:
        """A store with records is not filled."""
        with StoreBuilder(tmp_path / "store") as builder:
            builder.consent().commit()

            with pytest.raises(ValueError, match="without records"):
                fill(builder.writer, [], rows=0)

    def test_facts(self, tmp_path: Path) -> None:
        """Counts, position and index are those of the chunks."""
        chunks = [ConsentColumns.of([a_change(tag=bytes([number]) * 16)]) for number in (1, 2, 3)]
        with StoreBuilder(tmp_path / "store") as builder:
            with builder.writer.filling() as filling:
                for chunk in chunks:
                    filling.append(EncodedChanges.of(chunk))
                applied = filling.finish(SourceState(name="x"), rows=5, taken=4)

            assert (applied.applied, applied.superseded, applied.position.sequence) == (3, 1, 5)
            assert verify(builder.store).faults == []
            with builder.store.snapshot() as snapshot:
                assert snapshot.counts() == {(1, 2, 1, 1): 3}

    def test_late_list(self, tmp_path: Path) -> None:
        """A list of retailers behind a record is refused: the index would not know of it."""
        change = a_change()
        with StoreBuilder(tmp_path / "store") as builder, builder.writer.filling() as filling:
            filling.append(EncodedChanges.of(ConsentColumns.of([change])))

            with pytest.raises(ValueError, match="come before"):
                filling.register([], [an_access(change, [7])])

    def test_spilled_index(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An index whose entries waited in files is the same, and leaves no file."""
        monkeypatch.setattr(place_order, "PARTED_ROWS", 700)
        changes = [
            a_change(tag=xxhash.xxh3_128_digest(number.to_bytes(8)), brand=1 + number % 3) for number in range(5_000)
        ]
        ordered = records.newest(ConsentColumns.of(changes))
        with StoreBuilder(tmp_path / "store") as builder:
            fill(builder.writer, (ordered.take(slice(at, at + 500)) for at in range(0, 5_000, 500)), rows=5_000)

            assert verify(builder.store).faults == []
            with builder.store.snapshot() as snapshot:
                found = snapshot.index_state()
        assert found is not None
        assert found.entries == 5_000
        assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["data.mdb", "lock.mdb", "writer.lock"]


def a_loader(
    writer: Writer, options: Options, *, watch: Callable[[Progress], None], stop: threading.Event | None = None
) -> Loader:
    """A loader whose clock stands at NOW."""
    return Loader(
        writer, address_key=ADDRESS_KEY, store_key=STORE_KEY, options=options, watch=watch, stop=stop, clock=lambda: NOW
    )


class TestLoading:
    """When the loader fills, and what it says meanwhile."""

    def test_cut_off(self, tmp_path: Path) -> None:
        """Of a file that is cut off everything before the damage is in, and the load goes on once it is whole."""
        data = lines(
            consent(recipient=f"+90532{number:07}", transactionId=f"{number * 7919 % 2**40:064x}")
            for number in range(30_000)
        )
        whole = gzip.compress(data)
        (tmp_path / "feed.jsonl.gz").write_bytes(whole[: len(whole) // 2])
        desk = Desk(tmp_path)
        with pytest.raises(SourceUnreadableError):
            desk.load(str(tmp_path / "feed.jsonl.gz"), fill_bytes=FILL, commit_rows=1000)
        with Store.open(desk.store) as store:
            before = store.stats().records
        (tmp_path / "feed.jsonl.gz").write_bytes(whole)

        report = desk.load(str(tmp_path / "feed.jsonl.gz"), fill_bytes=FILL, commit_rows=1000)

        assert 0 < before < 30_000
        assert (report.read, report.applied) == (30_000 - before, 30_000 - before)

    def test_stopped(self, tmp_path: Path) -> None:
        """Told to stop, it commits what it has read, and another load goes on from there."""
        desk = Desk(tmp_path)
        path = desk.file("feed.jsonl", *[consent(recipient=f"+9053210000{number:02}") for number in range(50)])
        stop = threading.Event()
        options = Options(rejects=desk.rejects, fill_bytes=FILL, commit_rows=10)
        with desk.writer() as writer:
            loader = a_loader(writer, options, stop=stop, watch=lambda _: stop.set())
            stopped = loader.load(sources_of([path]))

        rest = desk.load(path, fill_bytes=FILL)

        assert (stopped.stopped, stopped.read, stopped.applied) == (True, 10, 10)
        assert (rest.read, rest.applied) == (40, 40)

    def test_progress(self, tmp_path: Path) -> None:
        """Who watches is told of rows as they are read, and of their outcomes once, with the commit."""
        desk = Desk(tmp_path)
        feed = [consent(recipient=f"+9053210000{number % 7:02}") for number in range(25)]
        path = desk.file("feed.jsonl", *feed, b"{")
        seen: list[Progress] = []
        options = Options(rejects=desk.rejects, fill_bytes=FILL, commit_rows=10)
        with desk.writer() as writer:
            a_loader(writer, options, watch=seen.append).load(sources_of([path]))

        assert [(step.rows, step.durable) for step in seen] == [
            (10, False),
            (10, False),
            (6, False),
            (0, False),
            (0, True),
        ]
        assert [step.position.sequence for step in seen] == [0, 0, 0, 0, 26]
        assert seen[-1].outcomes == {"applied": 7, "superseded": 18, "skipped": 0, "rejected": 1}
        assert seen[-1].bytes == Path(path).stat().st_size

    def test_small_file(self, tmp_path: Path) -> None:
        """A small file is committed as it is read, and so is any file once there are records."""
        desk = Desk(tmp_path)
        path = desk.file("feed.jsonl", *[consent(recipient=f"+9053210000{number:02}") for number in range(25)])
        steps: list[Progress] = []
        with desk.writer() as writer:
            for fill_bytes in (Path(path).stat().st_size + 1, FILL):
                options = Options(rejects=desk.rejects, fill_bytes=fill_bytes, commit_rows=10)
                loader = a_loader(writer, options, watch=steps.append)
                loader.load(sources_of([path], name=str(fill_bytes)))

        assert [step.durable for step in steps] == [True] * 6


class TestKernel:
    """Compiled loops are got ready only where they pay."""

    def test_by_size(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The sizes of all files decide; what cannot be looked at, and a pipe, count for nothing."""
        monkeypatch.setattr("loader.sources.files.given.KERNEL_BYTES", 20)
        monkeypatch.chdir(tmp_path)
        (tmp_path / "-").write_bytes(b"x" * 20)  # not what the pipe is
        (tmp_path / "feeds").mkdir()
        for name in ("feeds/a.jsonl", "feeds/b.jsonl"):
            (tmp_path / name).write_bytes(b"x" * 10)

        assert kernel_for(["feeds"]) is Kernel.best()
        assert kernel_for(["feeds/a.jsonl", "missing", "feeds/b.jsonl"]) is Kernel.best()
        assert kernel_for(["feeds/a.jsonl", "missing", "-"]) is Kernel.NUMPY


class TestAhead:
    """Drawing ahead changes nothing but the time it takes."""

    def test_order(self) -> None:
        """The items are the same, in the same order."""
        with ahead(number for number in range(100)) as items:
            assert list(items) == [*range(100)]

    def test_error(self) -> None:
        """An error comes up where its item would have."""

        def failing() -> Generator[int, None, None]:
            yield 1
            raise SourceUnreadableError("x", fix="y")

        with ahead(failing()) as items:
            assert next(items) == 1
            with pytest.raises(SourceUnreadableError):
                next(items)

    def test_left_early(self) -> None:
        """When the block is left before the end, the thread has ended and the generator is closed."""
        closed: list[int] = []

        def endless() -> Generator[int, None, None]:
            try:
                while True:
                    yield 1
            finally:
                closed.append(1)

        threads = threading.active_count()
        with ahead(endless()) as items:
            next(items)

        assert closed == [1]
        assert threading.active_count() == threads
