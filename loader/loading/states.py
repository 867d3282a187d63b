"""How far a source is loaded, as it grows from piece to piece: all of it but the source's own point."""

from collections.abc import Iterator
from itertools import chain, islice
from typing import Final

import msgspec

from iyscheck.store.layout import RejectedRow, SourceState
from loader.reading.feed import Parsed

_FROM_THE_BEGINNING: Final = (
    *("rows", "lines", "bytes", "sha256", "skipped", "watermarks", "finished"),
    *("earliest", "latest", "ends_whole"),
)
_FIRST_REJECTS: Final = 20
"""Of so many it is kept in the store where they stand and what is wrong: what a server can tell without the file."""


def from_the_beginning(state: SourceState) -> SourceState:
    """Forget how far a source came that cannot go on.

    What an earlier run rejected still waits for acceptance, whatever comes this time.
    """
    fresh = SourceState(name=state.name)
    return msgspec.structs.replace(state, **{name: getattr(fresh, name) for name in _FROM_THE_BEGINNING})


def asking(state: SourceState, watermarks: tuple[tuple[int, int], ...]) -> SourceState:
    """Note watermarks that are to move when the source is finished, which it is not now."""
    return msgspec.structs.replace(state, watermarks=_latest(state.watermarks + watermarks), finished=False)


def advanced(state: SourceState, parsed: Parsed, given: int | None) -> SourceState:
    """Add a piece to what is known of its source; `given` is the brand of --brand."""
    new = parsed.rejects
    rejected_brands = {brand for reject in new for brand in reject.brands}
    seen = parsed.brands_seen | ({given} if given is not None else set())
    return msgspec.structs.replace(
        state,
        rows=state.rows + parsed.rows,
        skipped=state.skipped + parsed.skipped,
        rejected=state.rejected + len(new),
        brands=tuple(sorted(seen.union(state.brands))),
        rejected_brands=tuple(sorted(rejected_brands.union(state.rejected_brands))),
        rejected_unknown=state.rejected_unknown or any(not reject.brands for reject in new),
        watermarks=_latest(state.watermarks + tuple(parsed.watermarks)),
        earliest=min(filter(None, (state.earliest, parsed.registered[0])), default=0),
        latest=max(state.latest, parsed.registered[1]),
        accepted=state.accepted and not new,
        first_rejects=tuple(islice(chain(state.first_rejects, _rows(parsed, state)), _FIRST_REJECTS)),
    )


def _rows(parsed: Parsed, state: SourceState) -> Iterator[RejectedRow]:
    """Say where the rejected rows of a piece stand in their source."""
    for reject in parsed.rejects:
        yield RejectedRow(state.lines + reject.line + 1, reject.fault.field, reject.fault.reason.value)


def _latest(watermarks: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """Keep the latest watermark of each brand."""
    latest: dict[int, int] = {}
    for brand, until in watermarks:
        latest[brand] = max(until, latest.get(brand, 0))
    return tuple(sorted(latest.items()))
