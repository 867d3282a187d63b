"""What can be told of a store to whoever operates it: how its brands stand, and how far its sources were loaded.

Each look is one snapshot. What a page costs is bounded: brands are laid out as columns once for a transaction, and of
sources so many are looked at in a call and not more.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from iyscheck.consent import Policy
from iyscheck.engine.opened import OpenedStore, standing_of
from iyscheck.overview import (
    BRAND_STATES,
    NEVER,
    AfterBrand,
    BrandOrder,
    BrandOverview,
    BrandState,
    Feed,
    Loaded,
    Rejected,
    SourceOverview,
    StoreOverview,
    StoreSize,
    Watermarks,
    states_of_data,
)
from iyscheck.store import layout
from iyscheck.store.environment import files_translated
from iyscheck.store.layout import FeedState, SourceState
from iyscheck.store.snapshot import Snapshot
from iyscheck.times import local_text

HELD_BY_SHOWN: Final = 10
HELD_BRANDS_SHOWN: Final = 100
LOOKED_AT_MOST: Final = 2_000
"""So many sources are looked at in a call: of a year of daily files there may be a hundred thousand."""


class _Brands:
    """All brands of one transaction as columns, by code: all that are registered, or of which anything was loaded."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.position = snapshot.position
        registered = {brand.brand: brand.active for brand in snapshot.brands()}
        watermarks = snapshot.watermarks()
        known = registered.keys() | watermarks.keys() | snapshot.withheld().keys() | set(snapshot.recorded_brands())
        codes = sorted(known)
        self.codes: npt.NDArray[np.int64] = np.array(codes, np.int64)
        self.watermarks: npt.NDArray[np.int64] = np.array([watermarks.get(code, NEVER) for code in codes], np.int64)
        self.registered: npt.NDArray[np.bool_] = np.array([code in registered for code in codes], np.bool_)
        self.active: npt.NDArray[np.bool_] = np.array([registered.get(code, False) for code in codes], np.bool_)

    def states(self, now_s: float, policy: Policy) -> npt.NDArray[np.uint8]:
        """Say how each stands at a moment."""
        states = states_of_data(self.watermarks, now_s, policy.freshness_limit_s)
        states[~self.active] = BrandState.INACTIVE
        states[~self.registered] = BrandState.UNREGISTERED
        return states

    def behind(self, places: npt.NDArray[np.intp], order: BrandOrder, after: AfterBrand | None) -> npt.NDArray[np.intp]:
        """Say which of some places, which rise, lie behind a brand, in the order that is asked for."""
        codes, watermarks = self.codes[places], self.watermarks[places]
        if order is BrandOrder.CODE:
            return np.arange(0 if after is None else np.searchsorted(codes, after.code, "right"), len(places))
        ordered = np.lexsort((codes, watermarks))
        if after is None:
            return ordered
        first, end = (int(np.searchsorted(watermarks[ordered], after.watermark, side)) for side in ("left", "right"))
        return ordered[first + int(np.searchsorted(codes[ordered[first:end]], after.code, "right")) :]


