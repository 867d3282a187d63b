"""The network is parted between primary, NATS and replicas, and comes together again."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from loader.replication.messages import NatsSettings
from tests.loader.replication.servers import NatsCluster, NatsServer, running
from tests.replication.networks import Networks, networks
from tests.replication.town import Town, town, until

NATS = ("n1", "n2", "n3")
STREAM = "IYS"


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A town whose machines have networks of their own, and its servers of NATS."""

    town: Town
    cluster: NatsCluster
    networks: Networks

    @contextmanager
    def nats_away(self, *, leads: bool) -> Iterator[str]:
        """Cut one server of NATS off, and give its name."""
        leader = self.cluster.leader(STREAM)
        server = leader if leads else next(each for each in self.cluster.servers if each is not leader)
        with self.networks.parted(server.name):
            yield server.name


def configured(folder: Path, name: str, networks: Networks) -> NatsServer:
    """Make a server of NATS on a machine of its own."""
    own = folder / name
    own.mkdir(parents=True)
    routes = ", ".join(f"nats://{networks.address(each)}:6222" for each in NATS if each != name)
    address = networks.address(name)
    machine = networks.machines[name]
    (own / "nats.conf").write_text(
        f'server_name: {name}\nlisten: "0.0.0.0:4222"\nhttp: "0.0.0.0:8222"\nmax_payload: 1MB\n'
        f'jetstream {{ store_dir: "{own / "data"}", sync_interval: always, max_file_store: 2GB, max_mem: 64MB }}\n'
        f'cluster {{ name: test, listen: "{address}:6222", no_advertise: true, routes: [{routes}] }}\n'
    )
    return NatsServer(
        folder=own,
        config=own / "nats.conf",
        port=4222,
        monitor=8222,
        name=name,
        is_one_of_several=True,
        host=address,
        reached=machine.host,
        within=machine.within,
    )


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    """Six machines that run."""
    folder = tmp_path_factory.mktemp("town")
    with networks("primary", *NATS, "r1", "r2") as made:
        servers = [configured(folder / "nats", name, made) for name in NATS]
        settings = NatsSettings(servers=tuple(each.url for each in servers), name="test")
        with running(*servers), town(folder, settings, made.machines) as all_:
            all_.begin(servers=3)
            yield Parts(town=all_, cluster=NatsCluster(servers=servers), networks=made)


def nobody_fresh(made: Town, *names: str) -> None:
    """Wait until none of these servers says that it is fresh."""
    until(lambda: not any(each.is_fresh for each in made.servers if each.name in names), f"{names} are not fresh")


def test_primary_away(parts: Parts) -> None:
    """The primary is cut off: all answer on, nobody is fresh in the end."""
    episode = parts.town.fault("network: primary cut off until nobody is fresh")
    with parts.networks.parted("primary"):
        nobody_fresh(parts.town, "r1-server", "r2-server")
    episode.well()
    episode.noted()


@pytest.mark.parametrize("leads", [True, False], ids=["leader", "other"])
def test_nats_away(parts: Parts, leads: bool) -> None:  # noqa: FBT001 - pytest's
    """One server of NATS is cut off: all goes on without it."""
    episode = parts.town.fault(f"network: one NATS cut off, {'the leader' if leads else 'not the leader'}")
    with parts.nats_away(leads=leads):
        time.sleep(10)  # until who was connected there has noticed
        episode.well()
    episode.well()
    episode.noted("well again without it")


def test_half_away(parts: Parts) -> None:
    """One replica is cut off together with one server of NATS: senders ask the other one."""
    episode = parts.town.fault("network: half of the replicas and one NATS cut off until not fresh")
    leader = parts.cluster.leader(STREAM)
    other = next(each.name for each in parts.cluster.servers if each is not leader)
    with parts.networks.parted("r2", other):
        nobody_fresh(parts.town, "r2-server")
        assert all(each.is_fresh for each in parts.town.servers if each.name == "r1-server")
    episode.well()
    episode.noted("r2 not fresh and not asked, r1 fresh")


def test_flapping(parts: Parts) -> None:
    """The network is parted here and there, again and again."""
    episode = parts.town.fault("network: dice part it 6 times, 0 to 6 s each")
    for _ in range(6):
        away = parts.town.dice.sample(parts.networks.names, parts.town.dice.randint(1, 3))
        with parts.networks.parted(*away):
            time.sleep(parts.town.dice.uniform(0, 6))
        time.sleep(parts.town.dice.uniform(0, 2))
    episode.well()
    episode.noted(times=6)


def test_two_primaries(parts: Parts) -> None:
    """On the side of most servers of NATS a replica is promoted, while the old primary loads on.

    When they come together the old one's publisher finds the other's term, and ends.
    """
    made = parts.town
    episode = made.fault("network: two primaries, old one with one NATS, new one with two")
    old = next(each.name for each in parts.cluster.servers if each is not parts.cluster.leader(STREAM))
    with parts.networks.parted("primary", old):
        made.processes["r1"].stop()
        flags = [f"--store={made.store('r1')}", f"--cluster={made.cluster('r1')}", "--json"]
        assert json.loads(made.run("promote", *flags, on="r1").stdout)["term"] == 2
        made.loader("loader-2", of="r1").start()
        made.publisher("publisher-2", of="r1").start()
        rows = made.feed.rows
        until(lambda: min(each.sequence for each in made.servers) > rows, "the new primary is followed")
        assert made.processes["publisher"].runs
    assert made.processes["publisher"].exit_code() == 3
    assert "publisher_fenced" in made.processes["publisher"].printed
    made.processes.pop("loader").kill()
    episode.well()
    episode.noted("old publisher ended with 3 (fenced) when the network was whole")
    made.assert_same("r2", primary="r1")
