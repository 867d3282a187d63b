"""Keeps loading what appears in a directory, in the order of its names, until it is told to stop."""

import threading
import time
from collections.abc import Callable
from typing import Final

from iyscheck.errors import SourceError, StoreFullError
from iyscheck.store.writer import Writer
from loader.loading.loader import Loader
from loader.loading.progress import Report
from loader.loading.source import Source
from loader.reports.metrics import FeedMetrics
from loader.sources import paths
from loader.sources.paths import Stamp

POLL_S: Final = 1.0
BEAT_S: Final = 1.0
"""How often it is looked whether a primary was silent for long."""
SETTLE_S: Final = 5.0
"""How long nobody may have written to a file before it is taken: a slow copy under its final name looks whole."""


class Follower:
    """Loads each new file once, as the source that `source_of` makes of its path.

    `tell` gets its state after each look through the directory.

    A file that cannot be loaded is logged and counted, and the rest goes on.
    While one is bad, later files that ask for watermarks are loaded but not finished: to say "everything up to here
    is in" would be wrong while something earlier is not.
    """

    def __init__(  # noqa: PLR0913 - what it follows, with what, and how often
        self,
        directory: str,
        *,
        source_of: Callable[[str], Source],
        loader: Loader,
        writer: Writer,
        metrics: FeedMetrics,
        stop: threading.Event,
        tell: Callable[[str], object] = lambda _: None,
        poll_s: float = POLL_S,
        settle_s: float = SETTLE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._source_of = source_of
        self._loader = loader
        self._writer = writer
        self._metrics = metrics
        self._stop = stop
        self._tell = tell
        self._poll_s = poll_s
        self._settle_s = settle_s
        self._clock = clock
        self._settling: dict[str, tuple[Stamp, float]] = {}
        self._done: dict[str, Stamp] = {}
        self._bad: dict[str, Stamp] = {}
        self._waiting: dict[str, Stamp] = {}
        import structlog  # with what it brings a tenth of the start of every other command

        self._log = structlog.get_logger("loader")

    def run(self) -> Report:
        """Poll until `stop` is set; return what was done in all."""
        total = Report(position=self._writer.position)
        self._metrics.at(self._writer.position)
        while not self._stop.is_set():
            self.poll(total)
            state = "failing" if self._bad else "waiting"
            self._metrics.state(state)
            self._tell(state)
            self._rest()
        total.stopped = True
        self._metrics.state("stopped")
        return total

    def _rest(self) -> None:
        """Pause before the next look; a primary says meanwhile that it lives."""
        until_s = time.monotonic() + self._poll_s
        left_s = self._poll_s
        while left_s > 0 and not self._stop.is_set():
            try:
                self._writer.heartbeat()
            except StoreFullError as error:
                self._failed(self._directory, error)
            self._stop.wait(min(left_s, BEAT_S))
            left_s = until_s - time.monotonic()

    def poll(self, total: Report) -> None:
        """Load what is new, once through the directory."""
        try:
            files = paths.files_of(self._directory)
        except SourceError as error:
            self._failed(self._directory, error)
            return
        self._forget_gone(files)
        for path in files:
            if self._stop.is_set():
                return
            self._look_at(path, total)
            self._metrics.waiting(len(files) - len(self._done))
        self._metrics.waiting(len(files) - len(self._done))

    def _look_at(self, path: str, total: Report) -> None:
        try:
            stamp = paths.stamp(path)
        except SourceError:
            return  # it went away while we looked: the next poll sees the directory as it is then
        waits = self._waiting.get(path) == stamp and bool(self._bad)
        if stamp in (self._done.get(path), self._bad.get(path)) or waits:
            return
        if not self._is_settled(path, stamp):
            return
        self._metrics.state("loading")
        self._bad.pop(path, None)
        try:
            finished = self._loader.load_source(self._source_of(path), total, may_move=not self._bad)
        except StoreFullError as error:
            self._failed(path, error)  # not remembered: the next poll tries again
        except SourceError as error:
            self._bad[path] = stamp
            self._failed(path, error)
        else:
            if finished:
                self._done[path] = stamp
                self._waiting.pop(path, None)
                self._log.info("source loaded", source=path, sequence=total.position.sequence)
            elif not self._stop.is_set():
                self._waiting[path] = stamp
                self._log.warning("watermark waits for a bad source", source=path)
        self._metrics.at(self._writer.position)

    def _is_settled(self, path: str, stamp: Stamp) -> bool:
        """Say whether nobody has written to a file for a while, by its times or, where they lie, by our own watch."""
        before, since = self._settling.get(path, (None, 0.0))
        now = time.monotonic()
        if before != stamp:
            since = now
            self._settling[path] = stamp, now
        age = self._clock() - stamp.touched_s
        settled = age >= self._settle_s or now - since >= self._settle_s
        if settled:
            self._settling.pop(path, None)
        return settled

    def _forget_gone(self, files: list[str]) -> None:
        present = set(files)
        for known in (self._done, self._bad, self._waiting, self._settling):
            for path in known.keys() - present:
                known.pop(path)

    def _failed(self, path: str, error: SourceError | StoreFullError) -> None:
        self._metrics.failed(error.reason)
        self._log.error("source not loaded", source=path, reason=error.reason, message=str(error))
