"""What gets no answer is counted by unit, reason and fault; nothing that a caller does alone is the server's fault."""

import json
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from iyscheck import wire
from iyscheck.consent import Channel, RecipientType
from iyscheck.engine import Engine
from iyscheck.errors import StoreUnreadableError
from iyscheck.question import Context, Question
from iyscheck.server.refusals import CODES, Ending
from iyscheck.server.unanswered import NotAnswered, Unit
from iyscheck.v1 import consent_check_pb2 as v1
from tests.http2 import Http2
from tests.server.conftest import CONSENTED, Served, Site, serve
from tests.server.gated import ACME, FILE, LIMITED, bearer, write
from tests.server.processes.running import PATIENCE_S, eventually

CONTEXT = Context(brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)
ASKED = Question(context=CONTEXT, address=CONSENTED)
REQUEST = wire.check_request(ASKED)
NAME = "consent_not_answered_total"
Counted = dict[tuple[str, str, str], float]


def counted(served: Served) -> Counted:
    """Read all that were not answered: by unit, reason and fault."""
    return {
        (sample.labels["unit"], sample.labels["reason"], sample.labels["fault"]): sample.value
        for family in text_string_to_metric_families(served.scrape())
        for sample in family.samples
        if sample.name == NAME
    }


def grown(served: Served, before: Counted) -> Counted:
    """Say what has been counted since."""
    return {key: value - before[key] for key, value in counted(served).items() if value != before[key]}


@pytest.fixture(name="counting")
def _counting(site: Site, front: str) -> Iterator[Served]:
    """A server with metrics."""
    with serve(site, front=front, metrics_listen="127.0.0.1:0") as served:
        yield served


class Held:
    """An engine whose single checks wait until they are let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.leave = threading.Semaphore(0), threading.Event()
        check = Engine.check

        def wait(engine: Engine, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - whatever it is called with
            self.entered.release()
            self.leave.wait(PATIENCE_S)
            return check(engine, *args, **options)

        monkeypatch.setattr(Engine, "check", wait)


class TestZeros:
    """A rule about a series that is not there never fires."""

    def test_from_the_start(self, counting: Served) -> None:
        """What can be is there before it happens: each code's error of a call, and frames and items of each fault."""
        found = counted(counting)

        assert set(found.values()) == {0}
        for kind in CODES:
            ending = Ending.of_reason(kind.reason)
            assert ("call", ending.reason, ending.fault.value) in found
        for unit in Unit:
            assert {fault for each, _, fault in found if each == unit.value} == {"caller", "server"}

    def test_bounded(self) -> None:
        """Whatever errors come, no other reasons are ever shown than the few that errors have."""
        registry = CollectorRegistry()
        not_answered = NotAnswered(registry)
        for unit in Unit:
            for number in range(50):
                not_answered.error(unit, RuntimeError(str(number)))
        not_answered.items(f"MADE_UP_{number}" for number in range(50))
        reasons = {
            sample.labels["reason"] for family in registry.collect() for sample in family.samples if sample.labels
        }

        assert len(reasons) < 30
        assert not any("MADE_UP" in reason for reason in reasons)
        labels = {"unit": "item", "reason": "INTERNAL", "fault": "server"}
        assert registry.get_sample_value(NAME, labels) == 100


