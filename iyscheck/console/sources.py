"""What the console knows and from where: servers that it asks, pages of metrics that it reads, again and again.

What does not answer is a state that is shown, and never an error of the console.
"""

import asyncio
import http.client
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Generic, Protocol, TypeVar, cast
from urllib.parse import SplitResult, urlsplit

from iyscheck.console.readings import Reading, columns, together
from iyscheck.console.ring import HOUR_S, Ring
from iyscheck.errors import (
    IyscheckError,
    ServiceError,
    ServiceFailedError,
    ServiceRefusedError,
    ServiceUnavailableError,
    SettingsError,
)
from iyscheck.overview import BrandOverview, CallerOverview, Overview, SourceOverview
from iyscheck.question import Answer, Context

LOOK_S: Final = 2.0
"""How often metrics are read."""
_STATUS_LOOKS: Final = 2
"""Every how many looks servers are asked how they are: they read their brands for that."""
PATIENCE_S: Final = 1.5
"""How long a look waits for a server or a page of metrics."""
_FETCH_S: Final = 10.0
"""How long a page of metrics may take in all: a server under load is slow, and then its page is wanted most."""
_MOST_PAGE_BYTES: Final = 16 * 1024 * 1024
_MOST_LISTED: Final = 20_000
"""Brands, or sources, that a screen is made of; behind these it says that there are more."""
_LIST_KEPT_S: Final = 5.0
_LIST_S: Final = 10.0
_OK: Final = 200

ItemT = TypeVar("ItemT")


class Trouble(StrEnum):
    """Why nothing is known of a server or a page of metrics now."""

    NOT_ASKED_YET = "not_asked_yet"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    FAILED = "failed"
    NO_METRICS = "no_metrics"
    SLOW = "slow"


class Asked(Protocol):
    """One server, as far as the console asks it. Each call raises ServiceError."""

    async def status(self) -> Overview:
        """Ask how it is."""

    def brands(self) -> AsyncIterator[BrandOverview]:
        """Walk its brands."""

    def sources(self) -> AsyncIterator[SourceOverview]:
        """Walk its sources."""

    def callers(self) -> AsyncIterator[CallerOverview]:
        """Walk its callers."""

    async def check(self, context: Context, address: str, client_reference: str) -> Answer:
        """Ask whether a message may be sent to this address."""

    async def close(self) -> None:
        """End the connection."""


@dataclass(frozen=True, slots=True)
class Listed(Generic[ItemT]):
    """What a server lists, and whether there is more than a screen takes."""

    items: tuple[ItemT, ...]
    more: bool


class Server:
    """One server and what it said last. Belongs to one event loop."""

    def __init__(self, target: str, asked: Asked, clock: Callable[[], float] = time.time) -> None:
        self.target = target
        self.overview: Overview | None = None
        """What it said last; it is kept, with its time, when the server answers no more."""
        self.heard_at: float | None = None
        self.trouble: Trouble | None = Trouble.NOT_ASKED_YET
        self.code = ""
        """The server's own reason where it refused."""
        self._asked = asked
        self._clock = clock
        self._lists: dict[str, tuple[float, object]] = {}

    @property
    def answers(self) -> bool:
        """Whether it answered when it was asked last."""
        return self.trouble is None

    async def look(self) -> None:
        """Ask how it is."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                self.overview = await self._asked.status()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this server's, and the others are looked at
            self.trouble, self.code = trouble_of(error)
        else:
            self.trouble, self.code, self.heard_at = None, "", self._clock()

    async def brands(self) -> Listed[BrandOverview]:
        """List its brands. Raises ServiceError, TimeoutError."""
        return await self._list("brands", self._asked.brands)

    async def sources(self) -> Listed[SourceOverview]:
        """List its sources. Raises ServiceError, TimeoutError."""
        return await self._list("sources", self._asked.sources)

    async def callers(self) -> Listed[CallerOverview]:
        """List its callers. Raises ServiceError, TimeoutError."""
        return await self._list("callers", self._asked.callers)

    async def check(self, context: Context, address: str, client_reference: str) -> Answer:
        """Ask about one address. Raises ServiceError, QuestionError."""
        try:
            return await self._asked.check(context, address, client_reference)
        except (IyscheckError, TimeoutError):
            raise
        except Exception as error:
            raise ServiceFailedError("The server's answer cannot be understood.") from error

    async def close(self) -> None:
        """End the connection."""
        await self._asked.close()

    async def _list(self, name: str, walk: Callable[[], AsyncIterator[ItemT]]) -> Listed[ItemT]:
        """List all there are; what was listed some seconds ago is given again, so that clicks cost nothing."""
        at, kept = self._lists.get(name, (0.0, None))
        if kept is not None and 0 <= self._clock() - at < _LIST_KEPT_S:
            return cast("Listed[ItemT]", kept)  # it was kept by this name
        items: list[ItemT] = []
        try:
            async with asyncio.timeout(_LIST_S):
                async for item in walk():
                    items.append(item)
                    if len(items) > _MOST_LISTED:
                        break
        except (ServiceError, TimeoutError):
            raise
        except Exception as error:
            raise ServiceFailedError("The server's list cannot be understood.") from error
        listed = Listed(tuple(items[:_MOST_LISTED]), more=len(items) > _MOST_LISTED)
        self._lists[name] = self._clock(), listed
        return listed


def trouble_of(error: Exception) -> tuple[Trouble, str]:
    """Say what kind of trouble an error is, and the server's own word for it."""
    if isinstance(error, ServiceRefusedError):
        return Trouble.REFUSED, error.code
    if isinstance(error, ServiceUnavailableError | TimeoutError):
        return Trouble.UNREACHABLE, ""
    return Trouble.FAILED, error.code if isinstance(error, ServiceError) else ""


