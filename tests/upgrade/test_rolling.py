"""A rolling upgrade below a campaign: no answer is wrong, no call fails, no position goes back."""

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.cluster.changes import Changes
from bench.cluster.judge import Judge
from bench.cluster.machines import Machine, Site, wait_for
from bench.cluster.senders import Senders
from bench.soak.model import REASONS
from bench.soak.world import World
from iyscheck.change import Position
from iyscheck.client import Client
from tests.upgrade.versions import Version

CONSENTS = 5_000
ROWS_PER_S = 400
REPLICAS = 3
SEED = 5
STEADY_S = 2.0
"""For so long all must be fresh before the next one is restarted."""
SETTLE_S = 120.0
AT_THE_END = 4_000
QUESTIONS = 60
CAMPAIGN = Path(__file__).with_name("campaign.py")
NEWER = "0.1.1"


class Cluster:
    """A primary, three servers of NATS, a maker and replicas with servers, and a campaign over all of these servers."""

    def __init__(self, folder: Path) -> None:
        self.site = Site(folder, replicas=REPLICAS)
        self.world = World(SEED, CONSENTS)
        self.changes = Changes(self.site.feed, self.world, rows_per_s=ROWS_PER_S)
        self.judge = Judge(self.changes)
        self.senders = Senders(
            world=self.world,
            judge=self.judge,
            target=self.site.target,
            address_key=self.site.address_key,
            seed=SEED,
        )

    def begin(self) -> None:
        """Start all of it, and wait until it is fresh."""
        site = self.site
        for each in site.nats:
            each.begin()
        first = site.folder / "first.jsonl"
        self.changes.write_first(first)
        self.judge.log_id = bytes.fromhex(site.primary.run("load", str(first))["position"]["log_id"])
        wait_for("NATS has a leader", lambda: all(each.is_in() for each in site.nats))
        site.primary.run("create-log", "--kept-gb=2")
        self.start("follow")
        self.start("publish")
        site.primary.run("snapshot")
        self.changes.start()
        site.maker.start_loader("replicate", "replicate", "--snapshots")
        for replica in site.replicas:
            replica.start_loader("replicate", "replicate")
        for replica in site.replicas:
            wait_for(f"{replica.name} has a store", lambda replica=replica: replica.has_store)  # type: ignore[misc] # a lambda's default
            replica.serve()
            self.senders.watch(replica)
        self.settle()
        self.senders.start()

    def start(self, name: str) -> None:
        """Start what loads or what publishes."""
        follow = ["follow", str(self.site.feed), "--poll-seconds=0.05", "--settle-seconds=0"]
        self.site.primary.start_loader(name, *(follow if name == "follow" else [name]))

    def settle(self) -> None:
        """Wait until all servers are fresh, and stay so."""

        def is_so() -> bool:
            assert self.site.dead() == []
            return self.judge.settled(STEADY_S)

        wait_for("all servers are fresh", is_so, SETTLE_S)

    def act(self, name: str, play: Callable[[], None]) -> None:
        """Do something while the campaign goes on; afterwards all is fresh, and nobody has noticed anything."""
        act = self.judge.begin(name)
        play()
        self.settle()
        assert self.judge.faults == [], name
        assert not act.errors, (name, act.errors)
        assert (act.wrong, act.answers > 0) == (0, True), name

    def upgrade(self, replica: Machine, root: Path) -> None:
        """Restart a replica as an upgrade does: first the server, then what follows the log."""
        replica.stop("serve")
        replica.root = root
        replica.serve()
        replica.stop("replicate")
        replica.start_loader("replicate", "replicate")

    def restart(self, machine: Machine, name: str, root: Path, start: Callable[[], None]) -> None:
        """End a process as an operator does, and start it from a tree."""
        machine.stop(name)
        machine.root = root
        start()

    def version(self, replica: Machine) -> str:
        """Ask a server which version it is."""
        with Client(replica.target, timeout_s=20, batch_timeout_s=20) as client:
            return client.server_info().server_version

    def end(self) -> None:
        """Let the changes end; then all servers say the same, and all stores are the same."""
        self.judge.begin("at the end")
        self.changes.stop()
        rows = self.changes.model.rows
        wait_for(
            "all servers have come to the end",
            lambda: all(self.judge.at(replica.name) == rows for replica in self.site.replicas),
            SETTLE_S,
        )
        self.senders.stop()
        for replica in self.site.replicas:
            self.senders.ask_all(replica, Position(log_id=self.judge.log_id, sequence=rows), AT_THE_END)
        self.site.primary.stop("follow")
        stores = [self.site.primary, self.site.maker, *self.site.replicas]
        wait_for("all stores are at one batch", lambda: len({digest(each)[0] for each in stores}) == 1, SETTLE_S)
        assert len({digest(each) for each in stores}) == 1
        assert (self.judge.faults, self.judge.act.errors) == ([], {})
        for machine in [*self.site.replicas, self.site.maker]:
            machine.stop()


