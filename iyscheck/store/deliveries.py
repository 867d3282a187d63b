"""What a commit means to the feed that it is of: when it came, and how long its refusals were on their way.

A refusal counts when it is live: it changes the store, its brand had a watermark before, and it was registered after
that watermark or in the week before it. So neither a first load nor an archive counts, nor what is loaded again; and
what comes behind a watermark, or after a feed was dead for weeks, does (decision 86).
"""

from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from iyscheck.change import ConsentColumns
from iyscheck.consent import Status
from iyscheck.store.layout import DELAYS_S, FeedState
from iyscheck.store.registries import Registries

DAY_S: Final = 24 * 3600
HISTORY_S: Final = 7 * DAY_S
"""How far behind a watermark a row may be registered and is no archive's: no feed of İYS goes back further."""
PROMISE_S: Final = 36 * 3600
"""When a refusal is late, unless somebody says otherwise: a daily file may come as late as noon."""
MOST_FEEDS: Final = 8
OTHER: Final = "other"
"""The feed that all together are which come when there are as many as are told apart."""
_NEVER: Final = np.iinfo(np.int64).max
_FADES_IN: Final = 3
"""After so many times its length the longest pause counts half."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A commit of a feed at `now_s` (UTC), when İYS's clocks show `local_s` (local seconds).

    `every_s` is how many seconds may lie between two successes; None leaves what is known. Where that is nothing, a
    feed that `learns` takes it from its own rhythm. A refusal is late after more than `promise_s`.
    """

    feed: str
    now_s: int
    local_s: int
    every_s: int | None = None
    promise_s: int = PROMISE_S
    learns: bool = False

    def delays(self, registries: Registries, changes: ConsentColumns) -> npt.NDArray[np.int64]:
        """Return after how many seconds each live refusal among changes that were written has become visible.

        The watermarks are those of before the commit.
        """
        refused = changes.status == Status.RET
        if not refused.any():
            return np.zeros(0, np.int64)
        registered = changes.registered[refused]
        brands, which = np.unique(changes.brand[refused], return_inverse=True)
        watermarks = [registries.watermark(brand) for brand in brands.tolist()]
        behind = self.local_s - self.now_s - HISTORY_S
        since = np.array([_NEVER if each is None else each + behind for each in watermarks], np.int64)
        delays: npt.NDArray[np.int64] = self.local_s - registered[registered > since[which]]
        return delays.clip(min=0)

    def note(self, registries: Registries, delays: npt.NDArray[np.int64] | None, *, finished: bool) -> None:
        """Write into the store what is known of the feed after this commit, which may have `finished` a source."""
        feed = registries.feed(self._name(registries))
        feed = msgspec.structs.replace(
            feed, committed=self.now_s, every=feed.every if self.every_s is None else self.every_s
        )
        if delays is not None and delays.size:
            places = np.bincount(np.searchsorted(DELAYS_S, delays), minlength=len(feed.delays)).tolist()
            feed = msgspec.structs.replace(
                feed,
                refusals=feed.refusals + delays.size,
                late=feed.late + int((delays > self.promise_s).sum()),
                delays=tuple(before + new for before, new in zip(feed.delays, places, strict=True)),
                delay_sum=feed.delay_sum + int(delays.sum()),
            )
        if finished:
            rhythm = rhythm_after(feed, self.now_s) if self.learns else feed.rhythm
            feed = msgspec.structs.replace(feed, succeeded=self.now_s, rhythm=rhythm)
        registries.put_feed(feed)

    def _name(self, registries: Registries) -> str:
        known = registries.feed_names() - {OTHER}
        return self.feed if self.feed in known or len(known) < MOST_FEEDS else OTHER


def rhythm_after(feed: FeedState, now_s: int) -> int:
    """Say how long the pauses of a feed are that succeeds now: the longest of late, and never less than a day.

    A hundred files in a minute and then nothing until tomorrow are a daily feed; one that brings more says how often.
    """
    if not feed.succeeded:
        return max(feed.rhythm, DAY_S)
    pause = max(now_s - feed.succeeded, 0)
    fading = feed.rhythm and round(feed.rhythm * 0.5 ** (pause / (_FADES_IN * feed.rhythm)))
    return max(pause, fading, DAY_S)
