"""A replica is what its primary was, or says what keeps it from that: nothing is ever applied that does not follow."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from unittest.mock import patch

import pytest

from iyscheck.change import ConsentColumns, Position
from iyscheck.consent import Status
from iyscheck.errors import (
    IyscheckError,
    LogDivergedError,
    SettingsError,
    SnapshotError,
    StoreBusyError,
    StoreFullError,
    StoreRoleError,
)
from iyscheck.keys import Signers, SigningKey, StreamKey
from iyscheck.store import layout
from iyscheck.store.encoded import EncodedChanges
from iyscheck.store.layout import LogState, SourceState
from iyscheck.store.log_batch import Kind, LogBatch
from iyscheck.store.log_writer import LogWriter
from iyscheck.store.snapshot import Store
from loader.replication import codec, replicating, swap
from loader.replication.codec import BatchOpener, BatchSealer
from loader.replication.finding import CopyNeeded
from loader.replication.follow import LOOK_S, State
from loader.replication.replicating import KeyIds, Replica, ReplicaOptions
from loader.replication.staging import Staging
from tests.builders import NOW, StoreBuilder, a_batch, a_brand, a_change
from tests.loader.replication.replicas import (
    OPENER,
    SEALER,
    SIGNING_KEY,
    STRANGER,
    STREAM_KEY,
    FolderCopies,
    Primary,
    ReadableLog,
    Told,
)
from tests.logs import KEY_IDS, assert_same

_TAKE = FolderCopies.take


class Site:
    """A primary, its log, copies, and one replica."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = ReadableLog()
        self.copies = FolderCopies(folder / "copies")
        self.told = Told()
        self.primary = Primary.open(folder / "primary", **KEY_IDS, sealer=SEALER)
        self.primary.begin()
        self.store = Store(self.primary.environment)
        self.path = folder / "replica"
        self.published = 0
        self.now_s = 0.0
        self._numbers = count(2)
        self.replica: Replica | None = None

    def change(self, times: int = 1, *, rows: int = 1) -> None:
        """Let the primary commit something."""
        for _ in range(times):
            number = next(self._numbers)
            changes = [
                a_change(recipient=f"+90532{number * 10 + row:07}", status=Status.ONAY, sequence=row + 1)
                for row in range(rows)
            ]
            state = SourceState(name=f"s{number}", watermarks=((1, NOW + number),))
            self.primary.apply(a_batch(changes, brands=[a_brand(1)]), state, finished=True)

    def publish(self) -> None:
        """Append what the log has not."""
        self.log.publish(self.store, self.published + 1)
        assert self.primary.log is not None
        self.published = self.primary.log.batch

    def changed(self, times: int = 1) -> None:
        """Commit and publish."""
        self.change(times)
        self.publish()

    def start(self, **options: object) -> Replica:
        """Start the replica's process, again perhaps."""
        if self.replica is not None:
            self.replica.close()
        terms = {"key_ids": KEY_IDS, "check": False, "now": lambda: self.now_s} | options
        self.replica = Replica(
            self.path,
            self.log,
            OPENER,
            self.told,
            copies=self.copies,
            options=ReplicaOptions(**terms),  # type: ignore[arg-type] # of those options
        )
        self.replica.open()
        return self.replica

    def steps(self, times: int = 12) -> State:
        """Let the replica go on; return what it is doing then."""
        replica = self.replica or self.start()
        for _ in range(times):
            self.now_s += LOOK_S
            replica.step(0)
        return self.told.state

    def end(self) -> None:
        """End the replica's process."""
        if self.replica is not None:
            self.replica.close()
            self.replica = None

    def reader(self) -> Store:
        """The replica's store, when its process has ended."""
        self.end()
        return Store.open(self.path)

    def assert_same(self) -> None:
        """See that the replica is what the primary is."""
        with self.reader() as store:
            assert_same(self.store, store)

    def batch(self) -> int:
        """Return which batch the replica is at."""
        return self.stands()[0].batch

    def stands(self) -> tuple[LogState, Position, dict[int, int]]:
        """Return how the replica stands, and its watermarks."""
        with self.reader() as store, store.snapshot() as snapshot:
            assert snapshot.log is not None
            return snapshot.log, snapshot.position, snapshot.watermarks()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A primary with three batches that are published."""
    site = Site(tmp_path)
    site.changed(2)
    yield site
    site.end()
    site.primary.close()


class TestFollowing:
    """What goes well, and what heals by itself."""

    def test_from_nothing(self, site: Site) -> None:
        """A replica of a log that is whole begins with nothing and becomes what the primary is."""
        assert site.steps() is State.FOLLOWING
        site.assert_same()

    def test_goes_on(self, site: Site) -> None:
        """It goes on with what comes, also when it was stopped between."""
        site.steps()
        site.changed(3)
        assert site.steps() is State.FOLLOWING
        site.start()
        site.changed(2)
        site.steps()
        assert site.told.batches == 3 + 3 + 2
        site.assert_same()

    def test_parts(self, site: Site) -> None:
        """A batch of many parts is applied when all are there, and those of a primary that died are dropped."""
        with patch.object(codec, "SLICE_MAX_BYTES", 60):
            site.change(rows=5)
            messages = site.store.snapshot().outbox_messages(4)
            site.published = 4
        assert len(messages) > 3
        site.log.messages += messages[:2]
        assert site.steps() is State.CATCHING_UP
        site.log.messages += messages[2:3]
        site.log.messages += messages[1:3]  # twice, as a publisher does that was not answered
        site.log.messages += messages[3:]
        assert site.steps() is State.FOLLOWING
        site.assert_same()

    def test_new_term_after_parts(self, site: Site, tmp_path: Path) -> None:
        """Parts of a batch whose rest never comes give way to a new primary's first batch."""
        site.steps()
        copied = tmp_path / "other"
        site.copies.make(site.store)
        copied.mkdir()
        (copied / "data.mdb").write_bytes((site.copies.made[-1][2] / "data.mdb").read_bytes())
        with patch.object(codec, "SLICE_MAX_BYTES", 60):
            site.change(rows=5)
            site.log.messages += site.store.snapshot().outbox_messages(4)[:2]
        with Primary.open(copied, **KEY_IDS, sealer=SEALER) as other:
            other.begin()
            site.log.publish(Store(other.environment))
            assert site.steps() is State.FOLLOWING
            with site.reader() as store:
                assert_same(Store(other.environment), store)

    def test_other_numbers(self, site: Site) -> None:
        """In a stream that was made anew the place is found by what lies there."""
        site.steps()
        site.log.make()
        site.published = 0
        site.changed()
        assert site.steps() is State.FOLLOWING
        site.assert_same()

    def test_trimmed(self, site: Site) -> None:
        """A stream that begins just behind what is in leads on."""
        site.steps()
        site.changed(2)
        site.log.age(3)
        assert site.steps() is State.FOLLOWING
        site.assert_same()

    def test_lost_end(self, site: Site) -> None:
        """A stream that lost its end is waited for, and what takes its numbers is not passed over."""
        site.changed(3)
        site.steps()
        site.log.lose_end(3)
        assert site.steps() is State.WAITING
        site.published -= 3
        site.changed(2)
        assert site.steps() is State.FOLLOWING
        site.assert_same()

    @pytest.mark.parametrize("times", [1, 100])
    def test_newer(self, site: Site, times: int) -> None:
        """In front of what a newer version made it says so, also when it comes back behind much of it; then goes on."""
        site.steps()
        site.changed(times)
        messages = list(site.log.messages)
        site.log.make_newer(4)
        for _ in range(2):
            assert site.steps(40) is State.REJECTING
            assert "Upgrade this replica" in site.told.whys[-1]
            site.end()
        site.log.messages = list(messages)
        assert site.steps(40) is State.FOLLOWING
        site.assert_same()

    def test_newer_from_the_beginning(self, site: Site) -> None:
        """A replica that begins says why nothing counts."""
        site.changed(100)
        site.log.make_newer(1)
        assert site.steps() is State.WAITING
        assert "Upgrade this replica" in site.told.whys[-1]

    @pytest.mark.parametrize(
        ("stream_key", "signing_key", "why"),
        [
            (
                StreamKey(bytes(32)),
                SIGNING_KEY,
                "another stream key than the one that is held here. Copy the stream key",
            ),
            (STREAM_KEY, STRANGER, "has signed it, or it was changed. If the primary has a new signing key, name its"),
        ],
        ids=["stream_key", "signing_key"],
    )
    def test_other_keys_from_the_beginning(
        self, site: Site, stream_key: StreamKey, signing_key: SigningKey, why: str
    ) -> None:
        """It says so too where it has other keys than the primary, and what to do."""
        site.changed()
        opener = BatchOpener(stream_key, Signers([signing_key.public]))
        with patch("tests.loader.replication.test_follow.OPENER", opener):
            assert site.steps() is State.WAITING
        assert why in site.told.whys[-1]

    def test_groups(self, site: Site) -> None:
        """While behind, many batches go into one transaction."""
        site.changed(40)
        site.start(rows_at_once=10)
        with patch.object(LogWriter, "follow", autospec=True, side_effect=LogWriter.follow) as follow:
            site.steps()
        assert follow.call_count == 5  # the last of them with what is left
        site.assert_same()

    def test_away(self, site: Site) -> None:
        """A log that does not answer is asked again."""
        site.steps()
        site.log.is_away = True
        assert site.steps() is State.AWAY
        site.log.is_away = False
        site.changed()
        assert site.steps() is State.FOLLOWING

    def test_missing(self, site: Site) -> None:
        """So is one that is not there."""
        site.log.is_there = False
        assert site.steps() is State.AWAY


