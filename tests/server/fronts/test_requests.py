"""Calls that wait for their request: they hold no thread, and they do not wait for ever."""

import threading
from collections.abc import Iterator
from typing import Any, Final

import grpc
import pytest
from grpc_health.v1 import health_pb2

from iyscheck import wire
from iyscheck.consent import Channel, RecipientType
from iyscheck.engine import Engine
from iyscheck.question import Context, Question
from iyscheck.server.fronts import requests as module
from iyscheck.v1 import consent_check_pb2
from tests.http2 import Http2
from tests.server.conftest import CONSENTED, Served, Site, serve
from tests.server.processes.running import eventually

CONTEXT: Final = Context(brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)
REQUEST: Final = wire.check_request(Question(context=CONTEXT, address=CONSENTED)).SerializeToString()
CALLS: Final = "/iyscheck.v1.ConsentCheckService/"
HEALTH: Final = "/grpc.health.v1.Health/"
PATHS: Final = [
    *(CALLS + method for method in ("Check", "BatchCheck", "GetServerInfo")),
    "/iyscheck.v1.AdminService/GetStatus",
    *(HEALTH + method for method in ("Check", "Watch", "List")),
]


@pytest.fixture(name="alone")
def _alone(site: Site) -> Iterator[Served]:
    """A server with metrics."""
    with serve(site, metrics_listen="127.0.0.1:0") as served:
        yield served


def connected(served: Served) -> Http2:
    """Connect as no honest program does."""
    return Http2(int(served.server.address.rpartition(":")[2]))


def waiting(served: Served) -> int:
    """Count the calls without their request."""
    return len(served.server._requests)


def answers(served: Served) -> None:
    """Let checks and health be answered."""
    assert served.call("Check", REQUEST)
    check: Any = served.channel.unary_unary(f"{HEALTH}Check")
    assert check(b"", timeout=5)


class TestWait:
    """Who opens calls and sends nothing is nobody's matter."""

    @pytest.mark.parametrize("path", PATHS)
    def test_half_open(self, alone: Served, path: str) -> None:
        """64 calls without a request hold no thread, and everybody else is answered."""
        answers(alone)
        threads = threading.active_count()
        with connected(alone) as rude:
            for _ in range(64):
                rude.open(path)
            eventually(lambda: waiting(alone) == 64, "not all calls are there")
            for _ in range(10):
                answers(alone)

            assert threading.active_count() <= threads
            assert waiting(alone) == 64
        eventually(lambda: waiting(alone) == 0, "calls of a connection that is gone are left")
        answers(alone)

    def test_later(self, alone: Served) -> None:
        """A request that comes later, in pieces and in another order, is answered."""
        with connected(alone) as slow:
            first, second = slow.open(f"{CALLS}Check"), slow.open(f"{HEALTH}Check")
            eventually(lambda: waiting(alone) == 2, "the calls are not there")
            slow.ask(second, b"")
            health = health_pb2.HealthCheckResponse.FromString(*slow.messages(1))
            head = len(REQUEST).to_bytes(5, "big") + REQUEST[:10]
            slow.send(0, 0, first, head)
            slow.send(0, 1, first, REQUEST[10:])
            answer = consent_check_pb2.CheckResponse.FromString(*slow.messages(1))

        assert health.status == health_pb2.HealthCheckResponse.SERVING
        assert answer.reason == consent_check_pb2.REASON_CONSENTED

    def test_none(self, alone: Served) -> None:
        """A call that ends without a request is told so."""
        with connected(alone) as rude:
            rude.send(0, 1, rude.open(f"{CALLS}Check"))
            _, ended = rude.ended()

        assert b"grpc-status\x0212" in ended
        assert b"without a request" in ended

    def test_reset(self, alone: Served) -> None:
        """Calls that are given up before or behind their request leave nothing behind."""
        with connected(alone) as rude:
            for number in range(200):
                stream = rude.open(PATHS[number % len(PATHS)])
                if number % 2:
                    rude.ask(stream, REQUEST if "Check" in PATHS[number % len(PATHS)] else b"")
                rude.reset(stream)
            answers(alone)
            eventually(lambda: waiting(alone) == 0, "calls are left")
        eventually(lambda: alone.server._requests._bytes == 0, "requests are left")
        grpcs_own: Any = alone.server._grpc
        eventually(lambda: grpcs_own._state.active_rpc_count == 0, "gRPC counts calls that are over")

    def test_drain(self, site: Site) -> None:
        """Calls without a request do not keep a server for longer than its time to drain."""
        with serve(site) as served, connected(served) as rude:
            for path in PATHS:
                rude.open(path)
            eventually(lambda: waiting(served) == len(PATHS), "the calls are not there")
            served.server.stop(0.5)

            assert waiting(served) == 0


