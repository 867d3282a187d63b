"""A replica becomes the primary: nothing of the log is lost, and there is one primary at a time."""

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from iyscheck.errors import LogForkError, LogOrderError, ServiceUnavailableError, StoreRoleError
from iyscheck.store import layout
from iyscheck.store.copying import copy_to
from iyscheck.store.layout import PRIMARY
from iyscheck.store.log_writer import LogWriter
from iyscheck.store.snapshot import Store
from iyscheck.store.verification import verify
from loader.replication.codec import header_of
from loader.replication.follow import State
from loader.replication.promote import How, Promoted, Promotion
from tests.builders import StoreBuilder
from tests.loader.replication.replicas import OPENER, SEALER, Primary, newer
from tests.loader.replication.test_follow import Site
from tests.logs import KEY_IDS, assert_same


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A primary with three batches that are published, and a replica that has them."""
    site = Site(tmp_path)
    site.changed(2)
    site.steps()
    site.end()
    yield site
    site.end()
    site.primary.close()


def promoted(site: Site, how: How = How.CONTINUE, *, path: Path | None = None) -> Promoted:
    """Promote a store."""
    with LogWriter.reopen(path or site.path) as writer:
        promotion = Promotion(
            writer, site.log, OPENER, SEALER, site.told, settings="/etc/cluster.toml", pause=lambda _: None
        )
        return promotion.promote(how)


def refused(site: Site, error: type[Exception], match: str, **given: object) -> None:
    """Have it refused; nothing is in the log then, and the store is no primary."""
    before = list(site.log.messages)
    with pytest.raises(error, match=match):
        promoted(site, **given)  # type: ignore[arg-type] # as `promoted` takes it
    assert site.log.messages == before


def test_drains(site: Site) -> None:
    """What the log has is taken first; then its term is there, and the store says what its loader needs."""
    site.changed(3)
    done = promoted(site)
    assert (done.drained, done.state.role, done.state.term, done.state.batch) == (3, PRIMARY, 2, 7)
    assert done.state.settings == "/etc/cluster.toml"
    assert header_of(site.log.messages[-1] or b"").term == 2
    assert int.from_bytes((site.path / "acknowledged").read_bytes()) == 7
    with Store.open(site.path) as store:
        assert verify(store).faults == []


def test_followed(site: Site, tmp_path: Path) -> None:
    """Other replicas follow it without a copy."""
    site.changed()
    promoted(site)
    first = site.path
    site.path = tmp_path / "other"
    assert site.steps() is State.FOLLOWING
    with site.reader() as replica, Store.open(first) as primary:
        assert_same(primary, replica)


def test_moved(site: Site) -> None:
    """Where the old primary appends at that moment, that is taken, too, and the term comes behind it."""
    append = site.log.append
    late = [site.changed]

    def appended(expected: int, message: bytes) -> int:
        if late:
            late.pop()()
        return append(expected, message)

    with patch.object(site.log, "append", side_effect=appended):
        done = promoted(site)
    assert (done.drained, done.state.batch) == (1, 5)


@pytest.mark.parametrize("fault", ["drops", "mumbles"])
def test_unanswered(site: Site, fault: str) -> None:
    """Where the log does not say whether it has the term, it is looked, and it is there once."""
    setattr(site.log, fault, 1)
    done = promoted(site)
    assert done.state.batch == 4
    assert [header_of(message or b"").batch for message in site.log.messages] == [1, 2, 3, 4]


def test_ended_between(site: Site) -> None:
    """Killed when its term was in the log and not in the store, it goes on with the next term."""
    with patch.object(LogWriter, "take_over", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        promoted(site)
    done = promoted(site)
    assert (done.drained, done.state.term, done.state.batch) == (1, 3, 5)


@pytest.mark.parametrize("how", [How.CONTINUE, How.REBASE])
@pytest.mark.parametrize("times", [1, 100])
def test_newer(site: Site, how: How, times: int) -> None:
    """Behind what only a newer version reads no term begins: it may be changes, or another primary. A new log may."""
    site.changed(times)
    site.log.make_newer(4)
    refused(site, LogOrderError, "Upgrade iyscheck on this machine", how=how)
    assert promoted(site, How.NEW_LOG).state.role == PRIMARY


def test_newer_primary(site: Site) -> None:
    """An old primary tells nothing behind what only a newer version reads."""
    site.log.append(site.log.ends().last, newer(site.log.messages[-1] or b""))
    site.change(2)
    site.primary.close()
    refused(site, LogOrderError, "Upgrade iyscheck on this machine", path=site.folder / "primary")


def test_hole(site: Site) -> None:
    """A store that cannot come to the end of the log is not promoted, but as it is if a person says so."""
    site.changed(3)
    site.log.punch(5)
    refused(site, LogOrderError, "cannot come to the end")
    done = promoted(site, How.REBASE)
    assert (done.state.batch, done.state.term) == (7, 2)
    with Store.open(site.path) as store, store.snapshot() as snapshot:
        assert (
            snapshot.position.sequence == site.primary.position.sequence + 1
        )  # not the same store, not the same place


def test_rebased(site: Site, tmp_path: Path) -> None:
    """Others then take a copy of it."""
    site.changed()
    promoted(site, How.REBASE)
    first = site.path
    site.path = tmp_path / "other"
    assert site.steps() is State.GAP
    with Store.open(first) as primary:
        site.copies.make(primary)
        site.start()
        assert site.steps() is State.FOLLOWING
        with site.reader() as replica:
            assert_same(primary, replica)


def test_new_log(site: Site) -> None:
    """A new log begins with term and batch 1, and other positions."""
    done = promoted(site, How.NEW_LOG)
    assert (done.state.batch, done.state.term) == (1, 1)
    with Store.open(site.path) as store, store.snapshot() as snapshot:
        assert snapshot.position.log_id != site.primary.position.log_id


def test_ahead(site: Site) -> None:
    """A store that is ahead of what is left of its log goes on only as it is."""
    site.log.lose_end(1)
    refused(site, LogOrderError, "ahead of its log")
    assert promoted(site, How.REBASE).state.batch == 4


def test_forked(site: Site, tmp_path: Path) -> None:
    """A store that went another way is not promoted."""
    other = tmp_path / "split"
    other.mkdir()
    copy_to(site.store, other)
    with Primary.open(other, **KEY_IDS, sealer=SEALER) as second:
        second.heartbeat(0)
    site.changed()
    refused(site, LogForkError, "another batch 4", path=other)


def test_restored(site: Site, tmp_path: Path) -> None:
    """A primary that was restored from a backup takes what its log has more, and goes on."""
    backup = tmp_path / "backup"
    backup.mkdir()
    copy_to(site.store, backup)
    site.changed(2)
    done = promoted(site, path=backup)
    assert (done.drained, done.state.batch, done.state.term) == (2, 6, 2)


def test_stranger(site: Site, tmp_path: Path) -> None:
    """A primary that a stranger's message has stopped goes on behind it, and whoever follows passes it over."""
    site.log.append(site.log.ends().last, b"IYSB but nobody signed it" * 20)
    site.change(2)
    site.primary.close()
    first = site.folder / "primary"
    done = promoted(site, path=first)
    assert (done.drained, done.state.batch, done.state.term) == (0, 6, 2)
    site.path = tmp_path / "other"
    assert site.steps() is State.FOLLOWING
    with Store.open(first) as primary, site.reader() as replica:
        assert_same(primary, replica)


