"""What gathered calls share, and small parts."""

from typing import cast

import pytest

from iyscheck.client.batching.ledger import Key, Kinds, Patience, require
from iyscheck.consent import Channel, MessageClass, RecipientType
from iyscheck.errors import QuestionError
from tests.client.batching.ledger_calls import key_of


class TestKinds:
    """What calls share is checked once and remembered."""

    def test_remembers(self) -> None:
        """The same key gives the same object."""
        kinds = Kinds()

        assert kinds.of(key_of(0)) is kinds.of(key_of(0))
        assert kinds.of(key_of(5)).context.retailer == 66

    def test_bounded(self) -> None:
        """However many keys are asked for, few are kept."""
        kinds = Kinds()

        for brand in range(1, 5_000):
            assert kinds.of((brand, *key_of(0)[1:])).context.brand == brand

        assert len(kinds) <= 1_000

    @pytest.mark.parametrize("place", range(6), ids=["brand", "channel", "type", "class", "retailer", "position"])
    def test_wrong(self, place: int) -> None:
        """A part that cannot be right is refused each time it is asked for."""
        key = key_of(0)
        wrong = (*key[:place], 99 if place in {1, 2, 3} else 1.5, *key[place + 1 :])
        kinds = Kinds()

        for _ in range(2):
            with pytest.raises((QuestionError, TypeError)):
                kinds.of(cast("Key", wrong))

    @pytest.mark.parametrize(
        ("place", "wrong"),
        [
            (0, True),
            (0, 1.0),
            (1, RecipientType.TACIR),
            (2, Channel.MESAJ),
            (3, RecipientType.TACIR),
            (3, 2.0),
            (4, True),
        ],
    )
    def test_look_alikes(self, place: int, wrong: object) -> None:
        """What only equals a value that was asked for before is refused as it would be at first."""
        right = (1, Channel.MESAJ, RecipientType.TACIR, MessageClass.SUBSCRIPTION, 1, None, None)
        kinds = Kinds()
        call = kinds.of(right)
        asked = cast("Key", (*right[:place], wrong, *right[place + 1 :]))

        assert asked == right
        with pytest.raises(QuestionError):
            kinds.of(asked)
        assert kinds.of(right) is call


class TestSizes:
    """Small parts."""

    def test_patience(self) -> None:
        """Pauses grow to half a second, for ever, and begin anew after an answer."""
        patience = Patience()

        pauses = [patience.next_s() for _ in range(2_000)]
        patience.answered()

        assert pauses[:5] == [0.05, 0.1, 0.2, 0.4, 0.5]
        assert set(pauses[5:]) == {0.5}
        assert patience.next_s() == 0.05

    @pytest.mark.parametrize("number", [0, -1, 65])
    def test_require(self, number: int) -> None:
        """A size that cannot be is refused by its name."""
        with pytest.raises(QuestionError, match="connections"):
            require("connections", number, 64)
