"""What a stream covers, and how that grows: the one place that decides what may be claimed of a brand's changes.

All of it is arithmetic on stored states and on the times of requests.
"""

import msgspec

from iyscheck.store.layout import SourceState, Span
from loader.iys.messages import Asked
from loader.sources.pull.steps import Commit, Reached
from loader.sources.pull.terms import (
    GAP_MARGIN_S,
    LATENESS_MAX_S,
    SKEW_MAX_S,
    SLACK_S,
    SLACK_UNDATED_S,
    START_MARGIN_S,
    VISIBLE_S,
    WINDOW_S,
    Doubt,
)


def careful_time(asked: Asked) -> float:
    """Say what time it was at İYS at the earliest when a request left."""
    return asked.at_s + min(asked.ahead_s or 0.0, 0.0)


def likely_time(asked: Asked) -> float:
    """Say what time it was at İYS when a request left, by its own clock where that is known."""
    return asked.at_s + (asked.ahead_s or 0.0)


def is_skewed(asked: Asked) -> bool:
    """Say whether the clocks differ too much for a claim."""
    return asked.ahead_s is not None and abs(asked.ahead_s) > SKEW_MAX_S


def claimable(asked: Asked, lateness: int) -> int:
    """Say until when everything is in if whatever İYS showed when this was asked is, and the clocks agree."""
    slack = SLACK_UNDATED_S if asked.ahead_s is None else SLACK_S
    return int(careful_time(asked)) - VISIBLE_S - slack - lateness


def start_of(asked: Asked) -> int:
    """Say from when on everything is read by whoever begins at the window's start now, as İYS shows it."""
    return int(max(asked.at_s, likely_time(asked))) - WINDOW_S + START_MARGIN_S


def is_lost(read_until: int, asked: Asked) -> bool:
    """Say whether what follows a moment has left the window, or is about to."""
    return read_until < likely_time(asked) - WINDOW_S + GAP_MARGIN_S


def lateness_of(created: int, asked: Asked) -> int:
    """Say by how much a row may have come later than promised that was found now; never more than is waited for."""
    return min(max(int(likely_time(asked)) - created - VISIBLE_S, 0), LATENESS_MAX_S)


def needs_sweep(state: SourceState) -> bool:
    """Say whether only a look at everything that İYS shows can end a doubt."""
    return bool(state.doubt)


def after(state: SourceState, commit: Commit, watermark: int | None) -> SourceState:
    """Say what a stream covers after a commit; `watermark` is that of its brand before it, seconds UTC."""
    if commit.gap:
        state = msgspec.structs.replace(
            state, covered_from=commit.covered_from, covered_until=0, cursor="", doubt="", doubted_at=0
        )
    elif not state.covered_from:
        state = msgspec.structs.replace(state, covered_from=commit.covered_from)
    if commit.cursor is not None:
        state = msgspec.structs.replace(state, cursor=commit.cursor)
    if commit.doubt is not None:
        state = doubted(state, commit.doubt, commit.doubted_at)
    return state if commit.reached is None else _reached(state, commit.reached, watermark)


def doubted(state: SourceState, doubt: Doubt, at_s: int) -> SourceState:
    """Claim nothing of a stream until the doubt is ended: by a sweep, or by a watermark that others moved past it."""
    return msgspec.structs.replace(state, doubt=doubt.value, doubted_at=max(at_s, state.doubted_at))


def _reached(state: SourceState, reached: Reached, watermark: int | None) -> SourceState:
    forgives = reached.sweep and reached.clean and not reached.late
    lateness = state.lateness // 2 if forgives else max(state.lateness, reached.late)
    state = msgspec.structs.replace(state, polled_at=reached.polled_at, lateness=lateness)
    if state.doubt and reached.clean and state.doubted_at < reached.began:
        state = _settled(state, reached, watermark)
    if state.doubt or not reached.until:
        return state
    if reached.sweep and state.covered_until < reached.since:
        state = msgspec.structs.replace(state, covered_from=max(state.covered_from, reached.since))
    if reached.until <= state.covered_from:
        return state
    return msgspec.structs.replace(state, covered_until=max(state.covered_until, reached.until))


def _settled(state: SourceState, reached: Reached, watermark: int | None) -> SourceState:
    """End a doubt that came up before a pass, if it may be."""
    if reached.sweep and (reached.rows or state.doubt != Doubt.IYS_FEED_SILENT):
        return msgspec.structs.replace(state, doubt="", doubted_at=0)
    proved = state.doubted_at + SLACK_S  # what may have been missed was registered before
    if reached.sweep or watermark is None or watermark < proved:
        return state
    return msgspec.structs.replace(state, doubt="", doubted_at=0, covered_from=max(state.covered_from, proved))


def proved(brand: int, one: SourceState, other: SourceState | None) -> Span | None:
    """Say of which time everything of a brand is in: what both halves of its changes cover."""
    if other is None or not (one.covered_until and other.covered_until):
        return None
    start, end = max(one.covered_from, other.covered_from), min(one.covered_until, other.covered_until)
    return Span(brand=brand, start=start, end=end) if start < end else None
