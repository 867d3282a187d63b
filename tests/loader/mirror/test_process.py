"""The mirror as a process, against a fake İYS, by the machine's clock."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from iyscheck.consent import Status
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.store import layout
from iyscheck.store.layout import SourceState
from iyscheck.store.snapshot import Store
from iyscheck.store.verification import verify
from iyscheck.store.writer import Writer
from loader.iys.messages import FeedSource
from tests.builders import a_batch
from tests.dice import thrown
from tests.iys.clock import RunningClock
from tests.iys.control import RemoteFake
from tests.iys.fake import FakeIys
from tests.iys.movements import Movement
from tests.iys.quirks import Quirks
from tests.loader.feeds import ROOT, Command, brand_row, lines
from tests.notified import notified

IYS_CODE, BRAND, FROM_FILE = 700_001, 600_001, 600_002
USER, PASSWORD = "acme-api-user", "a-made-up-password"
KILLS = 12
ROWS = 480
HOUR_S = 3_600


@pytest.fixture(name="command")
def _command(tmp_path: Path) -> Iterator[Command]:
    command = Command(tmp_path)
    yield command
    command.stop()


@pytest.fixture(name="remote")
def _remote() -> Iterator[RemoteFake]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.iys"], cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        yield RemoteFake(process.stdout.readline().decode().strip())
        process.terminate()


def write(command: Command, url: str) -> None:
    """Write a feeds file and the password."""
    (command.path / "acme.password").write_text(PASSWORD)
    (command.path / "feeds.toml").write_text(
        f'[mirror]\nurl = "{url}"\nrate = 9.0\nreconcile = false\ndirectory = "in"\n\n'
        f'[[account]]\nname = "acme"\nkind = "provider"\ncode = {IYS_CODE}\n'
        f'username = "{USER}"\npassword_file = "acme.password"\n'
    )
    (command.path / "in").mkdir()
    (command.path / "in" / "a.jsonl").write_bytes(lines([brand_row(FROM_FILE)]))
    os.utime(command.path / "in" / "a.jsonl", (0, 0))  # nobody has written to it of late
    for name in ("acme.password", "feeds.toml"):
        (command.path / name).chmod(0o600)


def seed(command: Command) -> None:
    """Say that everything of the brand up to some hours ago is in."""
    keys = AddressKey.load(command.path / "address.key"), StoreKey.load(command.path / "store.key")
    state = SourceState(name="seed", watermarks=((BRAND, int(time.time() - 5 * HOUR_S)),))
    with Writer.open(command.path / "store", address_key_id=keys[0].key_id, store_key_id=keys[1].key_id) as writer:
        writer.apply(a_batch(), state, finished=True)


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def is_registered(store: Path, brand: int) -> bool:
    """Say whether a brand is."""
    with Store.open(store) as opened, opened.snapshot() as snapshot:
        return snapshot.brand(brand).brand is not None


def watermark_age_s(store: Path) -> float:
    """Say how far behind the brand is."""
    with Store.open(store) as opened, opened.snapshot() as snapshot:
        watermark = snapshot.brand(BRAND).watermark
    return float("inf") if watermark is None else time.time() - watermark


def records(store: Path) -> list[tuple[Status, str]]:
    """Return what the store says of consents: status and transaction id of each, in the order of the latter."""
    with Store.open(store) as opened, opened.snapshot() as snapshot:
        assert verify(opened).faults == []
        found = [layout.decode_record(key, value) for key, value in snapshot.items(layout.RECORDS)]
    return sorted(((each.status, each.transaction_id) for each in found), key=lambda each: each[1])


def last_of(movements: Iterable[Movement]) -> list[tuple[Status, str]]:
    """Return what a store has to say of movements, no two of which are of one second."""
    last = {str(each.row["recipient"]): each for each in sorted(movements, key=lambda each: each.registered_s)}
    said = ((Status[str(each.row["status"])], each.transaction_id) for each in last.values())
    return sorted(said, key=lambda each: each[1])


def test_process(command: Command, remote: RemoteFake) -> None:
    """Pull once, then for good, with files: told of, ended by SIGTERM, and nowhere is a secret or an address told."""
    remote.do("provider", iys_code=IYS_CODE, username=USER, password=PASSWORD, brands=[BRAND])
    remote.do(
        "move",
        brand=BRAND,
        source="IYS",
        status="RET",
        created_s=time.time() - 2 * HOUR_S,
        recipient="+905321112233",
        citizen_name="Ayşe Örnek",
    )
    write(command, remote.url)
    pulled = command.run("pull", "--config", "feeds.toml")
    seed(command)
    (command.path / "told").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with notified(command.path / "told") as told:
        command.environment["NOTIFY_SOCKET"] = told.address
        process = command.start("mirror", "--config", "feeds.toml", "--metrics-listen", f"127.0.0.1:{port}")
        told.wait_for("READY")
        until(lambda: watermark_age_s(command.path / "store") < 2 * HOUR_S)
        until(lambda: is_registered(command.path / "store", FROM_FILE))
        command_line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        ordered = command.run("admit", str(BRAND))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as page:
            scraped = page.read()
        status = json.loads(command.run("status", "--json").stdout)
        process.send_signal(signal.SIGTERM)
        out, log = process.communicate(timeout=30)
        told.wait_for("STOPPING")

    assert process.returncode == 0
    assert status["iys"]["accounts"][0]["subscription"] == "ACTIVE"
    assert status["iys"]["requests"] > 0
    assert [stream["name"][-3:] for stream in status["streams"]] in (["IYS", ":HS"], [":HS", "IYS"])
    assert pulled.returncode == 0, pulled.stderr
    assert b"2 streams: 2 complete" in pulled.stdout
    assert b"no watermark; load a full list with --complete-until '" in pulled.stdout
    assert b'consent_iys_answers_total{answer="page"} 0.0' in scraped, "pull had it already"
    assert (ordered.returncode, ordered.stderr.count(b"\n")) == (2, 1)
    assert b"Nothing of brand 600001 waits to be admitted" in ordered.stderr, "the mirror was asked"
    assert {json.loads(line)["event"] for line in log.splitlines()} == {"account_state", "source loaded"}
    assert records(command.path / "store")
    kept = b"".join(
        path.read_bytes()
        for path in command.path.rglob("*")
        if path.is_file() and "password" not in path.name and path.name != "feeds.toml"
    )
    for secret in (PASSWORD, "5321112233", "Ayşe", "Örnek"):
        assert secret.encode() not in out + log + scraped + command_line + kept + pulled.stdout + pulled.stderr


def test_extra_missing(tmp_path: Path) -> None:
    """Without the packages of the extra, a sentence says what to install."""
    command = Command(
        tmp_path, ("-c", "import sys; sys.modules['httpx'] = None; from loader.cli.app import main; main()")
    )
    write(command, "https://api.iys.org.tr")

    told = command.run("mirror", "--config", "feeds.toml")

    assert told.returncode == 2
    assert told.stderr.count(b"\n") == 1
    assert b"pip install 'iyscheck[feeds]'" in told.stderr


@pytest.mark.crash
@pytest.mark.thorough
def test_killed(command: Command) -> None:
    """A mirror that is killed many times leaves what one leaves that never stopped: all that İYS shows, once."""
    fake = FakeIys(clock=RunningClock(), quirks=Quirks(page_cap=60))
    fake.provider(IYS_CODE, USER, PASSWORD, brands=[BRAND])
    dice = thrown()
    began = time.time() - 30 * HOUR_S
    for number in range(ROWS):
        fake.move(
            BRAND,
            dice.choice(list(FeedSource)),
            status=dice.choice(["ONAY", "RET"]),
            created_s=began + number * 200,
            recipient=f"+90532{dice.randrange(ROWS // 2):07}",
        )
    store = command.path / "store"
    with fake.running() as url:
        write(command, url)
        seed(command)
        for _ in range(KILLS):
            process = command.start("mirror", "--config", "feeds.toml")
            most = len(fake.asked("changes")) + dice.randrange(1, 9)
            until(lambda most=most: len(fake.asked("changes")) > most or watermark_age_s(store) < 2 * HOUR_S)  # type: ignore[misc] # binds it
            time.sleep(dice.uniform(0, 0.1))
            process.kill()
            process.communicate()
        process = command.start("mirror", "--config", "feeds.toml")
        until(lambda: watermark_age_s(store) < 2 * HOUR_S)
        process.kill()
        process.communicate()

    assert records(store) == last_of(fake.movements)
    assert not fake.broken_limits
