"""What a primary commits is in the log: all, in order, each once, whatever happens; and never behind a stranger."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs

from iyscheck.change import ConsentColumns
from iyscheck.errors import LogFencedError, LogRestoredError, PublishError, StoreFormatError, StoreRoleError
from iyscheck.keys import Signers, SigningKey, StreamKey
from iyscheck.store import outbox
from iyscheck.store.acknowledged import ACKNOWLEDGED, NOT_THE_PRIMARY, read_acknowledged
from iyscheck.store.encoded import EncodedChanges
from iyscheck.store.layout import SourceState
from iyscheck.store.log_batch import Kind, LogBatch
from iyscheck.store.log_writer import LogWriter
from iyscheck.store.snapshot import Snapshot, Store
from iyscheck.store.writer import Writer
from loader.replication import codec
from loader.replication.codec import PART_MAGIC, BatchOpener, BatchSealer, header_of
from loader.replication.publish import BACK, LOOK_S, AckFile, Publisher, State
from loader.reports.outbox import OutboxMetrics
from tests.builders import StoreBuilder, a_batch, a_change, fill
from tests.dice import often
from tests.loader.replication.faulty import FaultyLog
from tests.loader.replication.replicas import newer
from tests.logs import KEY_IDS

STREAM_KEY, SIGNING_KEY = StreamKey(bytes(range(64, 96))), SigningKey(bytes(range(96, 128)))
SEALER = BatchSealer(STREAM_KEY, SIGNING_KEY)
OPENER = BatchOpener(STREAM_KEY, Signers([SIGNING_KEY.public]))
STRANGER = BatchSealer(STREAM_KEY, SigningKey(bytes(range(1, 33))))
GARBAGE = (b"", b"IY", b"IYSB", b'{"type":"io.nats.jetstream.advisory"}', PART_MAGIC + bytes(300), bytes(300))
"""What is no message of a log."""


class Primary(Writer, LogWriter):
    """A primary as loaders and as operators write it: LMDB opens a store once in a process."""

    def begin(self) -> None:
        """Become the primary, or the next one."""
        self.take_over(self.begin_term(SEALER), settings="")

    def commit(self, *, times: int = 1, parts: int = 1) -> None:
        """Commit batches; with more than one they have some parts each."""
        with patch.object(codec, "SLICE_MAX_BYTES", codec.SLICE_MAX_BYTES if parts == 1 else 40 // parts):
            for _ in range(times):
                self.heartbeat(0)


def outbox_of(store: Store) -> list[bytes]:
    """Return all messages of an outbox, in order."""
    with store.snapshot() as snapshot:
        return [message for batch, _ in snapshot.outbox_batches() for message in snapshot.outbox_messages(batch)]


def acknowledged(path: Path) -> int:
    """Read up to which batch the log is said to have it."""
    return read_acknowledged(path)


def messages_in(log: FaultyLog) -> list[bytes]:
    """Return the messages of a log, without what is none."""
    return [message for message in log.readable if message not in GARBAGE]


class Watch:
    """A clock in hand."""

    now_s = 0.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now_s


def publisher_of(
    store: Store,
    log: FaultyLog,
    watch: Watch | None = None,
    rebased: Callable[[int], None] = lambda _: None,
    opener: BatchOpener = OPENER,
) -> Publisher:
    """Make a publisher, as a new process would."""
    return Publisher(
        store,
        log,
        opener,
        AckFile(store.environment.path),
        metrics=OutboxMetrics(CollectorRegistry(), store, states=list(State)),
        rebased=rebased,
        monotonic=watch or Watch(),
    )


def drain(publisher: Publisher) -> None:
    """Step until there is nothing to do, and nothing in the way."""
    for _ in range(1_000):
        if not publisher.step() and publisher.state is State.PUBLISHING:
            return
    pytest.fail("it never ends")


class Publishing(RuleBasedStateMachine):
    """A primary, publishers of it, and a log that does its worst.

    `ours` is all that was ever committed, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.path = Path(self.stack.enter_context(TemporaryDirectory())) / "store"
        self.primary = self.stack.enter_context(Primary.open(self.path, **KEY_IDS, sealer=SEALER))
        self.primary.begin()
        self.store = Store(self.primary.environment)
        self.log = FaultyLog()
        self.watch = Watch()
        self.publishers = [self.publisher(), self.publisher()]
        self.is_fenced = False

    def publisher(self) -> Publisher:
        """Start a publisher."""
        return publisher_of(self.store, self.log, self.watch)

    def teardown(self) -> None:
        """When all is well again, the log ends as the outbox does, unless another primary has begun."""
        if not self.is_fenced:
            self.log.is_away, self.log.drops, self.log.mumbles, self.log.unreadable = False, 0, 0, 0
            if not self.log.is_there:
                self.log.make()
            drain(self.publisher())
            ours = outbox_of(self.store)
            assert messages_in(self.log)[-1] == ours[-1]
            assert header_of(ours[-1]).batch == acknowledged(self.path)
        self.stack.close()

    @rule(times=st.integers(1, 3), parts=st.integers(1, 3))
    def commits(self, times: int, parts: int) -> None:
        """Something changes the store, until its publisher says that it is the primary no more."""
        if acknowledged(self.path) == NOT_THE_PRIMARY:
            with pytest.raises(StoreRoleError, match="the primary of its log no more"):
                self.primary.commit(times=times, parts=parts)
        else:
            self.primary.commit(times=times, parts=parts)

    @rule(which=st.integers(0, 1), times=st.integers(1, 5))
    def steps(self, which: int, times: int) -> None:
        """A publisher goes on; one that stops for good is started again."""
        for _ in range(times):
            try:
                self.publishers[which].step()
            except PublishError:
                assert self.is_fenced
                self.publishers[which] = self.publisher()

    @rule(which=st.integers(0, 1))
    def dies(self, which: int) -> None:
        """A publisher is killed and started again."""
        self.publishers[which] = self.publisher()

    @rule(drops=st.integers(0, 2), mumbles=st.integers(0, 2), unreadable=st.integers(0, 2), away=st.booleans())
    def fails(self, drops: int, mumbles: int, unreadable: int, *, away: bool) -> None:
        """What comes next goes wrong, or all is well again."""
        self.log.drops, self.log.mumbles, self.log.unreadable = drops, mumbles, unreadable
        self.log.is_away = away

    @precondition(lambda self: not self.is_fenced)
    @rule(number=st.integers(1, 9))
    def loses_end(self, number: int) -> None:
        """Messages that were acknowledged vanish."""
        self.log.lose_end(number)

    @precondition(lambda self: not self.is_fenced)
    @rule(number=st.integers(1, 9))
    def ages(self, number: int) -> None:
        """The oldest messages go."""
        self.log.age(number)

    @precondition(lambda self: not self.is_fenced)
    @rule(again=st.booleans())
    def is_deleted(self, *, again: bool) -> None:
        """The log is deleted, and made anew or not."""
        self.log.make()
        self.log.is_there = again

    @precondition(lambda self: self.log.is_there and not self.is_fenced)
    @rule(what=st.sampled_from(GARBAGE))
    def is_littered(self, what: bytes) -> None:
        """Somebody appends what is no message of a log."""
        self.log.messages.append(what)

    @precondition(lambda self: self.log.is_there and not self.is_fenced)
    @rule()
    def is_fenced_off(self) -> None:
        """Another primary begins."""
        with self.store.snapshot() as snapshot:
            assert snapshot.log is not None
            batch = _batch_like(outbox_of(self.store)[-1], term=snapshot.log.term + 1)
        self.log.messages += SEALER.seal(batch)
        self.is_fenced = True

    @rule(seconds=st.floats(0, 2 * LOOK_S))
    def waits(self, seconds: float) -> None:
        """Time goes by."""
        self.watch.now_s += seconds

    @invariant()
    def is_a_run(self) -> None:
        """What is in the log is a run of what was committed: nothing is missing in it, nothing is there twice."""
        found = messages_in(self.log)[: -1 if self.is_fenced else None]
        ours = outbox_of(self.store)
        if found:
            start = ours.index(found[0])
            assert found == ours[start : start + len(found)]
        if self.is_fenced:
            assert header_of(self.log.messages[-1] or b"").term == 2

    @invariant()
    def was_there(self) -> None:
        """What is acknowledged was in the log, all of it."""
        if (self.path / ACKNOWLEDGED).exists():
            said = acknowledged(self.path)
            if said == NOT_THE_PRIMARY:
                assert self.is_fenced
                return
            assert all(
                message in self.log.ever for message in outbox_of(self.store) if header_of(message).batch <= said
            )


