import asyncio
import inspect
import queue
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast
from unittest.mock import patch

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iyscheck.change import Position
from iyscheck.client import AsyncBatching, AsyncClient, Batching, Client
from iyscheck.client.batching import threads
from iyscheck.client.batching.ledger import Ledger, Patience
from iyscheck.consent import Channel, MessageClass, Reason, RecipientType
from iyscheck.errors import (
    QuestionError,
    ServiceError,
    ServiceFailedError,
    ServiceRefusedError,
    ServiceUnavailableError,
)
from iyscheck.keys import AddressKey
from iyscheck.question import Answer
from iyscheck.v1 import consent_check_pb2 as pb
from tests.client.fake_server import KEY_ID, LOG, Service, abort, envelope, serving

ADDRESS = "+905000000002"
REASONS: list[int] = [1, 2, 3, *range(64, 74)]
Frames = Iterator[pb.StreamCheckRequest]
Replies = Iterator[pb.StreamCheckResponse]
Outcome = Answer | Exception


@dataclass(frozen=True)
class Call:
    """One call as a caller makes it."""

    address: str | None = ADDRESS
    brand: int = 1
    channel: Channel = Channel.MESAJ
    recipient_type: RecipientType = RecipientType.BIREYSEL
    message_class: MessageClass = MessageClass.COMMERCIAL
    retailer: int | None = None
    min_position: Position | None = None
    token: bytes | None = None
    address_key_id: bytes | None = None
    timeout_s: float | None = None
    leaves_s: float | None = field(default=None, kw_only=True)
    """After how long its caller cancels it; only tasks do."""

    def ask(self, checks: Batching) -> Answer:
        """Make the call."""
        return checks.check(**{name: getattr(self, name) for name in self.__dataclass_fields__ if name != "leaves_s"})


@dataclass(frozen=True)
class Setting:
    """How the clients are set up."""

    address_key: AddressKey | None = None
    timeout_s: float = 5
    batch_timeout_s: float = 5
    monotonic: bool = False
    connections: int = 1
    capacity: int = 10_000
    to_the_end: bool = False
    """Whether to wait until the client holds nothing any more, and to fail if it goes on holding something."""


class Together(Protocol):
    """Makes calls at the same time, round after round over one client, and gives what each came to."""

    def __call__(self, target: str, *rounds: list[Call], setting: Setting = ...) -> list[list[Outcome]]:
        """Ask."""


def together_sync(target: str, *rounds: list[Call], setting: Setting = Setting()) -> list[list[Outcome]]:
    """Ask from as many threads as there are calls."""

    def one(checks: Batching, call: Call) -> Outcome:
        try:
            return call.ask(checks)
        except Exception as error:  # noqa: BLE001 - it is what the call came to
            return error

    with (
        Client(
            target,
            address_key=setting.address_key,
            timeout_s=setting.timeout_s,
            batch_timeout_s=setting.batch_timeout_s,
            monotonic=setting.monotonic,
        ) as client,
        client.batching(connections=setting.connections, capacity=setting.capacity) as checks,
        ThreadPoolExecutor(max(map(len, rounds)) or 1) as pool,
    ):
        outcomes = [list(pool.map(lambda call: one(checks, call), calls)) for calls in rounds]
        for _ in range(1_000 if setting.to_the_end else 0):
            if not checks._ledger.outstanding:
                break
            time.sleep(0.01)
        assert not setting.to_the_end or not held(checks)
        return outcomes


def together_async(target: str, *rounds: list[Call], setting: Setting = Setting()) -> list[list[Outcome]]:
    """Ask from as many tasks as there are calls."""

    async def one(checks: AsyncBatching, call: Call) -> Answer:
        if call.leaves_s is None:
            return await ask_async(checks, call)
        asking = asyncio.ensure_future(ask_async(checks, call))
        asyncio.get_running_loop().call_later(call.leaves_s, asking.cancel)
        return await asking

    async def run() -> list[list[Outcome]]:
        async with (
            AsyncClient(
                target,
                address_key=setting.address_key,
                timeout_s=setting.timeout_s,
                batch_timeout_s=setting.batch_timeout_s,
                monotonic=setting.monotonic,
            ) as client,
            client.batching(connections=setting.connections, capacity=setting.capacity) as checks,
        ):
            outcomes = [
                cast(
                    "list[Outcome]",
                    await asyncio.gather(*(one(checks, call) for call in calls), return_exceptions=True),
                )
                for calls in rounds
            ]
            for _ in range(1_000 if setting.to_the_end else 0):
                if not checks._ledger.outstanding:
                    break
                await asyncio.sleep(0.01)
            assert not setting.to_the_end or not held(checks)
            return outcomes

    return asyncio.run(run())


def held(checks: Batching | AsyncBatching) -> list[object]:
    """List what a client holds of calls."""
    kept = [batch.recipients for batch in checks._ledger._all()]
    return [*kept, checks._ledger.outstanding] if kept or checks._ledger.outstanding else []


@pytest.fixture(params=[together_sync, together_async], ids=["sync", "async"])
def together(request: pytest.FixtureRequest) -> Together:
    """Each of the two clients."""
    return cast("Together", request.param)


