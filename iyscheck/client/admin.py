"""What whoever operates a server asks of it: `Client.admin` and `AsyncClient.admin`. Both read only.

A caller needs the right `admin` of the callers file. Every call can raise PageError, ServiceUnavailableError,
ServiceRefusedError and ServiceFailedError.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Final, Protocol, TypeVar

import grpc
import grpc.aio

from iyscheck.overview import (
    DEFAULT_PAGE_SIZE,
    MAX_PAGE_SIZE,
    BrandOrder,
    BrandOverview,
    BrandState,
    CallerOverview,
    Loaded,
    Overview,
    Page,
    SourceOverview,
)
from iyscheck.v1 import admin_pb2 as pb
from iyscheck.v1.admin_pb2_grpc import AdminServiceStub
from iyscheck.wire import operating

TIMEOUT_S: Final = 5.0

ItemT = TypeVar("ItemT")
ResponseT = TypeVar("ResponseT")


class Ask(Protocol):
    """Makes a unary call with what all calls of a client have in common, and raises its errors."""

    def __call__(self, method: Callable[..., ResponseT], request: object, timeout_s: float, /) -> ResponseT:
        """Wait for the response."""


class AsyncAsk(Protocol):
    """The same in asyncio."""

    def __call__(
        self,
        method: Callable[..., Awaitable[ResponseT]],
        request: object,
        timeout_s: float,
        /,
    ) -> Coroutine[object, object, ResponseT]:
        """Give what waits for the response."""


class Admin:
    """Asks a server how it is. Safe to share between threads."""

    def __init__(self, channel: grpc.Channel, ask: Ask) -> None:
        self._stub = AdminServiceStub(channel)
        self._ask = ask

    def status(self, *, timeout_s: float = TIMEOUT_S) -> Overview:
        """Ask what a glance shows."""
        response: pb.GetStatusResponse = self._ask(self._stub.GetStatus, pb.GetStatusRequest(), timeout_s)
        return operating.overview_of(response)

    def brands(
        self,
        *,
        state: BrandState | None = None,
        order: BrandOrder = BrandOrder.CODE,
        page_size: int = DEFAULT_PAGE_SIZE,
        token: str = "",
        timeout_s: float = TIMEOUT_S,
    ) -> Page[BrandOverview]:
        """Ask for a page of the brands, those of one state if wanted; `token` is that of the page before."""
        request = operating.brands_request(state=state, order=order, page_size=page_size, token=token)
        response: pb.ListBrandsResponse = self._ask(self._stub.ListBrands, request, timeout_s)
        return operating.brands_of(response)

    def sources(
        self,
        *,
        state: Loaded | None = None,
        page_size: int = DEFAULT_PAGE_SIZE,
        token: str = "",
        timeout_s: float = TIMEOUT_S,
    ) -> Page[SourceOverview]:
        """Ask for a page of the sources, those of one state if wanted; there may be fewer on it than in the next."""
        request = operating.sources_request(state=state, page_size=page_size, token=token)
        response: pb.ListSourcesResponse = self._ask(self._stub.ListSources, request, timeout_s)
        return operating.sources_of(response)

    def callers(
        self, *, page_size: int = DEFAULT_PAGE_SIZE, token: str = "", timeout_s: float = TIMEOUT_S
    ) -> Page[CallerOverview]:
        """Ask for a page of the callers."""
        request = operating.callers_request(page_size=page_size, token=token)
        response: pb.ListCallersResponse = self._ask(self._stub.ListCallers, request, timeout_s)
        return operating.callers_of(response)

    def all_brands(
        self, *, state: BrandState | None = None, order: BrandOrder = BrandOrder.CODE
    ) -> Iterator[BrandOverview]:
        """Walk all brands, page by page."""
        return _walked(lambda token: self.brands(state=state, order=order, page_size=MAX_PAGE_SIZE, token=token))

    def all_sources(self, *, state: Loaded | None = None) -> Iterator[SourceOverview]:
        """Walk all sources, page by page."""
        return _walked(lambda token: self.sources(state=state, page_size=MAX_PAGE_SIZE, token=token))

    def all_callers(self) -> Iterator[CallerOverview]:
        """Walk all callers, page by page."""
        return _walked(lambda token: self.callers(page_size=MAX_PAGE_SIZE, token=token))


class AsyncAdmin:
    """Asks a server how it is, in asyncio."""

    def __init__(self, channel: grpc.aio.Channel, ask: AsyncAsk) -> None:
        self._stub = AdminServiceStub(channel)
        self._ask = ask

    async def status(self, *, timeout_s: float = TIMEOUT_S) -> Overview:
        """Ask what a glance shows."""
        response: pb.GetStatusResponse = await self._ask(self._stub.GetStatus, pb.GetStatusRequest(), timeout_s)
        return operating.overview_of(response)

    async def brands(
        self,
        *,
        state: BrandState | None = None,
        order: BrandOrder = BrandOrder.CODE,
        page_size: int = DEFAULT_PAGE_SIZE,
        token: str = "",
        timeout_s: float = TIMEOUT_S,
    ) -> Page[BrandOverview]:
        """Ask for a page of the brands, those of one state if wanted; `token` is that of the page before."""
        request = operating.brands_request(state=state, order=order, page_size=page_size, token=token)
        response: pb.ListBrandsResponse = await self._ask(self._stub.ListBrands, request, timeout_s)
        return operating.brands_of(response)

    async def sources(
        self,
        *,
        state: Loaded | None = None,
        page_size: int = DEFAULT_PAGE_SIZE,
        token: str = "",
        timeout_s: float = TIMEOUT_S,
    ) -> Page[SourceOverview]:
        """Ask for a page of the sources, those of one state if wanted; there may be fewer on it than in the next."""
        request = operating.sources_request(state=state, page_size=page_size, token=token)
        response: pb.ListSourcesResponse = await self._ask(self._stub.ListSources, request, timeout_s)
        return operating.sources_of(response)

    async def callers(
        self, *, page_size: int = DEFAULT_PAGE_SIZE, token: str = "", timeout_s: float = TIMEOUT_S
    ) -> Page[CallerOverview]:
        """Ask for a page of the callers."""
        request = operating.callers_request(page_size=page_size, token=token)
        response: pb.ListCallersResponse = await self._ask(self._stub.ListCallers, request, timeout_s)
        return operating.callers_of(response)

    def all_brands(
        self, *, state: BrandState | None = None, order: BrandOrder = BrandOrder.CODE
    ) -> AsyncIterator[BrandOverview]:
        """Walk all brands, page by page."""
        return _walked_by_task(
            lambda token: self.brands(state=state, order=order, page_size=MAX_PAGE_SIZE, token=token)
        )

    def all_sources(self, *, state: Loaded | None = None) -> AsyncIterator[SourceOverview]:
        """Walk all sources, page by page."""
        return _walked_by_task(lambda token: self.sources(state=state, page_size=MAX_PAGE_SIZE, token=token))

    def all_callers(self) -> AsyncIterator[CallerOverview]:
        """Walk all callers, page by page."""
        return _walked_by_task(lambda token: self.callers(page_size=MAX_PAGE_SIZE, token=token))


def _walked(page_of: Callable[[str], Page[ItemT]]) -> Iterator[ItemT]:
    token = ""
    while True:
        page = page_of(token)
        yield from page.items
        token = page.next_token
        if not token:
            return


async def _walked_by_task(page_of: Callable[[str], Coroutine[object, object, Page[ItemT]]]) -> AsyncIterator[ItemT]:
    token = ""
    while True:
        page = await page_of(token)
        for item in page.items:
            yield item
        token = page.next_token
        if not token:
            return
