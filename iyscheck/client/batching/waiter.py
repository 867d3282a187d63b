"""A thread that waits for its answer."""

import threading

from iyscheck.question import Answer


class Waiter:
    """A caller that waits until `over` is released. Its outcome is set once; whoever wakes it, it wakes `then`."""

    __slots__ = ("outcome", "over", "then")

    def __init__(self) -> None:
        self.outcome: Answer | Exception | None = None
        self.over = held()
        self.then: Waiter | None = None

    def done(self) -> bool:
        """Whether the outcome is known."""
        return self.outcome is not None

    def settle(self, outcome: Answer | Exception) -> None:
        """End the wait, if it has not ended already. The lock of the client must be held."""
        if self.outcome is None:
            self.outcome = outcome
            self.over.release()


def held() -> threading.Lock:
    """Make a lock that is taken: whoever acquires it waits until somebody releases it."""
    lock = threading.Lock()
    lock.acquire()
    return lock