def _batch_like(message: bytes, **changes: int) -> LogBatch:
    """Make a batch that stands where a message stands, but for some of what it says."""
    header = header_of(message)
    empty = EncodedChanges.join(())
    batch = LogBatch(
        kind=Kind.TERM,
        log_id=header.log_id,
        term=header.term,
        batch=header.batch,
        first=header.first,
        last=header.last,
        created_ms=header.created_ms,
        prev=header.prev,
        digest=bytes(16),
        rows=empty,
        values=(),
    )
    return replace(batch, **changes)  # type: ignore[arg-type] # numbers of it


Publishing.TestCase.settings = settings(max_examples=often(120), stateful_step_count=30, deadline=None)
TestPublishing = Publishing.TestCase


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Primary]:
    """A primary with three batches."""
    with Primary.open(tmp_path / "store", **KEY_IDS, sealer=SEALER) as primary:
        primary.begin()
        primary.commit(times=2)
        yield primary


@pytest.fixture
def store(primary: Primary) -> Store:
    """The same, for reading."""
    return Store(primary.environment)


def test_all(store: Store) -> None:
    """What was committed is in the log as it was sealed, and is acknowledged."""
    log = FaultyLog()
    drain(publisher_of(store, log))
    assert log.messages == outbox_of(store)
    assert acknowledged(store.environment.path) == 3


