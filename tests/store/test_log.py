"""A primary and its replica are the same to the byte after each batch, whatever was changed and however it came."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.change import Brand, ConsentChange, ConsentColumns, RetailerAccess
from iyscheck.consent import Status
from iyscheck.errors import LogDivergedError, LogForkError, LogOrderError, StoreRoleError
from iyscheck.store import outbox
from iyscheck.store.acknowledged import ACKNOWLEDGED
from iyscheck.store.deliveries import Delivery
from iyscheck.store.layout import PRIMARY, REPLICA, SourceState, Span
from iyscheck.store.log import sums_of
from iyscheck.store.log_batch import Kind, Received
from iyscheck.store.log_writer import LogWriter
from iyscheck.store.snapshot import Store
from iyscheck.store.verification import verify
from iyscheck.store.writer import Writer
from tests import strategies
from tests.builders import NOW, StoreBuilder, a_batch, a_brand, a_change, fill
from tests.logs import KEY_IDS, PlainSealer, assert_same, begin, primary, received

Step = Callable[[Writer], object]


def _load(
    consents: Sequence[ConsentChange],
    access: Sequence[RetailerAccess],
    brands: Sequence[Brand],
    name: str,
    *,
    end: bool,
) -> Step:
    """A commit of a source, which may end it, with a watermark and with a row that was rejected."""
    state = SourceState(name=name, rejected=1, rejected_brands=(2,), watermarks=((0, NOW), (1, NOW + 60)))
    span = Span(brand=1, start=NOW + 120, end=NOW + 180)
    delivery = Delivery(feed="daily", now_s=NOW, local_s=NOW + 10_800, learns=True)
    return lambda writer: writer.apply(
        a_batch(consents, access, brands, rows=1_000),  # as many as the greatest position that a change says
        state,
        finished=end,
        proved=span if end else None,
        delivery=delivery,
    )


def _accept(writer: Writer) -> None:
    """Accept the rejects that wait, and a gap."""
    for source in [source.name for source in writer.sources() if source.rejected and not source.accepted]:
        writer.accept_rejects(source)
    watermark = writer.coverage(1)[0]
    if watermark is not None:
        writer.accept_gap(1, until=watermark + 60, reason="lost", now_s=NOW)


steps = st.one_of(
    st.builds(
        _load,
        st.lists(strategies.consent_changes, max_size=6),
        st.lists(strategies.retailer_accesses, max_size=3),
        st.lists(strategies.brands, max_size=2),
        st.sampled_from(["a", "b"]),
        end=st.booleans(),
    ),
    st.just(_accept),
    st.just(lambda writer: writer.heartbeat(0)),
    st.just(lambda writer: writer.expect("daily", 3_600)),
    st.just(lambda writer: writer.rebuild_index()),
)


def grow(path: Path, batches: Sequence[Received], cuts: Sequence[int]) -> None:
    """Let a replica that begins with nothing follow batches, in groups that end at the cuts."""
    with LogWriter.open(path, **KEY_IDS) as writer:
        writer.become_replica(log_id=batches[0].batch.log_id)
        edges = [0, *sorted({cut % len(batches) for cut in cuts} - {0}), len(batches)]
        for start, end in pairwise(edges):
            writer.follow(batches[start:end], stream_created="s")


@settings(deadline=None)
@given(st.lists(steps, max_size=8), st.lists(st.integers(0, 20), max_size=5), st.integers(1, 3))
def test_the_same(changes: Sequence[Step], cuts: Sequence[int], parts: int) -> None:
    """Whatever changes a primary, a replica that follows in whatever groups is the same, and both are whole."""
    with TemporaryDirectory() as folder:
        here, there = Path(folder) / "primary", Path(folder) / "replica"
        begin(here, parts=parts)
        with primary(here, parts=parts) as writer:
            for change in changes:
                change(writer)
        with Store.open(here) as store:
            grow(there, received(store), cuts)
            with Store.open(there) as replica:
                assert_same(store, replica)
                assert verify(store).faults == verify(replica).faults == []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A primary with a brand and two consents."""
    begin(tmp_path / "primary")
    with StoreBuilder(tmp_path / "primary", sealer=PlainSealer()) as builder:
        builder.brand().consent().commit()
        builder.consent(recipient="+905321000002", status=Status.RET).commit("other")
    return tmp_path / "primary"


