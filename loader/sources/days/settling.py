"""From what İYS said of a day to the store: its rows, its proof, what pull had missed, and a report of it all."""

import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec

from iyscheck.change import ConsentColumns
from iyscheck.errors import ArchiveError, SourceError
from iyscheck.kernel import Kernel
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.store.layout import SourceState, Span
from iyscheck.store.writer import Batch, Writer
from iyscheck.times import rfc3339
from loader.archive.folder import Archive
from loader.iys.clock import Clock
from loader.iys.messages import FeedSource, SummaryLine
from loader.loading.claims import DIGESTS, Claim
from loader.loading.loader import Loader
from loader.loading.memory import memory_left
from loader.loading.options import COMMIT_ROWS, FeedTerms, Options
from loader.loading.progress import Progress, Report
from loader.loading.source import Piece, Source, Whole
from loader.loading.states import from_the_beginning
from loader.reading import times
from loader.reports.days import (
    AgreementReport,
    DayReport,
    DayReports,
    DayState,
    HashReport,
    StampReport,
    SummaryCount,
    watermark_text,
)
from loader.sources.days.asking import Answers
from loader.sources.days.judgement import Judgement, Proved, Why, judged
from loader.sources.days.missed import Account, Covered
from loader.sources.names import IYS_FEED_SILENT, day_name, stream_name

LATENESS_MAX_S: Final = 6 * 3600
"""The most that a late row makes the claims of its stream later by. See decision 105."""
SHOWN_LATE_S: Final = 3600
"""After so many seconds İYS shows a row, as it promises: later is late."""
_FEED: Final = FeedTerms(name="days", learns=True)


