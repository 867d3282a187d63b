"""What is wrong with one call, or with one reply, harms no other; and the two clients take the same calls."""

import asyncio
import inspect
from typing import Any, cast

import pytest

from iyscheck.change import Position
from iyscheck.client import AsyncBatching, AsyncClient, Batching
from iyscheck.errors import QuestionError
from iyscheck.question import Answer
from iyscheck.v1 import consent_check_pb2 as pb
from tests.client.batching.callers import Call, Together, codes, expected, numbered, reasons
from tests.client.batching.servers import Holding, Moody, told_apart
from tests.client.fake_server import KEY_ID, Service


class TestQuestions:
    """A call that cannot be right harms only itself."""

    @pytest.mark.parametrize(
        ("call", "field"),
        [
            (Call(address=None), "address"),
            (Call(token=bytes(16), address_key_id=KEY_ID), "address"),
            (Call(address=5), "address"),  # type: ignore[arg-type] # it is wrong
            (Call(address=None, token=bytes(15), address_key_id=KEY_ID), "token"),
            (Call(address=None, token=bytes(16)), "address_key_id"),
            (Call(brand=0), "brand"),
            (Call(retailer=0), "retailer"),
            (Call(channel=cast("Any", 9)), "channel"),
        ],
        ids=["neither", "both", "number", "short", "no key id", "brand", "retailer", "channel"],
    )
    def test_refused(self, service: Service, together: Together, call: Call, field: str) -> None:
        """What the other calls of its frame ask is answered."""
        service.frames = Moody([])

        ((wrong, right),) = together(service.target, [call, Call()])

        assert isinstance(wrong, QuestionError)
        assert wrong.field == field
        assert reasons([right]) == [expected(Call())]

    def test_unsendable(self, service: Service, together: Together) -> None:
        """A frame that cannot be made fails its own calls with what went wrong."""
        service.frames = Moody([])
        position = Position(cast("bytes", 5), 1)

        ((wrong, right),) = together(service.target, [Call(min_position=position), Call()])

        assert isinstance(wrong, TypeError)
        assert reasons([right]) == [expected(Call())]

    def test_wrong_frame(self, service: Service, together: Together) -> None:
        """A reply to a frame whose turn it was not is believed by nobody; the next calls have a new stream."""

        def confused(request: pb.StreamCheckRequest) -> pb.StreamCheckResponse:
            reply = told_apart(request)
            reply.frame_id += request.brand_code == 1
            return reply

        service.frames = Holding(lambda *_: False, confused)

        (first, second) = together(service.target, numbered(3), [Call(brand=2)])

        assert set(codes(first)) == {"WRONG_FRAME"}
        assert len({id(outcome) for outcome in first}) == 3  # one error raised thrice would collect three traces
        assert reasons(second) == [expected(Call(brand=2))]


class TestShape:
    """The two are one."""

    def test_same_parameters(self) -> None:
        """Both clients take the same parameters to make single checks travel together, and both take the same calls."""
        for name in ("check", "close"):
            ours, theirs = (inspect.signature(getattr(kind, name)) for kind in (Batching, AsyncBatching))
            assert ours.parameters == theirs.parameters

    def test_gathered_without_tasks(self, service: Service) -> None:
        """A call for asyncio is an awaitable that has been asked already: many can be gathered without a task each."""
        service.frames = Moody([])

        async def run() -> list[Answer]:
            async with AsyncClient(service.target) as client, client.batching() as checks:
                return await asyncio.gather(
                    *(cast("asyncio.Future[Answer]", call.ask(cast("Batching", checks))) for call in numbered(100))
                )

        assert reasons(list(asyncio.run(run()))) == [expected(call) for call in numbered(100)]
