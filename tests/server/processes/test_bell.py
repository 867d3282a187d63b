import sys
import threading
from types import FrameType
from typing import Any

from iyscheck.server.processes.bell import Bell


def test_rung() -> None:
    """Whoever waits is told of all rings at once, and of none twice."""
    bell = Bell()
    assert not bell.wait(0)
    bell.ring()
    bell.ring()

    assert bell.wait(60)
    assert not bell.wait(0)


def test_waits() -> None:
    """Who waits is woken by a ring that comes later, from another thread."""
    bell = Bell()
    later = threading.Timer(0.1, bell.ring)
    later.start()

    assert bell.wait(60)
    later.join()


def test_in_the_middle() -> None:
    """A ring between any two lines of the wait, as a signal's handler does it, neither blocks nor is lost."""
    bell, before, lines = Bell(), sys.gettrace(), set()

    def interrupt(frame: FrameType, event: str, _: object) -> Any:  # noqa: ANN401 - itself
        if event == "line":
            lines.add(frame.f_lineno)
            bell.ring()
        return interrupt

    sys.settrace(interrupt)
    try:
        rung = bell.wait(60)
    finally:
        sys.settrace(before)

    assert rung
    assert len(lines) > 2