@dataclass(slots=True)
class MetricsPage:
    """One page of metrics and what it said last. `url` is of http or https."""

    url: SplitResult
    tls: ssl.SSLContext | None = None
    trouble: Trouble | None = Trouble.NOT_ASKED_YET
    reading: Reading | None = None
    late: int = 0
    """For how many looks the page under way has been waited for in vain."""
    under_way: "asyncio.Future[Reading] | None" = field(default=None, repr=False)

    @classmethod
    def at(cls, text: str, tls: ssl.SSLContext | None) -> "MetricsPage":
        """Check a URL. Raises SettingsError."""
        try:
            url = urlsplit(text)
            usable = url.scheme in {"http", "https"} and bool(url.hostname) and (url.port is None or url.port > 0)
        except ValueError:
            usable = False
        if not usable or url.username or url.password or url.fragment:
            raise SettingsError(
                "--metrics", f"{text} is not the URL of a page of metrics.", fix="Write http://HOST:PORT/metrics."
            )
        return cls(url._replace(path=url.path or "/metrics"), tls)

    @property
    def name(self) -> str:
        """Where it is, for people."""
        return self.url.netloc

    def fetch(self) -> Reading:
        """Read the page now, within `_FETCH_S` in all. Raises OSError, ValueError, HTTPException."""
        until = time.monotonic() + _FETCH_S
        host, port = self.url.hostname or "", self.url.port
        connection: http.client.HTTPConnection
        if self.url.scheme == "https":
            context = self.tls or ssl.create_default_context()
            connection = http.client.HTTPSConnection(host, port, timeout=_FETCH_S, context=context)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=_FETCH_S)
        ended = threading.Event()
        try:
            connection.connect()
            ending = threading.Timer(until - time.monotonic(), _end, (connection.sock, ended))
            ending.daemon = True
            ending.start()
            try:
                connection.request("GET", self.url.path + (f"?{self.url.query}" if self.url.query else ""))
                with connection.getresponse() as response:
                    content = response.read(_MOST_PAGE_BYTES + 1)
            finally:
                ending.cancel()
        finally:
            connection.close()
        if ended.is_set():  # what has come till then looks whole where its length was not told
            raise TimeoutError
        if response.status != _OK or len(content) > _MOST_PAGE_BYTES:
            raise ValueError("no page of metrics")
        return Reading.of(content.decode())

    def _fetched(self) -> "asyncio.Future[Reading]":
        """Fetch in a thread of its own, which the end of the process does not wait for."""
        loop = asyncio.get_running_loop()
        fetched: asyncio.Future[Reading] = loop.create_future()

        def settle(reading: Reading | None, error: Exception | None) -> None:
            if fetched.done():  # let go of
                return
            if reading is not None:
                fetched.set_result(reading)
            elif error is not None:
                fetched.set_exception(error)

        def fetch() -> None:
            reading, failed = None, None
            try:
                reading = self.fetch()
            except Exception as error:  # noqa: BLE001 - it is raised where the page is waited for
                failed = error
            with suppress(RuntimeError):  # the loop is over
                loop.call_soon_threadsafe(settle, reading, failed)

        threading.Thread(target=fetch, name=f"metrics of {self.name}", daemon=True).start()
        return fetched

    def let_go(self) -> None:
        """Wait for the page no more."""
        if self.under_way is not None:
            self.under_way.cancel()
            self.under_way = None

    async def look(self) -> dict[str, float] | None:
        """Read the page; say what was counted since it was read last, None where that cannot be known.

        What a late page brings is shared out among the looks that waited for it. After a page that could not be read
        counting begins anew: an hour's gap must not look like a second's rush.
        """
        if self.under_way is None:
            self.under_way = self._fetched()
        await asyncio.wait([self.under_way], timeout=PATIENCE_S)
        if not self.under_way.done():  # it goes on in its thread, and is waited for at the next look
            self.late, self.trouble = self.late + 1, Trouble.SLOW
            return None
        try:
            reading = self.under_way.result()
        except (OSError, http.client.HTTPException):
            self._lost(Trouble.UNREACHABLE)
            return None
        except Exception:  # noqa: BLE001 - what is no UTF-8, and whatever else a page can be but a page of metrics
            self._lost(Trouble.NO_METRICS)
            return None
        looks, self.late = self.late + 1, 0
        before, self.reading, self.trouble, self.under_way = self.reading, reading, None, None
        return None if before is None else {name: number / looks for name, number in reading.since(before).items()}

    def _lost(self, trouble: Trouble) -> None:
        """Note that the page could not be read."""
        self.reading, self.trouble, self.under_way, self.late = None, trouble, None, 0


