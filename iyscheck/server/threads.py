"""Threads that are all there from the beginning: a limit that is reached later stops nothing that runs.

What starts a thread for a call fails with the call at best. At worst it fails in the one thread that takes up all
calls, as Python's pools do inside gRPC.
"""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from iyscheck.errors import WorkersError

P = ParamSpec("P")
R = TypeVar("R")


def no_threads(needed: int) -> WorkersError:
    """Say that threads could not be started, and what to do."""
    return WorkersError(
        f"The system does not start the threads that the server needs ({needed} for this part).",
        fix="Raise its limit: ulimit -u, TasksMax= of systemd, pids.max of the control group.",
    )


class _OfThread(threading.local):
    """What a thread of a pool knows of the work that it does."""

    waited_s = 0.0
    """How long that waited for the thread."""


class Pool(ThreadPoolExecutor):
    """Threads that know how long their work has waited for them: `of_thread.waited_s`.

    `yielding` says by how much they are nicer than the process (as `nice` counts) to whoever wants the same core.
    """

    def __init__(self, threads: int, name: str, *, yielding: int = 0) -> None:
        super().__init__(threads, thread_name_prefix=name, initializer=_be_nicer, initargs=(yielding,))
        self.of_thread = _OfThread()

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> "Future[R]":
        """Do as any pool does, and note the time."""
        return super().submit(self._begin, time.perf_counter(), fn, *args, **kwargs)

    def _begin(self, submitted_s: float, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        self.of_thread.waited_s = time.perf_counter() - submitted_s
        return fn(*args, **kwargs)


def _be_nicer(by: int) -> None:
    if by:  # on Linux each thread has a niceness of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + by)


def started_pool(threads: int, name: str, *, yielding: int = 0) -> Pool:
    """Make a pool whose threads have all been started. Raises WorkersError."""
    pool = Pool(threads, name, yielding=yielding)
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
