"""Same question, same answer, whatever was asked before: Python takes True, 1.0 and 1 for equal, an engine does not."""

from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.consent import Channel, MessageClass, RecipientType, Status
from iyscheck.engine import Engine
from iyscheck.errors import QuestionError
from iyscheck.question import Answer, Context, ItemError, Question
from tests.builders import StoreBuilder
from tests.dice import often

RECIPIENT = "+905321000001"


class Other(IntEnum):
    """An enum of somebody else."""

    ONE = 1
    TWO = 2


ONES = [1, True, 1.0, np.int64(1), np.float64(1), np.True_, Other.ONE, Status.ONAY]
TWOS = [2, 2.0, np.uint8(2), Other.TWO, Status.RET]
PARTS: dict[str, list[object]] = {
    "brand": ONES,
    "channel": [Channel.MESAJ, RecipientType.TACIR, MessageClass.SUBSCRIPTION, *TWOS],
    "recipient_type": [RecipientType.BIREYSEL, Channel.ARAMA, MessageClass.COMMERCIAL, *ONES],
    "message_class": [MessageClass.COMMERCIAL, Channel.ARAMA, *ONES],
    "retailer": [None, *ONES],
}
"""Of each part a right value first, then what equals it."""

asked = st.fixed_dictionaries({name: st.sampled_from(values) | st.just(values[0]) for name, values in PARTS.items()})


def by_keywords(engine: Engine, parts: dict[str, Any]) -> object:
    """Ask in keywords."""
    return engine.check(**parts, address=RECIPIENT).reason


def by_question(engine: Engine, parts: dict[str, Any]) -> object:
    """Ask by a question made whole."""
    return engine.check(Question(context=Context(**parts), address=RECIPIENT)).reason


def by_batch(engine: Engine, parts: dict[str, Any]) -> object:
    """Ask in a batch, where a bad question harms only itself."""
    (item,) = engine.check_many([Question(context=Context(**parts), address=RECIPIENT)])
    return item.reason if isinstance(item, Answer | ItemError) else item


def by_column(engine: Engine, parts: dict[str, Any]) -> object:
    """Ask in a column in keywords."""
    return engine.check_column(**parts, recipients=[RECIPIENT]).reasons.tolist()


def by_frame(engine: Engine, parts: dict[str, Any]) -> object:
    """Ask in a frame of a context."""
    return engine.check_column(Context(**parts), addresses=[RECIPIENT]).reasons.tolist()


WAYS = [by_keywords, by_question, by_batch, by_column, by_frame]


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreBuilder]:
    """A store in which retailer 1 may use the consent."""
    with StoreBuilder(tmp_path_factory.mktemp("look-alikes") / "store") as found:
        found.brand().consent(recipient=RECIPIENT, retailers=[1]).commit()
        yield found


def outcome(way: Callable[[Engine, dict[str, Any]], object], engine: Engine, parts: dict[str, Any]) -> object:
    """Say what asking comes to: an answer, or the field at fault."""
    try:
        return way(engine, parts)
    except QuestionError as error:
        return error.field
    except AttributeError:
        return "no message class"


@settings(max_examples=often(150), deadline=None)
@given(st.lists(st.tuples(st.sampled_from(WAYS), asked), min_size=2, max_size=8))
def test_alone(builder: StoreBuilder, questions: list[tuple[Any, dict[str, Any]]]) -> None:
    """Each question of a sequence gets what it gets alone, from an engine that was asked nothing before."""
    engine = builder.engine()

    together = [outcome(way, engine, parts) for way, parts in questions]

    assert together == [outcome(way, builder.engine(), parts) for way, parts in questions]


@pytest.mark.parametrize("way", [by_keywords, by_column])
@pytest.mark.parametrize("name", PARTS)
def test_no_key(builder: StoreBuilder, way: Any, name: str) -> None:  # noqa: ANN401 - one of WAYS
    """What cannot even be looked up is refused by its field."""
    right = {part: values[0] for part, values in PARTS.items()}

    with pytest.raises(QuestionError, match=name):
        way(builder.engine(), right | {name: []})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("name", "wrong"),
    [(name, value) for name, values in PARTS.items() for value in values if type(value) in (bool, float, np.float64)],
)
def test_refused(builder: StoreBuilder, way: Any, name: str, wrong: object) -> None:  # noqa: ANN401 - one of WAYS
    """A bool or a float is no number: it is refused by its field, also behind the question that it equals."""
    right = {part: values[0] for part, values in PARTS.items()} | {"retailer": 1}
    engine = builder.engine()
    outcome(way, engine, right)

    refused = outcome(way, engine, right | {name: wrong})

    assert refused in {name, "INVALID_QUESTION", "no message class"}