class OlderSenders:
    """Senders of another version, as a process; what they were told is judged when they have ended."""

    def __init__(self, cluster: Cluster, version: Version, folder: Path) -> None:
        self._changes = cluster.changes
        dice = random.Random(SEED)
        self._asks = [cluster.world.ask(dice) for _ in range(QUESTIONS)]
        asked = [[ask.brand, ask.channel, ask.kind, ask.spelt, ask.retailer, ask.exempt] for ask in self._asks]
        (folder / "asks.json").write_text(json.dumps(asked))
        self._said = folder / "older.jsonl"
        key = cluster.site.folder / "keys" / "address.key"
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, str(CAMPAIGN), f"ipv4:{cluster.site.target}", str(key), str(folder / "asks.json")],
                env=version.environment,
                stdout=said,
            )

    def stop(self) -> None:
        """End them."""
        self._process.terminate()
        self._process.wait(60)

    def assert_right(self) -> None:
        """See that each answer was the right one at its position, and that no call failed."""
        assert self._process.returncode == 0
        said = [json.loads(line) for line in self._said.read_text().splitlines()]
        numbers = {name: number for number, name in REASONS.items()}
        assert len(said) > QUESTIONS
        assert [line for line in said if isinstance(line, dict)] == []
        for answers in said:
            for ask, (reason, sequence) in zip(self._asks, answers, strict=True):
                assert reason == numbers[self._changes.model.reason(ask, sequence)]


def digest(machine: Machine) -> tuple[int, int, str]:
    """Return where a store stands, and what it holds."""
    said = machine.run("digest")
    return said["batch"], said["sequence"], said["digest"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster, of which nothing outlives the test."""
    cluster = Cluster(tmp_path / "cluster")
    with cluster.site:
        yield cluster
        cluster.senders.stop()


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_rolling_upgrade(
    cluster: Cluster, yesterday: Version, today: Version, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """One after the other is restarted, first as it is, then from another version; in the end what the primary runs.

    Today's senders ask all the while, and yesterday's as well.
    """
    newer = Version.changed(
        tmp_path / "newer", {"iyscheck/__init__.py": {'__version__ = "0.1.0"': f'__version__ = "{NEWER}"'}}
    )
    site = cluster.site
    cluster.begin()
    older = OlderSenders(cluster, yesterday, tmp_path)
    request.addfinalizer(older.stop)
    for version in (today, newer):
        for replica in site.replicas:
            cluster.act(
                f"{replica.name} to {version.name}",
                lambda replica=replica, version=version: cluster.upgrade(replica, version.root),  # type: ignore[misc] # a lambda's defaults
            )
    assert [cluster.version(replica) for replica in site.replicas] == [NEWER] * REPLICAS
    cluster.act(
        "the maker",
        lambda: cluster.restart(
            site.maker,
            "replicate",
            newer.root,
            lambda: site.maker.start_loader("replicate", "replicate", "--snapshots"),
        ),
    )
    for name in ("publish", "follow"):
        cluster.act(
            f"the primary's {name}",
            lambda name=name: cluster.restart(site.primary, name, newer.root, lambda: cluster.start(name)),  # type: ignore[misc] # a lambda's default
        )
    older.stop()
    cluster.end()
    older.assert_right()
