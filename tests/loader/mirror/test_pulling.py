"""Streams in turns over a real store: nobody waits for one that has a week to bring, and no walk loses its place."""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from iyscheck.errors import StoreFullError
from iyscheck.store.writer import Writer
from loader.iys.faults import ForbiddenFault, IysFault, LockedFault, TransientFault
from loader.iys.messages import FeedSource
from loader.loading.options import Options
from loader.mirror.pulling import SWEEP_PAUSE_S, Pulling, Taken
from loader.mirror.schedule import FORBIDDEN_PAUSE_S, JITTER, PAGES_A_TURN, Schedule
from loader.sources.pull.passes import fetch
from loader.sources.pull.steps import Commit, Ending, Stream
from loader.sources.pull.streams import Streams
from loader.sources.pull.terms import SLACK_S, SWEEP_ROWS, VISIBLE_S, Doubt
from tests.builders import ADDRESS_KEY, NOW, STORE_KEY
from tests.loader.feeds import Desk
from tests.loader.sources.pull.feed import Feed

INTERVAL_S = 600.0


class Streaming:
    """Streams of one brand each, whose feeds share a clock, pulled by turns into one store."""

    def __init__(self, path: Path) -> None:
        self.now_s = float(NOW)
        self.desk = Desk(path)
        self.writer = self.desk.writer()
        self.streams = Streams(
            self.writer,
            address_key=ADDRESS_KEY,
            store_key=STORE_KEY,
            options=Options(rejects=self.desk.rejects),
            clock=self.now,
        )
        self.feeds: dict[Stream, Feed] = {}
        self.kept: list[Commit] = []
        self.pulling = self.begun()

    def begun(self) -> Pulling:
        """Begin as a process does."""
        return Pulling(
            self.streams,
            Schedule(interval_s=INTERVAL_S, idle_interval_s=1_800.0, chance=Random(0)),
            clock=self,  # type: ignore[arg-type] # nobody waits here
            chance=Random(0),
            keep=lambda _, commit: self.kept.append(commit),
        )

    def now(self) -> float:
        """Return the time."""
        return self.now_s

    def stream(self, brand: int, faults: list[IysFault] | None = None) -> Stream:
        """Make a stream with a feed of its own."""
        stream = Stream(iys_code=600_000, brand=brand, source=FeedSource.HS)
        self.feeds[stream] = Feed(faults or [])
        self.pulling.add(stream)
        return stream

    def ask(self) -> Taken | None:
        """Let the stream that is due ask once, in a world whose clocks agree."""
        found = self.pulling.next()
        return None if found is None else self._answered(*found)

    def _answered(self, stream: Stream, ask: object) -> Taken:
        feed = self.feeds[stream]
        feed.now = self.now_s
        return self.pulling.take(stream, fetch(feed, stream, ask))  # type: ignore[arg-type] # what `next` gave

    def turn(self) -> list[Taken]:
        """Let the stream that is due have its turn; nothing where none is."""
        taken = [first for first in [self.ask()] if first is not None]
        while taken and (ask := taken[-1].ask) is not None:
            taken.append(self._answered(taken[-1].stream, ask))
        return taken

    def pass_time(self) -> None:
        """Let time pass until the next stream is due."""
        assert self.pulling.schedule.next_s is not None
        self.now_s = max(self.now_s, self.pulling.schedule.next_s)


@pytest.fixture(name="streaming")
def _streaming(tmp_path: Path) -> Iterator[Streaming]:
    streaming = Streaming(tmp_path)
    yield streaming
    streaming.writer.close()


def test_turns(streaming: Streaming) -> None:
    """A stream with very much to bring has ten pages a turn, goes on where it was, and the others come in between."""
    big, small = streaming.stream(1), streaming.stream(2)
    feed = streaming.feeds[big]
    feed.cap = 40
    for number in range(1_200):
        feed.move(age_s=90_000 - number)
    turns: list[tuple[Stream, int]] = []
    for _ in range(6):
        taken = streaming.turn()
        if taken:
            turns.append((taken[0].stream, len(taken)))

    assert turns[0] == (big, PAGES_A_TURN)
    assert turns[1] == (small, 1)
    assert {stream for stream, _ in turns[2:]} == {big}
    assert sum(len(commit.rows) for commit in streaming.kept) >= 1_200
    assert streaming.streams.state(big).rows >= 1_200
    repeated = Counter(after for after, _ in feed.asked)
    assert repeated[None] <= 2, "no turn begins at the window's start again"


def test_again(streaming: Streaming) -> None:
    """A request that is to be made again waits in the queue; it is made then, and the pass ends well."""
    stream = streaming.stream(1, [TransientFault("down", status=500)] * 2)
    first = streaming.turn()
    waits_s = streaming.pulling.schedule.next_s
    assert [taken.end for taken in first] == [None]
    assert waits_s is not None
    assert waits_s - streaming.now_s <= 1

    endings: list[Ending] = []
    while not endings:
        streaming.pass_time()
        endings = [taken.end.ending for taken in streaming.turn() if taken.end is not None]

    assert endings == [Ending.COMPLETE]
    assert len(streaming.feeds[stream].asked) == 3
    assert streaming.now_s - NOW < INTERVAL_S / 2


