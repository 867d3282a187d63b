"""Is a day proved? Decided from what İYS says of it and what its file is: no clock, no network, no store in here."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from itertools import product
from typing import Final

from iyscheck.consent import Channel, RecipientType
from loader.iys.messages import Agreement, AgreementState, SummaryLine
from loader.loading.claims import DIGESTS
from loader.reading import times
from loader.sources.days.facts import FileFacts, Variant

SHOWN_AFTER: Final = "01:02:00"
"""On the next day, when İYS has shown all rows of a day for sure: 60 minutes, and some for clocks."""
SILENT_AFTER: Final = "06:00:00"
"""On the next day, from when on it means that there is no file where İYS gives none. Until then: not yet."""
PATIENCE_UNTIL: Final = "12:00:00"
"""On the next day, until when İYS may be making a file."""
REACH_DAYS: Final = 7
"""How many days back İYS gives files and summaries: yesterday is the first."""
_WORKING: Final = frozenset({AgreementState.QUEUED, AgreementState.IN_PROGRESS})
_KINDS: Final = frozenset(product(RecipientType, Channel))


class Why(StrEnum):
    """Why a day is not proved."""

    TOO_EARLY = "TOO_EARLY"
    FILE_IN_THE_MAKING = "FILE_IN_THE_MAKING"
    NO_FILE = "NO_FILE"
    LINE_CUT = "LINE_CUT"
    MISSHAPEN = "MISSHAPEN"
    OTHER_HASH = "OTHER_HASH"
    HASH_UNREADABLE = "HASH_UNREADABLE"
    SUMMARY_INCOMPLETE = "SUMMARY_INCOMPLETE"
    PENDING = "PENDING"
    OTHER_ROWS = "OTHER_ROWS"
    OTHER_DAY = "OTHER_DAY"
    REJECTS = "REJECTS"
    INTERRUPTED = "INTERRUPTED"
    OUT_OF_REACH = "OUT_OF_REACH"


SENTENCES: Final = {
    Why.TOO_EARLY: "İYS shows rows up to an hour late: the day cannot be proved before 01:02 of the next one.",
    Why.FILE_IN_THE_MAKING: "İYS is still making the day's file.",
    Why.NO_FILE: "İYS gives no file, and does not say that the day had no movements.",
    Why.LINE_CUT: "The file does not end in a line end: it was cut.",
    Why.MISSHAPEN: "The file has lines that have not eight cells.",
    Why.OTHER_HASH: "The file is not the one whose digest İYS gives. Nothing of it was loaded.",
    Why.HASH_UNREADABLE: "İYS gives a digest that is neither SHA-384 nor SHA-256.",
    Why.SUMMARY_INCOMPLETE: "İYS gives no digest, and its summaries do not list every kind of consent.",
    Why.PENDING: "İYS gives no digest, and has movements of that day which it did not finish.",
    Why.OTHER_ROWS: "İYS gives no digest, and its summaries count other rows than the file has.",
    Why.OTHER_DAY: "The file has rows of another day.",
    Why.REJECTS: "Rows of the file cannot be loaded: they hold the brand until 'iyscheck-loader accept-rejects'.",
    Why.INTERRUPTED: "The loading was interrupted.",
    Why.OUT_OF_REACH: "İYS gives files of the last seven days only.",
}


class Proved(StrEnum):
    """By what a day is proved."""

    BY_HASH = "hash"
    BY_COUNT = "count"
    BY_SILENCE = "no movements"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of a day: İYS's summaries of both recipient types, its agreement, and the file, None without one.

    `asked_s` (UTC) is before the first of it was asked for.
    """

    day: date
    asked_s: float
    summary: tuple[SummaryLine, ...]
    agreement: Agreement
    file: FileFacts | None

    @property
    def hash(self) -> str:
        """İYS's digest of the day, empty without one: that of a file in the making may be of an earlier one."""
        return self.agreement.hash if self.agreement.state is AgreementState.COMPLETED else ""

    @property
    def pending(self) -> int:
        """How many movements İYS did not finish."""
        return sum(line.pending for line in self.summary)

    @property
    def total(self) -> int:
        """How many movements İYS counts."""
        return sum(line.total for line in self.summary)

    @property
    def lists_everything(self) -> bool:
        """Whether the summaries list every channel of both recipient types."""
        return {(line.recipient_type, line.channel) for line in self.summary} >= _KINDS

    def is_before(self, time_of_next_day: str) -> bool:
        """Say whether the evidence is of before a time of the day after."""
        return self.asked_s < times.watermark(f"{self.day + timedelta(days=1)} {time_of_next_day}")

    @property
    def is_in_the_making(self) -> bool:
        """Whether the file has to be waited for."""
        return self.agreement.state in _WORKING and self.is_before(PATIENCE_UNTIL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What follows: the day is `proved`, or not, and `why`. `loads` says whether the file's rows may be loaded.

    `variant` is what İYS's digest was over.
    """

    proved: Proved | None
    why: tuple[Why, ...] = ()
    loads: bool = False
    variant: Variant | None = None


def judged(evidence: Evidence) -> Judgement:
    """Decide.

    A file without a digest to compare is loaded although it proves nothing, if it is whole: it came from İYS, and may
    have refusals. One that contradicts its digest is not.
    """
    if evidence.is_before(SHOWN_AFTER):
        return Judgement(proved=None, why=(Why.TOO_EARLY,))
    if evidence.is_in_the_making:
        return Judgement(proved=None, why=(Why.FILE_IN_THE_MAKING,))
    file = evidence.file
    if file is None or (file.is_whole and not (file.total or evidence.hash)):
        return _without_rows(evidence)
    return _by_hash(evidence, file) if evidence.hash else _by_count(evidence, file)


def _without_rows(evidence: Evidence) -> Judgement:
    """Judge a day of which there is no file: that may mean that there will be one later."""
    is_silent = evidence.lists_everything and not (evidence.total or evidence.pending or _speaks(evidence))
    if is_silent and not evidence.is_before(SILENT_AFTER):
        return Judgement(proved=Proved.BY_SILENCE)
    return Judgement(proved=None, why=(Why.NO_FILE,))


def _by_hash(evidence: Evidence, file: FileFacts) -> Judgement:
    """Compare a file with İYS's digest. Where that is equal, no count can contradict it."""
    cut = tuple(_cut(file))
    variant = file.meant_by(evidence.hash)
    if variant is None:
        known = len(evidence.hash) in DIGESTS
        return Judgement(proved=None, why=(*cut, Why.OTHER_HASH if known else Why.HASH_UNREADABLE))
    return Judgement(proved=None if cut else Proved.BY_HASH, why=cut, loads=not cut, variant=variant)


def _by_count(evidence: Evidence, file: FileFacts) -> Judgement:
    """Compare a file with the summaries: exactly, since nothing else says that it is whole."""
    cut = tuple(_cut(file))
    why = (*cut, *_miscounted(evidence, file))
    return Judgement(proved=None if why else Proved.BY_COUNT, why=why, loads=not cut)


def _speaks(evidence: Evidence) -> bool:
    """Say whether the agreement tells of a file with rows, which contradicts there being none."""
    if evidence.hash and FileFacts.of_nothing().meant_by(evidence.hash) is None:
        return True
    return evidence.agreement.state in {*_WORKING, AgreementState.ERROR}


def _cut(file: FileFacts) -> Iterator[Why]:
    if not file.ends_whole:
        yield Why.LINE_CUT
    if file.misshapen:
        yield Why.MISSHAPEN


def _miscounted(evidence: Evidence, file: FileFacts) -> Iterator[Why]:
    if not evidence.lists_everything:
        yield Why.SUMMARY_INCOMPLETE
    if evidence.pending:
        yield Why.PENDING
    if evidence.total != file.total:
        yield Why.OTHER_ROWS


def is_in_reach(day: date, now_s: float) -> bool:
    """Say whether İYS gives what it knows of a day: it does from yesterday to a week ago."""
    return 1 <= (times.day_of(int(now_s)) - day).days <= REACH_DAYS


def days_due(now_s: float, *, settled: Collection[date]) -> tuple[date, ...]:
    """Name the days in reach that are not settled, the first one first: a watermark moves over days in their order."""
    today = times.day_of(int(now_s))
    days = [today - timedelta(days=back) for back in range(REACH_DAYS, 0, -1)]
    return tuple(day for day in days if day not in settled)