class TestRejecting:
    """What is not the primary's is never applied."""

    def forged(self, site: Site, batch: int, kind: Kind = Kind.CHANGES) -> Sequence[bytes]:
        """Make a message that somebody signed who may not."""
        assert site.primary.log is not None
        state, position = site.primary.log, site.primary.position
        return BatchSealer(STREAM_KEY, STRANGER).seal(
            LogBatch(
                kind=kind,
                log_id=position.log_id,
                term=state.term,
                batch=batch,
                first=position.sequence,
                last=position.sequence + 1,
                created_ms=state.created_ms,
                prev=state.chain,
                digest=state.digest,
                rows=EncodedChanges.of(ConsentColumns.of([a_change(status=Status.ONAY)])),
                values=(),
            )
        )

    def test_forged(self, site: Site) -> None:
        """A stranger's message is counted and passed over, and what the primary says then is applied."""
        site.steps()
        site.log.messages += self.forged(site, 4)
        assert site.steps() is State.REJECTING
        assert site.told.rejections == ["signer"]
        site.changed()
        assert site.steps() is State.FOLLOWING
        site.assert_same()

    def test_altered(self, site: Site) -> None:
        """A changed message is missing; what comes behind it is not applied without a copy."""
        site.changed(2)
        site.log.flip(4)
        assert site.steps() is State.GAP
        assert site.told.rejections == ["signer"]
        assert site.batch() == 3

    def test_altered_for_a_reader(self, site: Site) -> None:
        """A message that only the reader got wrong is taken from the log's leader."""
        whole = site.log.get
        right = list(site.log.messages)
        site.log.flip(2)
        with patch.object(site.log, "get", side_effect=lambda number: right[number - 1] if whole(number) else None):
            assert site.steps() is State.FOLLOWING
        assert site.told.rejections == []