@pytest.mark.parametrize(
    ("fault", "least_s", "most_s"),
    [
        (
            ForbiddenFault("no", status=403, code="H353"),
            FORBIDDEN_PAUSE_S * (1 - JITTER),
            FORBIDDEN_PAUSE_S * (1 + JITTER),
        ),
        (LockedFault("locked", until_s=NOW + 3_660.0), 3_660.0, 3_660.0),
    ],
)
def test_pauses(streaming: Streaming, fault: IysFault, least_s: float, most_s: float) -> None:
    """What İYS forbids is asked for each hour, and nothing before the end of a lock."""
    streaming.stream(1, [fault])

    taken = streaming.turn()

    assert len(taken) == 1
    assert streaming.pulling.schedule.next_s is not None
    assert least_s <= streaming.pulling.schedule.next_s - NOW <= most_s


def test_doubt(streaming: Streaming) -> None:
    """A stream in doubt is swept at once, and not again within an hour while that does not help."""
    stream = streaming.stream(1)
    feed = streaming.feeds[stream]
    feed.move(age_s=9_000)
    streaming.turn()
    streaming.streams.doubt(stream, Doubt.IYS_FEED_SILENT)
    feed.asked.clear()
    sweeps: list[float] = []
    for _ in range(18):
        streaming.pass_time()
        before = len(feed.asked)
        streaming.turn()
        if any(limit == SWEEP_ROWS for _, limit in feed.asked[before:]):
            sweeps.append(streaming.now_s)
        if len(sweeps) == 1:
            streaming.streams.doubt(stream, Doubt.IYS_FEED_SILENT)

    assert len(sweeps) >= 2
    assert all(later - earlier >= SWEEP_PAUSE_S for earlier, later in pairwise(sweeps))


def test_asked_sweep(streaming: Streaming) -> None:
    """A sweep that is asked for is the next walk, once."""
    stream = streaming.stream(1)
    streaming.feeds[stream].move(age_s=9_000)
    streaming.turn()
    streaming.pulling.sweep(stream)
    limits = []
    for _ in range(12):
        streaming.pass_time()
        streaming.feeds[stream].asked.clear()
        streaming.turn()
        limits.append({limit == SWEEP_ROWS for _, limit in streaming.feeds[stream].asked})

    assert limits == [{True}, *[{False}] * 11]


def test_restart(streaming: Streaming) -> None:
    """A new process neither asks for everything at once nor waits longer than the old one would have."""
    stream = streaming.stream(1)
    streaming.turn()
    streaming.now_s += 100

    again = streaming.begun()
    again.add(stream)

    assert again.schedule.next_s == NOW + INTERVAL_S


def test_left(streaming: Streaming) -> None:
    """A stream that is taken out in its turn is committed to, and asked for no more."""
    stream = streaming.stream(1)
    found = streaming.pulling.next()
    assert found is not None

    streaming.pulling.remove(stream)
    streaming.feeds[stream].move(age_s=9_000)
    taken = streaming.pulling.take(stream, fetch(streaming.feeds[stream], stream, found[1]))

    assert taken.ask is None
    assert streaming.pulling.schedule.next_s is None
    assert streaming.streams.state(stream).rows == 1


def test_full_disk(streaming: Streaming, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that cannot be committed is read again: the next walk begins from what is stored."""
    stream = streaming.stream(1)
    streaming.feeds[stream].move(age_s=9_000)
    with monkeypatch.context() as broken:
        broken.setattr(Writer, "apply", _full)
        with pytest.raises(StoreFullError):
            streaming.turn()
    assert streaming.streams.state(stream).rows == 0

    streaming.pass_time()
    streaming.turn()

    assert streaming.streams.state(stream).rows == 1
    assert [after for after, _ in streaming.feeds[stream].asked][:2] == [None, None]


def _full(*_: object, **__: object) -> None:
    raise StoreFullError("The disk is full.")


def test_unsure(streaming: Streaming) -> None:
    """Of a stream that may lack rows without a word, only what was read before it was sure is claimed, then at once."""
    stream = streaming.stream(1)
    streaming.pulling.add(stream, is_unsure=True)
    read: list[tuple[float, int]] = []
    for _ in range(3):
        began_s = streaming.now_s
        streaming.turn()
        read.append((began_s, int(began_s) - VISIBLE_S - SLACK_S))
        assert streaming.streams.state(stream).covered_until == 0
        streaming.now_s += INTERVAL_S
        streaming.pulling.hasten(stream)
    first_s, second_s = read[0][0], read[1][0]

    streaming.pulling.confirm([stream], first_s)
    assert streaming.streams.state(stream).covered_until == 0, "a walk that began with the look may have read later"
    streaming.pulling.confirm([stream], second_s + 1)
    assert streaming.streams.state(stream).covered_until == read[1][1]
    assert streaming.pulling.is_unconfirmed
    streaming.pulling.confirm([stream], streaming.now_s)
    assert streaming.streams.state(stream).covered_until == read[2][1]

    streaming.pulling.add(stream)
    streaming.turn()
    assert streaming.streams.state(stream).covered_until > read[2][1]
