"""An end that is sure: a process that was told to go is gone in time, whatever of it hangs."""

import os
import signal
from typing import Final

import structlog

from iyscheck.server.log import FAILED

LATE_S: Final = 4.0
"""After the drain's time; a supervisor kills a second later."""


def end_within(seconds: float, log: structlog.typing.FilteringBoundLogger) -> None:
    """End this process with `FAILED` if it is still there by then. To be called in the main thread.

    No thread waits for that: where there are no more threads it has to work too.
    """

    def end(*_: object) -> None:
        try:
            log.critical("never_drained", seconds=seconds, exit_code=FAILED)
        finally:
            os._exit(FAILED)

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
