"""The decision index beside the records: whatever happens to a store, it says what the records say."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.change import ConsentChange, ConsentColumns
from iyscheck.consent import Channel, Reason, RecipientType, Status, state, states
from iyscheck.errors import StoreCorruptError, StoreError
from iyscheck.kernel import Kernel
from iyscheck.question import Context
from iyscheck.store import layout
from iyscheck.store.index import REVISIONS_KEPT, Index, PageTable, Taker, entries_of, index, pages, read_state
from iyscheck.store.index.recorded import Recorded
from iyscheck.store.registries import Registries
from iyscheck.store.snapshot import Store
from iyscheck.store.verification import verify
from iyscheck.store.view import View, Views
from tests.builders import STORE_KEY, StoreBuilder, a_batch, a_brand, a_change, an_access
from tests.dice import often, thrown

CONTEXTS = (
    (1, Channel.MESAJ, RecipientType.BIREYSEL),
    (1, Channel.ARAMA, RecipientType.TACIR),
    (2**32 - 1, Channel.EPOSTA, RecipientType.BIREYSEL),
)


def tag_of_number(number: int) -> bytes:
    """Make a tag that looks as if a cipher made it."""
    return xxhash.xxh3_128_digest(number.to_bytes(8))


def consent(number: int, status: Status = Status.ONAY, registered: int = 1) -> ConsentChange:
    """Make a change of the consent with a number; its context follows from the number."""
    brand, channel, recipient_type = CONTEXTS[number % len(CONTEXTS)]
    return a_change(
        brand=brand,
        channel=channel,
        recipient_type=recipient_type,
        tag=tag_of_number(number),
        status=status,
        registered=1_748_779_200 + registered,
    )


@contextmanager
def small_steps() -> Iterator[None]:
    """Let growth begin with few consents and take many slices, as with millions."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("AT_ONCE", 0), ("SLICE_PER_ADDED", 2), ("SLICE_LEAST", 1), ("LEAST_SHARDS", 4)):
            patch.setattr(index, name, value)
        patch.setattr(index, "DROPPED_PER_COMMIT", 2)
        yield


class Model:
    """What the index must say: state bytes by number of the consent, written down as the rows came."""

    def __init__(self) -> None:
        self.changes: dict[int, ConsentChange] = {}
        self.listed: set[int] = set()

    def states(self, context: int, numbers: range) -> list[int]:
        """Return the states of the consents of one context among the numbers."""
        found = []
        for number in numbers:
            if number % len(CONTEXTS) != context:
                continue
            change = self.changes.get(number)
            facts = 0 if change is None else state(change.status, change.consented, change.registered, change.source)
            found.append(facts | 16 if facts and number in self.listed else facts)
        return found


def read_states(found: View, context: int, numbers: range, kernel: Kernel) -> list[int]:
    """Look the consents of one context up in a view."""
    tags = b"".join(tag_of_number(number) for number in numbers if number % len(CONTEXTS) == context)
    column, by_state = np.frombuffer(tags, np.uint8).reshape(-1, 16), np.frombuffer(bytes(range(255, -1, -1)), np.uint8)
    states = found.states(CONTEXTS[context], column, kernel)
    meant, counts = found.meanings(CONTEXTS[context], column, kernel, bytes(16), by_state)
    assert meant.tolist() == (255 - states).tolist()  # the way of columns without a retailer
    assert counts.tolist() == np.bincount(meant, minlength=256).tolist()
    return [int(each) for each in states]


def test_misplaced_page(tmp_path: Path) -> None:
    """A sound page that does not lie where LMDB lays pages is not taken: its buckets would be looked for elsewhere."""
    value = bytes(pages.sealed(pages.blank(1), 7, np.array([3]))[0])
    memory = np.zeros(4 * pages.INDEX_PAGE_BYTES, np.uint8)
    lead = pages.LEAD_WORDS * 8
    place = -memory.ctypes.data % 4096 + lead
    with Store.open(filled(tmp_path)) as store, store.environment.lmdb.begin() as txn:
        for shift in (0, 8, 64, 2048):
            memory[place + shift : place + shift + len(value)] = np.frombuffer(value, np.uint8)
            taker = Taker(txn, store.environment, None)

            taken = taker.take(7, 3, memory[place + shift : place + shift + len(value)].data)

            assert (taken == pages.NOT_TAKEN) == (shift != 0)