def numbered(count: int, **more: object) -> list[Call]:
    """Calls about different recipients."""
    return [Call(address=f"+90500000{number:04}", **more) for number in range(count)]  # type: ignore[arg-type] # fields


def reason_of(shared: Iterable[int], since: int | None, key_id: bytes, recipient: bytes) -> int:
    """Another rule for the server: each question of a frame, asked of another frame, would be answered otherwise."""
    text = f"{[*map(int, shared)]} {since} {key_id.hex()} {recipient.hex()}"
    reason: int = REASONS[zlib.crc32(text.encode()) % len(REASONS)]
    return reason


def expected(call: Call) -> int:
    """What a call must be answered."""
    shared = call.brand, call.channel, call.recipient_type, call.message_class, call.retailer or 0
    since = None if call.min_position is None else call.min_position.sequence
    recipient = call.token if call.token is not None else (call.address or "").encode()
    return reason_of(shared, since, call.address_key_id or b"", recipient)


def recipients(request: pb.StreamCheckRequest) -> list[bytes]:
    """Whom a frame asks about."""
    if request.addresses:
        return [address.encode() for address in request.addresses]
    return [request.tokens[first : first + 16] for first in range(0, len(request.tokens), 16)]


def told_apart(request: pb.StreamCheckRequest) -> pb.StreamCheckResponse:
    """Answer by that rule."""
    shared = request.brand_code, request.channel, request.recipient_type, request.message_class, request.retailer_code
    since = request.min_position.sequence if request.HasField("min_position") else None
    reasons = bytes(reason_of(shared, since, request.address_key_id, recipient) for recipient in recipients(request))
    return pb.StreamCheckResponse(frame_id=request.frame_id, reasons=reasons, envelope=envelope(request.frame_id))


def reasons(outcomes: list[Outcome]) -> list[object]:
    """What the calls came to: a reason, or the error itself."""
    return [outcome.reason if isinstance(outcome, Answer) else outcome for outcome in outcomes]


@dataclass
class Moody:
    """Does with each frame, whichever stream it comes by, what the next mood says; answers when there are no more."""

    moods: list[str]
    refused: set[bytes] = field(default_factory=set)
    broken: set[bytes] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    events: "queue.SimpleQueue[str]" = field(default_factory=queue.SimpleQueue)

    def __call__(self, requests: Frames, context: grpc.ServicerContext) -> Replies:
        """Serve a stream."""
        for request in requests:
            with self.lock:
                mood = self.moods.pop(0) if self.moods else "answers"
            reply = told_apart(request)
            time.sleep(PAUSES_S.get(mood, 0))
            if mood == "dies":
                gone = threading.Event()
                context.add_callback(gone.set)
                self.events.put("died")
                gone.wait(10)
                return
            if mood == "breaks":
                context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
            if mood == "ends":
                return
            if mood == "answers and breaks":
                yield reply
                context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
            if mood == "is full":
                abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
            if mood == "refuses":
                self.refused.update(recipients(request))
                error = pb.ItemError(reason="POSITION_OF_OTHER_LOG", message="of another log")
                reply = pb.StreamCheckResponse(frame_id=request.frame_id, error=error)
            if mood == "forgets one":
                self.broken.update(recipients(request))
                reply.reasons = reply.reasons[1:]
            yield reply


MOODS = ["answers", "is slow", "breaks", "ends", "answers and breaks", "is full", "refuses", "forgets one", "hangs"]
FRAME_S = 0.05
"""How long a frame may take where servers hang."""
PAUSES_S = {"is slow": 0.01, "hangs": 3 * FRAME_S}


def served(moody: Moody, longest: int, ask: Callable[[str], list[list[Outcome]]]) -> list[list[Outcome]]:
    """Serve with these moods while calls are made; a server that dies comes again at its address."""

    def start(port: int = 0) -> Service:
        service = parts.enter_context(serving(port))
        service.frames, service.limits.max_frame_recipients = moody, longest
        return service

    with ThreadPoolExecutor(1) as pool, ExitStack() as parts:
        service = start()
        asking = pool.submit(ask, service.target)
        asking.add_done_callback(lambda _: moody.events.put("done"))
        while moody.events.get() == "died":
            parts.close()
            service = start(service.port)
        return asking.result()


@contextmanager
def never_above(capacity: int) -> Iterator[None]:
    """Watch how many calls are outstanding whenever one more is."""
    put, most = Ledger.put, 0

    def counted(self: Ledger[Any], *call: Any) -> None:  # noqa: ANN401 - whatever it takes
        nonlocal most
        put(self, *call)
        most = max(most, self.outstanding)

    with patch.object(Ledger, "put", counted):
        yield
    assert 0 < most <= capacity


calls = st.builds(
    Call,
    brand=st.integers(1, 2),
    channel=st.sampled_from(Channel),
    recipient_type=st.sampled_from(RecipientType),
    message_class=st.sampled_from([MessageClass.COMMERCIAL, MessageClass.DELIVERY]),
    retailer=st.sampled_from([None, 66, 67]),
    min_position=st.sampled_from([None, None, Position(LOG, 0), Position(LOG, 1)]),
)


