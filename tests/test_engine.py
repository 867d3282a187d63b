"""The engine: batch and column answer what single checks answer, positions, freshness, other processes."""

import functools
import itertools
import multiprocessing
import threading
import time
import uuid
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from iyscheck import address
from iyscheck.change import Position
from iyscheck.consent import Channel, LegacyDeadline, MessageClass, Policy, Reason, RecipientType, Status
from iyscheck.engine import Engine
from iyscheck.engine.opened import OpenedStore
from iyscheck.engine.standing import MOST_STANDINGS, Standings
from iyscheck.errors import (
    AddressKeyMismatchError,
    AddressKeyNotHeldError,
    BatchTooLargeError,
    InputError,
    KeysError,
    NotYetAtPositionError,
    PositionOfOtherLogError,
    QuestionError,
)
from iyscheck.kernel import Kernel
from iyscheck.question import MAX_BATCH_QUESTIONS, MAX_FRAME_RECIPIENTS, Answer, Context, Finding, ItemError, Question
from iyscheck.store.snapshot import Store
from tests.builders import ADDRESS_KEY, CONSENTED, NOW, REGISTERED, STORE_KEY, StoreBuilder
from tests.strategies import addresses as any_addresses

LIMIT = 26 * 3600
SPAWN = multiprocessing.get_context("spawn")
MESAJ = Context(brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)
RECIPIENTS = [f"+9053210000{number:02d}" for number in range(12)]
EMAILS = ["ayse@example.com", "ali@example.com", "nobody@example.com"]


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreBuilder]:
    """A store with each kind of brand, status, deadline and register."""
    with StoreBuilder(tmp_path_factory.mktemp("engine") / "store") as builder:
        builder.brand(1).brand(2, watermark=NOW - LIMIT - 1).brand(3, active=False).brand(4, watermark=None)
        builder.brand(5, channels=[Channel.EPOSTA]).brand(6, legacy_deadline=LegacyDeadline.ANNOUNCED)
        for brand, recipient_type in itertools.product(range(1, 8), RecipientType):
            add = functools.partial(builder.consent, brand=brand, recipient_type=recipient_type)
            add(recipient=RECIPIENTS[0])
            add(recipient=RECIPIENTS[1], status=Status.RET)
            add(recipient=RECIPIENTS[2], status=Status.UNKNOWN)
            add(recipient=RECIPIENTS[3], consented=1_500_000_000, registered=1_610_000_000)  # missed two deadlines
            add(recipient=RECIPIENTS[4], retailers=[10, 11])
            add(recipient=RECIPIENTS[5], retailers=[])
            add(recipient=RECIPIENTS[6], status=Status.RET, retailers=[10])
            add(recipient=EMAILS[0], channel=Channel.EPOSTA)
            add(recipient=EMAILS[1], channel=Channel.EPOSTA, status=Status.RET)
        builder.commit()
        yield builder


policies = st.builds(
    Policy,
    merchants_need_record=st.booleans(),
    legacy_deadline=st.sampled_from(LegacyDeadline),
    freshness_limit_s=st.sampled_from([LIMIT, LIMIT + 1, 0]),
)
contexts = st.builds(
    Context,
    brand=st.integers(1, 8) | st.just(2**32 - 1),
    channel=st.sampled_from(Channel),
    recipient_type=st.sampled_from(RecipientType),
    message_class=st.just(MessageClass.COMMERCIAL) | st.just(MessageClass.COMMERCIAL) | st.sampled_from(MessageClass),
    retailer=st.sampled_from([None, None, 10, 99]),
)
asked_addresses = st.sampled_from([*RECIPIENTS, *EMAILS, "", "0532 100 00 00", "+905321000001x"]) | any_addresses


def token_of(recipient: str, channel: Channel) -> bytes:
    """Return the token of an address; zeros if it is unreadable."""
    return address.token(recipient, channel, ADDRESS_KEY)