@contextmanager
def writing(builder: StoreBuilder) -> Iterator[Registries]:
    """Change a store past its writer, in one transaction."""
    environment = builder.writer.environment
    with environment.lmdb.begin(write=True) as txn:
        yield Registries(txn, environment.databases)


def filled(folder: Path) -> Path:
    """Make a store of one brand."""
    with StoreBuilder(folder / "store") as builder:
        builder.brand(1).commit()
    return folder / "store"


def addresses(table: PageTable) -> dict[int, list[int]]:
    """Return where in memory the pages of each generation are; 0 where one was not taken."""
    base = int(table.memory.__array_interface__["data"][0])
    return {
        generation: np.where(starts == pages.NOT_TAKEN, 0, starts * 8 + base).tolist()
        for generation, starts in table.starts.items()
    }


numbers = st.sampled_from(range(0, 1_801, 300))  # so that steps meet the same consents
steps = st.one_of(
    st.tuples(st.just("add"), numbers, st.integers(1, 900)),
    st.tuples(st.just("refuse"), numbers, st.integers(1, 60)),
    st.tuples(st.just("list"), numbers, st.integers(1, 20)),
    st.tuples(st.just("erase"), numbers, st.integers(1, 40)),
    st.tuples(st.just("damage"), numbers, st.integers(0, 4_079)),
    st.tuples(st.just("fail"), numbers, st.integers(1, 200)),
    st.tuples(st.just("rebuild"), st.just(0), st.just(0)),
    st.tuples(st.just("reopen"), st.just(0), st.just(0)),
    st.tuples(st.just("idle"), st.just(0), st.just(0)),
)


