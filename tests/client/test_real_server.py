import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from iyscheck import address as addresses
from iyscheck.change import Position
from iyscheck.client import Batching, Client
from iyscheck.consent import Channel, MessageClass, Reason, RecipientType, Status
from iyscheck.errors import ServiceError, ServiceRefusedError, ServiceUnavailableError
from iyscheck.keys import AddressKey
from iyscheck.question import Answer, Context, Question
from iyscheck.server.app import Server
from iyscheck.server.log import open_log
from iyscheck.server.settings import Settings
from tests.builders import ADDRESS_KEY, STORE_KEY, StoreBuilder
from tests.client.conftest import Ask
from tests.server.conftest import write_key

CONSENTED, REFUSED, NOBODY = "+905321000001", "+905321000002", "+905321000009"
STALE = 2
CONTEXT = Context(brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)


@dataclass(frozen=True)
class Site:
    """Two servers over one store: one holds the address key, one does not."""

    with_key: Server
    without_key: Server
    log: io.StringIO


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A small store behind real servers."""
    path = tmp_path_factory.mktemp("site")
    for key in (ADDRESS_KEY, STORE_KEY):
        write_key(path / key.kind, key)
    with StoreBuilder(path / "store") as store:
        store.brand(1, now=True).brand(STALE, watermark=None)
        store.consent(recipient=CONSENTED, retailers=[66]).consent(recipient=REFUSED, status=Status.RET)
        store.consent(recipient="someone@example.org", channel=Channel.EPOSTA).commit()
    yield from _served(path)


def _served(path: Path) -> Iterator[Site]:
    log = io.StringIO()
    own = {"store_key": path / "store-key", "listen": "127.0.0.1:0", "metrics_listen": "", "drain_seconds": 0}
    with Server.start(
        Settings.read(store=path / "store", address_key=path / "address-key", **own), open_log("debug", log)
    ) as first:
        # lmdb opens a path once in a process, so the second server lives on a copy.
        copy = path / "copy"
        copy.mkdir()
        for file in (path / "store").iterdir():
            if file.name.startswith("data"):
                (copy / file.name).write_bytes(file.read_bytes())
        with Server.start(Settings.read(store=copy, **own), open_log("debug", log)) as second:
            yield Site(with_key=first, without_key=second, log=log)


def asked(client: Client | Batching, question: Question, **more: Position | float) -> Answer:
    """Ask a question by itself."""
    context = question.context
    return client.check(
        brand=context.brand,
        channel=context.channel,
        recipient_type=context.recipient_type,
        message_class=context.message_class,
        retailer=context.retailer,
        address=question.address,
        **more,  # type: ignore[arg-type] # a position or a time
    )


questions = st.builds(
    Question,
    context=st.builds(
        Context,
        brand=st.sampled_from([1, STALE, 3]),
        channel=st.sampled_from(Channel),
        recipient_type=st.sampled_from(RecipientType),
        message_class=st.sampled_from([MessageClass.COMMERCIAL, MessageClass.DELIVERY]),
        retailer=st.sampled_from([None, 66, 67]),
    ),
    address=st.sampled_from([CONSENTED, REFUSED, NOBODY, "someone@example.org", "nonsense", "", "\ud800"]),
)


class TestRealServer:
    """Client and server agree over a real socket."""

    @pytest.mark.parametrize(
        ("recipient", "reason"),
        [(CONSENTED, Reason.CONSENTED), (REFUSED, Reason.REFUSED), (NOBODY, Reason.NO_CONSENT)],
        ids=["consented", "refused", "nobody"],
    )
    def test_answers(self, site: Site, ask: Ask, recipient: str, reason: Reason) -> None:
        """The usual three answers arrive with their evidence."""
        (answer,) = ask(
            site.with_key.address, lambda client: asked(client, Question(context=CONTEXT, address=recipient))
        )

        assert answer.reason is reason
        assert (answer.evidence is None) == (reason is Reason.NO_CONSENT)

    @given(batch=st.lists(questions, max_size=12), keyed=st.booleans())
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_all_ways_agree(self, site: Site, batch: list[Question], *, keyed: bool) -> None:
        """Single checks, alone or together, batches and columns, by address or token, give the engine's own reasons."""
        target = site.without_key.address if keyed else site.with_key.address
        expected = [site.with_key.engine.check(question).reason for question in batch]

        with Client(target, address_key=ADDRESS_KEY if keyed else None, timeout_s=5) as client:
            single = [asked(client, question) for question in batch]
            many = client.check_many(batch)
            columns = [
                client.check_column(
                    brand=question.context.brand,
                    channel=question.context.channel,
                    recipient_type=question.context.recipient_type,
                    message_class=question.context.message_class,
                    retailer=question.context.retailer,
                    recipients=[question.address or ""],
                )
                for question in batch
            ]
            with client.batching() as checks:
                together = [asked(checks, question) for question in batch]

        assert [answer.reason for answer in single] == expected
        assert [answer.reason for answer in together] == expected
        assert [answer.reason for answer in many] == expected
        assert [column.reasons.tolist() for column in columns] == [[reason] for reason in expected]

    def test_large_column(self, site: Site, ask: Ask) -> None:
        """A column of many full frames comes back whole and in order, as addresses and as tokens."""
        texts = [CONSENTED, REFUSED, NOBODY] * 50_000
        tokens = addresses.tokens(texts, Channel.MESAJ, ADDRESS_KEY)

        results = [
            ask(
                site.with_key.address,
                lambda client, column=column: client.check_column(  # type: ignore[misc] # bound now
                    brand=1,
                    channel=Channel.MESAJ,
                    recipient_type=RecipientType.BIREYSEL,
                    recipients=column,
                    address_key_id=ADDRESS_KEY.key_id,
                    frame_size=65_536,
                ),
            )[0]
            for column in (texts, tokens)
        ]

        expected = np.tile(np.array([Reason.CONSENTED, Reason.REFUSED, Reason.NO_CONSENT], np.uint8), 50_000)
        for result in results:
            assert np.array_equal(result.reasons, expected)
            assert len(set(result.decision_ids)) == 3

    def test_info(self, site: Site, ask: Ask) -> None:
        """What the server says about itself is what its engine says, and what brings calls to it."""
        (info,) = ask(site.with_key.address, lambda client: client.server_info())

        assert info == structs.replace(site.with_key.engine.info(), fronts=("grpc",))

    def test_monotonic(self, site: Site, ask: Ask) -> None:
        """A monotonic client is content with a store that stands still."""
        question = Question(context=CONTEXT, address=CONSENTED)

        answers = ask(site.with_key.address, *[lambda client: asked(client, question)] * 3, monotonic=True)

        assert [answer.permitted for answer in answers] == [True] * 3


