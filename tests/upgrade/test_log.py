"""A log whose primary, replicas and makers are not of one version: who goes on, who stops, and what he says."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from iyscheck.client.health import FRESH
from iyscheck.store import layout
from tests.loader.replication.servers import one_server
from tests.loader.replication.sites import until
from tests.upgrade.logs import Log, ended
from tests.upgrade.machines import Machine
from tests.upgrade.versions import Version

MESSAGES = {
    "loader/replication/codec.py": {
        "VERSION: Final = 1\n": "VERSION: Final = 2\n",
        "message[len(MAGIC)] != VERSION": "message[len(MAGIC)] not in {1, VERSION}",
        "if version != VERSION": "if version not in {1, VERSION}",
        "PART_MAGIC, VERSION, kind, 0, 0, key_id": "PART_MAGIC, version, kind, 0, 0, key_id",
    }
}
"""A version that makes messages which today's cannot read, and reads today's."""
STORES = {
    "iyscheck/store/layout/__init__.py": {
        f"FORMAT_VERSION: Final = {layout.FORMAT_VERSION}\n": f"FORMAT_VERSION: Final = {layout.FORMAT_VERSION + 1}\n"
    }
}
"""A version whose stores today's does not open, and which opens today's."""


@pytest.fixture(scope="module")
def newer_messages(tmp_path_factory: pytest.TempPathFactory) -> Version:
    """A version whose messages are newer."""
    return Version.changed(tmp_path_factory.mktemp("newer-messages"), MESSAGES)


@pytest.fixture(scope="module")
def newer_stores(tmp_path_factory: pytest.TempPathFactory) -> Version:
    """A version whose stores are newer."""
    return Version.changed(tmp_path_factory.mktemp("newer-stores"), STORES)


@pytest.fixture
def log(machine: Machine, today: Version, tmp_path: Path) -> Iterator[Log]:
    """A log whose primary is yesterday's store."""
    with one_server(tmp_path / "nats") as nats:
        log = Log.make(machine, nats.url)
        said = log.begin(today)
        assert f"was upgraded from format 3 to {layout.FORMAT_VERSION}" in said
        yield log
        machine.stop()


@pytest.mark.thorough
def test_yesterdays_store_becomes_a_primary(log: Log, yesterday: Version, today: Version) -> None:
    """`create-log` takes it as it is; what replicas say of it is what it said, also to yesterday's clients."""
    log.publish(today)
    assert log.run(today, "snapshot").returncode == 0
    log.follow(today)
    log.load(today)
    log.wait_level()
    with log.machine.serving(today, store=log.replica) as server:
        log.machine.assert_right(log.machine.told(yesterday, server.target))


@pytest.mark.thorough
def test_newer_messages(log: Log, today: Version, newer_messages: Version) -> None:
    """A replica stops at them, says what to do, answers from what it has, and is not fresh; upgraded, it catches up.

    It says so as well when it is started again far behind them.
    """
    machine = log.machine
    publisher = log.publish(today)
    assert log.run(today, "snapshot").returncode == 0
    replica = log.follow(today)
    log.load(today)
    log.wait_level()
    known = machine.changes.model.rows
    assert ended(publisher) == 0

    with machine.serving(today, store=log.replica) as server:
        machine.assert_right(machine.told(today, server.target))
        before = log.state()
        log.load(newer_messages)
        publisher = log.publish(newer_messages)
        until(lambda: log.told_of("replicate", "replica_rejecting", "newer iyscheck", "Upgrade this replica"))
        until(lambda: server.metric("consent_serving", service=FRESH) == 0, "a replica that is not fresh")
        machine.assert_right(machine.told(today, server.target), known)

        log.load(newer_messages, 2, "--commit-rows=10")
        assert ended(replica) == 0
        log.forget("replicate")
        replica = log.follow(today)
        until(lambda: log.told_of("replicate", "newer iyscheck", "Upgrade this replica"), "the reason, told again")
        assert log.state() == before
        assert ended(replica) == 0
        log.follow(newer_messages)
        log.wait_level()
        machine.assert_right(machine.told(today, server.target))


@pytest.mark.thorough
def test_replica_that_begins_below_newer_messages(log: Log, today: Version, newer_messages: Version) -> None:
    """One that is not upgraded yet boots, and then says what to do."""
    log.publish(newer_messages)
    assert log.run(today, "snapshot").returncode == 0
    log.load(newer_messages, 2, "--commit-rows=10")
    replica = log.follow(today)
    until(lambda: log.told_of("replicate", "newer iyscheck", "Upgrade this replica"), "the reason")
    assert ended(replica) == 0


@pytest.mark.thorough
def test_older_publisher(log: Log, today: Version, newer_messages: Version) -> None:
    """A publisher that is older than its loader says what to do, and what it left is published by the next one."""
    old = log.publish(today)
    assert log.run(today, "snapshot").returncode == 0
    log.follow(newer_messages)
    log.wait_level()
    log.load(newer_messages)
    assert old.wait(60) == 2
    assert "Upgrade" in log.machine.said_at("publish").read_text()
    log.publish(newer_messages)
    log.load(newer_messages)
    log.wait_level()


@pytest.mark.thorough
def test_snapshots(log: Log, today: Version, newer_stores: Version) -> None:
    """One of a newer format is refused by name, and the older one beside it is taken; the newer version takes both."""
    log.publish(today)
    assert log.run(today, "snapshot").returncode == 0
    log.load(today)
    log.follow(newer_stores)
    log.wait_level(newer_stores)
    older = set((log.machine.folder / "snapshots").glob("snapshot-*.json"))

    made = log.machine.loader(newer_stores, "snapshot", f"--store={log.replica}", f"--cluster={log.cluster}")
    assert made.returncode == 0, made.stderr
    (newer,) = set((log.machine.folder / "snapshots").glob("snapshot-*.json")) - older
    second = log.machine.folder / "second" / "store"
    follower = log.machine.start(today, "replicate", f"--store={second}", f"--cluster={log.cluster}")
    until((second / "data.mdb").exists, "a replica that boots")
    with log.machine.serving(today, store=second) as server:
        until(lambda: log.stands(today, second) == log.stands(today, log.machine.store), "a replica that is level")
        log.machine.assert_right(log.machine.told(today, server.target))
    assert ended(follower) == 0

    for manifest in older:
        manifest.unlink()
    third = log.machine.folder / "third" / "store"
    log.forget("replicate")
    log.machine.start(today, "replicate", f"--store={third}", f"--cluster={log.cluster}")
    until(lambda: log.told_of("replicate", newer.name, "a newer iyscheck made it"), "its name")
    assert not (third / "data.mdb").exists()


@pytest.mark.thorough
def test_server_older_than_its_replica(log: Log, today: Version, newer_stores: Version) -> None:
    """A server goes on when what follows the log upgrades the store below it; no other one of its version starts."""
    log.publish(today)
    assert log.run(today, "snapshot").returncode == 0
    replica = log.follow(today)
    log.wait_level()
    with ExitStack() as parts:
        server = parts.enter_context(log.machine.serving(today, store=log.replica))
        log.machine.assert_right(log.machine.told(today, server.target))
        assert ended(replica) == 0
        log.follow(newer_stores)
        log.load(today)
        log.wait_level(newer_stores)
        log.machine.assert_right(log.machine.told(today, server.target))
        second = parts.enter_context(log.machine.serving(today, store=log.replica))
        until(lambda: second.process.poll() is not None, "a server that ends")
        assert f"has format {layout.FORMAT_VERSION + 1}" in second.log.read_text()