@pytest.fixture
def batches(path: Path) -> list[Received]:
    """What it told its log."""
    with Store.open(path) as store:
        return received(store)


class TestPrimary:
    """What a primary tells, and what it refuses."""

    def test_first(self, path: Path, batches: list[Received]) -> None:
        """The log begins with the term, batches are numbered without gaps and name what they follow."""
        assert [each.batch.kind for each in batches] == [Kind.TERM, Kind.CHANGES, Kind.CHANGES]
        assert [each.batch.batch for each in batches] == [1, 2, 3]
        assert [later.batch.prev for later in batches[1:]] == [earlier.chain for earlier in batches[:-1]]
        with Store.open(path) as store, store.snapshot() as snapshot:
            assert snapshot.log is not None
            assert (snapshot.log.role, snapshot.log.term, snapshot.log.batch) == (PRIMARY, 1, 3)

    def test_not_empty(self, tmp_path: Path) -> None:
        """A store that holds something begins with what is not told: replicas need a copy."""
        with StoreBuilder(tmp_path / "old") as builder:
            builder.brand().consent().commit()
        begin(tmp_path / "old")

        with Store.open(tmp_path / "old") as store:
            assert [each.batch.kind for each in received(store)] == [Kind.REBASE]
            assert verify(store).faults == []

    def test_fill(self, tmp_path: Path) -> None:
        """A first load is not told either, and its digest is right."""
        begin(tmp_path / "new")
        with primary(tmp_path / "new") as writer:
            fill(writer, [ConsentColumns.of([a_change()])], rows=1)

        with Store.open(tmp_path / "new") as store:
            assert [each.batch.kind for each in received(store)] == [Kind.TERM, Kind.REBASE]
            assert verify(store).faults == []

    def test_without_sealer(self, path: Path) -> None:
        """Nothing changes a primary that its log is not told of."""
        with Writer.open(path, **KEY_IDS) as writer:
            before = writer.log
            with pytest.raises(StoreRoleError, match="primary of a log"):
                writer.apply(a_batch([a_change(status=Status.RET)]), SourceState(name="x"))
            assert writer.log == before
            writer.rebuild_index()  # tells nothing

    def test_heartbeat(self, path: Path) -> None:
        """A primary that was silent for long says that it lives, and no sooner."""
        with primary(path, clock=lambda: NOW * 2.0) as writer:
            assert writer.heartbeat()
            assert not writer.heartbeat()
            assert writer.log is not None
            assert (writer.log.batch, writer.log.created_ms) == (4, NOW * 2000)

    def test_unchanged(self, path: Path) -> None:
        """A transaction that changes nothing is not told."""
        with primary(path) as writer:
            writer.rebuild_index()
            assert writer.log is not None
            assert writer.log.batch == 3

    def test_pruned(self, path: Path, batches: list[Received]) -> None:
        """What is acknowledged and an hour old leaves the outbox; the rest stays."""
        made_s = batches[-1].batch.created_ms / 1000
        (path / ACKNOWLEDGED).write_bytes((2).to_bytes(8))
        with primary(path, clock=lambda: made_s + 3_000) as writer:
            writer.heartbeat()
        with Store.open(path) as store:
            assert [each.batch.batch for each in received(store)] == [1, 2, 3, 4]
        with primary(path, clock=lambda: made_s + 3_700) as writer:
            writer.heartbeat()
            assert writer.log is not None
            assert writer.log.oldest == 3
        with Store.open(path) as store:
            assert [each.batch.batch for each in received(store)] == [3, 4, 5]

    def test_given_up(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An outbox that nobody empties is given up: what is then told is that a copy is needed."""
        monkeypatch.setattr(outbox, "MOST_BYTES", 0)
        with primary(path) as writer:
            writer.apply(a_batch([a_change(status=Status.RET, registered=2**31)]), SourceState(name="x"))
        with Store.open(path) as store:
            assert [(each.batch.kind, each.batch.batch) for each in received(store)] == [(Kind.REBASE, 4)]
            assert verify(store).faults == []


class TestReplica:
    """What a replica refuses: nothing of it is in then."""

    @pytest.fixture
    def replica(self, tmp_path: Path, batches: list[Received]) -> Path:
        """A replica that is at the second batch."""
        grow(tmp_path / "replica", batches[:2], [])
        return tmp_path / "replica"

    def refuses(self, replica: Path, error: type[Exception], *come: Received) -> None:
        """Have batches refused."""
        with LogWriter.open(replica, **KEY_IDS) as writer:
            before = writer.log, writer.position
            with pytest.raises(error):
                writer.follow(come, stream_created="s")
            assert (writer.log, writer.position) == before
            with Store(writer.environment).snapshot() as snapshot:
                assert snapshot.sums() == sums_of(snapshot.items)

    def changed(self, each: Received, **fields: object) -> Received:
        """Return it with another batch."""
        return replace(each, batch=replace(each.batch, **fields))  # type: ignore[arg-type] # as they are

    def test_hole(self, replica: Path, path: Path) -> None:
        """A batch behind a hole is never applied: its watermark would be a lie."""
        with primary(path) as writer:
            writer.heartbeat(0)
        with Store.open(path) as store:
            self.refuses(replica, LogOrderError, received(store)[3])

    def test_hole_in_group(self, replica: Path, path: Path) -> None:
        """Nor is one within a group."""
        with primary(path) as writer:
            for _ in range(2):
                writer.heartbeat(0)
        with Store.open(path) as store:
            found = received(store)
        self.refuses(replica, LogOrderError, found[2], found[4])

    def test_again(self, replica: Path, batches: list[Received]) -> None:
        """What is in already is no next batch."""
        self.refuses(replica, LogForkError, batches[1])

    @pytest.mark.parametrize(
        ("field", "value", "error"),
        [
            ("log_id", b"x" * 16, LogOrderError),
            ("term", 0, LogOrderError),
            ("prev", b"x" * 32, LogForkError),
            ("first", 7, LogOrderError),
            ("kind", Kind.REBASE, LogOrderError),
            ("digest", b"x" * 16, LogDivergedError),
        ],
    )
    def test_other(
        self, replica: Path, batches: list[Received], field: str, value: object, error: type[Exception]
    ) -> None:
        """A batch of another log, an ended term, another past, another place or another result is refused."""
        self.refuses(replica, error, self.changed(batches[2], **{field: value}))

    def test_lost_row(self, replica: Path, batches: list[Received]) -> None:
        """A row that is lost on the way is found by the digest."""
        rows = batches[2].batch.rows
        self.refuses(replica, LogDivergedError, self.changed(batches[2], rows=rows.take(slice(0, 0))))

    def test_lost_value(self, replica: Path, batches: list[Received]) -> None:
        """So is a value."""
        self.refuses(replica, LogDivergedError, self.changed(batches[2], values=batches[2].batch.values[1:]))

    def test_loading(self, replica: Path) -> None:
        """No loader writes a replica, with a sealer or without."""
        for sealer in (None, PlainSealer()):
            with Writer.open(replica, **KEY_IDS, sealer=sealer) as writer:
                before = writer.position
                with pytest.raises(StoreRoleError, match="is a replica"):
                    writer.apply(a_batch(brands=[a_brand(5)]), SourceState(name="x"))
                assert writer.position == before
                assert not writer.heartbeat(0)

    def test_distrusted(self, replica: Path) -> None:
        """What is not to be believed has no watermarks, and so no commercial permission."""
        with LogWriter.open(replica, **KEY_IDS) as writer:
            with Store(writer.environment).snapshot() as snapshot:
                assert snapshot.brand(1).watermark == NOW
            writer.distrust("diverged")
            with Store(writer.environment).snapshot() as snapshot:
                assert snapshot.untrusted == "diverged"
                assert snapshot.brand(1).watermark is None
                assert snapshot.watermarks() == {}

    def test_not_empty(self, tmp_path: Path) -> None:
        """A store that holds something of its own follows no log."""
        with StoreBuilder(tmp_path / "own") as builder:
            builder.consent().commit()
        with LogWriter.open(tmp_path / "own", **KEY_IDS) as writer, pytest.raises(StoreRoleError):
            writer.become_replica(log_id=b"x" * 16)


class TestTakingOver:
    """A replica becomes the primary, and the others follow it."""

    def test_promoted(self, tmp_path: Path, batches: list[Received]) -> None:
        """Its term is the next, its first batch follows what it has, and the others apply it."""
        for name in ("one", "other"):
            grow(tmp_path / name, batches, [])
        begin(tmp_path / "one", settings="cluster.toml")
        with primary(tmp_path / "one") as writer:
            assert writer.log is not None
            assert (writer.log.role, writer.log.term, writer.log.settings) == (PRIMARY, 2, "cluster.toml")
            writer.apply(a_batch([a_change(status=Status.RET, registered=2**31)]), SourceState(name="x"))
        with Store.open(tmp_path / "one") as store, LogWriter.open(tmp_path / "other", **KEY_IDS) as writer:
            writer.follow(received(store), stream_created="s")
            assert_same(store, Store(writer.environment))

    def test_acknowledged_before(self, path: Path) -> None:
        """What a log before had of these numbers is not taken for what the new one has."""
        (path / ACKNOWLEDGED).write_bytes((99).to_bytes(8))
        with LogWriter.open(path, **KEY_IDS) as writer:
            writer.take_over(writer.begin_term(PlainSealer(), new_log=True), settings="")
        assert not (path / ACKNOWLEDGED).exists()

    def test_behind(self, tmp_path: Path, path: Path, batches: list[Received]) -> None:
        """One that is behind the log goes on behind it, and its position does not go back."""
        grow(tmp_path / "replica", batches[:2], [])
        with Store.open(path) as store, store.snapshot() as snapshot:
            stands, sequence = snapshot.log, snapshot.position.sequence
        with LogWriter.open(tmp_path / "replica", **KEY_IDS) as writer:
            beginning = writer.begin_term(PlainSealer(), after=stands, sequence=sequence)
            state = writer.take_over(beginning, settings="")
            assert (beginning.batch.kind, beginning.batch.prev) == (Kind.REBASE, batches[2].chain)
            assert (state.batch, state.term, writer.position.sequence) == (4, 2, sequence)
        with Store.open(tmp_path / "replica") as store:
            assert verify(store).faults == []

    def test_new_log(self, path: Path) -> None:
        """Where continuity cannot be shown the log gets another name, and replicas need a copy."""
        with LogWriter.open(path, **KEY_IDS) as writer:
            before = writer.position
            state = writer.take_over(writer.begin_term(PlainSealer(), new_log=True), settings="")
            assert writer.position.log_id != before.log_id
            assert (state.term, state.batch, writer.position.sequence) == (1, 1, before.sequence)

    def test_back(self, path: Path, batches: list[Received], tmp_path: Path) -> None:
        """A primary becomes a replica again: its outbox is gone, its place stays."""
        with LogWriter.open(path, **KEY_IDS) as writer:
            state = writer.become_replica(stream_created="s", number=7)
            assert (state.role, state.batch, state.stream_sequence) == (REPLICA, 3, 7)
            with Store(writer.environment).snapshot() as snapshot:
                assert list(snapshot.outbox_batches()) == []
        grow(tmp_path / "other", batches, [])
        with Store.open(path) as store, Store.open(tmp_path / "other") as other:
            assert_same(store, other)
