"""When a replica is said to follow: at once at the beginning, from then on only after a while."""

import pytest

from iyscheck.server.fronts.following import CLOSE_S, MOST_LAG_S, OFF_AFTER_S, ON_AFTER_S, Following


class Told:
    """What is judged of lags, one after the other, on a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self._following = Following(lambda: self.now)

    def after(self, seconds: float, lag_s: float | None) -> bool:
        """Let time pass and show a lag."""
        self.now += seconds
        return self._following.judged(lag_s)


@pytest.mark.parametrize(("lag_s", "follows"), [(0, True), (CLOSE_S - 0.1, True), (CLOSE_S, False), (900, False)])
def test_begins(lag_s: float, follows: bool) -> None:  # noqa: FBT001 - pytest's
    """A replica that is close by at the beginning follows, every other one does not yet."""
    assert Told().after(0, lag_s) is follows


def test_off() -> None:
    """It no longer follows when its lag has been too large for a while without a break."""
    told = Told()
    assert told.after(0, 1)
    assert told.after(1, MOST_LAG_S - 0.1)
    assert told.after(1, MOST_LAG_S)
    assert told.after(OFF_AFTER_S - 1, MOST_LAG_S)
    assert told.after(1, MOST_LAG_S - 1)
    assert told.after(1, MOST_LAG_S)
    assert told.after(OFF_AFTER_S - 0.1, 2 * MOST_LAG_S)
    assert not told.after(0.1, MOST_LAG_S)


def test_on_again() -> None:
    """It follows again when it has been close by for a longer while without a break."""
    told = Told()
    assert not told.after(0, MOST_LAG_S)
    assert not told.after(1, CLOSE_S - 1)
    assert not told.after(ON_AFTER_S - 1, CLOSE_S)
    assert not told.after(1, CLOSE_S - 1)
    assert not told.after(ON_AFTER_S - 0.1, CLOSE_S - 1)
    assert told.after(0.1, CLOSE_S - 1)
    assert told.after(0.1, MOST_LAG_S)


def test_no_replica() -> None:
    """What is no replica, or no longer one, has nobody to follow."""
    told = Told()
    assert told.after(0, None)
    assert not told.after(0, MOST_LAG_S)
    assert told.after(1, None)
    assert told.after(1, 0)