class DayFile:
    """A daily file as a source: it begins anew each time, under a name that all files of its brand have."""

    resumes = False
    may_be_silent = False

    def __init__(self, file: Source, *, fetched_s: float) -> None:
        self._file = file
        self._fetched_s = fetched_s
        self.name = file.name

    @property
    def size(self) -> int | None:
        """About how many bytes it has."""
        return self._file.size

    def is_unchanged(self, _state: SourceState) -> bool:
        """Say no: what was loaded under this name was another day."""
        return False

    def read_again(self, state: SourceState, *, digest: str) -> Whole:
        """Read it once more."""
        return self._file.read_again(state, digest=digest)

    @contextmanager
    def opened(
        self, state: SourceState, *, rows: int, digest: str, kernel: Kernel
    ) -> Iterator[Generator[Piece, None, None]]:
        """Read it. It was written when it was fetched, by the clock that all else goes by."""
        with self._file.opened(state, rows=rows, digest=digest, kernel=kernel) as pieces:
            yield (self._dated(piece) for piece in pieces)

    def _dated(self, piece: Piece) -> Piece:
        if piece.whole is None:
            return piece
        return replace(piece, whole=replace(piece.whole, written_s=self._fetched_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settler:
    """Settles days: the only writer of the store, in its thread. `source_of` makes a source of a path and a name."""

    writer: Writer
    keys: tuple[AddressKey, StoreKey]
    rejects: Path
    reports: DayReports
    clock: Clock
    source_of: Callable[[str, str], Source]
    archive: Archive | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    watch: Callable[[Progress], None] = lambda _: None
    commit_rows: int = COMMIT_ROWS

    def settle(self, answers: Answers) -> DayReport:
        """Load what İYS said of a day, as far as it may be, and say what came of it.

        Raises StoreError, OSError where the report cannot be kept.
        """
        return _Settling(self, answers).settle()


class _Settling:
    """One day of one brand."""

    def __init__(self, settler: Settler, answers: Answers) -> None:
        self._by = settler
        self._of = answers
        self._evidence = answers.evidence
        self._day = answers.evidence.day
        self._judgement = judged(answers.evidence)
        before = settler.reports.all(answers.brand).get(self._day)
        self._before = None if before is None or before.is_settled else before
        self._account = Account(covered={half: self._covered(half) for half in FeedSource})
        self._loaded = False
        self._rejects = 0
        self._silent = False

    def settle(self) -> DayReport:
        """Do all of it."""
        why = tuple(each.value for each in self._judgement.why)
        if self._judgement.proved is Proved.BY_SILENCE:
            self._prove_silence()
        elif self._has_to_load:
            archived = self._archived()
            failed = self._load()
            self._teach_streams()
            return self._kept((*why, *failed), archived=archived, file=self._file if self._loaded else "")
        return self._kept(why, file="" if self._before is None else self._before.file)

    @property
    def _file(self) -> str:
        return "" if self._evidence.file is None else self._evidence.file.itself

    @property
    def _has_to_load(self) -> bool:
        """Whether the file proves the day, or brings what was not loaded yet."""
        if self._judgement.proved is not None:
            return True
        return self._judgement.loads and (self._before is None or self._before.file != self._file)

    def _load(self) -> tuple[str, ...]:
        """Load the file; say why it proves nothing, if so."""
        by, path = self._by, self._of.path
        if path is None:
            raise ValueError("there is a file where one is loaded")
        claim = None
        if self._judgement.proved is not None:
            claim = Claim(brand=self._of.brand, day=self._day, hash=self._file)  # what was judged, and no other bytes
        options = Options(
            rejects=by.rejects,
            brand=self._of.brand,
            claim=claim,
            commit_rows=by.commit_rows,
            fill_bytes=sys.maxsize,  # what a fill writes is not told
            memory=memory_left(),
            feed=_FEED,
        )
        loader = Loader(
            by.writer,
            address_key=by.keys[0],
            store_key=by.keys[1],
            options=options,
            clock=by.clock.now,
            stop=by.stop,
            watch=self._seen,
        )
        source = by.source_of(str(path), self._name)
        report = Report(position=by.writer.position)
        try:
            finished = loader.load_source(DayFile(source, fetched_s=by.clock.now()), report)
        except SourceError as error:
            return (error.reason,)
        self._rejects = report.rejected
        if not finished:
            return (Why.INTERRUPTED.value,)
        self._loaded = True
        faults = [fault.value for outcome in report.claims for fault in outcome.faults]
        if not faults and report.rejected:
            return (Why.REJECTS.value,)
        return tuple(faults)

    def _seen(self, step: Progress) -> None:
        """Count what a commit changed, and keep that before the next one: after a crash nobody could tell it."""
        if step.written is not None and len(step.written):
            self._account.add(step.written)
            self._kept((Why.INTERRUPTED.value,))
        self._by.watch(step)

    def _prove_silence(self) -> None:
        """Note that nothing happened on that day."""
        writer = self._by.writer
        state = from_the_beginning(writer.source(self._name) or SourceState(name=self._name))
        delivery = _FEED.delivery(self._by.clock.now())
        writer.apply(_nothing(), state, finished=True, proved=self._span, delivery=delivery)

    def _teach_streams(self) -> None:
        """Let the claims of a stream that had missed rows wait longer from now on; of a silent one, believe none."""
        writer, now_s = self._by.writer, self._by.clock.now()
        for half in FeedSource:
            state = writer.source(stream_name(self._of.iys_code, self._of.brand, half))
            if state is None:
                continue
            late = self._account.lateness_s(half, local_s=times.local_now(now_s)) - SHOWN_LATE_S
            taught = msgspec.structs.replace(state, lateness=max(state.lateness, min(late, LATENESS_MAX_S)))
            if half is FeedSource.IYS and self._is_silent(state):
                self._silent = True
                taught = msgspec.structs.replace(taught, doubt=IYS_FEED_SILENT, doubted_at=int(now_s))
            if taught != state:
                writer.apply(_nothing(), taught)

    def _is_silent(self, state: SourceState) -> bool:
        """Say whether a stream claims all of a day and has shown nothing since it began, though there was something."""
        span, file = self._span, self._evidence.file
        if file is None or not file.rows[FeedSource.IYS] or state.latest >= times.local_now(span.start):
            return False
        return state.covered_from <= span.start and span.end <= state.covered_until

    @property
    def _span(self) -> Span:
        return Claim(brand=self._of.brand, day=self._day).span

    def _archived(self) -> bool | None:
        """Keep a file that is proved; say whether that was done, None if nobody wants it. Nothing depends on it."""
        archive, path = self._by.archive, self._of.path
        if archive is None or path is None or self._judgement.proved is None:
            return None
        try:
            archive.add_day(self._of.brand, self._day, path)
        except ArchiveError:
            return False
        return True

    def _covered(self, half: FeedSource) -> Covered:
        state = self._by.writer.source(stream_name(self._of.iys_code, self._of.brand, half))
        return Covered() if state is None else Covered(start=state.covered_from, end=state.covered_until)

    @property
    def _name(self) -> str:
        return day_name(self._of.iys_code, self._of.brand)

    def _kept(self, why: tuple[str, ...], *, archived: bool | None = None, file: str = "") -> DayReport:
        """Write the report down, and return it."""
        report = self._report(why, archived=archived, file=file)
        self._by.reports.keep(report)
        return report

    def _report(self, why: tuple[str, ...], *, archived: bool | None, file: str) -> DayReport:
        evidence, judgement, before = self._evidence, self._judgement, self._before
        now_s = self._by.clock.now()
        lateness = max(self._account.lateness_s(half, local_s=times.local_now(now_s)) for half in FeedSource)
        missed, applied = self._account.missed, self._account.applied
        if before is not None:
            missed, applied = before.missed + missed, before.applied + applied
            lateness = max(lateness, before.latest_lateness_s)
        watermark, _, _ = self._by.writer.coverage(self._of.brand)
        agreement = evidence.agreement
        return DayReport(
            iys_code=self._of.iys_code,
            brand=self._of.brand,
            date=self._day,
            state=_state(judgement, why, missed.total),
            why=why,
            proved_by="" if why or judgement.proved is None else judgement.proved.value,
            rows={} if evidence.file is None else {half.value: n for half, n in evidence.file.rows.items()},
            channels={} if evidence.file is None else evidence.file.channels,
            summary=tuple(_count(line) for line in evidence.summary),
            hash=_hash(answers=self._of, judgement=judgement),
            applied=applied,
            missed=missed,
            latest_lateness_s=lateness,
            iys_feed_silent=self._silent,
            rejects=self._rejects,
            timestamp=StampReport(bound=self._of.stamp.bound, chain=self._of.stamp.chain),
            watermark=watermark_text(watermark),
            agreement=AgreementReport(state=agreement.state.value, agreed=agreement.agreed),
            file=file,
            archived=archived,
            reconciled=rfc3339(int(now_s)),
        )


def _state(judgement: Judgement, why: tuple[str, ...], missed: int) -> DayState:
    if why or judgement.proved is None:
        return DayState.UNPROVED
    if judgement.proved is Proved.BY_SILENCE:
        return DayState.NO_MOVEMENTS
    return DayState.HEALED if missed else DayState.PROVED


def _hash(answers: Answers, judgement: Judgement) -> HashReport:
    """Say what came of İYS's digest."""
    digest, method = answers.evidence.hash, answers.evidence.agreement.method
    algorithm = DIGESTS.get(len(digest), "")
    named = method.casefold().replace("-", "").replace("_", "")
    return HashReport(
        algorithm=algorithm,
        equal=None if not digest or answers.evidence.file is None else judgement.variant is not None,
        variant="" if judgement.variant is None else judgement.variant.value,
        contradicts=bool(algorithm and named) and named != algorithm,
    )


def _count(line: SummaryLine) -> SummaryCount:
    return SummaryCount(
        channel=line.channel.name,
        recipient_type=line.recipient_type.name,
        source=line.source.value,
        approval=line.approval,
        rejection=line.rejection,
        pending=line.pending,
        total=line.total,
    )


def _nothing() -> Batch:
    return Batch(consents=ConsentColumns.of(()), access=(), brands=(), rows=0)