def test_middle_of_a_batch(primary: Primary, store: Store) -> None:
    """A batch of which some messages are in the log is gone on with, and not acknowledged before it is whole."""
    primary.commit(parts=3)
    ours = outbox_of(store)
    assert header_of(ours[-1]).parts > 2
    log = FaultyLog()
    log.messages += ours[: header_of(ours[-1]).part * -1 + 1]
    publisher = publisher_of(store, log)
    log.drops = 1
    publisher.step()
    assert acknowledged(primary.path) == 3
    drain(publisher)
    assert log.messages == ours
    assert acknowledged(primary.path) == 4


def test_new_term(primary: Primary, store: Store) -> None:
    """A primary that began behind the log's end goes on behind it, though the log has nothing of its term yet."""
    log = FaultyLog()
    log.messages += outbox_of(store)
    primary.begin()
    drain(publisher_of(store, log))
    assert [header_of(message or b"").term for message in log.messages] == [1, 1, 1, 2]


def test_hole(primary: Primary, store: Store) -> None:
    """Where the outbox does not reach back to the log's end the rest is published: replicas see the hole."""
    log = FaultyLog()
    log.messages += outbox_of(store)[:1]
    with patch.object(outbox, "MOST_BYTES", 0):
        primary.commit()
    drain(publisher_of(store, log))
    assert [header_of(message or b"").batch for message in log.messages] == [1, 4]


def test_given_up(primary: Primary, store: Store) -> None:
    """An outbox that is given up while it is published is gone on with."""
    log = FaultyLog()
    publisher = publisher_of(store, log)
    publisher.step()
    with patch.object(outbox, "MOST_BYTES", 0):
        primary.commit()
    drain(publisher)
    assert [header_of(message or b"").batch for message in log.messages] == [1, 4]


def test_log_away(store: Store) -> None:
    """While nobody answers nothing is lost, and the state tells it."""
    log = FaultyLog()
    publisher = publisher_of(store, log)
    log.is_away = True
    with capture_logs() as lines:
        assert not publisher.step()
    assert publisher.state == State.AWAY
    assert "'servers' under [nats]" in lines[-1]["fix"]
    log.is_away = False
    drain(publisher)
    assert log.messages == outbox_of(store)


def test_log_missing(store: Store) -> None:
    """Nothing is published until somebody makes the log."""
    log = FaultyLog()
    log.is_there = False
    publisher = publisher_of(store, log)
    assert not publisher.step()
    assert publisher.state is State.MISSING
    log.make()
    drain(publisher)
    assert log.messages == outbox_of(store)


