"""A changes feed in memory, as İYS documents it, for laws that need thousands of pages: no socket, no store."""

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, field

from iyscheck.times import local_text
from loader.iys.faults import IysFault
from loader.iys.messages import Asked, FeedSource, Page
from loader.reading import times
from loader.sources.pull.terms import VISIBLE_S, WINDOW_S
from tests.builders import NOW


@dataclass(order=True, frozen=True)
class Movement:
    """A row that was registered at `created` and can be seen from `visible` on, both seconds UTC."""

    created: int
    transaction: str
    number: int
    visible: float = field(compare=False)

    @property
    def row(self) -> dict[str, object]:
        """As İYS spells it."""
        return {
            "creationDate": local_text(times.local_now(self.created)),
            "consentDate": local_text(times.local_now(self.created)),
            "transactionId": self.transaction,
            "source": "HS_WEB",
            "recipient": f"+90532{self.number:07}",
            "recipientType": "BIREYSEL",
            "type": "MESAJ",
            "status": "ONAY",
        }

    @property
    def cursor(self) -> str:
        """Stands behind it, and behind its twins, too."""
        return f"{self.created}_{self.transaction}"


class Feed:
    """İYS's feed of one brand and source. `now` is its own clock, the asker's is `ahead_s` behind it.

    It shows no row later than promised unless the test says so. `cap` is the most rows it gives.
    """

    def __init__(self, faults: Iterable[IysFault] = ()) -> None:
        self.now = float(NOW)
        self.ahead_s = 0.0
        self.dated = True
        self.cap = 10_000
        self.rows: list[Movement] = []
        self.asked: list[tuple[str | None, int]] = []
        self.faults = list(faults)

    def move(self, *, age_s: float = 0.0, transaction: str = "", shown_after_s: float = VISIBLE_S) -> Movement:
        """Register a row so many seconds ago."""
        created = int(self.now - age_s)
        number = len(self.rows)
        movement = Movement(created, transaction or f"{number:064x}", number, created + shown_after_s)
        insort(self.rows, movement)
        return movement

    def visible(self) -> list[Movement]:
        """What is shown now, in the order of the feed."""
        return [row for row in self.rows if row.visible <= self.now and row.created >= self.now - WINDOW_S]

    def changes(self, _iys_code: int, _brand: int, _source: FeedSource, *, after: str | None, limit: int) -> Page:
        """Answer as İYS does: rows whose cursors are beyond the given one."""
        self.asked.append((after, limit))
        if self.faults:
            raise self.faults.pop(0)
        rows = self.visible()
        if after is not None:
            created, transaction = after.split("_")
            rows = [row for row in rows if (row.created, row.transaction) > (int(created), transaction)]
        rows = rows[: min(limit, self.cap)]
        asked = Asked(at_s=self.now - self.ahead_s, ahead_s=self.ahead_s if self.dated else None)
        return Page(rows=tuple(row.row for row in rows), after=rows[-1].cursor if rows else None, asked=asked)
