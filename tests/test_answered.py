"""The seam at which a log of decisions attaches: who is told of which answers, and of nothing else."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck import address, wire
from iyscheck.callers.scopes import Caller
from iyscheck.consent import Channel, MessageClass, Policy, Reason, RecipientType, Status
from iyscheck.engine import Engine
from iyscheck.errors import IyscheckError
from iyscheck.question import Answer, ColumnAnswer, Context, ItemError, Question
from iyscheck.server.calls import Call
from iyscheck.server.gate import Admission, Gate
from iyscheck.server.handlers import CheckHandlers
from iyscheck.server.metrics import Metrics
from tests.builders import ADDRESS_KEY, NOW, STORE_KEY, StoreBuilder

Told: TypeAlias = tuple[str, Context, bytes, Answer | ColumnAnswer]

WHO = Context(brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)
PASSWORDS = Context(
    brand=1,
    channel=Channel.MESAJ,
    recipient_type=RecipientType.BIREYSEL,
    message_class=MessageClass.SECURITY_CODE,
)
CONSENTED, REFUSED, NOBODY = "+905321000000", "+905321000001", "not an address"


def tag_of(recipient: str) -> bytes:
    """Say under which tag the store keeps a recipient."""
    return STORE_KEY.tag(address.token(recipient, WHO.channel, ADDRESS_KEY))


class Recorder:
    """Stands for a log: keeps what it is told, and raises what it is given to raise."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.error: Exception | None = None

    def __call__(
        self, caller: str, context: Context, tags: bytes | npt.NDArray[np.uint8], answer: Answer | ColumnAnswer, /
    ) -> None:
        """Keep it."""
        if self.error is not None:
            raise self.error
        self.told.append((caller, context, bytes(tags), answer))


@pytest.fixture(scope="module", name="builder")
def _builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreBuilder]:
    """A store with one who consented and one who refused."""
    with StoreBuilder(tmp_path_factory.mktemp("answered") / "store") as builder:
        builder.brand(1)
        builder.consent(brand=1, recipient=CONSENTED).consent(brand=1, recipient=REFUSED, status=Status.RET)
        builder.commit()
        yield builder


def engine_of(builder: StoreBuilder, recorder: Recorder | None) -> Engine:
    """Open an engine that tells a recorder, if there is one."""
    return Engine(
        builder.store,
        store_key=STORE_KEY,
        address_key=ADDRESS_KEY,
        policy=Policy(),
        answer_ttl_s=300,
        clock=lambda: NOW,
        answered=recorder,
    )


RECIPIENTS = st.sampled_from([CONSENTED, REFUSED, NOBODY, "+905321000002"])
QUESTIONS = st.lists(
    st.one_of(
        st.builds(Question, context=st.sampled_from([WHO, PASSWORDS]), address=RECIPIENTS),
        st.just(Question(context=WHO)),  # names nobody
        st.just(ItemError(reason="X", field="x", message="x")),
    ),
    max_size=6,
)


@given(QUESTIONS)
def test_each_answer(builder: StoreBuilder, questions: list[Question | ItemError]) -> None:
    """Every answer is told once, as its caller gets it, by single checks and by a batch; errors are not."""
    recorder = Recorder()
    engine = engine_of(builder, recorder)

    items = engine.check_many(questions, caller="gateway").items
    expected = [
        (
            "gateway",
            question.context,
            b"" if question.context.message_class.exempt else tag_of(question.address or ""),
            item,
        )
        for question, item in zip(questions, items, strict=True)
        if isinstance(question, Question) and isinstance(item, Answer)
    ]
    assert recorder.told == expected

    recorder.told.clear()
    singles = [
        engine.check(question, caller="gateway")
        for question in questions
        if isinstance(question, Question) and question.address
    ]
    assert [(caller, context, tags) for caller, context, tags, _ in recorder.told] == [each[:3] for each in expected]
    assert [answer for *_, answer in recorder.told] == singles


@given(QUESTIONS)
def test_each_together(builder: StoreBuilder, questions: list[Question | ItemError]) -> None:
    """Questions of many callers that are answered together are told each with its caller, as if asked alone."""
    recorder = Recorder()
    engine = engine_of(builder, recorder)
    asked = [question for question in questions if isinstance(question, Question)]
    callers = [f"caller {number}" for number in range(len(asked))]

    answers = engine.check_each(asked, callers)
    told = list(recorder.told)
    recorder.told.clear()
    for question, caller in zip(asked, callers, strict=True):
        if question.address:
            engine.check(question, caller=caller)

    assert [each[3] for each in told] == [answer for answer in answers if answer is not None]
    assert [each[:3] for each in told] == [each[:3] for each in recorder.told]
    assert [answer is None for answer in answers] == [question.address is None for question in asked]
    assert len({answer.envelope.decision_id for *_, answer in told}) == len(told)


