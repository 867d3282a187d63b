"""What time it is, and how to wait: everything that deals with İYS takes its time from one of these."""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """A clock that can be waited by. Times are seconds UTC."""

    def now(self) -> float:
        """Return the time."""
        ...

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Wait so long, or until `stop` is set; say whether it is."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Return the time."""
        return time.time()

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Wait so long, or until `stop` is set; say whether it is."""
        return stop.wait(max(seconds, 0.0))
