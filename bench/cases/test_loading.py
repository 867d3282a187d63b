"""Loading a feed beside merely parsing it, and applying changes beside a plain sorted putmulti of the same records.

`python -m pytest bench/cases/test_loading.py -s` times each in process; the last case of each kind runs both sides in
turn and prints their ratio, which holds on a noisy machine too. CONSENTS in the environment sizes the feed and the
store that is changed (default 500,000).
"""

import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.peers import parse, plain
from bench.population import Population
from bench.product import fill
from iyscheck.change import HEX_TRANSACTION, SOURCE_NUMBERS, TRANSACTION_BYTES, ConsentColumns
from iyscheck.kernel import Kernel
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.store import layout, records
from iyscheck.store.encoded import EncodedChanges
from iyscheck.store.layout import SourceState
from iyscheck.store.writer import Batch, Writer
from loader.loading.loader import Loader
from loader.loading.options import FILL_BYTES, Options
from loader.sources.files.given import sources_of

if TYPE_CHECKING:
    import lmdb

CONSENTS: Final = int(os.environ.get("CONSENTS", "500000"))
ROUNDS: Final = 5
KEYS: Final = (AddressKey(bytes(range(32))), StoreKey(bytes(range(32, 64))))
FIRST: Final = 1_600_000_000
NOT_FILLED: Final = 2**62


def opened(path: Path) -> Writer:
    """Open a store for writing with the fastest kernel."""
    return Writer.open(path, address_key_id=KEYS[0].key_id, store_key_id=KEYS[1].key_id, kernel=Kernel.best())


# --- A feed into an empty store ---------------------------------------------------------------------------


@pytest.fixture(scope="module", name="feed")
def _feed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The population's first feed as plain JSON Lines, and how many rows it has."""
    path = tmp_path_factory.mktemp("feed") / "consents.jsonl"
    written = Population(seed=1, consents=CONSENTS, brands=60).write_feed(path, now=datetime.now(UTC) - timedelta(1))
    return path, written.rows


def parsed(path: Path) -> int:
    """Parse only, as the loader's decoder does it."""
    return parse.parse(path, msgspec.json.Decoder(parse.Row))


def loaded(path: Path, folder: Path, fill_bytes: int) -> int:
    """Load into a store that is made for it."""
    store = folder / f"store-{time.monotonic_ns()}"
    options = Options(rejects=folder / "rejects", fill_bytes=fill_bytes)
    with opened(store) as writer:
        report = Loader(writer, address_key=KEYS[0], store_key=KEYS[1], options=options).load(
            sources_of([str(path)], name="feed")
        )
    (store / "data.mdb").unlink()
    return report.read


@pytest.mark.parametrize("side", ["parse only", "sorted", "commit by commit"])
def test_feed(benchmark: BenchmarkFixture, feed: tuple[Path, int], tmp_path: Path, side: str) -> None:
    """Rows of one feed: parsed only, loaded by one sorted transaction, loaded by commits."""
    path, rows = feed
    fill_bytes = FILL_BYTES if side == "sorted" else NOT_FILLED
    run = (lambda: parsed(path)) if side == "parse only" else (lambda: loaded(path, tmp_path, fill_bytes))

    assert benchmark.pedantic(run, rounds=ROUNDS) == rows  # type: ignore[no-untyped-call] # the plug-in is untyped
    benchmark.extra_info["rows"] = rows


