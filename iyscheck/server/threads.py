"""Threads that are all there from the beginning: a limit that is reached later stops nothing that runs.

What starts a thread for a call fails with the call at best. At worst it fails in the one thread that takes up all
calls, as Python's pools do inside gRPC.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

from iyscheck.errors import WorkersError


def no_threads(needed: int) -> WorkersError:
    """Say that threads could not be started, and what to do."""
    return WorkersError(
        f"The system does not start the threads that the server needs ({needed} for this part).",
        fix="Raise its limit: ulimit -u, TasksMax= of systemd, pids.max of the control group.",
    )


def started_pool(threads: int, name: str) -> ThreadPoolExecutor:
    """Make a pool whose threads have all been started. Raises WorkersError."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    everybody = threading.Barrier(threads + 1)
    try:
        for _ in range(threads):  # each is kept busy until the last one is there
            pool.submit(everybody.wait)
    except RuntimeError:
        everybody.abort()
        pool.shutdown()
        raise no_threads(threads) from None
    everybody.wait()
    return pool


def start(thread: threading.Thread) -> None:
    """Start a thread. Raises WorkersError."""
    try:
        thread.start()
    except RuntimeError:
        raise no_threads(1) from None
