from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.iys.clock import VirtualClock
from tests.iys.fake import FakeIys
from tests.loader.iys.client import BRAND, CODE, PASSWORD, Client, connected, password_file


@pytest.fixture(scope="module")
def running_fake() -> Iterator[FakeIys]:
    """A fake that serves, shared by the tests of a module."""
    fake = FakeIys(clock=VirtualClock())
    with fake.running():
        yield fake


@pytest.fixture
def fake(running_fake: FakeIys) -> FakeIys:
    """A fake that serves, with a provider whose brand has rows to show."""
    running_fake.reset()
    running_fake.provider(CODE, "acme-api", PASSWORD, brands=[BRAND])
    for row in range(20):
        created_s = running_fake.clock.now() - 7200 + row
        running_fake.move(BRAND, recipient=f"+9053210000{row:02}", created_s=created_s, citizen_name="Ayşe Kimse")
    return running_fake


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the password in it."""
    password_file(tmp_path)
    return tmp_path


@pytest.fixture
def client(fake: FakeIys, folder: Path) -> Iterator[Client]:
    """A client of the fake, by its clock."""
    with connected(fake.url, fake.clock, folder) as client:
        yield client
