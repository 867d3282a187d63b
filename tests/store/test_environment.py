"""What can be wrong with the files: every case is an error of ours that says what to do."""

import multiprocessing
import resource
import shutil
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import lmdb
import pytest

from iyscheck.engine import Engine
from iyscheck.errors import (
    IyscheckError,
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFormatError,
    StoreFullError,
    StoreKeysError,
    StoreMissingError,
    StoreUnreadableError,
)
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.store import layout
from iyscheck.store.environment import files_translated, translated
from iyscheck.store.layout import SourceState
from iyscheck.store.snapshot import Store
from iyscheck.store.verification import verify
from iyscheck.store.view import Views
from iyscheck.store.writer import Writer
from tests.builders import ADDRESS_KEY, STORE_KEY, StoreBuilder, a_batch, a_change, content
from tests.embedding import ROOT, make_store, run

OTHER_ADDRESS_KEY = AddressKey(bytes(32))
OTHER_STORE_KEY = StoreKey(bytes(32))
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a small store that is closed."""
    with StoreBuilder(tmp_path / "store") as builder:
        builder.brand().consent().commit()
    return builder.path


def open_writer(path: Path) -> Writer:
    """Open a writer with the test keys."""
    return Writer.open(path, address_key_id=ADDRESS_KEY.key_id, store_key_id=STORE_KEY.key_id)


class TestMissing:
    """There is no store at the path."""

    @pytest.mark.parametrize("made", [False, True], ids=["no directory", "empty directory"])
    def test_no_store(self, tmp_path: Path, made: bool) -> None:  # noqa: FBT001 - a parameter of the test
        """A path without a data file is a missing store, and reading makes none."""
        where = tmp_path / "nothing"
        if made:
            where.mkdir()

        with pytest.raises(StoreMissingError, match="There is no store"):
            Engine.open(where, store_key=STORE_KEY)

        assert where.exists() == made
        assert not made or list(where.iterdir()) == []

    def test_never_filled(self, tmp_path: Path) -> None:
        """An LMDB environment without our databases is a missing store."""
        lmdb.open(str(tmp_path), max_dbs=1).close()

        with pytest.raises(StoreMissingError, match="never filled"):
            Engine.open(tmp_path, store_key=STORE_KEY)

    def test_file_instead(self, tmp_path: Path) -> None:
        """A file where the directory should be cannot be read or written as a store."""
        where = tmp_path / "file"
        where.write_text("no store")

        with pytest.raises(StoreError):
            Engine.open(where, store_key=STORE_KEY)
        with pytest.raises(StoreUnreadableError):
            open_writer(where)


class TestKeys:
    """A store opens only with the keys it was written with."""

    def test_reader(self, path: Path) -> None:
        """A reader with another key of either kind is refused, and the error names the flag and only key ids."""
        with pytest.raises(StoreKeysError, match="--store-key"):
            Engine.open(path, store_key=OTHER_STORE_KEY, address_key=ADDRESS_KEY)
        with pytest.raises(StoreKeysError, match="--address-key") as caught:
            Engine.open(path, store_key=STORE_KEY, address_key=OTHER_ADDRESS_KEY)

        assert ADDRESS_KEY.key_id.hex() in str(caught.value)
        assert bytes(range(32)).hex() not in str(caught.value)

    def test_writer(self, path: Path) -> None:
        """A writer with another key is refused and leaves the store open to the next."""
        with pytest.raises(StoreKeysError):
            Writer.open(path, address_key_id=ADDRESS_KEY.key_id, store_key_id=OTHER_STORE_KEY.key_id)

        with open_writer(path) as writer:
            assert writer.position.sequence == 2

    def test_without_address_key(self, path: Path) -> None:
        """A reader without the address key is let in."""
        with Engine.open(path, store_key=STORE_KEY) as engine:
            assert engine.address_key_id == ADDRESS_KEY.key_id
            assert not engine.takes_addresses


class TestFormat:
    """A newer format is refused, by readers and writers alike."""

    def test_newer(self, path: Path) -> None:
        """The error names both formats."""
        with open_writer(path) as writer, writer.environment.lmdb.begin(write=True) as txn:
            newer = layout.encode_number(layout.FORMAT_VERSION + 1)
            txn.put(layout.META_FORMAT, newer, db=writer.environment.databases[layout.META])

        with pytest.raises(StoreFormatError, match="has format 5; this iyscheck reads up to 4"):
            Engine.open(path, store_key=STORE_KEY)
        with pytest.raises(StoreFormatError):
            open_writer(path)


def hold_writer(path: str, pipe: Connection) -> None:
    """Hold the store's writer in another process until told to end."""
    with open_writer(Path(path)):
        pipe.send("open")
        pipe.recv()