class History:
    """A store, its model, and a reader that is there all the time."""

    def __init__(self, path: Path, kernel: Kernel) -> None:
        self._path = path
        self._kernel = kernel
        self.builder = StoreBuilder(path, kernel)
        self._views = Views(self.builder.writer.environment)
        self._model = Model()
        self._registered = 1

    def close(self) -> None:
        """Close everything."""
        self._views.close()
        self.builder.close()

    def take(self, step: str, number: int, amount: int) -> None:
        """Do one step."""
        self._registered += 1
        getattr(self, f"_{step}")(number, amount)

    def _apply(self, changes: dict[int, ConsentChange]) -> None:
        self.builder.writer.apply(a_batch(list(changes.values())), layout.SourceState(name="test"))
        self._model.changes.update(changes)

    def _add(self, number: int, amount: int) -> None:
        self._apply({each: consent(each, Status.ONAY, self._registered) for each in range(number, number + amount)})

    def _refuse(self, number: int, amount: int) -> None:
        self._apply({each: consent(each, Status.RET, self._registered) for each in range(number, number + amount)})

    def _list(self, number: int, amount: int) -> None:
        lists = [an_access(consent(each), [7]) for each in range(number, number + amount)]
        self.builder.writer.apply(a_batch(access=lists), layout.SourceState(name="test"))
        self._model.listed.update(range(number, number + amount))

    def _erase(self, number: int, amount: int) -> None:
        """Delete records as erasure will: record, count and state in one transaction."""
        with writing(self.builder) as txn:
            found = Index(txn.txn, txn.databases, self._kernel)
            for each in range(number, number + amount):
                change = self._model.changes.pop(each, None)
                if change is None:
                    continue
                group = (change.brand, change.channel, change.recipient_type)
                txn.txn.delete(layout.encode_key(*group, change.tag), db=txn.databases[layout.RECORDS])
                txn.add_counts({(*group, change.status): -1})
                found.apply(entries_of(a_batch([change]).consents, np.zeros(1, np.uint8)), added=0)
            found.save()

    def _damage(self, number: int, at: int) -> None:
        """Flip a bit of some page, and note that the page changed, as its damage would be met by a new reader."""
        with writing(self.builder) as txn:
            state_now = read_state(txn.txn, txn.databases[layout.META])
            assert state_now is not None
            key = layout.encode_shard(state_now.generation, number % state_now.shards)
            page = bytearray(txn.txn.get(key, db=txn.databases[layout.INDEX]) or b"")
            page[at] ^= 1 << number % 8
            txn.txn.put(key, bytes(page), db=txn.databases[layout.INDEX])
            revision = layout.encode_number(state_now.revision + 1)
            changed = {state_now.generation: np.array([number % state_now.shards])}
            note = layout.encode_index_changes(state_now.revision + 1, changed)
            state_then = layout.encode_index_state(replace(state_now, revision=state_now.revision + 1))
            txn.txn.put(revision, note, db=txn.databases[layout.INDEX_CHANGES])
            txn.txn.put(layout.META_INDEX, state_then, db=txn.databases[layout.META])
        self._check(mended=False)
        self.builder.writer.rebuild_index()

    def _fail(self, number: int, amount: int) -> None:
        """Lose a batch to an error at its very end, after records and index are written."""
        changes = [consent(each, Status.RET, self._registered) for each in range(number, number + amount)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Index, "save", _raising)
            with suppress(ZeroDivisionError):
                self.builder.writer.apply(a_batch(changes), layout.SourceState(name="test"))

    def _rebuild(self, _number: int, _amount: int) -> None:
        self.builder.writer.rebuild_index()

    def _reopen(self, _number: int, _amount: int) -> None:
        self.close()
        self.builder = StoreBuilder(self._path, self._kernel)
        self._views = Views(self.builder.writer.environment)

    def _idle(self, _number: int, _amount: int) -> None:
        with self._views._lock:  # what its timer does when nobody asks, without the wait
            self._views._let_go()

    def check(self) -> None:
        """Compare the reader that was there all the time, a new one and `verify` with the model."""
        self._check(mended=True)

    def _check(self, *, mended: bool) -> None:
        with self._views.view() as held:
            fresh = View(self.builder.writer.environment, None)
            try:
                assert addresses(held.table) == addresses(fresh.table)
            finally:
                fresh.close()
            for context in range(len(CONTEXTS)):
                found = read_states(held, context, range(4_100), self._kernel)
                expected = self._model.states(context, range(4_100))
                if not mended:  # consents of the damaged page come from the records: there may be a list
                    found, expected = ([each & ~16 for each in column] for column in (found, expected))
                assert found == expected
        faults = verify(self.builder.store, kernel=self._kernel).faults
        assert (faults == []) == mended


def _raising(_: Index) -> None:
    raise ZeroDivisionError


