"""The files of an open store are replaced or removed: nobody is answered from the past, nothing is written over."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from iyscheck.consent import Channel, MessageClass, Reason, RecipientType, Status
from iyscheck.engine import Engine, opened
from iyscheck.errors import StoreError, StoreReplacedError
from iyscheck.question import Answer, Context, Question
from iyscheck.store.environment import DATA_FILE, LOCK_FILE, Environment, newest_in_file, open_reader
from iyscheck.store.layout import SourceState
from iyscheck.store.snapshot import Store
from tests.builders import ADDRESS_KEY, NOW, STORE_KEY, StoreBuilder, a_batch, a_brand, a_change
from tests.server.conftest import CONSENTED, make_site, serve
from tests.test_lifetimes import wait_until

RECIPIENT = "+905321000001"
WHO = Context(brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)
ROOT = Path(__file__).parent.parent


def fill(path: Path, status: Status) -> Path:
    """Make a store in which somebody consented or refused."""
    with StoreBuilder(path) as builder:
        builder.brand(now=True).consent(recipient=RECIPIENT, status=status).commit()
    return path


def open_engine(path: Path) -> Engine:
    """Open a store of the tests' keys."""
    return Engine.open(path, store_key=STORE_KEY, address_key=ADDRESS_KEY)


def asked(engine: Engine, message_class: MessageClass = MessageClass.COMMERCIAL) -> list[Reason]:
    """Ask singly, in a batch and in a column."""
    context = Context(brand=1, channel=WHO.channel, recipient_type=WHO.recipient_type, message_class=message_class)
    (item,) = engine.check_many([Question(context=context, address=RECIPIENT)])
    assert isinstance(item, Answer)
    column = engine.check_column(context, addresses=[RECIPIENT]).reasons
    return [engine.check(Question(context=context, address=RECIPIENT)).reason, item.reason, Reason(int(column[0]))]


@pytest.fixture(autouse=True)
def _look_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let engines look at each question whether the files are still the same."""
    monkeypatch.setattr(opened, "LOOK_S", 0.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store in which somebody consented."""
    return fill(tmp_path / "store", Status.ONAY)


class TestEngine:
    """An engine over files that are not those of the path any more."""

    def test_new_store(self, path: Path) -> None:
        """A store that is put in the place of the open one answers, in every way to ask; and so does the next one."""
        fill(path.with_name("green"), Status.RET)
        fill(path.with_name("blue"), Status.UNKNOWN)
        with open_engine(path) as engine:
            met = [asked(engine)]
            for name in ("green", "blue"):
                path.rename(path.with_name(f"before {name}"))
                path.with_name(name).rename(path)
                met.append(asked(engine))

        assert met == [[reason] * 3 for reason in (Reason.CONSENTED, Reason.REFUSED, Reason.STATUS_UNKNOWN)]

    def test_symbolic_link(self, path: Path) -> None:
        """A link that is switched to another store is followed."""
        green, link = fill(path.with_name("green"), Status.RET), path.with_name("link")
        link.symlink_to(path)
        with open_engine(link) as engine:
            before = asked(engine)
            link.unlink()
            link.symlink_to(green)
            after = asked(engine)

        assert (before, after) == ([Reason.CONSENTED] * 3, [Reason.REFUSED] * 3)

    @pytest.mark.parametrize("gone", [".", DATA_FILE, LOCK_FILE])
    def test_gone(self, path: Path, gone: str) -> None:
        """While the store or a file of it is away nothing commercial is permitted; when it is back all is as before."""
        target, away = path / gone if gone != "." else path, path.with_name("away")
        with open_engine(path) as engine:
            target.rename(away)
            stale, exempt = asked(engine), asked(engine, MessageClass.SECURITY_CODE)
            with pytest.raises(StoreError):
                engine.freshness()
            if gone == LOCK_FILE and (path / LOCK_FILE).exists():
                (path / LOCK_FILE).unlink()
            away.rename(target)
            after = asked(engine)

        assert stale == [Reason.DATA_STALE] * 3
        assert exempt == [Reason.EXEMPT_MESSAGE] * 3
        assert after == [Reason.CONSENTED] * 3

    def test_other_keys(self, path: Path) -> None:
        """A store of other keys in its place is no store to answer from."""
        with open_engine(path) as engine:
            path.rename(path.with_name("old"))
            from iyscheck.store.writer import Writer

            Writer.open(path, address_key_id=bytes(8), store_key_id=bytes(8)).close()
            found = asked(engine)

        assert found == [Reason.DATA_STALE] * 3


