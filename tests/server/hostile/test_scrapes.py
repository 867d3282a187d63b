"""The other door: the metrics."""

import socket

from iyscheck.exposition import MOST_SCRAPES
from tests.server.hostile.conftest import Attacked, Usage


def test_silent(server: Attacked) -> None:
    """Connections to the metrics that say nothing take few threads, and others of the server are answered."""
    host, _, port = server.metrics.rpartition(":")
    before = Usage.of(server.pid)
    with server.unharmed():
        open_ones = [socket.create_connection((host, int(port)), timeout=30) for _ in range(MOST_SCRAPES)]
        for _ in range(100):
            with socket.create_connection((host, int(port)), timeout=30) as one_more:
                assert one_more.recv(1) == b""  # ended at once
        threads = Usage.of(server.pid).threads
        for each in open_ones:
            each.close()

    assert threads < before.threads + 2 * MOST_SCRAPES
