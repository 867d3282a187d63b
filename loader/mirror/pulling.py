"""Streams in turns: which page is asked for next, and what is done with the answer.

A walk that is not at its end keeps its place between turns: one brand that has a week to catch up leaves room for the
others, and a request that is to be made again waits without holding anybody up. In the thread of the writer, all of it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from loader.iys.clock import Clock
from loader.iys.faults import IysFault, LockedFault
from loader.iys.messages import Page
from loader.mirror.schedule import PAGES_A_TURN, Outcome, Schedule
from loader.sources.pull import coverage
from loader.sources.pull.steps import Ask, Commit, End, Ending, Reached, Stream
from loader.sources.pull.streams import Committed, Streams
from loader.sources.pull.walk import Walk

SWEEP_PAUSE_S: Final = 3_600.0
"""A stream in doubt is swept at most so often: a sweep reads a week."""
CURRENT_S: Final = 86_400.0
"""A stream that was not read to its end for so long is not swept."""

_OUTCOMES: Final = {
    Ending.FORBIDDEN: Outcome.FORBIDDEN,
    Ending.COMPLETE: Outcome.QUIET,
}
"""What the ends of walks mean for the queue; every other one failed."""


@dataclass(slots=True)
class _Turn:
    """A walk under way, how many pages of this turn it has asked for, and how many rows changed the store."""

    walk: Walk
    pages: int = 0
    rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What came of an answer. `ask` is what to ask for now, None where the turn is over; `end` where the walk is."""

    stream: Stream
    ask: Ask | None
    commit: Commit | None
    committed: Committed | None
    end: End | None


