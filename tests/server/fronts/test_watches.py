import asyncio
import io
import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from iyscheck.server.app import OPTIONS
from iyscheck.server.fronts import lines
from iyscheck.server.fronts import watches as module
from iyscheck.server.fronts.watches import Watches
from iyscheck.server.log import open_log
from tests.http2 import Http2

STATUS: Final = health_pb2.HealthCheckResponse
SERVING, NOT_SERVING, SERVICE_UNKNOWN = STATUS.SERVING, STATUS.NOT_SERVING, STATUS.SERVICE_UNKNOWN
NAME: Final = "a.Service"
ASKED: Final = health_pb2.HealthCheckRequest(service=NAME)
PROMPT_S: Final = 5
"""Far more than anything here takes, and far less than a freeze."""


@dataclass(frozen=True)
class Running:
    """A server that offers health and nothing else."""

    watches: Watches
    port: int

    @contextmanager
    def stub(self) -> Iterator[Any]:
        """Connect, with a connection of its own."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"127.0.0.1:{self.port}", options=options) as channel:
            yield health_pb2_grpc.HealthStub(channel)

    def left(self) -> int:
        """Count the watchers when those that are leaving have left."""
        end = time.monotonic() + PROMPT_S
        while len(self.watches) and time.monotonic() < end:
            time.sleep(0.01)
        return len(self.watches)


@contextmanager
def running(most: int = 10_000, *, log: io.StringIO | None = None) -> Iterator[Running]:
    """Run a server with four threads."""
    watches = Watches(open_log("debug", log or io.StringIO()), most)
    watches.set(NAME, SERVING)
    with ThreadPoolExecutor(4) as pool:
        options = [*OPTIONS, ("grpc.http2.max_concurrent_streams", 1_000)]
        server = grpc.server(pool, options=options)
        health_pb2_grpc.add_HealthServicer_to_server(watches, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield Running(watches, port)
        finally:
            server.stop(None).wait(PROMPT_S)


class Deaf(Http2):
    """A connection whose window has no room for any message, and that has `watches` open."""

    def __init__(self, port: int, watches: int) -> None:
        super().__init__(port, window=0)
        self.streams = [self.open("/grpc.health.v1.Health/Watch") for _ in range(watches)]
        for stream in self.streams:
            self.ask(stream, ASKED.SerializeToString())

    def make_all_room(self) -> None:
        """Open the windows."""
        for stream in self.streams:
            self.make_room(stream)

    def statuses(self, count: int) -> list[int]:
        """Read so many messages."""
        return [STATUS.FromString(message).status for message in self.messages(count)]


class TestWatch:
    """What the protocol says of watching and asking."""

    def test_unknown(self) -> None:
        """An unknown name is told as such, and again when it becomes known; a check of it is NOT_FOUND."""
        with running() as server, server.stub() as stub:
            request = health_pb2.HealthCheckRequest(service="later")
            watch = stub.Watch(request, timeout=PROMPT_S)
            first = next(watch).status
            with pytest.raises(grpc.RpcError) as caught:
                stub.Check(request, timeout=PROMPT_S)
            server.watches.set("later", SERVING)

            assert first == SERVICE_UNKNOWN
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            assert next(watch).status == SERVING
            assert stub.Check(request, timeout=PROMPT_S).status == SERVING

    def test_list(self) -> None:
        """All names are listed."""
        with running() as server, server.stub() as stub:
            server.watches.set("other", NOT_SERVING)
            request: Any = health_pb2
            listed = stub.List(request.HealthListRequest(), timeout=PROMPT_S).statuses

            assert {name: each.status for name, each in listed.items()} == {NAME: SERVING, "other": NOT_SERVING}

    def test_only_changes(self) -> None:
        """A status that is set again is not told again, and another name's is not told at all."""
        with running() as server, server.stub() as stub:
            watch = stub.Watch(ASKED, timeout=PROMPT_S)
            first = next(watch).status
            server.watches.set(NAME, SERVING)
            server.watches.set("other", NOT_SERVING)
            server.watches.set(NAME, NOT_SERVING)

            assert [first, next(watch).status] == [SERVING, NOT_SERVING]

    def test_newest_wins(self) -> None:
        """Whoever reads late gets what was on its way, then the newest; nothing in between was kept."""
        with running() as server, Deaf(server.port, 1) as deaf:
            while not len(server.watches):
                time.sleep(0.01)
            time.sleep(0.1)  # until it was told
            for status in [NOT_SERVING, SERVING] * 50 + [STATUS.UNKNOWN]:
                server.watches.set(NAME, status)
            deaf.make_all_room()
            told = deaf.statuses(2)
            server.watches.set(NAME, NOT_SERVING)

            assert [*told, *deaf.statuses(1)] == [SERVING, STATUS.UNKNOWN, NOT_SERVING]

    def test_long_name(self) -> None:
        """A name of any length is unknown, and not kept."""
        with running() as server, server.stub() as stub:
            watch = stub.Watch(health_pb2.HealthCheckRequest(service="a" * 60_000), timeout=PROMPT_S)

            assert next(watch).status == SERVICE_UNKNOWN
            assert max(map(len, server.watches._watchers)) < 1_000

    def test_bound(self) -> None:
        """One more than allowed is refused; when one has left there is room."""
        with running(3) as server, server.stub() as stub:
            watches = [stub.Watch(ASKED, timeout=PROMPT_S) for _ in range(3)]
            first = [next(watch).status for watch in watches]
            with pytest.raises(grpc.RpcError) as refused:
                next(stub.Watch(ASKED, timeout=PROMPT_S))
            watches[0].cancel()
            while len(server.watches) == 3:
                time.sleep(0.01)

            assert first == [SERVING] * 3
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert next(stub.Watch(ASKED, timeout=PROMPT_S)).status == SERVING


