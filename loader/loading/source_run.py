"""The loading of one source: what both ways of writing it do with each piece, and with each commit."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from iyscheck.store.deliveries import Delivery
from iyscheck.store.layout import SourceState
from iyscheck.store.writer import Applied, Writer
from loader.loading.claims import Proof
from loader.loading.options import Options
from loader.loading.progress import Progress, Report, Totals
from loader.loading.rejects import RejectsFile, entries_of
from loader.loading.source import Piece, Whole
from loader.loading.states import advanced
from loader.reading.feed import Feed, Parsed


@dataclass(slots=True, kw_only=True)
class SourceRun:
    """One source under way: its state grows with each piece. Without `may_move` it is loaded but not finished."""

    writer: Writer
    feed: Feed
    options: Options
    clock: Callable[[], float]
    stop: threading.Event
    watch: Callable[[Progress], None]
    state: SourceState
    report: Report
    rejects: RejectsFile
    may_move: bool
    whole: Whole | None = None

    def taken_in(self, piece: Piece, sequence: int) -> Parsed:
        """Judge a piece that begins behind `sequence`, write its rejects down and move the state behind it."""
        parsed = self.feed.parse(piece.decoded, now_s=self.clock(), sequence=sequence)
        self.rejects.append(entries_of(piece, parsed.rejects, self.state.lines))
        state = advanced(self.state, parsed, self.options.brand)
        self.state = msgspec.structs.replace(
            piece.point.kept_in(state), lines=state.lines + piece.lines, rejects_bytes=self.rejects.length
        )
        self.whole = piece.whole
        return parsed

    def finishes(self, piece: Piece) -> bool:
        """Say whether the source is finished with a piece that was taken in."""
        return piece.is_last and (self.may_move or not self.state.watermarks)

    def proof(self) -> Proof | None:
        """Compare a source that was read to its end with what is claimed of it, if anything is."""
        claim = self.options.claim
        if claim is None or self.whole is None:
            return None
        return Proof.of(claim, self.state, self.whole, now_s=self.clock())

    def delivery(self) -> Delivery | None:
        """Say of which feed a commit is that is made now."""
        feed = self.options.feed
        return None if feed is None else feed.delivery(self.clock())

    def committed(
        self, applied: Applied, totals: Totals, *, proof: Proof | None, new_rows: int, began: float, finished: bool
    ) -> None:
        """Report a commit, of which `new_rows` were not reported when they were read."""
        if proof is not None:
            self.report.claims.append(proof.outcome(self.writer))
        if finished:
            self.state = msgspec.structs.replace(self.state, finished=True, watermarks=())
        self.report.add(applied, totals)
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
                written=applied.changes,
            )
        )

    def progressed(self, rows: int, began: float) -> None:
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