class TestGivenUp:
    """What is counted by its reason."""

    def test_late(self, alone: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who sends no request in time is told so; who has sent one runs on."""
        entered, leave = threading.Event(), threading.Event()
        check = Engine.check

        def slow(engine: Engine, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - whatever it is called with
            entered.set()
            leave.wait(20)
            return check(engine, *args, **options)

        monkeypatch.setattr(Engine, "check", slow)
        call: Any = alone.channel.unary_unary(f"{CALLS}Check")
        running = call.future(REQUEST, timeout=20)
        assert entered.wait(20)
        with connected(alone) as rude:
            stream = rude.open(f"{CALLS}Check")
            eventually(lambda: waiting(alone) == 1, "the call is not there")
            monkeypatch.setattr(module, "PATIENCE_S", 0)
            ended = rude.ended()
            leave.set()

            assert ended[0] == stream
            assert b"grpc-status\x014" in ended[1]
            assert b"half a minute" in ended[1]
            assert running.result()
        assert alone.metric("consent_requests_given_up_total", reason="late") == 1
        assert alone.metric("consent_requests_given_up_total") == 1

    def test_at_the_last_moment(self, alone: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who was found to be late, but whose request has come by now, runs on."""
        entered, leave = threading.Event(), threading.Event()

        def wait(engine: Engine, *_: Any, **__: Any) -> Any:  # noqa: ANN401 - whatever it is called with
            entered.set()
            leave.wait(20)
            return check(engine, question)

        check, question = Engine.check, Question(context=CONTEXT, address=CONSENTED)
        monkeypatch.setattr(Engine, "check", wait)
        requests = alone.server._requests
        with connected(alone) as slow:
            stream = slow.open(f"{CALLS}Check")
            eventually(lambda: waiting(alone) == 1, "the call is not there")
            (late,) = requests._waiting
            slow.ask(stream, REQUEST)
            assert entered.wait(20)
            requests._give_up(late, "late", requests._core.StatusCode.deadline_exceeded, "")
            leave.set()
            (answer,) = slow.messages(1)

        assert consent_check_pb2.CheckResponse.FromString(answer).permitted
        assert alone.metric("consent_requests_given_up_total") == 0

    @pytest.mark.parametrize("limit", ["MOST_WAITING", "MOST_SLOW"])
    def test_crowded(self, alone: Served, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
        """Where too many wait, or too many for long, those that wait longest end."""
        monkeypatch.setattr(module, limit, 5)
        monkeypatch.setattr(module, "SOON_S", 0.2)
        with connected(alone) as rude:
            streams = [rude.open(f"{CALLS}BatchCheck") for _ in range(8)]
            ended = [rude.ended() for _ in range(3)]

            assert [stream for stream, _ in ended] == streams[:3]
            assert b"grpc-status\x018" in ended[0][1]  # the others refer to it
            assert waiting(alone) == 5
            answers(alone)
        assert alone.metric("consent_requests_given_up_total", reason="crowded") >= 3

    def test_heavy(self, alone: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        """Requests without a thread that take too much memory are refused, until there is room again."""
        alone.call("Check", REQUEST)
        monkeypatch.setattr(module, "MOST_BYTES", len(REQUEST))
        for _ in range(3):  # one after the other fits
            alone.call("Check", REQUEST)
        with pytest.raises(grpc.RpcError) as refused:
            alone.call("Check", REQUEST + b"\x00")
        alone.call("Check", REQUEST)

        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert alone.metric("consent_requests_given_up_total", reason="heavy") == 1


class TestInside:
    """What is used of grpcio's inside."""

    @pytest.mark.parametrize("part", ["_abort", "_no_longer_there"])
    def test_other_grpc(self, site: Site, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
        """Where a part is missing, or takes other arguments, gRPC's own way serves. That is logged once."""
        monkeypatch.setitem(module._SIGNATURES, part, ("state", "other"))
        with serve(site) as served, connected(served) as rude:
            for _ in range(3):  # one thread is left
                rude.open(f"{CALLS}Check")
            answers(served)

            assert waiting(served) == 0
            assert len(served.events("requests_hold_threads")) == 1

    def test_this_grpc(self, alone: Served) -> None:
        """The installed one is known."""
        assert not alone.events("requests_hold_threads")
