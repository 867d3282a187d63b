"""Calls of many brands share frames with a server that takes such, and with no other."""

from dataclasses import replace

import grpc
import pytest

from iyscheck.consent import Channel, MessageClass, RecipientType
from iyscheck.errors import ServiceRefusedError
from iyscheck.keys import AddressKey
from iyscheck.question import Answer
from iyscheck.v1 import consent_check_pb2 as pb
from tests.client.batching.callers import Call, Setting, Together, Watch, expected, numbered, reasons
from tests.client.batching.servers import Frames, Holding, Replies, of_old, recipients, told_apart
from tests.client.fake_server import Service

BRANDS = 7


def of_brands(count: int) -> list[Call]:
    """Calls about different recipients, each for the next brand."""
    return [replace(call, brand=1 + number % BRANDS) for number, call in enumerate(numbered(count))]


class Keeping:
    """Answers by a rule, holds the first frame until so many calls have come, and keeps all frames."""

    def __init__(self, watch: Watch, calls: int, *, old: bool = False) -> None:
        self.frames: list[pb.StreamCheckRequest] = []
        self._watch, self._calls = watch, calls
        self._reply = of_old if old else told_apart

    def __call__(self, requests: Frames, _: grpc.ServicerContext) -> Replies:
        """Serve a stream."""
        for request in requests:
            self.frames.append(request)
            self._watch.come(self._calls)
            yield self._reply(request)

    @property
    def mixed(self) -> list[pb.StreamCheckRequest]:
        """The frames of several groups."""
        return [frame for frame in self.frames if frame.groups]


class TestTogether:
    """What has gathered leaves together, whosever it is."""

    def test_brands(self, service: Service, together: Together, watch: Watch) -> None:
        """Calls of several brands leave in one frame behind the first, and each gets its own answer."""
        asked = of_brands(60)
        service.limits.max_frame_groups = 1_024
        service.frames = keeping = Keeping(watch, len(asked))

        (outcomes,) = together(service.target, asked)

        assert reasons(outcomes) == [expected(call) for call in asked]
        assert max(len(frame.groups) for frame in keeping.mixed) == BRANDS
        assert len(keeping.frames) < 2 * BRANDS
        for frame in keeping.mixed:  # so an old server could not take it for another's question
            assert not frame.brand_code
            assert not frame.channel
            assert not frame.addresses

    def test_envelopes(self, service: Service, together: Together, watch: Watch) -> None:
        """Calls of one brand in one frame share an envelope, calls of two brands do not."""
        asked = of_brands(60)
        service.limits.max_frame_groups = 1_024
        service.frames = Keeping(watch, len(asked))

        (outcomes,) = together(service.target, asked)

        brands_of: dict[int, set[int]] = {}
        for call, outcome in zip(asked, outcomes, strict=True):
            assert isinstance(outcome, Answer)
            brands_of.setdefault(id(outcome.envelope), set()).add(call.brand)
        assert {len(brands) for brands in brands_of.values()} == {1}
        assert len(brands_of) < len(asked)

    def test_most_groups(self, service: Service, together: Together, watch: Watch) -> None:
        """No frame has more groups than the server takes."""
        asked = of_brands(60)
        service.limits.max_frame_groups = 3
        service.frames = keeping = Keeping(watch, len(asked))

        (outcomes,) = together(service.target, asked)

        assert reasons(outcomes) == [expected(call) for call in asked]
        assert max(len(frame.groups) for frame in keeping.mixed) == 3

    def test_apart(self, service: Service, together: Together, watch: Watch) -> None:
        """Exempt messages share no frame with commercial ones: what they do not wait for shall not hold them up."""
        asked = [
            replace(call, message_class=MessageClass.SECURITY_CODE if number % 3 else MessageClass.COMMERCIAL)
            for number, call in enumerate(of_brands(60))
        ]
        service.limits.max_frame_groups = 1_024
        service.frames = keeping = Keeping(watch, len(asked))

        (outcomes,) = together(service.target, asked)

        assert reasons(outcomes) == [expected(call) for call in asked]
        assert keeping.mixed
        for frame in keeping.mixed:
            assert len({group.message_class for group in frame.groups}) == 1

    def test_key(self, service: Service, together: Together, watch: Watch) -> None:
        """A client with a key makes the tokens of both forms of address, each as alone."""
        key = AddressKey(bytes(range(32)))
        service.limits.max_frame_groups = 1_024
        phones = [replace(call, brand=1 + number % BRANDS) for number, call in enumerate(numbered(30))]
        mails = [
            replace(call, address=f"a{number}@example.com", channel=Channel.EPOSTA)
            for number, call in enumerate(of_brands(30))
        ]
        asked = [call for pair in zip(phones, mails, strict=True) for call in pair]
        service.frames = keeping = Keeping(watch, len(asked))
        (outcomes,) = together(service.target, asked, setting=Setting(address_key=key))
        mixed = keeping.mixed
        assert mixed
        service.limits.max_frame_groups = 0

        (alone,) = together(service.target, asked, setting=Setting(address_key=key))

        assert not any(frame.addresses or frame.group_addresses for frame in keeping.frames)
        assert len({row for frame in keeping.frames for row in recipients(frame)}) == len(asked)
        assert reasons(outcomes) == reasons(alone)

    def test_group_at_fault(self, service: Service, together: Together, watch: Watch) -> None:
        """What the server refuses of a frame fails the calls of that brand, with its error, and no others."""
        asked = of_brands(60)

        def refusing(request: pb.StreamCheckRequest) -> pb.StreamCheckResponse:
            reply = told_apart(request)
            for group, slot in zip(request.groups, reply.groups, strict=True):
                if group.brand_code == 2:
                    slot.error.reason, slot.error.message = "BRAND_NOT_IN_SCOPE", "not this one"
            if request.brand_code == 2:
                reply = pb.StreamCheckResponse(
                    frame_id=request.frame_id, error=pb.ItemError(reason="BRAND_NOT_IN_SCOPE")
                )
            return reply

        service.limits.max_frame_groups = 1_024
        service.frames = Holding(lambda *_: not watch.come(len(asked)), refusing)

        (outcomes,) = together(service.target, asked)

        for call, outcome in zip(asked, outcomes, strict=True):
            if call.brand == 2:
                assert isinstance(outcome, ServiceRefusedError)
                assert outcome.code == "BRAND_NOT_IN_SCOPE"
            else:
                assert reasons([outcome]) == [expected(call)]
        errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        assert len(set(map(id, errors))) == len(errors)  # one error raised in many places collects all traces


