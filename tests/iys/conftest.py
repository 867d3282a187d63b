from collections.abc import Iterator

import httpx
import pytest

from tests.iys.asking import Asker
from tests.iys.clock import VirtualClock
from tests.iys.fake import FakeIys


@pytest.fixture(scope="module")
def running_fake() -> Iterator[FakeIys]:
    """A fake that serves, shared by the tests of a module."""
    fake = FakeIys(clock=VirtualClock())
    with fake.running():
        yield fake


@pytest.fixture
def fake(running_fake: FakeIys) -> FakeIys:
    """A fake that serves, with a provider who has two brands."""
    running_fake.reset()
    running_fake.provider(700_001, "acme", "secret", brands=[600_001, 600_002])
    return running_fake


@pytest.fixture
def asker(fake: FakeIys) -> Iterator[Asker]:
    """Somebody who asks the fake with the provider's token."""
    with httpx.Client(base_url=fake.url) as http:
        yield Asker(http, fake)
