"""The embedded engine is asked as a client is, and answers what a dict of consents says."""

import inspect
import pickle
import random
import typing
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck import address, errors
from iyscheck.client import Client
from iyscheck.consent import Channel, MessageClass, Reason, RecipientType, Status
from iyscheck.engine import Engine
from iyscheck.errors import (
    AddressKeyMismatchError,
    IyscheckError,
    QuestionError,
    StoreClosedError,
)
from iyscheck.question import MAX_FRAME_RECIPIENTS, Answer, Context, Contexts, ItemError, Question
from tests.builders import ADDRESS_KEY, STORE_KEY, StoreBuilder
from tests.embedding import BRAND, MESAJ, PEOPLE, ask_all, make_store, open_engine

NETWORK = {"client_reference", "frame_size", "window"}
"""Keywords of the client that mean nothing without a server."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store in which people consented and refused in turn."""
    return make_store(tmp_path_factory.mktemp("embedded") / "store")


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    """An open engine."""
    with open_engine(path) as engine:
        yield engine


# --- Asking -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, dict[tuple[object, ...], Status]]]:
    """An engine over random consents, and the same consents as a dict."""
    dice = random.Random(5)
    consents: dict[tuple[object, ...], Status] = {}
    with StoreBuilder(tmp_path_factory.mktemp("model") / "store") as builder:
        for brand in (1, 2):
            builder.brand(brand, now=True)
            for channel in (Channel.ARAMA, Channel.MESAJ):
                for recipient_type in RecipientType:
                    for recipient in dice.sample(PEOPLE, 25):
                        status = dice.choice([Status.ONAY, Status.RET, Status.UNKNOWN])
                        consents[brand, channel, recipient_type, recipient] = status
                        builder.consent(
                            brand=brand,
                            channel=channel,
                            recipient_type=recipient_type,
                            recipient=recipient,
                            status=status,
                        )
        builder.commit()
    with open_engine(builder.path) as engine:
        yield engine, consents


def expected(status: Status | None, context: Context) -> Reason:
    """What a fresh store answers for a consent of this status."""
    if context.message_class.exempt:
        return Reason.EXEMPT_MESSAGE
    if context.brand > 2:
        return Reason.BRAND_NOT_REGISTERED
    absent = Reason.NO_CONSENT if context.recipient_type is RecipientType.BIREYSEL else Reason.MERCHANT_NOT_REFUSED
    return {
        None: absent,
        Status.ONAY: Reason.CONSENTED,
        Status.RET: Reason.REFUSED,
        Status.UNKNOWN: Reason.STATUS_UNKNOWN,
    }[status]


