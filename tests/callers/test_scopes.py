"""Scopes: a law against a tiny model, that exempt messages pass, and that refusals say only what was asked."""

import itertools
import pickle
from dataclasses import FrozenInstanceError
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.callers.scopes import (
    ALL_CHANNELS,
    CALL_NAMES,
    DEFAULT_CALLS,
    Caller,
    ensure_call,
    ensure_question,
)
from iyscheck.consent import Channel, MessageClass
from iyscheck.errors import ScopeError
from tests.dice import often

BRANDS = (1, 2, 2**32 - 1)

callers = st.builds(
    Caller,
    name=st.sampled_from(["acme", "b-2", "c.d_e"]),
    brands=st.none() | st.frozensets(st.sampled_from(BRANDS)),
    channels=st.frozensets(st.sampled_from(Channel)),
    calls=st.frozensets(st.sampled_from(CALL_NAMES)),
    addresses=st.booleans(),
    rate=st.none() | st.integers(1, 10**9),
)


def told(caller: Caller, brand: int, channel: Channel, message_class: MessageClass, *, plaintext: bool) -> str:
    """Give the reason of a refused question; empty if it is in scope."""
    try:
        ensure_question(caller, brand, channel, message_class, plaintext=plaintext)
    except ScopeError as error:
        return error.reason
    return ""


class TestLaw:
    """The functions say what a model of four lines says."""

    @given(
        caller=callers,
        brand=st.sampled_from(BRANDS),
        channel=st.sampled_from(Channel),
        message_class=st.just(MessageClass.COMMERCIAL) | st.sampled_from(MessageClass),
        plaintext=st.booleans(),
    )
    @settings(max_examples=often(1000), deadline=None)
    def test_questions(
        self, *, caller: Caller, brand: int, channel: Channel, message_class: MessageClass, plaintext: bool
    ) -> None:
        """The first broken rule is told, in the order brand, channel, addresses; exempt messages break none."""
        rules = {
            "BRAND_NOT_IN_SCOPE": caller.brands is None or brand in caller.brands,
            "CHANNEL_NOT_IN_SCOPE": channel in caller.channels,
            "ADDRESSES_NOT_ALLOWED": caller.addresses or not plaintext,
        }
        broken = [reason for reason, kept in rules.items() if not kept and not message_class.exempt]

        assert told(caller, brand, channel, message_class, plaintext=plaintext) == (broken[0] if broken else "")

    @given(caller=callers, call=st.sampled_from(CALL_NAMES) | st.text())
    @settings(max_examples=often(500), deadline=None)
    def test_calls(self, caller: Caller, call: str) -> None:
        """A call passes if and only if the caller lists it."""
        try:
            ensure_call(caller, call)
            reason = ""
        except ScopeError as error:
            reason = error.reason

        assert reason == ("" if call in caller.calls else "CALL_NOT_ALLOWED")

    def test_defaults(self) -> None:
        """Who only names brands may ask in every usual way, on all channels, with tokens, without a limit."""
        caller = Caller(name="acme", brands=frozenset({1}))

        assert caller.calls == DEFAULT_CALLS == {"check", "batch", "frame", "stream", "info"}
        assert caller.channels == ALL_CHANNELS == set(Channel)
        assert (caller.addresses, caller.rate, caller.streams) == (False, None, None)

    def test_unlimited(self) -> None:
        """Without a callers file everything is allowed."""
        caller = Caller.unlimited("anonymous")

        for call in CALL_NAMES:
            ensure_call(caller, call)
        for brand, channel, message_class in itertools.product(BRANDS, Channel, MessageClass):
            assert told(caller, brand, channel, message_class, plaintext=True) == ""
        assert (caller.rate, caller.streams) == (None, None)


class TestExempt:
    """Nothing that only looks exempt is."""

    @pytest.mark.parametrize("number", range(20))
    def test_plain_numbers(self, number: int) -> None:
        """A plain number, also one that equals an exempt class, is held to the scope."""
        caller = Caller(name="acme", brands=frozenset())

        assert told(caller, 1, Channel.MESAJ, cast("MessageClass", number), plaintext=False) == "BRAND_NOT_IN_SCOPE"

    def test_only_exempt(self) -> None:
        """A caller of no brand, channel or plaintext still sends what needs no consent, and nothing else."""
        caller = Caller(name="codes", brands=frozenset(), channels=frozenset())

        passed = {each for each in MessageClass if not told(caller, 1, Channel.ARAMA, each, plaintext=True)}

        assert passed == {each for each in MessageClass if each.exempt}


class TestRefusals:
    """What a refused caller is told."""

    def test_texts(self) -> None:
        """The text names the caller and what was asked, and no brand that the caller or another one has."""
        caller = Caller(name="acme", brands=frozenset({600123}), channels=frozenset({Channel.EPOSTA}))

        with pytest.raises(ScopeError) as brand:
            ensure_question(caller, 7, Channel.MESAJ, MessageClass.COMMERCIAL, plaintext=True)
        with pytest.raises(ScopeError) as channel:
            ensure_question(caller, 600123, Channel.MESAJ, MessageClass.COMMERCIAL, plaintext=True)

        assert brand.value.message == "Caller acme may not ask about brand 7."
        assert channel.value.message == "Caller acme may not ask about this channel (MESAJ)."
        assert "600123" not in str(brand.value)

    def test_frozen(self) -> None:
        """A caller never changes, equals another of the same rules, and travels to other processes."""
        caller = Caller(name="acme", brands=frozenset({1}), rate=5)

        with pytest.raises(FrozenInstanceError):
            caller.brands = None  # type: ignore[misc]  # that it is refused is the test

        assert pickle.loads(pickle.dumps(caller)) == caller == Caller(name="acme", brands=frozenset({1}), rate=5)  # noqa: S301 - our own
        assert caller != Caller(name="acme", brands=frozenset({1}), rate=6)