def test_nothing_is_left(store: Store) -> None:
    """Of a log that was made anew nothing counts as acknowledged, before anything is in it again."""
    log, watch = FaultyLog(), Watch()
    publisher = publisher_of(store, log, watch)
    drain(publisher)
    log.make()
    log.drops = 1
    watch.now_s += LOOK_S
    assert not publisher.step()
    assert acknowledged(store.environment.path) == 0
    drain(publisher)
    assert log.messages == outbox_of(store)


def test_end_is_lost_while_nobody_writes(store: Store) -> None:
    """The end of a log that is lost is there again after some seconds, without a commit."""
    log, watch = FaultyLog(), Watch()
    publisher = publisher_of(store, log, watch)
    drain(publisher)
    log.lose_end(2)
    assert not publisher.step()
    watch.now_s += LOOK_S
    drain(publisher)
    assert log.messages == outbox_of(store)


def test_never_behind_what_cannot_be_read(store: Store) -> None:
    """Where the newest message cannot be read it may be another primary's: nothing is put behind it."""
    log = FaultyLog()
    log.messages += [*outbox_of(store)[:2], None]
    publisher = publisher_of(store, log)
    assert not publisher.step()
    assert publisher.state is State.AWAY
    assert len(log.messages) == 3


def test_contradiction(store: Store) -> None:
    """A log that says of itself now this and now that is not asked without a pause."""
    log = FaultyLog()
    publisher = publisher_of(store, log)
    with patch.object(log, "ends", return_value=replace(log.ends(), last=7)):
        assert publisher.step()
        assert not publisher.step()
    assert publisher.state is State.AWAY
    drain(publisher)


def foreign(log: FaultyLog, ours: Sequence[bytes], **changes: int) -> None:
    """Let a log end with a batch that we have not made."""
    log.messages += [*ours[:-1], *SEALER.seal(_batch_like(ours[-1], **changes))]


@pytest.mark.parametrize(
    ("changes", "error", "state", "says"),
    [
        ({"term": 2}, LogFencedError, State.FENCED, "Another primary has begun: the log is at term 2"),
        ({"term": 2, "batch": 9}, LogFencedError, State.FENCED, "Another primary has begun"),
        ({"term": 0}, LogFencedError, State.FENCED, "promote --rebase"),
        ({"log_id": b"o" * 16}, LogFencedError, State.FENCED, "is of another log"),
        ({}, LogRestoredError, State.RESTORED, "promote --rebase"),
        ({"batch": 9}, LogRestoredError, State.RESTORED, "restored from a backup"),
    ],
)
def test_stranger(
    primary: Primary, store: Store, changes: dict[str, int], error: type[Exception], state: State, says: str
) -> None:
    """Behind a batch that this primary has not made it puts nothing, and says what happened and what to do.

    Nothing is loaded into the store any more, unless the batch is of another log.
    """
    log = FaultyLog()
    foreign(log, outbox_of(store), **changes)
    publisher = publisher_of(store, log)
    with pytest.raises(error, match=says):
        publisher.step()
    assert publisher.state is state
    assert len(log.messages) == 3
    assert (acknowledged(primary.path) == NOT_THE_PRIMARY) == ("log_id" not in changes)


@pytest.mark.parametrize("decides", [Primary.begin, Primary.become_replica])
def test_no_primary_any_more(primary: Primary, store: Store, decides: Callable[[Primary], object]) -> None:
    """A store that is the primary no more is written again when a person has decided what it is."""
    log = FaultyLog()
    foreign(log, outbox_of(store), term=2)
    with pytest.raises(LogFencedError):
        publisher_of(store, log).step()
    before = store.transaction_id(), outbox_of(store)
    with pytest.raises(StoreRoleError, match="the primary of its log no more"):
        primary.commit()
    with pytest.raises(StoreRoleError, match="'promote --rebase'"):
        primary.seal_with(lambda _: SEALER)
    assert (store.transaction_id(), outbox_of(store)) == before
    decides(primary)
    assert acknowledged(primary.path) == 0