class TestBooting:
    """Where the log does not lead on, a copy does; the old store answers meanwhile, and no position goes back."""

    def test_first(self, site: Site) -> None:
        """A replica of a log whose beginning is gone boots from a copy."""
        site.copies.make(site.store)
        site.changed(2)
        site.log.age(2)
        assert site.steps() is State.FOLLOWING
        site.assert_same()
        assert not Path(f"{site.path}.next").exists()

    def test_without_key_ids(self, site: Site) -> None:
        """So does one that was not told with which keys a store begins."""
        site.start(key_ids=None)
        assert site.steps() is State.BOOTING
        site.copies.make(site.store)
        assert site.steps() is State.FOLLOWING
        site.assert_same()

    def test_hole(self, site: Site) -> None:
        """Nothing behind a hole is applied before a copy is there that lies behind it."""
        site.steps()
        site.copies.make(site.store)
        site.changed(3)
        site.log.punch(5)
        assert site.steps() is State.GAP
        assert site.batch() == 4
        site.copies.make(site.store)
        site.start()
        assert site.steps() is State.FOLLOWING
        site.assert_same()

    def test_mended(self, site: Site) -> None:
        """A hole that is filled again needs no copy."""
        site.steps()
        site.changed(3)
        lost = site.log.messages[4]
        site.log.punch(5)
        assert site.steps() is State.GAP
        site.log.messages[4] = lost
        assert site.steps() is State.FOLLOWING
        site.assert_same()

    def test_too_old(self, site: Site) -> None:
        """A stream that has dropped what would be next needs a copy."""
        site.steps()
        site.changed(5)
        site.log.age(5)
        site.copies.make(site.store)
        assert site.steps() is State.FOLLOWING
        site.assert_same()

    def test_rebase(self, site: Site) -> None:
        """What is not told comes with a copy."""
        site.steps()
        after, sequence = site.primary.log, site.primary.position.sequence
        site.primary.take_over(site.primary.begin_term(SEALER, after=after, sequence=sequence), settings="")
        site.publish()
        assert site.steps() is State.GAP
        site.copies.make(site.store)
        site.changed()
        assert site.steps() is State.FOLLOWING
        site.assert_same()

    def test_new_log(self, site: Site) -> None:
        """A log that was begun anew is followed from a copy of it."""
        site.steps()
        site.primary.take_over(site.primary.begin_term(SEALER, new_log=True), settings="")
        site.published = 0
        site.publish()
        site.copies.make(site.store)
        site.changed(3)
        assert site.steps() is State.FOLLOWING
        site.assert_same()

    def test_position(self, site: Site) -> None:
        """A copy that is behind what the old store answers does not take its place before it has caught up."""
        site.copies.make(site.store)
        site.changed(4)
        site.steps()
        _, before, _ = site.stands()
        with LogWriter.reopen(site.path) as writer:
            writer.distrust("test")
        late, site.log.messages = site.log.messages[4:], site.log.messages[:4]
        with patch.object(FolderCopies, "take", autospec=True, side_effect=_taking_the_first):
            site.start()
            assert site.steps() is State.BOOTING
            state, position, _ = site.stands()
            assert (position, state.untrusted) == (before, "test")
            site.log.messages += late
            site.start()
            assert site.steps() is State.FOLLOWING
        site.assert_same()

    def test_left_in_the_middle(self, site: Site) -> None:
        """What an ended process left of a boot is gone on with, or removed where it is of no use any more."""
        site.steps()
        site.changed(3)
        lost = site.log.messages[4]
        site.log.punch(5)
        site.steps()
        assert Path(f"{site.path}.next").exists()
        site.start()
        site.log.messages[4] = lost
        assert site.steps() is State.FOLLOWING
        assert not Path(f"{site.path}.next").exists()


