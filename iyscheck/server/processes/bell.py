"""What a signal handler rings and a thread waits for.

Not a threading.Event: a handler runs between any two steps of the main thread, and if that is just inside the event's
`wait`, the handler's `set` waits for a lock that its own thread holds: for ever.
"""

import queue


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
