"""Mixed frames both ways, and what is refused of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from iyscheck import wire
from iyscheck.change import Position
from iyscheck.consent import Channel, MessageClass, RecipientType
from iyscheck.errors import BatchTooLargeError, QuestionError, ServiceFailedError
from iyscheck.question import (
    MAX_FRAME_GROUPS,
    MAX_FRAME_RECIPIENTS,
    MAX_RETAILER_CODE,
    Context,
    Envelope,
    ItemError,
    MixedAnswer,
)
from iyscheck.v1 import consent_check_pb2 as v1
from iyscheck.wire.cut import Cut
from tests.dice import often

KEY_ID = b"8 bytes."
LOG_ID = b"sixteen bytes..."
HERE = Position(LOG_ID, 8)
CONTEXT = Context(brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)

contexts = st.builds(
    Context,
    brand=st.integers(1, 2**32 - 1),
    channel=st.sampled_from(Channel),
    recipient_type=st.sampled_from(RecipientType),
    message_class=st.sampled_from(MessageClass),
    retailer=st.none() | st.integers(1, MAX_RETAILER_CODE),
)
counts = st.integers(1, 5) | st.sampled_from([127, 128, 300])
envelopes = st.builds(
    Envelope,
    position=st.just(HERE),
    as_of=st.none() | st.integers(0, 2**33),
    valid_until=st.integers(0, 2**33).map(float) | st.floats(0, 2**31).map(lambda moment: round(moment, 3)),
    decision_id=st.just("one"),
    policy_id=st.just("p"),
)
errors = st.builds(ItemError, reason=st.text("AB_", min_size=1), field=st.text("ab"), message=st.text(max_size=200))


def read(message: v1.StreamCheckRequest, known: wire.KnownGroups | None = None) -> wire.MixedFrame:
    """Read a frame as a server does, from its bytes."""
    return wire.mixed_of(*wire.parse_frame(message.SerializeToString()), wire.KnownGroups() if known is None else known)


def a_frame(**fields: object) -> v1.StreamCheckRequest:
    """A mixed frame of three tokens in two groups, with other fields as told."""
    message = wire.mixed_frame(
        [(wire.group_head(CONTEXT), 1), (wire.group_head(CONTEXT), 2)],
        tokens=np.zeros((3, 16), np.uint8),
        address_key_id=KEY_ID,
    )
    message.MergeFrom(v1.StreamCheckRequest(**fields))  # type: ignore[arg-type] # by name
    return message


class TestRequests:
    """What a client writes a server reads, and nothing that can be read in two ways."""

    @given(st.lists(st.tuples(contexts, counts), min_size=1, max_size=9), st.none() | st.just(HERE), st.booleans())
    @settings(max_examples=often(80), deadline=None)
    def test_round_trip(
        self,
        groups: list[tuple[Context, int]],
        position: Position | None,
        plaintext: bool,  # noqa: FBT001 - hypothesis gives it by name
    ) -> None:
        """Groups, recipients, key and position survive the wire; groups also where they are known from before."""
        recipients = sum(count for _, count in groups)
        texts = [f"{number}ş" for number in range(recipients)]
        tokens = np.arange(recipients * 16, dtype=np.uint32).astype(np.uint8).reshape(-1, 16)
        message = wire.mixed_frame(
            [(wire.group_head(context), count) for context, count in groups],
            addresses=texts if plaintext else None,
            tokens=None if plaintext else tokens,
            address_key_id=None if plaintext else KEY_ID,
            frame_id=9,
            min_position=position,
        )
        known = wire.KnownGroups()

        for _ in range(2):
            frame = read(message, known)

            assert [(each.context, each.recipients) for each in frame.groups] == groups
            assert frame.min_position == position
            if plaintext:
                assert frame.tokens is None
                assert len(frame.addresses or ()) == recipients
            else:
                assert frame.tokens is not None
                assert frame.tokens.tobytes() == tokens.tobytes()
                assert frame.address_key_id == KEY_ID
        assert message.frame_id == 9
        assert not message.brand_code

    def test_surrogates(self) -> None:
        """A text that cannot be written stays in its place, unreadable."""
        message = wire.mixed_frame([(wire.group_head(CONTEXT), 2)], addresses=["\ud800", "+905321000000"])

        assert list(message.group_addresses) == ["\ufffd", "+905321000000"]

    @pytest.mark.parametrize(
        "fields",
        [
            {"brand_code": 1},
            {"channel": 2},
            {"recipient_type": 1},
            {"message_class": 1},
            {"retailer_code": 0},
            {"addresses": [""]},
            {"tokens": bytes(16)},
            {"addresses": [""] * 600},
            {"tokens": bytes(16 * 100)},
        ],
    )
    def test_both(self, fields: dict[str, object]) -> None:
        """A frame that is of one brand and mixed at once is refused whole, by the field of the one brand."""
        with pytest.raises(QuestionError, match="together with groups") as refused:
            read(a_frame(**fields))

        assert refused.value.field == next(iter(fields))

    @pytest.mark.parametrize("recipients", [2, 4])
    def test_counts(self, recipients: int) -> None:
        """Counts that do not add up refuse the frame: nobody could tell whose a recipient is."""
        message = a_frame()
        message.group_tokens = bytes(16 * recipients)

        with pytest.raises(QuestionError, match=f"do not add up to the {recipients}"):
            read(message)

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"group_addresses": ["5"]}, "groups"),
            ({"group_tokens": bytes(16), "address_key_id": KEY_ID}, "groups"),
            ({"groups": [v1.Group(brand_code=1, recipients=1)]}, "group_tokens"),
            ({"groups": [v1.Group(recipients=1)], "group_tokens": bytes(15)}, "group_tokens"),
            ({"groups": [v1.Group(recipients=1)], "group_tokens": bytes(16)}, "address_key_id"),
            ({"groups": [v1.Group(recipients=1)], "group_tokens": bytes(16), "group_addresses": [""]}, "group_tokens"),
        ],
    )
    def test_missing(self, fields: dict[str, object], field: str) -> None:
        """A part that is missing, or given twice, refuses the frame and is named."""
        with pytest.raises(QuestionError) as refused:
            read(v1.StreamCheckRequest(**fields))  # type: ignore[arg-type] # by name

        assert refused.value.field == field

    def test_bounds(self) -> None:
        """More groups or recipients than a frame may have refuse it."""
        group = v1.Group(brand_code=1, recipients=1)
        for message in (
            v1.StreamCheckRequest(groups=[group] * (MAX_FRAME_GROUPS + 1)),
            v1.StreamCheckRequest(groups=[group], group_addresses=[""] * (MAX_FRAME_RECIPIENTS + 1)),
        ):
            with pytest.raises(BatchTooLargeError):
                read(message)

    def test_group_at_fault(self) -> None:
        """A group that cannot be read has its error in its place; the others stay."""
        groups = [
            v1.Group(channel=v1.CHANNEL_MESAJ, recipient_type=v1.RECIPIENT_TYPE_BIREYSEL, recipients=1),
            v1.Group(brand_code=1, recipient_type=v1.RECIPIENT_TYPE_BIREYSEL, recipients=1),
            v1.Group(brand_code=1, channel=v1.CHANNEL_MESAJ, recipients=1),
            v1.Group(brand_code=1, channel=v1.CHANNEL_MESAJ, recipient_type=v1.RECIPIENT_TYPE_BIREYSEL),
            v1.Group(brand_code=1, channel=v1.CHANNEL_MESAJ, recipient_type=v1.RECIPIENT_TYPE_BIREYSEL, recipients=1),
        ]

        frame = read(v1.StreamCheckRequest(groups=groups, group_addresses=[""] * 4))

        *wrong, right = [group.context for group in frame.groups]
        assert [each.field for each in wrong if isinstance(each, ItemError)] == [
            "brand_code",
            "channel",
            "recipient_type",
            "recipients",
        ]
        assert right == CONTEXT

    def test_known_are_bounded(self) -> None:
        """Callers that make up groups do not fill the memory, neither by many nor by long ones."""
        known = wire.KnownGroups(most=3)
        for brand in range(1, 9):
            head = wire.group_head(replace(CONTEXT, brand=brand))
            read(wire.mixed_frame([(head, 1)], addresses=[""]), known)
            assert 1 <= len(known) <= 3
        before = len(known)

        long = v1.Group.FromString(wire.group_head(CONTEXT) + b"\x30\x01" + b"\xfa\x07\xf4\x03" + bytes(500))
        frame = read(v1.StreamCheckRequest(groups=[long], group_addresses=[""]), known)

        assert [group.context for group in frame.groups] == [CONTEXT]
        assert len(known) == before

    def test_others_are_not_mixed(self) -> None:
        """A frame of one brand is none of these."""
        assert not wire.is_mixed(wire.frame(CONTEXT, addresses=["5"]), Cut())


class TestAnswers:
    """What a server writes a client reads, and believes only what is whole."""

    @given(st.lists(st.tuples(envelopes | errors, st.binary(min_size=1, max_size=3)), min_size=1, max_size=9))
    @settings(max_examples=often(80), deadline=None)
    def test_round_trip(self, slots: list[tuple[Envelope | ItemError, bytes]]) -> None:
        """Reasons and every group's envelope or error survive the wire, in order."""
        reasons = np.frombuffer(b"".join(given for _, given in slots), np.uint8)
        envelope = Envelope(position=HERE, as_of=3, valid_until=4.5, decision_id="one", policy_id="p")
        answer = MixedAnswer(reasons=reasons, groups=[slot for slot, _ in slots], envelope=envelope)

        message = v1.StreamCheckResponse.FromString(wire.mixed_response(6, answer).SerializeToString())
        found = wire.mixed_answer_of(message, len(slots), len(reasons))

        assert message.frame_id == 6
        assert sum(each.recipients for each in message.counts) == len(reasons)
        assert found.reasons.tolist() == reasons.tolist()
        assert found.envelope == envelope
        for slot, back in zip(answer.groups, found.groups, strict=True):
            if isinstance(slot, Envelope):
                assert isinstance(back, Envelope)
                assert back.valid_until == pytest.approx(slot.valid_until, abs=1e-6)
                assert (back.as_of, back.position, back.decision_id) == (slot.as_of, HERE, "one")
            else:
                assert back == slot

    @pytest.mark.parametrize(("groups", "recipients"), [(1, 3), (3, 3), (2, 2), (2, 4)])
    def test_not_whole(self, groups: int, recipients: int) -> None:
        """A reply with fewer or more groups or reasons than were asked is no answer."""
        envelope = Envelope(position=HERE, as_of=3, valid_until=4.5, decision_id="one", policy_id="p")
        answer = MixedAnswer(reasons=np.ones(3, np.uint8), groups=[envelope] * 2, envelope=envelope)

        with pytest.raises(ServiceFailedError, match="answered"):
            wire.mixed_answer_of(wire.mixed_response(1, answer), groups, recipients)

    def test_neither(self) -> None:
        """A group with neither answer nor error was not answered."""
        message = v1.StreamCheckResponse(reasons=b"\1", groups=[v1.GroupAnswer()])
        message.envelope.position.log_id = LOG_ID

        (slot,) = wire.mixed_answer_of(message, 1, 1).groups

        assert isinstance(slot, ItemError)
        assert slot.reason == ServiceFailedError.reason

    def test_without_groups(self) -> None:
        """A reply that has no groups is of a server that knows none, whatever else it says."""
        assert not wire.knows_groups(v1.StreamCheckResponse(reasons=b"\1\1"))
