"""`python -m tests.loader.sources.pull.puller`: pulls both halves of a brand once, in a process that can be killed."""

import sys
import threading
from pathlib import Path

from loader.iys.messages import FeedSource
from loader.loading.options import Options
from loader.sources.pull.passes import pull_stream
from loader.sources.pull.streams import Streams
from tests.builders import ADDRESS_KEY, STORE_KEY
from tests.iys.clock import SharedClock
from tests.loader.feeds import Desk
from tests.loader.sources.pull.mirrored import client, stream


def pull(path: Path, url: str, time_file: Path, rows: int) -> None:
    """Pull into the desk at a path, from an address, by the clock in a file, in pages of so many rows."""
    clock, desk = SharedClock(time_file), Desk(path)
    iys, transport = client(url, path / "store.iys", clock, rate=1000.0)
    with desk.writer() as writer:
        options = Options(rejects=desk.rejects)
        streams = Streams(writer, address_key=ADDRESS_KEY, store_key=STORE_KEY, options=options, clock=clock.now)
        for source in FeedSource:
            pull_stream(iys, streams, stream(source), clock=clock, stop=threading.Event(), rows=rows)
    transport.close()


if __name__ == "__main__":
    pull(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
