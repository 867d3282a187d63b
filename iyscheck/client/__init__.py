"""Clients of an iyscheck server: `Client` for threads, `AsyncClient` for asyncio; neither shows gRPC or protobuf."""

from iyscheck.client.aio import AsyncClient
from iyscheck.client.batching import AsyncBatching, Batching
from iyscheck.client.route import Tls
from iyscheck.client.sync import Client
from iyscheck.question import ColumnResult, FrameResult

__all__ = ["AsyncBatching", "AsyncClient", "Batching", "Client", "ColumnResult", "FrameResult", "Tls"]
