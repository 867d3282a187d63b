"""A frame of several groups is answered as a column of each would be, and a group at fault fails alone."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from iyscheck import address
from iyscheck.address import TextColumn
from iyscheck.change import Position
from iyscheck.consent import Channel, MessageClass, Policy, Reason, RecipientType, Status
from iyscheck.engine import Engine
from iyscheck.errors import (
    AddressKeyMismatchError,
    AddressKeyNotHeldError,
    BatchTooLargeError,
    IyscheckError,
    NotYetAtPositionError,
    PositionOfOtherLogError,
    QuestionError,
    StoreClosedError,
)
from iyscheck.kernel import Kernel
from iyscheck.question import (
    MAX_FRAME_GROUPS,
    MAX_FRAME_RECIPIENTS,
    Answer,
    ColumnAnswer,
    Context,
    Envelope,
    Group,
    ItemError,
    MixedAnswer,
    Question,
)
from iyscheck.store.environment import Environment
from iyscheck.store.snapshot import Store
from iyscheck.store.view import View
from tests.builders import ADDRESS_KEY, NOW, STORE_KEY, StoreBuilder
from tests.strategies import addresses as any_addresses

LIMIT = 26 * 3600
MESAJ = Context(brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)
PASSWORDS = replace(MESAJ, message_class=MessageClass.SECURITY_CODE)
PHONES = [f"+9053210000{number:02d}" for number in range(6)]
EMAILS = ["ayse@example.com", "ali@example.com"]
BRANDS = range(1, 8)


@pytest.fixture(scope="module", name="builder")
def _builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreBuilder]:
    """Brands that are fresh, stale, inactive, without a watermark and for e-mail only, each with other consents."""
    with StoreBuilder(tmp_path_factory.mktemp("mixed") / "store") as builder:
        builder.brand(1).brand(2, watermark=NOW - LIMIT - 1).brand(3, active=False).brand(4, watermark=None)
        builder.brand(5, channels=[Channel.EPOSTA]).brand(6).brand(7)
        for brand, recipient_type in itertools.product(BRANDS, RecipientType):
            for place, phone in enumerate(PHONES):
                if (place + brand) % 4 != recipient_type:
                    status = (Status.ONAY, Status.RET, Status.UNKNOWN)[(place * brand) % 3]
                    retailers = [10] if (place + brand) % 2 else None
                    builder.consent(
                        brand=brand, recipient_type=recipient_type, recipient=phone, status=status, retailers=retailers
                    )
            builder.consent(
                brand=brand, recipient_type=recipient_type, recipient=EMAILS[brand % 2], channel=Channel.EPOSTA
            )
        builder.commit()
        yield builder


CONTEXTS = st.builds(
    Context,
    # Often a brand that is fresh, where a record decides; the last four are no brand codes.
    brand=st.sampled_from([1, 1, 1, 6, 6, 6, 7, 7, 7, 2, 3, 4, 5, 5, 8, 0, -1, 2**32, True]),
    channel=st.sampled_from([*[Channel.MESAJ] * 4, *[Channel.EPOSTA] * 2, Channel.ARAMA]),
    recipient_type=st.sampled_from(RecipientType),
    message_class=st.just(MessageClass.COMMERCIAL) | st.sampled_from(MessageClass),
    retailer=st.sampled_from([None, None, 10, 99]),
)
FAULTS = st.just(ItemError(reason="R", field="f", message="m"))
RECIPIENTS = st.sampled_from([*PHONES * 3, *EMAILS * 3, "", "0532 100 00 00", "ş"]) | any_addresses
PARTS = st.lists(st.tuples(CONTEXTS | FAULTS, st.lists(RECIPIENTS, max_size=6)), max_size=8)
POLICIES = st.builds(Policy, merchants_need_record=st.booleans(), freshness_limit_s=st.sampled_from([LIMIT, LIMIT + 1]))

Parts = Sequence[tuple[Context | ItemError, list[str]]]


def groups_of(parts: Parts) -> list[Group]:
    """Make the groups of contexts with their recipients."""
    return [Group(context=context, recipients=len(recipients)) for context, recipients in parts]


def all_of(parts: Parts) -> list[str]:
    """Put all recipients one after the other."""
    return [recipient for _, recipients in parts for recipient in recipients]


def tokens_of(parts: Parts) -> np.ndarray:
    """Make the tokens of all recipients, each by the channel of its group."""
    tokens = [
        address.token(recipient, Channel.MESAJ if isinstance(context, ItemError) else context.channel, ADDRESS_KEY)
        for context, recipients in parts
        for recipient in recipients
    ]
    return np.frombuffer(b"".join(tokens), np.uint8).reshape(-1, 16)


def column_of(recipients: list[str]) -> TextColumn:
    """Lay texts out as the scanner of frames does: apart from each other, in a buffer with other bytes."""
    encoded = [text.encode("ascii", "replace") for text in recipients]
    lengths = np.array([len(text) for text in encoded], np.int64)
    starts = np.cumsum(lengths + 2, dtype=np.int64) - lengths
    data = b"".join(b":\x0c" + text for text in encoded)
    return TextColumn(data=np.frombuffer(data, np.uint8), starts=starts, ends=starts + lengths)


def alone(engine: Engine, parts: Parts, **given: object) -> list[tuple[object, list[int]]]:
    """Answer each group as a column of its own: its watermark or its error, and its reasons."""
    found: list[tuple[object, list[int]]] = []
    for context, recipients in parts:
        if isinstance(context, ItemError):
            found.append((context, [0] * len(recipients)))
            continue
        try:
            answer = engine.check_column(context, addresses=recipients, **given)  # type: ignore[call-overload]
            found.append((answer.envelope.as_of, answer.reasons.tolist()))
        except IyscheckError as error:
            found.append((ItemError.of(error), [0] * len(recipients)))
    return found


def together(answer: MixedAnswer, parts: Parts) -> list[tuple[object, list[int]]]:
    """Take an answer apart into what `alone` gives."""
    ends = np.cumsum([len(recipients) for _, recipients in parts]).tolist()
    assert len(answer.groups) == len(parts)
    assert len(answer.reasons) == (ends[-1] if ends else 0)
    found: list[tuple[object, list[int]]] = []
    for slot, end, (_, recipients) in zip(answer.groups, ends, parts, strict=True):
        said = slot.as_of if isinstance(slot, Envelope) else slot
        found.append((said, answer.reasons[end - len(recipients) : end].tolist()))
    return found


@pytest.mark.parametrize("kernel", Kernel)
@settings(max_examples=60, deadline=None)
@given(PARTS, POLICIES)
def test_groups_are_columns(builder: StoreBuilder, kernel: Kernel, parts: Parts, policy: Policy) -> None:
    """Each group is answered as a column of it alone, in its place, whether by texts, where they lie, or tokens."""
    engine = builder.engine(policy=policy, kernel=kernel)
    expected, groups, recipients = alone(engine, parts), groups_of(parts), all_of(parts)

    by_texts = engine.check_groups(groups, addresses=recipients)
    by_column = engine.check_groups(groups, addresses=column_of(recipients))
    by_tokens = engine.check_groups(groups, tokens=tokens_of(parts), address_key_id=ADDRESS_KEY.key_id)

    for answer in (by_texts, by_column, by_tokens):
        assert together(answer, parts) == expected
        envelopes = [slot for slot in answer.groups if isinstance(slot, Envelope)]
        known = [each.as_of for each in envelopes if each.as_of is not None]
        assert answer.envelope.as_of == min(known, default=None)
        assert answer.envelope.valid_until == min((each.valid_until for each in envelopes), default=NOW + 300)
        assert {each.decision_id for each in envelopes} <= {answer.envelope.decision_id}
        assert {each.position for each in envelopes} <= {answer.envelope.position}


def _damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have views find no page of the index, as where all are damaged."""
    made = View.__init__

    def init(view: View, environment: Environment, before: object) -> None:
        made(view, environment, before)  # type: ignore[arg-type]
        view.table.in_use[:] = -1
        view._is_whole = False

    monkeypatch.setattr(View, "__init__", init)