def _end(connection: socket.socket, ended: threading.Event) -> None:
    """End a connection that another thread reads from: to time its single reads does not end a page that drips."""
    ended.set()
    with suppress(OSError):  # it is over already
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # that of TLS would take the reader's session away


class Watch:
    """Looks at all servers and metrics again and again, as long as it runs. Belongs to one event loop."""

    def __init__(
        self,
        servers: Sequence[Server],
        metrics: Sequence[MetricsPage],
        *,
        clock: Callable[[], float] = time.time,
        every_s: float = LOOK_S,
        each_look: Callable[[], object] = lambda: None,
        failed: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        """`each_look` is called with each look, for what else has to be looked at; `failed` if one broke off."""
        self.servers = tuple(servers)
        self.metrics = tuple(metrics)
        self.ring = Ring(columns(), int(HOUR_S / every_s))
        self.looks = 0
        self.is_over = False
        self._clock = clock
        self._every_s = every_s
        self._each_look = each_look
        self._failed = failed
        self._looked = asyncio.Condition()

    async def run(self) -> None:
        """Look until cancelled."""
        last = None
        try:
            while not self.is_over:
                begun = time.monotonic()
                try:
                    await self._look(None if last is None else begun - last)
                except Exception as error:  # noqa: BLE001 - whatever it is, the next look may be better
                    self._failed(error)
                last = begun
                await asyncio.sleep(max(0.0, self._every_s - (time.monotonic() - begun)))
        finally:
            for page in self.metrics:
                page.let_go()

    async def _look(self, seconds: float | None) -> None:
        """Look once. `seconds` is how long ago the look before was."""
        self._each_look()
        servers = self.servers if self.looks % _STATUS_LOOKS == 0 else ()
        looked = asyncio.gather(*(page.look() for page in self.metrics))
        await asyncio.gather(looked, *(server.look() for server in servers))
        counted = [numbers for numbers in looked.result() if numbers is not None]
        if counted and seconds is not None:
            self.ring.add(self._clock(), {"seconds": seconds, **together(counted)})
        async with self._looked:
            self.looks += 1
            self._looked.notify_all()

    async def after(self, looks: int, patience_s: float) -> bool:
        """Wait until there was another look than so many; say whether there was, within the patience."""
        try:
            async with asyncio.timeout(patience_s), self._looked:
                await self._looked.wait_for(lambda: self.looks != looks or self.is_over)
        except TimeoutError:
            return False
        return not self.is_over

    async def end(self) -> None:
        """Let go of all who wait, and look no more."""
        async with self._looked:
            self.is_over = True
            self._looked.notify_all()

    async def close(self) -> None:
        """End all connections."""
        await asyncio.gather(*(server.close() for server in self.servers))