@st.composite
def questions(draw: st.DrawFn) -> Question:
    """Questions with an address or token, and wrong ones with both, neither, a short token or another key's."""
    context = draw(contexts)
    recipient = draw(asked_addresses)
    token = token_of(recipient, context.channel)
    key_id = ADDRESS_KEY.key_id
    return draw(
        st.sampled_from(
            [
                Question(context=context, address=recipient),
                Question(context=context, address=recipient),
                Question(context=context, token=token, address_key_id=key_id),
                Question(context=context, token=token, address_key_id=key_id),
                Question(context=context, token=bytes(16), address_key_id=key_id),
                Question(context=context, token=token[1:], address_key_id=key_id),
                Question(context=context, token=token, address_key_id=STORE_KEY.key_id),
                Question(context=context, token=token),
                Question(context=context, address=recipient, token=token, address_key_id=key_id),
                Question(context=context),
            ]
        )
    )


def facts(item: Answer | ItemError) -> object:
    """What an answer says apart from its id and the moment."""
    if isinstance(item, ItemError):
        return item
    return (item.reason, item.message_class, item.evidence, item.envelope.as_of, item.envelope.position)


def single(engine: Engine, question: Question | ItemError) -> object:
    """Ask one question as `check` does, with its error as an item."""
    if isinstance(question, ItemError):
        return question
    try:
        return facts(engine.check(question))
    except (InputError, KeysError) as error:
        field = error.field if isinstance(error, InputError) else ""
        return ItemError(reason=error.reason, field=field, message=str(error))


