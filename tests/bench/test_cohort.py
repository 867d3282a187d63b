"""The cohort: whoever knows a recipient's number knows everything about it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cohort import CHANNEL, PHONES, SPELLINGS, Cohort
from iyscheck import address
from iyscheck.consent import Reason, Status
from tests.builders import ADDRESS_KEY

COHORT = Cohort(10_000)
items = st.lists(st.integers(0, PHONES - 1), min_size=1, max_size=50).map(lambda drawn: np.array(drawn, np.int64))


class TestPhones:
    """Recipients have phones that the address form reads."""

    @given(drawn=items)
    def test_blocks(self, drawn: np.ndarray) -> None:
        """The block of a recipient is the one that its phone has, so tokens can be made either way."""
        texts = [bytes(row).decode() for row in COHORT.phones(drawn)]

        expected = address.tokens(texts, CHANNEL, ADDRESS_KEY)

        np.testing.assert_array_equal(ADDRESS_KEY.tokens(COHORT.blocks(drawn)), expected)
        assert address.readable(expected).all()

    @given(drawn=items)
    def test_spellings(self, drawn: np.ndarray) -> None:
        """Each spelling of a recipient stands for the same phone."""
        spelt = [text.decode() for text in COHORT.spelt(drawn)]

        found = address.tokens(spelt, CHANNEL, ADDRESS_KEY)

        np.testing.assert_array_equal(found, ADDRESS_KEY.tokens(COHORT.blocks(drawn)))

    def test_every_spelling(self) -> None:
        """Neighbouring recipients are spelt in all the ways there are."""
        spelt = COHORT.spelt(np.arange(len(SPELLINGS)))

        assert len({len(text) for text in spelt} | {text[:2] for text in spelt}) > len(SPELLINGS)

    def test_distinct(self) -> None:
        """No two recipients share a phone."""
        phones = COHORT.phones(np.arange(100_000))

        assert len(np.unique(phones, axis=0)) == 100_000


class TestAnswers:
    """What the answer must be follows from the number."""

    def test_reasons(self) -> None:
        """Recipients below the number of consents are consented or refused, four of five consented; others unknown."""
        reasons = COHORT.reasons(np.arange(20_000))

        consented = (reasons[:10_000] == Reason.CONSENTED).mean()
        assert set(reasons[:10_000].tolist()) == {Reason.CONSENTED, Reason.REFUSED}
        assert consented == pytest.approx(0.8, abs=0.02)
        assert (reasons[10_000:] == Reason.NO_CONSENT).all()

    def test_statuses(self) -> None:
        """A recipient without a record has no status."""
        assert COHORT.statuses(np.array([9_999, 10_000])).tolist()[1] == Status.NONE

    @given(count=st.integers(1, 500), hit_rate=st.sampled_from([0.0, 0.5, 0.9, 1.0]), seed=st.integers(0, 1000))
    def test_hit_rate(self, count: int, hit_rate: float, seed: int) -> None:
        """A draw has exactly the hit rate that was asked for."""
        drawn = COHORT.drawn(count, hit_rate=hit_rate, seed=seed)

        assert (drawn < COHORT.consents).sum() == count - round(count * (1 - hit_rate))
