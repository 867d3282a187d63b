"""Stores fail: full disks, replicas that were away too long, primaries restored from backups, strangers, clocks."""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from iyscheck.keys import Signers, SigningKey, StreamKey
from iyscheck.store.log_batch import Kind, LogBatch
from loader.replication.codec import BatchOpener, BatchSealer, header_of
from loader.replication.log import NatsLog
from loader.replication.messages import LogMissingError
from tests.loader.replication.servers import NatsServer, one_server
from tests.replication.disks import empty, fill, run, small_disk
from tests.replication.town import Town, town, until


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    """One server of NATS."""
    with one_server(tmp_path / "nats") as server:
        yield server


@pytest.fixture
def made(tmp_path: Path, nats: NatsServer) -> Iterator[Town]:
    """A town in which nothing runs yet."""
    with town(tmp_path, nats.settings()) as made:
        yield made


def take_snapshot(made: Town, of: str) -> None:
    """Make a snapshot of a store."""
    made.run("snapshot", f"--store={made.store(of)}", f"--cluster={made.cluster(of)}", on=of)


def test_replica_disk_full(made: Town) -> None:
    """A replica whose disk is full answers, is not fresh in the end, and goes on when there is room."""
    with small_disk(made.folder / "r2", "6m") as place:
        made.begin()
        episode = made.fault("disk of one replica full until it is not fresh")
        fill(place)
        server = next(each for each in made.servers if each.name == "r2-server")
        for _ in range(10):
            made.feed.crowd(4000)
        until(lambda: "replica_full" in made.processes["r2"].printed, "r2 says that its disk is full")
        until(lambda: not server.is_fresh, "r2 is not fresh")
        empty(place)
        run("mount", "-o", "remount,size=16m", place)
        episode.well()
        episode.noted("the other one was asked; commits failed whole")
        made.assert_same("r1", "r2")
        made.close()


def test_nats_disk_full(tmp_path: Path) -> None:
    """NATS has no room: publishing is refused, replicas answer, and all goes on when there is room again."""
    with small_disk(tmp_path / "nats", "24m") as place, one_server(place) as nats:
        (tmp_path / "town").mkdir()
        with town(tmp_path / "town", nats.settings()) as made:
            made.begin()
            episode = made.fault("disk of NATS full for some 10 s, NATS started anew with room")
            fill(place)
            for _ in range(10):
                made.feed.crowd(4000)
            publisher = made.processes["publisher"]
            until(
                lambda: "publisher_away" in publisher.printed or "publisher_missing" in publisher.printed, "it is told"
            )
            time.sleep(5)
            empty(place)
            nats.kill()
            nats.start()
            with made.log() as log:
                is_lost = not log_is_there(log)
            if is_lost:
                made.create_log("--replicas=1")
            episode.well()
            episode.noted("the stream was lost: create-log" if is_lost else "the stream stayed")
            made.assert_same("r1", "r2")


def log_is_there(log: NatsLog) -> bool:
    """Say whether there is a stream."""
    try:
        log.ends()
    except LogMissingError:
        return False
    return True


def test_older_than_the_log(made: Town) -> None:
    """A replica that was away until the log begins behind it takes a snapshot, and answers meanwhile."""
    made.create_log("--local")
    with made.log() as log:
        log.create_stream(replicas=1, kept_bytes=1_500_000)
    made.start(("r1", "r2"))
    episode = made.fault("replica away until the log begins behind it")
    made.processes["r2"].kill()
    behind = made.state("r2")
    assert behind is not None

    def is_older() -> bool:
        made.feed.crowd(4000)
        time.sleep(0.5)
        with made.log() as log:
            ends = log.ends()
            message = log.get(ends.first)
        return message is not None and header_of(message).batch > behind.batch + 1

    until(is_older, "the log begins behind r2")
    until(lambda: made.position("r1") >= made.feed.rows - 500, "r1 has it")
    take_snapshot(made, "r1")
    made.processes["r2"].start()
    episode.well()
    assert "replica_gap" in made.processes["r2"].printed
    episode.noted("booted from a snapshot; its server took the new files by itself")
    made.assert_same("r1", "r2")


@pytest.mark.parametrize("loads", [False, True], ids=["at-once", "loaded-again"])
def test_restored(made: Town, loads: bool) -> None:  # noqa: FBT001 - pytest's
    """A primary that was restored from a backup is not published, which is said; a person lets it be the primary again.

    Where nothing was loaded since it takes from the log what it forgot, else replicas take a copy of it.
    """
    made.begin()
    loader, publisher = made.processes["loader"], made.processes["publisher"]
    loader.kill()
    shutil.copytree(made.store("primary"), made.folder / "backup")
    loader.start()
    rows = made.feed.rows
    until(lambda: min(each.sequence for each in made.servers) > rows + 300, "more is loaded than the backup has")
    episode = made.fault(f"primary restored from a backup, {'loaded again' if loads else 'not loaded yet'}")
    for process in (loader, publisher):
        process.kill()
    shutil.rmtree(made.store("primary"))
    shutil.copytree(made.folder / "backup", made.store("primary"))
    if loads:
        before = made.state()
        loader.start()
        until(lambda: (now := made.state()) is not None and before is not None and now.batch > before.batch, "it loads")
    publisher.start()
    assert publisher.exit_code() == 3
    said = publisher.printed
    assert "publisher_restored" in said
    loader.stop()
    flags = [f"--store={made.store('primary')}", f"--cluster={made.cluster('primary')}", "--json"]
    if loads:
        refused = made.run("promote", *flags, fails=True)
        assert "--rebase" in refused.stdout + refused.stderr
        rows = made.position("primary")
        made.run("promote", *flags, "--rebase", "--yes")
        made.feed.rebased(made.position("primary"), rows)
        take_snapshot(made, "primary")
    else:
        told = json.loads(made.run("promote", *flags).stdout)
        assert (told["how"], told["term"]) == ("continue", 2)
    loader.start()
    publisher.start()
    episode.well()
    episode.noted("publisher said so and ended with 3; " + ("promote --rebase, snapshot" if loads else "promote"))
    made.assert_same("r1", "r2")


