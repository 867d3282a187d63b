"""A worker process that asks for a caller as fast as it can: asking.py TABLE COUNT RATE SECONDS SIZE.

It counts what it took in the file COUNT: recipients, first and last moment in nanoseconds. So whoever kills it knows.
"""

import mmap
import sys
import time
from pathlib import Path

from iyscheck.callers.quotas import Quotas
from iyscheck.callers.scopes import Caller

WORDS = 3


def main(table: str, count: str, rate: int, seconds: float, size: int) -> None:
    """Take until the time is over."""
    path = Path(count)
    path.write_bytes(bytes(8 * WORDS))
    with path.open("r+b") as file:
        words = memoryview(mmap.mmap(file.fileno(), 8 * WORDS)).cast("q")
    quotas, caller = Quotas.open(table), Caller(name="acme", brands=None, rate=rate)
    print("ready", flush=True)  # noqa: T201 - who starts it waits for it
    sys.stdin.readline()
    words[1] = words[2] = time.monotonic_ns()
    end = words[1] + int(seconds * 1e9)
    while (now := time.monotonic_ns()) < end:
        if quotas.take(caller, size) is None:
            words[0] += size
        words[2] = now


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
