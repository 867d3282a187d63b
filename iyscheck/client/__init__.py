"""Clients of an iyscheck server: `Client` for threads, `AsyncClient` for asyncio; neither shows gRPC or protobuf."""

from iyscheck.client.aio import AsyncClient
from iyscheck.client.columns import ColumnResult, FrameResult
from iyscheck.client.sync import Client

__all__ = ["AsyncClient", "Client", "ColumnResult", "FrameResult"]
