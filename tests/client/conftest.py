"""What the tests of the clients share."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Protocol, TypeVar, cast

import pytest

from iyscheck.client import AsyncClient, Client
from iyscheck.keys import AddressKey
from tests.client.fake_server import Service, serving

T = TypeVar("T")


class Ask(Protocol):
    """Makes calls one after the other over one client, and gives their results."""

    def __call__(
        self,
        target: str,
        *calls: Callable[[Client], T],
        address_key: AddressKey | None = None,
        monotonic: bool = False,
        batch_timeout_s: float = 2,
    ) -> list[T]:
        """Ask."""


def ask_sync(
    target: str,
    *calls: Callable[[Client], T],
    address_key: AddressKey | None = None,
    monotonic: bool = False,
    batch_timeout_s: float = 2,
) -> list[T]:
    """Ask with the client for threads."""
    with Client(
        target, address_key=address_key, timeout_s=2, batch_timeout_s=batch_timeout_s, monotonic=monotonic
    ) as client:
        return [call(client) for call in calls]


def ask_async(
    target: str,
    *calls: Callable[[Client], T],
    address_key: AddressKey | None = None,
    monotonic: bool = False,
    batch_timeout_s: float = 2,
) -> list[T]:
    """Ask with the client for asyncio."""

    async def run() -> list[T]:
        async with AsyncClient(
            target, address_key=address_key, timeout_s=2, batch_timeout_s=batch_timeout_s, monotonic=monotonic
        ) as client:
            shaped = cast("Client", client)
            return [await cast("Awaitable[T]", call(shaped)) for call in calls]

    return asyncio.run(run())


@pytest.fixture(params=[ask_sync, ask_async], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Each of the two clients."""
    return cast("Ask", request.param)


async def collected(frames: AsyncIterator[T]) -> list[T]:
    """Read an asynchronous iterator to its end."""
    return [frame async for frame in frames]


@pytest.fixture
def service() -> Iterator[Service]:
    """A server of our own that a test may let misbehave."""
    with serving() as made:
        yield made