class TestOneWriter:
    """One process writes; a second one fails at once."""

    def test_other_process(self, path: Path) -> None:
        """While a process writes, another is refused and can read; when the first ends, the next gets in."""
        ours, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=hold_writer, args=(str(path), theirs))
        process.start()
        try:
            assert ours.recv() == "open"

            with pytest.raises(StoreBusyError, match="Another loader"):
                open_writer(path)
            with Store.open(path) as store:
                assert store.stats().records == 1
        finally:
            ours.send("end")
            process.join(30)

        assert process.exitcode == 0
        open_writer(path).close()

    def test_killed_writer(self, path: Path) -> None:
        """A killed writer leaves no lock behind."""
        ours, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=hold_writer, args=(str(path), theirs))
        process.start()
        assert ours.recv() == "open"

        process.kill()
        process.join(30)

        open_writer(path).close()

    def test_same_process(self, path: Path) -> None:
        """A second writer of the same process is refused as well."""
        with open_writer(path), pytest.raises(StoreBusyError):
            open_writer(path)


class TestDamagedFile:
    """A data file that LMDB did not write, or that lost its end, is an error and kills nobody."""

    @pytest.mark.parametrize(
        "content",
        [b"", b"\0" * 8192, b"no database" * 1000, b"\xff" * 65_536, b"x"],
        ids=["empty", "zeros", "text", "ones", "one byte"],
    )
    def test_garbage(self, path: Path, content: bytes) -> None:
        """Any garbage in place of the data file is refused."""
        (path / "data.mdb").write_bytes(content)

        with pytest.raises((StoreCorruptError, StoreUnreadableError, StoreMissingError)):
            Engine.open(path, store_key=STORE_KEY)

    @pytest.mark.parametrize("opener", ["Store.open(sys.argv[1])", "open_writer(Path(sys.argv[1]))"])
    def test_cut_off(self, path: Path, opener: str) -> None:
        """A data file that lost its end is refused before a page of it is touched, which would end the process."""
        data = path / "data.mdb"
        whole = data.read_bytes()
        data.write_bytes(whole[: 3 * 4096])
        program = (
            "import sys; from pathlib import Path; from iyscheck.errors import StoreCorruptError\n"
            "from tests.store.test_environment import Store, open_writer\n"
            f"try: {opener}\n"
            "except StoreCorruptError as error: print('refused:', error)\n"
        )

        ran = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)

        assert ran.returncode == 0, ran.stderr
        assert "refused: The store" in ran.stdout