class TestHistories:
    """After any history index and records agree, for readers old and new."""

    @pytest.mark.parametrize("kernel", Kernel)
    @settings(max_examples=often(25), deadline=None)
    @given(history=st.lists(steps, min_size=1, max_size=10))
    def test_any(self, kernel: Kernel, history: list[tuple[str, int, int]]) -> None:
        """Adding, refusing, lists, erasing, growing, failing, damage, rebuilding and reopening in any order."""
        with TemporaryDirectory() as folder, small_steps():
            run = History(Path(folder) / "store", kernel)
            try:
                for step in history:
                    run.take(*step)
                    run.check()
            finally:
                run.close()

    @settings(max_examples=often(100), deadline=None)
    @given(
        st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=9),
        st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=12),
    )
    def test_lists(self, consents: set[tuple[int, int]], lists: set[tuple[int, int]]) -> None:
        """A consent's entry says that there is a list of retailers exactly where there is one, also of equal halves."""

        def change_of(halves: tuple[int, int]) -> ConsentChange:
            return a_change(tag=halves[0].to_bytes(8) + halves[1].to_bytes(8))

        changes = ConsentColumns.of([change_of(halves) for halves in sorted(consents)])
        with TemporaryDirectory() as directory, StoreBuilder(Path(directory) / "store") as builder:
            access = [an_access(change_of(halves), [7]) for halves in lists]
            builder.writer.apply(a_batch(access=access), layout.SourceState(name="test"))
            with builder.writer.environment.lmdb.begin() as txn:
                found = Index(txn, builder.writer.environment.databases, Kernel.NUMPY).entries(changes)

        has_list = [halves in lists for halves in sorted(consents)]
        expected = states(changes.status, changes.consented, changes.registered, changes.by_citizen, np.array(has_list))
        assert (found.words & np.uint64(0xFF)).tolist() == expected.tolist()

    @pytest.mark.parametrize("kernel", Kernel)
    def test_growth(self, tmp_path: Path, kernel: Kernel) -> None:
        """Through many generations, each built in slices while consents come in and change, nothing is lost."""
        with small_steps():
            run = History(tmp_path / "store", kernel)
            generations = set()
            for turn in range(60):
                run.take("add", turn * 45, 60)
                run.take("refuse", (turn * 977) % 2_000, 20)
                with run.builder.store.snapshot() as snapshot:
                    found = snapshot.index_state()
                assert found is not None
                generations.add((found.generation, found.building > 0))
                if turn % 10 == 9:
                    run.check()
            run.close()

        assert len({generation for generation, _ in generations}) > 3
        assert sum(building for _, building in generations) > 2

    def test_steps(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A generation has at most 1.3 times the shards of the one before, and is never fuller than 0.8."""
        kept = index.SLICE_PER_ADDED
        with small_steps(), StoreBuilder(tmp_path / "store") as builder:
            monkeypatch.setattr(index, "SLICE_PER_ADDED", kept)
            builder.writer.apply(a_batch([consent(n) for n in range(2_000)]), layout.SourceState(name="a"))
            before = None
            for turn in range(40):
                changes = [consent(n) for n in range(2_000 + turn * 100, 2_100 + turn * 100)]
                builder.writer.apply(a_batch(changes), layout.SourceState(name="a"))
                with builder.store.snapshot() as snapshot:
                    found = snapshot.index_state()
                assert found is not None
                assert found.entries <= 0.8 * found.shards * pages.CAPACITY
                if before is not None and found.generation != before.generation:
                    assert before.shards < found.shards <= before.shards * 1.3 + 1
                before = found


class TestShards:
    """Any run of shards can be built from the records alone."""

    @settings(max_examples=often(60), deadline=None)
    @given(shards=st.integers(1, 9), cut=st.integers(0, 9), seed=st.integers(0, 10**6))
    def test_runs(self, shards: int, cut: int, seed: int) -> None:
        """Two runs of shards have together what one has, each consent where it belongs."""
        cut = min(cut, shards)
        with TemporaryDirectory() as folder, StoreBuilder(Path(folder) / "store") as builder:
            builder.writer.apply(a_batch([consent(seed + n) for n in range(300)]), layout.SourceState(name="a"))
            with writing(builder) as txn:
                found = Recorded(txn.txn, txn.databases)
                parts = [
                    found.in_context(context, first, end, shards)
                    for context in list(found.contexts())
                    for first, end in ((0, cut), (cut, shards))
                ]
                where = [pages.shards_of(part.places, shards) for part in parts]
                txn.txn.abort()

        lower, upper = np.concatenate(where[0::2]), np.concatenate(where[1::2])
        assert lower.size + upper.size == 300
        assert (lower < cut).all()
        assert (upper >= cut).all()


DAMAGED: dict[str, tuple[bytes, Callable[[bytes], bool]]] = {
    "page": (layout.INDEX, lambda _: True),
    "note of changes": (layout.INDEX_CHANGES, lambda _: True),
    "state": (layout.META, lambda key: key == layout.META_INDEX),
}


class TestDamage:
    """A flipped bit in any value of the index is found and mended."""

    @pytest.mark.parametrize("kind", DAMAGED)
    @settings(max_examples=often(40), deadline=None)
    @given(data=st.data())
    def test_flipped_bit(self, kind: str, data: st.DataObject) -> None:
        """`verify` names the fault and what mends it; after `rebuild_index` there is none."""
        database, chosen = DAMAGED[kind]
        with TemporaryDirectory() as folder, StoreBuilder(Path(folder) / "store") as builder:
            builder.writer.apply(a_batch([consent(n) for n in range(200)]), layout.SourceState(name="a"))
            environment = builder.writer.environment
            with builder.store.snapshot() as snapshot:
                stored = [(key, value) for key, value in snapshot.items(database) if chosen(key)]
            key, value = stored[data.draw(st.integers(0, len(stored) - 1))]
            at = data.draw(st.integers(0, len(value) * 8 - 1))
            flipped = bytes(byte ^ (1 << at % 8 if place == at // 8 else 0) for place, byte in enumerate(value))
            with environment.lmdb.begin(write=True) as txn:
                txn.put(key, flipped, db=environment.databases[database])

            with builder.store.snapshot() as snapshot:
                in_use = snapshot.index_state() if kind != "state" else None
            matters = kind != "page" or in_use is None or layout.decode_shard(key)[0] >= in_use.generation
            faults = verify(builder.store).faults
            builder.writer.rebuild_index()

            assert bool(faults) == matters
            assert all("rebuild-index" in fault for fault in faults)
            assert verify(builder.store).faults == []

    @pytest.mark.parametrize("kernel", Kernel)
    def test_wrong_entry(self, tmp_path: Path, kernel: Kernel) -> None:
        """An intact page that says something else than the records is found."""
        with StoreBuilder(tmp_path / "store") as builder:
            builder.writer.apply(a_batch([consent(n) for n in range(50)]), layout.SourceState(name="a"))
            for changes, states, fault in (
                ([consent(7)], [Status.RET], "1 entries of the index are not what the records say"),
                ([consent(99)], [Status.ONAY], "the index has 51 consents where the records have 50"),
            ):
                with writing(builder) as txn:
                    found = Index(txn.txn, txn.databases, kernel)
                    found.apply(entries_of(a_batch(changes).consents, np.array(states, np.uint8)), added=0)
                    found.save()

                assert any(fault in each for each in verify(builder.store, kernel=kernel).faults)
                builder.writer.rebuild_index()
                assert verify(builder.store, kernel=kernel).faults == []

    def test_damaged_state(self, tmp_path: Path) -> None:
        """While the state is damaged nothing is loaded, and the error says what to do."""
        with StoreBuilder(tmp_path / "store") as builder:
            environment = builder.writer.environment
            with environment.lmdb.begin(write=True) as txn:
                txn.put(layout.META_INDEX, b"\xff" * 44, db=environment.databases[layout.META])

            with pytest.raises(StoreCorruptError, match="rebuild-index"):
                builder.writer.apply(a_batch([consent(1)]), layout.SourceState(name="a"))
            with builder.store.snapshot() as snapshot:
                assert list(snapshot.items(layout.RECORDS)) == []
            builder.writer.rebuild_index()
            builder.writer.apply(a_batch([consent(1)]), layout.SourceState(name="a"))

            assert verify(builder.store).faults == []

    def test_damaged_record(self, tmp_path: Path) -> None:
        """Built from a damaged record, the index has an unknown status, which denies."""
        with StoreBuilder(tmp_path / "store") as builder:
            builder.brand().consent(tag=tag_of_number(1)).commit()
            environment = builder.writer.environment
            key = layout.encode_key(1, Channel.MESAJ, RecipientType.BIREYSEL, tag_of_number(1))
            with environment.lmdb.begin(write=True) as txn:
                txn.put(key, bytes(55), db=environment.databases[layout.RECORDS])

            builder.writer.rebuild_index()
            found = View(environment, None)
            tags = np.frombuffer(tag_of_number(1), np.uint8).reshape(1, 16)
            states = found.states((1, Channel.MESAJ, RecipientType.BIREYSEL), tags, Kernel.NUMPY).tolist()
            found.close()

        assert states == [Status.UNKNOWN]


class TestWriter:
    """What a writer does about the index when it opens a store or meets a context."""

    def test_equal_numbers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A context whose numbers are those of another is refused, also when the writer was opened since."""
        with StoreBuilder(tmp_path / "store") as builder:
            builder.writer.apply(a_batch([consent(0)]), layout.SourceState(name="a"))
        monkeypatch.setattr(pages, "salts", lambda *_: (1, 2))

        with StoreBuilder(tmp_path / "store") as builder:
            with pytest.raises(StoreError, match="told apart"):
                builder.writer.apply(a_batch([consent(1)]), layout.SourceState(name="a"))
            builder.writer.apply(a_batch([consent(3)]), layout.SourceState(name="a"))

            with builder.store.snapshot() as snapshot:
                assert len(list(snapshot.items(layout.RECORDS))) == 2

    def test_format_1(self, tmp_path: Path) -> None:
        """A store without an index is answered from its records; a writer that opens it adds the index."""
        with StoreBuilder(tmp_path / "store") as builder:
            builder.brand().consent(recipient="+905321000001").consent(recipient="+905321000002", status=Status.RET)
            builder.commit()
            environment = builder.writer.environment
            with environment.lmdb.begin(write=True) as txn:
                txn.drop(environment.databases[layout.INDEX], delete=False)
                txn.drop(environment.databases[layout.INDEX_CHANGES], delete=False)
                txn.delete(layout.META_INDEX, db=environment.databases[layout.META])
                txn.put(layout.META_FORMAT, layout.encode_number(1), db=environment.databases[layout.META])
            context = Context(brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)
            recipients = ["+905321000001", "+905321000002", "+905321000003"]
            engine = builder.engine()
            without = engine.check_column(context, addresses=recipients).reasons.tolist()
            stats, faults = engine.index_stats(), verify(builder.store).faults
            engine.close()

        with StoreBuilder(tmp_path / "store") as builder:
            engine = builder.engine()
            assert engine.check_column(context, addresses=recipients).reasons.tolist() == without
            assert (engine.index_stats().pages_not_taken, engine.index_stats().recipients_from_records) == (0, 0)
            assert verify(builder.store).faults == []
            engine.close()
        assert without == [Reason.CONSENTED, Reason.REFUSED, Reason.NO_CONSENT]
        assert (stats.pages, stats.recipients_from_records) == (0, 3)
        assert faults == ["there is no decision index, or one of an older version: run 'iyscheck-loader rebuild-index'"]

    def test_overfull(self, tmp_path: Path) -> None:
        """Consents that crowd into one page beyond its room are answered from the records."""
        salt, _ = pages.salts(1, Channel.MESAJ, RecipientType.BIREYSEL)
        first = ((5 - salt) % 2**64).to_bytes(8)
        changes = [
            a_change(tag=first + number.to_bytes(8, "little"), status=Status.RET if number % 5 else Status.ONAY)
            for number in range(1, 700)
        ]
        with StoreBuilder(tmp_path / "store") as builder:
            builder.brand().writer.apply(a_batch(changes, brands=[a_brand()]), layout.SourceState(name="a"))
            tags = np.frombuffer(b"".join(change.tag for change in changes), np.uint8).reshape(-1, 16)
            found = View(builder.writer.environment, None)
            states = found.states((1, Channel.MESAJ, RecipientType.BIREYSEL), tags, Kernel.NUMPY)
            answered = found.from_records
            found.close()

            assert (states & 3).tolist() == [change.status for change in changes]
            assert answered == len(changes)
            assert verify(builder.store).faults == []


def asleep() -> bool:
    """Wait until the only view is let go: its timer, which would go on renewing it for a while, ends with that."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if all(thread.name != "iyscheck-view" for thread in threading.enumerate()):
            return True
        time.sleep(0.01)
    return False


def all_go_on(answers: list[int], readers: list[threading.Thread]) -> bool:
    """Wait until each reader has answered for all three contexts from a view that it has taken since."""
    needed, deadline = [count + 6 for count in answers], time.monotonic() + 60
    while any(count < least for count, least in zip(answers, needed, strict=True)):
        if time.monotonic() > deadline or not all(reader.is_alive() for reader in readers):
            return False
        time.sleep(0.001)
    return True


class TestViews:
    """Column views of a store that changes."""

    def test_idle(self, tmp_path: Path) -> None:
        """A view that nobody asks is let go with its thread, and is there again when somebody does."""
        with StoreBuilder(tmp_path / "store") as builder:
            builder.writer.apply(a_batch([consent(0)]), layout.SourceState(name="a"))
            views = Views(builder.writer.environment)
            with views.view():
                pass
            let_go = asleep()
            builder.writer.apply(a_batch([consent(3)]), layout.SourceState(name="a"))
            with views.view() as again:
                states = read_states(again, 0, range(4), Kernel.NUMPY)
            views.close()

        assert let_go
        assert states == [1, 1]

    def test_held(self, tmp_path: Path) -> None:
        """A view that is in use shows its own moment, however often the store changes meanwhile."""
        with StoreBuilder(tmp_path / "store") as builder:
            builder.writer.apply(a_batch([consent(n) for n in range(0, 300, 3)]), layout.SourceState(name="a"))
            views = Views(builder.writer.environment)
            with views.view() as held:
                for turn in range(2, 80):
                    changes = [consent(n, Status.RET, turn) for n in range(0, 300, 3)]
                    builder.writer.apply(a_batch(changes), layout.SourceState(name="a"))
                    with views.view() as newer:
                        assert set(read_states(newer, 0, range(300), Kernel.NUMPY)) == {int(Status.RET)}
                assert set(read_states(held, 0, range(300), Kernel.NUMPY)) == {int(Status.ONAY)}
            views.close()

    def test_far_behind(self, tmp_path: Path) -> None:
        """A reader that slept through more revisions than are kept takes all pages again."""
        with StoreBuilder(tmp_path / "store") as builder:
            everybody = range(0, 300, 3)
            builder.writer.apply(a_batch([consent(n) for n in everybody]), layout.SourceState(name="a"))
            views = Views(builder.writer.environment)
            with views.view():
                pass
            assert asleep()
            # What the first of these commits changed is forgotten after the last.
            refused = [consent(n, Status.RET, 2) for n in everybody]
            builder.writer.apply(a_batch(refused), layout.SourceState(name="a"))
            for turn in range(3, REVISIONS_KEPT + 10):
                builder.writer.apply(a_batch([consent(0, Status.RET, turn)]), layout.SourceState(name="a"))
            with views.view() as found, builder.store.snapshot() as snapshot:
                states = read_states(found, 0, range(300), Kernel.NUMPY)
                kept = len(list(snapshot.items(layout.INDEX_CHANGES)))
            views.close()

        assert states == [Status.RET] * 100
        assert kept == REVISIONS_KEPT

    def test_somewhat_behind(self, tmp_path: Path) -> None:
        """A reader that slept through some commits takes the pages that each of them changed, not of the last alone."""
        with StoreBuilder(tmp_path / "store") as builder:
            everybody = range(0, 300, 3)
            builder.writer.apply(a_batch([consent(n) for n in everybody]), layout.SourceState(name="a"))
            views = Views(builder.writer.environment)
            with views.view():
                pass
            assert asleep()
            for first in range(0, 300, 30):
                refused = [consent(n, Status.RET, 2) for n in range(first, first + 30, 3)]
                builder.writer.apply(a_batch(refused), layout.SourceState(name="a"))
            with views.view() as found:
                states = read_states(found, 0, range(300), Kernel.NUMPY)
            views.close()

        assert states == [Status.RET] * 100

    @pytest.mark.parametrize("kernel", Kernel)
    def test_readers_never_stop(self, tmp_path: Path, kernel: Kernel) -> None:
        """While generations come and go every reader gets every answer, and the right one."""
        fixed, wrong, asked = range(600), [], [0, 0, 0]
        with small_steps(), StoreBuilder(tmp_path / "store") as builder:
            builder.writer.apply(a_batch([consent(n) for n in fixed]), layout.SourceState(name="a"))
            views, over = Views(builder.writer.environment), threading.Event()

            def ask(reader: int) -> None:
                while not over.is_set():
                    with views.view() as found:
                        for context in range(3):
                            states = read_states(found, context, range(900), kernel)
                            good = set(states[:200]) == {1} and set(states[200:]) == {0} and len(states) == 300
                            asked[reader] += 1
                            if not good or found.from_records:
                                wrong.append(states)

            readers = [threading.Thread(target=ask, args=(each,)) for each in range(len(asked))]
            for reader in readers:
                reader.start()
            stopped = False
            for turn in range(60):
                changes = [consent(n) for n in range(1_000 + turn * 50, 1_050 + turn * 50)]
                builder.writer.apply(a_batch(changes), layout.SourceState(name="a"))
                if turn % 5 == 4:  # after a burst of commits each reader gets its turn, however busy the machine is
                    stopped = stopped or not all_go_on(asked, readers)
            over.set()
            for reader in readers:
                reader.join()
            with builder.store.snapshot() as snapshot:
                found = snapshot.index_state()
            views.close()

        assert not stopped
        assert not wrong
        assert found is not None
        assert found.generation > 3


CHILD = """
import sys
from tests.store.test_index import consent
from iyscheck.store import layout
from iyscheck.store.index import index
from iyscheck.store.writer import Writer
from tests.builders import ADDRESS_KEY, STORE_KEY, a_batch
index.AT_ONCE, index.SLICE_PER_ADDED, index.SLICE_LEAST, index.LEAST_SHARDS, index.DROPPED_PER_COMMIT = 0, 1, 1, 4, 2
with Writer.open(sys.argv[1], address_key_id=ADDRESS_KEY.key_id, store_key_id=STORE_KEY.key_id) as writer:
    print("open", flush=True)
    first = writer.position.sequence
    for turn in range(int(sys.argv[2])):
        at = first + turn * 40
        writer.apply(a_batch([consent(number) for number in range(at, at + 40)]), layout.SourceState(name="a"))
        if turn % 23 == 22:
            writer.rebuild_index()
"""


@pytest.mark.crash
@pytest.mark.slow
def test_kills(tmp_path: Path) -> None:
    """A writer that is killed while it grows, drops and rebuilds leaves an index that says what the records say."""
    path, dice, kills = tmp_path / "store", thrown(), 0
    phases: set[tuple[bool, bool]] = set()
    root = Path(__file__).parents[2]
    while kills < often(15, least=6) or (len(phases) == 1 and kills < 60):
        kills += 1
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path), "2000"], cwd=root, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        time.sleep(dice.uniform(0, 0.4))
        child.kill()
        child.communicate()
        with Store.open(path, store_key_id=STORE_KEY.key_id) as store:
            assert verify(store).faults == []
            with store.snapshot() as snapshot:
                found = snapshot.index_state()
                assert found is not None
                garbage = sum(layout.decode_shard(key)[0] < found.generation for key, _ in snapshot.items(layout.INDEX))
            phases.add((found.building > 0, garbage > 0))

    assert len(phases) > 1


"""Whether killed while building, and while deleting: the moments differ from run to run. Of few kills all may agree."""
