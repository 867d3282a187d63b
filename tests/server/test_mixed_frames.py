"""Mixed frames over a real server: each group as a frame of its own, in one stream with other frames."""

from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from iyscheck import address, wire
from iyscheck.consent import Channel, MessageClass, RecipientType
from iyscheck.question import Context
from iyscheck.v1 import consent_check_pb2 as v1
from tests.builders import ADDRESS_KEY
from tests.server.conftest import CONSENTED, REFUSED, STALE_BRAND, UNKNOWN, Served, make_site, serve
from tests.server.test_rpcs import CONTEXT, NOBODY, context, refusal

RECIPIENTS = [CONSENTED, REFUSED, UNKNOWN, NOBODY, "?", "someone@example.com"]
CONTEXTS = [
    CONTEXT,
    context(brand=STALE_BRAND),
    context(brand=9),
    context(recipient_type=RecipientType.TACIR),
    context(message_class=MessageClass.SECURITY_CODE, brand=9),
    context(retailer=5),
    context(channel=Channel.EPOSTA),
]


def mixed(contexts: list[Context], recipients: list[str], *, plaintext: bool = True) -> v1.StreamCheckRequest:
    """Ask all recipients in each context, in one frame."""
    tokens = np.concatenate([address.tokens(recipients, each.channel, ADDRESS_KEY) for each in contexts])
    return wire.mixed_frame(
        [(wire.group_head(each), len(recipients)) for each in contexts],
        addresses=recipients * len(contexts) if plaintext else None,
        tokens=None if plaintext else tokens,
        address_key_id=None if plaintext else ADDRESS_KEY.key_id,
        frame_id=7,
    )


@pytest.mark.parametrize("many", [1, 40], ids=["short", "long"])  # long ones are cut, short ones are not
@pytest.mark.parametrize("plaintext", [True, False], ids=["plaintext", "tokens"])
def test_as_frames(served: Served, many: int, *, plaintext: bool) -> None:
    """A mixed frame says of each group what a frame of that group says, between frames of one brand."""
    recipients = RECIPIENTS * many
    alone = [wire.frame(each, addresses=recipients) for each in CONTEXTS]

    *replies, together = served.stub.StreamCheck(
        iter([*alone, mixed(CONTEXTS, recipients, plaintext=plaintext)]), timeout=10
    )

    assert together.frame_id == 7
    assert together.reasons == b"".join(reply.reasons for reply in replies)
    assert {each.reason: each.recipients for each in together.counts} == {
        number: together.reasons.count(number) for number in set(together.reasons)
    }
    for slot, reply in zip(together.groups, replies, strict=True):
        assert slot.result.as_of == reply.envelope.as_of
        assert slot.result.HasField("as_of") == reply.envelope.HasField("as_of")
        later = slot.result.valid_until.ToNanoseconds() - reply.envelope.valid_until.ToNanoseconds()
        assert 0 <= later < 10 * 10**9
    assert together.envelope.position == replies[0].envelope.position
    assert together.envelope.policy_id == replies[0].envelope.policy_id
    assert together.envelope.valid_until == min(
        (slot.result.valid_until for slot in together.groups), key=lambda moment: moment.ToNanoseconds()
    )


def test_faults(served: Served) -> None:
    """A group that cannot be answered fails alone, a frame that cannot be understood whole, and the stream goes on."""
    wrong = mixed([CONTEXT] * 3, [CONSENTED])
    wrong.groups[1].channel = v1.CHANNEL_UNSPECIFIED
    uneven = mixed([CONTEXT] * 3, [CONSENTED])
    uneven.groups[1].recipients = 2
    both = mixed([CONTEXT], [CONSENTED])
    both.brand_code = 1
    good = mixed([CONTEXT], [CONSENTED])

    first, second, third, last = served.stub.StreamCheck(iter([wrong, uneven, both, good]), timeout=10)

    assert [slot.error.field for slot in first.groups] == ["", "channel", ""]
    assert list(first.reasons) == [1, 0, 1]
    for refused, field in ((second, "groups"), (third, "brand_code")):
        assert (refused.error.reason, refused.error.field) == ("INVALID_QUESTION", field)
        assert not refused.reasons
        assert not refused.groups
    assert list(last.reasons) == [1]


@pytest.mark.parametrize("many", [1, 400], ids=["short", "long"])
def test_malformed(served: Served, many: int) -> None:
    """A group whose bytes are none ends the stream, as all malformed bytes do, also where it was cut out."""
    good = mixed([CONTEXT], [CONSENTED] * many).SerializeToString()

    replies = served.stream(iter([good, good + b"\x6a\x02\xff\xff", good]))

    assert len(v1.StreamCheckResponse.FromString(next(replies)).reasons) == many
    with pytest.raises(grpc.RpcError) as caught:
        next(replies)
    code, info, _ = refusal(caught.value)
    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_FRAME")


@pytest.fixture(name="measured")
def _measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with metrics that nobody else asks."""
    with serve(make_site(tmp_path_factory.mktemp("measured")), metrics_listen="127.0.0.1:0") as running:
        yield running


def test_metrics(measured: Served) -> None:
    """Recipients are counted by channel and reason, those of failed groups not at all; the frame has one size."""
    frame = mixed([CONTEXT, context(channel=Channel.EPOSTA), CONTEXT, CONTEXT], RECIPIENTS)
    frame.groups[3].brand_code = 0

    (reply,) = measured.stub.StreamCheck(iter([frame]), timeout=10)

    def counted(**labels: str) -> float:
        return measured.metric("consent_check_decisions_total", **labels)

    assert reply.groups[3].HasField("error")
    assert counted(channel="MESAJ") == 12
    assert counted(channel="EPOSTA") == 6
    assert counted(channel="MESAJ", reason="CONSENTED", decision="permit") == 2
    assert counted(channel="EPOSTA", reason="NO_CONSENT", decision="deny") == 1
    assert measured.metric("consent_check_batch_size_count") == 1
    assert measured.metric("consent_check_batch_size_sum") == 24


def test_told(served: Served) -> None:
    """The server tells that it takes mixed frames, and how many groups in one."""
    limits = served.stub.GetServerInfo(v1.GetServerInfoRequest(), timeout=5).limits

    assert limits.max_frame_groups == 1_024
