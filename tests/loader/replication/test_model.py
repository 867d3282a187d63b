"""Primaries, a log that does its worst, and replicas that crash anywhere: what a replica holds was once its primary's.

Nothing else is asked of it while things go wrong, and that is all: never past a hole, never back, never a mixture. When
all is well again every replica becomes what the primary is.
"""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from iyscheck.consent import Status
from iyscheck.errors import LogError, PublishError, StoreRoleError
from iyscheck.store.acknowledged import is_primary_no_more
from iyscheck.store.copying import copy_to
from iyscheck.store.layout import SourceState
from iyscheck.store.log_writer import LogWriter
from iyscheck.store.registries import Registries
from iyscheck.store.snapshot import Store
from iyscheck.store.verification import verify
from iyscheck.store.writable import WritableStore
from loader.replication import codec, staging
from loader.replication.follow import LOOK_S, State
from loader.replication.promote import How, Promotion
from loader.replication.publish import AckFile, Publisher
from loader.replication.publish import State as PublisherState
from loader.replication.replicating import Replica, ReplicaOptions
from loader.reports.outbox import OutboxMetrics
from tests.builders import NOW, a_batch, a_brand, a_change
from tests.dice import often
from tests.loader.replication.replicas import OPENER, SEALER, FolderCopies, Primary, ReadableLog, Told
from tests.logs import KEY_IDS, replicated

Content = tuple[int, dict[bytes, list[tuple[bytes, bytes]]], dict[int, int]]
"""Position, everything that is replicated, watermarks."""


class Crash(BaseException):
    """The process of a replica ends, wherever it is."""


