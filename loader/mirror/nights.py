"""Which days of which brands are to be compared with İYS's files now. Pure: the time and what is settled are given.

Yesterday is looked at from a time of the night on, again and again until noon, as İYS makes its file when it likes.
Days before, back to where İYS's files end, are tried once a night. A brand whose data has a hole need not wait for the
night: only files, or people, can close it.
"""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from loader.reading import times

REACH_DAYS: Final = 7
"""İYS has files of yesterday and of the six days before."""
RETRY_S: Final = 1_800.0
HOLE_RETRY_S: Final = 3_600.0
_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True, order=True)
class BrandDay:
    """A day of a brand."""

    day: date
    iys_code: int
    brand: int


class Nights:
    """Remembers what was tried. `from_s` and `until_s` are seconds after midnight in Turkey."""

    def __init__(self, *, from_s: int, until_s: int) -> None:
        self._from_s = from_s
        self._until_s = until_s
        self._tried: dict[BrandDay, float] = {}
        self._today = date.min

    def is_night(self, now_s: float) -> bool:
        """Say whether it is the time for it."""
        return self._from_s <= times.local_now(now_s) % _DAY_S <= self._until_s

    def due(
        self,
        iys_code: int,
        brand: int,
        now_s: float,
        *,
        settled: Callable[[], AbstractSet[date]],
        has_hole: bool,
    ) -> tuple[BrandDay, ...]:
        """Return the days of a brand to be tried now, the oldest first; `settled` gives those that need not."""
        if not (has_hole or self.is_night(now_s)):
            return ()
        today = times.day_of(int(now_s))
        days = [BrandDay(today - timedelta(days=back), iys_code, brand) for back in range(REACH_DAYS, 0, -1)]
        due = [each for each in days if self._is_due(each, today, now_s, has_hole=has_hole)]
        if not due:
            return ()
        done = settled()
        return tuple(each for each in due if each.day not in done)

    def tried(self, which: BrandDay, now_s: float) -> None:
        """Note that a day was tried, and forget those that are out of reach."""
        today = times.day_of(int(now_s))
        if today != self._today:
            oldest = today - timedelta(days=REACH_DAYS)
            self._tried = {each: at for each, at in self._tried.items() if each.day >= oldest}
            self._today = today
        self._tried[which] = now_s

    def _is_due(self, which: BrandDay, today: date, now_s: float, *, has_hole: bool) -> bool:
        tried_s = self._tried.get(which)
        if tried_s is None or tried_s > now_s:
            return True
        if has_hole:
            return now_s - tried_s >= HOLE_RETRY_S
        if which.day == today - timedelta(days=1):
            return now_s - tried_s >= RETRY_S
        return times.day_of(int(tried_s)) < today
