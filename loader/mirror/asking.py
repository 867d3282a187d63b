"""Streams as tasks: asked for by the account whose they are, told of where something is amiss."""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from iyscheck.errors import SourceError, StoreFullError
from loader.iys.clock import Clock
from loader.iys.faults import IysFault
from loader.iys.messages import Page
from loader.mirror.looking import Looking
from loader.mirror.pulling import Pulling, Taken
from loader.mirror.tasks import Task, name_of
from loader.sources.pull.passes import Changes, fetch
from loader.sources.pull.steps import Ask, Ending, Stream

NEW: Final = "new"
"""The ending of a stream that was not read to any end yet."""


class Asking:
    """The part that pulls. `seen` is told what came of each answer."""

    def __init__(
        self,
        pulling: Pulling,
        looking: Looking,
        iys: Mapping[str, Changes],
        *,
        clock: Clock,
        seen: Callable[[Taken, Page | IysFault], None],
    ) -> None:
        import structlog

        self._log = structlog.get_logger("mirror")
        self._pulling = pulling
        self._looking = looking
        self._iys = iys
        self._clock = clock
        self._seen = seen
        self._endings: dict[Stream, str] = {}

    @property
    def next_s(self) -> float | None:
        """When the next stream is due."""
        return self._pulling.schedule.next_s

    @property
    def late_s(self) -> float:
        """By how many seconds the queue is behind."""
        return self._pulling.schedule.late_s(self._clock.now())

    def endings(self) -> Counter[str]:
        """Count the streams that run by how their last walk ended."""
        return Counter(self._endings.get(stream, NEW) for stream in self._pulling.schedule)

    def next(self) -> Task | None:
        """Ask for the next page that is due."""
        found = self._pulling.next()
        return None if found is None else self._task(*found)

    def _task(self, stream: Stream, ask: Ask) -> Task | None:
        account = self._looking.account_of(stream)
        if account is None:
            self._pulling.leave(stream)
            return None
        return Task(ask=partial(fetch, self._iys[account], stream, ask), take=partial(self._took, stream, account))

    def _took(self, stream: Stream, account: str, answer: object) -> Task | None:
        """Give an answer to its walk."""
        if not isinstance(answer, Page | IysFault):
            self._log.error("asking_broke", stream=stream.name, error=type(answer).__name__)
            self._pulling.leave(stream)
            return None
        self._looking.noted(account, answer if isinstance(answer, IysFault) else None)
        try:
            taken = self._pulling.take(stream, answer)
        except (SourceError, StoreFullError) as error:
            self._log.error("page_not_committed", stream=stream.name, reason=error.reason, message=str(error))
            return None
        self._tell(stream, taken)
        self._seen(taken, answer)
        return None if taken.ask is None else self._task(stream, taken.ask)

    def _tell(self, stream: Stream, taken: Taken) -> None:
        """Log what people should know."""
        commit, end = taken.commit, taken.end
        if commit is not None and commit.gap:
            self._log.error("stream_gap", stream=stream.name, covered_from=commit.covered_from)
        if commit is not None and commit.doubt is not None:
            self._log.warning("stream_doubt", stream=stream.name, doubt=commit.doubt.value)
        if commit is not None and commit.reached is not None and commit.reached.skewed:
            self._log.warning("clock_skew", stream=stream.name)
        if end is None:
            return
        before = self._endings.get(stream)
        self._endings[stream] = end.ending.value.lower()
        if end.ending is not Ending.COMPLETE and before != end.ending.value.lower():
            fault = end.fault
            said = {} if fault is None else {"fault": name_of(fault), "status": fault.status, "code": fault.code}
            self._log.warning("stream_not_read", stream=stream.name, ending=end.ending.value.lower(), **said)
