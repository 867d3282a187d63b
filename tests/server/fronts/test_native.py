"""The native front: what it answers is what the gRPC front answers, however many calls have gathered."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iyscheck import address, wire
from iyscheck.change import Position
from iyscheck.consent import Channel, MessageClass, RecipientType, Status
from iyscheck.engine import Engine, answers
from iyscheck.errors import SettingsError
from iyscheck.question import MAX_MESSAGE_BYTES, Context, Question
from iyscheck.server.calls import SERVICE, Arriving, Calls, Gathered
from iyscheck.server.fronts import native, native_health
from iyscheck.server.fronts.health import FRESH
from iyscheck.server.gate import NOTHING, Gate
from iyscheck.server.handlers import CheckHandlers
from iyscheck.server.metrics import Metrics
from iyscheck.server.refusals import Refusal
from iyscheck.times import local_seconds
from iyscheck.v1 import consent_check_pb2 as v1
from iyscheck.v1.consent_check_pb2_grpc import ConsentCheckServiceStub
from tests.builders import ADDRESS_KEY, StoreBuilder
from tests.dice import often, thrown
from tests.server.conftest import CONSENTED, REFUSED, UNKNOWN, Served, Site, make_site, serve
from tests.server.processes.running import eventually
from tests.server.test_rpcs import refusal

MESAJ, BIREYSEL = Channel.MESAJ, RecipientType.BIREYSEL
CONTEXT = Context(brand=1, channel=MESAJ, recipient_type=BIREYSEL)
LATE, SHARED, NOBODY, MAIL = "+905321000004", "+905321000005", "+905321000006", "someone@example.com"
STALE, INACTIVE, NEVER, NO_SMS = 2, 3, 9, 4
KEY_ID = ADDRESS_KEY.key_id


@pytest.fixture(name="engine", scope="module")
def _engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine whose clock stands, over a store with a recipient for each reason."""
    with StoreBuilder(tmp_path_factory.mktemp("native") / "store") as store:
        store.brand(1).brand(STALE, watermark=None).brand(INACTIVE, active=False)
        store.brand(NO_SMS, channels=frozenset({Channel.EPOSTA}))
        store.consent(recipient=CONSENTED).consent(recipient=REFUSED, status=Status.RET)
        store.consent(recipient=UNKNOWN, status=Status.UNKNOWN).consent(recipient=SHARED, retailers=[5, 7])
        store.consent(recipient=LATE, consented=local_seconds("2019-05-02 10:00:00"))
        store.consent(recipient=MAIL, channel=Channel.EPOSTA)
        store.commit()
        yield store.engine()


@pytest.fixture(name="calls", scope="module")
def _calls(engine: Engine) -> Calls:
    """The calls of a server with that engine."""
    metrics = Metrics()
    handlers = CheckHandlers(engine, metrics.decisions, metrics.not_answered, max_waiters=2)
    return Calls(handlers, metrics, structlog.wrap_logger(structlog.PrintLogger(sys.stderr)), Gate(), max_streams=1)


