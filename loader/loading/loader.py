"""Sources from their beginning, or from where they stopped, to their end.

What a commit holds depends on nothing but the rows before it, and the resume point is in the same transaction: kill
the process at any moment, start it again, and the store is as if it had never stopped.
"""

import threading
import time
from collections.abc import Callable, Sequence

import msgspec

from iyscheck.change import ConsentColumns
from iyscheck.errors import SettingsError
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.store.layout import SourceState
from iyscheck.store.writer import Batch, Writer
from loader.loading.ahead import ahead
from loader.loading.claims import Proof
from loader.loading.commits import commit_each
from loader.loading.fill import fill
from loader.loading.memory import FILL_NEEDS, commit_needs
from loader.loading.options import Options, check_watermark
from loader.loading.progress import Progress, Report, Totals
from loader.loading.rejects import RejectsFile, rejects_path
from loader.loading.source import Source
from loader.loading.source_run import SourceRun
from loader.loading.states import asking, from_the_beginning
from loader.reading.feed import Feed


def _ignore(_: object) -> None:
    pass


class Loader:
    """Loads sources into a store. `stop` ends it after the commit under way; `clock` tells UTC seconds.

    `tell` gets a sentence for people before something takes long or may not go well.
    """

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
        tell: Callable[[str], None] = _ignore,
    ) -> None:
        self._writer = writer
        self._keys = (address_key, store_key)
        self._options = options
        self._clock = clock
        self._stop = stop or threading.Event()
        self._watch = watch
        self._tell = tell

    def load(self, sources: Sequence[Source]) -> Report:
        """Load sources in order; the options' watermarks move with the last one.

        Raises SourceError for the first source that cannot be loaded, SettingsError, WatermarkError, StoreError.
        """
        for _, until in self._options.watermarks:
            check_watermark(until, self._clock())
        if len(sources) > 1 and self._options.claim is not None:
            raise SettingsError("--date", "a day is one file.", fix="Load the files of several days one by one.")
        report = Report(position=self._writer.position)
        for source in sources:
            asked = self._options.watermarks if source is sources[-1] else ()
            self.load_source(source, report, watermarks=asked)
            if self._stop.is_set():
                report.stopped = True
                break
        return report

    def load_source(
        self, source: Source, report: Report, *, watermarks: tuple[tuple[int, int], ...] = (), may_move: bool = True
    ) -> bool:
        """Load one source and add to the report; say whether it is finished.

        With `may_move` false a source that asks for watermarks is loaded, but not finished.
        """
        began = time.monotonic()
        state = self._writer.source(source.name) or SourceState(name=source.name)
        if not source.resumes:
            state = from_the_beginning(state)
        report.sources.append(source.name)
        try:
            if state.finished and source.is_unchanged(state):
                report.unchanged += 1
                finished = self._ask(source, state, report, watermarks)
            else:
                finished, state = self._load(source, asking(state, watermarks), report, may_move=may_move)
        finally:
            report.seconds += time.monotonic() - began
            report.position = self._writer.position
        if state.rejected and not state.accepted:
            report.unaccepted += state.rejected
            report.rejects_files.append(str(rejects_path(self._options.rejects, source.name)))
        return finished

    def _load(self, source: Source, state: SourceState, report: Report, *, may_move: bool) -> tuple[bool, SourceState]:
        """Load from the resume point on; say whether the source is finished, and how far it is."""
        options = self._options
        digest = "" if options.claim is None else options.claim.digest
        with source.opened(state, rows=options.commit_rows, digest=digest, kernel=options.kernel) as pieces:
            rejects = RejectsFile.open(options.rejects, source.name, length=state.rejects_bytes)
            run = SourceRun(
                writer=self._writer,
                feed=Feed(*self._keys, brand=options.brand, kernel=options.kernel),
                options=options,
                clock=self._clock,
                stop=self._stop,
                watch=self._watch,
                state=state,
                report=report,
                rejects=rejects,
                may_move=may_move,
            )
            write = fill if self._fills(source) else commit_each
            try:
                if source.may_be_silent:  # nobody must wait for what may never come
                    return write(run, pieces), run.state
                with ahead(pieces) as drawn:
                    return write(run, drawn), run.state
            finally:
                rejects.close()

    def _fills(self, source: Source) -> bool:
        """Say whether sorting all first pays: only into an empty store, and only what is more than a commit or two.

        Where there is not the memory for that, rows are committed as they come: slower, but nothing begins again.
        """
        pays = self._writer.is_empty and (source.size is None or source.size >= self._options.fill_bytes)
        left = self._options.memory
        if left is None:
            return pays
        if pays and left < FILL_NEEDS:
            self._tell(
                f"{left >> 20:,} MiB of memory are left. Sorting a first source may take {FILL_NEEDS >> 20:,}, "
                "so it is loaded in commits, which takes about four times as long."
            )
            pays = False
        rows = self._options.commit_rows
        if not pays and left < commit_needs(rows):
            self._tell(
                f"{left >> 20:,} MiB of memory are left. Commits of {rows:,} rows may take "
                f"{commit_needs(rows) >> 20:,}, and who takes too much is killed. Lower --commit-rows if that happens."
            )
        return pays

    def _ask(self, source: Source, state: SourceState, report: Report, watermarks: tuple[tuple[int, int], ...]) -> bool:
        """Move watermarks for a source that was finished before, or prove the day that it is."""
        claim = self._options.claim
        if not watermarks and claim is None:
            return True
        asked = msgspec.structs.replace(state, watermarks=watermarks)
        proof: Proof | None = None
        if claim is not None:
            whole = source.read_again(state, digest=claim.digest)
            proof = Proof.of(claim, state, whole, now_s=self._clock())
        span = None if proof is None else proof.span
        report.add(self._writer.apply(_nothing(), asked, finished=True, proved=span), Totals())
        if proof is not None:
            report.claims.append(proof.outcome(self._writer))
        return True


def _nothing() -> Batch:
    return Batch(consents=ConsentColumns.of(()), access=(), brands=(), rows=0)