def made_distinct(asked: list[Call], tokens: list[bool]) -> list[Call]:
    """Give each call its own recipient: an address or a token."""
    distinct = []
    for number, call in enumerate(asked):
        if tokens[number % len(tokens)]:
            key_id = (KEY_ID, b"\x02" * 8)[number // 2 % 2]
            rest: dict[str, Any] = {"address": None, "token": number.to_bytes(16, "big"), "address_key_id": key_id}
        else:
            rest = {"address": f"+9050000{number:05}"}
        distinct.append(replace(call, **rest))
    return distinct


@dataclass(frozen=True)
class Scene:
    """What happens in one example: the calls, the moods of their server and its longest frame, and the client."""

    asked: list[Call]
    moods: list[str]
    longest: int
    setting: Setting


@st.composite
def made_scenes(draw: st.DrawFn) -> Scene:
    """Some callers have little time, some leave, and the server may be killed once."""
    hurries = draw(st.lists(st.sampled_from([None, None, 0.02, 0.1]), min_size=1, max_size=5))
    leaves = draw(st.lists(st.sampled_from([None, None, 0.0, 0.004]), min_size=1, max_size=5))
    asked = made_distinct(
        draw(st.lists(calls, min_size=1, max_size=40)), draw(st.lists(st.booleans(), min_size=1, max_size=3))
    )
    moods = draw(st.lists(st.sampled_from(MOODS), max_size=6))
    if draw(st.integers(0, 2)) == 0:
        moods.insert(draw(st.integers(0, 3)), "dies")
    return Scene(
        asked=[
            replace(call, timeout_s=hurries[number % len(hurries)], leaves_s=leaves[number % len(leaves)])
            for number, call in enumerate(asked)
        ],
        moods=moods,
        longest=draw(st.integers(1, 12)),
        setting=Setting(
            timeout_s=20,
            batch_timeout_s=FRAME_S,
            connections=draw(st.integers(1, 3)),
            capacity=draw(st.sampled_from([1, 3, 10, 10_000])),
            to_the_end=True,
        ),
    )


scenes = made_scenes()


class TestOwnAnswers:
    """Whatever happens, every call gets its own answer or its own error, once."""

    @given(scene=scenes)
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_moods(self, together: Together, scene: Scene) -> None:
        """Broken, ended, full, slow, hanging and killed streams show in no answer; a bad frame fails its calls alone.

        Only who has no time ends late, only who is cancelled ends so, and at the end nothing is held.
        """
        moody, setting = Moody(list(scene.moods)), scene.setting
        replies_get_lost = "dies" in scene.moods or "hangs" in scene.moods

        with never_above(setting.capacity):
            (outcomes,) = served(moody, scene.longest, lambda target: together(target, scene.asked, setting=setting))

        for call, outcome in zip(scene.asked, outcomes, strict=True):
            recipient = call.token or (call.address or "").encode()
            late = call.timeout_s is not None and isinstance(outcome, ServiceUnavailableError)
            left = call.leaves_s is not None and isinstance(outcome, asyncio.CancelledError)
            if isinstance(outcome, Answer):
                assert outcome.reason == expected(call)
                assert outcome.message_class == call.message_class
                assert replies_get_lost or recipient not in moody.refused | moody.broken
            elif isinstance(outcome, ServiceRefusedError):
                assert outcome.code == "POSITION_OF_OTHER_LOG"
                assert recipient in moody.refused
            elif isinstance(outcome, ServiceFailedError):
                assert recipient in moody.broken
            else:
                assert late or left, outcome

    @pytest.mark.parametrize("mood", ["breaks", "ends"])
    def test_broken_stream(self, service: Service, together: Together, mood: str) -> None:
        """What was on its way when its stream ended is answered by the next one."""
        service.frames = Moody([mood])
        asked = numbered(5, timeout_s=3)

        (outcomes,) = together(service.target, asked)

        assert reasons(outcomes) == [expected(call) for call in asked]
        assert service.streams > 1

    def test_restart(self, together: Together) -> None:
        """A server that is killed with frames on their way, and comes again at its address, is not noticed."""
        asked = numbered(30)
        arrived, gone = threading.Event(), threading.Event()

        def dying(requests: Frames, context: grpc.ServicerContext) -> Replies:
            context.add_callback(gone.set)
            yield told_apart(next(requests))
            next(requests)
            arrived.set()
            gone.wait(10)

        with ThreadPoolExecutor(1) as pool:
            with serving() as first:
                first.frames = dying
                asking = pool.submit(together, first.target, asked, asked, asked, setting=Setting(timeout_s=20))
                assert arrived.wait(10)
            with serving(first.port) as second:
                second.frames = Moody([])
                rounds = asking.result()

        for outcomes in rounds:
            assert reasons(outcomes) == [expected(call) for call in asked]

    def test_evidence(self, service: Service, together: Together) -> None:
        """An answer carries reason, class and envelope, the same envelope object for all of a frame, never evidence."""
        service.frames = Moody([])

        (outcomes,) = together(service.target, numbered(20, message_class=MessageClass.DELIVERY))

        answers = [cast("Answer", outcome) for outcome in outcomes]
        assert {answer.evidence for answer in answers} == {None}
        assert {answer.message_class for answer in answers} == {MessageClass.DELIVERY}
        envelopes = {id(answer.envelope): answer.envelope.decision_id for answer in answers}
        assert len(envelopes) == len(set(envelopes.values())) < 20

    def test_token_without_key(self, service: Service, together: Together) -> None:
        """Tokens travel as they are, beside addresses that the client's key turns into tokens."""
        key = AddressKey(bytes(32))
        token = b"t" * 16

        ((by_token, by_address, unreadable),) = together(
            service.target,
            [Call(address=None, token=token, address_key_id=KEY_ID), Call(), Call(address="no number")],
            setting=Setting(address_key=key),
        )

        sent = {
            (frame.address_key_id, row)
            for frame in service.requests
            if isinstance(frame, pb.StreamCheckRequest)
            for row in recipients(frame)
        }
        assert reasons([by_token, by_address, unreadable]) == [
            Reason.CONSENTED,
            Reason.CONSENTED,
            Reason.INVALID_ADDRESS,
        ]
        assert (KEY_ID, token) in sent
        assert {key_id for key_id, _ in sent} == {KEY_ID, key.key_id}
        assert not any(frame.addresses for frame in service.requests if isinstance(frame, pb.StreamCheckRequest))

    def test_unknown_reason(self, service: Service, together: Together) -> None:
        """A reason that this version does not know is a no."""

        def future_reason(requests: Frames, _: grpc.ServicerContext) -> Replies:
            for request in requests:
                yield pb.StreamCheckResponse(frame_id=request.frame_id, reasons=b"\x20", envelope=envelope())

        service.frames = future_reason

        ((outcome,),) = together(service.target, [Call()])

        assert isinstance(outcome, Answer)
        assert outcome.reason is Reason.UNSPECIFIED
        assert not outcome.permitted


class TestGathering:
    """Calls that come together travel together, without anybody waiting for others to come."""

    def test_few_frames(self, service: Service, together: Together) -> None:
        """What gathers while a frame is on its way leaves as one."""
        moody = service.frames = Moody(["is slow"] * 200)

        together(service.target, *[numbered(50)] * 4)

        assert 200 - len(moody.moods) <= 40  # frames for 200 calls

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
        peers: set[str] = set()

        def noted(requests: Frames, context: grpc.ServicerContext) -> Replies:
            for request in requests:
                peers.add(context.peer())
                time.sleep(0.02)
                yield told_apart(request)

        service.frames = noted
        asked = [Call(address=f"+9050000{number:05}", brand=1 + number) for number in range(12)]

        outcomes = together(service.target, asked, asked, asked, setting=Setting(connections=3))

        assert [reasons(each) for each in outcomes] == [[expected(call) for call in asked]] * 3
        assert len(peers) == 3

    def test_other_line(self, service: Service, together: Together, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a broken line owed leaves by another one at once, however long the broken one is left alone."""
        monkeypatch.setattr(Patience, "next_s", lambda _: 60.0)
        peers: set[str] = set()
        broken: list[str] = []

        def breaks_once(requests: Frames, context: grpc.ServicerContext) -> Replies:
            for request in requests:
                peers.add(context.peer())
                time.sleep(0.02)
                if request.brand_code == 99 and not broken:
                    broken.append(context.peer())
                    context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
                yield told_apart(request)

        service.frames = breaks_once
        many = [Call(address=f"+9050000{number:05}", brand=1 + number) for number in range(12)]

        *_, last = together(service.target, many, many, [Call(brand=99)], setting=Setting(connections=2))

        assert reasons(last) == [expected(Call(brand=99))]
        assert len(peers) == 2
        assert len(broken) == 1

    def test_new_limits(self, service: Service, together: Together) -> None:
        """When the server takes only smaller frames from now on, one frame fails and the next ones are smaller."""
        strict = threading.Event()

        def limited(requests: Frames, _: grpc.ServicerContext) -> Replies:
            for request in requests:
                reply = told_apart(request)
                if strict.is_set() and len(reply.reasons) > 3:
                    service.limits.max_frame_recipients = 3
                    error = pb.ItemError(reason="BATCH_TOO_LARGE", message="too many")
                    reply = pb.StreamCheckResponse(frame_id=request.frame_id, error=error)
                yield reply
                time.sleep(0.02)  # so that calls gather
                strict.set()

        service.frames = limited
        asked = numbered(30)

        first, second, third = together(service.target, asked, asked, asked)

        failed = [each for each in first + second if not isinstance(each, Answer)]
        assert len(failed) > 0
        assert {getattr(each, "code", each) for each in failed} == {"BATCH_TOO_LARGE"}
        assert reasons(third) == [expected(call) for call in asked]


class TestTime:
    """A call ends at its deadline, wherever it is."""

    def test_silent_server(self, service: Service, together: Together) -> None:
        """Calls on their way and calls that still gather fail when their time is up, each by its own."""
        over = threading.Event()

        def silent(requests: Frames, _: grpc.ServicerContext) -> Replies:
            for _request in requests:
                over.wait(10)
            yield from ()

        service.frames = silent
        asked = [Call(brand=1 + number, timeout_s=0.1 if number % 2 else 0.3) for number in range(8)]

        started = time.monotonic()
        (outcomes,) = together(service.target, asked)
        over.set()

        assert time.monotonic() - started >= 0.3
        assert {type(outcome) for outcome in outcomes} == {ServiceUnavailableError}
        assert {cast("ServiceError", outcome).code for outcome in outcomes} == {"DEADLINE_EXCEEDED"}

    def test_hurried_behind_patient(self, service: Service) -> None:
        """A call with little time ends before one with much, also if it came later."""
        over = threading.Event()
        service.frames = silent_until(over)

        async def run() -> bool:
            async with AsyncClient(service.target) as client, client.batching() as checks:
                patient = asyncio.ensure_future(ask_async(checks, Call(timeout_s=2)))
                await asyncio.sleep(0.05)
                with pytest.raises(ServiceUnavailableError):
                    await ask_async(checks, Call(timeout_s=0.1))
                waits = not patient.done()
                await asyncio.gather(patient, return_exceptions=True)
                return waits

        assert asyncio.run(run())
        over.set()

    def test_stuck_stream(self, service: Service, together: Together) -> None:
        """A stream that owes an answer for longer than a frame may take is left for a new one."""
        over = threading.Event()

        def first_is_silent(requests: Frames, _: grpc.ServicerContext) -> Replies:
            for request in requests:
                if service.streams == 1:
                    over.wait(10)
                yield told_apart(request)

        service.frames = first_is_silent

        rounds = together(service.target, *[[Call(timeout_s=0.1)]] * 4, [Call()], setting=Setting(batch_timeout_s=0.2))
        over.set()

        assert isinstance(rounds[0][0], ServiceUnavailableError)
        assert reasons(rounds[-1]) == [expected(Call())]

    def test_silent_peer(self, service: Service, together: Together) -> None:
        """A call that has time left is asked again over another connection: another worker may answer there."""
        over, peers = threading.Event(), []

        def first_is_silent(requests: Frames, context: grpc.ServicerContext) -> Replies:
            peers.append(context.peer())
            for request in requests:
                if len(peers) == 1:
                    over.wait(60)
                yield told_apart(request)

        service.frames = first_is_silent

        patient = [Call(timeout_s=30), Call(timeout_s=40)]
        rounds = together(service.target, patient, setting=Setting(batch_timeout_s=0.2))
        over.set()

        assert reasons(rounds[0]) == [expected(Call())] * 2
        assert len(set(peers)) == 2

    def test_nobody_there(self, together: Together) -> None:
        """Without a server a call fails when its time is up, and says that nobody is there."""
        with serving() as gone:
            pass

        ((outcome,),) = together(gone.target, [Call(timeout_s=0.5)])

        assert isinstance(outcome, ServiceUnavailableError)
        assert outcome.code == "UNAVAILABLE"

    def test_not_an_iyscheck_server(self, together: Together) -> None:
        """A server that knows no stream is no reason to wait."""
        server = grpc.server(ThreadPoolExecutor(2))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()

        started = time.monotonic()
        ((outcome,),) = together(f"127.0.0.1:{port}", [Call(timeout_s=30)])
        server.stop(0).wait()

        assert isinstance(outcome, ServiceRefusedError)
        assert time.monotonic() - started < 30


class TestBounds:
    """Memory is bounded, and those who find no room wait for it."""

    @pytest.mark.parametrize("capacity", [1, 7])
    def test_back_pressure(self, service: Service, together: Together, capacity: int) -> None:
        """Never more calls than allowed are with the server, and all are answered."""
        most = 0

        def counted(requests: Frames, _: grpc.ServicerContext) -> Replies:
            nonlocal most
            for request in requests:
                most = max(most, len(recipients(request)))
                yield told_apart(request)

        service.frames = counted
        asked = numbered(40)

        (outcomes,) = together(service.target, asked, setting=Setting(capacity=capacity))

        assert reasons(outcomes) == [expected(call) for call in asked]
        assert most <= capacity

    def test_no_room(self, service: Service, together: Together) -> None:
        """A call that finds no room in its time fails, and so leaves room for others."""
        over, spoken = threading.Event(), []

        def silent(requests: Frames, _: grpc.ServicerContext) -> Replies:
            for request in requests:
                over.wait(10)
                spoken.append(request)
                yield told_apart(request)

        service.frames = silent
        asked = numbered(6, timeout_s=0.2)

        (outcomes,) = together(service.target, asked, setting=Setting(capacity=2))
        before = list(spoken)
        over.set()

        assert {type(outcome) for outcome in outcomes} == {ServiceUnavailableError}
        assert before == []  # no call waited for anybody else's answer

    def test_room_of_those_who_left(self, service: Service, together: Together) -> None:
        """When a line breaks whose calls are all out of time, those who wait for their room get it at once."""
        late = threading.Event()

        def breaks_when_late(requests: Frames, context: grpc.ServicerContext) -> Replies:
            for request in requests:
                if recipients(request) == [b"hurried"]:
                    late.wait(10)
                    context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
                yield told_apart(request)

        service.frames = breaks_when_late
        hurried, patient = Call(address="hurried", timeout_s=0.2), Call(timeout_s=20)
        threading.Timer(0.4, late.set).start()

        (outcomes,) = together(service.target, [hurried, patient], setting=Setting(capacity=1))

        assert isinstance(outcomes[0], ServiceUnavailableError)
        assert reasons(outcomes[1:]) == [expected(patient)]

    def test_room_of_the_cancelled(self) -> None:
        """Whoever waits for the room of a call that was cancelled before it left gets it when a server comes."""
        with serving() as gone:
            pass

        async def run() -> list[object]:
            async with AsyncClient(gone.target, timeout_s=20) as client, client.batching(capacity=1) as checks:
                first, second = asyncio.ensure_future(ask_async(checks)), asyncio.ensure_future(ask_async(checks))
                await asyncio.sleep(0.05)
                first.cancel()
                with serving(gone.port) as service:
                    service.frames = Moody([])
                    return list(await asyncio.gather(first, second, return_exceptions=True))

        cancelled, answered = asyncio.run(run())

        assert isinstance(cancelled, asyncio.CancelledError)
        assert reasons([cast("Outcome", answered)]) == [expected(Call())]

    @pytest.mark.parametrize(("name", "value"), [("connections", 0), ("connections", 65), ("capacity", 0)])
    def test_sizes(self, name: str, value: int) -> None:
        """A number of connections or calls that cannot be is refused."""
        with Client("127.0.0.1:1") as client, pytest.raises(QuestionError, match=name):
            client.batching(**{name: value})


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
            (Call(channel=cast("Channel", 9)), "channel"),
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

        def confused(requests: Frames, _: grpc.ServicerContext) -> Replies:
            for request in requests:
                reply = told_apart(request)
                reply.frame_id += request.brand_code == 1
                yield reply

        service.frames = confused

        (first, second) = together(service.target, numbered(3), [Call(brand=2)])

        assert {cast("ServiceError", outcome).code for outcome in first} == {"WRONG_FRAME"}
        assert len({id(outcome) for outcome in first}) == 3  # one error raised thrice would collect three traces
        assert reasons(second) == [expected(Call(brand=2))]


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

        _, ((outcome),) = together(service.target, [Call()], [Call()], setting=Setting(monotonic=True))

        assert isinstance(outcome, ServiceFailedError)
        assert outcome.code == "POSITION_WENT_BACK"


class TestEnds:
    """Closing answers or fails every call, once."""

    def test_leaving_waits(self, service: Service) -> None:
        """Leaving the block waits until the calls on their way are answered; later calls are refused."""
        service.frames = Moody(["is slow"] * 10)

        async def run() -> list[Outcome]:
            async with AsyncClient(service.target, timeout_s=5) as client:
                async with client.batching(capacity=2) as checks:
                    asking = [asyncio.ensure_future(ask_async(checks)) for _ in range(5)]
                    await asyncio.sleep(0)
                late = await asyncio.gather(ask_async(checks), return_exceptions=True)
                return [task.result() for task in asking if task.done()] + cast("list[Outcome]", late)

        *answers, late = asyncio.run(run())

        assert reasons(answers) == [expected(Call())] * 5
        assert cast("ServiceError", late).code == "CLIENT_CLOSED"

    def test_leaving_waits_threads(self, service: Service) -> None:
        """The same for threads."""
        service.frames = Moody(["is slow"] * 10)

        with ThreadPoolExecutor(5) as pool, Client(service.target, timeout_s=5) as client:
            with client.batching() as checks:
                asking = [pool.submit(Call().ask, checks) for _ in range(5)]
                while service.streams == 0:
                    time.sleep(0.001)
            with pytest.raises(ServiceUnavailableError, match="closed"):
                Call().ask(checks)

        outcomes = [each.exception() or each.result() for each in asking]
        closed = [each for each in outcomes if isinstance(each, ServiceError)]  # they came too late
        assert all(error.code == "CLIENT_CLOSED" for error in closed)
        assert len(closed) < 5

    def test_leaving_ends_in_time(self, service: Service) -> None:
        """Leaving the block waits no longer than the calls on their way do, however silent the server is."""
        over = threading.Event()
        service.frames = silent_until(over)
        call = Call(timeout_s=0.3)

        async def run() -> list[object]:
            async with AsyncClient(service.target) as client:
                async with asyncio.timeout(10), client.batching() as checks:
                    asking = asyncio.ensure_future(ask_async(checks, call))
                    await asyncio.sleep(0.05)
                return [asking.exception()]

        with ThreadPoolExecutor(2) as pool, Client(service.target) as client, client.batching() as checks:
            asking = pool.submit(call.ask, checks)
            while not checks._ledger.load(0):
                time.sleep(0.001)
            pool.submit(checks.close).result(10)
        outcomes = [*asyncio.run(run()), asking.exception()]
        over.set()

        assert [cast("ServiceError", each).code for each in outcomes] == ["DEADLINE_EXCEEDED"] * 2

    def test_leaving_waits_for_those_without_room(self, service: Service) -> None:
        """Leaving the block waits for threads that still wait for room, too: each is answered."""
        over = threading.Event()

        def held_back(requests: Frames, _: grpc.ServicerContext) -> Replies:
            for request in requests:
                over.wait(10)
                yield told_apart(request)

        service.frames = held_back
        asked = numbered(30)

        with ThreadPoolExecutor(30) as pool, Client(service.target, timeout_s=20) as client:
            with client.batching(capacity=1) as checks:
                asking = [pool.submit(call.ask, checks) for call in asked]
                while checks._pushing < len(asked) - 1:
                    time.sleep(0.001)
                threading.Timer(0.1, over.set).start()
            outcomes: list[Outcome] = [each.result() for each in asking]

        assert reasons(outcomes) == [expected(call) for call in asked]

    @pytest.mark.parametrize("closing", [True, False], ids=["close", "check"])
    def test_signal(self, service: Service, *, closing: bool) -> None:
        """What the handler of a signal raises ends a close, which fails all calls, or the call that it meets."""
        over = threading.Event()
        service.frames = silent_until(over)

        def handler(*_: object) -> None:
            raise KeyError

        before = signal.signal(signal.SIGUSR1, handler)
        main = threading.main_thread().ident or 0
        alarm = threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGUSR1))
        try:
            with ThreadPoolExecutor(1) as pool, Client(service.target, timeout_s=20) as client:
                checks = client.batching()
                checks.__enter__()
                if closing:
                    asking = pool.submit(Call().ask, checks)
                    while not checks._ledger.outstanding:
                        time.sleep(0.001)
                alarm.start()
                with pytest.raises(KeyError):
                    checks.close() if closing else Call().ask(checks)
                left = checks._ledger.alive()
                if closing:
                    assert cast("ServiceError", asking.exception(10)).code == "CLIENT_CLOSED"
                over.set()
                checks.close()
        finally:
            signal.signal(signal.SIGUSR1, before)

        assert left == []

    def test_one_outcome(self) -> None:
        """Who waits in a thread has one outcome, the first."""
        waiter, first = threads._Waiter(), KeyError()

        waiter.settle(first)
        waiter.settle(ValueError())

        assert waiter.outcome is first

    def test_leaving_by_exception(self, service: Service) -> None:
        """Leaving the block by an exception fails the calls on their way at once, and those that wait for room."""
        over = threading.Event()
        service.frames = silent_until(over)

        async def leave(asking: list[asyncio.Future[Answer]]) -> None:
            async with AsyncClient(service.target, timeout_s=30) as client, client.batching(capacity=2) as checks:
                asking += [asyncio.ensure_future(ask_async(checks)) for _ in range(5)]
                await asyncio.sleep(0.1)
                raise KeyError

        async def run() -> list[object]:
            asking: list[asyncio.Future[Answer]] = []
            with pytest.raises(KeyError):
                await leave(asking)
            return list(await asyncio.gather(*asking, return_exceptions=True))

        outcomes = asyncio.run(run())
        over.set()

        assert {cast("ServiceError", outcome).code for outcome in outcomes} == {"CLIENT_CLOSED"}

    def test_leaving_by_exception_threads(self, service: Service) -> None:
        """The same for threads."""
        over = threading.Event()
        service.frames = silent_until(over)
        asking: list[Future[Answer]] = []

        started = time.monotonic()

        def leave(pool: ThreadPoolExecutor) -> None:
            with Client(service.target, timeout_s=30) as client, client.batching(capacity=2) as checks:
                asking.extend(pool.submit(Call().ask, checks) for _ in range(5))
                time.sleep(0.2)
                raise KeyError

        with ThreadPoolExecutor(5) as pool:
            with pytest.raises(KeyError):
                leave(pool)
            outcomes = [each.exception() for each in asking]
        over.set()

        assert {cast("ServiceError", outcome).code for outcome in outcomes} == {"CLIENT_CLOSED"}
        assert time.monotonic() - started < 30  # long before their own time was up

    def test_no_threads_left(self, service: Service) -> None:
        """After a client for threads is closed its threads are gone."""
        before = threading.active_count()

        with Client(service.target) as client:
            for _ in range(3):
                with client.batching(connections=2) as checks:
                    Call().ask(checks)
                assert not [each for each in threading.enumerate() if each.name.startswith("iyscheck-batching")]

        for _ in range(500):  # gRPC ends its own threads in its own time
            if threading.active_count() <= before + 1:
                break
            time.sleep(0.01)
        assert threading.active_count() <= before + 1

    @given(
        going=st.lists(st.booleans(), min_size=1, max_size=30), moods=st.lists(st.sampled_from(MOODS[:5]), max_size=4)
    )
    @settings(max_examples=30, deadline=None)
    def test_cancelled(self, going: list[bool], moods: list[str]) -> None:
        """Cancelled calls end as such, all others get their own answers, and nothing stays behind."""
        asked = numbered(len(going))

        async def run(service: Service) -> tuple[list[object], int]:
            async with AsyncClient(service.target, timeout_s=20) as client, client.batching(capacity=8) as checks:
                tasks = [asyncio.ensure_future(ask_async(checks, call)) for call in asked]
                for turn, (task, goes) in enumerate(zip(tasks, going, strict=True)):
                    if goes:
                        await asyncio.sleep(0.001 * (turn % 3))
                        task.cancel()
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
                rest = await asyncio.gather(*(ask_async(checks, call) for call in asked))
                return [*reasons(cast("list[Outcome]", outcomes)), *reasons(list(rest))], checks._ledger.outstanding

        with serving() as service:
            service.frames = Moody(moods)
            found, outstanding = asyncio.run(run(service))

        for goes, call, outcome in zip(going, asked, found, strict=False):
            assert outcome == expected(call) or (goes and isinstance(outcome, asyncio.CancelledError))
        assert found[len(asked) :] == [expected(call) for call in asked]
        assert outstanding == 0

    def test_failed_beside_cancelled(self, service: Service) -> None:
        """When a frame fails of which one call was cancelled, the others fail with it and the line goes on."""
        arrived, over = threading.Event(), threading.Event()
        moody = Moody(["refuses"])

        def held_back(requests: Frames, context: grpc.ServicerContext) -> Replies:
            for reply in moody(requests, context):
                arrived.set()
                over.wait(10)
                yield reply

        service.frames = held_back

        async def run() -> list[object]:
            async with AsyncClient(service.target, timeout_s=5) as client, client.batching() as checks:
                asking = [asyncio.ensure_future(ask_async(checks, call)) for call in numbered(3)]
                assert await asyncio.to_thread(arrived.wait, 10)
                asking[1].cancel()
                over.set()
                outcomes = await asyncio.gather(*asking, return_exceptions=True)
                return [*outcomes, (await ask_async(checks)).reason]

        first, cancelled, third, last = asyncio.run(run())

        assert isinstance(cancelled, asyncio.CancelledError)
        assert [cast("ServiceError", each).code for each in (first, third)] == ["POSITION_OF_OTHER_LOG"] * 2
        assert last == expected(Call())

    def test_order(self, service: Service) -> None:
        """Tasks that wait for room get it in the order in which they came, however many come when there is some."""
        asked: list[bytes] = []

        def noted(requests: Frames, _: grpc.ServicerContext) -> Replies:
            for request in requests:
                asked.extend(recipients(request))
                yield told_apart(request)

        service.frames = noted
        first, second, third = numbered(3)

        async def run() -> None:
            async with AsyncClient(service.target, timeout_s=5) as client, client.batching(capacity=1) as checks:

                async def asks_again() -> None:
                    await ask_async(checks, first)
                    await ask_async(checks, third)

                await asyncio.gather(asks_again(), ask_async(checks, second))

        with never_above(1):
            asyncio.run(run())

        assert asked == [(call.address or "").encode() for call in (first, second, third)]

    def test_one_turn(self, service: Service) -> None:
        """What is asked in one turn of the loop travels in one frame, also where a line has room already."""
        frames: list[int] = []

        def noted(requests: Frames, _: grpc.ServicerContext) -> Replies:
            for request in requests:
                frames.append(len(recipients(request)))
                yield told_apart(request)

        service.frames = noted

        async def run() -> None:
            async with AsyncClient(service.target, timeout_s=5) as client, client.batching() as checks:
                await ask_async(checks)
                await asyncio.gather(*(ask_async(checks, call) for call in numbered(100)))

        asyncio.run(run())

        assert frames == [1, 100]

    def test_gathered_without_tasks(self, service: Service) -> None:
        """A call for asyncio is an awaitable that has been asked already: many can be gathered without a task each."""
        service.frames = Moody([])

        async def run() -> list[Answer]:
            async with AsyncClient(service.target) as client, client.batching() as checks:
                return await asyncio.gather(
                    *(cast("asyncio.Future[Answer]", call.ask(cast("Batching", checks))) for call in numbered(100))
                )

        assert reasons(list(asyncio.run(run()))) == [expected(call) for call in numbered(100)]


def silent_until(over: threading.Event) -> Callable[[Frames, grpc.ServicerContext], Replies]:
    """Take frames and answer none."""

    def silent(requests: Frames, _: grpc.ServicerContext) -> Replies:
        for _request in requests:
            over.wait(10)
        yield from ()

    return silent


async def ask_async(checks: AsyncBatching, call: Call = Call()) -> Answer:
    """Make a call as a task."""
    return await cast("asyncio.Future[Answer]", call.ask(cast("Batching", checks)))


class TestShape:
    """The two are one."""

    def test_same_parameters(self) -> None:
        """Both clients take the same parameters to make single checks travel together, and both take the same calls."""
        for name in ("check", "close"):
            ours, theirs = (inspect.signature(getattr(kind, name)) for kind in (Batching, AsyncBatching))
            assert ours.parameters == theirs.parameters