def test_raised_together(builder: StoreBuilder) -> None:
    """What is raised for one question stands in its place, and in no other's."""
    recorder = Recorder()
    engine = engine_of(builder, recorder)

    def answered(caller: str, *told: object) -> None:
        if caller == "second":
            raise IyscheckError("full")

    engine._answered = answered
    asked = [Question(context=WHO, address=CONSENTED)] * 3
    first, second, third = engine.check_each(asked, ["first", "second", "third"])

    assert isinstance(first, Answer)
    assert isinstance(second, IyscheckError)
    assert isinstance(third, Answer)


@settings(deadline=None)  # the first one compiles
@given(st.lists(RECIPIENTS, max_size=20), st.sampled_from([WHO, PASSWORDS]))
def test_each_column(builder: StoreBuilder, recipients: list[str], who: Context) -> None:
    """A column is told as a whole, with the tags in its order; those who cannot be read share one."""
    recorder = Recorder()

    answer = engine_of(builder, recorder).check_column(who, addresses=recipients, caller="gateway")

    tags = b"" if who.message_class.exempt else b"".join(map(tag_of, recipients))
    assert recorder.told == [("gateway", who, tags, answer)]


def test_column_in_keywords(builder: StoreBuilder) -> None:
    """Each frame of a column in keywords is told with its caller."""
    recorder = Recorder()

    result = engine_of(builder, recorder).check_column(
        brand=WHO.brand,
        channel=WHO.channel,
        recipient_type=WHO.recipient_type,
        recipients=[CONSENTED, REFUSED],
        caller="job",
    )

    ((caller, context, tags, answer),) = recorder.told
    assert (caller, context, tags) == ("job", WHO, tag_of(CONSENTED) + tag_of(REFUSED))
    assert isinstance(answer, ColumnAnswer)
    assert answer.reasons.tolist() == result.reasons.tolist()


def test_raises(builder: StoreBuilder) -> None:
    """Where an answer cannot be noted its caller gets the error and no answer, in every way of asking."""
    recorder = Recorder()
    engine = engine_of(builder, recorder)
    recorder.error = IyscheckError("the log is full")
    question = Question(context=WHO, address=CONSENTED)

    with pytest.raises(IyscheckError, match="the log is full"):
        engine.check(question)
    with pytest.raises(IyscheckError, match="the log is full"):
        engine.check_many([question])
    with pytest.raises(IyscheckError, match="the log is full"):
        engine.check_column(WHO, addresses=[CONSENTED])


def test_same_answers(builder: StoreBuilder) -> None:
    """Nobody is answered otherwise because somebody takes note, and without anybody nothing is told."""
    question = Question(context=WHO, address=CONSENTED)

    reasons = [engine_of(builder, recorder).check(question).reason for recorder in (Recorder(), None)]

    assert reasons == [Reason.CONSENTED] * 2


def test_opened(tmp_path: Path) -> None:
    """An engine that is opened by its path tells, too; who asks for himself has no name."""
    with StoreBuilder(tmp_path / "store") as builder:
        builder.brand(1).commit()
    recorder = Recorder()

    with Engine.open(tmp_path / "store", store_key=STORE_KEY, address_key=ADDRESS_KEY, answered=recorder) as engine:
        engine.check(brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, address=CONSENTED)

    assert [(caller, context) for caller, context, *_ in recorder.told] == [("", WHO)]


def test_front(builder: StoreBuilder) -> None:
    """Whom a front names as its caller is named in every kind of call, also where a position was waited for."""
    recorder = Recorder()
    engine = engine_of(builder, recorder)
    metrics = Metrics(lambda: 0)
    handlers = CheckHandlers(engine, metrics.decisions, metrics.not_answered, max_waiters=1)
    gateway = Admission(Caller(name="gateway-7", brands=None, addresses=True), Gate(), None, None)
    call = Call(admission=gateway, time_remaining=lambda: None)
    position = engine.freshness().position
    asked = Question(context=WHO, address=CONSENTED)

    for min_position in (None, position):
        handlers.check(wire.check_request(asked, min_position=min_position).SerializeToString(), call)
        handlers.batch_check(wire.batch_request([asked], min_position=min_position).SerializeToString(), call)
        frame = wire.frame(WHO, addresses=[CONSENTED], min_position=min_position)
        list(handlers.stream_check(iter([frame.SerializeToString()]), call))

    assert [(caller, tags) for caller, _, tags, _ in recorder.told] == [("gateway-7", tag_of(CONSENTED))] * 6