@pytest.mark.parametrize("garbage", GARBAGE)
def test_passed_over(store: Store, garbage: bytes) -> None:
    """What is no message of a log is passed over, between batches and between the parts of one, and told once."""
    log, watch = FaultyLog(), Watch()
    ours = outbox_of(store)
    log.messages += [*ours[:1], garbage, garbage]
    with capture_logs() as lines:
        publisher = publisher_of(store, log, watch)
        drain(publisher)
        log.messages.append(garbage)
        for _ in range(3):
            watch.now_s += LOOK_S
            drain(publisher)
    assert log.messages == [ours[0], garbage, garbage, *ours[1:], garbage]
    told = [(line["number"], line["messages"]) for line in lines if line["event"] == "message_passed_over"]
    assert told == [(3, 2), (6, 1)]
    assert acknowledged(store.environment.path) == 3


def test_passed_over_within_a_batch(primary: Primary, store: Store) -> None:
    """A batch that is half in the log when somebody litters it is gone on with."""
    primary.commit(parts=3)
    ours = outbox_of(store)
    log = FaultyLog()
    log.messages += [*ours[:4], b"hello"]
    drain(publisher_of(store, log))
    assert log.messages == [*ours[:4], b"hello", *ours[4:]]


def test_nothing_but_garbage(store: Store) -> None:
    """A log of which all is passed over is as good as empty; with more than can be looked through it is not known."""
    log = FaultyLog()
    log.messages += [b"hello"] * BACK
    drain(publisher_of(store, log))
    assert log.messages[BACK:] == outbox_of(store)
    log.messages += [b"hello"] * BACK
    with pytest.raises(LogFencedError, match=f"newest {BACK} messages"):
        publisher_of(store, log).step()


def test_stranger_before_garbage(store: Store) -> None:
    """Another primary is noticed, though somebody has written behind it."""
    log = FaultyLog()
    foreign(log, outbox_of(store), term=2)
    log.messages.append(b"hello")
    with pytest.raises(LogFencedError, match="Another primary has begun"):
        publisher_of(store, log).step()


@pytest.mark.parametrize("form", ["term", "batch", "altered", "cut", "newer"])
def test_forged(store: Store, form: str) -> None:
    """Whoever writes in the name of the log, and is not believed, is no primary: it is said that he is a stranger."""
    log, newest = FaultyLog(), outbox_of(store)[-1]
    message = {
        "term": STRANGER.seal(_batch_like(newest, term=2))[0],
        "batch": STRANGER.seal(_batch_like(newest, batch=9))[0],
        "altered": newest[:-1] + bytes([newest[-1] ^ 1]),
        "cut": newest[:-1],
        "newer": newer(newest)[:-1] + b"?",
    }[form]
    log.messages += [*outbox_of(store), message]
    publisher = publisher_of(store, log)
    with pytest.raises(LogFencedError, match="signature does not count here") as caught:
        publisher.step()
    assert "Another primary has begun" not in str(caught.value)
    assert publisher.state is State.FENCED
    assert len(log.messages) == 4
    assert acknowledged(store.environment.path) == 0


def test_other_stream_key(store: Store) -> None:
    """A primary whose signature counts has begun, whatever stream key it seals with."""
    log = FaultyLog()
    sealer = BatchSealer(StreamKey(bytes(32)), SIGNING_KEY)
    log.messages += sealer.seal(_batch_like(outbox_of(store)[-1], term=2))
    with pytest.raises(LogFencedError, match="Another primary has begun"):
        publisher_of(store, log).step()


@pytest.mark.parametrize(
    "opener",
    [
        BatchOpener(StreamKey(bytes(32)), Signers([SIGNING_KEY.public])),
        BatchOpener(STREAM_KEY, Signers([SigningKey(bytes(32)).public])),
    ],
    ids=["stream", "signing"],
)
def test_own_before_a_change_of_keys(store: Store, opener: BatchOpener) -> None:
    """A primary goes on behind its own messages, though they were sealed or signed with the keys before."""
    log = FaultyLog()
    log.messages += outbox_of(store)[:2]
    drain(publisher_of(store, log, opener=opener))
    assert log.messages == outbox_of(store)


def test_loses_a_race(primary: Primary, store: Store) -> None:
    """Who is overtaken while it publishes finds that out at its next message."""
    log = FaultyLog()
    publisher = publisher_of(store, log)
    drain(publisher)
    foreign(log, outbox_of(store)[-1:], term=2, batch=4)
    primary.commit()
    with pytest.raises(LogFencedError):
        drain(publisher)
    assert len(log.messages) == 4


