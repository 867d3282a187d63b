"""`replicate` and `promote` as processes, on a real nats-server: whatever is killed, a replica equals its primary."""

import json
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from iyscheck.consent import Status
from iyscheck.errors import StoreMissingError
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.store.layout import LogState, SourceState
from iyscheck.store.snapshot import Store
from tests.builders import NOW, a_batch, a_brand, a_change
from tests.dice import thrown
from tests.loader.feeds import Command
from tests.loader.replication.servers import NatsServer, one_server
from tests.loader.replication.sites import PrimarySite, until
from tests.logs import assert_same

SNAPSHOTS = '\n[snapshots]\ndirectory = "snapshots"\nevery = "60s"\n'


class Log:
    """A primary with a publisher, a nats-server and a folder of snapshots."""

    def __init__(self, command: Command, server: NatsServer) -> None:
        (command.path / "snapshots").mkdir(exist_ok=True)
        self.server = server
        self.site = PrimarySite(command, [server.url], more=SNAPSHOTS)
        self.replica = command.path / "replica"
        self.numbers = 0
        made = command.run("create-log", "--cluster", "cluster.toml", "--replicas", "1", "--kept-gb", "1")
        assert made.returncode == 0, made.stderr
        self.publisher = self.publish()

    @property
    def command(self) -> Command:
        """The commands."""
        return self.site.command

    def publish(self) -> subprocess.Popen[bytes]:
        """Start a publisher."""
        return self.command.start("publish", "--cluster", "cluster.toml")

    def ids(self) -> list[str]:
        """Return the flags with which a replica begins with nothing."""
        address = AddressKey.load(self.site.path / "address.key").key_id.hex()
        store = StoreKey.load(self.site.path / "store.key").key_id.hex()
        return ["--address-key-id", address, "--store-key-id", store]

    def follow(self, *flags: str, store: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a replica's process."""
        where = ["--store", str(store or self.replica), "--cluster", "cluster.toml"]
        return self.command.start("replicate", *where, *flags)

    def commit(self, times: int = 1, *, rows: int = 20, store: Path | None = None) -> None:
        """Let the primary commit."""
        was, self.site.store = self.site.store, store or self.site.store
        try:
            with self.site.writer() as writer:
                for _ in range(times):
                    self.numbers += 1
                    changes = [
                        a_change(
                            recipient=f"+90532{self.numbers % 40:03}{row:04}",
                            status=Status.RET if self.numbers % 3 else Status.ONAY,
                            registered=2**30 + self.numbers,
                            sequence=row + 1,
                        )
                        for row in range(rows)
                    ]
                    state = SourceState(name=f"s{self.numbers}", watermarks=((1, NOW + self.numbers),))
                    writer.apply(a_batch(changes, brands=[a_brand(1)]), state, finished=True)
        finally:
            self.site.store = was

    def state_of(self, path: Path) -> LogState | None:
        """Return how a store stands in its log."""
        with suppress(StoreMissingError), Store.open(path) as store, store.snapshot() as snapshot:
            return snapshot.log
        return None

    def batch_of(self, path: Path) -> int:
        """Return at which batch a store is, 0 if there is none yet."""
        state = self.state_of(path)
        return state.batch if state is not None else 0

    def is_beyond(self, batch: int) -> bool:
        """Say whether the replica has come further than a batch."""
        return self.batch_of(self.replica) > batch

    def is_level(self, path: Path | None = None, primary: Path | None = None) -> bool:
        """Say whether a replica stands where its primary does."""
        there, here = self.state_of(path or self.replica), self.state_of(primary or self.site.store)
        return there is not None and here is not None and there.chain == here.chain

    def assert_same(self, path: Path | None = None) -> None:
        """Wait until a replica stands where the primary does, and compare them."""
        until(lambda: self.is_level(path), "a replica that is level")
        with Store.open(self.site.store) as primary, Store.open(path or self.replica) as replica:
            assert_same(primary, replica)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """A log that has begun."""
    with one_server(tmp_path / "nats") as server:
        log = Log(Command(tmp_path), server)
        yield log
        log.command.stop()


def ended(process: subprocess.Popen[bytes]) -> str:
    """End a process as systemd does, and return what it logged."""
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    return said.decode()


def test_follows(log: Log) -> None:
    """A replica begins with nothing, is killed, goes on, and ends when it is told to; then it becomes the primary."""
    log.commit(3)
    process = log.follow(*log.ids())
    log.assert_same()
    log.commit(2)
    log.assert_same()
    process.kill()
    process.communicate()
    log.commit(4)
    process = log.follow()
    log.assert_same()

    busy = log.command.run("promote", "--store", "replica", "--cluster", "cluster.toml")
    assert busy.returncode == 2
    assert b"Stop 'iyscheck-loader replicate'" in busy.stderr
    assert '"event": "replica_following"' in ended(process)
    promoted = log.command.run("promote", "--store", "replica", "--cluster", "cluster.toml", "--json")
    assert promoted.returncode == 0, promoted.stderr
    assert json.loads(promoted.stdout) == {"how": "continue", "term": 2, "batch": 11, "drained": 0}

    log.commit()
    log.publisher.communicate(timeout=60)
    assert log.publisher.returncode == 3  # another is the primary


@pytest.mark.thorough
class TestThorough:
    """The same, and worse."""

    def test_killed(self, log: Log) -> None:
        """A follower that is killed ten times under load becomes what the primary is, and never goes back."""
        dice = thrown()
        log.commit()
        stop = threading.Event()

        def load() -> None:
            while not stop.is_set():
                log.commit(5, rows=dice.randrange(1, 400))

        loading = threading.Thread(target=load)
        loading.start()
        seen = 0
        try:
            process = log.follow(*log.ids())
            for _ in range(10):
                until(partial(log.is_beyond, seen), "a replica that goes on")
                time.sleep(dice.uniform(0, 0.5))
                process.kill()
                process.communicate()
                assert log.batch_of(log.replica) > seen
                seen = log.batch_of(log.replica)
                process = log.follow(*log.ids())
        finally:
            stop.set()
            loading.join()
        log.assert_same()

    def test_boots(self, log: Log) -> None:
        """A replica with no key ids boots from a snapshot, and another makes them."""
        log.commit(3)
        maker = log.follow(*log.ids(), "--snapshots", store=log.site.path / "maker")
        until(lambda: list((log.site.path / "snapshots").glob("snapshot-*.json")), "a snapshot")
        log.commit(3)
        process = log.follow()
        log.assert_same()
        log.assert_same(log.site.path / "maker")
        ended(process)
        ended(maker)
        assert not Path(f"{log.replica}.next").exists()

    def test_rolled_back(self, log: Log) -> None:
        """A stream that is given back an older disk gets what it lost again, and replicas go on."""
        log.commit(3)
        process = log.follow(*log.ids())
        log.assert_same()
        with log.server.rolled_back():
            log.commit(5)
            log.assert_same()
        log.commit(2)
        log.assert_same()
        ended(process)

    def test_deleted(self, log: Log) -> None:
        """A stream that is gone is waited for; made anew, it leads on."""
        log.commit(3)
        process = log.follow(*log.ids())
        log.assert_same()
        log.server.stop()
        shutil.rmtree(log.server.data)
        log.server.start()
        log.commit(2)
        made = log.command.run("create-log", "--cluster", "cluster.toml", "--replicas", "1", "--kept-gb", "1")
        assert made.returncode == 0, made.stderr
        log.assert_same()
        ended(process)

    def test_flipped_bit(self, log: Log) -> None:
        """A message that lies damaged in the stream is never applied; a snapshot leads past it."""
        log.commit(3)
        process = log.follow(*log.ids())
        log.assert_same()
        process.kill()
        process.communicate()
        log.commit(3)
        messages = log.site.outbox()
        until(lambda: int.from_bytes((log.site.store / "acknowledged").read_bytes()) == 7, "all published")
        log.server.stop()
        log.server.flip_bit(of=messages[5][200:240])
        log.server.start()
        process = log.follow()
        time.sleep(2)
        state = log.state_of(log.replica)
        assert state is not None
        assert state.batch < 6
        made = log.command.run("snapshot", "--store", "store", "--cluster", "cluster.toml")
        assert made.returncode == 0, made.stderr
        process.kill()
        process.communicate()
        process = log.follow()
        log.commit()
        log.assert_same()
        assert '"event": "replica_booting"' in ended(process)

    def test_stopped(self, log: Log) -> None:
        """A follower that stands still for a while, as its machine may, goes on; so does one whose server does."""
        process = log.follow(*log.ids())
        log.commit(2)
        log.assert_same()
        process.send_signal(signal.SIGSTOP)
        log.commit(5)
        time.sleep(6)
        process.send_signal(signal.SIGCONT)
        log.assert_same()
        with log.server.paused():
            log.commit(3)
            time.sleep(6)
        log.assert_same()
        ended(process)

    def test_disk_full(self, log: Log) -> None:
        """On a full disk a replica says so, keeps what it has, and goes on when there is room."""
        with small_disk(log.site.path / "disk", "24m") as disk:
            store = disk / "store"
            process = log.follow(*log.ids(), store=store)
            log.commit(2)
            log.assert_same(store)
            filler = disk / "filler"
            filler.write_bytes(bytes(shutil.disk_usage(disk).free - 8_192))
            before = log.state_of(store)
            log.commit(12, rows=4_000)
            time.sleep(3)
            after = log.state_of(store)
            assert before is not None
            assert after is not None
            assert not log.is_level(store)
            assert process.poll() is None
            filler.unlink()
            log.assert_same(store)
            told = ended(process)
            assert '"event": "replica_full"' in told
            assert "goes on by itself as soon as there is room" in told


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """Mount a small file system, as root only can."""
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small file system has to be mounted for this: run it as root, with CAP_SYS_ADMIN")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
