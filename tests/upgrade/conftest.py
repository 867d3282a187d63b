"""Versions of the product, and a store that yesterday's loader has written."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.upgrade.machines import Machine
from tests.upgrade.versions import Version


@pytest.fixture(scope="session")
def today() -> Version:
    """The version of these tests."""
    return Version.today()


@pytest.fixture(scope="session")
def yesterday(tmp_path_factory: pytest.TempPathFactory) -> Version:
    """The last version before replicas."""
    return Version.yesterday(tmp_path_factory.mktemp("yesterday"))


@pytest.fixture(scope="session")
def _written(yesterday: Version, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    machine = Machine.make(tmp_path_factory.mktemp("written"))
    machine.load(yesterday)
    return machine


@pytest.fixture
def machine(_written: Machine, tmp_path: Path) -> Iterator[Machine]:
    """A machine whose store yesterday's loader has written."""
    machine = _written.copied(tmp_path / "machine")
    yield machine
    machine.stop()
