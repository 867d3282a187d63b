"""What the loader knows of its feeds: the ways in which rows come, such as a directory of daily files.

There are few of them, whatever the number of brands and files. They are fields of `meta`, so that whoever has the
store open sees a new one at once, and older versions pass over them.
"""

from typing import Final

import msgspec

from iyscheck.store.layout.checks import checked, corrupt, unchecked

META_FEED: Final = b"feed:"
"""How the fields of feeds begin; the name follows."""
DELAYS_S: Final = (60, 300, 1_800, 5_400, 21_600, 86_400, 129_600, 604_800)
"""Upper bounds of the delays by which refusals are counted; never to be changed, since counts are kept by them."""
_NO_DELAYS: Final = (0,) * (len(DELAYS_S) + 1)


class FeedState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one feed; all that is 0 is unknown, or has not been. Times are seconds UTC.

    `committed`: when its last commit was made; `succeeded`: when one of its sources was last loaded to its end.
    `every`: how many seconds may lie between two of these, as an operator said; `rhythm`: as they did lately.

    `refusals` that were live have become visible, `late` of them after more than was promised. `delays` counts them by
    the bounds above, the last of those beyond all; `delay_sum` is the seconds of all together.
    """

    name: str
    committed: int = 0
    succeeded: int = 0
    every: int = 0
    rhythm: int = 0
    refusals: int = 0
    late: int = 0
    delays: tuple[int, ...] = _NO_DELAYS
    delay_sum: int = 0

    @property
    def interval(self) -> int:
        """How many seconds may lie between two successes, 0 if nobody knows."""
        return self.every or self.rhythm


def feed_field(name: str) -> bytes:
    """Write the key of a feed."""
    return META_FEED + name.encode()


def feed_name(key: bytes) -> str:
    """Read the name of a feed from its key."""
    return key.removeprefix(META_FEED).decode("ascii", "replace")


def encode_feed(feed: FeedState) -> bytes:
    """Write a feed as checked JSON."""
    return checked(feed_field(feed.name), msgspec.json.encode(feed))


def decode_feed(key: bytes, value: bytes) -> FeedState:
    """Read a feed."""
    body = unchecked(key, value, "state of a feed")
    try:
        feed = msgspec.json.decode(body, type=FeedState)
    except msgspec.MsgspecError:
        corrupt("state of a feed")
    if len(feed.delays) != len(_NO_DELAYS):
        corrupt("state of a feed")
    return feed