def test_feed_ratio(feed: tuple[Path, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Loading and parsing in turn: wall clock, and processor time, in which all threads count."""
    path, rows = feed
    sides: dict[str, Callable[[], int]] = {
        "parse only": lambda: parsed(path),
        "load": lambda: loaded(path, tmp_path, FILL_BYTES),
    }
    wall: dict[str, list[float]] = {name: [] for name in sides}
    busy: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, run in sides.items():
            started, used = time.perf_counter(), time.process_time()
            assert run() == rows
            wall[name].append(time.perf_counter() - started)
            busy[name].append(time.process_time() - used)
    with capsys.disabled():
        for what, times in (("wall", wall), ("cpu", busy)):
            one, other = (median(times[name]) * 1e6 / rows for name in sides)
            print(f"\n{what}: parse only {one:.2f} us/row, load {other:.2f} us/row, ratio {one / other:.2f}", end="")
        print()


# --- Changes to a filled store ----------------------------------------------------------------------------


class Filled:
    """A store of random consents of one brand, and the same records in a plain LMDB file."""

    def __init__(self, folder: Path) -> None:
        self._random = np.random.default_rng(11)
        self._tags = np.sort(self._random.integers(0, 2**64, CONSENTS, np.uint64)).astype(">u8")
        self._number = 0
        self.writer = opened(folder / "store")
        chunks = (self.changes(np.arange(at, min(at + 2**16, CONSENTS))) for at in range(0, CONSENTS, 2**16))
        fill(self.writer, chunks, rows=CONSENTS)
        self.plain: lmdb.Environment = plain.open_plain(str(folder / "plain"))
        environment = self.writer.environment
        with environment.lmdb.begin() as txn, txn.cursor(environment.databases[layout.RECORDS]) as cursor:
            plain.fill(self.plain, iter(cursor))

    def changes(self, places: np.ndarray[tuple[int], np.dtype[np.int64]]) -> ConsentColumns:
        """Change these consents, later than ever before."""
        count = len(places)
        self._number += 1
        tag = np.zeros((count, 16), np.uint8)
        tag[:, :8] = self._tags[places].view(np.uint8).reshape(-1, 8)
        return ConsentColumns(
            brand=np.full(count, 600_123, np.uint32),
            channel=np.full(count, 2, np.uint8),
            recipient_type=np.full(count, 1, np.uint8),
            tag=tag,
            status=self._random.integers(1, 3, count).astype(np.uint8),
            registered=np.full(count, FIRST + self._number, np.int64),
            consented=np.full(count, FIRST, np.int64),
            source=np.full(count, SOURCE_NUMBERS["HS_WEB"], np.uint8),
            transaction_form=np.full(count, HEX_TRANSACTION, np.uint8),
            transaction=self._random.integers(0, 256, (count, TRANSACTION_BYTES), np.uint8),
            text=np.zeros(count, np.int32),
            sequence=np.arange(count, dtype=np.int64),
        )

    def some(self, size: int) -> ConsentColumns:
        """Change random consents."""
        return self.changes(self._random.integers(0, CONSENTS, size))

    def put_plainly(self, changes: ConsentColumns) -> float:
        """Put the same records sorted into the plain file, durably; seconds of that alone."""
        winners = EncodedChanges.of(records.newest(changes))
        items = list(zip(winners.keys(), winners.records(), strict=True))
        return plain.put(self.plain, items)

    def apply(self, changes: ConsentColumns) -> float:
        """Apply them: records, index, counts, position."""
        batch = Batch(consents=changes, access=(), brands=(), rows=len(changes))
        started = time.perf_counter()
        self.writer.apply(batch, SourceState(name="changes"))
        return time.perf_counter() - started

    def apply_records(self, changes: ConsentColumns) -> float:
        """Apply them to the records of the store and to nothing else; the store is not of use afterwards."""
        environment = self.writer.environment
        started = time.perf_counter()
        with environment.lmdb.begin(write=True) as txn:
            records.apply(txn, environment.databases[layout.RECORDS], changes)
        return time.perf_counter() - started


@pytest.fixture(scope="module", name="filled")
def _filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """One store for all sizes."""
    filled = Filled(tmp_path_factory.mktemp("filled"))
    yield filled
    filled.writer.close()
    filled.plain.close()


@pytest.mark.parametrize("size", [10_000, 50_000])
def test_changes_ratio(filled: Filled, capsys: pytest.CaptureFixture[str], size: int) -> None:
    """The three in turn, for commits of this size: plain putmulti, whole commits, their record part."""
    sides = {"plain putmulti": filled.put_plainly, "apply": filled.apply, "records alone": filled.apply_records}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(2 * ROUNDS + 1):
        for name, run in sides.items():
            seconds[name].append(run(filled.some(size)))
    least = median(seconds["plain putmulti"])
    with capsys.disabled():
        print(f"\n{size:,} changes of {CONSENTS:,}:")
        for name, times in seconds.items():
            print(f"  {name:15} {median(times) * 1e6 / size:6.2f} us/change, ratio {least / median(times):.2f}")
    assert all(len(times) == 2 * ROUNDS + 1 for times in seconds.values())
