"""NATS fails: servers are killed or stand still, disks are older, damaged or empty, and the log is gone."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from loader.replication.connection import NatsConnection
from loader.replication.jetstream import asked_for
from tests.dice import often
from tests.loader.replication.servers import NatsCluster, NatsServer, one_server, three_servers
from tests.replication.town import Town, town, until

ROUNDS = often(12, least=2)
STREAM = "IYS"


@dataclass(frozen=True, kw_only=True)
class Three:
    """A town with three servers of NATS."""

    town: Town
    cluster: NatsCluster

    def chosen(self, *, leads: bool) -> NatsServer:
        """Return the leader, or another one that dice choose."""
        leader = self.cluster.leader(STREAM)
        return leader if leads else self.town.dice.choice([each for each in self.cluster.servers if each is not leader])


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    """A town with three servers of NATS that runs."""
    folder = tmp_path_factory.mktemp("town")
    with three_servers(folder / "nats") as cluster, town(folder, cluster.settings()) as made:
        made.begin(servers=3)
        yield Three(town=made, cluster=cluster)


@pytest.mark.parametrize("leads", [True, False], ids=["leader", "other"])
def test_killed(three: Three, leads: bool) -> None:  # noqa: FBT001 - pytest's
    """One of three is killed: the others go on."""
    episode = three.town.fault(f"kill -9 of one NATS of three, {'the leader' if leads else 'not the leader'}")
    for _ in range(ROUNDS):
        time.sleep(three.town.dice.uniform(0, 1))
        server = three.chosen(leads=leads)
        server.kill()
        episode.well()  # without it
        server.start()
    episode.noted("well again without it")


def test_paused(three: Three) -> None:
    """The leader stands still: another one leads."""
    episode = three.town.fault("SIGSTOP of the leading NATS of three, until well without it")
    for _ in range(2):
        with three.chosen(leads=True).paused():
            episode.well()
    episode.noted("well again without it")


def test_two_away(three: Three) -> None:
    """Two of three are away: nothing is published, and replicas answer as before until nobody is fresh, and after."""
    made = three.town
    episode = made.fault("2 of 3 NATS killed until nobody is fresh")
    leader = three.chosen(leads=True)
    gone = [leader, three.chosen(leads=False)]
    for server in gone:
        server.kill()
    until(lambda: not any(each.is_fresh for each in made.servers), "nobody is fresh")
    for server in gone:
        server.start(wait=False)
    for server in gone:
        server.wait()
    episode.well()
    episode.noted()


def test_all_killed(three: Three) -> None:
    """All are killed at once, and come again."""
    episode = three.town.fault("kill -9 of all three NATS at once")
    for _ in range(ROUNDS):
        time.sleep(three.town.dice.uniform(0, 1))
        for server in three.cluster.servers:
            server.kill()
        for server in three.cluster.servers:
            server.start(wait=False)
        for server in three.cluster.servers:
            server.wait()
        episode.well()
    episode.noted()


def test_one_disk_empty(three: Three) -> None:
    """One of three comes again with an empty disk: it gets everything from the others."""
    episode = three.town.fault("1 of 3 NATS loses its disk")
    server = three.chosen(leads=False)
    server.kill()
    shutil.rmtree(server.data)
    server.start()
    episode.well()
    episode.noted()


def test_same_after_three(three: Three) -> None:
    """After all that, all stores hold the same."""
    three.town.assert_same("r1", "r2")


@dataclass(frozen=True, kw_only=True)
class One:
    """A town with one server of NATS."""

    town: Town
    nats: NatsServer

    def delete(self) -> None:
        """Delete the stream."""
        connection = NatsConnection(self.nats.settings())
        try:
            asked_for(connection, f"$JS.API.STREAM.DELETE.{STREAM}", timeout_s=10)
        finally:
            connection.close()


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[One]:
    """A town with one server of NATS that runs."""
    folder = tmp_path_factory.mktemp("town")
    with one_server(folder / "nats") as nats, town(folder, nats.settings()) as made:
        made.begin()
        yield One(town=made, nats=nats)


def test_only_one_killed(one: One) -> None:
    """The only one is killed and comes again."""
    episode = one.town.fault("kill -9 of the only NATS")
    for _ in range(ROUNDS):
        time.sleep(one.town.dice.uniform(0, 1))
        one.nats.kill()
        one.nats.start()
        episode.well()
    episode.noted()


def test_only_one_paused(one: One) -> None:
    """The only one stands still."""
    episode = one.town.fault("SIGSTOP of the only NATS, 8 s")
    with one.nats.paused():
        time.sleep(8)
    episode.well()
    episode.noted()


def test_rolled_back(one: One) -> None:
    """It comes again with an older disk: what it acknowledged since is gone, and is appended again."""
    episode = one.town.fault("NATS's disk rolled back some seconds")
    for _ in range(2):
        with one.nats.rolled_back():
            until_more(one)
        episode.well()
    episode.noted("what was acknowledged since was appended again")


def until_more(one: One, batches: int = 10) -> None:
    """Wait until more was published."""
    state = one.town.state("r1")
    assert state is not None
    until(
        lambda: (now := one.town.state("r1")) is not None and now.batch >= state.batch + batches, "more was published"
    )


@pytest.mark.parametrize("where", ["newest", "ahead", "old"])
def test_bit_flipped(one: One, where: str) -> None:
    """A bit on NATS's disk is another one: in the newest block, or in an older one, of what r2 has or has not yet."""
    said = {
        "newest": "the newest .blk",
        "ahead": "an old .blk, of what a replica has not yet",
        "old": "an old .blk, of what all have",
    }
    made = one.town
    episode = made.fault(f"one bit flipped in {said[where]}")
    behind = made.processes["r2"]
    if where == "ahead":
        behind.kill()
    until_more(one)
    with made.log() as log:
        number = log.ends().last - 3
        message = log.get(number)
    assert message is not None
    if where != "newest":
        blocks = len(list(one.nats.data.rglob("*.blk")))
        while len(list(one.nats.data.rglob("*.blk"))) < blocks + 2:
            made.feed.crowd(4000)
            time.sleep(1)
    one.nats.kill()
    one.nats.flip_bit(of=message[120:180])
    one.nats.start()
    made.run("snapshot", f"--store={made.store('r1')}", f"--cluster={made.cluster('r1')}")
    if where == "ahead":
        behind.start()
    episode.well()
    episode.noted(state_note(made, "r2"))


