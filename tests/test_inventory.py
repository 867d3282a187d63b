"""What a store holds beside the consents, as those read it who watch it."""

import shutil
from pathlib import Path

import pytest

from iyscheck.engine import inventory
from iyscheck.errors import StoreError
from iyscheck.store import layout
from iyscheck.store.layout import SourceState
from tests.builders import NOW, StoreBuilder, a_batch, a_brand


@pytest.fixture
def store(tmp_path: Path) -> StoreBuilder:
    """Three brands: one with a watermark, one without, one that is inactive."""
    store = StoreBuilder(tmp_path / "store")
    store.brand(1, watermark=NOW).brand(2, watermark=None).brand(3, watermark=NOW - 60, active=False).commit()
    return store


def test_holdings(store: StoreBuilder) -> None:
    """Brands, watermarks and sources are those of the store."""
    store.writer.apply(a_batch(), SourceState(name='a,"finished":true,b'))
    found = store.engine().holdings()

    assert found.complete_until.tolist() == [NOW, 0]
    assert found.inactive == 1
    assert found.watermarks == {1: NOW, 3: NOW - 60}
    assert (found.sources, found.unfinished, found.held) == (2, 1, 0)
    assert (found.withheld, found.rejected_rows) == (0, 0)
    assert found.feeds == ()


def test_rejects(store: StoreBuilder) -> None:
    """Rejected rows count while they hold a brand. Accepting them moves no position, and is seen all the same."""
    engine = store.engine()
    state = SourceState(name="bad", rejected=2, rejected_brands=(1,), watermarks=((1, NOW + 60),))
    store.writer.apply(a_batch(), state, finished=True)
    held = engine.holdings()
    store.writer.accept_rejects("bad")
    accepted = engine.holdings()

    assert (held.held, held.rejected_rows, held.withheld, held.sources, held.unfinished) == (1, 2, 1, 2, 0)
    assert (accepted.held, accepted.rejected_rows, accepted.withheld) == (0, 0, 0)
    assert accepted.position == held.position
    assert accepted.watermarks[1] == NOW + 60


def test_read_once(store: StoreBuilder) -> None:
    """Nothing is read again while nothing was committed."""
    engine = store.engine()
    first = engine.holdings()

    assert engine.holdings() is first
    store.writer.apply(a_batch(brands=[a_brand(4)]), SourceState(name="b"))
    assert engine.holdings() is not first
    assert len(engine.holdings().complete_until) == 3


def test_unfinished_sources(store: StoreBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many sources are not finished is counted now and then only, since there may be very many."""
    engine = store.engine()
    assert engine.holdings().unfinished == 0
    store.writer.apply(a_batch(rows=1), SourceState(name="b"))
    assert engine.holdings().unfinished == 0

    monkeypatch.setattr(inventory, "SOURCES_S", 0.0)
    other = store.engine()
    assert other.holdings().unfinished == 1
    store.writer.apply(a_batch(rows=1), SourceState(name="b"), finished=True)
    assert other.holdings().unfinished == 0


def test_held_and_unfinished(store: StoreBuilder) -> None:
    """A source that holds a brand and is not finished is counted once."""
    store.writer.apply(a_batch(), SourceState(name="bad", rejected=2, rejected_brands=(1,)))
    found = store.engine().holdings()

    assert (found.sources, found.held, found.unfinished) == (2, 1, 0)


@pytest.mark.parametrize("finished", [True, False])
def test_finished(finished: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Whether a source is finished can be told from its bytes, whatever its name is."""
    for name in ("a", ',"finished":true,', '\\","finished":true,"', "ş,\udcff", '"finished":false'):
        state = SourceState(name=name, finished=finished, rows=3)

        assert layout.is_finished(layout.encode_source(state)) is finished


def test_moved_away(store: StoreBuilder, tmp_path: Path) -> None:
    """What is no longer at its path is not told of."""
    store.close()
    from iyscheck.engine import Engine
    from tests.builders import STORE_KEY

    with Engine.open(tmp_path / "store", store_key=STORE_KEY) as engine:
        engine.holdings()
        shutil.move(tmp_path / "store", tmp_path / "elsewhere")
        engine._opened.look_again_s = 0.0  # else it takes half a second to be noticed

        with pytest.raises(StoreError):
            engine.holdings()
