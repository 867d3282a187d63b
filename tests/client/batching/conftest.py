"""What the tests of gathered calls share."""

from collections.abc import Iterator
from typing import cast

import pytest

from tests.client.batching.callers import Together, Watch, together_async, together_sync, watched
from tests.client.batching.servers import Holding
from tests.client.fake_server import Service


@pytest.fixture(params=[together_sync, together_async], ids=["sync", "async"])
def together(request: pytest.FixtureRequest) -> Together:
    """Each of the two clients."""
    return cast("Together", request.param)


@pytest.fixture
def holding(service: Service) -> Iterator[Holding]:
    """The server of the test, which holds all frames until the test lets it go on, or ends."""
    service.frames = made = Holding()
    yield made
    made.over.set()


@pytest.fixture
def watch() -> Iterator[Watch]:
    """All calls that come to any client."""
    with watched() as made:
        yield made
