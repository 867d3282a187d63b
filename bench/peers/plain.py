"""LMDB without iyscheck: the same keys and values in one unnamed database, read and written by py-lmdb directly."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import lmdb
import numpy as np

from bench.arrivals import percentiles

MAP_BYTES = 2**40
FILL_ITEMS = 100_000
PER_TRANSACTION = 1_000


def open_plain(path: str) -> lmdb.Environment:
    """Open as iyscheck opens its own: durable, the same map."""
    Path(path).mkdir(parents=True, exist_ok=True)
    return lmdb.open(path, map_size=MAP_BYTES, sync=True, metasync=True, readahead=False)


@contextmanager
def opened(path: str) -> Iterator[lmdb.Environment]:
    """Open for the time of a block."""
    env = open_plain(path)
    try:
        yield env
    finally:
        env.close()


def fill(env: lmdb.Environment, items: Iterable[tuple[bytes, bytes]]) -> None:
    """Append sorted items."""
    rest = iter(items)
    while chunk := list(islice(rest, FILL_ITEMS)):
        with env.begin(write=True) as txn, txn.cursor() as cursor:
            cursor.putmulti(chunk, append=True)


def put(env: lmdb.Environment, items: Sequence[tuple[bytes, bytes]]) -> float:
    """Put sorted items in one durable transaction; returns the seconds."""
    started = time.perf_counter()
    with env.begin(write=True) as txn, txn.cursor() as cursor:
        cursor.putmulti(items, overwrite=True)
    return time.perf_counter() - started


class PlainReader:
    """Gets records one by one, 1,000 in a transaction: the fastest way through py-lmdb (`getmulti` is slower)."""

    def __init__(self, path: str) -> None:
        self._env = lmdb.open(path, map_size=MAP_BYTES, readonly=True, lock=False, readahead=False)
        with self._env.begin() as txn:
            self._entries: int = txn.stat()["entries"]
            self._keys: list[bytes] = []

    def draw(self, count: int, hit_rate: float, seed: int) -> dict[str, float]:
        """Choose keys at random: those of records, and others of the same form."""
        random = np.random.default_rng(seed)
        probes = random.bytes(16 * count)
        misses = set(random.permutation(count)[: round(count * (1 - hit_rate))].tolist())
        with self._env.begin() as txn, txn.cursor() as cursor:
            cursor.first()
            prefix = bytes(cursor.key()[:-16])
            for at in range(count):
                key = prefix + probes[16 * at : 16 * at + 16]
                if at not in misses:
                    found = cursor.set_range(key) or cursor.first()
                    key = bytes(cursor.key()) if found else key
                self._keys.append(key)
        return {"entries": self._entries}

    def gets(self) -> dict[str, float]:
        """Get all keys that were drawn; returns gets per second, hits, and latencies of a second pass."""
        found = 0
        started = time.perf_counter()
        for at in range(0, len(self._keys), PER_TRANSACTION):
            with self._env.begin() as txn:
                get = txn.get
                found += sum(get(key) is not None for key in self._keys[at : at + PER_TRANSACTION])
        seconds = time.perf_counter() - started
        taken = np.empty(len(self._keys))
        with self._env.begin() as txn:
            for at, key in enumerate(self._keys):
                began = time.perf_counter()
                txn.get(key)
                taken[at] = time.perf_counter() - began
        return {"rate": len(self._keys) / seconds, "hits": found / len(self._keys), **percentiles(taken)}
