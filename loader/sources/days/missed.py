"""Which rows of a daily file changed the store, and which of them the streams had claimed to have.

A row that changes the store although its stream covers its time is one that pull had missed: it was written late, or
lost. How late, nobody knows; the moment of its loading is the latest that it can have been.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from iyscheck.change import ConsentColumns
from iyscheck.consent import Status
from loader.iys.messages import FeedSource
from loader.reading import times
from loader.reports.days import Movements


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """From when to before when a stream claims everything, seconds UTC; nothing where they are equal."""

    start: int = 0
    end: int = 0

    def holds(self, registered: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Tell which local seconds lie in it."""
        return (registered >= times.local_now(self.start)) & (registered < times.local_now(self.end))


@dataclass(slots=True, kw_only=True)
class Account:
    """Counts what was written of a brand's day, commit by commit. `covered` is what its two streams claim."""

    covered: Mapping[FeedSource, Covered]
    applied: Movements = field(default_factory=Movements)
    missed: Movements = field(default_factory=Movements)
    earliest_missed: dict[FeedSource, int] = field(default_factory=dict)
    """Local seconds of the earliest row that each stream had missed."""

    def add(self, changes: ConsentColumns) -> None:
        """Count changes that were written."""
        by_citizen = changes.by_citizen
        for half, chosen in ((FeedSource.HS, ~by_citizen), (FeedSource.IYS, by_citizen)):
            self.applied += _movements(changes.status[chosen], half)
            registered = changes.registered[chosen]
            late = self.covered.get(half, Covered()).holds(registered)
            if late.any():
                self.missed += _movements(changes.status[chosen][late], half)
                earliest = int(registered[late].min())
                self.earliest_missed[half] = min(earliest, self.earliest_missed.get(half, earliest))

    def lateness_s(self, half: FeedSource, *, local_s: int) -> int:
        """Say after how many seconds at most the latest row of a stream came, 0 if none was late."""
        return max(local_s - self.earliest_missed[half], 0) if half in self.earliest_missed else 0


def _movements(status: npt.NDArray[np.uint8], half: FeedSource) -> Movements:
    counts = {each: int((status == each).sum()) for each in (Status.RET, Status.ONAY, Status.UNKNOWN)}
    return Movements(
        refusals=counts[Status.RET],
        approvals=counts[Status.ONAY],
        unknown=counts[Status.UNKNOWN],
        by_source={half.value: len(status)} if len(status) else {},
    )