class TestUnits:
    """Calls, frames and items."""

    def test_call(self, counting: Served) -> None:
        """A call that is wrong counts once."""
        before = counted(counting)
        for data in (b"", b"\xff"):
            with pytest.raises(grpc.RpcError):
                counting.call("Check", data)

        assert grown(counting, before) == {
            ("call", "INVALID_QUESTION", "caller"): 1,
            ("call", "MALFORMED_REQUEST", "caller"): 1,
        }

    def test_items(self, counting: Served) -> None:
        """A bad question of a batch counts as an item; the others and the call do not."""
        before = counted(counting)
        batch = wire.batch_request([ASKED] * 3)
        for _ in range(2):
            batch.questions.append(v1.Question(brand_code=1))
        reply = counting.stub.BatchCheck(batch, timeout=5)

        assert [item.HasField("error") for item in reply.items] == [False] * 3 + [True] * 2
        assert grown(counting, before) == {("item", "INVALID_QUESTION", "caller"): 2}

    def test_groups(self, counting: Served) -> None:
        """A bad group of a mixed frame counts as an item; a mixed frame that is wrong as a whole, as a frame."""
        before = counted(counting)
        wrong = v1.Group(brand_code=1, recipients=2)
        frame = wire.mixed_frame([(wire.group_head(CONTEXT), 1)], addresses=[CONSENTED])
        frame.groups.append(wrong)
        frame.group_addresses.extend([CONSENTED] * 2)
        uneven = wire.mixed_frame([(wire.group_head(CONTEXT), 1)], addresses=[CONSENTED])
        uneven.group_addresses.append(CONSENTED)
        first, second = counting.stub.StreamCheck(iter([frame, uneven]), timeout=5)

        assert [group.HasField("error") for group in first.groups] == [False, True]
        assert second.HasField("error")
        assert grown(counting, before) == {
            ("item", "INVALID_QUESTION", "caller"): 1,
            ("frame", "INVALID_QUESTION", "caller"): 1,
        }

    def test_frames(self, counting: Served) -> None:
        """A frame that is wrong counts as one; those that are answered have a time, and it has none."""
        before, frames = counted(counting), counting.metric("consent_frame_seconds_count")
        good, bad = wire.frame(CONTEXT, addresses=[CONSENTED]), v1.StreamCheckRequest(frame_id=2, brand_code=1)
        replies = list(counting.stub.StreamCheck(iter([good, bad, good]), timeout=5))

        assert [reply.HasField("error") for reply in replies] == [False, True, False]
        assert grown(counting, before) == {("frame", "INVALID_QUESTION", "caller"): 1}
        assert counting.metric("consent_frame_seconds_count") == frames + 2

    def test_frame_that_ends_the_stream(self, counting: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where a frame ends its stream both are counted, with whose fault it was."""

        def fail(*_: Any, **__: Any) -> None:  # noqa: ANN401 - whatever it is called with
            raise StoreUnreadableError("gone.")

        before = counted(counting)
        no_frame: Any = counting.stream(iter([b"\xff"]))
        with pytest.raises(grpc.RpcError):
            list(no_frame)
        broken = grown(counting, before)
        before = counted(counting)
        monkeypatch.setattr(Engine, "check_column", fail)
        with pytest.raises(grpc.RpcError):
            list(counting.stub.StreamCheck(iter([wire.frame(CONTEXT, addresses=[CONSENTED])]), timeout=5))

        assert broken == {("call", "MALFORMED_FRAME", "caller"): 1, ("frame", "MALFORMED_FRAME", "caller"): 1}
        assert grown(counting, before) == {("call", "STORE", "server"): 1, ("frame", "STORE", "server"): 1}

    def test_streams(self, site: Site) -> None:
        """Open streams and their limit are shown; a stream beyond it is the server's fault."""
        with serve(site, metrics_listen="127.0.0.1:0", max_streams=1) as served:
            frames: SimpleQueue[v1.StreamCheckRequest | None] = SimpleQueue()
            stream = served.stub.StreamCheck(iter(frames.get, None), timeout=PATIENCE_S)
            frames.put(wire.frame(CONTEXT, addresses=[CONSENTED]))
            next(stream)
            opened = served.metric("consent_streams_open"), served.metric("consent_streams_limit")
            with pytest.raises(grpc.RpcError):
                list(served.stub.StreamCheck(iter([]), timeout=5))
            frames.put(None)
            list(stream)
            eventually(lambda: served.metric("consent_streams_open") == 0, "it stays open")

            assert [*opened, counted(served)["call", "OVERLOADED", "server"]] == [1, 1, 1]

    def test_rates(self, site: Site, front: str) -> None:
        """What is refused for who asks is the caller's fault in every unit, its own limit of streams too."""
        file = write(site.path / "callers.toml", FILE)
        elsewhere = Context(brand=2, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)
        with serve(site, front=front, callers=file, metrics_listen="127.0.0.1:0") as served:
            before, acme, limited = counted(served), bearer(ACME.text), bearer(LIMITED.text)
            with pytest.raises(grpc.RpcError):
                served.stub.Check(REQUEST, timeout=5)
            with pytest.raises(grpc.RpcError):
                served.stub.Check(
                    wire.check_request(Question(context=elsewhere, address=CONSENTED)), timeout=5, metadata=acme
                )
            batch = wire.batch_request([ASKED, Question(context=elsewhere, address=CONSENTED)])
            served.stub.BatchCheck(batch, timeout=5, metadata=acme)
            frames = [wire.frame(CONTEXT, addresses=[CONSENTED] * 1_000), wire.frame(elsewhere, addresses=[CONSENTED])]
            list(served.stub.StreamCheck(iter(frames), timeout=5, metadata=acme))
            many = [wire.frame(CONTEXT, addresses=[CONSENTED] * 1_000)] * 2
            list(served.stub.StreamCheck(iter(many), timeout=5, metadata=limited))
            waiting: SimpleQueue[v1.StreamCheckRequest | None] = SimpleQueue()
            waiting.put(v1.StreamCheckRequest())
            first = served.stub.StreamCheck(iter(waiting.get, None), timeout=20, metadata=limited)
            next(first)
            with pytest.raises(grpc.RpcError):
                list(served.stub.StreamCheck(iter([]), timeout=5, metadata=limited))
            waiting.put(None)
            list(first)

            assert grown(served, before) == {
                ("call", "CALLER_UNKNOWN", "caller"): 1,
                ("call", "BRAND_NOT_IN_SCOPE", "caller"): 1,
                ("call", "OVERLOADED", "caller"): 1,
                ("frame", "INVALID_QUESTION", "caller"): 1,
                ("item", "BRAND_NOT_IN_SCOPE", "caller"): 1,
                ("frame", "BRAND_NOT_IN_SCOPE", "caller"): 1,
                ("frame", "RATE_LIMITED", "caller"): 1,
            }


class TestWhoLeft:
    """Callers that are gone before their answer is there."""

    def test_canceled(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """Callers that only cancel, running calls, waiting ones and streams, move no series of the server's fault."""
        with serve(site, metrics_listen="127.0.0.1:0", unary_workers=1) as served:
            before, held = counted(served), Held(monkeypatch)
            running = served.stub.Check.future(REQUEST, timeout=PATIENCE_S)
            assert held.entered.acquire(timeout=PATIENCE_S)
            waiting = [served.stub.Check.future(REQUEST, timeout=PATIENCE_S) for _ in range(3)]
            pool = served.server._pools["Check"]
            eventually(lambda: pool._work_queue.qsize() == 3, "they do not wait")
            frames: SimpleQueue[v1.StreamCheckRequest | None] = SimpleQueue()
            stream = served.stub.StreamCheck(iter(frames.get, None), timeout=PATIENCE_S)
            frames.put(wire.frame(CONTEXT, addresses=[CONSENTED]))
            next(stream)
            for call in (running, *waiting, stream):
                call.cancel()
            frames.put(None)
            grpcs_own: Any = served.server._grpc
            eventually(lambda: grpcs_own._state.active_rpc_count <= 4, "the stream stays")
            held.leave.set()
            eventually(lambda: sum(grown(served, before).values()) == 5, lambda: str(grown(served, before)))

            assert grown(served, before) == {("call", "CANCELED", "caller"): 5}

    @pytest.mark.parametrize(("timeout_s", "fault"), [(0.5, "server"), (0.15, "caller")])
    def test_deadline(self, site: Site, monkeypatch: pytest.MonkeyPatch, timeout_s: float, fault: str) -> None:
        """A call whose deadline passes, in its handler or before it has a thread, was not answered by our fault.

        One that had less time than anybody promises was not by its own: callers must not be able to wake anybody.
        """
        with serve(site, metrics_listen="127.0.0.1:0", unary_workers=1) as served:
            before, held = counted(served), Held(monkeypatch)
            calls = [served.stub.Check.future(REQUEST, timeout=timeout_s)]
            assert held.entered.acquire(timeout=PATIENCE_S)
            calls += [served.stub.Check.future(REQUEST, timeout=timeout_s) for _ in range(3)]
            codes = {call.exception(timeout=PATIENCE_S).code() for call in calls}
            held.leave.set()
            eventually(lambda: sum(grown(served, before).values()) == 4, lambda: str(grown(served, before)))

            assert codes == {grpc.StatusCode.DEADLINE_EXCEEDED}
            ended = grown(served, before)  # one may have its turn a moment before its deadline: that is refused
            assert ("call", "DEADLINE_EXCEEDED", fault) in ended
            assert {(reason, of) for _, reason, of in ended} <= {("DEADLINE_EXCEEDED", fault), ("OVERLOADED", fault)}

    def test_nothing_sent(self, site: Site) -> None:
        """Who opens calls, sends no request and goes is counted nowhere: nothing was asked."""
        with serve(site, metrics_listen="127.0.0.1:0") as served:
            before = counted(served)
            with Http2(int(served.server.address.rpartition(":")[2])) as rude:
                for _ in range(5):
                    rude.reset(rude.open("/iyscheck.v1.ConsentCheckService/Check"))
                served.call("Check", REQUEST.SerializeToString())

            assert grown(served, before) == {}

    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("/iyscheck.v1.ConsentCheckService/Check", {("call", "REQUEST_LATE", "caller"): 1}),
            ("/grpc.health.v1.Health/Check", {}),
        ],
    )
    def test_request_late(
        self, site: Site, monkeypatch: pytest.MonkeyPatch, path: str, expected: dict[tuple[str, str, str], float]
    ) -> None:
        """Who does not send the request in time is at fault; of calls of health none is counted here."""
        with serve(site, metrics_listen="127.0.0.1:0") as served:
            before = counted(served)
            monkeypatch.setattr("iyscheck.server.fronts.requests.PATIENCE_S", 0)
            with Http2(int(served.server.address.rpartition(":")[2])) as rude:
                rude.open(path)
                eventually(lambda: served.metric("consent_requests_given_up_total") == 1, "it is not ended")

            assert grown(served, before) == expected


def test_labels() -> None:
    """A series is named by what an operator looks for."""
    registry = CollectorRegistry()
    NotAnswered(registry)
    labels = {json.dumps(sorted(sample.labels)) for family in registry.collect() for sample in family.samples}

    assert labels == {'["fault", "reason", "unit"]'}
