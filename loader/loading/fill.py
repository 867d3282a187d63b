"""The first large source of an empty store: sorted, and written once from end to end in one transaction.

Commits in the order of the feed would write the growing store again and again.
"""

import time
from collections.abc import Iterator

from iyscheck.errors import SourceError
from loader.loading.ahead import ahead
from loader.loading.progress import Totals
from loader.loading.sorted_runs import Runs
from loader.loading.source import Piece
from loader.loading.source_run import SourceRun


def fill(run: SourceRun, pieces: Iterator[Piece]) -> bool:
    """Read everything, sort it, then commit it as a whole; what came before an error or a stop is committed too.

    Says whether the source is finished.
    """
    began = time.monotonic()
    finished = False
    failure: SourceError | None = None
    totals = Totals()
    options = run.options
    with (
        run.writer.filling() as filling,
        Runs(run.writer.path, run_rows=options.run_rows, kernel=options.kernel) as runs,
    ):
        try:
            for piece in pieces:
                parsed = run.taken_in(piece, run.report.position.sequence + totals.rows)
                filling.register(parsed.brands, parsed.access)
                runs.add(parsed.consents)
                totals.add(parsed)
                finished = run.finishes(piece)
                run.progressed(parsed.rows, began)
                if run.stop.is_set():
                    break
        except SourceError as error:
            failure = error
        with ahead(runs.merged()) as merged:
            for changes in merged:
                filling.append(changes)
        proof = run.proof() if finished else None
        span = None if proof is None else proof.span
        applied = filling.finish(
            run.state, rows=totals.rows, taken=runs.rows, finished=finished, proved=span, delivery=run.delivery()
        )
    run.committed(applied, totals, proof=proof, new_rows=0, began=began, finished=finished)
    if failure is not None:
        raise failure
    return finished