def fill(path: str, limit: int, pipe: Connection) -> None:
    """Write until the file may not grow any more; tell what was raised and where the log stood."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with open_writer(Path(path)) as writer:
        try:
            for part in range(10_000):
                rows = [a_change(tag=(part * 1000 + row).to_bytes(16), sequence=1) for row in range(1000)]
                writer.apply(a_batch(rows), SourceState(name="big", rows=1000 * (part + 1)))
        except IyscheckError as error:
            pipe.send((type(error).__name__, str(error), writer.position.sequence))


class TestFullDisk:
    """A disk that is full is a clear error, and what was committed stays."""

    def test_file_cannot_grow(self, path: Path) -> None:
        """A write that is cut short is an error; the store is as after the last whole batch and can be used."""
        ours, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=fill, args=(str(path), 2_000_000, theirs))
        process.start()
        raised, message, sequence = ours.recv()
        process.join(30)

        # The disk itself has room here, so LMDB's "I/O error" cannot be told from a failing disk.
        assert raised in {StoreFullError.__name__, StoreUnreadableError.__name__}
        assert "Check that" in message or "Free space" in message
        with open_writer(path) as writer:
            assert writer.position.sequence == sequence
            assert (sequence - 2) % 1000 == 0
            source = writer.source("big")
            assert source is not None
            assert source.rows == sequence - 2
            assert verify(Store(writer.environment)).faults == []

    @pytest.mark.parametrize(
        "error",
        [
            lmdb.MapFullError("mdb_put: MDB_MAP_FULL"),
            lmdb.DiskError("mdb_txn_commit: No space left on device"),
            lmdb.Error("mdb_txn_commit: No space left on device"),
            OSError(28, "No space left on device"),
            OSError(122, "Disk quota exceeded"),
            lmdb.Error("mdb_txn_commit: Disk quota exceeded"),
        ],
        ids=["map", "disk", "lmdb", "system", "quota", "lmdb quota"],
    )
    def test_translated(self, tmp_path: Path, error: Exception) -> None:
        """Each way in which the system says that there is no room is the same error of ours."""
        with pytest.raises(StoreFullError, match="Free space"), files_translated(tmp_path):
            raise error

    @pytest.mark.parametrize(("free", "ours"), [(0, StoreFullError), (2**40, StoreUnreadableError)])
    def test_short_write(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, ours: type[StoreError]
    ) -> None:
        """LMDB calls a short write an I/O error: it is a full disk where nothing is free, else a failing one."""
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))

        with pytest.raises(ours), translated(tmp_path):
            raise lmdb.Error("mdb_txn_commit: Input/output error")


class TestTranslated:
    """No error of LMDB or the system leaves the store."""

    @pytest.mark.parametrize(
        ("error", "ours"),
        [
            (lmdb.CorruptedError("mdb_get: MDB_CORRUPTED"), StoreCorruptError),
            (lmdb.PageNotFoundError("mdb_get: MDB_PAGE_NOTFOUND"), StoreCorruptError),
            (lmdb.InvalidError("MDB_INVALID"), StoreCorruptError),
            (lmdb.VersionMismatchError("MDB_VERSION_MISMATCH"), StoreCorruptError),
            (lmdb.ReadersFullError("mdb_txn_begin: MDB_READERS_FULL"), StoreUnreadableError),
            (lmdb.LockError("flock"), StoreUnreadableError),
            (lmdb.PanicError("MDB_PANIC"), StoreUnreadableError),
            (PermissionError(13, "Permission denied"), StoreUnreadableError),
            (OSError(5, "Input/output error"), StoreUnreadableError),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
    )
    def test_classes(self, tmp_path: Path, error: Exception, ours: type[StoreError]) -> None:
        """Each error becomes ours, says what to do and keeps its cause."""
        with pytest.raises(ours) as caught, files_translated(tmp_path):
            raise error

        assert caught.value.fix
        assert caught.value.__cause__ is error

    @pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left on device"), EOFError()], ids=repr)
    def test_not_the_stores(self, tmp_path: Path, error: Exception) -> None:
        """What fails while a store is open is not blamed on it: a closed pipe, the disk of another file."""
        with StoreBuilder(tmp_path / "store") as builder:
            path = builder.path
        with Store.open(path) as store:
            views = Views(store.environment)
            for opened in (store.snapshot, views.view, lambda: translated(path)):
                with pytest.raises(type(error)), opened():
                    raise error
            views.close()


class TestCopies:
    """A store is its directory."""

    def test_copy(self, path: Path, tmp_path: Path) -> None:
        """A closed store can be copied and opened elsewhere with the same content and position."""
        shutil.copytree(path, tmp_path / "copy")

        with Store.open(path) as one, Store.open(tmp_path / "copy") as other:
            assert content(one) == content(other)
            with one.snapshot() as first, other.snapshot() as second:
                assert first.position == second.position

    def test_private(self, path: Path) -> None:
        """Directory, data and lock files are for their owner only."""
        modes = [each.stat().st_mode & 0o077 for each in (path, *path.iterdir())]

        assert modes == [0, 0, 0, 0]

    def test_log_ids(self, tmp_path: Path) -> None:
        """Two stores never share a log id; opening a store again keeps its own."""
        ids = []
        for name in ("one", "other", "one"):
            with open_writer(tmp_path / name) as writer:
                ids.append(writer.position.log_id)

        assert ids[0] == ids[2] != ids[1]
        assert len(ids[0]) == 16


class TestNumbersOfContainers:
    """Processes of different PID namespaces that have the same number, and one store."""

    NAMESPACE = ("unshare", "--fork", "--pid", "--mount-proc")
    PROGRAM = (
        "import os, sys\n"
        "from iyscheck.store.snapshot import Store\n"
        "store = Store.open(sys.argv[1])\n"
        "snapshot = store.snapshot()\n"
        "print(store.environment.lmdb.readers().count(f' {os.getpid()} '), flush=True)\n"
        "sys.stdin.read()\n"
        "os._exit(0)\n"  # as one that is killed: its slot stays
    )

    def start(self, path: Path, stdin: int) -> "subprocess.Popen[str]":
        """Start a reader as the first process of a namespace; say aloud where that is not allowed."""
        if subprocess.run([*self.NAMESPACE, "true"], capture_output=True, check=False).returncode:
            pytest.skip("PID namespaces cannot be made here: this test needs root and unshare of util-linux")
        return subprocess.Popen(
            [*self.NAMESPACE, sys.executable, "-c", self.PROGRAM, str(path)],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def test_at_once(self, tmp_path: Path) -> None:
        """The second is told why it cannot read, and what to do."""
        path = make_store(tmp_path / "store")
        with self.start(path, subprocess.PIPE) as first:
            assert first.stdout is not None
            assert first.stdout.readline() == "1\n"
            said = self.start(path, subprocess.DEVNULL).communicate()[1]
            first.communicate()

        assert "Another process with the number of this one (1) has the store" in said
        assert "shareProcessNamespace: true" in said

    def test_one_after_the_other(self, tmp_path: Path) -> None:
        """Slots of those who died are free again, though somebody has the store open all the time."""
        path = make_store(tmp_path / "store")
        with Store.open(path) as store:
            with store.snapshot():
                counts = [self.start(path, subprocess.DEVNULL).communicate()[0] for _ in range(3)]
            assert store.stats().readers <= 3

        assert counts == ["1\n"] * 3


def test_few_addresses(tmp_path: Path) -> None:
    """Where a process may not map so much, the error says what limits it."""
    program = (
        "import resource, sys\n"
        "from tests.embedding import open_engine\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**36, 2**36))\n"
        "open_engine(sys.argv[1])\n"
    )
    result = run(program, make_store(tmp_path / "store"))

    assert "cannot be mapped: this process may not have 1 TiB of addresses" in result.stderr
    assert "ulimit -v unlimited" in result.stderr
