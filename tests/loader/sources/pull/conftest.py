from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.iys.clock import VirtualClock
from tests.iys.fake import FakeIys
from tests.loader.sources.pull.mirrored import Mirrored


@pytest.fixture(scope="module")
def running_iys() -> Iterator[FakeIys]:
    """A fake İYS that serves, shared by the tests of a module."""
    fake = FakeIys(clock=VirtualClock())
    with fake.running():
        yield fake


@pytest.fixture
def mirrored(running_iys: FakeIys, tmp_path: Path) -> Iterator[Mirrored]:
    """A brand that is pulled from a fake İYS where nothing has happened yet."""
    running_iys.reset()
    mirrored = Mirrored(running_iys, tmp_path)
    yield mirrored
    mirrored.close()