class Node:
    """A replica's machine: its disk, and its process while that runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told = Told()
        self.replica: Replica | None = None
        self.seen: tuple[bytes, int] = (b"", 0)

    @property
    def environment(self) -> object:
        """What its process has open, None if nothing."""
        served = self.replica._served if self.replica is not None else None
        return None if served is None else served.writer.environment

    def end(self) -> None:
        """End the process."""
        if self.replica is not None:
            self.replica.close()
            self.replica = None

    @contextmanager
    def reading(self) -> Iterator[Store | None]:
        """Read its store as a server does, if there is one."""
        if self.environment is not None:
            yield Store(self.environment)  # type: ignore[arg-type] # a process opens it once
        elif (self.path / "data.mdb").exists():
            with Store.open(self.path) as store:
                yield store
        else:
            yield None


class Replicas(RuleBasedStateMachine):
    """One log, its newest primary and an older one that does not know, and two replicas."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(TemporaryDirectory()))
        self.until_crash = 0
        self.now_s = 0.0
        self.numbers = 0
        self.log = ReadableLog(self.tick)
        self.copies = FolderCopies(self.folder / "copies", self.tick)
        self.truth: dict[tuple[bytes, int, bytes], Content] = {}
        self.older: list[tuple[list[bytes | None], int, int]] = []
        self.primaries = [Primary.open(self.folder / "first", **KEY_IDS, sealer=SEALER)]
        self.primaries[0].begin()
        self.record(self.primaries[0])
        self.nodes = [Node(self.folder / f"replica-{number}") for number in range(2)]
        self.stack.enter_context(self.crashing())
        self.stack.enter_context(capture_logs())

    # Crashes.

    def tick(self) -> None:
        """Count a call that a replica makes of its log or its disk; at the one that was chosen it ends."""
        if self.until_crash:
            self.until_crash -= 1
            if not self.until_crash:
                raise Crash

    @contextmanager
    def crashing(self) -> Iterator[None]:
        """Let what a replica does to its disk be counted, too."""
        transaction = WritableStore._transaction

        @contextmanager
        def counted(store: WritableStore, *given: object) -> Iterator[Registries]:
            self.tick()
            with transaction(store, *given) as txn:  # type: ignore[arg-type] # as they came
                yield txn
                self.tick()
            self.tick()

        def both(does: Callable[..., object]) -> Callable[..., object]:
            def doing(*given: object) -> object:
                self.tick()
                done = does(*given)
                self.tick()
                return done

            return doing

        with ExitStack() as patches:
            patches.enter_context(patch.object(WritableStore, "_transaction", counted))
            for name in ("exchange", "sync"):
                patches.enter_context(patch.object(staging, name, both(getattr(staging, name))))
            for name in ("begin", "taken", "clear"):
                original = getattr(staging.Staging, name)
                patches.enter_context(patch.object(staging.Staging, name, both(original)))
            yield

    # What is known.

    def record(self, primary: Primary) -> None:
        """Remember what a primary holds."""
        with Store(primary.environment).snapshot() as snapshot:
            assert snapshot.log is not None
            key = snapshot.position.log_id, snapshot.log.batch, snapshot.log.chain
            self.truth[key] = (snapshot.position.sequence, replicated(snapshot), snapshot.watermarks())

    def look(self, node: Node) -> None:
        """See that a replica holds what its primary held, and did not go back."""
        with node.reading() as store:
            if store is None:
                assert not node.seen[1]
                return
            with store.snapshot() as snapshot:
                position, log = snapshot.position, snapshot.log
                if log is None:
                    assert not position.sequence  # just made
                    return
                found = position.sequence, replicated(snapshot), snapshot.watermarks()
        assert position.log_id != node.seen[0] or position.sequence >= node.seen[1]
        node.seen = position.log_id, position.sequence
        if log.batch:
            expected = self.truth[position.log_id, log.batch, log.chain]
            assert found[:2] == expected[:2]
            assert found[2] == ({} if log.untrusted else expected[2])

    def go(self, node: Node, times: int, **options: object) -> None:
        """Let a replica's process go on, started if it is not there."""
        if node.replica is None:
            terms = {"key_ids": KEY_IDS, "check": False, "now": lambda: self.now_s, "rows_at_once": 3} | options
            made = ReplicaOptions(**terms)  # type: ignore[arg-type] # of those options
            node.replica = Replica(node.path, self.log, OPENER, node.told, copies=self.copies, options=made)
            gc.collect()  # whoever read the store in this process has let go of it: only one may open it
            node.replica.open()
        for _ in range(times):
            self.now_s += LOOK_S / 2
            node.replica.step(0)
            self.look(node)

    # What happens.

    @rule(which=st.integers(0, 1), rows=st.integers(0, 3), parts=st.booleans())
    def commits(self, which: int, rows: int, *, parts: bool) -> None:
        """A primary commits something, in one message or in several."""
        primary = self.primaries[which % len(self.primaries)]
        if is_primary_no_more(primary.path):
            with pytest.raises(StoreRoleError, match="the primary of its log no more"):
                self.commit(primary, rows, parts=parts)
        else:
            self.commit(primary, rows, parts=parts)

    def commit(self, primary: Primary, rows: int, *, parts: bool = False, counted: int | None = None) -> None:
        """Commit so many consents."""
        self.numbers += 1
        changes = [
            a_change(
                recipient=f"+90532000{row:04}",
                status=Status.RET if self.numbers % 2 else Status.ONAY,
                registered=2**30 + self.numbers,
                sequence=row + 1,
            )
            for row in range(rows)
        ]
        state = SourceState(name=f"s{self.numbers % 3}-{self.numbers}", watermarks=((1, NOW + self.numbers),))
        with patch.object(codec, "SLICE_MAX_BYTES", 120 if parts else codec.SLICE_MAX_BYTES):
            primary.apply(a_batch(changes, brands=[a_brand(1)], rows=counted), state, finished=True)
        self.record(primary)

    @rule(which=st.integers(0, 1), times=st.integers(1, 5))
    def publishes(self, which: int, times: int) -> None:
        """A publisher begins and does some of its work."""
        self.publish(self.primaries[which % len(self.primaries)], times)

    def publish(self, primary: Primary, times: int) -> PublisherState:
        """Publish for a while."""
        store = Store(primary.environment)
        metrics = OutboxMetrics(CollectorRegistry(), store, states=list(PublisherState))
        publisher = Publisher(store, self.log, OPENER, AckFile(primary.path), metrics=metrics)
        with suppress(PublishError):
            for _ in range(times):
                publisher.step()
        return publisher.state

    @rule(which=st.integers(0, 1), times=st.integers(1, 6), rejoin=st.sampled_from([False, False, True]))
    def goes_on(self, which: int, times: int, *, rejoin: bool) -> None:
        """A replica does some of its work; a person may have it rejoin."""
        node = self.nodes[which]
        if rejoin:
            node.end()
        self.go(node, times, rejoin=rejoin)

    @rule(which=st.integers(0, 1), at=st.integers(1, 60))
    def crashes(self, which: int, at: int) -> None:
        """A replica ends at one of the calls that it makes, and is started again later."""
        node = self.nodes[which]
        self.until_crash = at
        try:
            self.go(node, 6)
        except Crash:
            node.end()
            self.look(node)
        finally:
            self.until_crash = 0

    @rule(which=st.integers(0, 1))
    def errs(self, which: int) -> None:
        """A replica has a fault: it loses the records of what it applies."""
        with patch.object(LogWriter, "_put_records", lambda *_: None):
            self.go(self.nodes[which], 2)

    @rule(of=st.integers(0, 3))
    def is_copied(self, of: int) -> None:
        """A primary or a replica is copied, as makers do."""
        if of < 2:
            self.copies.make(Store(self.primaries[of % len(self.primaries)].environment))
            return
        node = self.nodes[of - 2]
        if self.is_fit(node):
            with node.reading() as store:
                assert store is not None
                self.copies.make(store)

    def is_fit(self, node: Node) -> bool:
        """Say whether a replica has something that may be believed."""
        with node.reading() as store:
            if store is None:
                return False
            with store.snapshot() as snapshot:
                return snapshot.log is not None and snapshot.log.batch > 0 and not snapshot.log.untrusted

    @rule(number=st.integers(1, 5))
    def loses_end(self, number: int) -> None:
        """Messages that were acknowledged vanish."""
        self.log.lose_end(number)

    @rule(number=st.integers(1, 5))
    def ages(self, number: int) -> None:
        """The oldest messages go."""
        self.log.age(number)

    @precondition(lambda self: self.log.messages)
    @rule(number=st.integers(0, 50), how=st.sampled_from(["punch", "flip", "double"]))
    def is_damaged(self, number: int, how: str) -> None:
        """A message is lost where it lies, changed, or comes twice."""
        number = number % len(self.log.messages) + 1
        if how == "punch":
            self.log.punch(number)
        elif self.log.messages[number - 1] is not None:
            if how == "flip":
                self.log.flip(number)
            else:
                self.log.messages.insert(number, self.log.messages[number - 1])

    @rule(back=st.booleans())
    def rewinds(self, *, back: bool) -> None:
        """The log is what it was before, as a disk that was given back an older copy."""
        if back and self.older:
            messages, first, created = self.older.pop()
            self.log.messages, self.log.first, self.log.created = list(messages), first, created
        else:
            self.older.append((list(self.log.messages), self.log.first, self.log.created))

    @rule()
    def is_made_anew(self) -> None:
        """The log is deleted and made anew."""
        self.log.make()

    @rule(away=st.booleans())
    def is_away(self, *, away: bool) -> None:
        """Nobody can ask it, or everybody again."""
        self.log.is_away = away

    @precondition(lambda self: len(self.primaries) == 1)
    @rule()
    def splits(self) -> None:
        """A copy of the primary's disk is started as a primary, too."""
        other = self.folder / f"primary-{self.numbers}-{len(self.truth)}"
        other.mkdir()
        copy_to(Store(self.primaries[0].environment), other)
        self.primaries.append(Primary.open(other, **KEY_IDS, sealer=SEALER))

    @rule(which=st.integers(0, 1), how=st.sampled_from([How.CONTINUE, How.CONTINUE, How.REBASE, How.NEW_LOG]))
    def is_promoted(self, which: int, how: How) -> None:
        """A replica becomes the primary, if its log lets it; the primary before does not know."""
        node = self.nodes[which]
        node.end()
        if self.log.is_away or not self.is_fit(node):
            return
        gc.collect()
        primary = Primary.open(node.path, **KEY_IDS, sealer=SEALER)
        try:
            Promotion(primary, self.log, OPENER, SEALER, node.told, settings="", pause=lambda _: None).promote(how)
        except LogError:
            primary.close()
            self.look(node)
            return
        self.record(primary)
        while len(self.primaries) > 1:
            self.primaries.pop(0).close()
        self.primaries.append(primary)
        self.nodes[which] = Node(self.folder / f"replica-{which}-{len(self.truth)}-{self.numbers}")

    def teardown(self) -> None:
        """When all is well again, every replica becomes what the newest primary is."""
        try:
            self.heal()
        finally:
            for node in self.nodes:
                node.end()
            for primary in self.primaries:
                primary.close()
            self.stack.close()

    def heal(self) -> None:
        """Give the log to the newest primary, let it go beyond all that was ever seen, and copy it."""
        self.log.is_away = False
        self.log.make()
        time.sleep(0.002)
        primary = self.primaries[-1]
        self.publish(primary, 1)  # it finds that it is the only one
        self.commit(primary, 2, counted=100_000)
        self.publish(primary, 200)
        self.copies.make(Store(primary.environment))
        self.commit(primary, 2)
        self.publish(primary, 5)
        expected = replicated(Store(primary.environment).snapshot())
        for node in self.nodes:
            node.end()
            self.go(node, 40, rejoin=True)
            assert node.told.state is State.FOLLOWING, (node.told.states[-5:], node.told.whys[-5:])
            with node.reading() as store:
                assert store is not None
                assert replicated(store.snapshot()) == expected
                assert verify(store).faults == []


PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""Without shrinking: examples take too long for it."""


class ManyReplicas(Replicas):
    """The same, more often."""


TestReplicas = Replicas.TestCase
TestReplicas.settings = settings(
    max_examples=4, stateful_step_count=20, deadline=None, phases=PHASES, suppress_health_check=list(HealthCheck)
)
TestManyReplicas = pytest.mark.thorough(ManyReplicas.TestCase)
TestManyReplicas.settings = settings(
    max_examples=often(600),
    stateful_step_count=40,
    deadline=None,
    phases=PHASES,
    suppress_health_check=list(HealthCheck),
)