def test_restored_and_loaded(site: Site, tmp_path: Path) -> None:
    """A primary that was restored and went on is told so, and not to publish what it has."""
    backup = tmp_path / "backup"
    backup.mkdir()
    copy_to(site.store, backup)
    site.changed(1)
    with Primary.open(backup, **KEY_IDS, sealer=SEALER) as second:
        for _ in range(3):
            second.heartbeat(0)
    refused(site, LogForkError, "another batch 4 than this primary made", path=backup)
    done = promoted(site, How.REBASE, path=backup)
    assert (done.state.term, done.state.batch) == (2, 7)
    with Store.open(backup) as store, store.snapshot() as snapshot:
        assert snapshot.position.sequence == site.primary.position.sequence + 1


def test_rebased_behind_another_term(site: Site, tmp_path: Path) -> None:
    """An old primary that went on is never of the term of the one that took its place, nor at its positions."""
    old = tmp_path / "old"
    old.mkdir()
    copy_to(site.store, old)
    with Primary.open(old, **KEY_IDS, sealer=SEALER) as second:
        for _ in range(6):
            second.heartbeat(0)
    assert promoted(site).state.term == 2
    before = header_of(site.log.messages[-1] or b"").last
    done = promoted(site, How.REBASE, path=old)
    assert (done.state.term, done.state.batch) == (3, 10)
    with Store.open(old) as store, store.snapshot() as snapshot:
        assert snapshot.position.sequence > before


def test_not_published(site: Site) -> None:
    """A primary whose log has not all that it told, and that has not all of it any more, cannot go on with it."""
    site.change(2)
    with site.primary.environment.lmdb.begin(write=True) as txn:
        txn.drop(site.primary.environment.databases[layout.OUTBOX], delete=False)
    site.primary.close()
    refused(site, LogOrderError, "has not all that it told", path=site.folder / "primary")


def test_in_no_log(site: Site, tmp_path: Path) -> None:
    """A store of no log begins one with create-log."""
    with StoreBuilder(tmp_path / "own") as builder:
        builder.consent().commit()
    refused(site, StoreRoleError, "in no log", path=tmp_path / "own")


def test_away(site: Site) -> None:
    """Where the log does not answer a sentence says so."""
    site.log.is_away = True
    refused(site, ServiceUnavailableError, "Look at NATS")
