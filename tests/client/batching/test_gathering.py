"""How calls gather into frames, and which lines the frames take."""

import asyncio

import grpc
import pytest

from iyscheck.client import AsyncClient
from iyscheck.client.batching.ledger import WINDOW, Patience
from iyscheck.errors import ServiceFailedError
from iyscheck.question import Answer
from iyscheck.v1 import consent_check_pb2 as pb
from tests.client.batching.callers import (
    Call,
    Setting,
    Together,
    Watch,
    ask_async,
    codes,
    expected,
    numbered,
    reasons,
)
from tests.client.batching.servers import Frames, Holding, Meeting, Moody, Replies, recipients, refusal, told_apart
from tests.client.fake_server import Service, envelope


class TestGathering:
    """Calls that come together travel together, without anybody waiting for others to come."""

    def test_few_frames(self, service: Service, together: Together, watch: Watch) -> None:
        """What gathers while as many frames as may be are on their way leaves as one."""
        frames: list[int] = []

        def all_asked(request: pb.StreamCheckRequest, _: grpc.ServicerContext) -> bool:
            frames.append(len(recipients(request)))
            return not watch.come(50)

        service.frames = Holding(all_asked)

        together(service.target, numbered(50))

        assert sum(frames) == 50
        assert len(frames) <= WINDOW + 1

    def test_mixed(self, service: Service, together: Together) -> None:
        """Each frame holds what differs in nothing else."""
        service.frames = Moody([])
        asked = [
            Call(address=f"+9050000{number:05}", brand=1 + number % 2, retailer=(None, 66)[number // 2 % 2])
            for number in range(40)
        ]

        (outcomes,) = together(service.target, asked)

        assert reasons(outcomes) == [expected(call) for call in asked]

    def test_several_connections(self, service: Service, together: Together) -> None:
        """With several connections frames travel by all of them."""
        meeting = service.frames = Meeting(3)
        asked = [Call(address=f"+9050000{number:05}", brand=1 + number) for number in range(12)]

        (outcomes,) = together(service.target, asked, setting=Setting(connections=3))

        assert reasons(outcomes) == [expected(call) for call in asked]
        assert len(meeting.peers) == 3

    def test_other_line(self, service: Service, together: Together, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a broken line owed leaves by another one at once, however long the broken one is left alone."""
        monkeypatch.setattr(Patience, "next_s", lambda _: 60.0)
        meeting = Meeting(2)
        broken: list[str] = []

        def breaks_once(requests: Frames, context: grpc.ServicerContext) -> Replies:
            for request in requests:
                meeting.wait(context)
                if request.brand_code == 99 and not broken:
                    broken.append(context.peer())
                    context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
                yield told_apart(request)

        service.frames = breaks_once
        many = [Call(address=f"+9050000{number:05}", brand=1 + number) for number in range(12)]

        *_, last = together(service.target, many, [Call(brand=99)], setting=Setting(connections=2))

        assert reasons(last) == [expected(Call(brand=99))]
        assert len(meeting.peers) == 2
        assert len(broken) == 1

    def test_new_limits(self, service: Service, together: Together, watch: Watch) -> None:
        """When the server takes only smaller frames from now on, one frame fails and the next ones are smaller."""
        asked = numbered(30)

        def limited(request: pb.StreamCheckRequest) -> pb.StreamCheckResponse:
            if watch.calls > len(asked):
                watch.come(2 * len(asked))  # they fill three frames at most: one of them has ten calls or more
                if len(recipients(request)) > 3:
                    service.limits.max_frame_recipients = 3
                    return refusal(request, "BATCH_TOO_LARGE")
            return told_apart(request)

        service.frames = Holding(lambda *_: False, limited)

        first, second, third = together(service.target, asked, asked, asked)

        failed = [each for each in second if not isinstance(each, Answer)]
        assert set(codes(failed)) == {"BATCH_TOO_LARGE"}
        assert [reasons(each) for each in (first, third)] == [[expected(call) for call in asked]] * 2

    def test_one_turn(self, service: Service) -> None:
        """What is asked in one turn of the loop travels in one frame, also where a line has room already."""
        frames: list[int] = []

        def noted(request: pb.StreamCheckRequest) -> pb.StreamCheckResponse:
            frames.append(len(recipients(request)))
            return told_apart(request)

        service.frames = Holding(lambda *_: False, noted)

        async def run() -> None:
            async with AsyncClient(service.target, timeout_s=5) as client, client.batching() as checks:
                await ask_async(checks)
                await asyncio.gather(*(ask_async(checks, call) for call in numbered(100)))

        asyncio.run(run())

        assert frames == [1, 100]


class TestMonotonic:
    """Read your writes, as everywhere else."""

    def test_asks_on(self, service: Service, together: Together) -> None:
        """A monotonic client asks from the last position it has seen."""
        together(service.target, [Call()], [Call()], setting=Setting(monotonic=True))

        frames = [frame for frame in service.requests if isinstance(frame, pb.StreamCheckRequest)]
        assert [frame.HasField("min_position") for frame in frames] == [False, True]

    def test_went_back(self, service: Service, together: Together) -> None:
        """An answer from before the position that was asked for is an error."""
        service.frames = lambda requests, _: (
            pb.StreamCheckResponse(frame_id=each.frame_id, reasons=b"\1", envelope=envelope(9 - each.frame_id))
            for each in requests
        )

        _, (outcome,) = together(service.target, [Call()], [Call()], setting=Setting(monotonic=True))

        assert isinstance(outcome, ServiceFailedError)
        assert outcome.code == "POSITION_WENT_BACK"
