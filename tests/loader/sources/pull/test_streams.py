"""What a pull commits: rows, rejects, cursors and watermarks of a brand, in a real store."""

import threading
from pathlib import Path

import pytest

from iyscheck.store.layout import SourceState
from loader.iys.messages import FeedSource
from loader.loading.options import Options
from loader.sources.pull.passes import Passed, pull_stream
from loader.sources.pull.steps import Stream
from loader.sources.pull.streams import Streams
from loader.sources.pull.terms import SLACK_S, VISIBLE_S
from tests.builders import ADDRESS_KEY, STORE_KEY, a_batch, a_brand
from tests.loader.feeds import Desk
from tests.loader.sources.pull.feed import Feed


class FeedClock:
    """The asker's clock of a feed in memory: it waits by moving on."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def now(self) -> float:
        """Return the time."""
        return self._feed.now - self._feed.ahead_s

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Let the time pass."""
        self._feed.now += seconds
        return stop.is_set()


class Pulling:
    """A store into which both halves of one brand's changes are pulled."""

    def __init__(self, path: Path) -> None:
        self.desk = Desk(path)
        self.feeds = {source: Feed() for source in FeedSource}
        self.writer = self.desk.writer()
        self.streams = Streams(
            self.writer,
            address_key=ADDRESS_KEY,
            store_key=STORE_KEY,
            options=Options(rejects=self.desk.rejects),
            clock=lambda: self.feeds[FeedSource.HS].now,
        )

    def pull(self, source: FeedSource, *, sweep: bool = False) -> Passed:
        """Walk through one half to its end."""
        feed = self.feeds[source]
        stream = Stream(iys_code=600_000, brand=1, source=source)
        return pull_stream(
            feed, self.streams, stream, clock=FeedClock(feed), stop=threading.Event(), sweep=sweep, chance=lambda: 0.0
        )

    def seed(self, until: int) -> None:
        """Say that everything up to a moment is in."""
        state = SourceState(name="seed", watermarks=((1, until),))
        self.writer.apply(a_batch(brands=[a_brand()]), state, finished=True)

    @property
    def watermark(self) -> int | None:
        """That of the brand, seconds UTC."""
        return self.writer.coverage(1)[0]


@pytest.fixture(name="pulling")
def _pulling(tmp_path: Path) -> Pulling:
    return Pulling(tmp_path)


def test_both(pulling: Pulling) -> None:
    """The watermark moves to what both halves cover, when there is a seed."""
    now = int(pulling.feeds[FeedSource.HS].now)
    pulling.seed(now - 86_400)
    pulling.pull(FeedSource.HS)
    before = pulling.watermark

    pulling.pull(FeedSource.IYS)

    assert (before, pulling.watermark) == (now - 86_400, now - VISIBLE_S - SLACK_S)
