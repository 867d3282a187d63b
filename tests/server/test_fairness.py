"""Bulk gives way: whoever waits for one answer comes before those who stream."""

import os
import threading

from tests.server.conftest import Site, serve


def test_threads_of_streams_give_way(site: Site) -> None:
    """The system is told to run threads of streams after those of single checks, and of nothing else."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with serve(site):
        found = {
            thread.name.partition("_")[0]: os.getpriority(os.PRIO_PROCESS, thread.native_id or 0)
            for thread in threading.enumerate()
        }

    assert found["rpc"] == min(own + 10, 19)
    assert found["check"] == own
    assert found["MainThread"] == own