class TestWriter:
    """A loader whose files were replaced under it."""

    @pytest.mark.parametrize("name", [DATA_FILE, LOCK_FILE, "."])
    def test_refused(self, path: Path, name: str) -> None:
        """Nothing is committed any more: the error says that the files were replaced."""
        target = path / name if name != "." else path
        with StoreBuilder(path) as builder:
            target.rename(path.with_name("away"))
            if name != ".":
                shutil.copyfile(path.with_name("away"), target)
            with pytest.raises(StoreReplacedError, match="replaced, moved or removed"):
                builder.writer.apply(a_batch([a_change(status=Status.RET)]), SourceState(name="a"))

    def test_in_the_middle(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Files that are replaced while a transaction is made are noticed before it is committed."""
        with StoreBuilder(path) as builder:
            before = builder.writer.position
            usual, calls = Environment.refuse_replaced, []

            def second(environment: Environment) -> None:
                calls.append(1)
                if len(calls) == 2:
                    raise StoreReplacedError("replaced")
                usual(environment)

            monkeypatch.setattr(Environment, "refuse_replaced", second)
            with pytest.raises(StoreReplacedError):
                builder.writer.apply(a_batch([a_change(status=Status.RET)]), SourceState(name="a"))

            assert builder.writer.position == before


HOLD = """
import sys
from iyscheck.store.snapshot import Store

store = Store.open(sys.argv[1])
print(1, flush=True)
sys.stdin.read()
"""


class TestMixedPair:
    """A backup's data file beside the lock file of a living process."""

    @pytest.fixture
    def mixed(self, path: Path) -> Iterator[Path]:
        """Take a backup, commit refusals, and put it back while another process has the store open."""
        backup = path.with_name("backup")
        shutil.copyfile(path / DATA_FILE, backup)
        with StoreBuilder(path) as builder:
            for number in range(3):
                builder.writer.apply(
                    a_batch([a_change(status=Status.RET, registered=NOW - 10 + number)]), SourceState(name="a")
                )
        command = [sys.executable, "-c", HOLD, str(path)]
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"1\n"
            backup.replace(path / DATA_FILE)
            yield path
            holder.communicate(b"")

    def test_refused(self, mixed: Path) -> None:
        """Neither reader nor writer opens it, and the error says what to stop and remove."""
        for open_it in (Store.open, open_engine, StoreBuilder):
            with pytest.raises(StoreReplacedError, match=r"do not belong together.*Stop every process.*lock\.mdb"):
                open_it(mixed)


COMMITS = """
import sys
from tests.builders import StoreBuilder

with StoreBuilder(sys.argv[1]) as builder:
    print("open", flush=True)
    for number in range(60):
        builder.consent(tag=number.to_bytes(16)).commit()
"""


def test_beside_a_writer(path: Path) -> None:
    """While another process commits as fast as it can, no look takes the store for a mixed one."""
    command = [sys.executable, "-c", COMMITS, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as writer, Store.open(path) as store:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"open\n"
        seen = set()
        while writer.poll() is None:
            store.environment.refuse_replaced()
            seen.add(store.environment.last_transaction_id())

    assert writer.returncode == 0
    assert len(seen) > 10


CANNOT_MOUNT = 77
OVERLAY = f"""
cd "$1" && mkdir upper work merged || exit 1
mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged || exit {CANNOT_MOUNT}
cd "$2" && exec "$3" -c "$4" "$1/merged"
"""
IN_OVERLAY = """
import os, subprocess, sys
from pathlib import Path
from iyscheck.consent import Reason, Status, permits
from iyscheck.errors import StoreReplacedError
from tests.test_replaced import WHO, asked, open_engine, opened
from tests.test_lifetimes import wait_until

opened.LOOK_S = 0.0
early, late = (Path(sys.argv[1]) / name for name in ("early", "late"))
usual = os.open
first = open_engine(early)
def read_only(path, flags, *rest):
    if Path(os.fsdecode(path)).name == "data.mdb" and flags & os.O_RDWR:
        raise PermissionError(path)
    return usual(path, flags, *rest)
os.open = read_only  # as for a user who may only read the data file
second = open_engine(late)
os.open = usual
assert [asked(engine) for engine in (first, second)] == [[Reason.CONSENTED] * 3] * 2
refuse = "import sys; from tests.test_replaced import *; refuse(Path(sys.argv[1]))"
for path in (early, late):
    subprocess.run([sys.executable, "-c", refuse, path], check=True)
print([reason.name for reason in asked(first)])
assert not any(permits(reason) for reason in asked(second))
try:
    second.freshness()
except StoreReplacedError as error:
    print(error.fix)
"""


def refuse(path: Path) -> None:
    """Let somebody who consented refuse now."""
    with StoreBuilder(path) as builder:
        builder.consent(recipient=RECIPIENT, status=Status.RET, registered=NOW).commit()


def test_overlay(path: Path) -> None:
    """A container's file system copies a file up when it is first written to, under those who read the lower one.

    Whoever may write to the file has it copied before mapping it. Anybody else notices, permits nothing, and says why.
    """
    path.with_name("lower").mkdir()
    for name in ("early", "late"):
        shutil.copytree(path, path.with_name("lower") / name)
    command = ["unshare", "-Urm", "sh", "-c", OVERLAY, "sh", path.parent, ROOT, sys.executable, IN_OVERLAY]
    try:
        ran = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=120)
    except FileNotFoundError:
        pytest.skip("NOT TESTED: there is no unshare here (Debian package util-linux)")
    if ran.returncode == CANNOT_MOUNT or "unshare" in ran.stderr:
        pytest.skip(f"NOT TESTED: this user cannot mount an overlay here: {ran.stderr.strip()}")

    refused, fix = ran.stdout.splitlines()
    assert refused == str(["REFUSED"] * 3), ran.stderr
    assert fix.startswith("Start this process again.")


def test_newest_in_file(path: Path) -> None:
    """What is read of the file's meta pages is LMDB's own number of the newest transaction, commit after commit."""
    with StoreBuilder(path) as builder:
        for number in range(5):
            builder.writer.apply(a_batch(brands=[a_brand(number + 2)]), SourceState(name="a"))

            assert newest_in_file(path) == builder.writer.environment.last_transaction_id()


def test_shared(path: Path) -> None:
    """Readers of one process share what is open, and each knows which files these are."""
    first, second = open_reader(path), open_reader(path)

    assert first.files == second.files is not None


def test_server(tmp_path: Path) -> None:
    """A server whose store is moved away says so within a second, permits nothing commercial, and heals by itself."""
    site = make_site(tmp_path)
    with serve(site, metrics_listen="127.0.0.1:0") as served, grpc.insecure_channel(served.server.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)  # the stubs forget its calls

        def serving() -> bool:
            return bool(health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING)

        wait_until(serving)
        (site.path / "store").rename(site.path / "away")
        wait_until(lambda: not serving())
        question = Question(context=WHO, address=CONSENTED)
        stale = served.server.engine.check(question).reason
        readable = served.metric("consent_store_readable")
        (site.path / "away").rename(site.path / "store")
        wait_until(serving)
        after = served.server.engine.check(question).reason

    assert (stale, readable, after) == (Reason.DATA_STALE, 0, Reason.CONSENTED)
    assert served.events("store_unreadable")
