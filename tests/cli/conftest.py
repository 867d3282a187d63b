"""What the tests of the command line share."""

from collections.abc import Iterator

import pytest

from tests.client.fake_server import Service, serving


@pytest.fixture
def service() -> Iterator[Service]:
    """A server of our own that a test may let misbehave."""
    with serving() as made:
        yield made