recipients = st.sampled_from([CONSENTED, REFUSED, UNKNOWN, LATE, SHARED, NOBODY, MAIL, "", "call me", "0532 100 00 01"])
contexts = st.builds(
    Context,
    brand=st.sampled_from([1, 1, 1, STALE, INACTIVE, NO_SMS, NEVER]),
    channel=st.sampled_from(Channel),
    recipient_type=st.sampled_from(RecipientType),
    message_class=st.sampled_from([MessageClass.COMMERCIAL] * 3 + [MessageClass.SECURITY_CODE]),
    retailer=st.sampled_from([None, None, 5, 6]),
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Draw a question as a program may send it, right or wrong."""
    context, recipient = draw(contexts), draw(recipients)
    question = Question(context=context, address=recipient)
    if draw(st.booleans()):
        token = address.token(recipient, context.channel, ADDRESS_KEY)
        question = Question(
            context=context, token=token, address_key_id=draw(st.sampled_from([KEY_ID] * 4 + [bytes(8)]))
        )
    position = draw(st.sampled_from([None] * 8 + [Position(bytes(16), 1)]))
    reference = draw(st.sampled_from(["", "", "order 7", "ş", "r" * 129]))
    message = wire.check_request(question, min_position=position, client_reference=reference)
    fault = draw(
        st.sampled_from([None] * 12 + ["channel", "recipient_type", "message_class", "brand_code", "recipient"])
    )
    if fault == "recipient":
        message.question.ClearField(fault)
    elif fault is not None:
        setattr(message.question, fault, draw(st.sampled_from([0, 77])))
    data = message.SerializeToString()
    damage = draw(st.sampled_from([None] * 8 + ["cut", "byte", "more", "text"]))
    if damage == "cut":
        return data[: draw(st.integers(0, len(data)))]
    if damage == "byte":
        at = draw(st.integers(0, len(data) - 1))
        return data[:at] + draw(st.binary(min_size=1, max_size=1)) + data[at + 1 :]
    return data + {"more": b"\x7a\x02xx", "text": b"\x1a\x02\xff\xfe"}.get(damage or "", b"")


def told(outcome: bytes | Refusal | None) -> object:
    """Say all that a caller learns."""
    if isinstance(outcome, Refusal):
        return outcome.code, outcome.status.SerializeToString(), outcome.retry
    return outcome


def gathered(data: list[bytes]) -> Gathered:
    """Say what a front knows of calls without deadlines, whose callers show nothing."""
    return Gathered(data=data, presented=[NOTHING] * len(data), remaining_s=[None] * len(data))


def alone(calls: Calls, data: bytes) -> object:
    """Ask as the gRPC front does."""
    try:
        return calls.of("alone").unary["Check"](data, Arriving(time_remaining=lambda: 0.0))
    except Refusal as refusal:
        return told(refusal)


class TestGathered:
    """A column of calls is answered as each of them alone."""

    @given(st.lists(requests(), min_size=1, max_size=300))
    @settings(
        max_examples=often(300), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
    )
    def test_same(self, calls: Calls, batch: list[bytes]) -> None:
        """One to three hundred questions of any kind get the bytes, codes and details that each gets alone."""
        with pytest.MonkeyPatch.context() as patch:
            for module in (answers, sys.modules["iyscheck.engine.singles"]):
                patch.setattr(module, "new_decision_id", lambda: "-" * 36, raising=False)
            each = [alone(calls, data) for data in batch]
            together = calls.of("together").gathered(gathered(batch))
            again = [
                alone(calls, data) if outcome is None else told(outcome)
                for data, outcome in zip(batch, together, strict=True)
            ]

        assert again == each

    def test_one_pass(self, engine: Engine, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
        """Questions that can be answered are answered together, none of them alone."""

        def fail(*_: object, **__: object) -> None:
            raise AssertionError

        batch = [
            wire.check_request(Question(context=CONTEXT, address=recipient)).SerializeToString()
            for recipient in (CONSENTED, REFUSED, UNKNOWN, NOBODY, "?") * 10
        ]
        monkeypatch.setattr(engine, "check", fail)

        assert all(isinstance(outcome, bytes) for outcome in calls.of("pass").gathered(gathered(batch)))

    def test_damaged_record(self, tmp_path: Path) -> None:
        """A record that is damaged fails the one call that needs it; exempt messages need none."""
        with StoreBuilder(tmp_path / "store") as store:
            store.brand(1).consent(recipient=CONSENTED).consent(recipient=REFUSED)
            store.commit()
            engine = store.engine()
            _damage(store, REFUSED)
            metrics = Metrics()
            calls = Calls(
                CheckHandlers(engine, metrics.decisions, metrics.not_answered, max_waiters=1),
                metrics,
                structlog.wrap_logger(structlog.PrintLogger(sys.stderr)),
                Gate(),
                max_streams=1,
            )
            exempt = Context(brand=1, channel=MESAJ, recipient_type=BIREYSEL, message_class=MessageClass.SECURITY_CODE)
            asked = [
                wire.check_request(Question(context=context, address=recipient)).SerializeToString()
                for context, recipient in ((CONTEXT, CONSENTED), (CONTEXT, REFUSED), (exempt, REFUSED))
            ]
            found = [told(outcome) for outcome in calls.of("x").gathered(gathered(asked))]

        kinds = [outcome[0].name if isinstance(outcome, tuple) else "OK" for outcome in found]
        assert kinds == ["OK", "DATA_LOSS", "OK"]


def _damage(store: StoreBuilder, recipient: str) -> None:
    from iyscheck.store import layout
    from tests.builders import tag_of

    environment = store.writer.environment
    key = layout.key_prefix(1, MESAJ, BIREYSEL) + tag_of(recipient, MESAJ)
    with environment.lmdb.begin(write=True, db=environment.databases[layout.RECORDS]) as txn:
        value = bytearray(txn.get(key) or b"")
        value[-1] ^= 1
        txn.put(key, bytes(value))


@pytest.fixture(name="both", scope="module")
def _both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with both fronts; the native one takes what it can."""
    with serve(make_site(tmp_path_factory.mktemp("both")), front="native", metrics_listen="127.0.0.1:0") as served:
        yield served


def health_stub(channel: grpc.Channel) -> Any:  # noqa: ANN401 - the stubs lack its calls
    """Make a client of the health service."""
    return health_pb2_grpc.HealthStub(channel)


def settled(reply: v1.CheckResponse) -> bytes:
    """Take out what no two calls share."""
    assert len(reply.envelope.decision_id) == 36
    reply.envelope.ClearField("decision_id")
    reply.envelope.ClearField("valid_until")
    return reply.SerializeToString(deterministic=True)


def ended(call: Any) -> object:  # noqa: ANN401 - a future of gRPC
    """Say how a call ended: the reply, or code and details."""
    error = call.exception()
    if error is None:
        return settled(call.result())
    return error.code(), dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")


def asked(number: int) -> v1.CheckRequest:
    """Make one of many questions, whose reference tells it from all others."""
    recipient = (CONSENTED, REFUSED, UNKNOWN, NOBODY, "?")[number % 5]
    context = Context(brand=(1, 1, 1, STALE, NEVER)[number // 5 % 5], channel=MESAJ, recipient_type=BIREYSEL)
    request = wire.check_request(Question(context=context, address=recipient), client_reference=f"question {number}")
    if number % 31 == 0:
        request.question.ClearField("channel")
    return request


def _compare(call: Any, number: int, expected: Mapping[int, object]) -> None:  # noqa: ANN401 - a future of gRPC
    """See that a call ended as its question must."""
    if number % 31 == 0:
        assert call.exception().code() is grpc.StatusCode.INVALID_ARGUMENT
        return
    reply = call.result()
    assert reply.client_reference == f"question {number}"
    reply.client_reference = f"question {number % 25 or 25}"
    assert settled(reply) == expected[number % 25 or 25]


class TestSockets:
    """Over real connections."""

    def test_same(self, both: Served) -> None:
        """Hundreds at once get the replies and errors that gRPC's front gives to each."""
        questions = [asked(number) for number in range(600)]
        with grpc.insecure_channel(both.server.address) as channel:
            stub = ConsentCheckServiceStub(channel)
            others = [ended(stub.Check.future(each, timeout=30)) for each in questions]
        found = [ended(call) for call in [both.stub.Check.future(each, timeout=30) for each in questions]]

        assert found == others
        assert sum(isinstance(each, bytes) for each in found) > 500

    def test_cancelled(self, both: Served) -> None:
        """Calls that are cancelled, or whose deadline comes, change nothing for those that gathered with them.

        They are few at a time: from twenty on that nobody has taken up yet the package ends their connection.
        """
        dice = thrown()
        expected = {number: ended(both.stub.Check.future(asked(number), timeout=30)) for number in range(1, 26)}
        for first in range(0, 1_500, 150):
            numbers = range(first, first + 150)
            gone = set(dice.sample(numbers, 12))
            calls = {}
            for number in numbers:
                timeout_s = dice.choice([0.0005, 0.002, 0.01]) if number in gone and number % 2 else 30
                calls[number] = both.stub.Check.future(asked(number), timeout=timeout_s)
                if number in gone and not number % 2:
                    calls[number].cancel()
            for number in set(numbers) - gone:
                _compare(calls[number], number, expected)

    def test_overload(self, both: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        """What gathers beyond the most is refused as too many; every call ends."""
        monkeypatch.setattr(native, "MOST_WAITING", 3)
        monkeypatch.setattr(native, "MOST_ALONE", 0)
        before = both.metric("grpc_server_handled_total", front="native", grpc_code="ResourceExhausted")
        check: Any = both.channel.unary_unary(f"/{SERVICE}/Check")
        data = asked(1).SerializeToString()
        found = [call.exception() for call in [check.future(data, timeout=30) for _ in range(3_000)]]
        with pytest.raises(grpc.RpcError) as alone:
            both.stub.GetServerInfo(v1.GetServerInfoRequest(), timeout=5)

        refused = [error for error in found if error is not None]
        reasons = {refusal(error)[1].reason for error in (*refused, alone.value)}
        assert 0 < len(refused) < 3_000
        assert reasons == {"OVERLOADED"}
        after = both.metric("grpc_server_handled_total", front="native", grpc_code="ResourceExhausted")
        assert after - before == len(refused) + 1

    def test_not_told_again(self, both: Served) -> None:
        """A fault of ours that no refusal foresees ends its call, too."""

        def fail(*_: object) -> bytes:
            raise ValueError(CONSENTED)

        front: Any = both.server._native
        usual = front._calls
        front._calls = msgspec.structs.replace(usual, unary=dict(usual.unary) | {"GetServerInfo": fail})
        try:
            with pytest.raises(grpc.RpcError) as caught:
                both.stub.GetServerInfo(v1.GetServerInfoRequest(), timeout=10)
        finally:
            front._calls = usual

        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert CONSENTED not in str(caught.value.details())
        assert both.stub.GetServerInfo(v1.GetServerInfoRequest(), timeout=10).fronts

    def test_sizes(self, both: Served) -> None:
        """What is beyond the most bytes of a message is refused, with the words of gRPC."""
        with pytest.raises(grpc.RpcError) as caught:
            both.call("BatchCheck", bytes(MAX_MESSAGE_BYTES + 1))

        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.details() == "SERVER: Received message larger than max (8388609 vs. 8388608)"

    def test_other_calls(self, both: Served) -> None:
        """Streams and unknown calls are UNIMPLEMENTED there."""
        with grpc.insecure_channel(both.server.native_address) as channel:
            stream: Any = channel.stream_stream(f"/{SERVICE}/StreamCheck")
            with pytest.raises(grpc.RpcError) as caught:
                list(stream(iter([b""]), timeout=5))

        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


class TestHealth:
    """The standard health, without a thread for each who watches."""

    def test_check(self, both: Served) -> None:
        """All names are known, others are NOT_FOUND, and nonsense is refused."""
        stub = health_stub(both.channel)
        found = [
            stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5).status for name in ("", SERVICE, FRESH)
        ]
        check: Any = both.channel.unary_unary("/grpc.health.v1.Health/Check")
        codes = []
        for data in (health_pb2.HealthCheckRequest(service="other").SerializeToString(), b"\xff"):
            with pytest.raises(grpc.RpcError) as caught:
                check(data, timeout=5)
            codes.append(caught.value.code())

        assert found == [health_pb2.HealthCheckResponse.SERVING] * 3
        assert codes == [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL]

    def test_watch(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """Watchers are told the status now, each change, and the drain; those beyond the most are refused."""
        monkeypatch.setattr(native_health, "MOST", 50)
        with serve(site, front="native", drain_seconds=10) as served:
            stub = health_stub(served.channel)
            watches = [stub.Watch(health_pb2.HealthCheckRequest(service=FRESH), timeout=60) for _ in range(50)]
            before = [next(watch).status for watch in watches]
            monkeypatch.setattr(served.server.engine, "fresh", lambda: False)
            told = [[first, next(watch).status] for first, watch in zip(before, watches, strict=True)]
            with pytest.raises(grpc.RpcError) as caught:
                next(stub.Watch(health_pb2.HealthCheckRequest(), timeout=5))
            for watch in watches[:-1]:
                watch.cancel()
            eventually(lambda: len(served.server._native._watchers) == 1, "who left is forgotten")  # type: ignore[union-attr] # it is there
            unknown = next(stub.Watch(health_pb2.HealthCheckRequest(service="other"), timeout=60)).status
            up = stub.Watch(health_pb2.HealthCheckRequest(), timeout=60)
            first = next(up).status
            stopping = threading.Thread(target=served.server.stop, args=(5,))
            stopping.start()
            last = next(up).status
            stopping.join()

        status = health_pb2.HealthCheckResponse
        assert told == [[status.SERVING, status.NOT_SERVING]] * 50
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (unknown, first, last) == (status.SERVICE_UNKNOWN, status.SERVING, status.NOT_SERVING)


class TestEnd:
    """How the front leaves."""

    def test_drain(self, site: Site) -> None:
        """Calls that are there when it is told to end are answered, and clients hear that it has gone."""
        with serve(site, front="native", unary_workers=2) as served:
            here = served.server.engine.freshness().position
            late = wire.check_request(
                Question(context=CONTEXT, address=CONSENTED), min_position=Position(here.log_id, here.sequence + 1)
            )
            waiting = served.stub.Check.future(late, timeout=20)
            time.sleep(0.2)
            stopping = threading.Thread(target=served.server.stop, args=(5,))
            stopping.start()
            error = waiting.exception()
            stopping.join()
            with pytest.raises(grpc.RpcError) as caught:
                served.stub.Check(late, timeout=5)

        assert refusal(error)[1].reason == "NOT_YET_AT_POSITION"
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    def test_grace(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """What takes longer than the grace is cut, and the server ends."""
        over = threading.Event()
        with serve(site, front="native") as served:
            monkeypatch.setattr(Engine, "check_column", lambda *_, **__: over.wait(20))
            call = served.stub.CheckFrame.future(wire.frame(CONTEXT, addresses=[CONSENTED]), timeout=20)
            eventually(lambda: served.server._native._alone == 1, "it runs")  # type: ignore[union-attr] # it is there
            stopping = threading.Thread(target=served.server.stop, args=(0.3,))
            stopping.start()
            error = call.exception()
            over.set()
            stopping.join(30)

        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert not stopping.is_alive()


class TestWithoutThePackage:
    """The package is an extra."""

    def test_said(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without it the setting says what to install, and nothing else needs it."""
        monkeypatch.setitem(sys.modules, "pygrpc_native", None)
        monkeypatch.setattr(native, "find_spec", lambda _: None)
        with pytest.raises(SettingsError) as caught, serve(site, front="native"):
            pass
        with serve(site) as served:
            info = served.stub.GetServerInfo(v1.GetServerInfoRequest(), timeout=5)

        assert caught.value.field == "native_listen"
        assert "pip install 'iyscheck[native]'" in str(caught.value)
        assert list(info.fronts) == ["grpc"]

    def test_not_imported(self) -> None:
        """A server that is not asked for the front does not import the package."""
        program = "import sys, iyscheck.server.serving; sys.exit('pygrpc_native' in sys.modules)"

        assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
