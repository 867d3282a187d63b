"""Publishing to real servers of NATS, while loader, publisher and servers die: all is there, in order, and once."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from shutil import copytree

import pytest

from iyscheck.change import ConsentColumns
from iyscheck.store.layout import SourceState
from iyscheck.store.log_batch import Kind
from loader.cli.failures import EXIT_FENCED
from loader.replication.codec import header_of
from loader.replication.connection import NatsConnection
from loader.replication.log import NatsLog
from loader.replication.messages import LogAwayError, NatsSettings
from loader.replication.publish import State
from tests.builders import a_batch, a_change, fill
from tests.dice import thrown
from tests.loader.feeds import Command
from tests.loader.replication.servers import NatsCluster, NatsServer, one_server, three_servers
from tests.loader.replication.sites import PrimarySite, until

COMMITTING = """
import sys, time
from pathlib import Path
from tests.loader.replication.sites import primary_at

with primary_at(Path(sys.argv[1])) as writer:
    for _ in range(int(sys.argv[2])):
        writer.heartbeat(0)
        time.sleep(float(sys.argv[3]))
"""
"""Commits so many batches, with a pause after each."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """One server of NATS."""
    with one_server(tmp_path / "nats") as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, server: NatsServer) -> Iterator[PrimarySite]:
    """A primary whose log is there."""
    with made(tmp_path / "primary", [server.url], replicas=1) as site:
        yield site


@contextmanager
def made(folder: Path, servers: list[str], *, replicas: int, more: str = "") -> Iterator[PrimarySite]:
    """Make a primary and its log; nothing of it runs on in the end."""
    folder.mkdir()
    site = PrimarySite(Command(folder), servers, more=more)
    create_log(site, replicas)
    yield site
    site.command.stop()


def create_log(site: PrimarySite, replicas: int = 1) -> None:
    """Run the command."""
    flags = ("--cluster", "cluster.toml", "--replicas", str(replicas), "--kept-gb", "1")
    made = site.command.run("create-log", *flags)
    assert made.returncode == 0, made.stderr


def publishing(site: PrimarySite) -> "subprocess.Popen[bytes]":
    """Start a publisher, whose log goes to a file."""
    return site.command.start("publish")


def committing(site: PrimarySite, times: int, pause_s: float = 0.0) -> "subprocess.Popen[bytes]":
    """Start what commits."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMITTING, str(site.path), str(times), str(pause_s)],
        env=site.command.environment,
    )


def ended(process: "subprocess.Popen[bytes]") -> list[str]:
    """End a publisher, and return the events that it logged."""
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    return [json.loads(line)["event"] for line in log.splitlines()]


@contextmanager
def reading(settings: NatsSettings) -> Iterator[NatsLog]:
    """Look at the log."""
    log = NatsLog.connect(settings)
    try:
        yield log
    finally:
        log.close()


def messages(settings: NatsSettings) -> list[bytes]:
    """Return all that is in the log, once somebody answers; each is read alone, from the leader."""
    with reading(settings) as log:
        while True:
            try:
                ends = log.ends()
                found = [log.get(number) for number in range(ends.first, ends.last + 1)]
            except LogAwayError:
                time.sleep(0.2)
            else:
                assert None not in found
                return [message for message in found if message is not None]


def is_all_there(site: PrimarySite, settings: NatsSettings) -> bool:
    """Say whether the log ends as the outbox does."""
    with reading(settings) as log:
        try:
            ends = log.ends()
            return ends.messages > 0 and log.get(ends.last) == site.outbox()[-1]
        except LogAwayError:
            return False


def test_all(site: PrimarySite, server: NatsServer) -> None:
    """What is committed before and after the publisher began is in the log, a large batch in its parts."""
    dice = thrown()
    site.commit(3)
    process = publishing(site)
    with site.writer() as writer:
        changes = [a_change(tag=tag) for tag in sorted({dice.randbytes(16) for _ in range(35_000)})]
        writer.apply(a_batch(changes), SourceState(name="x"))
    until(lambda: is_all_there(site, server.settings()))

    assert ended(process)[:2] == ["nats_connected", "publishing"]
    assert messages(server.settings()) == site.outbox()
    assert header_of(site.outbox()[-1]).parts > 1