def state_note(made: Town, name: str) -> str:
    """Say what a replica said of itself."""
    said = made.processes[name].printed
    counts = {word: said.count(f'"replica_{word}"') for word in ("gap", "rejecting", "booting", "fork", "untrusted")}
    return ", ".join(f"{name} {word} {count} times so far" for word, count in counts.items() if count)


def test_stream_deleted(one: One) -> None:
    """Somebody deletes the log: `create-log`, and everything goes on by itself; it is the same log."""
    episode = one.town.fault("stream deleted, create-log 5 s later")
    before = one.town.state()
    one.delete()
    publisher = one.town.processes["publisher"]
    until(lambda: "publisher_missing" in publisher.printed, "the publisher says that the log is missing")
    time.sleep(5)
    one.town.create_log("--replicas=1")
    episode.well()
    assert before is not None
    episode.noted("term and log_id stay; outbox published again")


def test_all_data_lost(one: One) -> None:
    """All data of NATS is lost: `create-log`, and log_id stays."""
    episode = one.town.fault("all data of NATS lost, create-log at once")
    one.nats.kill()
    shutil.rmtree(one.nats.data)
    one.nats.start()
    one.town.create_log("--replicas=1")
    episode.well()
    episode.noted("log_id stays")


def test_log_id_stayed(one: One) -> None:
    """Nobody who asked ever saw another log than the one that was begun."""
    assert {len(each.logs) for each in one.town.servers} == {1}
    one.town.assert_same("r1", "r2")