def is_read(context: Context | ItemError) -> bool:
    """Whether recipients in a context are looked up."""
    return isinstance(context, Context) and not context.message_class.exempt


@settings(max_examples=60, deadline=None)
@given(PARTS)
def test_without_index(builder: StoreBuilder, parts: Parts) -> None:
    """Where no page of the index can be used the records give the same answers."""
    expected = alone(builder.engine(), parts)
    with pytest.MonkeyPatch.context() as patch:
        _damaged(patch)
        engine = builder.engine()

        assert together(engine.check_groups(groups_of(parts), addresses=all_of(parts)), parts) == expected
        reads = np.repeat([is_read(context) for context, _ in parts], [len(recipients) for _, recipients in parts])
        readable = tokens_of(parts).any(axis=1)
        assert engine.index_stats().recipients_from_records == np.count_nonzero(readable & (reads == 1))


PARTS_OF_THREE: Parts = [(MESAJ, PHONES), (PASSWORDS, PHONES[:2]), (replace(MESAJ, brand=6), PHONES[3:4])]


class TestFaults:
    """What is wrong with the frame's key, position or store fails what needs them, and never an exempt message."""

    @pytest.mark.parametrize(
        ("given", "error"),
        [
            ({"address_key_id": STORE_KEY.key_id}, AddressKeyMismatchError),
            ({"address_key_id": None}, AddressKeyMismatchError),
            ({"min_position": Position(bytes(16), 1)}, PositionOfOtherLogError),
            ({"min_position": "ahead"}, NotYetAtPositionError),
        ],
    )
    def test_exempt_pass(self, builder: StoreBuilder, given: dict[str, object], error: type[IyscheckError]) -> None:
        """Groups with a wrong key or position have its error; exempt ones are permitted."""
        engine = builder.engine()
        here = engine.freshness().position
        if given.get("min_position") == "ahead":
            given = {"min_position": Position(here.log_id, here.sequence + 1), "timeout_s": 0.0}

        answer = engine.check_groups(
            groups_of(PARTS_OF_THREE),
            tokens=tokens_of(PARTS_OF_THREE),
            **{"address_key_id": ADDRESS_KEY.key_id, **given},  # type: ignore[arg-type]
        )

        first, free, last = answer.groups
        assert isinstance(first, ItemError)
        assert first.reason == error.reason
        assert last == first
        assert isinstance(free, Envelope)
        assert answer.reasons.tolist() == [0] * 6 + [Reason.EXEMPT_MESSAGE] * 2 + [0]

    def test_key_not_held(self, builder: StoreBuilder) -> None:
        """Addresses that no key is held for fail, those of exempt messages need none."""
        answer = builder.engine(takes_addresses=False).check_groups(
            groups_of(PARTS_OF_THREE), addresses=all_of(PARTS_OF_THREE)
        )

        assert [isinstance(slot, Envelope) for slot in answer.groups] == [False, True, False]
        assert isinstance(answer.groups[0], ItemError)
        assert answer.groups[0].reason == AddressKeyNotHeldError.reason

    def test_closed_store(self, builder: StoreBuilder) -> None:
        """A store that cannot be read is raised as in columns; where exempt messages travel along they pass."""
        engine = Engine(
            Store(builder.writer.environment),
            store_key=STORE_KEY,
            address_key=ADDRESS_KEY,
            policy=Policy(),
            answer_ttl_s=1,
        )
        engine.close()

        answer = engine.check_groups(groups_of(PARTS_OF_THREE), addresses=all_of(PARTS_OF_THREE))
        with pytest.raises(StoreClosedError):
            engine.check_groups(groups_of(PARTS_OF_THREE[:1]), addresses=PHONES)

        assert [isinstance(slot, Envelope) for slot in answer.groups] == [False, True, False]
        assert answer.reasons.tolist() == [0] * 6 + [Reason.EXEMPT_MESSAGE] * 2 + [0]

    @pytest.mark.parametrize("counts", [[6, 2], [6, 2, 2], [7, 2, -1, 1], [], [2**63], [2**64 + 9], [9.0]])
    def test_counts(self, builder: StoreBuilder, counts: list[Any]) -> None:
        """Counts that do not add up to the recipients refuse the frame: nobody can tell whose is whose."""
        groups = [Group(context=MESAJ, recipients=count) for count in counts]

        with pytest.raises(QuestionError, match="do not add up to the 9"):
            builder.engine().check_groups(groups, addresses=all_of(PARTS_OF_THREE))

    def test_bounds(self, builder: StoreBuilder) -> None:
        """The largest frame is answered, one recipient or group more is refused."""
        engine = builder.engine()
        full = [Group(context=replace(MESAJ, brand=1 + at % 8), recipients=64) for at in range(MAX_FRAME_GROUPS)]
        tokens = np.zeros((MAX_FRAME_RECIPIENTS, 16), np.uint8)

        answer = engine.check_groups(full, tokens=tokens, address_key_id=ADDRESS_KEY.key_id)

        assert set(answer.reasons.tolist()) == {Reason.INVALID_ADDRESS}
        with pytest.raises(BatchTooLargeError, match="groups"):
            engine.check_groups([*full, Group(context=MESAJ, recipients=0)], tokens=tokens)
        with pytest.raises(BatchTooLargeError, match="addresses"):
            engine.check_groups([Group(context=MESAJ, recipients=65_537)], addresses=[""] * 65_537)

    def test_both_or_neither(self, builder: StoreBuilder) -> None:
        """Exactly one of addresses and tokens is taken, tokens only in rows of 16 bytes."""
        engine, groups = builder.engine(), [Group(context=MESAJ, recipients=1)]

        for recipients in ({}, {"addresses": [""], "tokens": np.zeros((1, 16), np.uint8)}):
            with pytest.raises(QuestionError, match="exactly one"):
                engine.check_groups(groups, **recipients)  # type: ignore[arg-type]
        with pytest.raises(QuestionError, match=r"shape \(N, 16\)"):
            engine.check_groups(groups, tokens=np.zeros((1, 15), np.uint8), address_key_id=ADDRESS_KEY.key_id)