@pytest.mark.thorough
def test_publisher_killed(site: PrimarySite, server: NatsServer) -> None:
    """A publisher that is killed at any moment goes on where it was."""
    dice = thrown()
    loading = committing(site, 400, 0.005)
    while loading.poll() is None:
        process = publishing(site)
        time.sleep(dice.uniform(0.3, 1.2))
        process.kill()
        process.communicate()
    process = publishing(site)
    until(lambda: is_all_there(site, server.settings()))
    ended(process)

    assert messages(server.settings()) == site.outbox()
    assert int.from_bytes((site.store / "acknowledged").read_bytes()) == 401


@pytest.mark.thorough
def test_loader_killed(site: PrimarySite, server: NatsServer) -> None:
    """What a loader committed before it was killed is published, whether it lived to see it or not."""
    process = publishing(site)
    dice = thrown()
    for _ in range(4):
        loading = committing(site, 100_000)
        batch = site.batch()
        until(lambda batch=batch: site.batch() > batch)  # type: ignore[misc] # mypy knows no defaults of lambdas
        time.sleep(dice.uniform(0, 0.2))
        loading.kill()
        loading.wait()
    until(lambda: is_all_there(site, server.settings()))
    ended(process)

    assert messages(server.settings()) == site.outbox()


@pytest.mark.thorough
def test_server_killed(site: PrimarySite, server: NatsServer) -> None:
    """Whatever was under way when NATS was killed is in the log once."""
    process = publishing(site)
    until(lambda: is_all_there(site, server.settings()))
    loading = committing(site, 400, 0.005)
    for _ in range(2):
        batch = site.batch()
        until(lambda batch=batch: site.batch() > batch)  # type: ignore[misc] # mypy knows no defaults of lambdas
        server.kill()
        time.sleep(0.5)
        server.start()
    assert loading.wait(120) == 0
    until(lambda: is_all_there(site, server.settings()))
    events = ended(process)

    assert messages(server.settings()) == site.outbox()
    assert events.count("nats_connected") > 1


@pytest.mark.thorough
def test_rolled_back(site: PrimarySite, server: NatsServer) -> None:
    """Messages that were acknowledged and vanished are there again, the same bytes at the same numbers."""
    process = publishing(site)
    site.commit(30)
    until(lambda: is_all_there(site, server.settings()))
    with server.rolled_back():
        site.commit(20)
        until(lambda: is_all_there(site, server.settings()))
    until(lambda: is_all_there(site, server.settings()))
    site.commit(5)
    until(lambda: is_all_there(site, server.settings()))
    ended(process)

    assert messages(server.settings()) == site.outbox()


@pytest.mark.thorough
def test_deleted(site: PrimarySite, server: NatsServer) -> None:
    """A log that was deleted is missed until it is made again, and then has all again."""
    process = publishing(site)
    site.commit(3)
    until(lambda: is_all_there(site, server.settings()))
    operator = NatsConnection(server.settings())
    operator.ask("$JS.API.STREAM.DELETE.IYS", b"", timeout_s=10)
    operator.close()
    site.commit(2)
    time.sleep(1)
    create_log(site)
    until(lambda: is_all_there(site, server.settings()))
    events = ended(process)

    assert messages(server.settings()) == site.outbox()
    assert events[1:4] == ["publishing", f"publisher_{State.MISSING}", "publishing"]


@pytest.mark.thorough
def test_fenced(site: PrimarySite, server: NatsServer, tmp_path: Path) -> None:
    """Who is not the primary any more ends with a code of its own and says what to do; a restart ends so, too."""
    process = publishing(site)
    until(lambda: is_all_there(site, server.settings()))
    promoted(site, tmp_path / "other", [server.url])
    site.commit()
    _, log = process.communicate(timeout=60)
    again = site.command.run("publish")

    assert (process.returncode, again.returncode) == (EXIT_FENCED, EXIT_FENCED)
    for text in (log, again.stderr):
        assert b'"event": "publisher_fenced"' in text
        assert b"iyscheck-loader: Another primary has begun: the log is at term 2, and this store at 1." in text
    assert [header_of(message).term for message in messages(server.settings())] == [1, 2]


