"""Works one item ahead in a second thread, so that reading, hashing and parsing go on while LMDB writes."""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def ahead(items: Generator[T, None, None]) -> Iterator[Iterator[T]]:
    """Draw items (none of them None) in a thread of their own, one further than they are taken.

    They are the same in the same order, and what a drawing raises is raised where its item would have been taken.
    When the block is left, the thread has ended and the generator is closed.
    """
    with closing(items), ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        yield _taken(items, pool)


def _taken(items: Generator[T, None, None], pool: ThreadPoolExecutor) -> Iterator[T]:
    coming = pool.submit(next, items, None)
    while (item := coming.result()) is not None:
        coming = pool.submit(next, items, None)
        yield item