class TestManyIsOne:
    """Batches and columns answer exactly what as many single checks answer."""

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(questions() | st.just(ItemError(reason="R", field="f", message="m")), max_size=12),
        policies,
        st.booleans(),
    )
    def test_check_many(
        self,
        builder: StoreBuilder,
        asked: list[Question | ItemError],
        policy: Policy,
        takes_addresses: bool,  # noqa: FBT001 - hypothesis gives it by name
    ) -> None:
        """A batch of any questions is answered item by item as alone, errors at their places."""
        engine = builder.engine(policy=policy, takes_addresses=takes_addresses)

        answer = engine.check_many(asked)

        assert [facts(item) for item in answer.items] == [single(engine, question) for question in asked]
        moments = [item.envelope.as_of for item in answer.items if isinstance(item, Answer)]
        assert answer.envelope.as_of == min((each for each in moments if each is not None), default=None)
        valid = [item.envelope.valid_until for item in answer.items if isinstance(item, Answer)]
        assert answer.envelope.valid_until == min(valid, default=NOW + 300)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(questions(), max_size=12), policies)
    def test_check_each(self, builder: StoreBuilder, asked: list[Question], policy: Policy) -> None:
        """Questions that are answered together are answered each as alone; those with an error are left open."""
        engine = builder.engine(policy=policy)

        found = engine.check_each(asked, [""] * len(asked))

        alone = [single(engine, question) for question in asked]
        assert [each is None for each in found] == [isinstance(item, ItemError) for item in alone]
        assert [facts(each.answer()) for each in found if isinstance(each, Finding)] == [
            item for item in alone if not isinstance(item, ItemError)
        ]

    def test_decisions(self, builder: StoreBuilder) -> None:
        """Each of thousands that are answered together has a UUIDv7 of its own, and the next thousands have others."""
        engine = builder.engine()
        asked = [
            Question(context=replace(MESAJ, message_class=kind), token=bytes(16), address_key_id=ADDRESS_KEY.key_id)
            for kind in (MessageClass.COMMERCIAL, MessageClass.DELIVERY)
        ] * 2_500
        before = time.time_ns() // 1_000_000

        found = [each for _ in range(2) for each in engine.check_each(asked, [""] * len(asked))]

        ids = [uuid.UUID(each.decision_id) for each in found if isinstance(each, Finding)]
        assert len(set(ids)) == len(asked) * 2
        assert {(each.version, each.variant) for each in ids} == {(7, uuid.RFC_4122)}
        assert all(before <= each.int >> 80 <= time.time_ns() // 1_000_000 for each in ids)
        assert [str(each) for each in ids] == [each.decision_id for each in found if isinstance(each, Finding)]

    @pytest.mark.parametrize("kernel", Kernel)
    @settings(max_examples=80, deadline=None)
    @given(recipients=st.lists(asked_addresses, max_size=15), context=contexts, policy=policies)
    def test_check_column(
        self, builder: StoreBuilder, kernel: Kernel, recipients: list[str], context: Context, policy: Policy
    ) -> None:
        """A column of addresses, and one of their tokens, is answered as each recipient alone, on both kernels."""
        engine = builder.engine(policy=policy, kernel=kernel)
        expected = [engine.check(Question(context=context, address=recipient)).reason for recipient in recipients]
        tokens = address.tokens(recipients, context.channel, ADDRESS_KEY)

        by_address = engine.check_column(context, addresses=recipients)
        by_token = engine.check_column(context, tokens=tokens, address_key_id=ADDRESS_KEY.key_id)

        assert by_address.reasons.tolist() == by_token.reasons.tolist() == expected
        assert by_address.reasons.dtype == np.uint8

    @pytest.mark.parametrize("recipient_type", RecipientType)
    @pytest.mark.parametrize("retailer", [10, 11, 99])
    def test_retailers(self, builder: StoreBuilder, retailer: int, recipient_type: RecipientType) -> None:
        """In a column as alone only a retailer on the access list may use a consent; no list means nobody may."""
        engine = builder.engine()
        context = replace(MESAJ, brand=1, recipient_type=recipient_type, retailer=retailer)
        asked = [RECIPIENTS[4], RECIPIENTS[5], RECIPIENTS[0], RECIPIENTS[6]]
        listed = Reason.RETAILER_NOT_AUTHORISED if retailer == 99 else Reason.CONSENTED
        expected = [listed, Reason.RETAILER_NOT_AUTHORISED, Reason.RETAILER_NOT_AUTHORISED, Reason.REFUSED]

        column = engine.check_column(context, addresses=asked).reasons.tolist()

        assert column == expected
        assert [engine.check(Question(context=context, address=each)).reason for each in asked] == expected

    def test_every_reason(self, builder: StoreBuilder) -> None:
        """The generated questions can meet every reason that the rule gives."""
        strict = builder.engine(policy=Policy(merchants_need_record=True))
        met = set()
        for engine in (builder.engine(), strict):
            for brand in range(1, 9):
                for recipient_type in RecipientType:
                    for message_class in (MessageClass.COMMERCIAL, MessageClass.DELIVERY):
                        for retailer in (None, 10):
                            context = replace(
                                MESAJ,
                                brand=brand,
                                recipient_type=recipient_type,
                                message_class=message_class,
                                retailer=retailer,
                            )
                            met.update(engine.check_column(context, addresses=[*RECIPIENTS, "x"]).reasons.tolist())

        assert met == set(Reason) - {Reason.UNSPECIFIED, Reason.LOCALLY_SUPPRESSED}

    def test_tokens_of_any_layout(self, builder: StoreBuilder) -> None:
        """A strided or reversed array of tokens is answered row by row."""
        engine = builder.engine()
        tokens = address.tokens(RECIPIENTS, Channel.MESAJ, ADDRESS_KEY)

        whole = engine.check_column(MESAJ, tokens=tokens, address_key_id=ADDRESS_KEY.key_id).reasons
        strided = engine.check_column(MESAJ, tokens=tokens[::-2], address_key_id=ADDRESS_KEY.key_id).reasons

        assert strided.tolist() == whole[::-2].tolist()


class TestRemembered:
    """What single checks keep of a transaction changes no answer and takes no memory without end."""

    @settings(max_examples=60, deadline=None)
    @given(st.lists(questions(), max_size=4), st.permutations([-301, 0, LIMIT, LIMIT + 1, 9, 0]))
    def test_one_engine_is_many(self, builder: StoreBuilder, asked: list[Question], moments: list[int]) -> None:
        """An engine that was asked much, at moments that go forth and back, answers each as a new one does."""
        now = float(NOW)
        old = Engine(
            builder.store,
            store_key=STORE_KEY,
            address_key=ADDRESS_KEY,
            policy=Policy(),
            answer_ttl_s=300,
            clock=lambda: now,
        )

        for after, question in itertools.product(moments, asked):
            now = float(NOW + after)
            assert single(old, question) == single(builder.engine(now=now), question)

    def test_next_transaction(self, tmp_path: Path) -> None:
        """The first check after a commit sees everything of it: record, brand, watermark, retailers."""
        with StoreBuilder(tmp_path / "store") as builder:
            builder.brand().consent(retailers=[10]).commit()
            engine = builder.engine()
            for_retailer = Question(context=replace(MESAJ, retailer=10), address="+905321000001")
            asked = Question(context=MESAJ, address="+905321000001")
            met = [engine.check(for_retailer).reason, engine.check(asked).reason]

            for change in (
                functools.partial(builder.consent, retailers=[11], registered=REGISTERED + 1),
                functools.partial(builder.consent, status=Status.RET, registered=REGISTERED + 2),
                functools.partial(builder.brand, active=False, registered=REGISTERED + 1),
            ):
                change()
                builder.commit()
                met += [engine.check(for_retailer).reason, engine.check(asked).reason]

        assert met == [
            *(Reason.CONSENTED, Reason.CONSENTED),
            *(Reason.RETAILER_NOT_AUTHORISED, Reason.CONSENTED),
            *(Reason.REFUSED, Reason.REFUSED),
            *(Reason.BRAND_INACTIVE, Reason.BRAND_INACTIVE),
        ]

    def test_made_up_numbers(self, builder: StoreBuilder) -> None:
        """Brand codes and retailers that callers make up do not fill the memory."""
        opened = OpenedStore(builder.store, store_key_id=STORE_KEY.key_id, address_key_id=ADDRESS_KEY.key_id)
        standings = Standings(Policy(), opened)
        with builder.store.snapshot() as snapshot:
            for number in range(MOST_STANDINGS + 10):
                standings.of(snapshot, replace(MESAJ, brand=1_000 + number, retailer=1 + number))
                assert len(standings) <= MOST_STANDINGS


class TestRefused:
    """What cannot be answered is refused with the field at fault."""

    def test_limits(self, builder: StoreBuilder) -> None:
        """One recipient more than a frame may carry is refused; the maximum is not. A batch has no limit here."""
        engine = builder.engine()
        question = Question(context=replace(MESAJ, message_class=MessageClass.DELIVERY), address="x")

        with pytest.raises(BatchTooLargeError):
            engine.check_column(MESAJ, addresses=["x"] * (MAX_FRAME_RECIPIENTS + 1))

        assert len(engine.check_many([question] * (MAX_BATCH_QUESTIONS + 1)).items) == MAX_BATCH_QUESTIONS + 1
        assert len(engine.check_column(MESAJ, addresses=["x"] * MAX_FRAME_RECIPIENTS).reasons) == MAX_FRAME_RECIPIENTS

    def test_plaintext_without_key(self, builder: StoreBuilder) -> None:
        """Without the address key plaintext is refused by single and column, and tokens are answered."""
        engine = builder.engine(takes_addresses=False)

        with pytest.raises(AddressKeyNotHeldError):
            engine.check(Question(context=MESAJ, address=RECIPIENTS[0]))
        with pytest.raises(AddressKeyNotHeldError):
            engine.check_column(MESAJ, addresses=RECIPIENTS)

        token = token_of(RECIPIENTS[0], Channel.MESAJ)
        answer = engine.check(Question(context=MESAJ, token=token, address_key_id=ADDRESS_KEY.key_id))
        assert answer.reason is Reason.CONSENTED

    @pytest.mark.parametrize("key_id", [None, b"", bytes(8), STORE_KEY.key_id], ids=["none", "empty", "zeros", "other"])
    def test_other_key(self, builder: StoreBuilder, key_id: bytes | None) -> None:
        """Tokens of another key, or of none that is named, are refused: they would look like no consent."""
        tokens = address.tokens(RECIPIENTS, Channel.MESAJ, ADDRESS_KEY)

        with pytest.raises(AddressKeyMismatchError):
            builder.engine().check_column(MESAJ, tokens=tokens, address_key_id=key_id)

    @pytest.mark.parametrize(
        "tokens",
        [
            np.zeros((2, 15), np.uint8),
            np.zeros(32, np.uint8),
            np.zeros((2, 16), np.int8),
            np.zeros((1, 2, 16), np.uint8),
        ],
        ids=["narrow", "flat", "signed", "deep"],
    )
    def test_odd_arrays(self, builder: StoreBuilder, tokens: np.ndarray) -> None:
        """An array that is not uint8 (N, 16) is refused."""
        with pytest.raises(QuestionError, match="tokens"):
            builder.engine().check_column(MESAJ, tokens=tokens, address_key_id=ADDRESS_KEY.key_id)

    def test_both_or_neither(self, builder: StoreBuilder) -> None:
        """A frame has either addresses or tokens."""
        engine = builder.engine()

        with pytest.raises(QuestionError):
            engine.check_column(MESAJ)
        with pytest.raises(QuestionError):
            engine.check_column(MESAJ, addresses=[], tokens=np.zeros((0, 16), np.uint8))


class TestPositions:
    """A question may ask for a store that has come to a position."""

    def test_reached(self, builder: StoreBuilder) -> None:
        """A position that the store has reached is answered at once, from it or later."""
        engine = builder.engine()
        position = engine.freshness().position

        answer = engine.check(Question(context=MESAJ, address=RECIPIENTS[0]), min_position=position, timeout_s=0)

        assert answer.envelope.position == position

    def test_not_yet(self, builder: StoreBuilder) -> None:
        """A position that does not come in time is an error for every kind of check."""
        engine = builder.engine()
        here = engine.freshness().position
        ahead = Position(here.log_id, here.sequence + 1)
        question = Question(context=MESAJ, address=RECIPIENTS[0])

        with pytest.raises(NotYetAtPositionError):
            engine.check(question, min_position=ahead, timeout_s=0.02)
        with pytest.raises(NotYetAtPositionError):
            engine.check_many([question], min_position=ahead, timeout_s=0.02)
        with pytest.raises(NotYetAtPositionError):
            engine.check_column(MESAJ, addresses=RECIPIENTS, min_position=ahead, timeout_s=0)

    def test_other_log(self, builder: StoreBuilder) -> None:
        """A position of another store is an error at once, however small."""
        with pytest.raises(PositionOfOtherLogError):
            builder.engine().check(
                Question(context=MESAJ, address=RECIPIENTS[0]), min_position=Position(bytes(16), 0), timeout_s=60
            )

    def test_waits(self, tmp_path: Path) -> None:
        """A check that waits answers from the commit that brings the position."""
        with StoreBuilder(tmp_path / "store") as builder:
            here = builder.brand().consent().commit().position
            engine = builder.engine()
            builder.consent(status=Status.RET, registered=REGISTERED + 1)
            commit = threading.Timer(0.05, builder.commit)
            commit.start()

            answer = engine.check(
                Question(context=MESAJ, address="+905321000001"),
                min_position=Position(here.log_id, here.sequence + 1),
                timeout_s=30,
            )
            commit.join()

        assert answer.reason is Reason.REFUSED
        assert answer.envelope.position.sequence == here.sequence + 1


class TestFreshness:
    """A brand is answered while its watermark is within the limit."""

    @pytest.mark.parametrize(
        ("age", "fresh"),
        [(LIMIT, True), (LIMIT + 1, False), (LIMIT + 0.001, False), (0, True), (-300, True), (-301, False)],
    )
    def test_boundary(self, builder: StoreBuilder, age: float, fresh: bool) -> None:  # noqa: FBT001 - a parameter
        """Exactly the limit is fresh, a moment more is stale; so is a watermark over 5 minutes ahead of our clock."""
        engine = builder.engine(now=NOW + age)

        answer = engine.check(Question(context=MESAJ, address=RECIPIENTS[0]))

        assert answer.reason is (Reason.CONSENTED if fresh else Reason.DATA_STALE)
        assert engine.fresh() == fresh

    def test_valid_until(self, builder: StoreBuilder) -> None:
        """An answer is valid for its time to live, but never longer than its data is fresh."""
        early = builder.engine().check(Question(context=MESAJ, address=RECIPIENTS[0]))
        late = builder.engine(now=NOW + LIMIT - 10).check(Question(context=MESAJ, address=RECIPIENTS[0]))

        assert early.envelope.valid_until == NOW + 300
        assert late.envelope.valid_until == NOW + LIMIT

    def test_one_late_brand(self, builder: StoreBuilder) -> None:
        """One late brand makes only its own answers stale, not the store."""
        engine = builder.engine()

        late = engine.check(Question(context=replace(MESAJ, brand=2), address=RECIPIENTS[0]))

        assert late.reason is Reason.DATA_STALE
        assert engine.fresh()
        assert engine.freshness().oldest_watermark == NOW - LIMIT - 1
        assert engine.info().newest_watermark == NOW

    def test_empty_store(self, tmp_path: Path) -> None:
        """A store without any watermark is not fresh."""
        with StoreBuilder(tmp_path / "store") as builder:
            assert not builder.engine().fresh()


class TestExempt:
    """An exempt message is permitted without reading the store."""

    def test_nothing_blocks(self, builder: StoreBuilder) -> None:
        """Unreadable address, unknown brand and missing key do not matter, and the class is carried."""
        engine = builder.engine(takes_addresses=False)
        for message_class in MessageClass:
            if message_class.exempt:
                context = replace(MESAJ, brand=999, message_class=message_class)

                answer = engine.check(Question(context=context, address="not an address"))

                assert answer.reason is Reason.EXEMPT_MESSAGE
                assert answer.message_class is message_class
                assert answer.envelope.as_of is None
                assert answer.evidence is None

    def test_damaged_store(self, builder: StoreBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
        """Even a store that cannot be read does not block a one-time password."""
        engine = builder.engine()
        monkeypatch.setattr(Store, "snapshot", None)
        context = replace(MESAJ, message_class=MessageClass.SECURITY_CODE)

        assert engine.check(Question(context=context, address=RECIPIENTS[0])).permitted
        assert engine.check_column(context, addresses=["x"] * 3).reasons.tolist() == [3, 3, 3]


PEOPLE = [f"+90533{number:07d}" for number in range(100)]
COMMITS = 40


def flip(path: str, pipe: Connection) -> None:
    """In another process: turn everybody's consent over, one commit at a time, and tell each position."""
    with StoreBuilder(path) as builder:
        pipe.send("ready")
        for turn in range(1, pipe.recv() + 1):
            for recipient in PEOPLE:
                builder.consent(
                    recipient=recipient,
                    status=Status.RET if turn % 2 else Status.ONAY,
                    registered=REGISTERED + turn,
                    consented=CONSENTED + turn,
                )
            pipe.send(builder.commit().position.sequence)
    pipe.send(None)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Engine]:
    """An engine on a closed store in which everybody consented, with the path for another process to write."""
    with StoreBuilder(tmp_path / "store") as builder:
        builder.brand(now=True)
        for recipient in PEOPLE:
            builder.consent(recipient=recipient)
        builder.commit()
    with Engine.open(tmp_path / "store", store_key=STORE_KEY, address_key=ADDRESS_KEY) as engine:
        yield engine


class TestOtherProcess:
    """Another process writes while this one answers."""

    def test_visible_at_once(self, live: Engine, tmp_path: Path) -> None:
        """What a writer in another process has committed is in the next answer, without reopening."""
        ours, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=flip, args=(str(tmp_path / "store"), theirs))
        process.start()
        assert ours.recv() == "ready"
        before = live.check(Question(context=MESAJ, address=PEOPLE[0]))

        ours.send(1)
        position = ours.recv()
        after = live.check(Question(context=MESAJ, address=PEOPLE[0]))
        process.join(30)

        assert (before.reason, after.reason) == (Reason.CONSENTED, Reason.REFUSED)
        assert after.envelope.position.sequence == position == before.envelope.position.sequence + len(PEOPLE)

    def test_never_half(self, live: Engine, tmp_path: Path) -> None:
        """Sixteen threads see whole batches only, no error, and never an older position than an earlier answer's."""
        ours, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=flip, args=(str(tmp_path / "store"), theirs))
        process.start()
        assert ours.recv() == "ready"
        first = live.freshness().position.sequence
        watch = Watch(live, first)
        threads = [threading.Thread(target=watch.run, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()

        ours.send(COMMITS)
        positions = list(iter(ours.recv, None))
        time.sleep(0.05)
        watch.stop.set()
        for thread in threads:
            thread.join(30)
        process.join(30)

        assert watch.faults == []
        assert len(positions) == COMMITS
        assert watch.newest == positions[-1] == first + COMMITS * len(PEOPLE)
        assert len(watch.seen) > 5
        assert watch.checks >= 200


class Watch:
    """Threads that ask, and write down everything that must not be."""

    def __init__(self, engine: Engine, first: int) -> None:
        self.engine = engine
        self.first = first
        self.newest = first
        self.seen: set[int] = set()
        self.faults: list[str] = []
        self.checks = 0
        self.stop = threading.Event()
        self._lock = threading.Lock()

    def run(self, number: int) -> None:
        """Ask by column, batch or singly until told to stop."""
        ask = (self._column, self._many, self._one)[number % 3]
        while not self.stop.is_set():
            newest = self.newest
            try:
                position, reasons = ask()
            except Exception as error:  # noqa: BLE001 - any error at all is the fault looked for
                self.faults.append(repr(error))
                return
            self._judge(newest, position, reasons)

    def _judge(self, newest: int, position: int, reasons: set[int]) -> None:
        turn, rest = divmod(position - self.first, len(PEOPLE))
        expected = {Reason.REFUSED if turn % 2 else Reason.CONSENTED}
        with self._lock:
            self.checks += 1
            self.seen.add(position)
            self.newest = max(self.newest, position)
            if rest or reasons != expected or position < newest:
                self.faults.append(f"position {position} after {newest}: {reasons}")

    def _column(self) -> tuple[int, set[int]]:
        answer = self.engine.check_column(MESAJ, addresses=PEOPLE)
        return answer.envelope.position.sequence, set(answer.reasons.tolist())

    def _many(self) -> tuple[int, set[int]]:
        answer = self.engine.check_many([Question(context=MESAJ, address=each) for each in PEOPLE[::20]])
        positions = {item.envelope.position.sequence for item in answer.items if isinstance(item, Answer)}
        assert positions == {answer.envelope.position.sequence}
        return positions.pop(), {item.reason for item in answer.items if isinstance(item, Answer)}

    def _one(self) -> tuple[int, set[int]]:
        answer = self.engine.check(Question(context=MESAJ, address=PEOPLE[-1]))
        return answer.envelope.position.sequence, {answer.reason}
