"""Piece by piece: each is one commit, with the point behind it in the same transaction."""

import time
from collections.abc import Iterator

from iyscheck.store.writer import Batch
from loader.loading.progress import Totals
from loader.loading.source import Piece
from loader.loading.source_run import SourceRun
from loader.reading.feed import Parsed


def commit_each(run: SourceRun, pieces: Iterator[Piece]) -> bool:
    """Commit piece by piece, until the end or until told to stop; say whether the source is finished."""
    finished = False
    for piece in pieces:
        began = time.monotonic()
        parsed = run.taken_in(piece, run.report.position.sequence)
        finished = run.finishes(piece)
        if piece.lines or finished:
            proof = run.proof() if finished else None
            span = None if proof is None else proof.span
            applied = run.writer.apply(
                batch_of(parsed), run.state, finished=finished, proved=span, delivery=run.delivery()
            )
            run.committed(applied, Totals.of(parsed), proof=proof, new_rows=parsed.rows, began=began, finished=finished)
        if run.stop.is_set():
            break
    return finished


def batch_of(parsed: Parsed) -> Batch:
    """Return what a commit brings of a piece."""
    return Batch(consents=parsed.consents, access=parsed.access, brands=parsed.brands, rows=parsed.rows)
