"""The laws of drawing without state."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.population.dice import Dice, Shuffles

seeds = st.integers(0, 2**64)
topics = st.text(max_size=5)


class TestDice:
    """What is drawn for an item depends on the seed, the topic and the item's number, on nothing else."""

    @given(seed=seeds, topic=topics, start=st.integers(0, 2**40), skip=st.integers(0, 50))
    @settings(max_examples=50, deadline=None)
    def test_neighbours(self, seed: int, topic: str, start: int, skip: int) -> None:
        """An item draws the same whichever items are drawn beside it."""
        items = np.arange(start, start + 100)

        together = Dice(seed).words(topic, items)
        apart = Dice(seed).words(topic, items[skip:])

        assert (together[skip:] == apart).all()

    @given(seed=seeds, topic=topics)
    @settings(max_examples=20, deadline=None)
    def test_units(self, seed: int, topic: str) -> None:
        """Units are spread over 0 to below 1."""
        units = Dice(seed).units(topic, np.arange(4_000))

        assert units.min() >= 0
        assert units.max() < 1
        assert abs(units.mean() - 0.5) < 0.05

    @given(seed=seeds, weights=st.lists(st.sampled_from([0.0, 0.5, 3.0]), min_size=1, max_size=6).filter(any))
    @settings(max_examples=50, deadline=None)
    def test_weights(self, seed: int, weights: list[float]) -> None:
        """A weight of zero is never picked, and the others in their proportion."""
        picked = Dice(seed).picks("weights", np.arange(4_000), weights)

        shares = np.bincount(picked, minlength=len(weights)) / 4_000
        assert np.abs(shares - np.array(weights) / sum(weights)).max() < 0.06
        assert not shares[np.array(weights) == 0].any()

    def test_topics(self) -> None:
        """Topics and seeds draw independently of each other."""
        items = np.arange(1_000)

        drawn = [Dice(1).words("a", items), Dice(1).words("b", items), Dice(2).words("a", items)]

        assert len(np.unique(np.concatenate(drawn))) == 3_000


class TestShuffle:
    """A shuffle is a bijection of the numbers below its size."""

    @given(seed=seeds, topic=topics, size=st.integers(1, 300))
    @settings(max_examples=50, deadline=None)
    def test_bijection(self, seed: int, topic: str, size: int) -> None:
        """Each number is reached once, and `back` finds from where."""
        shuffle = Dice(seed).shuffle(topic, size)

        reached = shuffle(np.arange(size))

        assert sorted(reached.tolist()) == list(range(size))
        assert [shuffle.back(number) for number in reached.tolist()] == list(range(size))

    @given(seed=seeds, size=st.integers(2_000_000_000, 2_999_999_999))
    @settings(max_examples=50, deadline=None)
    def test_large(self, seed: int, size: int) -> None:
        """The largest sizes do not overflow."""
        shuffle = Dice(seed).shuffle("large", size)
        numbers = np.array([0, 1, size // 2, size - 1])

        reached = shuffle(numbers)

        assert [shuffle.back(number) for number in reached.tolist()] == numbers.tolist()

    def test_many_at_once(self) -> None:
        """Several shuffles in one call give what each gives alone."""
        each = [Dice(1).shuffle(f"{size}", size) for size in (5, 70, 900)]
        which, numbers = np.array([2, 0, 1, 2]), np.array([899, 4, 3, 0])

        reached = Shuffles(each)(which, numbers)

        alone = [each[at](numbers[place : place + 1])[0] for place, at in enumerate(which.tolist())]
        assert reached.tolist() == alone