class TestMany:
    """Numbers, and all at once."""

    @pytest.mark.parametrize("each", [200, pytest.param(500, marks=pytest.mark.thorough)])
    def test_thousands(self, each: int) -> None:
        """Up to two thousand over four connections get each change, in no threads, while checks are answered."""

        async def watching(server: Running) -> list[set[int]]:
            options = [("grpc.use_local_subchannel_pool", 1)]
            channels = [grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=options) for _ in range(4)]
            stubs: list[Any] = [health_pb2_grpc.HealthStub(channel) for channel in channels]
            watches = [stub.Watch(ASKED) for stub in stubs for _ in range(each)]
            told = []
            for status in (SERVING, NOT_SERVING, SERVING):
                server.watches.set(NAME, status)
                checks = [stub.Check(ASKED, timeout=PROMPT_S) for stub in stubs]
                told.append({reply.status for reply in await asyncio.gather(*(watch.read() for watch in watches))})
                told.append({reply.status for reply in await asyncio.gather(*checks)})
            for channel in channels:
                await channel.close()
            return told

        threads = threading.active_count()
        with running() as server:
            told = asyncio.run(watching(server))

            assert told == [{SERVING}, {SERVING}, {NOT_SERVING}, {NOT_SERVING}, {SERVING}, {SERVING}]
            assert threading.active_count() < threads + 20
            assert server.left() == 0

    @pytest.mark.parametrize("seconds", [2, pytest.param(30, marks=pytest.mark.thorough)])
    def test_leaving(self, seconds: float) -> None:
        """Watchers leave at any moment while the status flips; nothing freezes and nobody is left."""
        over = time.monotonic() + seconds
        flips, left = itertools.count(), itertools.count()

        def flip() -> None:
            statuses = itertools.cycle([NOT_SERVING, SERVING])
            while time.monotonic() < over:
                server.watches.set(NAME, next(statuses))
                next(flips)
                time.sleep(0.0002)  # else the others hardly run

        def leave(seed: int) -> None:
            chance = random.Random(seed)
            with server.stub() as stub:
                while time.monotonic() < over:
                    watches = [stub.Watch(ASKED, timeout=PROMPT_S + seconds) for _ in range(chance.randrange(1, 20))]
                    if chance.random() < 0.5:
                        next(watches[0])
                    for watch in watches:
                        watch.cancel()
                        next(left)

        with running() as server, ThreadPoolExecutor(3) as pool:
            for done in [pool.submit(flip), pool.submit(leave, 1), pool.submit(leave, 2)]:
                done.result(seconds + PROMPT_S)
            with server.stub() as stub:
                checked = stub.Check(ASKED, timeout=PROMPT_S).status

            assert checked in {SERVING, NOT_SERVING}
            assert server.left() == 0
        assert min(next(flips), next(left)) > 100 * seconds

    def test_client_side_checks(self) -> None:
        """A hundred channels that watch the health by themselves follow it, each way."""
        config = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": NAME}}
        options = [("grpc.service_config", json.dumps(config)), ("grpc.use_local_subchannel_pool", 1)]
        request = health_pb2.HealthCheckRequest(service="other")

        def outcomes(*, wait: bool) -> set[object]:
            calls = [stub.Check.future(request, timeout=PROMPT_S, wait_for_ready=wait) for stub in stubs]
            return {call.exception() and call.exception().code() for call in calls}

        with running() as server, ExitStack() as stack:
            server.watches.set("other", SERVING)
            target = f"127.0.0.1:{server.port}"
            channels = [stack.enter_context(grpc.insecure_channel(target, options=options)) for _ in range(100)]
            stubs: list[Any] = [health_pb2_grpc.HealthStub(channel) for channel in channels]

            before = outcomes(wait=True)
            watching = len(server.watches)
            server.watches.set(NAME, NOT_SERVING)
            end = time.monotonic() + PROMPT_S
            while (closed := outcomes(wait=False)) != {grpc.StatusCode.UNAVAILABLE} and time.monotonic() < end:
                time.sleep(0.05)
            server.watches.set(NAME, SERVING)

            assert before == {None}
            assert watching == 100
            assert closed == {grpc.StatusCode.UNAVAILABLE}
            assert outcomes(wait=True) == {None}


