"""One pass through a stream, decided without a clock, a network or a store: answers go in, questions and commits out.

A cursor is opaque and is trusted no further than İYS's words go. It never moves past a row that is so young that an
older one may still appear behind it. And it never ends between two rows of one second where that can be helped: two
movements of one second may share their transaction id, and a cursor behind the first may skip the second. So of a
page behind which more may follow the last second is asked for again (a *cut*).
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, TypeGuard

import msgspec
import numpy as np

from iyscheck.store.layout import SourceState
from loader.iys.faults import (
    AuthFailedFault,
    ForbiddenFault,
    IysFault,
    LockedFault,
    RefusedFault,
    SlowedFault,
    TransientFault,
)
from loader.iys.messages import Asked, Page
from loader.reading import times
from loader.reading import vocabulary as names
from loader.reading.times import AHEAD_MAX_S
from loader.sources.pull import coverage
from loader.sources.pull.steps import Ask, Commit, End, Ending, Reached
from loader.sources.pull.terms import (
    CAPPED_ROWS,
    CUTS,
    EDGE_S,
    PAGE_ROWS,
    PAUSE_MAX_S,
    SWEEP_ROWS,
    TRIES,
    VISIBLE_S,
    WINDOW_S,
    Doubt,
)

Rows = tuple[dict[str, object], ...]
_LEAVES: Final = (
    (SlowedFault, Ending.SLOWED),
    (TransientFault, Ending.FAILED),
    (RefusedFault, Ending.REFUSED),
    (ForbiddenFault, Ending.FORBIDDEN),
    (AuthFailedFault, Ending.AUTH_FAILED),
    (LockedFault, Ending.LOCKED),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """A page, its rows that are new, and how many of its rows are asked for again if more may follow."""

    page: Page
    rows: Rows
    at: int
    newest: int
    doubt: Doubt | None


class Walk:
    """A pass of a stream from its cursor on, or as a sweep through everything that İYS shows.

    Do what `ask` says and give the answer to `answered` or `failed`; commit what these return, and tell `committed`.
    When `ask` is None, `end` says how it ended. It may be left at any moment: a new walk goes on from the stored state.
    `now_s` is the clock's time (seconds UTC), `rows` how many are asked for at once; `chance` gives numbers
    from 0 to 1.
    """

    def __init__(
        self,
        state: SourceState,
        *,
        now_s: float,
        sweep: bool = False,
        rows: int | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.end: End | None = None
        self._covered = range(state.covered_from, state.covered_until)
        self._sweep = sweep
        self._hopes = sweep and bool(state.doubt)  # to end it; if it does not, the doubt is no younger
        self._chance = chance
        self._limit = rows or (SWEEP_ROWS if sweep else PAGE_ROWS)
        self._at = None if sweep or _is_out_of_sight(state, now_s) else state.cursor or None
        self._cursor: str | None = None
        self._seen: set[str] = set()
        self._read_until = state.covered_until or state.covered_from
        self._since = 0
        self._began: Asked | None = None
        self._basis: Asked | None = None
        self._latest: Asked | None = None
        self._skewed = False
        self._doubted = False
        self._rows = 0
        self._last = 0
        self._cut: _Cut | None = None
        self._cuts = 0
        self._tail: frozenset[bytes] = frozenset()
        self._tries = 0
        self._delay_s = 0.0
        self._reset = False
        self._lateness = state.lateness
        self._late = 0

    @property
    def ask(self) -> Ask | None:
        """What to ask for now; None when the walk has ended."""
        if self.end is not None:
            return None
        limit = self._limit if self._cut is None else self._cut.at
        return Ask(after=self._at, limit=limit, delay_s=self._delay_s)

    @property
    def is_sweep(self) -> bool:
        """Whether it goes through everything that İYS shows."""
        return self._sweep

    def answered(self, page: Page) -> Commit | None:
        """Take what was asked for; return what to commit, if anything."""
        asked = page.asked
        self._tries, self._delay_s = 0, 0.0
        self._latest = asked
        self._skewed |= coverage.is_skewed(asked)
        if self._began is None:
            self._began = asked
            self._since = coverage.start_of(asked)
            if self._sweep or not self._read_until:
                self._read_until = self._since
        if self._cut is not None:
            return self._cut_to(self._cut, page)
        if coverage.is_lost(self._read_until, asked):
            return self._overtaken(asked)
        return self._took(page) if page.rows else self._ended(asked)

    def failed(self, fault: IysFault) -> Commit | None:
        """Take that there was no answer; return what to commit, if anything."""
        if isinstance(fault, TransientFault | SlowedFault) and self._tries < TRIES - 1:
            self._delay_s = min(2.0**self._tries, PAUSE_MAX_S) * self._chance()
            self._delay_s += isinstance(fault, SlowedFault)
            self._tries += 1
            return None
        if isinstance(fault, RefusedFault) and self._cut is not None:
            return self._uncut(self._cut)
        if isinstance(fault, RefusedFault) and self._at is not None and not self._reset:
            self._reset = True
            return self._from_the_start()
        ending = next((ending for kind, ending in _LEAVES if isinstance(fault, kind)), Ending.FAILED)
        self.end = End(ending=ending, fault=fault)
        return None

    def committed(self, earliest: int) -> None:
        """Take note of a commit; `earliest` is the first local second of what changed the store, 0 if nothing did.

        What changes the store though it was covered came later than İYS promises.
        """
        if not earliest or self._latest is None:
            return
        created = times.utc_seconds(earliest)
        if created in self._covered:
            self._late = max(self._late, coverage.lateness_of(created, self._latest))
            self._lateness = max(self._lateness, self._late)

    def _took(self, page: Page) -> Commit | None:
        """Judge a page of rows."""
        created = _created(page)
        rows, doubt = self._beyond_the_tail(page.rows)
        known = [each for each in created if each]
        is_ordered = not _falls([self._last, *known])
        all_at_once = self._sweep and self._at is None and len(page.rows) < self._limit  # whatever their order
        if not (is_ordered or all_at_once):
            doubt = Doubt.DISORDER
        if not self._leads_on(page.after):
            self.end = End(ending=Ending.STUCK)
            return self._commit(rows, doubt=Doubt.CURSOR_STUCK)
        newest = max(known, default=0)
        cut = _Cut(page=page, rows=rows, at=_cut_of(page.rows, created), newest=newest, doubt=doubt)
        return self._placed(cut, page.after, may_end=is_ordered)

    def _leads_on(self, cursor: str | None) -> TypeGuard[str]:
        """Say whether a cursor is a new one."""
        return bool(cursor) and cursor != self._at and cursor not in self._seen

    def _placed(self, taken: _Cut, cursor: str, *, may_end: bool) -> Commit | None:
        """Commit a page, if its rows are old enough with the cursor behind it; cut it first where more may follow.

        If it `may_end` the pass, nothing that is older than its youngest row can stand behind it.
        """
        page, newest, doubt = taken.page, taken.newest, taken.doubt
        full = len(page.rows) >= self._limit
        shown = coverage.careful_time(page.asked) - VISIBLE_S - EDGE_S
        if self._basis is None and newest > shown - self._lateness:
            self._basis = page.asked
        if self._basis is not None:
            if may_end and newest > shown and not full:
                return self._ended(page.asked, taken.rows, doubt)
            self._move(cursor, newest)
            return self._commit(taken.rows, doubt=doubt)
        if taken.at and (full or len(page.rows) >= CAPPED_ROWS):
            self._cut = taken
            return None
        return self._uncut(taken) if full else self._moved(taken.rows, cursor, newest, doubt)

    def _cut_to(self, cut: _Cut, page: Page) -> Commit | None:
        """Take the beginning of a page: behind its cursor the last seconds are shown again."""
        self._cut = None
        if page.rows != cut.page.rows[: cut.at]:
            self._cuts += 1
            return None if self._cuts < CUTS else self._uncut(cut)
        if not self._leads_on(page.after):
            return self._uncut(cut)
        commit = self._moved(cut.rows, page.after, cut.newest, cut.doubt)
        self._tail = frozenset(map(_encoded, cut.page.rows[cut.at :]))
        return commit

    def _uncut(self, cut: _Cut) -> Commit:
        """Go on behind a page as a whole: a twin of its last row may be skipped."""
        self._cut = None
        return self._moved(cut.rows, cut.page.after or "", cut.newest, Doubt.CURSOR_TWINS)

    def _beyond_the_tail(self, rows: Rows) -> tuple[Rows, Doubt | None]:
        """Take away what was committed with the page before, which must be there again."""
        if not self._tail:
            return rows, None
        tail, self._tail = self._tail, frozenset()
        encoded = [_encoded(row) for row in rows]
        doubt = None if tail <= {*encoded} else Doubt.CURSOR_TWINS
        return tuple(row for row, each in zip(rows, encoded, strict=True) if each not in tail), doubt

    def _from_the_start(self) -> Commit:
        """Drop the cursor: what the window shows again changes nothing."""
        self._at, self._basis = None, None
        self._seen.clear()
        self._last, self._tail = 0, frozenset()
        return self._commit(cursor="")

    def _overtaken(self, asked: Asked) -> Commit | None:
        """Begin anew where the window has overtaken what is covered: rows are lost."""
        if self._sweep:
            self.end = End(ending=Ending.OVERTAKEN)
            return None
        self._from_the_start()
        self._read_until = coverage.start_of(asked)
        return Commit(cursor="", covered_from=self._read_until, gap=True)

    def _move(self, cursor: str, newest: int) -> None:
        """Ask behind a cursor from now on."""
        if self._at is not None:
            self._seen.add(self._at)
        self._at = cursor
        self._last = newest or self._last
        self._read_until = max(self._read_until, newest)

    def _moved(self, rows: Rows, cursor: str, newest: int, doubt: Doubt | None) -> Commit:
        """Commit rows with the cursor behind them."""
        self._move(cursor, newest)
        return self._commit(rows, doubt=doubt, cursor=cursor)

    def _ended(self, asked: Asked, rows: Rows = (), doubt: Doubt | None = None) -> Commit:
        """Say that everything was read that was visible for sure when the walk came near to what was not."""
        self.end = End(ending=Ending.COMPLETE)
        return self._commit(rows, doubt=Doubt.CURSOR_TWINS if self._tail else doubt, ended=asked)

    def _commit(
        self, rows: Rows = (), *, doubt: Doubt | None = None, cursor: str | None = None, ended: Asked | None = None
    ) -> Commit:
        self._rows += len(rows)
        self._doubted |= doubt is not None
        if self._hopes:
            doubt = None
        if self._sweep:  # its cursor counts when all of it is read
            self._cursor = self._cursor if cursor is None else cursor
            cursor = self._cursor if ended is not None and not self._doubted else None
        return Commit(
            rows=rows,
            cursor=cursor,
            covered_from=self._since,
            doubt=doubt,
            doubted_at=0 if self._latest is None else int(coverage.likely_time(self._latest)),
            reached=None if ended is None else self._end_at(ended),
        )

    def _end_at(self, asked: Asked) -> Reached:
        hopeless = self._doubted or self._skewed
        return Reached(
            until=0 if hopeless else coverage.claimable(self._basis or asked, self._lateness),
            polled_at=int(asked.at_s),
            began=int(coverage.likely_time(self._began or asked)),
            sweep=self._sweep,
            since=self._since,
            rows=self._rows,
            late=self._late,
            clean=not self._doubted,
            skewed=self._skewed,
        )


def _is_out_of_sight(state: SourceState, now_s: float) -> bool:
    """Say whether all that was read has left the window. What it shows is new then, and no old cursor need be sent."""
    return state.latest > 0 and times.utc_seconds(state.latest) < now_s - WINDOW_S - VISIBLE_S


def _created(page: Page) -> list[int]:
    """Say when each row was registered, seconds UTC; 0 where that cannot be read or lies in the future."""
    texts = (row.get(names.CREATION_DATE) for row in page.rows)
    local = times.seconds_of([text if isinstance(text, str) else None for text in texts])
    now = int(coverage.likely_time(page.asked))
    local_now = times.local_now(now)
    created: list[int] = np.where((local > 0) & (local <= local_now + AHEAD_MAX_S), local + now - local_now, 0).tolist()
    return created


def _falls(created: Sequence[int]) -> bool:
    """Say whether any row was registered before one that stands above it."""
    return any(later < earlier for earlier, later in pairwise(created))


def _cut_of(rows: Rows, created: Sequence[int]) -> int:
    """Say how many rows of a page stand before its last second; 0 if all share one second and one transaction."""
    last = next((each for each in reversed(created) if each), 0)
    befores = (at for at in range(len(rows) - 1, 0, -1) if 0 < created[at - 1] < last)
    keys = [(row.get(names.CREATION_DATE), row.get(names.TRANSACTION_ID)) for row in rows]
    unequal = (at for at in range(len(rows) - 1, 0, -1) if keys[at - 1] != keys[at])
    return next(befores, 0) or next(unequal, 0)


def _encoded(row: dict[str, object]) -> bytes:
    return msgspec.json.encode(row, order="sorted")
