"""The changes feed."""

from loader.iys.messages import FeedSource
from tests.iys.answers import EMPTY, Answer, refused, said
from tests.iys.movements import CursorRefusedError, Feed
from tests.iys.world import BRAND_PATH, Call, Operation, World

MOST_ROWS = 1000


def _changes(world: World, call: Call) -> Answer:
    """Give a page of a stream."""
    source, limit = call.query.get("source", world.quirks.default_source), call.query.get("limit", str(MOST_ROWS))
    if source not in set(FeedSource):
        return refused(422, "H506", location=("source",), value=source)
    if not limit.isdecimal() or not 1 <= int(limit) <= MOST_ROWS:
        return refused(422, "H507", location=("limit",), value=limit)
    movements = [] if source in world.quirks.silent else world.movements.of(call.brand, FeedSource(source))
    feed = Feed(movements, call.now_s, world.quirks, call.channels)
    try:
        rows = feed.page(call.query.get("after"), int(limit))
    except CursorRefusedError:
        return refused(422, "H507", location=("after",))
    if rows:
        listed = b",".join(row.encoded for row in rows)
        return Answer(200, b'{"after":"%s","list":[%s]}' % (feed.cursor(rows[-1]).encode(), listed))
    return EMPTY if world.quirks.empty == "204" else said({"after": None, "list": []})


OPERATIONS = (Operation(name="changes", method="GET", path=f"{BRAND_PATH}/consents/changes", answer=_changes),)
