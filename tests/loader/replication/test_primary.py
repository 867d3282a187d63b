"""Commands on the machine of a primary: what makes it one, what writes it then, and what it holds; without NATS."""

import gzip
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from iyscheck.consent import Channel, Policy, RecipientType
from iyscheck.engine import Engine
from iyscheck.keys import StreamKey
from iyscheck.question import Context, Question
from iyscheck.store import layout
from iyscheck.store.environment import open_writer
from iyscheck.store.log_batch import Kind
from iyscheck.store.log_writer import LogWriter
from iyscheck.store.snapshot import Store
from iyscheck.store.verification import verify
from loader.replication.log import NatsLog
from tests.builders import ADDRESS_KEY, NOW, STORE_KEY
from tests.iys.control import RemoteFake
from tests.loader.feeds import ROOT, Command, brand_row, consent, lines, watermark_row
from tests.loader.replication.servers import one_server
from tests.loader.replication.sites import PrimarySite, until
from tests.server.conftest import write_key

OLDER = Path(__file__).parents[2] / "golden" / "store-of-format-3.mdb.gz"
"""Forty consents of brand 1, half of them ARAMA, every third one RET, with a list of retailers, watermarks, a span and
a hold; written by the last version of format 3."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[PrimarySite]:
    """A machine that can become a primary; nothing of it runs on when the test ends."""
    site = PrimarySite(Command(tmp_path))
    yield site
    site.command.stop()


def feed(site: PrimarySite, name: str = "a.jsonl", *, recipient: str = "+905321000001") -> str:
    """Write a feed file."""
    (site.path / name).write_bytes(lines([brand_row(), consent(recipient=recipient), watermark_row()]))
    return name


def begun(site: PrimarySite) -> None:
    """Make it the primary."""
    made = site.command.run("create-log", "--local", "--cluster", "cluster.toml")
    assert made.returncode == 0, made.stderr


class TestCreateLog:
    """`create-log`."""

    def test_new(self, site: PrimarySite) -> None:
        """It makes store and term, says so, and what comes next; a second time it changes nothing."""
        first = site.command.run("create-log", "--local", "--cluster", "cluster.toml")
        again = site.command.run("create-log", "--local", "--cluster", "cluster.toml", "--json")

        assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
        assert b"is now the primary of its log.\n" in first.stdout
        assert b"run this again without --local" in first.stdout
        told = json.loads(again.stdout)
        assert (told["term"], told["batch"], told["begun"], told["stream"]) == (1, 1, False, None)
        assert site.kinds() == [Kind.TERM]

    def test_filled(self, site: PrimarySite) -> None:
        """Of a store that holds something it says that replicas need a copy."""
        site.command.run("load", feed(site))
        made = site.command.run("create-log", "--local", "--cluster", "cluster.toml")

        assert b"replicas begin with a snapshot" in made.stdout
        assert site.kinds() == [Kind.REBASE]

    def test_nobody_answers(self, site: PrimarySite) -> None:
        """Where NATS is away a sentence says what failed, and no store becomes a primary."""
        made = site.command.run("create-log", "--cluster", "cluster.toml")

        assert (made.returncode, made.stdout, made.stderr.count(b"\n")) == (2, b"", 1)
        assert b"NATS (nats://127.0.0.1:1) did not do what it was asked for" in made.stderr
        assert not site.store.exists()

    def test_no_room(self, tmp_path: Path) -> None:
        """What a server of NATS cannot keep is refused by the flag that asked for it; the store is as it was."""
        with one_server(tmp_path / "nats") as server:
            command = Command(tmp_path)
            site = PrimarySite(command, [server.url])
            command.run("load", feed(site))
            several = command.run("create-log", "--cluster", "cluster.toml", "--kept-gb", "1")
            large = command.run("create-log", "--cluster", "cluster.toml", "--replicas", "1", "--kept-gb", "1000000")

        for made, flag, fix in (
            (several, b"--replicas: ", b"--replicas 1"),
            (large, b"--kept-gb: ", b"max_file_store"),
        ):
            assert (made.returncode, made.stdout, made.stderr.count(b"\n")) == (2, b"", 1)
            assert flag in made.stderr
            assert fix in made.stderr
        with Store.open(site.store) as store, store.snapshot() as snapshot:
            assert snapshot.log is None

    def test_other_log(self, tmp_path: Path) -> None:
        """A stream in which another log lies is refused, to a new store and to one with a log of its own."""
        with one_server(tmp_path / "nats") as server:
            (tmp_path / "other").mkdir()
            other = PrimarySite(Command(tmp_path / "other"))
            begun(other)
            log = NatsLog.connect(server.settings())
            log.create_stream(replicas=1, kept_bytes=10**9)
            log.append(0, other.outbox()[0])
            log.close()
            command = Command(tmp_path)
            site = PrimarySite(command, [server.url])
            new = command.run("create-log", "--cluster", "cluster.toml", "--replicas", "1")
            is_there = site.store.exists()
            begun(site)
            own = command.run("create-log", "--cluster", "cluster.toml", "--replicas", "1")

        for made in (new, own):
            assert (made.returncode, made.stdout, made.stderr.count(b"\n")) == (2, b"", 1)
            assert b"nats.stream: in IYS lies the log " in made.stderr
        assert not is_there

    def test_replica(self, site: PrimarySite) -> None:
        """A replica is promoted, not made anew."""
        begun(site)
        become_replica(site.store)
        made = site.command.run("create-log", "--local", "--cluster", "cluster.toml")

        assert made.returncode == 2
        assert b"iyscheck-loader promote" in made.stderr


def become_replica(path: Path) -> None:
    """Let a store follow its log."""
    with Store.open(path) as store:
        ids = store.meta(layout.META_ADDRESS_KEY_ID), store.meta(layout.META_STORE_KEY_ID)
    with LogWriter.open(path, address_key_id=ids[0], store_key_id=ids[1]) as writer:
        writer.become_replica()


class TestLoading:
    """Commands that write a store which is in a log."""

    def test_told(self, site: PrimarySite) -> None:
        """Whatever writes a primary tells its log, by the cluster file that made it one."""
        begun(site)
        loaded = site.command.run("load", feed(site))
        (site.path / "b.jsonl").write_bytes(lines([consent(recipient="?")]))
        rejected = site.command.run("load", "b.jsonl")
        accepted = site.command.run("accept-rejects", "b.jsonl")
        rebuilt = site.command.run("rebuild-index")

        assert [each.returncode for each in (loaded, rejected, accepted, rebuilt)] == [0, 1, 0, 0], accepted.stderr
        assert site.kinds() == [Kind.TERM, Kind.CHANGES, Kind.CHANGES, Kind.CHANGES]
        assert site.command.run("digest", "--recompute").returncode == 0

    @pytest.mark.thorough
    def test_moved(self, site: PrimarySite) -> None:
        """A cluster file that lies elsewhere now is named by the environment; without it nothing is loaded."""
        begun(site)
        (site.path / "cluster.toml").rename(site.path / "other.toml")
        refused = site.command.run("load", feed(site))
        site.command.environment["IYSCHECK_CLUSTER"] = str(site.path / "other.toml")
        loaded = site.command.run("load", "a.jsonl")

        assert (refused.returncode, refused.stderr.count(b"\n")) == (2, 1)
        assert b"cluster.toml" in refused.stderr
        assert loaded.returncode == 0
        assert site.batch() == 2

    def test_replica(self, site: PrimarySite) -> None:
        """A replica is not loaded, which is said before anything is read; its index may be rebuilt."""
        begun(site)
        become_replica(site.store)
        refused = site.command.run("load", "nowhere.jsonl")
        rebuilt = site.command.run("rebuild-index")

        assert (refused.returncode, refused.stderr.count(b"\n")) == (2, 1)
        assert b"is a replica: only its log changes it." in refused.stderr
        assert rebuilt.returncode == 0
        assert site.batch() == 1

    def test_in_no_log(self, tmp_path: Path) -> None:
        """For a store that is in no log nothing of replication is imported."""
        program = (
            "import atexit, sys; from loader.cli.app import main\n"
            "def tell(): print([name for name in sys.modules if name.startswith(('loader.replication', 'nats'))])\n"
            "atexit.register(tell); main()"
        )
        command = Command(tmp_path, ("-c", program))
        (tmp_path / "a.jsonl").write_bytes(lines([brand_row()]))

        loaded = command.run("load", "a.jsonl")

        assert loaded.returncode == 0, loaded.stderr
        assert loaded.stdout.endswith(b"\n[]\n")

    @pytest.mark.parametrize(
        "arguments",
        [("load", "a.jsonl"), ("publish",), ("snapshot",), ("create-log", "--local")],
        ids=lambda each: each[0],
    )
    def test_other_stream_key(self, site: PrimarySite, arguments: tuple[str, ...]) -> None:
        """A stream key other than that of the log is refused: replicas could read nothing of what came from then on."""
        begun(site)
        feed(site)
        StreamKey.create(site.path / "other.key")
        ids = [StreamKey.load(site.path / name).key_id.hex() for name in ("other.key", "stream.key")]
        wrong = site.path / "wrong.toml"
        wrong.write_text(site.cluster.read_text().replace("stream.key", "other.key"))
        wrong.chmod(0o600)
        site.command.environment["IYSCHECK_CLUSTER"] = str(wrong)

        refused = site.command.run(*arguments)

        assert (refused.returncode, refused.stderr.count(b"\n")) == (2, 1)
        assert b"stream_key: " in refused.stderr
        assert all(key_id.encode() in refused.stderr for key_id in ids)
        assert site.batch() == 1

    @pytest.mark.thorough
    def test_follow(self, site: PrimarySite) -> None:
        """A primary that has nothing to load says that it lives, however seldom it looks."""
        begun(site)
        (site.path / "in").mkdir()
        process = site.command.start("follow", "in", "--poll-seconds", "600")
        until(lambda: site.batch() >= 3)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)

        assert process.returncode == 0, log
        assert set(site.kinds()[1:]) == {Kind.HEARTBEAT}

    @pytest.mark.thorough
    def test_mirror(self, site: PrimarySite) -> None:
        """So does a mirror."""
        with subprocess.Popen(
            [sys.executable, "-m", "tests.iys"], cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        ) as fake:
            assert fake.stdout is not None
            remote = RemoteFake(fake.stdout.readline().decode().strip())
            remote.do("provider", iys_code=700_001, username="a-user", password="a-made-up-password", brands=[600_001])  # noqa: S106 - of a fake
            (site.path / "acme.password").write_text("a-made-up-password")
            (site.path / "feeds.toml").write_text(
                f'[mirror]\nurl = "{remote.url}"\nreconcile = false\n\n[[account]]\nname = "acme"\nkind = "provider"\n'
                'code = 700001\nusername = "a-user"\npassword_file = "acme.password"\n'
            )
            for name in ("acme.password", "feeds.toml"):
                (site.path / name).chmod(0o600)
            begun(site)
            process = site.command.start("mirror", "--config", "feeds.toml")
            until(lambda: site.kinds().count(Kind.HEARTBEAT) >= 2)
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=60)
            fake.terminate()
        assert process.returncode == 0, log


class TestStatus:
    """`status`."""

    @pytest.mark.thorough
    def test_of_a_log(self, site: PrimarySite) -> None:
        """It says how a store stands in its log, and of a replica how old its newest batch is."""
        site.command.run("load", feed(site))
        told = [json.loads(site.command.run("status", "--json").stdout)["log"]]
        begun(site)
        told.append(json.loads(site.command.run("status", "--json").stdout)["log"])
        primary = site.command.run("status").stdout
        become_replica(site.store)
        replica = json.loads(site.command.run("status", "--json").stdout)["log"]
        text = site.command.run("status").stdout

        assert told == [None, {"role": "primary", "term": 1, "batch": 1, "lag_seconds": None, "untrusted": ""}]
        assert b"\nprimary of its log: batch 1 of term 1\n" in primary
        assert (replica["role"], replica["batch"]) == ("replica", 1)
        assert replica["lag_seconds"] >= 0
        assert b"\nreplica of its log: batch 1 of term 1, made " in text


class TestReplicate:
    """`replicate`."""

    def test_no_room_for_a_store(self, site: PrimarySite) -> None:
        """A place where no directory can be made is named, with its flag."""
        refused = site.command.run("replicate", "--store", "/proc/x/store", "--cluster", "cluster.toml")

        assert refused.returncode == 2
        assert b"--store: '/proc/x/store' cannot be made: No such file or directory." in refused.stderr


class TestDigest:
    """`digest`."""

    @pytest.mark.thorough
    def test_same(self, site: PrimarySite) -> None:
        """It says where the store is and what it holds, of each brand, and that it is so."""
        begun(site)
        site.command.run("load", feed(site))
        told = json.loads(site.command.run("digest", "--brands", "--recompute", "--json").stdout)
        text = site.command.run("digest", "--brands", "--recompute")

        assert (told["role"], told["term"], told["batch"], told["sequence"]) == ("primary", 1, 2, 3)
        assert told["digest"] == told["recomputed"]
        assert told["differing_brands"] == []
        parts = {int(brand): int(total, 16) for brand, total in told["brands"].items()}
        assert set(parts) == {0, 1}
        assert sum(parts.values()) % 2**128 == int(told["digest"], 16)
        assert text.returncode == 0
        assert text.stdout.count(told["digest"].encode()) == 2

    @pytest.mark.thorough
    def test_differs(self, site: PrimarySite) -> None:
        """A brand that is not what its digest says is named."""
        begun(site)
        site.command.run("load", feed(site))
        environment = open_writer(site.store)
        with environment.lmdb.begin(write=True) as txn, txn.cursor(environment.databases[layout.RECORDS]) as cursor:
            assert cursor.last()
            cursor.put(cursor.key(), cursor.value()[:-1] + b"\xff")
        environment.close()

        kept = site.command.run("digest")
        told = site.command.run("digest", "--recompute", "--json")
        text = site.command.run("digest", "--recompute")

        assert (kept.returncode, told.returncode, text.returncode) == (0, 1, 1)
        assert json.loads(told.stdout)["differing_brands"] == [1]
        assert b"\nbrand 1 differs\n" in text.stdout

    def test_in_no_log(self, site: PrimarySite) -> None:
        """A store that is in no log has none."""
        site.command.run("load", feed(site))
        told = site.command.run("digest")
        assert told.returncode == 2
        assert b"is in no log" in told.stderr


class TestUpgrade:
    """A store of format 3."""

    @pytest.fixture
    def command(self, tmp_path: Path) -> Command:
        """The loader beside such a store."""
        command = Command(tmp_path)
        (tmp_path / "store").mkdir()
        (tmp_path / "store" / "data.mdb").write_bytes(gzip.decompress(OLDER.read_bytes()))
        for name, key in (("address.key", ADDRESS_KEY), ("store.key", STORE_KEY)):
            (tmp_path / name).unlink()
            write_key(tmp_path / name, key)
        return command

    def answers(self, path: Path) -> list[str]:
        """Ask an engine about all that is in it, and what is not."""
        engine = Engine(
            Store.open(path),
            store_key=STORE_KEY,
            address_key=ADDRESS_KEY,
            policy=Policy(),
            answer_ttl_s=300,
            clock=lambda: NOW,
        )
        with engine:
            return [
                engine.check(
                    Question(
                        context=Context(brand=brand, channel=channel, recipient_type=RecipientType.BIREYSEL),
                        address=f"+90532100{number:04}",
                    )
                ).reason.name
                for brand in (1, 2)
                for channel in (Channel.ARAMA, Channel.MESAJ)
                for number in range(41)
            ]

    def test_read(self, command: Command) -> None:
        """Who reads it leaves it as it is."""
        found = self.answers(command.path / "store")
        assert {"CONSENTED", "REFUSED"} <= set(found)
        with Store.open(command.path / "store") as store:
            assert layout.decode_number(store.meta(layout.META_FORMAT)) == 3
            assert verify(store).faults == []

    def test_loaded(self, command: Command) -> None:
        """A loader makes it one of format 4, which it says once, and changes no answer."""
        before = self.answers(command.path / "store")
        (command.path / "a.jsonl").write_bytes(b"")
        first = command.run("load", "a.jsonl", "--json")
        again = command.run("load", "a.jsonl", "--json")

        assert (first.returncode, again.returncode) == (0, 0), first.stderr
        told = "was upgraded from format 3 to 4; versions of iyscheck that do not know format 4 no longer open it.\n"
        assert first.stderr.decode().count(told) == 1
        assert again.stderr == b""
        assert (json.loads(first.stdout)["upgraded_from"], json.loads(again.stdout)["upgraded_from"]) == (3, None)
        assert self.answers(command.path / "store") == before
        with Store.open(command.path / "store") as store:
            assert verify(store).faults == []

    def test_followed(self, command: Command) -> None:
        """A loader that stays logs it."""
        (command.path / "in").mkdir()
        process = command.start("follow", "in")
        until(lambda: position_format(command.path / "store") == 4)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
        assert [json.loads(line)["event"] for line in log.splitlines()] == ["store_upgraded"]

    def test_becomes_primary(self, command: Command) -> None:
        """It may become a primary at once, and then replicas need a copy."""
        site = PrimarySite(command)
        made = command.run("create-log", "--local", "--cluster", "cluster.toml")
        assert made.returncode == 0, made.stderr
        assert b"was upgraded from format 3 to 4" in made.stderr
        assert site.kinds() == [Kind.REBASE]
        assert command.run("digest", "--recompute").returncode == 0


def position_format(path: Path) -> int:
    """Return the format of a store."""
    with Store.open(path) as store:
        return layout.decode_number(store.meta(layout.META_FORMAT))
