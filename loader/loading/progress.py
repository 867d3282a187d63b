"""How a load goes on, step by step for those who watch, and in all for its report."""

from dataclasses import dataclass, field
from typing import Self

from iyscheck.change import ConsentColumns, Position
from iyscheck.store.writer import Applied
from loader.loading.claims import Outcome
from loader.reading.feed import Parsed


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One step, for those who watch: `rows` read, rows by outcome, how long it took, where the log stands.

    Rows that are read into an empty store have no outcome yet: it is told with the commit that holds them all.
    `durable` says whether something was committed, and `written` what of it changed the store, where that is known.
    """

    rows: int
    outcomes: dict[str, int]
    seconds: float
    position: Position
    bytes: int
    durable: bool = True
    written: ConsentColumns | None = field(default=None, repr=False)


@dataclass(slots=True)
class Totals:
    """Rows by what is known of them before anything is written."""

    rows: int = 0
    skipped: int = 0
    rejected: int = 0
    unknown_status: int = 0
    mended: int = 0

    @classmethod
    def of(cls, parsed: Parsed) -> Self:
        """Count one piece."""
        totals = cls()
        totals.add(parsed)
        return totals

    def add(self, parsed: Parsed) -> None:
        """Count one more piece."""
        self.rows += parsed.rows
        self.skipped += parsed.skipped
        self.rejected += len(parsed.rejects)
        self.unknown_status += parsed.unknown_status
        self.mended += parsed.mended


@dataclass(slots=True, kw_only=True)
class Report:
    """What a load did; `unaccepted` counts the rejected rows of its sources that nobody has accepted yet.

    `unknown_status` and `mended` count rows as `Parsed` does.
    """

    read: int = 0
    applied: int = 0
    superseded: int = 0
    skipped: int = 0
    rejected: int = 0
    unknown_status: int = 0
    mended: int = 0
    unaccepted: int = 0
    unchanged: int = 0
    stopped: bool = False
    seconds: float = 0.0
    position: Position
    watermarks: dict[int, int] = field(default_factory=dict)
    withheld: dict[int, int] = field(default_factory=dict)
    rejects_files: list[str] = field(default_factory=list)
    claims: list[Outcome] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    @property
    def rows_per_second(self) -> float:
        """Rows read for each second, commits included."""
        return self.read / self.seconds if self.seconds else 0.0

    def add(self, applied: Applied, totals: Totals) -> None:
        """Add a commit."""
        self.applied += applied.applied
        self.superseded += applied.superseded
        self.position = applied.position
        self.watermarks.update(applied.watermarks)
        self.withheld.update(applied.withheld)
        self.read += totals.rows
        self.skipped += totals.skipped
        self.rejected += totals.rejected
        self.unknown_status += totals.unknown_status
        self.mended += totals.mended