def test_forged(made: Town) -> None:
    """What somebody appends who may append at NATS but has no signing key counts nowhere, and is counted.

    The publisher goes nowhere behind it by itself; promoted, its store goes on behind it, and replicas follow.
    """
    made.begin()
    publisher = made.processes["publisher"]
    stranger = BatchSealer(StreamKey.load(made.folder / "stream.key"), SigningKey(bytes(range(32))))
    opener = BatchOpener(StreamKey.load(made.folder / "stream.key"), Signers([made.signers["primary"].public]))
    for kind in ("forged", "altered"):
        before = {name: made.processes[name].printed.count("message_rejected") for name in ("r1", "r2")}
        episode = made.fault(f"{kind} message appended without the signing key")
        with publisher.paused(), made.log() as log:
            time.sleep(2)
            ends = log.ends()
            newest = log.get(ends.last)
            assert newest is not None
            batch = opener.opened([newest])
            message = forged(stranger, batch) if kind == "forged" else altered(newest)
            log.append(ends.last, message)
        assert publisher.exit_code() == 3
        for name, number in before.items():
            until(
                lambda name=name, number=number: made.processes[name].printed.count("message_rejected") > number,  # type: ignore[misc]
                f"{name} rejects it",
            )
        made.processes["loader"].stop()
        flags = [f"--store={made.store('primary')}", f"--cluster={made.cluster('primary')}", "--json"]
        assert json.loads(made.run("promote", *flags).stdout)["how"] == "continue"
        made.processes["loader"].start()
        publisher.start()
        episode.well()
        reasons = {
            json.loads(line)["reason"]
            for line in made.processes["r1"].printed.splitlines()
            if "message_rejected" in line
        }
        episode.noted(
            f"publisher ended with 3, replicas rejected it ({', '.join(sorted(reasons))}); promote on the same store"
        )
    made.assert_same("r1", "r2")


def forged(stranger: BatchSealer, batch: LogBatch) -> bytes:
    """Make a batch that follows, and permits all that nobody permitted, signed with a key that nobody believes."""
    (message,) = stranger.seal(replace(batch, kind=Kind.HEARTBEAT, batch=batch.batch + 1))
    return message


def altered(message: bytes) -> bytes:
    """Change a bit of what is sealed."""
    return message[:150] + bytes([message[150] ^ 1]) + message[151:]


@pytest.mark.parametrize("hours", [1, -1], ids=["ahead", "behind"])
def test_wrong_clock(made: Town, hours: int) -> None:
    """The clock of the primary's loader is an hour wrong: the data is right, only who is fresh is not."""
    program = (
        "-c",
        f"import time; right = time.time; time.time = lambda: right() + {hours * 3600}; "  # noqa: ISC004 - one word
        "from loader.cli.app import main; main()",
    )
    made.begin()
    made.processes["loader"].kill()
    time.sleep(1)
    episode = made.fault(f"clock of the primary an hour {'ahead' if hours > 0 else 'behind'}, 60 s")
    made.feed.may_be_late = hours < 0
    wrong = made.loader("loader", program=program)
    wrong.start()
    begun_s = time.monotonic()
    rows = made.feed.rows
    until(lambda: min(each.sequence for each in made.servers) > rows + 300, "what it loads arrives")
    if hours < 0:
        until(lambda: not any(each.is_fresh for each in made.servers), "nobody is fresh")
    else:
        time.sleep(max(0, begun_s + 50 - time.monotonic()))
        assert all(each.is_fresh for each in made.servers)
    wrong.kill()
    made.loader("loader").start()
    if hours > 0:  # a publisher that stands still is not noticed now: that is what is wrong
        with made.processes["publisher"].paused():
            time.sleep(45)
            assert all(each.is_fresh for each in made.servers)
    episode.well()
    episode.noted(
        "nobody fresh, data right, complete until an hour ago"
        if hours < 0
        else "everybody fresh for an hour whatever fails, data right"
    )
    made.assert_same("r1", "r2")


def test_old_primary(made: Town) -> None:
    """A replica is promoted while the old primary only stands still: that one publishes nothing any more."""
    made.begin()
    old = [made.processes["loader"], made.processes["publisher"]]
    episode = made.fault("primary lost: a replica promoted, the old one comes again")
    with old[0].paused(), old[1].paused():
        made.processes["r1"].stop()
        flags = [f"--store={made.store('r1')}", f"--cluster={made.cluster('r1')}", "--json"]
        told = json.loads(made.run("promote", *flags, on="r1").stdout)
        assert told["term"] == 2
        made.loader("loader-2", of="r1").start()
        made.publisher("publisher-2", of="r1").start()
        rows = made.feed.rows
        until(lambda: min(each.sequence for each in made.servers) > rows, "the new primary is followed")
    assert old[1].exit_code() == 3
    assert "publisher_fenced" in old[1].printed
    old[0].stop()
    del made.processes["loader"]
    episode.well()
    episode.noted("the old publisher ended with 3 (fenced)")
    made.assert_same("r2", primary="r1")