class Inspection:
    """Looks at the store of an engine; safe to share between threads. What it is asked can raise StoreError."""

    def __init__(self, opened: OpenedStore, policy: Policy, clock: Callable[[], float]) -> None:
        self._opened = opened
        self._policy = policy
        self._clock = clock
        self._kept: _Brands | None = None

    def store(self) -> StoreOverview:
        """Tell what a glance shows."""
        with self._snapshot() as snapshot:
            brands = self._brands(snapshot)
            states = Counter(brands.states(self._clock(), self._policy).tolist())
            waiting = [snapshot.source(name) for name in snapshot.holds()]
            withheld = snapshot.withheld()
            records = snapshot.entries(layout.RECORDS)
            feeds = tuple(map(_feed, snapshot.feeds()))
            log = snapshot.log
        return StoreOverview(
            position=brands.position,
            watermarks=_watermarks(brands.watermarks),
            brands={state: states[state] for state in BRAND_STATES},
            withheld_brands=len(withheld),
            sources_held=len(waiting),
            rejected_rows_waiting=sum(source.rejected for source in waiting if source is not None),
            size=self._size(records),
            feeds=feeds,
            standing=None if log is None else standing_of(log, self._clock()),
        )

    def brands(
        self, *, state: BrandState | None, order: BrandOrder, after: AfterBrand | None, most: int
    ) -> tuple[list[BrandOverview], AfterBrand | None]:
        """List at most so many brands behind one, and say behind which the next page begins, if there is one."""
        with self._snapshot() as snapshot:
            brands = self._brands(snapshot)
            states = brands.states(self._clock(), self._policy)
            places = np.arange(len(states)) if state is None else np.flatnonzero(states == state)
            places = places[brands.behind(places, order, after)]
            chosen = places[:most]
            found = list(_described(snapshot, brands, states, chosen, self._policy.freshness_limit_s))
        if len(places) <= most:
            return found, None
        last = chosen[-1]
        return found, AfterBrand(int(brands.watermarks[last]), int(brands.codes[last]))

    def sources(
        self, *, state: Loaded | None, after: bytes | None, most: int
    ) -> tuple[list[SourceOverview], bytes | None]:
        """List at most so many sources behind one, in the order of their keys, and say behind which the next page is.

        It may find fewer, where others than those of `state` lie between.
        """
        found: list[SourceOverview] = []
        last = None
        with self._snapshot() as snapshot:
            holds = snapshot.holds()
            database = layout.HOLDS if state is Loaded.HELD else layout.SOURCES
            stored = (item for item in snapshot.items(database, after or b"") if item[0] != after)
            for looked_at, (key, value) in enumerate(stored):
                if looked_at == LOOKED_AT_MOST or len(found) == most:
                    return found, last
                last = key
                if database is layout.HOLDS:
                    source = snapshot.source(layout.decode_hold(key, value)[0])
                else:
                    source = layout.decode_source(key, value)
                if source is not None:
                    one = _source(source, holds.get(source.name))
                    if state in (None, one.state):
                        found.append(one)
        return found, None

    def _snapshot(self) -> Snapshot:
        """Open a snapshot of the store that is at the path. Raises StoreError where that is another than is open."""
        self._opened.look()
        if self._opened.replaced is not None:
            raise self._opened.replaced
        return self._opened.store.snapshot()

    def _brands(self, snapshot: Snapshot) -> _Brands:
        kept = self._kept
        if kept is None or kept.position is not snapshot.position:  # the same object in all of one transaction
            kept = self._kept = _Brands(snapshot)
        return kept

    def _size(self, records: int) -> StoreSize:
        store = self._opened.store
        stats = store.stats()
        path = store.environment.path
        with files_translated(path):
            disk = os.statvfs(path)
        return StoreSize(
            size_bytes=stats.size_bytes,
            disk_free_bytes=disk.f_bavail * disk.f_frsize,
            records=records,
            readers=stats.readers,
            max_readers=stats.max_readers,
        )


def _feed(feed: FeedState) -> Feed:
    """Tell of a feed; what is 0 in the store is not known."""
    return Feed(
        name=feed.name,
        committed_at=feed.committed or None,
        succeeded_at=feed.succeeded or None,
        expected_interval_s=feed.interval or None,
        refusals=feed.refusals,
        late=feed.late,
    )


def _watermarks(column: npt.NDArray[np.int64]) -> Watermarks:
    known = np.sort(column[column != NEVER]).tolist()
    if not known:
        return Watermarks()
    return Watermarks(newest=known[-1], median=known[(len(known) - 1) // 2], oldest=known[0])


def _described(
    snapshot: Snapshot,
    brands: _Brands,
    states: npt.NDArray[np.uint8],
    places: npt.NDArray[np.intp],
    limit_s: int,
) -> Iterator[BrandOverview]:
    """Tell of the brands at some places all that is stored of them."""
    withheld, holders = snapshot.withheld(), _holders(snapshot)
    spans, gaps = (Counter(each.brand for each in found) for found in (snapshot.spans(), snapshot.gaps()))
    for place in places.tolist():
        code = int(brands.codes[place])
        view = snapshot.brand(code)
        holding = holders.get(code, ())
        yield BrandOverview(
            brand=code,
            iys_code=None if view.brand is None else view.brand.iys_code,
            state=BrandState(states[place]),
            channels=() if view.brand is None else tuple(sorted(view.brand.channels)),
            watermark=view.watermark,
            stale_from=None if view.watermark is None else view.watermark + limit_s,
            withheld=withheld.get(code),
            held_by=tuple(holding[:HELD_BY_SHOWN]),
            sources_holding=len(holding),
            records=snapshot.records_of(code),
            proved_spans=spans[code],
            accepted_gaps=gaps[code],
        )


def _holders(snapshot: Snapshot) -> dict[int, list[str]]:
    """Say which sources hold each brand back, by name."""
    found: dict[int, list[str]] = {}
    for name, brands in sorted(snapshot.holds().items()):
        for brand in brands:
            found.setdefault(brand, []).append(name)
    return found


def _source(source: SourceState, held: Sequence[int] | None) -> SourceOverview:
    state = Loaded.FINISHED if source.finished else Loaded.UNFINISHED
    return SourceOverview(
        name=source.name,
        state=state if held is None else Loaded.HELD,
        finished=source.finished,
        rows=source.rows,
        loaded=max(source.rows - source.skipped - source.rejected, 0),
        skipped=source.skipped,
        rejected=source.rejected,
        rejects_accepted=source.accepted,
        earliest=local_text(source.earliest),
        latest=local_text(source.latest),
        held_brands=tuple((held or ())[:HELD_BRANDS_SHOWN]),
        brands_held=len(held or ()),
        rejects=tuple(Rejected(line=row.line, field=row.field, reason=row.reason) for row in source.first_rejects),
    )