def test_copy_of_the_store(primary: Primary, store: Store, tmp_path: Path) -> None:
    """Of two copies of one store that are both written, the second to publish stops at once."""
    log = FaultyLog()
    copytree(primary.path, tmp_path / "copy")
    primary.commit()
    drain(publisher_of(store, log))
    with Primary.open(tmp_path / "copy", **KEY_IDS, sealer=SEALER) as copy:
        copy.commit()
        with pytest.raises(LogRestoredError):
            publisher_of(Store(copy.environment), log).step()
    assert log.messages == outbox_of(store)


def test_no_primary(primary: Primary, store: Store) -> None:
    """A store that is no primary any more is not published."""
    publisher = publisher_of(store, FaultyLog())
    primary.become_replica()
    with pytest.raises(StoreRoleError, match="not the primary"):
        publisher.step()


def told_of(store: Store) -> list[int]:
    """Publish all of a store; return the batches which only a copy is said to lead past."""
    told: list[int] = []
    drain(publisher_of(store, FaultyLog(), rebased=told.append))
    return told


def test_rebased(tmp_path: Path) -> None:
    """That replicas need a copy is told when the log has the batch that says so."""
    with StoreBuilder(tmp_path / "store") as builder:
        builder.brand().consent().commit()
    with Primary.open(tmp_path / "store", **KEY_IDS, sealer=SEALER) as primary:
        primary.begin()
        primary.commit()
        assert told_of(Store(primary.environment)) == [1]


def test_first_load(tmp_path: Path) -> None:
    """So it is after a first load, and not after others."""
    with Primary.open(tmp_path / "store", **KEY_IDS, sealer=SEALER) as primary:
        primary.begin()
        fill(primary, [ConsentColumns.of([a_change()])], rows=1)
        primary.apply(a_batch([a_change(recipient="+905321000002")]), SourceState(name="x"))
        assert told_of(Store(primary.environment)) == [2]


def test_disk_full(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot be noted what the log has, publishing goes on."""
    log = FaultyLog()
    publisher = publisher_of(store, log)

    def full(_self: Path, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    drain(publisher)
    assert log.messages == outbox_of(store)
    assert not (store.environment.path / ACKNOWLEDGED).exists()


def test_newer_outbox(primary: Primary, store: Store) -> None:
    """What a newer loader made is not appended by a publisher that could not find it again."""
    log = FaultyLog()
    publisher = publisher_of(store, log)
    message = newer(outbox_of(store)[0])
    with (
        patch.object(Snapshot, "outbox_messages", lambda *_: [message]),
        pytest.raises(StoreFormatError, match="Upgrade the publisher"),
    ):
        drain(publisher)
    assert log.messages == []
    drain(publisher_of(store, log))
    assert log.messages == outbox_of(store)


def test_newer_end(primary: Primary, store: Store) -> None:
    """Behind what only a newer version reads nothing is appended, and it is said what to do."""
    log = FaultyLog()
    drain(publisher_of(store, log))
    log.messages[-1] = newer(log.messages[-1] or b"")
    before = list(log.messages)
    with pytest.raises(LogFencedError, match="Upgrade iyscheck on this machine"):
        drain(publisher_of(store, log))
    assert log.messages == before


def test_metrics(primary: Primary, store: Store) -> None:
    """They tell what waits, and for how long."""
    registry, log = CollectorRegistry(), FaultyLog()
    with store.snapshot() as snapshot:
        (_, first), *_ = snapshot.outbox_batches()
    metrics = OutboxMetrics(registry, store, states=list(State), clock=lambda: first.created_ms / 1000 + 60)
    publisher = Publisher(store, log, OPENER, AckFile(primary.path), metrics=metrics)
    waiting = generate_latest(registry).decode()
    drain(publisher)
    published = generate_latest(registry).decode()

    assert "consent_outbox_oldest_seconds 60.0\n" in waiting
    assert 'consent_publisher_state{consent_publisher_state="starting"} 1.0\n' in waiting
    assert "consent_outbox_oldest_seconds 0.0\n" in published
    assert 'consent_publisher_state{consent_publisher_state="publishing"} 1.0\n' in published
    assert "consent_publish_seconds_count 3.0\n" in published
    with store.snapshot() as snapshot:
        assert f"consent_outbox_bytes {float(snapshot.outbox_bytes())}\n" in published
