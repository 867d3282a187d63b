"""One source from its beginning, or from where it stopped, to its end: chunk by chunk, each one commit.

The first large source of an empty store is one commit altogether: sorted, it is written once from end to end, where
commits in the order of the feed would write the growing store again and again.

What a commit holds depends on nothing but the rows before it, and the resume point is in the same transaction: kill
the process at any moment, start it again, and the store is as if it had never stopped.
"""

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import msgspec

from iyscheck.change import ConsentColumns, Position
from iyscheck.consent import CLOCK_TOLERANCE_S
from iyscheck.errors import SettingsError, SourceError, WatermarkError
from iyscheck.kernel import Kernel
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.store.layout import SourceState, Span
from iyscheck.store.writer import Applied, Batch, Writer
from loader import source as sources
from loader.loading.ahead import ahead
from loader.loading.claims import Claim, Outcome, Unproved
from loader.loading.rejects import RejectsFile, entry, rejects_name
from loader.loading.sorted_runs import RUN_ROWS, Runs
from loader.reading import times
from loader.reading.faults import LINE_TOO_LONG
from loader.reading.feed import Feed, Parsed
from loader.reading.rows import Decoded, Format, split, too_long
from loader.source import STDIN, Chunk, LineReader, Stamp

COMMIT_ROWS: Final = 50_000
FILL_BYTES: Final = 2**24
"""From this size of a file on an empty store is filled in one sorted transaction: more than one commit's worth."""
ALL_BRANDS: Final = 0
KERNEL_BYTES: Final = 2**28
"""From this size of the files on it pays to get numba ready.

Measured with machine code kept from earlier runs, processor time of whole processes: 0.7 s, for 1.1 µs less a row of
285 bytes, on a busy machine. From 60 and 120 MB, where numpy was quicker still, that is extrapolated to be even at some
180 MB; the start has one core to itself, the rows share two.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to load. `watermarks` are (brand, or 0 for all, seconds UTC), moved when the last file is in.

    `claim` says of the one file that it is everything of a day.
    """

    rejects: Path
    brand: int | None = None
    source: str | None = None
    watermarks: tuple[tuple[int, int], ...] = ()
    claim: Claim | None = None
    commit_rows: int = COMMIT_ROWS
    fill_bytes: int = FILL_BYTES
    run_rows: int = RUN_ROWS
    kernel: Kernel = Kernel.NUMPY


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One step, for those who watch: `rows` read, rows by outcome, how long it took, where the log stands.

    Rows that are read into an empty store have no outcome yet: it is told with the commit that holds them all.
    `durable` says whether something was committed.
    """

    rows: int
    outcomes: dict[str, int]
    seconds: float
    position: Position
    bytes: int
    durable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """A chunk and what it decodes to; None at the very end. `bytes` and `sha256` are those of its source up to it."""

    chunk: Chunk | None
    decoded: Decoded | None
    at_end: bool
    bytes: int
    sha256: str
    ends_whole: bool


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


def _ignore(_: Progress) -> None:
    pass


class Loader:
    """Loads sources into a store. `stop` ends it after the commit under way; `clock` tells UTC seconds."""

    def __init__(
        self,
        writer: Writer,
        *,
        address_key: AddressKey,
        store_key: StoreKey,
        options: Options,
        clock: Callable[[], float] = time.time,
        stop: threading.Event | None = None,
        watch: Callable[[Progress], None] = _ignore,
    ) -> None:
        self._writer = writer
        self._keys = (address_key, store_key)
        self._options = options
        self._clock = clock
        self._stop = stop or threading.Event()
        self._watch = watch

    def load(self, paths: list[str]) -> Report:
        """Load files and directories in order; the options' watermarks move with the last file.

        Raises SourceError for the first source that cannot be loaded, SettingsError, WatermarkError, StoreError.
        """
        for _, until in self._options.watermarks:
            check_watermark(until, self._clock())
        files = [file for path in paths for file in sources.files_of(path)]
        if not files:
            raise SettingsError("FILE", "there is no file to load.", fix="Name a file, or a directory that has some.")
        if len(files) > 1 and self._options.claim is not None:
            raise SettingsError("--date", "a day is one file.", fix="Load the files of several days one by one.")
        if len(files) > 1 and self._options.source is not None:
            raise SettingsError("--source", "one name cannot stand for several files.", fix="Load them one by one.")
        report = Report(position=self._writer.position)
        for file in files:
            asked = self._options.watermarks if file is files[-1] else ()
            self.load_file(file, report, watermarks=asked)
            if self._stop.is_set():
                report.stopped = True
                break
        return report

    def load_file(
        self, path: str, report: Report, *, watermarks: tuple[tuple[int, int], ...] = (), may_move: bool = True
    ) -> bool:
        """Load one file and add to the report; say whether it is finished.

        With `may_move` false a source that asks for watermarks is loaded, but not finished.
        """
        began = time.monotonic()
        name = self._options.source or source_name(path)
        state = self._resume_point(path, name)
        report.sources.append(name)
        try:
            if state.finished and self._is_unchanged(path, state):
                report.unchanged += 1
                finished = self._ask(path, state, report, watermarks)
            else:
                run = _SourceRun(
                    writer=self._writer,
                    feed=Feed(*self._keys, brand=self._options.brand, kernel=self._options.kernel),
                    options=self._options,
                    clock=self._clock,
                    stop=self._stop,
                    watch=self._watch,
                    state=_asking(state, watermarks),
                    report=report,
                )
                finished = run.load(path, may_move=may_move)
                state = run.state
        finally:
            report.seconds += time.monotonic() - began
            report.position = self._writer.position
        if state.rejected and not state.accepted:
            report.unaccepted += state.rejected
            report.rejects_files.append(str(rejects_path(self._options.rejects, name)))
        return finished

    def _resume_point(self, path: str, name: str) -> SourceState:
        """Find how far a source was loaded; standard input starts again every time."""
        stored = self._writer.source(name)
        if stored is None:
            return SourceState(name=name)
        if path != STDIN:
            return stored
        # What an earlier run rejected still waits for acceptance, whatever comes through the pipe this time.
        return msgspec.structs.replace(
            stored,
            **{name: getattr(SourceState(name=name), name) for name in _FROM_THE_BEGINNING},
        )

    def _is_unchanged(self, path: str, state: SourceState) -> bool:
        """Say whether a finished file is the same; only where it may have been touched is it read.

        Archives and caches give other content the same name, size and times, but not the same inode and change time.
        Raises SourceChangedError.
        """
        if sources.stamp(path) != _stamp_of(state):
            self._read_again(path, state)
        return True

    def _read_again(self, path: str, state: SourceState, digest: str = "") -> str:
        """Read a finished file to its end; return the digest asked for. Raises SourceChangedError if it differs."""
        before = sources.stamp(path)
        with sources.opened(path, digest=digest) as reader:
            reader.skip(state.bytes, state.sha256)
            if not reader.at_end():
                raise sources.changed(state.name)
            if sources.stamp(path) != before:
                raise sources.changing(state.name)
            return reader.asked_digest

    def _ask(self, path: str, state: SourceState, report: Report, watermarks: tuple[tuple[int, int], ...]) -> bool:
        """Move watermarks for a source that was finished before, or prove the day that it is."""
        claim = self._options.claim
        if not watermarks and claim is None:
            return True
        asked = msgspec.structs.replace(state, watermarks=watermarks)
        if claim is None:
            _add(report, self._writer.apply(_batch(_nothing()), asked, finished=True))
            return True
        digest = self._read_again(path, state, claim.digest)
        proof = _Proof.of(claim, state, digest=digest, now_s=self._clock(), written_s=_written_s(path))
        applied = self._writer.apply(_batch(_nothing()), asked, finished=True, proved=proof.span)
        _add(report, applied)
        report.claims.append(proof.outcome(self._writer))
        return True


@dataclass(frozen=True, slots=True)
class _Proof:
    """A claim and what is wrong with it."""

    claim: Claim
    faults: tuple[Unproved, ...]

    @classmethod
    def of(cls, claim: Claim, state: SourceState, *, digest: str, now_s: float, written_s: float | None) -> "_Proof":
        """Compare a source that was read to its end with the claim."""
        return cls(claim, claim.faults(state, digest=digest, now_s=now_s, written_s=written_s))

    @property
    def span(self) -> Span | None:
        """What is proved."""
        return None if self.faults else self.claim.span

    def outcome(self, writer: Writer) -> Outcome:
        """Say what came of it, when it is committed."""
        watermark, spans, held = writer.coverage(self.claim.brand)
        return Outcome.of(self.claim, self.faults, watermark, spans, held=held)


_FROM_THE_BEGINNING: Final = (
    *("rows", "lines", "bytes", "sha256", "skipped", "watermarks", "finished"),
    *("earliest", "latest", "ends_whole"),
)


def _stamp_of(state: SourceState) -> Stamp:
    """Return what told of a file whether it is still the same, when it was loaded."""
    return Stamp(
        size=state.file_size,
        mtime_ns=state.file_mtime_ns,
        ctime_ns=state.file_ctime_ns,
        device=state.file_device,
        inode=state.file_inode,
    )


def _written_s(path: str) -> float | None:
    """Say when a file was last written, seconds UTC; None for a pipe."""
    return None if path == STDIN else sources.stamp(path).mtime_ns / 1e9


@dataclass(slots=True)
class _Totals:
    """Rows by what is known of them before anything is written."""

    rows: int = 0
    skipped: int = 0
    rejected: int = 0
    unknown_status: int = 0
    mended: int = 0

    @classmethod
    def of(cls, parsed: Parsed) -> Self:
        totals = cls()
        totals.add(parsed)
        return totals

    def add(self, parsed: Parsed) -> None:
        self.rows += parsed.rows
        self.skipped += parsed.skipped
        self.rejected += len(parsed.rejects)
        self.unknown_status += parsed.unknown_status
        self.mended += parsed.mended


@dataclass(slots=True, kw_only=True)
class _SourceRun:
    """The loading of one source: its state grows with each commit."""

    writer: Writer
    feed: Feed
    options: Options
    clock: Callable[[], float]
    stop: threading.Event
    watch: Callable[[Progress], None]
    state: SourceState
    report: Report
    path: str = STDIN
    stamp: Stamp | None = None
    reader: LineReader | None = None

    def load(self, path: str, *, may_move: bool) -> bool:
        """Load from the resume point to the end, or until told to stop; say whether it is finished."""
        stamp = None if path == STDIN else sources.stamp(path)
        size = 0 if stamp is None else stamp.size
        claim = self.options.claim
        with sources.opened(path, digest="" if claim is None else claim.digest) as reader:
            form = sources.format_of(path, reader.head(), self.options.kernel)
            reader.skip(self.state.bytes, self.state.sha256 or reader.sha256)
            rejects = RejectsFile.open(self.options.rejects, self.state.name, length=self.state.rejects_bytes)
            if stamp is not None:
                self.state = msgspec.structs.replace(
                    self.state,
                    file_size=stamp.size,
                    file_mtime_ns=stamp.mtime_ns,
                    file_ctime_ns=stamp.ctime_ns,
                    file_device=stamp.device,
                    file_inode=stamp.inode,
                )
            self.reader, self.path, self.stamp = reader, path, stamp
            pieces = self._pieces(reader, form)
            load = self._fill if self._fills(path, size) else self._commit_each
            try:
                if path == STDIN:  # a pipe may be silent for long: nobody must wait for what may never come
                    return load(pieces, form, rejects, may_move=may_move)
                with ahead(pieces) as drawn:
                    return load(drawn, form, rejects, may_move=may_move)
            finally:
                rejects.close()

    def _pieces(self, reader: LineReader, form: Format) -> Generator[_Piece, None, None]:
        """Read and decode chunk by chunk; there is always a last piece that says it is at the end."""
        at_end = False
        while not at_end:
            chunk = reader.chunk(self.options.commit_rows)
            at_end = chunk is None or reader.at_end()
            if at_end and self.stamp is not None and sources.stamp(self.path) != self.stamp:
                raise sources.changing(self.state.name)  # what was read last may not be its end
            decoded = None if chunk is None else _decoded(chunk, form)
            yield _Piece(
                chunk=chunk,
                decoded=decoded,
                at_end=at_end,
                bytes=reader.bytes,
                sha256=reader.sha256,
                ends_whole=reader.ends_whole,
            )

    def _fills(self, path: str, size: int) -> bool:
        """Say whether sorting all first pays: only into an empty store, and only what is more than a commit or two."""
        return self.writer.is_empty and (path == STDIN or size >= self.options.fill_bytes)

    def _commit_each(self, pieces: Iterator[_Piece], form: Format, rejects: RejectsFile, *, may_move: bool) -> bool:
        """Commit piece by piece."""
        finished = False
        for piece in pieces:
            began = time.monotonic()
            parsed = self._taken_in(piece, form, rejects, self.report.position.sequence)
            finished = self._may_finish(piece, may_move=may_move)
            if piece.chunk is not None or finished:
                proof = self._proof() if finished else None
                span = None if proof is None else proof.span
                applied = self.writer.apply(_batch(parsed), self.state, finished=finished, proved=span)
                self._claimed(proof)
                self._committed(applied, _Totals.of(parsed), parsed.rows, began, finished=finished)
            if self.stop.is_set():
                break
        return finished

    def _fill(self, pieces: Iterator[_Piece], form: Format, rejects: RejectsFile, *, may_move: bool) -> bool:
        """Read everything, sort it, then commit it as a whole; what came before an error or a stop is committed too."""
        began = time.monotonic()
        finished = False
        failure: SourceError | None = None
        totals = _Totals()
        options = self.options
        with (
            self.writer.filling() as filling,
            Runs(self.writer.path, run_rows=options.run_rows, kernel=options.kernel) as runs,
        ):
            try:
                for piece in pieces:
                    parsed = self._taken_in(piece, form, rejects, self.report.position.sequence + totals.rows)
                    filling.register(parsed.brands, parsed.access)
                    runs.add(parsed.consents)
                    totals.add(parsed)
                    finished = self._may_finish(piece, may_move=may_move)
                    self._progressed(parsed.rows, began)
                    if self.stop.is_set():
                        break
            except SourceError as error:
                failure = error
            with ahead(runs.merged()) as merged:
                for changes in merged:
                    filling.append(changes)
            proof = self._proof() if finished else None
            span = None if proof is None else proof.span
            applied = filling.finish(self.state, rows=totals.rows, taken=runs.rows, finished=finished, proved=span)
        self._claimed(proof)
        self._committed(applied, totals, 0, began, finished=finished)
        if failure is not None:
            raise failure
        return finished

    def _taken_in(self, piece: _Piece, form: Format, rejects: RejectsFile, sequence: int) -> Parsed:
        """Judge a piece that begins behind `sequence`, write its rejects down and move the state behind it."""
        parsed = _nothing()
        if piece.decoded is not None:
            parsed = self.feed.parse(piece.decoded, now_s=self.clock(), sequence=sequence)
        if piece.chunk is not None:
            rejects.append(_entries(piece.chunk, parsed, form, self.state.lines))
        state = _advanced(self.state, parsed, self.options.brand)
        self.state = msgspec.structs.replace(
            state,
            lines=state.lines + (0 if piece.chunk is None else piece.chunk.lines),
            bytes=piece.bytes,
            sha256=piece.sha256,
            ends_whole=piece.ends_whole,
            rejects_bytes=rejects.length,
        )
        return parsed

    def _proof(self) -> _Proof | None:
        """Compare what was read to its end with what is claimed of it, if anything is."""
        claim = self.options.claim
        if claim is None:
            return None
        digest = "" if self.reader is None else self.reader.asked_digest
        written_s = None if self.stamp is None else self.stamp.mtime_ns / 1e9
        return _Proof.of(claim, self.state, digest=digest, now_s=self.clock(), written_s=written_s)

    def _claimed(self, proof: _Proof | None) -> None:
        if proof is not None:
            self.report.claims.append(proof.outcome(self.writer))

    def _may_finish(self, piece: _Piece, *, may_move: bool) -> bool:
        return piece.at_end and (may_move or not self.state.watermarks)

    def _committed(self, applied: Applied, totals: _Totals, new_rows: int, began: float, *, finished: bool) -> None:
        """Report a commit, of which `new_rows` were not reported when they were read."""
        if finished:
            self.state = msgspec.structs.replace(self.state, finished=True, watermarks=())
        _add(self.report, applied)
        self.report.read += totals.rows
        self.report.skipped += totals.skipped
        self.report.rejected += totals.rejected
        self.report.unknown_status += totals.unknown_status
        self.report.mended += totals.mended
        outcomes = {
            "applied": applied.applied,
            "superseded": applied.superseded,
            "skipped": totals.skipped,
            "rejected": totals.rejected,
        }
        self.watch(
            Progress(
                rows=new_rows,
                outcomes=outcomes,
                seconds=time.monotonic() - began,
                position=applied.position,
                bytes=self.state.bytes,
            )
        )

    def _progressed(self, rows: int, began: float) -> None:
        """Report what was read and is not committed yet."""
        self.watch(
            Progress(
                rows=rows,
                outcomes={},
                seconds=time.monotonic() - began,
                position=self.report.position,
                bytes=self.state.bytes,
                durable=False,
            )
        )


def _asking(state: SourceState, watermarks: tuple[tuple[int, int], ...]) -> SourceState:
    return msgspec.structs.replace(state, watermarks=_latest(state.watermarks + watermarks))


def _latest(watermarks: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """Keep the latest watermark of each brand."""
    latest: dict[int, int] = {}
    for brand, until in watermarks:
        latest[brand] = max(until, latest.get(brand, 0))
    return tuple(sorted(latest.items()))


def _advanced(state: SourceState, parsed: Parsed, given: int | None) -> SourceState:
    """Add a chunk to what is known of its source."""
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
    )


def _entries(chunk: Chunk, parsed: Parsed, form: Format, lines_before: int) -> list[bytes]:
    """Write the entries of a chunk's rejects."""
    if not parsed.rejects:
        return []
    lines = split(chunk.data) if chunk.data else [b""]
    entries = []
    for reject in parsed.rejects:
        line = lines[reject.line]
        if reject.fault is LINE_TOO_LONG:
            line = b""
        content = form.content(line) if line else None
        entries.append(entry(lines_before + reject.line + 1, reject.fault, content, line))
    return entries