def snapshots(site: PrimarySite) -> list[int]:
    """Return the batches of the snapshots that lie at the place, the newest first."""
    told = site.command.run("snapshot", "--list", "--json", "--cluster", "cluster.toml")
    return [each["batch"] for each in json.loads(told.stdout)["snapshots"]]


@pytest.mark.thorough
def test_snapshots(tmp_path: Path, server: NatsServer) -> None:
    """Where the log does not tell what a primary holds, its publisher makes a snapshot, and no other one."""
    place = '\n[snapshots]\ndirectory = "snapshots"\n'
    with made(tmp_path / "primary", [server.url], replicas=1, more=place) as site:
        process = publishing(site)
        until(lambda: snapshots(site) == [1])
        with site.writer() as writer:
            fill(writer, [ConsentColumns.of([a_change()])], rows=1)
        until(lambda: is_all_there(site, server.settings()))
        ended(process)
        assert site.kinds()[-1] is Kind.REBASE
        assert snapshots(site)[-1] == 1
        process = publishing(site)
        until(lambda: snapshots(site)[0] >= 2)
        found = snapshots(site)
        site.commit(2)
        until(lambda: is_all_there(site, server.settings()))
        ended(process)
        assert snapshots(site) == found

        site.command.run("promote", "--cluster", "cluster.toml", "--rebase", "--yes")
        process = site.command.start("publish", "--no-snapshots")
        site.commit()
        until(lambda: is_all_there(site, server.settings()))
        ended(process)
        assert snapshots(site) == found
        process = publishing(site)
        until(lambda: snapshots(site)[0] == site.batch())
        assert "snapshot_made" in ended(process)


def promoted(site: PrimarySite, folder: Path, servers: list[str]) -> PrimarySite:
    """Make a copy of a store the primary of the next term, with the keys of the first."""
    copytree(site.path, folder, ignore=lambda _where, names: [name for name in names if name == "nats"])
    for name in ("address.key", "store.key"):
        (folder / name).unlink()
    other = PrimarySite(Command(folder), servers)
    for name in ("address.key", "store.key"):
        (folder / name).write_bytes((site.path / name).read_bytes())
    done = other.command.run("promote", "--cluster", "cluster.toml", "--rebase", "--yes")
    assert done.returncode == 0, done.stderr
    return other


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    """Three servers that hold together."""
    with three_servers(tmp_path / "nats") as cluster:
        yield cluster


@pytest.mark.crash
@pytest.mark.thorough
def test_leaders_killed(tmp_path: Path, cluster: NatsCluster) -> None:
    """However often the leader of the log dies, what was committed meanwhile is in it once."""
    servers = [server.url for server in cluster.servers]
    with made(tmp_path / "primary", servers, replicas=3) as site:
        process = publishing(site)
        loading = committing(site, 3_000, 0.01)
        while loading.poll() is None:
            time.sleep(2)
            cluster.leader("IYS").restart()
        until(lambda: is_all_there(site, cluster.settings()))
        ended(process)
        assert messages(cluster.settings()) == site.outbox()


@pytest.mark.crash
@pytest.mark.thorough
def test_two_primaries(tmp_path: Path, cluster: NatsCluster) -> None:
    """Of two primaries that write while leaders die the one of the greater term has the log, from one message on."""
    servers = [server.url for server in cluster.servers]
    with made(tmp_path / "primary", servers, replicas=3) as site:
        process = publishing(site)
        loading = committing(site, 100_000, 0.005)
        until(lambda: site.batch() > 100)
        loading.kill()
        loading.wait()
        until(lambda: is_all_there(site, cluster.settings()))
        other = promoted(site, tmp_path / "other", servers)
        both = [committing(site, 1_000, 0.005), committing(other, 2_000, 0.005)]
        others = publishing(other)
        while any(each.poll() is None for each in both):
            time.sleep(2)
            cluster.leader("IYS").restart()
        until(lambda: is_all_there(other, cluster.settings()))
        ended(others)
        process.communicate(timeout=60)
        found = messages(cluster.settings())
        terms = [header_of(message).term for message in found]

        assert process.returncode == EXIT_FENCED
        assert all(before <= after for before, after in pairwise(terms))
        assert found[: terms.index(2)] == site.outbox()[: terms.index(2)]
        assert found[terms.index(2) :] == other.outbox()
        other.command.stop()
