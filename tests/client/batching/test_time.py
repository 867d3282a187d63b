"""A call ends at its deadline, wherever it is.

What is tested here is time itself: a short time has to pass. No test says how long anything took.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

import grpc
import grpc.aio
import pytest

from iyscheck.client.calls import SEPARATE_CHANNEL_OPTIONS
from iyscheck.errors import ServiceRefusedError, ServiceUnavailableError
from iyscheck.v1 import consent_check_pb2 as pb
from tests.client.batching.callers import Call, Setting, Together, codes, expected, reasons
from tests.client.batching.servers import WAIT_S, Frames, Holding, Replies, told_apart
from tests.client.fake_server import Service, serving


class TestTime:
    """Calls that run out of time, and lines that owe an answer for too long."""

    @pytest.mark.usefixtures("holding")
    def test_silent_server(self, service: Service, together: Together) -> None:
        """Calls on their way and calls that still gather fail when their time is up."""
        (outcomes,) = together(service.target, [Call(brand=1 + number, timeout_s=0.1) for number in range(8)])

        assert codes(outcomes) == ["DEADLINE_EXCEEDED"] * 8

    def test_each_by_its_own(self, service: Service, holding: Holding, together: Together) -> None:
        """A call with little time ends before one with much, which is answered after that, whoever came first."""
        first, hurried, last = Call(brand=1), Call(brand=2, timeout_s=0.05), Call(brand=3)

        def ended(call: Call) -> None:
            if call is hurried:
                holding.over.set()

        (outcomes,) = together(service.target, [first, hurried, last], setting=Setting(timeout_s=20, ended=ended))

        assert codes([outcomes.pop(1)]) == ["DEADLINE_EXCEEDED"]
        assert reasons(outcomes) == [expected(first), expected(last)]

    def test_stuck_stream(self, service: Service, holding: Holding, together: Together) -> None:
        """A stream that owes an answer for longer than a frame may take is left, though nobody waits as long as that.

        Each of the hurried calls ends long before its frame is too late; the last of them sees that the first is.
        """
        hurried = [Call(brand=2, timeout_s=0.05, address=f"{number}") for number in range(6)]
        left, was_left = threading.Event(), []

        def holds(request: pb.StreamCheckRequest, context: grpc.ServicerContext) -> bool:
            context.add_callback(left.set)
            return request.brand_code == 2 and service.streams == 1

        def ended(call: Call) -> None:
            if call is hurried[-1]:
                was_left.append(left.wait(WAIT_S))

        holding.holds = holds
        setting = Setting(batch_timeout_s=0.2, ended=ended)

        established, *rounds, last = together(
            service.target, [Call()], *([call] for call in hurried), [Call()], setting=setting
        )

        assert reasons(established + last) == [expected(Call())] * 2
        assert isinstance(rounds[0][0], ServiceUnavailableError)
        assert was_left == [True]

    def test_silent_peer(self, service: Service, holding: Holding, together: Together) -> None:
        """A call that has time left is asked again over another connection: another worker may answer there.

        It is a connection like the one before it, of the same options.
        """
        peers: list[str] = []

        def first_is_silent(_: pb.StreamCheckRequest, context: grpc.ServicerContext) -> bool:
            peers.append(context.peer())
            return peers[-1] == peers[0]

        holding.holds = first_is_silent
        patient = [Call(timeout_s=30), Call(timeout_s=40)]

        with (
            patch.object(grpc, "insecure_channel", wraps=grpc.insecure_channel) as threads,
            patch.object(grpc.aio, "insecure_channel", wraps=grpc.aio.insecure_channel) as tasks,
        ):
            (outcomes,) = together(service.target, patient, setting=Setting(batch_timeout_s=0.2))

        assert reasons(outcomes) == [expected(Call())] * 2
        assert len(set(peers)) > 1
        _, *lines = threads.mock_calls + tasks.mock_calls
        assert len(lines) > 1
        assert {each.kwargs["options"] for each in lines} == {SEPARATE_CHANNEL_OPTIONS}

    def test_nobody_there(self, together: Together) -> None:
        """Without a server a call fails when its time is up, and says that nobody is there.

        That is known after some attempts, which take gRPC less than half a second.
        """
        with serving() as gone:
            pass

        (outcomes,) = together(gone.target, [Call(timeout_s=1)])

        assert codes(outcomes) == ["UNAVAILABLE"]

    def test_not_an_iyscheck_server(self, together: Together) -> None:
        """A server that knows no stream is no reason to wait: it is said at once, not when the time is up."""
        server = grpc.server(ThreadPoolExecutor(2))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()

        ((outcome,),) = together(f"127.0.0.1:{port}", [Call(timeout_s=30)])
        server.stop(0).wait()

        assert isinstance(outcome, ServiceRefusedError)


class TestRoomInTime:
    """Who runs out of time leaves room."""

    @pytest.mark.usefixtures("holding")
    def test_no_room(self, service: Service, together: Together) -> None:
        """A call that finds no room in its time fails, as do those whose room it waited for."""
        asked = [Call(address=f"{number}", timeout_s=0.1) for number in range(6)]

        (outcomes,) = together(service.target, asked, setting=Setting(capacity=2))

        assert {type(outcome) for outcome in outcomes} == {ServiceUnavailableError}

    def test_room_of_those_who_left(self, service: Service, together: Together) -> None:
        """When a line breaks whose calls are all out of time, those who wait for their room get it at once."""
        late = threading.Event()
        hurried, patient = Call(address="hurried", timeout_s=0.2), Call(timeout_s=20)

        def breaks_when_late(requests: Frames, context: grpc.ServicerContext) -> Replies:
            for request in requests:
                if list(request.addresses) == ["hurried"]:
                    late.wait(WAIT_S)
                    context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
                yield told_apart(request)

        def ended(call: Call) -> None:
            if call is hurried:
                late.set()

        service.frames = breaks_when_late

        (outcomes,) = together(service.target, [hurried, patient], setting=Setting(capacity=1, ended=ended))

        assert isinstance(outcomes[0], ServiceUnavailableError)
        assert reasons(outcomes[1:]) == [expected(patient)]
