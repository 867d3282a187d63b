"""A log that does to its messages whatever a real one might: for tests of who writes to it."""

from contextlib import AbstractContextManager

from loader.replication.messages import LogAwayError, LogEnds, LogMissingError, LogMovedError, Reader


class FaultyLog:
    """A `Log` in memory. A message that is None was lost where it lay.

    `is_away` lets nobody ask. `drops` and `mumbles` appends that come next are not stored, or stored without a word.
    `ever` are all messages that it ever had.
    """

    def __init__(self) -> None:
        self.messages: list[bytes | None] = []
        self.first = 1
        self.created = 1
        self.is_there = True
        self.is_away = False
        self.drops = 0
        self.mumbles = 0
        self.unreadable = 0
        self.ever: set[bytes] = set()

    @property
    def readable(self) -> list[bytes]:
        """What is in it."""
        return [message for message in self.messages[self.first - 1 :] if message is not None]

    def ends(self) -> LogEnds:
        """Say where it begins and ends."""
        self._asked()
        return LogEnds(
            created=str(self.created),
            first=self.first,
            last=len(self.messages),
            messages=len(self.readable),
            bytes=sum(map(len, self.readable)),
        )

    def append(self, expected: int, message: bytes) -> int:
        """Store a message where it is expected to be stored."""
        self._asked()
        if self.drops:
            self.drops -= 1
            raise LogAwayError
        if expected != len(self.messages):
            raise LogMovedError(len(self.messages))
        self.messages.append(message)
        self.ever.add(message)
        if self.mumbles:
            self.mumbles -= 1
            raise LogAwayError
        return len(self.messages)

    def get(self, number: int) -> bytes | None:
        """Return a message."""
        self._asked()
        if self.unreadable:
            self.unreadable -= 1
            return None
        return self.messages[number - 1] if self.first <= number <= len(self.messages) else None

    def reading(self, first: int) -> AbstractContextManager[Reader]:
        """Nobody who writes reads on."""
        raise NotImplementedError(first)

    def close(self) -> None:
        """Let it go."""

    def lose_end(self, number: int) -> None:
        """Forget messages at the end, as if they had never come."""
        del self.messages[max(self.first - 1, len(self.messages) - number) :]

    def age(self, number: int) -> None:
        """Drop messages at the beginning."""
        self.first = min(len(self.messages) + 1, self.first + number)

    def make(self) -> None:
        """Delete it, and make it anew."""
        self.messages, self.first, self.is_there = [], 1, True
        self.created += 1

    def _asked(self) -> None:
        if self.is_away:
            raise LogAwayError
        if not self.is_there:
            raise LogMissingError
