"""Who is let in, for how long, and how often something may be tried."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iyscheck.callers.watch import CallersWatch
from iyscheck.console.auth import SESSION_S, Allowance, Sessions
from iyscheck.errors import CallerUnknownError, CallNotAllowedError, RateLimitedError
from tests.console.world import KEYS, callers_text


class Clock:
    """A clock that a test sets."""

    now = 1_000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A callers file."""
    path = tmp_path / "callers.toml"
    path.write_text(callers_text())
    return path


class TestSessions:
    """A session holds until its time, its log-out, or until the callers file says otherwise."""

    def test_opened(self, file: Path) -> None:
        """A key with a right of the console opens one, which is found by its number only."""
        sessions = Sessions(CallersWatch(file), Clock())

        session = sessions.open(KEYS["asker"].text)

        assert sessions.find(session.number) is session
        assert (session.may_look, session.may_explain) == (False, True)
        assert sessions.find(None) is sessions.find("") is sessions.find(session.number[:-1]) is None
        assert session.number not in repr(session)

    def test_refused(self, file: Path) -> None:
        """A key that nobody has, and one whose caller has neither right, open none."""
        sessions = Sessions(CallersWatch(file), Clock())

        with pytest.raises(CallerUnknownError):
            sessions.open(KEYS["both"].text[:-1] + "0" if KEYS["both"].text[-1] != "0" else "1")
        with pytest.raises(CallNotAllowedError):
            sessions.open(KEYS["sender"].text)

    def test_ends(self, file: Path) -> None:
        """It ends after a working day, however much it was used, and with a log-out."""
        clock = Clock()
        sessions = Sessions(CallersWatch(file), clock)
        first, second = sessions.open(KEYS["both"].text), sessions.open(KEYS["both"].text)

        sessions.close(second)
        clock.now += SESSION_S - 1
        alive = sessions.find(first.number)
        clock.now += 1

        assert alive is first
        assert sessions.find(second.number) is None
        assert sessions.find(first.number) is None

    def test_revoked(self, file: Path) -> None:
        """A caller that is gone from the file, or has other rules, is out at the next look; the others stay."""
        callers = CallersWatch(file)
        sessions = Sessions(callers, Clock())
        gone, stays, changed = (sessions.open(KEYS[name].text) for name in ("both", "asker", "looker"))
        file.write_text(callers_text(without="both").replace('["console"]', '["console", "info"]'))
        callers.look(at_once=True)

        assert sessions.find(gone.number) is None
        assert sessions.find(changed.number) is None
        assert sessions.find(stays.number) is stays

    def test_bounded(self, file: Path) -> None:
        """One caller has at most twenty; the first of them ends for the next."""
        sessions = Sessions(CallersWatch(file), Clock())
        other = sessions.open(KEYS["looker"].text)

        opened = [sessions.open(KEYS["both"].text) for _ in range(25)]

        held = [sessions.find(each.number) is not None for each in opened]
        assert held == [False] * 5 + [True] * 20
        assert sessions.find(other.number) is other


class TestAllowance:
    """So many at once, and then one each so many seconds."""

    @given(st.integers(1, 5), st.lists(st.floats(0, 30), max_size=60))
    def test_law(self, at_once: int, gaps: list[float]) -> None:
        """In any time there are no more than so many and one for each interval; who waited as told is not refused."""
        clock, every_s, taken = Clock(), 10.0, []
        allowance = Allowance(at_once, every_s, clock)
        for gap in gaps:
            clock.now += gap
            try:
                allowance.take("a")
            except RateLimitedError as error:
                clock.now += error.wait_s + 1e-6
                allowance.take("a")
            taken.append(clock.now)

        for first in range(len(taken)):
            for last in range(first, len(taken)):
                assert last - first + 1 <= at_once + (taken[last] - taken[first]) / every_s + 1e-6

    def test_names_are_apart(self) -> None:
        """One who has none left takes nothing from another; a refusal costs nothing."""
        clock = Clock()
        allowance = Allowance(1, 60.0, clock)
        allowance.take("a")
        for _ in range(5):
            with pytest.raises(RateLimitedError) as told:
                allowance.take("a")
        allowance.take("b")

        assert told.value.wait_s == pytest.approx(60.0)
