"""How calls that gathered become a frame, and its reply their answers."""

from unittest.mock import Mock

from iyscheck.client.batching.ledger import Kinds
from iyscheck.client.calls import GATHERED, Conversation, gathered_size
from iyscheck.consent import Channel, MessageClass, RecipientType
from iyscheck.keys import AddressKey
from iyscheck.v1 import consent_check_pb2 as pb
from tests.client.fake_server import KEY_ID, Service, frame_reply

CONVERSATION = Conversation(address_key=None, monotonic=False)
SHARED = (1, Channel.MESAJ, RecipientType.BIREYSEL, MessageClass.COMMERCIAL, None, None)


class TestGathered:
    """Frame and answers keep the order of the calls."""

    def test_cleaned(self) -> None:
        """What no form of address accepts travels as an empty text, in its place."""
        texts = ["+905000000002", "\N{SNOWMAN}", "+905000000004", "x" * 10_000]

        request = CONVERSATION.gathered_request(1, [(Kinds().of((*SHARED, None)), texts)])

        assert list(request.addresses) == ["+905000000002", "", "+905000000004", ""]

    def test_tokens(self) -> None:
        """Tokens travel in the order of their calls."""
        tokens = [bytes([number]) * 16 for number in range(5)]

        request = CONVERSATION.gathered_request(1, [(Kinds().of((*SHARED, KEY_ID)), tokens)])

        assert request.tokens == b"".join(tokens)

    def test_recipient(self) -> None:
        """An address goes without a key; a token goes with the key that is named, or else with the client's own."""
        key, token = AddressKey(bytes(32)), bytes(16)
        conversation = Conversation(address_key=key, monotonic=False)

        found = [
            conversation.recipient(*who) for who in (("1", None, None), (None, token, KEY_ID), (None, token, None))
        ]

        assert found == [("1", None), (token, KEY_ID), (token, key.key_id)]

    def test_shared_answers(self) -> None:
        """Equal answers of a frame are one object."""
        parts = [(Kinds().of((*SHARED, None)), ["1", "2", "3", "4"])]
        request = CONVERSATION.gathered_request(1, parts)

        (answers,) = CONVERSATION.gathered_answers(request, parts, frame_reply(request))

        assert isinstance(answers, list)

        assert [answer.permitted for answer in answers] == [False, True, False, True]
        assert answers[0] is answers[2]
        assert answers[1] is answers[3]

    def test_size(self) -> None:
        """However much a server takes, so many calls travel together at most; at least one does."""
        service = Service()

        def size() -> int:
            reply = service.GetServerInfo(pb.GetServerInfoRequest(), Mock())
            return gathered_size(CONVERSATION.info_reply(reply))

        most = size()
        service.limits.max_message_bytes = 1

        assert most == GATHERED
        assert size() == 1