def _decoded(chunk: Chunk, form: Format) -> Decoded:
    return too_long() if chunk.discarded else form.decode(chunk.data, first=chunk.first)


def _nothing() -> Parsed:
    return Parsed(
        consents=ConsentColumns.of(()),
        access=[],
        brands=[],
        watermarks=[],
        rejects=[],
        rows=0,
        skipped=0,
        brands_seen=frozenset(),
    )


def _batch(parsed: Parsed) -> Batch:
    return Batch(consents=parsed.consents, access=parsed.access, brands=parsed.brands, rows=parsed.rows)


def _add(report: Report, applied: Applied) -> None:
    report.applied += applied.applied
    report.superseded += applied.superseded
    report.position = applied.position
    report.watermarks.update(applied.watermarks)
    report.withheld.update(applied.withheld)


def source_name(path: str) -> str:
    """Name the source that a path is: its absolute path, bytes that are not UTF-8 written as escapes."""
    name = STDIN if path == STDIN else str(Path(path).absolute())
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def kernel_for(paths: list[str]) -> Kernel:
    """Choose the compiled loops, which take a moment to get ready, where there is enough for them to do."""
    size = 0
    for path in paths:
        with suppress(SourceError):  # what cannot be read is told when its turn comes
            size += sum(sources.stamp(file).size for file in sources.files_of(path) if file != STDIN)
    return Kernel.best().usable() if size >= KERNEL_BYTES else Kernel.NUMPY


def rejects_path(directory: Path, name: str) -> Path:
    """Return where the rejects of a source are."""
    return directory / rejects_name(name)


def check_watermark(until: int, now_s: float) -> None:
    """Refuse a watermark that lies ahead of the clock. Raises WatermarkError."""
    if until > now_s + CLOCK_TOLERANCE_S:
        raise WatermarkError(
            f"A watermark of {times.local_text(until)} is in the future: now it is {times.local_text(int(now_s))} "
            "in Turkey.",
            fix="Say until when the data is complete, not until when it should be; or correct this machine's clock.",
        )
