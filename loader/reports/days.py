"""What is known of each brand's days: whether they are proved, and what pull had missed. No address is in it.

The last reports of a brand are kept in a file. Who loses it reconciles a week again; no watermark comes from here.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from iyscheck.times import rfc3339

KEPT_DAYS: Final = 40
"""Of so many days the reports are kept."""
FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600


class DayState(StrEnum):
    """What came of a day."""

    PROVED = "proved"
    HEALED = "healed"
    UNPROVED = "unproved"
    NO_MOVEMENTS = "no_movements"
    HOLE = "hole"


class Movements(msgspec.Struct, frozen=True, kw_only=True):
    """Rows by what they say, and by source."""

    refusals: int = 0
    approvals: int = 0
    unknown: int = 0
    by_source: dict[str, int] = msgspec.field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many there are."""
        return self.refusals + self.approvals + self.unknown

    def __add__(self, other: "Movements") -> "Movements":
        sources = sorted({*self.by_source, *other.by_source})
        return Movements(
            refusals=self.refusals + other.refusals,
            approvals=self.approvals + other.approvals,
            unknown=self.unknown + other.unknown,
            by_source={each: self.by_source.get(each, 0) + other.by_source.get(each, 0) for each in sources},
        )


class SummaryCount(msgspec.Struct, frozen=True, kw_only=True):
    """What İYS counted of one kind of consent."""

    channel: str
    recipient_type: str
    source: str
    approval: int
    rejection: int
    pending: int
    total: int


class HashReport(msgspec.Struct, frozen=True, kw_only=True):
    """İYS's digest and whether the file has it, None without file or digest.

    `variant` says over what it is; `contradicts` that İYS names another algorithm than the digest's length does.
    """

    algorithm: str = ""
    equal: bool | None = None
    variant: str = ""
    contradicts: bool = False


class StampReport(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the day's time stamp is of this file, and its chain leads to a given root. None: nobody can tell."""

    bound: bool | None = None
    chain: bool | None = None


class AgreementReport(msgspec.Struct, frozen=True, kw_only=True):
    """How far İYS is with the day, and whether it has been agreed to."""

    state: str
    agreed: bool = False


class DayReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a brand's day.

    `why` are names for programs. `applied` are the rows that changed the store, `missed` those of them that the
    streams had claimed to have; both of all runs until the day was settled. `latest_lateness_s` is how late a
    missed row came at most; `iys_feed_silent` says that the feed shows no citizens' movements though there were
    some. `watermark` is the brand's afterwards. `file` is the digest of the file that was loaded last; `archived`
    says whether it was kept, None if that is not wanted. `reconciled` is when.
    """

    iys_code: int
    brand: int
    date: date
    state: DayState
    why: tuple[str, ...] = ()
    proved_by: str = ""
    rows: dict[str, int] = msgspec.field(default_factory=dict)
    channels: dict[str, int] = msgspec.field(default_factory=dict)
    summary: tuple[SummaryCount, ...] = ()
    hash: HashReport = HashReport()
    applied: Movements = Movements()
    missed: Movements = Movements()
    latest_lateness_s: int = 0
    iys_feed_silent: bool = False
    rejects: int = 0
    timestamp: StampReport = StampReport()
    watermark: str | None = None
    agreement: AgreementReport | None = None
    file: str = ""
    archived: bool | None = None
    reconciled: str = ""

    @property
    def is_settled(self) -> bool:
        """Whether asking again would tell nothing new."""
        return self.state in {DayState.PROVED, DayState.HEALED, DayState.NO_MOVEMENTS} or self.why == (REJECTS,)

    @property
    def is_good(self) -> bool:
        """Whether nothing was amiss."""
        return self.state in {DayState.PROVED, DayState.NO_MOVEMENTS}

    @property
    def may_be_agreed(self) -> bool:
        """Whether the file is İYS's by its digest, and the store had all of it already."""
        return self.state is DayState.PROVED and bool(self.hash.equal) and not self.rejects and not self.applied.total


REJECTS: Final = "REJECTS"


class DayReports:
    """The reports that are kept, a file for each brand."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self, brand: int) -> dict[date, DayReport]:
        """Return what is kept of a brand; nothing where that cannot be read."""
        with suppress(OSError, msgspec.MsgspecError):
            kept = msgspec.json.decode(self._path(brand).read_bytes(), type=list[DayReport])
            return {report.date: report for report in kept}
        return {}

    def settled(self, brand: int) -> frozenset[date]:
        """Return the days of a brand that need not be asked for again."""
        return frozenset(day for day, report in self.all(brand).items() if report.is_settled)

    def keep(self, report: DayReport) -> None:
        """Keep a report in the place of an earlier one of its day. Raises OSError."""
        kept = self.all(report.brand) | {report.date: report}
        latest = [kept[day] for day in sorted(kept)][-KEPT_DAYS:]
        path = self._path(report.brand)
        self._folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _FILE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(latest))
            file.flush()
            os.fsync(descriptor)
        unfinished.rename(path)

    def _path(self, brand: int) -> Path:
        return self._folder / f"{brand}.json"


def watermark_text(watermark: int | None) -> str | None:
    """Write a watermark (seconds UTC) for a report."""
    return None if watermark is None else rfc3339(watermark)


def lines_of(reports: Iterable[DayReport]) -> list[str]:
    """Tell of days in lines for people."""
    return [_line(report) for report in reports]


def _line(report: DayReport) -> str:
    parts = [f"brand {report.brand}, {report.date}: {report.state.replace('_', ' ')}"]
    if report.proved_by and report.state is not DayState.NO_MOVEMENTS:
        parts.append(f"by {report.proved_by}")
    if report.why:
        parts.append(", ".join(report.why))
    rows = sum(report.rows.values())
    parts.append(f"{rows:,} rows")
    if report.missed.total:
        missed = report.missed
        parts.append(
            f"missed before: {missed.refusals:,} refusals, {missed.approvals:,} approvals, {missed.unknown:,} others"
        )
    if report.iys_feed_silent:
        parts.append("the feed shows no citizens' movements")
    if report.rejects:
        parts.append(f"{report.rejects:,} rejected")
    if report.hash.variant not in {"", "as it is"}:
        parts.append(f"digest {report.hash.variant}")
    if report.timestamp.bound is not None:
        parts.append("stamped" if report.timestamp.bound else "its time stamp is of another file")
    parts.append(f"complete until {report.watermark}" if report.watermark else "no watermark")
    if report.agreement is not None and report.agreement.agreed:
        parts.append("agreed")
    return "; ".join(parts)