def _taking_the_first(
    copies: FolderCopies, into: Path, need: CopyNeeded, key_ids: KeyIds | None, alive: Callable[[], None]
) -> None:
    """Take whatever copy there is."""
    _TAKE(copies, into, replace(need, batch=1), key_ids, alive)


class TestDiverging:
    """A store that is not what the primary's is permits nothing, and is replaced."""

    def test_digest(self, site: Site) -> None:
        """A batch after which the store would be another is refused, the store is not believed, and a copy heals."""
        site.steps()
        site.change()
        with patch.object(LogWriter, "_put_records", lambda *_: None):
            site.publish()
            assert site.steps(3) is State.UNTRUSTED
        assert [type(each) for each in site.told.refusals] == [LogDivergedError]
        state, _, watermarks = site.stands()
        assert state.untrusted
        assert watermarks == {}
        site.copies.make(site.store)
        site.start()
        assert site.steps() is State.FOLLOWING
        site.assert_same()

    def test_checked(self, site: Site) -> None:
        """What came by a copy is summed up once, and not believed where it is not what its digest says."""
        state = site.copies.make(site.store)
        assert state.batch == 3
        path = site.copies.made[0][2]
        with LogWriter.reopen(path) as writer, writer.environment.lmdb.begin(write=True) as txn:
            txn.drop(writer.environment.databases[layout.BRANDS], delete=False)
        site.start(key_ids=None, check=True)
        for _ in range(400):
            site.steps(1)
            if site.told.refusals:
                break
        assert [type(each) for each in site.told.refusals] == [LogDivergedError]


