"""`reconcile`, as a process against a fake İYS."""

import json
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from iyscheck.keys import AddressKey, StoreKey
from iyscheck.store.layout import SourceState
from iyscheck.store.writer import Writer
from loader.archive.container import Content
from loader.iys.clock import SystemClock
from tests.builders import a_batch, a_brand
from tests.iys.days import day_of, midnight_s
from tests.iys.fake import FakeIys
from tests.iys.faults import Fault
from tests.loader.feeds import Command

BRAND, IYS_CODE = 600_001, 700_001
SECRETS = (b"5321000", b"made up", b"Bearer", b"eyJ")


@pytest.fixture(scope="module", name="served")
def _served() -> Iterator[FakeIys]:
    fake = FakeIys(clock=SystemClock())
    with fake.running():
        yield fake


class Office:
    """A command, its feeds file, and a fake İYS on which something moved the day before yesterday."""

    def __init__(self, path: Path, fake: FakeIys) -> None:
        self.path = path
        self.fake = fake
        self.command = Command(path)
        self.day = day_of(time.time()) - timedelta(days=2)
        fake.reset()
        fake.provider(IYS_CODE, "acme", "made up", brands=[BRAND])
        account = f'name = "acme"\nkind = "provider"\ncode = {IYS_CODE}\nusername = "acme"\npassword_file = "password"'
        for name, text in (
            ("password", "made up"),
            ("feeds.toml", f'[mirror]\nurl = "{fake.url}"\n[[account]]\n{account}'),
        ):
            (path / name).write_text(text)
            (path / name).chmod(0o600)
        address_key, store_key = AddressKey.load(path / "address.key"), StoreKey.load(path / "store.key")
        seed = SourceState(name="seed", watermarks=((BRAND, int(midnight_s(self.day))),))
        with Writer.open(path / "store", address_key_id=address_key.key_id, store_key_id=store_key.key_id) as writer:
            writer.apply(a_batch(brands=[a_brand(BRAND)]), seed, finished=True)
        for number, status in enumerate(("ONAY", "RET")):
            created_s = midnight_s(self.day) + 3600 * number
            fake.move(BRAND, "IYS", status=status, created_s=created_s, recipient=f"+90532100000{number}")

    def reconcile(self, *flags: str, brand: int = BRAND) -> subprocess.CompletedProcess[bytes]:
        """Run the command; what it prints has neither addresses nor secrets."""
        done = self.command.run("reconcile", str(brand), "--config", "feeds.toml", *flags)
        assert not any(secret in done.stdout + done.stderr for secret in SECRETS)
        return done


@pytest.fixture(name="office")
def _office(served: FakeIys, tmp_path: Path) -> Office:
    return Office(tmp_path, served)


def test_proved(office: Office) -> None:
    """A day is fetched, proved and archived, its stamp is judged; with --agree it is agreed to when nothing is new."""
    (office.path / "root.pem").write_bytes(office.fake.stamp_root)
    flags = ("--date", str(office.day), "--agree", "--json", "--tsa-root", "root.pem")

    first, second = office.reconcile(*flags), office.reconcile(*flags)

    (report,), (again,) = (json.loads(done.stdout)["days"] for done in (first, second))
    assert (first.returncode, report["state"], report["proved_by"]) == (0, "proved", "hash")
    assert (report["rows"], report["applied"]["refusals"], report["archived"]) == ({"HS": 0, "IYS": 2}, 1, True)
    assert report["timestamp"] == {"bound": True, "chain": True}
    assert (report["agreement"]["agreed"], again["agreement"]["agreed"]) == (False, True)
    assert office.fake.agreed == {(BRAND, office.day)}
    (kept,) = (office.path / "store.iys" / "archive").iterdir()
    with kept.open("rb") as file:
        content = Content(file, AddressKey.load(office.path / "address.key"), "").read(10**6)
    assert content == office.fake.file(BRAND, office.day)
    assert not [*office.path.glob("store.iys/*.csv*")]


def test_unproved(office: Office) -> None:
    """A day that is not proved is exit code 1, and people are told why, in words."""
    office.fake.tell_day(BRAND, office.day, process_status="error", pending=3)

    done = office.reconcile("--date", str(office.day))

    assert done.returncode == 1
    until = f"complete until {office.day - timedelta(days=1)}T21:00:00Z"
    assert done.stdout.decode().splitlines() == [
        f"brand {BRAND}, {office.day}: unproved; PENDING, OTHER_ROWS; 2 rows; {until}",
        "  İYS gives no digest, and has movements of that day which it did not finish.",
        "  İYS gives no digest, and its summaries count other rows than the file has.",
    ]


def test_errors(office: Office) -> None:
    """What İYS refuses, and brands that nobody lists, are errors: exit code 2 and a way out."""
    office.fake.plan("agreement", Fault.forbidden())

    refused = office.reconcile("--date", str(office.day), "--json")
    unlisted = office.reconcile("--date", str(office.day), brand=7)

    assert [done.returncode for done in (refused, unlisted)] == [2, 2]
    (error,) = json.loads(refused.stdout)["errors"]
    assert (error["brand"], error["reason"]) == (BRAND, "IYS_FAILED")
    assert "H353" in error["message"]
    assert b"lists brand 7" in unlisted.stderr