class TestHarm:
    """What one watcher does is no other's matter."""

    def test_never_reads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Watchers without room for a message delay nobody, and are ended when they had their time."""
        with running() as server, server.stub() as stub, Deaf(server.port, 90):
            while len(server.watches) < 90:
                time.sleep(0.01)
            began = time.monotonic()
            watch = stub.Watch(ASKED, timeout=PROMPT_S)
            told = [next(watch).status]
            for status in (NOT_SERVING, SERVING):
                server.watches.set(NAME, status)
                told.append(next(watch).status)
            took = time.monotonic() - began
            patient = server.watches.end_stuck()
            monkeypatch.setattr(module, "PATIENCE_S", 0.5)
            time.sleep(0.6)  # by now who reads has surely taken the last status
            ended = server.watches.end_stuck()
            while len(server.watches) > 1:
                time.sleep(0.01)
            server.watches.set(NAME, NOT_SERVING)

            assert told == [SERVING, NOT_SERVING, SERVING]
            assert took < 1
            assert (patient, ended) == (0, 90)
            assert next(watch).status == NOT_SERVING

    def test_no_lock_while_sending(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """While gRPC sends to one, another leaves, a third comes, and somebody asks."""
        watches = Watches(open_log("error", io.StringIO()))
        first, second = FakeLine(), FakeLine()
        lines_of = {id(first.context): first, id(second.context): second}
        monkeypatch.setattr(watches._lines, "open", lambda context, _, taken: lines_of[id(context)].of(taken))
        for line in (first, second):
            watches.Watch(ASKED, line.context, lambda _: None)

        def meanwhile() -> None:
            second.context.leave()
            watches.Check(ASKED, first.context)
            watches.set("other", SERVING)

        thread = threading.Thread(target=meanwhile)

        def sending() -> None:
            thread.start()
            thread.join(PROMPT_S)
            assert not thread.is_alive()

        first.taken()
        first.sending = sending
        watches.set(NAME, SERVING)

        assert first.sent == [SERVICE_UNKNOWN, SERVING]
        assert len(watches) == 1

    def test_send_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A watcher that cannot be sent to ends, the others are told."""
        watches = Watches(open_log("error", io.StringIO()))
        line, other = FakeLine(), FakeLine()
        lines_of = {id(line.context): line, id(other.context): other}
        monkeypatch.setattr(watches._lines, "open", lambda context, _, taken: lines_of[id(context)].of(taken))
        for each in (line, other):
            watches.Watch(ASKED, each.context, lambda _: None)
            each.taken()

        def fail() -> None:
            raise ValueError

        line.sending = fail
        watches.set(NAME, SERVING)

        assert line.is_cut
        assert len(watches) == 1
        assert other.sent == [SERVICE_UNKNOWN, SERVING]

    def test_gone_before_it_came(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A watcher that left before its call was taken up leaves nothing behind."""
        monkeypatch.setattr(lines.AtOnce, "known", lambda _: True)
        watches = Watches(open_log("error", io.StringIO()))
        context: Any = FakeContext()
        context.is_over = True

        with pytest.raises(grpc.RpcError):
            watches.Watch(ASKED, context, lambda _: None)

        assert (len(watches), watches._watchers) == (0, {})

    def test_gone_while_it_came(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A watcher that leaves while its call is taken up leaves nothing behind either."""
        watches = Watches(open_log("error", io.StringIO()))
        line = FakeLine()
        line.context.is_over = True
        monkeypatch.setattr(watches._lines, "open", lambda *_: line)

        watches.Watch(ASKED, line.context, lambda _: None)

        assert (len(watches), watches._watchers) == (0, {})


class TestEnd:
    """A server that ends says so to all."""

    def test_shutdown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """All are told NOT_SERVING, for good, and their calls end: at once for those that take nothing."""
        with running() as server, server.stub() as stub, Deaf(server.port, 5):
            watches = [stub.Watch(ASKED, timeout=PROMPT_S) for _ in range(200)]
            first = {next(watch).status for watch in watches}
            while len(server.watches) < 205:
                time.sleep(0.01)

            monkeypatch.setattr(module, "_SOON_S", 0.2)
            time.sleep(0.3)
            server.watches.enter_graceful_shutdown()
            server.watches.set(NAME, SERVING)
            second = {next(watch).status for watch in watches}
            server.watches.end()

            assert (first, second) == ({SERVING}, {NOT_SERVING})
            for watch in watches:
                with pytest.raises(grpc.RpcError):
                    next(watch)
            assert {watch.code() for watch in watches} == {grpc.StatusCode.UNAVAILABLE}
            assert stub.Check(ASKED, timeout=PROMPT_S).status == NOT_SERVING
            with pytest.raises(grpc.RpcError):
                next(stub.Watch(ASKED, timeout=PROMPT_S))
            assert server.left() == 0

    def test_last_words(self) -> None:
        """A server that leaves no time still tells NOT_SERVING before it ends the calls."""
        with running() as server, server.stub() as stub:
            watches = [stub.Watch(ASKED, timeout=PROMPT_S) for _ in range(200)]
            first = {next(watch).status for watch in watches}
            server.watches.enter_graceful_shutdown()
            server.watches.end()

            assert first == {SERVING}
            assert {next(watch).status for watch in watches} == {NOT_SERVING}
            assert {watch.code() for watch in watches} == {grpc.StatusCode.UNAVAILABLE}

    @pytest.mark.parametrize("long", [False, True])
    def test_on_its_way(self, monkeypatch: pytest.MonkeyPatch, long: bool) -> None:  # noqa: FBT001 - pytest's
        """A call ends behind a status that is on its way, unless that has been so for long."""
        watches = Watches(open_log("error", io.StringIO()))
        line = FakeLine()
        monkeypatch.setattr(watches._lines, "open", lambda *_: line)
        watches.Watch(ASKED, line.context, lambda _: None)
        if long:
            monkeypatch.setattr(module, "_SOON_S", 0)

        watches.end()
        watches.end()

        assert (line.ended, line.is_cut) == (([], True) if long else ([grpc.StatusCode.UNAVAILABLE], False))

    def test_while_it_came(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A watch that is being opened while all watches end is ended too, behind its status."""
        watches = Watches(open_log("error", io.StringIO()))
        line = FakeLine()

        def open_slowly(*_: object) -> FakeLine:
            watches.end()
            return line

        monkeypatch.setattr(watches._lines, "open", open_slowly)
        watches.Watch(ASKED, line.context, lambda _: None)

        assert line.sent == [SERVICE_UNKNOWN]
        assert line.ended == [grpc.StatusCode.UNAVAILABLE]


class TestLines:
    """How a message is sent."""

    def test_other_grpc(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where gRPC's inside is another, few threads send; that is logged once."""
        monkeypatch.setattr(lines.AtOnce, "known", lambda _: False)
        log = io.StringIO()
        with running(log=log) as server, server.stub() as stub:
            watches = [stub.Watch(ASKED, timeout=PROMPT_S) for _ in range(50)]
            first = {next(watch).status for watch in watches}
            server.watches.set(NAME, NOT_SERVING)
            second = {next(watch).status for watch in watches}
            server.watches.end()

            assert (first, second) == ({SERVING}, {NOT_SERVING})
            assert server.left() == 0
        assert [json.loads(line)["event"] for line in log.getvalue().splitlines()] == ["health_senders"]

    def test_this_grpc(self) -> None:
        """The installed gRPC's inside is known: nothing was logged."""
        log = io.StringIO()
        with running(log=log) as server, server.stub() as stub:
            assert next(stub.Watch(ASKED, timeout=PROMPT_S)).status == SERVING
        assert not log.getvalue()


class FakeContext:
    """What a call offers, without a call."""

    def __init__(self) -> None:
        self.leave: Callable[[], None] = lambda: None
        self.is_over = False

    def is_active(self) -> bool:
        """Whether the caller is there."""
        return not self.is_over

    def set_code(self, code: grpc.StatusCode) -> None:
        """Nobody looks."""

    def send_initial_metadata(self, _: object) -> None:
        """Fail as gRPC does where the caller has left."""
        if self.is_over:
            raise grpc.RpcError

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Keep it."""
        self.leave = callback
        return not self.is_over


class FakeLine:
    """A line that does what a test says while it sends."""

    def __init__(self) -> None:
        self.context: Any = FakeContext()
        self.sent: list[int] = []
        self.ended: list[grpc.StatusCode] = []
        self.is_cut = False
        self.sending: Callable[[], None] = lambda: None
        self.taken: Callable[[], None] = lambda: None

    def of(self, taken: Callable[[], None]) -> "FakeLine":
        """Be the line of a watcher."""
        self.taken = taken
        return self

    def send(self, message: health_pb2.HealthCheckResponse) -> bool:
        """Note what is sent."""
        self.sending()
        self.sent.append(message.status)
        return True

    def cut(self) -> None:
        """Note it."""
        self.is_cut = True

    def end(self, code: grpc.StatusCode, _: str) -> None:
        """Note it."""
        self.ended.append(code)
