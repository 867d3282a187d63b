"""Everything that can go wrong under a commercial check, and that none of it ends in a permission.

The store holds a consent that is permitted while nothing is wrong; each test breaks one thing and asks for it in
every way there is. What comes out is a denial or an error.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import lmdb
import numpy as np
import pytest
from msgspec.structs import replace

from iyscheck import address
from iyscheck.consent import PERMITTING, STATES, Channel, MessageClass, Reason, RecipientType, Status, permits
from iyscheck.engine import Engine, answers, standing
from iyscheck.engine.opened import OpenedStore
from iyscheck.engine.standing import Standings
from iyscheck.errors import (
    IyscheckError,
    QuestionError,
    StoreCorruptError,
    StoreError,
    StoreKeysError,
    StoreMissingError,
    StoreUnreadableError,
)
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.question import Context, Finding, ItemError, Question
from iyscheck.store import layout, registries, snapshot, view
from iyscheck.store.index import page_table, pages
from iyscheck.store.layout import checks
from iyscheck.store.layout import records as layout_records
from iyscheck.store.snapshot import Snapshot, Store
from iyscheck.store.view import View
from tests.builders import ADDRESS_KEY, NOW, REGISTERED, STORE_KEY, StoreBuilder

RECIPIENT = "+905321000001"
STRANGER = "+905321000002"
ASKED = Context(brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, retailer=10)
KEY_ID = ADDRESS_KEY.key_id
Way = Callable[[Engine, Context], int]


def by_address(engine: Engine, context: Context) -> int:
    """Ask one question with the address."""
    return engine.check(Question(context=context, address=RECIPIENT)).reason


def by_token(engine: Engine, context: Context) -> int:
    """Ask one question with the token."""
    token = address.token(RECIPIENT, Channel.MESAJ, ADDRESS_KEY)
    return engine.check(Question(context=context, token=token, address_key_id=KEY_ID)).reason


def in_batch(engine: Engine, context: Context) -> int:
    """Ask in a batch."""
    answer = engine.check_many([Question(context=context, address=RECIPIENT)])
    item = answer.items[0]
    if isinstance(item, ItemError):  # what the other ways raise
        raise QuestionError(item.field, item.message)
    return item.reason


def in_column(engine: Engine, context: Context) -> int:
    """Ask in a column of addresses."""
    return int(engine.check_column(context, addresses=[RECIPIENT]).reasons[0])


def in_token_column(engine: Engine, context: Context) -> int:
    """Ask in a column of tokens."""
    tokens = address.tokens([RECIPIENT], Channel.MESAJ, ADDRESS_KEY)
    return int(engine.check_column(context, tokens=tokens, address_key_id=KEY_ID).reasons[0])


def gathered(engine: Engine, context: Context) -> int:
    """Ask as one of several callers who are answered together; what cannot be is asked alone, as a server does."""
    token = address.token(RECIPIENT, Channel.MESAJ, ADDRESS_KEY)
    question = Question(context=context, token=token, address_key_id=KEY_ID)
    (found,) = engine.check_each([question], [""])
    return found.reason if isinstance(found, Finding) else engine.check(question).reason


WAYS: tuple[Way, ...] = (by_address, by_token, gathered, in_batch, in_column, in_token_column)


def in_every_way(engine: Engine, context: Context) -> int:
    """Ask in every way there is; they must agree, in the reason or in the error, which is raised."""
    outcomes: dict[int | type, Exception | None] = {}
    for way in WAYS:
        try:
            outcomes[int(way(engine, context))] = None
        except Exception as error:  # noqa: BLE001 - raised again below
            outcomes[type(error)] = error
    assert len(outcomes) == 1, outcomes
    ((outcome, raised),) = outcomes.items()
    if raised is not None:
        raise raised
    return cast("int", outcome)


@pytest.fixture
def builder(tmp_path: Path) -> Iterator[StoreBuilder]:
    """A store in which the asked retailer may send to the recipient."""
    with StoreBuilder(tmp_path / "store") as builder:
        builder.brand(1).consent(recipient=RECIPIENT, retailers=[10], transaction_id="ab" * 32)
        builder.consent(recipient=STRANGER, retailers=[11]).commit()
        yield builder


def test_nothing_wrong(builder: StoreBuilder) -> None:
    """While nothing is wrong the answer permits: what the other tests break is what permitted."""
    assert in_every_way(builder.engine(), ASKED) == Reason.CONSENTED


class TestFiles:
    """The store is not there, not readable or somebody else's."""

    def test_missing(self, tmp_path: Path) -> None:
        """Without a store there is no engine to ask."""
        with pytest.raises(StoreMissingError):
            Engine.open(tmp_path / "none", store_key=STORE_KEY, address_key=ADDRESS_KEY)

    @pytest.mark.parametrize("garbage", [b"", bytes(65_536), b"\xff" * 65_536], ids=["empty", "zeros", "ones"])
    def test_garbage(self, builder: StoreBuilder, garbage: bytes) -> None:
        """Garbage in place of the data file opens no engine."""
        builder.close()
        (builder.path / "data.mdb").write_bytes(garbage)

        with pytest.raises(StoreError):
            Engine.open(builder.path, store_key=STORE_KEY, address_key=ADDRESS_KEY)

    @pytest.mark.parametrize(
        ("store_key", "address_key"),
        [(StoreKey(bytes(32)), ADDRESS_KEY), (STORE_KEY, AddressKey(bytes(32))), (StoreKey(bytes(32)), None)],
        ids=["store key", "address key", "store key alone"],
    )
    def test_wrong_keys(self, builder: StoreBuilder, store_key: StoreKey, address_key: AddressKey | None) -> None:
        """Wrong keys open no engine: every refusal would look like no record, and a merchant would be permitted."""
        builder.close()

        with pytest.raises(StoreKeysError):
            Engine.open(builder.path, store_key=store_key, address_key=address_key)

    def test_closed(self, builder: StoreBuilder) -> None:
        """A store that was closed under the engine is an error."""
        engine = builder.engine()
        builder.close()

        with pytest.raises(StoreUnreadableError):
            in_every_way(engine, ASKED)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "zero-filled": lambda value: bytes(len(value)),
    "zero-filled half": lambda value: value[: len(value) // 2] + bytes(len(value) - len(value) // 2),
    "torn": lambda value: value[: len(value) // 2],
    "longer": lambda value: value + b"\0",
    "flipped first bit": lambda value: bytes((value[0] ^ 0x80,)) + value[1:],
    "flipped last bit": lambda value: value[:-1] + bytes((value[-1] ^ 1,)),
    "ones": lambda value: b"\xff" * len(value),
}
ON_THE_WAY = (layout.BRANDS, layout.WATERMARKS, layout.ACCESS, layout.LISTS)
IN_THE_INDEX = (layout.INDEX, layout.INDEX_CHANGES)
SINGLES: tuple[Way, ...] = (by_address, by_token, gathered, in_batch)
COLUMNS: tuple[Way, ...] = (in_column, in_token_column)


def rewrite(builder: StoreBuilder, database: bytes, change: Callable[[bytes, bytes], bytes | None]) -> None:
    """Change every value of a database behind the writer's back; None deletes it."""
    environment = builder.writer.environment
    handle = environment.databases[database]
    with environment.lmdb.begin(write=True) as txn:
        with txn.cursor(handle) as cursor:
            stored = list(cursor)
        for key, value in stored:
            changed = change(key, value)
            if changed is None:
                txn.delete(key, db=handle)
            else:
                txn.put(key, changed, db=handle)


class TestDamagedValues:
    """A value that a check reads is damaged."""

    @pytest.mark.parametrize("database", ON_THE_WAY, ids=bytes.decode)
    @pytest.mark.parametrize("damage", DAMAGES)
    def test_damaged(self, builder: StoreBuilder, database: bytes, damage: str) -> None:
        """Any damage to a brand, watermark, register or list is an error."""
        engine = builder.engine()
        rewrite(builder, database, lambda _, value: DAMAGES[damage](value))

        with pytest.raises(StoreCorruptError):
            in_every_way(engine, ASKED)

    @pytest.mark.parametrize("damage", DAMAGES)
    def test_damaged_records(self, builder: StoreBuilder, damage: str) -> None:
        """A damaged record is an error for single questions; columns have the index, which has its own copy."""
        engine = builder.engine()
        rewrite(builder, layout.RECORDS, lambda _, value: DAMAGES[damage](value))

        for way in SINGLES:
            with pytest.raises(StoreCorruptError):
                way(engine, ASKED)
        for way in COLUMNS:
            assert way(engine, ASKED) == Reason.CONSENTED

    @pytest.mark.parametrize("database", IN_THE_INDEX, ids=bytes.decode)
    @pytest.mark.parametrize("damage", DAMAGES)
    def test_damaged_index(self, builder: StoreBuilder, database: bytes, damage: str) -> None:
        """Any damage to the index changes no answer: what it cannot say the records say."""
        engine = builder.engine()
        assert in_every_way(engine, ASKED) == Reason.CONSENTED
        rewrite(builder, database, lambda _, value: DAMAGES[damage](value))

        assert in_every_way(builder.engine(), ASKED) == Reason.CONSENTED
        builder.brand(9).commit()
        assert in_every_way(engine, ASKED) == Reason.CONSENTED
        assert in_every_way(builder.engine(), replace(ASKED, retailer=12)) == Reason.RETAILER_NOT_AUTHORISED

    @pytest.mark.parametrize("damage", DAMAGES)
    def test_damaged_index_state(self, builder: StoreBuilder, damage: str) -> None:
        """A damaged state of the index is as good as no index: the records answer."""
        rewrite(
            builder,
            layout.META,
            lambda key, value: DAMAGES[damage](value) if key == layout.META_INDEX else value,
        )

        assert in_every_way(builder.engine(), ASKED) == Reason.CONSENTED

    @pytest.mark.parametrize("database", [layout.INDEX, layout.META], ids=["pages", "state"])
    def test_damaged_twice(self, builder: StoreBuilder, database: bytes) -> None:
        """Where index and record are both damaged there is no answer."""
        engine = builder.engine()
        rewrite(builder, layout.RECORDS, lambda _, value: DAMAGES["zero-filled"](value))
        keep = (layout.META_SEQUENCE, layout.META_LOG_ID)
        rewrite(builder, database, lambda key, value: value if key in keep else DAMAGES["zero-filled"](value))

        with pytest.raises(StoreCorruptError):
            in_every_way(engine, ASKED)

    @pytest.mark.parametrize("database", IN_THE_INDEX, ids=bytes.decode)
    def test_lost_index(self, builder: StoreBuilder, database: bytes) -> None:
        """Lost pages, or a lost note of what changed, change no answer."""
        engine = builder.engine()
        rewrite(builder, database, lambda _key, _value: None)

        assert in_every_way(engine, ASKED) == Reason.CONSENTED

    def test_moved_pages(self, builder: StoreBuilder) -> None:
        """A whole page that lies under another key is not taken: somebody else's consents permit nobody."""
        with builder.store.snapshot() as before:
            values = [value for _, value in before.items(layout.INDEX)]
        turned = iter(values[1:] + values[:1])
        rewrite(builder, layout.INDEX, lambda _key, _value: next(turned))

        assert in_every_way(builder.engine(), ASKED) == Reason.CONSENTED
        assert in_every_way(builder.engine(), replace(ASKED, brand=2)) == Reason.BRAND_NOT_REGISTERED

    def test_lost_record(self, builder: StoreBuilder) -> None:
        """A lost record denies single questions; columns still have what the index says."""
        engine = builder.engine()
        rewrite(builder, layout.RECORDS, lambda _key, _value: None)

        assert {way(engine, ASKED) for way in SINGLES} == {Reason.NO_CONSENT}
        assert {way(engine, ASKED) for way in COLUMNS} == {Reason.CONSENTED}

    @pytest.mark.parametrize(
        ("database", "reason"),
        [
            (layout.BRANDS, Reason.BRAND_NOT_REGISTERED),
            (layout.WATERMARKS, Reason.DATA_STALE),
            (layout.ACCESS, Reason.RETAILER_NOT_AUTHORISED),
            (layout.LISTS, Reason.RETAILER_NOT_AUTHORISED),
        ],
        ids=lambda value: value.decode() if isinstance(value, bytes) else value.name,
    )
    def test_lost(self, builder: StoreBuilder, database: bytes, reason: Reason) -> None:
        """A lost value denies."""
        engine = builder.engine()
        rewrite(builder, database, lambda _key, _value: None)

        assert in_every_way(engine, ASKED) == reason

    @pytest.mark.parametrize("database", [layout.RECORDS, layout.ACCESS, layout.LISTS], ids=bytes.decode)
    def test_moved(self, builder: StoreBuilder, database: bytes) -> None:
        """A whole value that lies under another key is an error: somebody else's consent permits nobody."""
        engine = builder.engine()
        rewrite(builder, layout.INDEX, lambda _key, _value: None)
        with builder.store.snapshot() as before:
            values = [value for _, value in before.items(database)]
        swapped = iter(values[::-1])
        rewrite(builder, database, lambda _key, _value: next(swapped))

        with pytest.raises(StoreCorruptError):
            in_every_way(engine, ASKED)

    def test_damaged_position(self, builder: StoreBuilder) -> None:
        """A damaged position is an error."""
        engine = builder.engine()
        rewrite(builder, layout.META, lambda key, value: value[:3] if key == layout.META_SEQUENCE else value)

        with pytest.raises(StoreCorruptError):
            in_every_way(engine, ASKED)

    @pytest.mark.parametrize("status", [0, 4, 255])
    def test_unknown_status(self, builder: StoreBuilder, status: int) -> None:
        """A status that is never stored is an error even where the check of the record is right."""
        engine = builder.engine()

        def with_status(key: bytes, value: bytes) -> bytes:
            return layout.checked(key, bytes((status,)) + value[5:])

        rewrite(builder, layout.RECORDS, with_status)
        rewrite(builder, layout.INDEX, lambda _key, _value: None)

        with pytest.raises(StoreCorruptError):
            in_every_way(engine, ASKED)

    def test_damage_in_company(self, builder: StoreBuilder) -> None:
        """One damaged record among many that are asked fails the frame or batch: nobody in it is permitted."""
        engine = builder.engine()
        rewrite(builder, layout.INDEX, lambda _key, _value: None)
        rewrite(builder, layout.RECORDS, lambda key, value: value if key[-1] % 2 else bytes(55))
        with builder.store.snapshot() as after:
            damaged = [value for _, value in after.items(layout.RECORDS)].count(bytes(55))
        recipients = [RECIPIENT, STRANGER] * 50
        context = replace(ASKED, retailer=None)
        if not damaged:
            rewrite(builder, layout.RECORDS, lambda _key, _value: bytes(55))

        with pytest.raises(StoreCorruptError):
            engine.check_column(context, addresses=recipients)
        with pytest.raises(StoreCorruptError):
            engine.check_many([Question(context=context, address=each) for each in recipients])


class Injected(Exception):  # noqa: N818 - stands for any exception
    """What a test raises inside a step."""


STEPS: tuple[tuple[object, str], ...] = (
    (Snapshot, "brand"),
    (Snapshot, "retailers"),
    (snapshot, "read"),
    (snapshot, "read_position"),
    (registries, "read"),
    (layout, "decode_number"),
    (layout, "decode_brand"),
    (layout, "decode_watermark"),
    (layout, "decode_access"),
    (layout, "decode_list"),
    (checks, "record_check"),
    (standing, "verdicts"),
    (Standings, "of"),
    (standing, "Sender"),
    (standing, "verdicts_by_state"),
    (standing, "fresh_between"),
    (answers, "Envelope"),
    (OpenedStore, "see"),
)
"""What every way of asking goes through."""

STEPS_OF_SOME: tuple[tuple[object, str, tuple[Way, ...]], ...] = (
    (StoreKey, "tag", (by_address, by_token)),
    (StoreKey, "packed_tags", (gathered,)),
    (Store, "snapshot", SINGLES),
    (page_table, "read_state", COLUMNS),
    (view, "_pair", COLUMNS),
    (View, "states", COLUMNS),
    (pages, "look_up", COLUMNS),
    (pages, "meanings", COLUMNS),
    (pages, "salts", COLUMNS),
    (StoreKey, "tags", (in_batch, in_column, in_token_column)),
    (layout, "decode_facts", SINGLES),
    (layout_records, "record_check", SINGLES),
    (layout, "key_prefix", WAYS),
    (Snapshot, "retailer_listed", (in_column, in_token_column)),
)
"""What some ways of asking go through, and which."""


class TestExceptions:
    """An exception at any step is an error, not an answer."""

    @pytest.mark.parametrize(("owner", "name"), STEPS, ids=[name for _, name in STEPS])
    @pytest.mark.parametrize("error", [Injected("anything"), lmdb.Error("MDB")], ids=repr)
    def test_each_step(
        self,
        builder: StoreBuilder,
        monkeypatch: pytest.MonkeyPatch,
        owner: object,
        name: str,
        error: Exception,
    ) -> None:
        """Whatever a step raises reaches the caller; LMDB's errors inside the store as ours."""
        engine = builder.engine()
        builder.brand(9).commit()  # a new transaction: nothing is remembered from before

        def raising(*_args: object, **_kwargs: object) -> None:
            raise error

        monkeypatch.setattr(owner, name, raising)

        with pytest.raises((type(error), IyscheckError)):
            in_every_way(engine, ASKED)

    @pytest.mark.parametrize(("owner", "name", "ways"), STEPS_OF_SOME, ids=[name for _, name, _ in STEPS_OF_SOME])
    def test_steps_of_some(
        self, builder: StoreBuilder, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, ways: tuple[Way, ...]
    ) -> None:
        """Whatever a step raises reaches those who ask by it, and nobody else."""
        engine = builder.engine()

        def raising(*_args: object, **_kwargs: object) -> None:
            raise Injected

        monkeypatch.setattr(owner, name, raising)

        for way in ways:
            with pytest.raises(Injected):
                way(engine, ASKED)
        for way in set(WAYS) - set(ways):
            assert way(engine, ASKED) == Reason.CONSENTED

    @pytest.mark.parametrize("owner", [View, pages], ids=["view", "pages"])
    @pytest.mark.parametrize("way", COLUMNS, ids=lambda way: way.__name__)
    def test_without_retailer(
        self, builder: StoreBuilder, monkeypatch: pytest.MonkeyPatch, owner: object, way: Way
    ) -> None:
        """A column that names no retailer is looked up another way, whose errors reach the caller too."""
        engine = builder.engine()

        def raising(*_args: object, **_kwargs: object) -> None:
            raise Injected

        monkeypatch.setattr(owner, "meanings", raising)

        with pytest.raises(Injected):
            way(engine, replace(ASKED, retailer=None))

    @pytest.mark.parametrize("way", [by_address, in_batch, in_column], ids=lambda way: way.__name__)
    @pytest.mark.parametrize("name", ["token", "tokens"])
    def test_tokenising(
        self, builder: StoreBuilder, monkeypatch: pytest.MonkeyPatch, way: Way, name: str
    ) -> None:  # fmt: skip
        """An error while an address is read permits nobody."""
        engine = builder.engine()
        raised = False

        def raising(*_args: object, **_kwargs: object) -> None:
            nonlocal raised
            raised = True
            raise Injected

        monkeypatch.setattr(address, name, raising)

        try:
            reason = way(engine, ASKED)
        except Injected:
            assert raised
        else:
            assert not raised
            assert reason == Reason.CONSENTED

    def test_clock(self, builder: StoreBuilder) -> None:
        """A clock that fails is an error; one that says nothing usable makes the data stale."""
        for now in (float("nan"), float("inf"), float("-inf"), 0.0, -1e18):
            assert in_every_way(builder.engine(now=now), ASKED) == Reason.DATA_STALE


class TestZeros:
    """Zero-filled arrays and bytes mean "unknown", and unknown denies."""

    def test_zero_token(self, builder: StoreBuilder) -> None:
        """A zero token is an unreadable address, alone and in a column."""
        engine = builder.engine()
        column = np.zeros((100, 16), np.uint8)

        one = engine.check(Question(context=ASKED, token=bytes(16), address_key_id=KEY_ID))
        many = engine.check_column(ASKED, tokens=column, address_key_id=KEY_ID).reasons

        assert one.reason is Reason.INVALID_ADDRESS
        assert set(many.tolist()) == {Reason.INVALID_ADDRESS}

    def test_zero_token_with_a_record(self, builder: StoreBuilder) -> None:
        """Even if a record lay under the tag of the zero token, nobody would be permitted by it."""
        tag = STORE_KEY.tags(np.zeros((1, 16), np.uint8)).tobytes()
        builder.consent(tag=tag, retailers=[10]).commit()
        engine = builder.engine()

        assert not engine.check(Question(context=ASKED, token=bytes(16), address_key_id=KEY_ID)).permitted
        column = engine.check_column(ASKED, tokens=np.zeros((3, 16), np.uint8), address_key_id=KEY_ID)
        assert not PERMITTING[column.reasons].any()

    def test_zero_verdicts(self, builder: StoreBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
        """A zero-filled table of verdicts denies with "unspecified"."""
        monkeypatch.setattr(standing, "verdicts", lambda _: np.zeros((2, 2, STATES), np.uint8))

        reason = in_every_way(builder.engine(), ASKED)

        assert reason == Reason.UNSPECIFIED
        assert not permits(reason)

    @pytest.mark.parametrize("way", [in_column, in_token_column], ids=lambda way: way.__name__)
    def test_zero_states(self, builder: StoreBuilder, monkeypatch: pytest.MonkeyPatch, way: Way) -> None:
        """Zero-filled states are no records, which permit no individual."""
        monkeypatch.setattr(pages, "look_up", lambda *_: np.zeros(1, np.uint8))

        assert way(builder.engine(), ASKED) == Reason.NO_CONSENT

    def test_zero_tags(self, builder: StoreBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
        """Zero-filled tags are taken for those of no address."""
        monkeypatch.setattr(StoreKey, "tag", lambda _, token: bytes(len(token)))
        monkeypatch.setattr(StoreKey, "tags", lambda _, tokens: np.zeros_like(tokens))
        monkeypatch.setattr(StoreKey, "packed_tags", lambda _, tokens: bytes(len(tokens)))

        assert {way(builder.engine(), ASKED) for way in WAYS} == {Reason.INVALID_ADDRESS}


class TestUnknownNumbers:
    """Numbers that this version does not know deny or are refused."""

    @pytest.mark.parametrize("number", [4, 42, 63, 75, 255])
    def test_reasons(self, builder: StoreBuilder, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        """A verdict whose number nobody knows never permits, not even one below 64."""
        monkeypatch.setattr(standing, "verdicts", lambda _: np.full((2, 2, STATES), number, np.uint8))

        for way in WAYS:
            reason: int = Reason.UNSPECIFIED
            with suppress(KeyError):
                reason = way(builder.engine(), ASKED)

            assert not permits(reason)
            assert not PERMITTING[reason]

    @pytest.mark.parametrize(
        ("field", "number"),
        [*itertools.product(["channel", "recipient_type"], [0, 4, 7, 99]), ("message_class", 0), ("message_class", 99)],
    )
    def test_contexts(self, builder: StoreBuilder, field: str, number: int) -> None:
        """A channel, recipient type or message class that does not exist is denied or an error."""
        context = replace(ASKED, **{field: number})  # what no typed caller can write

        for way in WAYS:
            reason: int = Reason.UNSPECIFIED
            with suppress(IyscheckError, ValueError, AttributeError, KeyError):
                reason = way(builder.engine(), context)

            assert not permits(reason)

    @pytest.mark.parametrize("deadline", [4, 255])
    def test_deadline(self, builder: StoreBuilder, deadline: int) -> None:
        """A brand with a deadline of a later version is an error."""
        engine = builder.engine()

        def with_deadline(key: bytes, value: bytes) -> bytes:
            return layout.checked(key, value[4:14] + bytes((deadline,)) + value[15:])

        rewrite(builder, layout.BRANDS, with_deadline)

        with pytest.raises(StoreCorruptError):
            in_every_way(engine, ASKED)


class TestNoFallback:
    """A consent permits its own brand, channel, recipient type and address, and nothing beside."""

    @pytest.mark.parametrize(
        "beside",
        [{"brand": 2}, {"channel": Channel.ARAMA}, {"channel": Channel.EPOSTA}, {"retailer": 11}],
        ids=["brand", "call", "e-mail", "retailer"],
    )
    def test_beside(self, builder: StoreBuilder, beside: dict[str, int]) -> None:
        """Any other brand, channel or retailer is denied."""
        builder.brand(2).commit()

        context = replace(ASKED, **beside)  # fields of several types
        assert not any(permits(way(builder.engine(), context)) for way in WAYS)

    def test_recipient_type(self, builder: StoreBuilder) -> None:
        """A merchant's refusal stands although the same address consented as an individual, and the reverse."""
        builder.consent(recipient=RECIPIENT, recipient_type=RecipientType.TACIR, status=Status.RET).commit()
        engine = builder.engine()
        assert in_every_way(engine, replace(ASKED, recipient_type=RecipientType.TACIR)) == Reason.REFUSED
        assert in_every_way(engine, ASKED) == Reason.CONSENTED

        builder.consent(recipient=RECIPIENT, status=Status.RET, registered=REGISTERED + 1)
        builder.consent(recipient=RECIPIENT, recipient_type=RecipientType.TACIR, registered=REGISTERED + 1)
        builder.commit()
        assert in_every_way(engine, ASKED) == Reason.REFUSED

    def test_only_exempt_classes_pass(self, builder: StoreBuilder) -> None:
        """Nothing but a declared exempt class passes an address that nobody knows."""
        engine = builder.engine()
        for message_class in MessageClass:
            context = replace(ASKED, message_class=message_class)

            answer = engine.check(Question(context=context, address="+905329999999"))

            assert answer.permitted == message_class.exempt

    def test_stale_watermarks(self, builder: StoreBuilder) -> None:
        """Data that is too old, or from the future, permits nobody."""
        for moment in (NOW + 26 * 3600 + 1, NOW - 301):
            assert in_every_way(builder.engine(now=moment), ASKED) == Reason.DATA_STALE
