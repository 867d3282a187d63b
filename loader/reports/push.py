"""What the mirror tells Prometheus of pushed rows, once they are in the store. No label has content, nor a brand."""

from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge

from iyscheck.store.writer import Applied
from loader.loading.progress import Totals

OUTCOMES: Final = ("applied", "superseded", "left_out", "rejected", "skipped")


class ReadRows(Protocol):
    """What came of a look into the journal."""

    @property
    def applied(self) -> Applied:
        """What the commit did."""
        ...

    @property
    def totals(self) -> Totals:
        """Rows by what was known before it."""
        ...

    @property
    def left_out(self) -> int:
        """Permissions that wait for pull."""
        ...

    @property
    def damaged(self) -> int:
        """Segments of which not all can be read."""
        ...


class PushedMetrics:
    """The numbers of pushed rows."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._rows = Counter("consent_push_read_rows", "Pushed rows that were read.", ["outcome"], registry=registry)
        self._unseen = Counter(
            "consent_push_unseen_rows",
            "Rows of citizens that came by pull and had not been pushed, since this process began.",
            registry=registry,
        )
        self._behind = Gauge(
            "consent_push_journal_bytes", "Bytes of the journal that are not read yet.", registry=registry
        )
        self._damaged = Gauge(
            "consent_push_journal_damaged", "Segments of the journal of which not all can be read.", registry=registry
        )
        self._read_s = Gauge(
            "consent_push_read_timestamp_seconds", "When pushed rows were last read; 0: not yet.", registry=registry
        )
        self._connections = Gauge(
            "consent_push_connections", "Brands and channels that İYS should push here.", ["state"], registry=registry
        )
        for outcome in OUTCOMES:
            self._rows.labels(outcome)
        self.connections(good=0, broken=0)

    def read(self, read: ReadRows, now_s: float) -> None:
        """Count what was read."""
        rows = (
            read.applied.applied,
            max(read.applied.superseded, 0),
            read.left_out,
            read.totals.rejected,
            read.totals.skipped,
        )
        for outcome, number in zip(OUTCOMES, rows, strict=True):
            self._rows.labels(outcome).inc(number)
        self._damaged.set(read.damaged)
        if read.totals.rows:
            self._read_s.set(now_s)

    def unseen(self, rows: int) -> None:
        """Count rows that pull brought first."""
        self._unseen.inc(rows)

    def behind(self, size: int) -> None:
        """Tell how many bytes are not read yet."""
        self._behind.set(size)

    def connections(self, *, good: int, broken: int) -> None:
        """Tell how many brands and channels İYS pushes, and how many it should and does not."""
        self._connections.labels("good").set(good)
        self._connections.labels("broken").set(broken)