def test_told(builder: StoreBuilder) -> None:
    """Each group that is answered is told once, as a column with its tags; errors are not."""
    told = []
    engine = Engine(
        builder.store,
        store_key=STORE_KEY,
        address_key=ADDRESS_KEY,
        policy=Policy(),
        answer_ttl_s=300,
        clock=lambda: NOW,
        answered=lambda *noted: told.append(noted),
    )
    fault = ItemError(reason="R", field="", message="m")
    parts: Parts = [(fault, PHONES[:2]), *PARTS_OF_THREE, (replace(MESAJ, brand=0), PHONES[:3])]

    answer = engine.check_groups(groups_of(parts), addresses=all_of(parts), caller="gateway")

    for (caller, context, tags, noted), (asked, recipients), slot in zip(
        told, PARTS_OF_THREE, answer.groups[1:4], strict=True
    ):
        exempt = asked == PASSWORDS
        expected = [STORE_KEY.tag(address.token(each, Channel.MESAJ, ADDRESS_KEY)) for each in recipients]
        assert (caller, context) == ("gateway", asked)
        assert bytes(tags) == (b"" if exempt else b"".join(expected))
        assert isinstance(noted, ColumnAnswer)
        assert noted.envelope is slot
        assert len(noted.reasons) == len(recipients)
        assert int(noted.counts.sum()) == len(recipients)


