"""kill -9 and SIGSTOP of each process, at moments that dice choose, while rows come and everybody asks."""

import os
import shutil
import time
from collections.abc import Iterator

import pytest

from loader.replication.codec import header_of
from tests.dice import often
from tests.loader.replication.servers import one_server
from tests.replication.town import Town, town, until

ROUNDS = often(18, least=3)
PROCESSES = ("loader", "publisher", "r1", "maker", "r1-server")
EXACT = [
    ("loader", "pwritev,pwrite64", "before a page of a commit is written"),
    ("loader", "fdatasync,fsync,msync", "within a commit, before it is synced"),
    ("publisher", "sendto,sendmsg,write", "before a message is sent"),
    ("publisher", "recvfrom,recvmsg,read", "before an acknowledgement is read"),
    ("publisher", "rename,renameat,renameat2", "before it is noted what is acknowledged"),
    ("r1", "pwritev,pwrite64", "before a page of a commit is written"),
    ("r1", "fdatasync,fsync,msync", "within a commit, before it is synced"),
    ("r1", "recvfrom,recvmsg,read", "before a message is read"),
    ("maker", "rename,renameat,renameat2", "before a file gets its name"),
]
"""Which process is killed where it begins which system calls, after some that it has made; and what that means."""


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A town with one server of NATS, two replicas that serve, and a maker of snapshots."""
    folder = tmp_path_factory.mktemp("town")
    with one_server(folder / "nats") as nats, town(folder, nats.settings()) as made:
        made.begin(maker="maker")
        yield made


@pytest.mark.parametrize("name", PROCESSES)
def test_killed(busy: Town, name: str) -> None:
    """Whatever is killed goes on where it was, and nobody is told anything wrong."""
    process = busy.processes[name]
    episode = busy.fault(f"kill -9 of {name}")
    unnoted = 0
    for _ in range(ROUNDS):
        time.sleep(busy.dice.uniform(0, 1.5))
        process.kill()
        if name == "publisher":
            unnoted += newest_batch(busy) > int.from_bytes((busy.store("primary") / "acknowledged").read_bytes())
        process.start()
        episode.well()
    episode.noted(f"{unnoted} times between append and note" if name == "publisher" else "")


def newest_batch(busy: Town) -> int:
    """Return which batch lies at the end of the log."""
    with busy.log() as log:
        message = log.get(log.ends().last)
        assert message is not None
        return header_of(message).batch


@pytest.mark.parametrize(("name", "calls", "when"), EXACT, ids=[f"{name}-{calls}" for name, calls, _ in EXACT])
def test_killed_exactly(busy: Town, name: str, calls: str, when: str) -> None:
    """Killed within what it does: between a commit's writes, before an acknowledgement is read or noted."""
    if shutil.which("strace") is None:
        pytest.skip("NOT TESTED: kills at system calls, since there is no strace (Debian: strace)")
    process, command = busy.processes[name], busy.processes[name].command
    episode = busy.fault(f"kill -9 of {name} {when}")
    for _ in range(ROUNDS):
        process.kill()
        number = busy.dice.randint(1, 2 if name == "maker" else 60)
        inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:signal=KILL:when={number}"]
        process.command = ["/usr/bin/env", "strace", "-f", "-qq", "-o", os.devnull, *inject, *command]
        process.start()
        until(lambda: not process.runs, f"{name} is killed")
        process.kill()
        process.command = command
        process.start()
        episode.well()
    episode.noted()


@pytest.mark.parametrize("name", PROCESSES[:-1])
def test_paused(busy: Town, name: str) -> None:
    """Whatever stands still goes on when it may."""
    process = busy.processes[name]
    episode = busy.fault(f"SIGSTOP of {name}, 6 s")
    for _ in range(2):
        time.sleep(busy.dice.uniform(0, 1))
        with process.paused():
            time.sleep(6)
        episode.well()
    episode.noted()


@pytest.mark.parametrize("name", ["loader", "publisher"])
def test_long_pause(busy: Town, name: str) -> None:
    """Where nothing is loaded or published for long nobody is fresh, and everybody is answered."""
    episode = busy.fault(f"{name} stands still until nobody is fresh")
    with busy.processes[name].paused():
        until(lambda: not any(each.is_fresh for each in busy.servers), "nobody is fresh")
        answered = len([each for each in busy.senders.samples if not each.error])
        until(
            lambda: len([each for each in busy.senders.samples if not each.error]) > answered + 20,
            "senders are answered nevertheless",
        )
    episode.well()
    episode.noted("nobody fresh: all servers were asked")


def test_all_at_once(busy: Town) -> None:
    """All processes but NATS and the servers are killed at once."""
    episode = busy.fault("kill -9 of loader, publisher and all replicas at once")
    names = ("loader", "publisher", "r1", "r2", "maker")
    for _ in range(ROUNDS):
        time.sleep(busy.dice.uniform(0, 1))
        for name in names:
            busy.processes[name].kill()
        for name in busy.dice.sample(names, len(names)):
            busy.processes[name].start()
        episode.well()
    episode.noted()


def test_same_at_the_end(busy: Town) -> None:
    """After all that, all stores hold the same."""
    busy.assert_same("r1", "r2", "maker")
