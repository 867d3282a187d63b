"""Many pushes wait together for one sync of the disk: each is answered when all of its rows are on it."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from loader.push.journal import Entry

_MOST_WAITING: Final = 1_000
"""Entries; who comes then is told to come again."""
MOST_BYTES: Final = 64 * 2**20
"""Of all bodies that are read or wait: more would be the memory of a small machine."""

FAILING_S: Final = 15.0
"""So long a failure counts. Who balances by health sends nothing until then, and only a push can show it to be over."""


class Appends(Protocol):
    """What entries are appended to."""

    def append(self, entries: list[Entry], now_s: float) -> None:
        """Keep entries durably. Raises OSError."""
        ...


class FullError(Exception):
    """So many wait already that one more would wait too long."""


class Keeping:
    """Hands entries to the journal, in a thread, whatever has come since the last time together."""

    def __init__(
        self,
        journal: Appends,
        *,
        clock: Callable[[], float] = time.time,
        took: Callable[[float], object],
        failing_s: float = FAILING_S,
    ) -> None:
        """`took` is told how many seconds each time took."""
        self._journal = journal
        self._clock = clock
        self._took = took
        self._waiting: list[tuple[Entry, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._bytes = 0
        self._failing_s = failing_s
        self._failed_until_s: float | None = None

    @property
    def is_failing(self) -> bool:
        """Whether the disk did not take what came last, a moment ago."""
        return self._failed_until_s is not None and time.monotonic() < self._failed_until_s

    @contextmanager
    def room(self, size: int) -> Iterator[None]:
        """Count bytes of a body as long as it is under way. Raises FullError."""
        if self._bytes + size > MOST_BYTES:
            raise FullError
        self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size

    async def keep(self, entry: Entry) -> None:
        """Wait until an entry is on the disk. Raises OSError where it is not, FullError."""
        if len(self._waiting) >= _MOST_WAITING:
            raise FullError
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, done))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._keep_all())
        await done

    async def settle(self) -> None:
        """Wait until nothing waits."""
        if self._task is not None:
            await self._task

    async def _keep_all(self) -> None:
        while self._waiting:
            together, self._waiting = self._waiting, []
            began = time.monotonic()
            error: Exception | None = None
            try:
                await asyncio.to_thread(self._journal.append, [entry for entry, _ in together], self._clock())
            except Exception as failed:  # noqa: BLE001 - whatever it is, those who wait must hear of it
                error = failed
            now = time.monotonic()
            self._failed_until_s = None if error is None else now + self._failing_s
            self._took(now - began)
            for _, done in together:
                if done.done():
                    continue  # who waited for it has gone
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)
