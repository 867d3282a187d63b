"""How a command is told to end."""

import signal
import threading
from types import FrameType

from iyscheck.signals import Stop


def stop_on_signals() -> threading.Event:
    """Finish the commit under way on SIGTERM and SIGINT, then end."""
    stop = Stop()

    def asked(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, asked)
    signal.signal(signal.SIGINT, asked)
    return stop