def singly(engine: Engine, question: Question) -> Answer | ItemError:
    """Answer a question alone."""
    try:
        return engine.check(question)
    except QuestionError as error:
        return ItemError.of(error)


def plain(item: Answer | ItemError) -> Answer | ItemError:
    """Leave out what names one answer."""
    if isinstance(item, ItemError):
        return item
    return replace(item, envelope=replace(item.envelope, decision_id=""))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(CONTEXTS, RECIPIENTS), max_size=90), POLICIES)
def test_batches_of_many_brands(builder: StoreBuilder, asked: list[tuple[Context, str]], policy: Policy) -> None:
    """Batches long enough for columns answer each question as it is answered alone, its evidence among it."""
    engine = builder.engine(policy=policy)
    questions = [
        Question(context=context, address=recipient)
        if place % 3
        else Question(
            context=context,
            token=address.token(recipient, context.channel, ADDRESS_KEY),
            address_key_id=ADDRESS_KEY.key_id,
        )
        for place, (context, recipient) in enumerate(asked)
    ]

    answer = engine.check_many(questions)

    for question, item in zip(questions, answer.items, strict=True):
        assert plain(item) == plain(singly(engine, question))


def test_envelope_is_the_earliest(builder: StoreBuilder) -> None:
    """What holds for all answers ends no later than any of them, however long answering takes."""
    ticking = itertools.count(NOW)
    engine = Engine(
        builder.store,
        store_key=STORE_KEY,
        address_key=ADDRESS_KEY,
        policy=Policy(),
        answer_ttl_s=300,
        clock=lambda: float(next(ticking)),
    )
    questions = [
        Question(context=context, address=PHONES[0]) for context in (MESAJ, PASSWORDS, replace(MESAJ, brand=6))
    ]

    batch = engine.check_many(questions)
    mixed = engine.check_groups(groups_of(PARTS_OF_THREE), addresses=all_of(PARTS_OF_THREE))

    items = [item.envelope for item in batch.items if isinstance(item, Answer)]
    groups = [slot for slot in mixed.groups if isinstance(slot, Envelope)]
    for envelope, parts in ((batch.envelope, items), (mixed.envelope, groups)):
        assert len(parts) == 3
        assert envelope.valid_until == min(each.valid_until for each in parts)
