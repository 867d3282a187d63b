"""`iyscheck-loader snapshot`, as an operator runs it."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from iyscheck.keys import AddressKey, SigningKey, StoreKey, StreamKey
from iyscheck.store.log_writer import LogWriter
from iyscheck.store.writer import Writer
from loader.replication.cluster import Cluster
from loader.replication.manifest import manifests_at
from loader.replication.places import DirectoryPlace
from tests.loader.feeds import Command
from tests.loader.replication.snapshots import load

CLUSTER = """\
stream_key = "stream.key"
signing_key = "signing.key"

[nats]
servers = ["nats://127.0.0.1:1"]
name = "maker"

[signers.maker]
public = "{public}"
may = ["changes", "snapshots"]

[snapshots]
{where}
keep = 2
"""


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    """The command beside a primary without records, its keys and its cluster file."""
    command = Command(tmp_path)
    StreamKey.create(tmp_path / "stream.key")
    SigningKey.create(tmp_path / "signing.key")
    cluster = configured(command, 'directory = "snapshots"')
    address_key_id = AddressKey.load(tmp_path / "address.key").key_id
    store_key_id = StoreKey.load(tmp_path / "store.key").key_id
    with LogWriter.open(tmp_path / "store", address_key_id=address_key_id, store_key_id=store_key_id) as writer:
        writer.take_over(writer.begin_term(cluster.sealer()), settings=str(cluster.path))
    yield command
    command.stop()


def configured(command: Command, where: str, key: str = "signing.key") -> Cluster:
    """Write the cluster file: snapshots lie there, and whose key that is may make them."""
    file = command.path / "cluster.toml"
    public = SigningKey.load(command.path / key).public.hex()
    file.write_text(CLUSTER.format(public=public, where=where))
    command.environment["IYSCHECK_CLUSTER"] = str(file)
    return Cluster.read(file)


def test_make_and_list(command: Command) -> None:
    """One is made, the newest stay, and what lies there is listed, for people and programs."""
    texts = [command.run("snapshot") for _ in range(2)]
    made = json.loads(command.run("snapshot", "--json").stdout)
    listed = command.run("snapshot", "--list")
    told = json.loads(command.run("snapshot", "--list", "--json").stdout)

    assert [text.returncode for text in texts] == [0, 0]
    assert b"Batch 1 of term 1, of 20" in texts[0].stdout
    assert texts[0].stderr == b""
    assert (made["batch"], made["term"], made["parts"]) == (1, 1, 1)
    assert made["place"] == told["place"] == str(command.path / "snapshots")
    assert [each["id"] for each in told["snapshots"]] == [made["id"]]
    assert told["refused"] == []
    assert listed.returncode == 0
    assert listed.stdout.count(b"\n") == 1


@pytest.mark.thorough
def test_bar(command: Command) -> None:
    """On a terminal a bar shows how far it is, and none does for a program."""
    for flags, is_shown in (((), True), (("--json",), False)):
        terminal, stderr = pty.openpty()
        program = [sys.executable, "-m", "loader", "snapshot", *flags]
        environment = command.environment | {"TERM": "xterm", "COLUMNS": "100"}
        done = subprocess.run(
            program, env=environment, cwd=command.path, stderr=stderr, stdout=subprocess.DEVNULL, check=True
        )
        os.set_blocking(terminal, False)
        shown = b""
        with suppress(OSError):
            shown = os.read(terminal, 65_536)
        os.close(stderr)
        os.close(terminal)
        assert (done.returncode, b"snapshot" in shown) == (0, is_shown)


@pytest.mark.thorough
def test_stopped(command: Command) -> None:
    """Told to end, it leaves nothing at the place."""
    cluster = Cluster.read(command.path / "cluster.toml")
    ids = {
        "address_key_id": AddressKey.load(command.path / "address.key").key_id,
        "store_key_id": StoreKey.load(command.path / "store.key").key_id,
    }
    with Writer.open(command.path / "store", sealer=cluster.sealer(), **ids) as writer:  # type: ignore[arg-type] # as they are
        load(writer, 50_000)
    process = command.start("snapshot", "--json")
    copy = command.path / "store.copying" / "copy" / "data.mdb"
    while not copy.exists():
        assert process.poll() is None
    process.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    told, _ = process.communicate()
    assert process.returncode == 2
    assert json.loads(told)["error"]["reason"] == "SNAPSHOT_FAILED"
    assert list((command.path / "snapshots").iterdir()) == []
    assert not copy.exists()


@pytest.mark.thorough
def test_nothing_to_be_believed(command: Command) -> None:
    """Where none lies, or only what others made, the exit code says so."""
    absent = command.run("snapshot", "--list")
    (command.path / "snapshots").mkdir()
    none = command.run("snapshot", "--list")
    command.run("snapshot")
    SigningKey.create(command.path / "other.key")
    configured(command, 'directory = "snapshots"', "other.key")
    others = command.run("snapshot", "--list")
    told = json.loads(command.run("snapshot", "--list", "--json").stdout)

    assert (absent.returncode, none.returncode, others.returncode) == (2, 1, 1)
    assert b"snapshots.directory: " in absent.stderr
    assert b"No snapshot lies at" in none.stdout
    assert b"nobody who may make snapshots has signed it" in others.stdout
    assert (told["snapshots"], len(told["refused"])) == ([], 1)


@pytest.mark.thorough
def test_mistakes(command: Command) -> None:
    """Whatever cannot be is told in a sentence with its fix, and exit code 2."""
    SigningKey.create(command.path / "other.key")
    configured(command, 'directory = "snapshots"', "other.key")
    stranger = command.run("snapshot")
    configured(command, 'url = "https://127.0.0.1:1/snapshots"')
    url = command.run("snapshot")
    away = command.run("snapshot", "--list", "--json")
    configured(command, 'bucket = "SNAPSHOTS"')
    bucket = command.run("snapshot", "--list")
    configured(command, 'directory = "snapshots"')
    missing = command.run("snapshot", "--store", "nowhere", "--json")
    del command.environment["IYSCHECK_STORE"]
    unnamed = command.run("snapshot")
    results = (stranger, url, away, bucket, missing, unnamed)

    assert [result.returncode for result in results] == [2] * len(results)
    assert b"may sign snapshots" in stranger.stderr
    assert b"only taken from there" in url.stderr
    assert json.loads(away.stdout)["error"]["reason"] == "SNAPSHOT_PLACE_AWAY"
    assert b"NATS is not connected" in bucket.stderr
    assert not bucket.stdout
    assert json.loads(missing.stdout)["error"]["reason"] == "STORE_MISSING"
    assert b"--store" in unnamed.stderr
    assert not list(command.path.glob("nowhere*"))
    assert not (command.path / "snapshots").exists()


def test_without_nats(command: Command) -> None:
    """A maker whose snapshots lie in a directory needs no package of NATS."""
    blocked = command.path / "blocked"
    (blocked / "nats").mkdir(parents=True)
    (blocked / "nats" / "__init__.py").write_text("raise ImportError('not installed')")
    command.environment["PYTHONPATH"] = f"{blocked}:{command.environment['PYTHONPATH']}"
    assert command.run("snapshot").returncode == 0
    cluster = Cluster.read(command.path / "cluster.toml")
    assert len(manifests_at(DirectoryPlace(command.path / "snapshots"), cluster.signers("snapshots"))[0]) == 1
