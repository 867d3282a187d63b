"""How the console asks one server: by the client that everybody has, over one connection."""

from collections.abc import AsyncIterator

from iyscheck.client.aio import AsyncClient
from iyscheck.console.sources import PATIENCE_S
from iyscheck.overview import BrandOverview, CallerOverview, Overview, SourceOverview
from iyscheck.question import Answer, Context


class ServerByClient:
    """One server, asked through its client. Belongs to one event loop."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def status(self) -> Overview:
        """Ask how it is."""
        return await self._client.admin.status(timeout_s=PATIENCE_S)

    def brands(self) -> AsyncIterator[BrandOverview]:
        """Walk its brands."""
        return self._client.admin.all_brands()

    def sources(self) -> AsyncIterator[SourceOverview]:
        """Walk its sources."""
        return self._client.admin.all_sources()

    def callers(self) -> AsyncIterator[CallerOverview]:
        """Walk its callers."""
        return self._client.admin.all_callers()

    async def check(self, context: Context, address: str, client_reference: str) -> Answer:
        """Ask whether a message may be sent to this address."""
        return await self._client.check(
            brand=context.brand,
            channel=context.channel,
            recipient_type=context.recipient_type,
            message_class=context.message_class,
            retailer=context.retailer,
            address=address,
            timeout_s=2.0,
            client_reference=client_reference,
        )

    async def close(self) -> None:
        """End the connection."""
        await self._client.close()
