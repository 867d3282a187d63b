"""Single checks that travel together: `Batching` for threads, `AsyncBatching` for tasks, over one pure `ledger`."""

from iyscheck.client.batching.ledger import CAPACITY
from iyscheck.client.batching.tasks import AsyncBatching
from iyscheck.client.batching.threads import Batching

__all__ = ["CAPACITY", "AsyncBatching", "Batching"]
