"""Callers that ask without end until a test has seen enough: by either client, alone, gathered or in one column."""

import asyncio
import threading
from collections.abc import Iterator
from itertools import repeat
from types import TracebackType
from typing import Any, Final, Self

from iyscheck.client import AsyncClient, Client, Tls
from iyscheck.consent import Channel, Reason, RecipientType
from tests.server.processes.running import eventually

WHO: Final[dict[str, Any]] = {"brand": 1, "channel": Channel.MESAJ, "recipient_type": RecipientType.BIREYSEL}
ADDRESS: Final = "+905321000002"
KINDS: Final = ("sync", "async", "batching", "async batching", "stream", "async stream")
_AT_ONCE: Final = 4


class Asking:
    """Some that ask the same question without end, between its begin and its end; `failed` is what went wrong."""

    def __init__(self, target: str, kind: str, *, timeout_s: float = 5, tls: Tls | None = None) -> None:
        self.failed: list[object] = []
        self._target = target
        self._timeout_s = timeout_s
        self._tls = tls
        self._answers = 0
        self._over = threading.Event()
        self._lock = threading.Lock()
        run = {
            "sync": self._singly,
            "batching": self._gathered,
            "stream": self._column,
            "async": lambda: asyncio.run(self._singly_by_tasks()),
            "async batching": lambda: asyncio.run(self._gathered_by_tasks()),
            "async stream": lambda: asyncio.run(self._column_by_tasks()),
        }[kind]
        self._thread = threading.Thread(target=run, name=kind)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def wait_for_more(self, answers: int) -> None:
        """Wait for so many more answers."""
        enough = self._answers + answers
        eventually(lambda: self._answers >= enough or self.failed, "no more answers")

    def _took(self, reason: Reason) -> None:
        with self._lock:
            self._answers += 1
        if reason is not Reason.CONSENTED:
            self.failed.append(reason)

    def _client(self) -> Client:
        return Client(self._target, tls=self._tls, timeout_s=self._timeout_s, batch_timeout_s=self._timeout_s)

    def _async_client(self) -> AsyncClient:
        return AsyncClient(self._target, tls=self._tls, timeout_s=self._timeout_s, batch_timeout_s=self._timeout_s)

    def _endless(self, checks: Any) -> None:  # noqa: ANN401 - whatever has a `check`
        while not self._over.is_set():
            try:
                self._took(checks.check(**WHO, address=ADDRESS).reason)
            except Exception as error:  # noqa: BLE001 - the test shows whatever it is
                self.failed.append(error)

    async def _endless_by_task(self, checks: Any) -> None:  # noqa: ANN401 - as above
        while not self._over.is_set():
            try:
                self._took((await checks.check(**WHO, address=ADDRESS)).reason)
            except Exception as error:  # noqa: BLE001 - the test shows whatever it is
                self.failed.append(error)

    def _many(self, checks: Any) -> None:  # noqa: ANN401 - as above
        threads = [threading.Thread(target=self._endless, args=(checks,)) for _ in range(_AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _singly(self) -> None:
        with self._client() as client:
            self._many(client)

    def _gathered(self) -> None:
        with self._client() as client, client.batching(connections=2) as checks:
            self._many(checks)

    async def _singly_by_tasks(self) -> None:
        async with self._async_client() as client:
            await asyncio.gather(*(self._endless_by_task(client) for _ in range(_AT_ONCE)))

    async def _gathered_by_tasks(self) -> None:
        async with self._async_client() as client, client.batching(connections=2) as checks:
            await asyncio.gather(*(self._endless_by_task(checks) for _ in range(_AT_ONCE)))

    def _recipients(self) -> Iterator[str]:
        for address in repeat(ADDRESS):
            if self._over.is_set():
                return
            yield address

    def _column(self) -> None:
        try:
            with self._client() as client:
                for frame in client.stream_column(**WHO, recipients=self._recipients(), frame_size=2, window=2):
                    self._took(Reason(int(frame.reasons[0])))
        except Exception as error:  # noqa: BLE001 - the test shows whatever it is
            self.failed.append(error)

    async def _column_by_tasks(self) -> None:
        try:
            async with self._async_client() as client:
                frames = client.stream_column(**WHO, recipients=self._recipients(), frame_size=2, window=2)
                async for frame in frames:
                    self._took(Reason(int(frame.reasons[0])))
        except Exception as error:  # noqa: BLE001 - the test shows whatever it is
            self.failed.append(error)
