"""A clock for the tests of days."""

import threading


class StandingClock:
    """A clock that stands, but for who waits by it."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def now(self) -> float:
        """Return the time."""
        return self.now_s

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Let the time pass."""
        self.now_s += seconds
        return stop.is_set()