class TestSpelling:
    """Engine and client are asked alike."""

    @settings(max_examples=60, deadline=None)
    @given(
        brand=st.integers(1, 3),
        channel=st.sampled_from([Channel.ARAMA, Channel.MESAJ]),
        recipient_type=st.sampled_from(RecipientType),
        message_class=st.sampled_from([MessageClass.COMMERCIAL, MessageClass.COMMERCIAL, MessageClass.DELIVERY]),
        recipients=st.lists(st.sampled_from(PEOPLE), min_size=1, max_size=12),
    )
    def test_dict(
        self,
        model: tuple[Engine, dict[tuple[object, ...], Status]],
        brand: int,
        channel: Channel,
        recipient_type: RecipientType,
        message_class: MessageClass,
        recipients: list[str],
    ) -> None:
        """Keywords, questions, batches and columns, by address and by token, answer what a dict of consents says."""
        engine, consents = model
        context = Context(
            brand=brand, channel=channel, recipient_type=recipient_type, message_class=message_class
        )  # fmt: skip - one line of what it is
        says = [expected(consents.get((brand, channel, recipient_type, each)), context) for each in recipients]
        tokens = address.tokens(recipients, channel, ADDRESS_KEY)
        who: dict[str, typing.Any] = {
            "brand": brand,
            "channel": channel,
            "recipient_type": recipient_type,
            "message_class": message_class,
        }

        assert [engine.check(**who, address=each).reason for each in recipients] == says
        assert [engine.check(**who, token=each.tobytes()).reason for each in tokens] == says
        assert [engine.check(Question(context=context, address=each)).reason for each in recipients] == says
        batch = engine.check_many(Question(context=context, address=each) for each in recipients)
        assert [item.reason for item in batch if isinstance(item, Answer)] == says
        assert (len(batch), batch[0]) == (len(says), batch.items[0])
        assert engine.check_column(**who, recipients=iter(recipients)).reasons.tolist() == says
        assert engine.check_column(**who, recipients=tokens).reasons.tolist() == says

    @pytest.mark.parametrize("name", ["check", "check_column", "stream_column", "check_many"])
    def test_same_keywords(self, name: str) -> None:
        """What the client takes the engine takes, by the same names, types and defaults, but for the network's."""
        theirs = inspect.signature(getattr(Client, name)).parameters
        ours = inspect.signature(
            (typing.get_overloads(getattr(Engine, name)) or [getattr(Engine, name)])[-1]
        ).parameters

        assert set(theirs) - set(ours) == NETWORK & set(theirs)
        assert set(ours) - {"caller"} <= set(theirs)  # a server knows who asks by itself
        for parameter in set(ours) - {"self", "timeout_s", "questions", "caller"}:
            assert ours[parameter] == theirs[parameter], parameter

    @pytest.mark.parametrize(
        ("field", "wrong"),
        [
            ("brand", {"brand": 0}),
            ("brand", {"brand": 2**32}),
            ("brand", {"brand": "600123"}),
            ("brand", {"brand": True}),
            ("brand", {"brand": float(BRAND)}),
            ("retailer", {"retailer": 0}),
            ("retailer", {"retailer": True}),
            ("channel", {"channel": 7}),
            ("channel", {"channel": "MESAJ"}),
            ("channel", {"channel": 2.0}),
            ("channel", {"channel": RecipientType.TACIR}),
            ("recipient_type", {"recipient_type": 0}),
            ("recipient_type", {"recipient_type": Channel.ARAMA}),
            ("message_class", {"message_class": 99}),
            ("message_class", {"message_class": True}),
            ("message_class", {"message_class": RecipientType.TACIR}),
            ("address", {"token": bytes(16)}),
            ("address", {"address": None}),
            ("token", {"address": None, "token": b"short"}),
            ("token", {"address": None, "token": b"short", "message_class": MessageClass.SECURITY_CODE}),
            ("address_key_id", {"address": None, "token": bytes(16), "address_key_id": "12345678"}),
        ],
        ids=str,
    )
    def test_refused(self, engine: Engine, field: str, wrong: dict[str, typing.Any]) -> None:
        """A question that cannot be right is refused by engine and client alike, naming the field."""
        asked = {"brand": BRAND, "channel": Channel.MESAJ, "recipient_type": RecipientType.BIREYSEL}
        asked |= {"address": PEOPLE[0]} | wrong
        with Client("127.0.0.1:1", address_key=ADDRESS_KEY) as client:
            for checks in (engine, client):
                with pytest.raises(QuestionError) as caught:
                    checks.check(**asked)  # type: ignore[call-overload, arg-type] # wrong on purpose
                assert caught.value.field == field

    @pytest.mark.parametrize(
        "wrong",
        [
            {"brand": float(BRAND)},
            {"channel": RecipientType.TACIR},
            {"recipient_type": Channel.ARAMA},
            {"message_class": RecipientType.TACIR},
        ],
        ids=str,
    )
    def test_refused_again(self, engine: Engine, wrong: dict[str, typing.Any]) -> None:
        """What only equals the right thing is refused also when the right thing was asked before."""
        asked: dict[str, typing.Any] = {
            "brand": BRAND,
            "channel": Channel.MESAJ,
            "recipient_type": RecipientType.BIREYSEL,
            "message_class": MessageClass.SUBSCRIPTION if "message_class" in wrong else MessageClass.COMMERCIAL,
        }
        assert engine.check(**asked, address=PEOPLE[0]).permitted
        assert engine.check_column(**asked, recipients=PEOPLE[:1]).permitted.all()

        with pytest.raises(QuestionError):
            engine.check(**asked | wrong, address=PEOPLE[0])
        with pytest.raises(QuestionError):
            engine.check_column(**asked | wrong, recipients=PEOPLE[:1])

    @pytest.mark.parametrize(
        "kind", [bytearray, memoryview, lambda token: token.hex()[:16]], ids=["array", "view", "text"]
    )
    def test_token_kinds(self, tmp_path: Path, kind: Callable[[bytes], typing.Any]) -> None:
        """A token that is not `bytes` is refused in each way to ask; nobody else is looked for in its place."""
        context = Context(brand=BRAND, channel=Channel.MESAJ, recipient_type=RecipientType.TACIR)
        with StoreBuilder(tmp_path / "store") as builder:
            builder.brand(BRAND, now=True)
            builder.consent(
                brand=BRAND, recipient_type=RecipientType.TACIR, recipient=PEOPLE[0], status=Status.RET
            ).commit()
        token = address.token(PEOPLE[0], Channel.MESAJ, ADDRESS_KEY)
        question = Question(context=context, token=kind(token), address_key_id=ADDRESS_KEY.key_id)
        with open_engine(builder.path) as engine:
            with pytest.raises(QuestionError):
                engine.check(question)
            with pytest.raises(QuestionError):
                engine.check(brand=BRAND, channel=Channel.MESAJ, recipient_type=RecipientType.TACIR, token=kind(token))
            (item,) = engine.check_many([question])

        assert isinstance(item, ItemError)
        assert item.field == "token"

    @pytest.mark.parametrize(
        "recipients", ["+905320000000", ["+905320000000", None], np.zeros((2, 15), np.uint8)], ids=type
    )
    def test_refused_columns(self, engine: Engine, recipients: typing.Any) -> None:  # noqa: ANN401 - wrong on purpose
        """What is no column of recipients is refused as a whole."""
        with pytest.raises(QuestionError):
            ask_all(engine, recipients)

    def test_plain_numbers(self, engine: Engine) -> None:
        """A number that equals a channel stands for it, also where the number was never seen before."""
        who: dict[str, typing.Any] = {"brand": np.int64(BRAND), "recipient_type": 1, "address": PEOPLE[0]}

        answers = [engine.check(**who | {"channel": channel}).reason for channel in (2, 3)]

        assert answers == [Reason.CONSENTED, Reason.INVALID_ADDRESS]  # no e-mail

    @pytest.mark.parametrize("given", [2, RecipientType.TACIR], ids=["number", "name"])
    def test_plain_recipient_type(self, engine: Engine, given: typing.Any) -> None:  # noqa: ANN401 - one is wrong
        """A plain number in a prepared context is what it equals, and harms nobody who asks by the name after it."""
        for recipient_type in (given, RecipientType.TACIR):
            context = Context(brand=BRAND, channel=Channel.MESAJ, recipient_type=recipient_type)
            question = Question(context=context, address=PEOPLE[0])
            assert engine.check(question).reason == Reason.MERCHANT_NOT_REFUSED

    def test_no_recipient_type(self, engine: Engine) -> None:
        """A number that is no recipient type in a prepared context is refused."""
        context = Context(brand=BRAND, channel=Channel.MESAJ, recipient_type=typing.cast("RecipientType", 5))
        with pytest.raises(QuestionError, match="recipient_type"):
            engine.check(Question(context=context, address=PEOPLE[0]))

    def test_mixed_up(self, engine: Engine) -> None:
        """A prepared question with keywords of another is a mistake, never an answer."""
        question = Question(context=MESAJ, address=PEOPLE[0])
        for other in (
            {"brand": BRAND},
            {"channel": Channel.EPOSTA},
            {"recipient_type": RecipientType.TACIR},
            {"message_class": MessageClass.DELIVERY},
            {"retailer": 1},
            {"address": PEOPLE[1]},
            {"token": bytes(16)},
            {"address_key_id": STORE_KEY.key_id},
        ):
            with pytest.raises(TypeError):
                engine.check(question, **other)
        with pytest.raises(TypeError):
            engine.check_column(MESAJ, recipients=PEOPLE)  # type: ignore[call-overload] # wrong on purpose
        for twice in ({"addresses": PEOPLE[1:]}, {"tokens": np.zeros((1, 16), np.uint8)}):
            with pytest.raises(TypeError):
                engine.check_column(
                    brand=BRAND,
                    channel=Channel.MESAJ,
                    recipient_type=RecipientType.BIREYSEL,
                    recipients=PEOPLE,
                    **twice,
                )

    def test_bad_item(self, engine: Engine) -> None:
        """A question of a batch that cannot be asked harms only itself."""
        bad = Question(
            context=Context(brand=-1, channel=Channel.MESAJ, recipient_type=RecipientType.TACIR), address="x"
        )

        items = list(engine.check_many([bad, Question(context=MESAJ, address=PEOPLE[0])]))

        assert isinstance(items[0], ItemError)
        assert items[0].field == "brand"
        assert isinstance(items[1], Answer)

    def test_key_ids(self, path: Path) -> None:
        """A token's key need not be named where the engine holds it, must be where not, and is never another."""
        token = address.token(PEOPLE[0], Channel.MESAJ, ADDRESS_KEY)
        who: dict[str, typing.Any] = {
            "brand": BRAND,
            "channel": Channel.MESAJ,
            "recipient_type": RecipientType.BIREYSEL,
        }
        with open_engine(path) as holds, Engine.open(path, store_key=STORE_KEY) as lacks:
            assert holds.check(**who, token=token).permitted
            assert lacks.check(**who, token=token, address_key_id=ADDRESS_KEY.key_id).permitted
            with pytest.raises(QuestionError, match="address_key_id"):
                lacks.check(**who, token=token)
            with pytest.raises(AddressKeyMismatchError):
                holds.check(**who, token=token, address_key_id=STORE_KEY.key_id)

    def test_made_up_numbers(self) -> None:
        """Retailers that callers make up do not fill the memory."""
        contexts = Contexts(10)

        for retailer in range(1, 100):
            kind = (BRAND, Channel.MESAJ, RecipientType.BIREYSEL, MessageClass.COMMERCIAL, retailer)
            assert contexts.of(kind).retailer == retailer

        assert len(contexts) <= 10

    def test_endless_column(self, engine: Engine) -> None:
        """A column without end is answered frame by frame, and nothing of it is read ahead."""
        read = 0

        def endless() -> Iterator[str]:
            nonlocal read
            while True:
                read += 1
                yield PEOPLE[read % 2]

        frames = engine.stream_column(
            brand=BRAND, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, recipients=endless()
        )
        first, second = next(frames), next(frames)

        assert (first.first, second.first, read) == (0, MAX_FRAME_RECIPIENTS, 2 * MAX_FRAME_RECIPIENTS)
        assert first.reasons[:2].tolist() == [Reason.REFUSED, Reason.CONSENTED]

    def test_long_array(self, engine: Engine) -> None:
        """An array longer than a frame is answered whole; an empty one has no answer."""
        tokens = address.tokens(PEOPLE, Channel.MESAJ, ADDRESS_KEY)
        long = np.tile(tokens, (2 * MAX_FRAME_RECIPIENTS // len(tokens) + 1, 1))
        who: dict[str, typing.Any] = {
            "brand": BRAND,
            "channel": Channel.MESAJ,
            "recipient_type": RecipientType.BIREYSEL,
        }

        result = engine.check_column(**who, recipients=long)

        assert (result.permitted == (np.arange(len(long)) % 2 == 0)).all()
        assert len(result.envelopes) == 3
        assert engine.check_column(**who, recipients=long[:0]).reasons.size == 0


class TestErrors:
    """Errors cross processes."""

    @pytest.mark.parametrize(
        "error",
        [
            QuestionError("brand", "is wrong.", fix="Right it."),
            errors.BatchTooLargeError("questions", maximum=1, actual=2),
            StoreClosedError("The store was closed.", fix="Open it."),
            errors.ServiceUnavailableError("Nobody answered.", code="UNAVAILABLE", field="x"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_pickled(self, error: IyscheckError) -> None:
        """An error that a pool of processes carries is the same on the other side."""
        carried = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes

        assert type(carried) is type(error)
        assert (str(carried), vars(carried), carried.args) == (str(error), vars(error), error.args)
