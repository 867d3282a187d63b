"""How signals are heard: from a command's first moment on, and later by a bell that handlers ring.

Not a threading.Event: a handler runs between any two steps of the main thread, and if that is just inside the event's
`wait`, the handler's `set` waits for a lock that its own thread holds: for ever.
"""

import os
import queue
import signal
import threading
from typing import Final

TOLD: Final = 128 + signal.SIGTERM
"""The exit code of who was told to end before it was done, as shells say it."""


def leave_when_told(code: int = TOLD) -> None:
    """Have SIGTERM end this process at once, while there is nothing yet to bring to an end.

    By default it would do so anyway, but not in the first process of a container: there the system ignores signals
    that have no handler. Called before what a command needs is imported, which takes most of a second.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(code))


def outlive_reloads() -> None:
    """Have SIGHUP mean nothing while a server starts, whose workers are new anyway; by default it ends a process.

    A handler and not `SIG_IGN`, which workers would inherit.
    """
    signal.signal(signal.SIGHUP, lambda *_: None)


class Bell:
    """May be rung from anywhere, in signal handlers too; one thread waits for it."""

    def __init__(self) -> None:
        self._rings: queue.SimpleQueue[None] = queue.SimpleQueue()  # its `put` may interrupt itself

    def ring(self) -> None:
        """Wake whoever waits, or does so next."""
        self._rings.put(None)

    def wait(self, seconds: float) -> bool:
        """Wait until it is rung, or that long at most; say whether it was, and forget it."""
        try:
            self._rings.get(timeout=seconds)
        except queue.Empty:
            return False
        for _ in range(self._rings.qsize()):
            self._rings.get_nowait()
        return True


class Stop(threading.Event):
    """An event that handlers of signals may set while its own thread waits for it: a bell that goes on ringing."""

    def __init__(self) -> None:
        super().__init__()
        self._is_asked = False
        self._bell = Bell()

    def set(self) -> None:
        """Ask to stop."""
        self._is_asked = True
        self._bell.ring()

    def is_set(self) -> bool:
        """Whether it was asked."""
        return self._is_asked

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is asked, or that many seconds at most; say whether it was. One thread may wait."""
        if not self._is_asked:
            self._bell.wait(threading.TIMEOUT_MAX if timeout is None else timeout)
        return self._is_asked