class TestRefusals:
    """What the server refuses arrives as the right error, with its code."""

    @pytest.mark.parametrize(
        ("key", "code"),
        [(None, "ADDRESS_KEY_NOT_HELD"), (AddressKey(bytes(32)), "ADDRESS_KEY_MISMATCH")],
        ids=["plaintext", "other-key"],
    )
    def test_keys(self, site: Site, ask: Ask, key: AddressKey | None, code: str) -> None:
        """Plaintext for a server without the key, and tokens of another key, are refused and never a denial."""
        target = site.without_key.address
        question = Question(context=CONTEXT, address=CONSENTED)

        ((item,),) = ask(target, lambda client: client.check_many([question]), address_key=key)
        with pytest.raises(ServiceRefusedError) as single:
            ask(target, lambda client: asked(client, question), address_key=key)
        with pytest.raises(ServiceRefusedError) as column:
            ask(target, lambda client: client.check_column(
                brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, recipients=[CONSENTED]
            ), address_key=key)  # fmt: skip

        assert [item.reason, single.value.code, column.value.code] == [code] * 3
        assert "5321000" not in f"{item}{single.value}{column.value}"

    def test_positions(self, site: Site, ask: Ask) -> None:
        """A position of another log is refused, one not reached yet is unavailable."""
        question = Question(context=CONTEXT, address=CONSENTED)
        here = site.with_key.engine.freshness().position
        errors: list[ServiceError] = []

        for position in (Position(bytes(16), 1), replace(here, sequence=here.sequence + 1)):
            with pytest.raises(ServiceError) as failed:
                ask(
                    site.with_key.address,
                    lambda client, asked_for=position: asked(client, question, min_position=asked_for, timeout_s=0.5),  # type: ignore[misc] # bound now
                )
            errors.append(failed.value)

        assert [type(error) for error in errors] == [ServiceRefusedError, ServiceUnavailableError]
        assert errors[0].code == "POSITION_OF_OTHER_LOG"
        # gRPC, which tries UNAVAILABLE again while there is time, was told not to.
        assert errors[1].code == "NOT_YET_AT_POSITION"

    def test_exempt_waits_for_nothing(self, site: Site, ask: Ask) -> None:
        """A one-time password is answered by a server that has not come so far: it is not looked up there."""
        here = site.with_key.engine.freshness().position
        later = replace(here, sequence=here.sequence + 1)
        contexts = [
            structs.replace(CONTEXT, channel=channel, message_class=MessageClass.SECURITY_CODE) for channel in Channel
        ]
        questions = [Question(context=context, address=CONSENTED) for context in contexts]

        found: list[Any] = ask(
            site.with_key.address,
            lambda client: asked(client, questions[0], min_position=later),
            lambda client: client.check_many(questions[:1], min_position=later),
            lambda client: client.check_column(
                brand=1,
                channel=Channel.MESAJ,
                recipient_type=RecipientType.BIREYSEL,
                message_class=MessageClass.SECURITY_CODE,
                recipients=[CONSENTED],
                min_position=later,
            ),
        )
        with (
            Client(site.with_key.address, timeout_s=2) as client,
            client.batching() as checks,
            ThreadPoolExecutor(len(questions)) as pool,
        ):
            gathered = list(pool.map(lambda question: asked(checks, question, min_position=later), questions))

        single, items, column = found
        assert {answer.reason for answer in (single, *items, *gathered)} == {Reason.EXEMPT_MESSAGE}
        assert column.reasons.tolist() == [Reason.EXEMPT_MESSAGE]

    def test_no_address_in_log(self, site: Site) -> None:
        """After all of that the servers' logs hold no address."""
        assert "5321000" not in site.log.getvalue()
