"""What the mirror tells Prometheus of İYS, beside what every loader does. No label holds content, nor a brand."""

from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from loader.reports.days import DayReport, DayState

ANSWERS: Final = ("page", "empty", "transient", "slowed", "locked", "auth_failed", "forbidden", "refused")
"""What a request for a page may end in."""
MISSED: Final = ("refusals", "approvals", "unknown")


class MirrorMetrics:
    """The numbers of one mirror. `states`, `endings` and `doubts` are all that there may be."""

    def __init__(
        self, registry: CollectorRegistry, *, states: Iterable[str], endings: Iterable[str], doubts: Iterable[str]
    ) -> None:
        self._answers = Counter("consent_iys_answers", "Answers to requests for pages.", ["answer"], registry=registry)
        self._gaps = Counter(
            "consent_iys_gaps", "Streams that İYS's window had overtaken, so that rows are lost.", registry=registry
        )
        self._doubts = Counter(
            "consent_iys_doubts", "Times that a stream did what İYS's feed should not.", ["doubt"], registry=registry
        )
        self._days = Counter("consent_iys_days", "Days compared with İYS's files.", ["state"], registry=registry)
        self._missed = Counter(
            "consent_iys_missed_rows", "Rows of İYS's files that pull and push had missed.", ["kind"], registry=registry
        )
        self._not_kept = Counter("consent_iys_archive_failures", "Pages that were not archived.", registry=registry)
        self._accounts = Gauge("consent_iys_accounts", "Accounts at İYS.", ["state"], registry=registry)
        self._streams = Gauge(
            "consent_iys_streams", "Streams by how they were last read.", ["ending"], registry=registry
        )
        self._holes = Gauge("consent_iys_holes", "Brands whose data has a hole.", registry=registry)
        self._to_admit = Gauge(
            "consent_iys_brands_to_admit", "Brands of which something waits to be admitted.", registry=registry
        )
        self._late = Gauge("consent_iys_queue_late_seconds", "How late the queue of streams is.", registry=registry)
        self._rate = Gauge("consent_iys_rate", "Requests a second that are allowed now.", registry=registry)
        self._requests = Gauge(
            "consent_iys_requests", "Requests to İYS in the last 24 hours.", ["outcome"], registry=registry
        )
        self._lock = Gauge(
            "consent_iys_token_lock_timestamp_seconds", "Until when no token may be asked for.", registry=registry
        )
        self._ahead = Gauge(
            "consent_iys_clock_ahead_seconds", "By how much İYS's clock is ahead of ours.", registry=registry
        )
        self._lateness = Gauge(
            "consent_iys_lateness_seconds", "By how much the latest row came too late.", registry=registry
        )
        for counter, values in (
            (self._answers, ANSWERS),
            (self._doubts, doubts),
            (self._days, DayState),
            (self._missed, MISSED),
        ):
            for value in values:
                counter.labels(value)
        self._states = tuple(states)
        self._endings = tuple(endings)
        self.accounts({})
        self.streams({})
        self.requests(0, 0)

    def answered(self, answer: str, *, ahead_s: float | None = None) -> None:
        """Count an answer, one of ANSWERS, and what it said of İYS's clock."""
        self._answers.labels(answer).inc()
        if ahead_s is not None:
            self._ahead.set(ahead_s)

    def gap(self) -> None:
        """Count rows lost to the window."""
        self._gaps.inc()

    def doubt(self, doubt: str) -> None:
        """Count a doubt."""
        self._doubts.labels(doubt).inc()

    def late_row(self, lateness_s: int) -> None:
        """Tell by how many seconds the latest row ever came too late."""
        self._lateness.set(lateness_s)

    def day(self, report: DayReport) -> None:
        """Count a day that was compared, and what had been missed of it."""
        self._days.labels(report.state.value).inc()
        for kind in MISSED:
            self._missed.labels(kind).inc(getattr(report.missed, kind))

    def not_kept(self) -> None:
        """Count a page that is in the store and not in the archive."""
        self._not_kept.inc()

    def accounts(self, counts: Mapping[str, int]) -> None:
        """Tell how many accounts there are in each state."""
        for state in self._states:
            self._accounts.labels(state).set(counts.get(state, 0))

    def streams(self, counts: Mapping[str, int]) -> None:
        """Tell how many streams run, by how they were last read."""
        for ending in self._endings:
            self._streams.labels(ending).set(counts.get(ending, 0))

    def holes(self, brands: int) -> None:
        """Tell how many brands have a hole."""
        self._holes.set(brands)

    def to_admit(self, brands: int) -> None:
        """Tell of how many brands something waits to be admitted."""
        self._to_admit.set(brands)

    def queue(self, late_s: float) -> None:
        """Tell how late the queue is."""
        self._late.set(late_s)

    def limits(self, *, rate: float, locked_until_s: float) -> None:
        """Tell what İYS's limits leave: requests a second, and until when no token may be asked for (0: no lock)."""
        self._rate.set(rate)
        self._lock.set(locked_until_s)

    def requests(self, asked: int, failed: int) -> None:
        """Tell of the requests of the last 24 hours."""
        self._requests.labels("good").set(asked - failed)
        self._requests.labels("failed").set(failed)
