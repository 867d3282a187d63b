"""Whatever happens to its frames, a call gets its own answer."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, cast

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iyscheck.change import Position
from iyscheck.consent import Channel, MessageClass, Reason, RecipientType
from iyscheck.errors import ServiceFailedError, ServiceRefusedError, ServiceUnavailableError
from iyscheck.keys import AddressKey
from iyscheck.question import Answer
from iyscheck.v1 import consent_check_pb2 as pb
from tests.client.batching.callers import (
    Call,
    Outcome,
    Setting,
    Together,
    expected,
    numbered,
    reasons,
    watched,
)
from tests.client.batching.servers import FRAME_S, MOODS, WAIT_S, Frames, Moody, Replies, recipients, told_apart
from tests.client.fake_server import KEY_ID, LOG, Service, envelope, serving
from tests.dice import often


def served(moody: Moody, longest: int, groups: int, ask: Callable[[str], list[list[Outcome]]]) -> list[list[Outcome]]:
    """Serve with these moods while calls are made; a server that dies comes again at its address."""

    def start(port: int = 0) -> Service:
        service = parts.enter_context(serving(port))
        service.frames, service.limits.max_frame_recipients = moody, longest
        service.limits.max_frame_groups = groups
        return service

    with ThreadPoolExecutor(1) as pool, ExitStack() as parts:
        service = start()
        asking = pool.submit(ask, service.target)
        asking.add_done_callback(lambda _: moody.events.put("done"))
        while moody.events.get() == "died":
            parts.close()
            service = start(service.port)
        return asking.result()


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
    """What happens in one example: the calls, the moods of their server and its largest frame, and the client."""

    asked: list[Call]
    moods: list[str]
    longest: int
    groups: int
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
        groups=draw(st.sampled_from([0, 1, 2, 1_024, 1_024])),
        setting=Setting(
            timeout_s=20,
            # Elsewhere a frame has all the time it wants: what a busy machine delays would be asked again.
            batch_timeout_s=FRAME_S if "hangs" in moods else 20,
            connections=draw(st.integers(1, 3)),
            capacity=draw(st.sampled_from([1, 3, 10, 10_000])),
            to_the_end=True,
        ),
    )


scenes = made_scenes()


class TestOwnAnswers:
    """Whatever happens, every call gets its own answer or its own error, once."""

    @given(scene=scenes)
    @settings(max_examples=often(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_moods(self, together: Together, scene: Scene) -> None:
        """Broken, ended, full, slow, hanging, killed, old streams show in no answer; a bad frame or group fails alone.

        Only who has no time ends late, only who is cancelled ends so, and at the end nothing is held.
        """
        moody, setting = Moody(list(scene.moods)), scene.setting
        replies_get_lost = "dies" in scene.moods or "hangs" in scene.moods

        with watched() as watch:
            (outcomes,) = served(
                moody,
                scene.longest,
                scene.groups,
                lambda target: together(target, scene.asked, setting=setting),
            )

        assert 0 < watch.most <= setting.capacity
        assert watch.held() == []

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
            gone.wait(WAIT_S)

        with ThreadPoolExecutor(1) as pool:
            with serving() as first:
                first.frames = dying
                asking = pool.submit(together, first.target, asked, asked, asked, setting=Setting(timeout_s=20))
                assert arrived.wait(WAIT_S)
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
