"""What a store holds beside the consents, for those who watch it: brands and watermarks, sources, feeds.

It is read once a transaction, and nothing of it is asked by a check.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Final

import numpy as np
import numpy.typing as npt

from iyscheck.change import Position
from iyscheck.engine.opened import OpenedStore
from iyscheck.store import layout
from iyscheck.store.layout import FeedState
from iyscheck.store.snapshot import Snapshot

SOURCES_S: Final = 30.0
"""How old the number of unfinished sources may be: of sources there are as many as there ever were files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What one transaction shows. `watermarks` are those of all brands that have one, seconds UTC by brand code.

    `complete_until` is, for each active brand, its watermark or 0: int64 (N,). `withheld` brands have a watermark that
    waits for rejects to be accepted, which are `rejected_rows` of the `held` sources. Of the others `unfinished` ones
    were not loaded to their end; `sources` are all.
    """

    position: Position
    watermarks: Mapping[int, int]
    complete_until: npt.NDArray[np.int64]
    inactive: int
    withheld: int
    rejected_rows: int
    sources: int
    unfinished: int
    held: int
    feeds: tuple[FeedState, ...]


class Inventory:
    """The holdings of the newest transaction that was met. Safe to share between threads."""

    def __init__(self, opened: OpenedStore) -> None:
        self._opened = opened
        self._lock = threading.Lock()
        self._kept: Holdings | None = None
        self._unfinished = 0
        self._count_again_s = 0.0

    def holdings(self) -> Holdings:
        """Read them, unless they are known. Raises StoreError, as where the store cannot be believed to be fresh."""
        opened = self._opened
        opened.look()
        if opened.replaced is not None:
            raise opened.replaced
        with self._lock, opened.store.snapshot() as snapshot:
            kept = self._kept
            # The same object in all that reads one transaction, which need not have moved the position.
            if kept is None or kept.position is not snapshot.position:
                kept = self._kept = self._read(snapshot)
            return kept

    def _read(self, snapshot: Snapshot) -> Holdings:
        watermarks, holds = snapshot.watermarks(), snapshot.holds()
        brands = list(snapshot.brands())
        active = [brand.brand for brand in brands if brand.active]
        held = [source for source in map(snapshot.source, holds) if source is not None]
        if monotonic() >= self._count_again_s:
            self._unfinished = snapshot.unfinished_sources()
            self._count_again_s = monotonic() + SOURCES_S
        return Holdings(
            position=snapshot.position,
            watermarks=watermarks,
            complete_until=np.fromiter((watermarks.get(brand, 0) for brand in active), np.int64, len(active)),
            inactive=len(brands) - len(active),
            withheld=len(snapshot.withheld()),
            rejected_rows=sum(source.rejected for source in held),
            sources=snapshot.entries(layout.SOURCES),
            unfinished=max(self._unfinished - sum(not source.finished for source in held), 0),
            held=len(held),
            feeds=tuple(snapshot.feeds()),
        )
