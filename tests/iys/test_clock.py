import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.iys.clock import LOOK_S, SharedClock, VirtualClock


class TestVirtual:
    """A clock of one process."""

    def test_runs_as_it_is_waited_for(self) -> None:
        """Who waits moves the clock by that, at once."""
        clock = VirtualClock()
        begin_s = clock.now()
        assert not clock.wait(3600.0, threading.Event())
        assert clock.now() == begin_s + 3600.0

    def test_stop_ends_waiting(self) -> None:
        """Who is to stop does not move the clock, and is told."""
        clock, stop = VirtualClock(), threading.Event()
        begin_s = clock.now()
        stop.set()
        assert clock.wait(3600.0, stop)
        assert clock.now() == begin_s

    def test_held(self) -> None:
        """Who waits by a held clock goes on when somebody has let that time pass, and not before."""
        clock, stop = VirtualClock(held=True), threading.Event()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(clock.wait, 10.0, stop)
            assert clock.until_waiting(1)
            clock.advance(9.0)
            with pytest.raises(TimeoutError):
                waiting.result(5 * LOOK_S)
            clock.advance(1.0)
            assert waiting.result() is False

    def test_held_and_stopped(self) -> None:
        """Who is to stop does not go on waiting."""
        clock, stop = VirtualClock(held=True), threading.Event()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(clock.wait, 10.0, stop)
            assert clock.until_waiting(1)
            stop.set()
            assert waiting.result() is True


class TestShared:
    """A clock of several processes."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """Where the clock is."""
        return tmp_path / "clock"

    def test_same_time(self, path: Path) -> None:
        """What one moves the other sees."""
        one, other = SharedClock(path), SharedClock(path)
        one.advance(5.0)
        other.wait(10.0, threading.Event())
        assert one.now() == other.now() == SharedClock(path).now()
        one.set(7.0)
        assert other.now() == 7.0

    def test_held(self, path: Path) -> None:
        """Who waits by a held clock goes on when the other has let that time pass."""
        one, other = SharedClock(path, held=True), SharedClock(path)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(other.wait, 10.0, threading.Event())
            one.advance(10.0)
            assert waiting.result() is False
