"""Memory is bounded, and those who find no room wait for it."""

import asyncio
from typing import cast

import grpc
import pytest

from iyscheck.client import AsyncClient, Client
from iyscheck.errors import QuestionError
from iyscheck.v1 import consent_check_pb2 as pb
from tests.client.batching.callers import (
    Call,
    Outcome,
    Setting,
    Together,
    Watch,
    ask_async,
    expected,
    numbered,
    reasons,
)
from tests.client.batching.servers import Holding, Moody, recipients, told_apart
from tests.client.fake_server import Service, serving


class TestBounds:
    """Room, and who gets it."""

    @pytest.mark.parametrize("capacity", [1, 7])
    def test_back_pressure(self, service: Service, together: Together, watch: Watch, capacity: int) -> None:
        """Never more calls than allowed are outstanding or with the server, and all are answered."""
        sizes: list[int] = []

        def until_full(request: pb.StreamCheckRequest, _: grpc.ServicerContext) -> bool:
            sizes.append(len(recipients(request)))
            return not watch.come(capacity)

        service.frames = Holding(until_full)
        asked = numbered(40)

        (outcomes,) = together(service.target, asked, setting=Setting(capacity=capacity))

        assert reasons(outcomes) == [expected(call) for call in asked]
        assert max(sizes) <= capacity
        assert watch.most == capacity

    def test_room_of_the_cancelled(self) -> None:
        """Whoever waits for the room of a call that was cancelled before it left gets it when a server comes."""
        with serving() as gone:
            pass

        async def run() -> list[object]:
            async with AsyncClient(gone.target, timeout_s=20) as client, client.batching(capacity=1) as checks:
                first, second = asyncio.ensure_future(ask_async(checks)), asyncio.ensure_future(ask_async(checks))
                await asyncio.sleep(0)
                assert (checks.outstanding, checks.waiting_for_room) == (1, 1)
                first.cancel()
                with serving(gone.port) as service:
                    service.frames = Moody([])
                    return list(await asyncio.gather(first, second, return_exceptions=True))

        cancelled, answered = asyncio.run(run())

        assert isinstance(cancelled, asyncio.CancelledError)
        assert reasons([cast("Outcome", answered)]) == [expected(Call())]

    def test_order(self, service: Service, watch: Watch) -> None:
        """Tasks that wait for room get it in the order in which they came, however many come when there is some."""
        asked: list[bytes] = []

        def noted(request: pb.StreamCheckRequest) -> pb.StreamCheckResponse:
            asked.extend(recipients(request))
            return told_apart(request)

        service.frames = Holding(lambda *_: False, noted)
        first, second, third = numbered(3)

        async def run() -> None:
            async with AsyncClient(service.target, timeout_s=5) as client, client.batching(capacity=1) as checks:

                async def asks_again() -> None:
                    await ask_async(checks, first)
                    await ask_async(checks, third)

                await asyncio.gather(asks_again(), ask_async(checks, second))

        asyncio.run(run())

        assert asked == [(call.address or "").encode() for call in (first, second, third)]
        assert watch.most == 1

    @pytest.mark.parametrize(("name", "value"), [("connections", 0), ("connections", 65), ("capacity", 0)])
    def test_sizes(self, name: str, value: int) -> None:
        """A number of connections or calls that cannot be is refused."""
        with Client("127.0.0.1:1") as client, pytest.raises(QuestionError, match=name):
            client.batching(**{name: value})