class TestForking:
    """Two primaries wrote: a person decides."""

    def fork(self, site: Site, tmp_path: Path) -> None:
        """Let the replica follow one way, and the log take another."""
        site.copies.make(site.store)
        other = tmp_path / "other"
        other.mkdir()
        (other / "data.mdb").write_bytes((site.copies.made[-1][2] / "data.mdb").read_bytes())
        with Primary.open(other, **KEY_IDS, sealer=SEALER) as second:
            second.heartbeat(0)
            site.log.publish(Store(second.environment), 4)
            site.steps()
        site.log.lose_end(1)
        site.changed(2)

    def test_stops(self, site: Site, tmp_path: Path) -> None:
        """It stops, says so, and goes on answering."""
        self.fork(site, tmp_path)
        assert site.steps() is State.FORK
        assert site.batch() == 4
        assert site.copies.made

    def test_rejoins(self, site: Site, tmp_path: Path) -> None:
        """When a person says so it takes a copy of the log's way."""
        self.fork(site, tmp_path)
        site.start(rejoin=True)
        assert site.steps(40) is State.FOLLOWING
        site.assert_same()


class TestRoles:
    """What may be followed into."""

    def test_primary(self, site: Site) -> None:
        """A primary is no replica, unless it is given up."""
        site.primary.close()
        site.path = site.folder / "primary"
        with pytest.raises(StoreRoleError, match="the primary"):
            site.start()
        site.replica = None
        site.start(rejoin=True)
        assert site.steps() is State.FOLLOWING

    def test_in_no_log(self, site: Site) -> None:
        """Nor is a store of its own."""
        with StoreBuilder(site.path) as builder:
            builder.consent().commit()
        with pytest.raises(StoreRoleError, match="in no log"):
            site.start()
        site.replica = None
        site.copies.make(site.store)
        site.start(rejoin=True)
        assert site.steps() is State.FOLLOWING
        site.assert_same()

    def test_busy(self, site: Site) -> None:
        """Two processes cannot follow into one store, not even before it is there."""
        first = site.start()
        site.replica = None
        with pytest.raises(StoreBusyError):
            site.start()
        first.close()
        site.replica = None

    def test_link(self, site: Site, tmp_path: Path) -> None:
        """What a link leads to is exchanged, and the link stays."""
        (tmp_path / "elsewhere" / "store").mkdir(parents=True)
        site.path.symlink_to(tmp_path / "elsewhere" / "store")
        site.copies.make(site.store)
        site.start(key_ids=None)
        assert site.steps() is State.FOLLOWING
        assert site.path.is_symlink()
        assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["store"]
        site.assert_same()

    def test_mount(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """A directory that cannot be exchanged is refused at once."""
        site.path.mkdir()
        monkeypatch.setattr("os.path.ismount", lambda path: Path(path) == site.path)
        with pytest.raises(SettingsError, match="mounted"):
            site.start()
        site.replica = None


class FolderMakers:
    """Makes one copy into a folder, and one that fails."""

    def __init__(self, copies: FolderCopies) -> None:
        self._copies = copies
        self.asked = 0
        self.placed = threading.Event()

    def is_due(self) -> bool:
        """Be due twice."""
        self.asked += 1
        if self.asked == 2:
            raise SnapshotError("The place does not answer.")
        return self.asked == 1

    @contextmanager
    def copying(self, store: Store) -> Iterator[Callable[[], None]]:
        """Copy the store."""
        self._copies.make(store)
        yield self.placed.set


class TestMaking:
    """A replica that makes copies for others."""

    def test_made(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """It makes one when it is due, of what it has, and goes on; that one fails is told, and ends nothing."""
        monkeypatch.setattr(replicating, "_MAKERS_PAUSE_S", 0)
        failed: list[IyscheckError] = []
        monkeypatch.setattr(site.told, "not_copied", failed.append)
        makers = FolderMakers(site.copies)
        site.start(makers=makers)
        assert site.steps() is State.FOLLOWING
        assert makers.placed.wait(60)
        assert [state.batch for state, _, _ in site.copies.made] == [3]
        site.changed()
        assert site.steps() is State.FOLLOWING
        assert [str(error) for error in failed] == ["The place does not answer."]
        site.assert_same()


class TestExchange:
    """Two directories change places."""

    @pytest.mark.parametrize("at_once", [True, False])
    def test_exchanged(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, at_once: bool) -> None:
        """Also where the system cannot do it at once."""
        if not at_once:
            monkeypatch.setattr(swap, "_exchanged", lambda *_: False)
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "data.mdb").write_text(name)
        (tmp_path / "one" / "data.mdb").chmod(0o640)
        swap.exchange(tmp_path / "one", tmp_path / "other", tmp_path / "aside")
        assert (tmp_path / "one" / "data.mdb").stat().st_mode & 0o777 == 0o640
        assert (tmp_path / "one" / "data.mdb").read_text() == "other"
        assert (tmp_path / "other" / "data.mdb").read_text() == "one"
        assert not (tmp_path / "aside").exists()

    def test_mended(self, tmp_path: Path) -> None:
        """A store that was moved aside when the power went is put back."""
        room = Staging(tmp_path / "store")
        aside = tmp_path / "store.next" / "old"
        aside.mkdir(parents=True)
        (aside / "data.mdb").write_text("old")
        (tmp_path / "store").mkdir()
        (tmp_path / "store" / "writer.lock").touch()
        room.mend()
        assert (tmp_path / "store" / "data.mdb").read_text() == "old"
        assert not (tmp_path / "store.next").exists()


def test_full_at_the_beginning(site: Site) -> None:
    """A disk that is full when a store begins keeps nothing open: it begins as soon as there is room."""
    become = LogWriter.become_replica
    site.changed()
    with patch.object(LogWriter, "become_replica", side_effect=StoreFullError("The disk is full.")):
        assert site.steps(1) is State.FULL
    with patch.object(LogWriter, "become_replica", become):
        assert site.steps() is State.FOLLOWING


def test_begun_and_log_away(site: Site) -> None:
    """A store that was begun, and into which no batch came, waits for a log that says nothing yet."""
    site.changed()
    with patch.object(LogWriter, "become_replica", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        site.steps(1)
    site.end()
    site.log.is_away = True
    assert site.steps() is State.AWAY
    site.log.is_away = False
    assert site.steps() is State.FOLLOWING