class Pulling:
    """All streams. `keep` is given what is about to be committed."""

    def __init__(
        self,
        streams: Streams,
        schedule: Schedule[Stream],
        *,
        clock: Clock,
        chance: Random,
        keep: Callable[[Stream, Commit], None],
    ) -> None:
        self.schedule = schedule
        self._streams = streams
        self._clock = clock
        self._chance = chance
        self._keep = keep
        self._turns: dict[Stream, _Turn] = {}
        self._swept_s: dict[Stream, float] = {}
        self._to_sweep: set[Stream] = set()
        self._unsure: set[Stream] = set()
        self._unconfirmed: dict[Stream, list[Reached]] = {}

    @property
    def is_unconfirmed(self) -> bool:
        """Whether anything was read to its end that waits to be confirmed."""
        return any(self._unconfirmed.values())

    def add(self, stream: Stream, *, is_unsure: bool = False) -> None:
        """Take in a stream. One that `is_unsure` may lack rows without a word: its claims wait for `confirm`."""
        if is_unsure:
            self._unsure.add(stream)
        else:
            self._unsure.discard(stream)
            self._unconfirmed.pop(stream, None)
        if stream not in self.schedule:
            state = self._streams.state(stream)
            self.schedule.add(stream, self._clock.now(), asked_s=float(state.polled_at))

    def remove(self, stream: Stream) -> None:
        """Leave a stream where it is."""
        self.schedule.remove(stream)
        self._to_sweep.discard(stream)
        self._unconfirmed.pop(stream, None)

    def confirm(self, streams: Iterable[Stream], asked_s: float) -> None:
        """Claim what was read of streams before a moment at which all of it might be read. Raises as `take`.

        Args:
            streams: of which İYS said so.
            asked_s: when it was asked that, seconds UTC.
        """
        for stream in streams:
            waiting = self._unconfirmed.get(stream, [])
            sure = [reached for reached in waiting if reached.polled_at < int(asked_s)]
            if sure:
                self._unconfirmed[stream] = waiting[len(sure) :]
                self._streams.claim(stream, max(sure, key=lambda reached: reached.until))

    def sweep(self, stream: Stream) -> None:
        """Have a stream read through as a whole, from its next walk on."""
        self._to_sweep.add(stream)

    def hasten(self, stream: Stream) -> None:
        """Let a stream be due now."""
        self.schedule.hasten(stream, self._clock.now())

    def next(self) -> tuple[Stream, Ask] | None:
        """Begin or go on with the turn of the stream that is due for longest."""
        now = self._clock.now()
        while (stream := self.schedule.take(now)) is not None:
            turn = self._turns.get(stream)
            if turn is None:
                turn = self._turns[stream] = _Turn(self._walk(stream, now))
            if (ask := turn.walk.ask) is not None:
                turn.pages = 1
                return stream, ask
            self._end(stream, turn, now)
        return None

    def take(self, stream: Stream, answer: Page | IysFault) -> Taken:
        """Give an answer to the walk of a stream, and commit what it says.

        Raises SourceUnreadableError, StoreError; nothing is lost, as the next walk goes on from what is stored.
        """
        turn = self._turns[stream]
        walk = turn.walk
        commit, committed = None, None
        try:
            commit = walk.failed(answer) if isinstance(answer, IysFault) else walk.answered(answer)
            if commit is not None:
                commit = self._careful(stream, commit)
                self._keep(stream, commit)
                committed = self._streams.commit(stream, commit)
                walk.committed(committed.earliest)
                turn.rows += committed.applied.applied
        except BaseException:
            self.leave(stream)
            raise
        ask = self._go_on(stream, turn)
        return Taken(stream=stream, ask=ask, commit=commit, committed=committed, end=walk.end)

    def leave(self, stream: Stream) -> None:
        """End a turn without an answer that anybody could take: a new walk begins later from what is stored."""
        self._turns.pop(stream, None)
        self.schedule.give_back(stream, self._clock.now(), Outcome.FAILED)

    def _careful(self, stream: Stream, commit: Commit) -> Commit:
        """Let the claim of an unsure stream wait; what was read before a doubt is not claimed any more."""
        reached = commit.reached
        if stream not in self._unsure or (reached is None and not commit.gap and commit.doubt is None):
            return commit
        if reached is None or not reached.until:
            self._unconfirmed.pop(stream, None)
            return commit
        self._unconfirmed.setdefault(stream, []).append(reached)
        return replace(commit, reached=replace(reached, until=0))

    def _go_on(self, stream: Stream, turn: _Turn) -> Ask | None:
        """Say what to ask for now, or end the turn."""
        now, ask = self._clock.now(), turn.walk.ask
        if ask is None or stream not in self.schedule:
            self._end(stream, turn, now)
        elif ask.delay_s:
            self.schedule.give_back(stream, now, Outcome.AGAIN, until_s=now + ask.delay_s)
        elif turn.pages >= PAGES_A_TURN:
            self.schedule.give_back(stream, now, Outcome.MORE)
        else:
            turn.pages += 1
            return ask
        return None

    def _end(self, stream: Stream, turn: _Turn, now: float) -> None:
        """End a walk."""
        del self._turns[stream]
        end = turn.walk.end
        outcome = Outcome.FAILED if end is None else _OUTCOMES.get(end.ending, Outcome.FAILED)
        if outcome is Outcome.QUIET and turn.rows:
            outcome = Outcome.ROWS
        fault = None if end is None else end.fault
        until_s = fault.until_s if isinstance(fault, LockedFault) else 0.0
        self.schedule.give_back(stream, now, outcome, until_s=until_s)

    def _walk(self, stream: Stream, now: float) -> Walk:
        """Begin a walk: as a sweep where that was asked for, or where only one can end a doubt."""
        state = self._streams.state(stream)
        swept_s = self._swept_s.get(stream)
        is_rested = swept_s is None or not 0 <= now - swept_s < SWEEP_PAUSE_S
        is_current = now - state.polled_at < CURRENT_S  # else a walk has to tell first whether rows are lost
        sweep = is_rested and is_current and (stream in self._to_sweep or coverage.needs_sweep(state))
        if sweep:
            self._to_sweep.discard(stream)
            self._swept_s[stream] = now
        return Walk(state, now_s=now, sweep=sweep, chance=self._chance.random)
