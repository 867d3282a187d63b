"""Walks through a stream and does what the walk says: asks İYS, and commits."""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from loader.iys.clock import Clock
from loader.iys.faults import IysFault
from loader.iys.messages import FeedSource, Page
from loader.sources.pull.steps import Ask, Commit, End, Stream
from loader.sources.pull.streams import Committed, Streams
from loader.sources.pull.walk import Walk

Answer = Page | IysFault
"""What came of a question."""


class Changes(Protocol):
    """Who can be asked for the changes of a brand."""

    def changes(self, iys_code: int, brand: int, source: FeedSource, *, after: str | None, limit: int) -> Page:
        """Return a page. Raises IysFault."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """What came of a pass. `end` is None where it was stopped."""

    end: End | None
    commits: tuple[Committed, ...]


def fetch(iys: Changes, stream: Stream, ask: Ask) -> Answer:
    """Ask, and return the fault where there is no answer. Needs no store, and may be done in any thread."""
    try:
        return iys.changes(stream.iys_code, stream.brand, stream.source, after=ask.after, limit=ask.limit)
    except IysFault as fault:
        return fault


def take(walk: Walk, streams: Streams, stream: Stream, answer: Answer) -> Committed | None:
    """Give a walk its answer and commit what it says, in the thread of the writer. Raises as `Streams.commit`."""
    commit: Commit | None = walk.failed(answer) if isinstance(answer, IysFault) else walk.answered(answer)
    if commit is None:
        return None
    committed = streams.commit(stream, commit)
    walk.committed(committed.earliest)
    return committed


def pull_stream(
    iys: Changes,
    streams: Streams,
    stream: Stream,
    *,
    clock: Clock,
    stop: threading.Event,
    sweep: bool = False,
    rows: int | None = None,
    chance: Callable[[], float] = random.random,
) -> Passed:
    """Walk through a stream to its end, or until told to stop; `rows` as for a walk. Raises as `Streams.commit`."""
    walk = Walk(streams.state(stream), now_s=clock.now(), sweep=sweep, rows=rows, chance=chance)
    commits: list[Committed] = []
    while (ask := walk.ask) is not None:
        if stop.is_set() or (ask.delay_s and clock.wait(ask.delay_s, stop)):
            break
        committed = take(walk, streams, stream, fetch(iys, stream, ask))
        if committed is not None:
            commits.append(committed)
    return Passed(end=walk.end, commits=tuple(commits))