class TestOldServers:
    """A server that knows no groups answers nobody in a mixed frame, and all when they are asked again."""

    def test_not_asked(self, service: Service, together: Together, watch: Watch) -> None:
        """A server that tells of no groups gets a frame for each brand."""
        asked = of_brands(60)
        service.frames = keeping = Keeping(watch, len(asked), old=True)

        (outcomes,) = together(service.target, asked)

        assert reasons(outcomes) == [expected(call) for call in asked]
        assert not keeping.mixed

    @pytest.mark.parametrize("says", ["error", "nothing", "reasons"])
    def test_unknown(self, service: Service, together: Together, watch: Watch, says: str) -> None:
        """One that was replaced by an older one, or stands beside it, is noticed by the first reply without groups.

        Whatever else that reply says is believed by nobody, permissions for each recipient least of all.
        """
        asked = of_brands(60)

        class Old(Keeping):
            """Answers mixed frames with something."""

            def __call__(self, requests: Frames, context: grpc.ServicerContext) -> Replies:
                for reply, frame in zip(super().__call__(requests, context), self._growing(), strict=False):
                    if frame.groups and says != "error":
                        count = len(recipients(frame)) if says == "reasons" else 0
                        yield pb.StreamCheckResponse(
                            frame_id=reply.frame_id, reasons=bytes([1] * count), envelope=told_apart(frame).envelope
                        )
                    else:
                        yield reply

            def _growing(self) -> Frames:
                at = 0
                while True:
                    yield self.frames[at]
                    at += 1

        service.limits.max_frame_groups = 1_024
        service.frames = keeping = Old(watch, len(asked), old=True)

        rounds = together(service.target, asked, asked, asked)

        for outcomes in rounds:
            assert reasons(outcomes) == [expected(call) for call in asked]
        assert 1 <= len(keeping.mixed) <= 2  # as many as were on their way when the first reply came, and no more later

    def test_first_again(self, service: Service, together: Together, watch: Watch) -> None:
        """What the old server left unanswered is asked for each kind alone."""
        asked = [
            Call(address=f"+9050000{number:05}", brand=brand, recipient_type=kind)
            for number, (brand, kind) in enumerate((brand, kind) for brand in range(1, 6) for kind in RecipientType)
        ]
        service.limits.max_frame_groups = 1_024
        service.frames = keeping = Keeping(watch, len(asked), old=True)

        (outcomes,) = together(service.target, asked)

        assert reasons(outcomes) == [expected(call) for call in asked]
        assert all(len(recipients(frame)) == 1 for frame in keeping.frames if not frame.groups)
