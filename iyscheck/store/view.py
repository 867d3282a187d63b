"""Column look-ups: one snapshot of a store together with the addresses of the index's pages in it.

LMDB never changes a page in place. So the addresses stay good for as long as a read transaction of that snapshot is
open, and from one commit to the next only those change that the commit says it changed: a refresh takes those and
copies the rest. A page is checked when it is taken; one that is damaged or missing is not, and the recipients that
it would answer are answered from the records.

`Views` keeps the newest view. It is renewed when a check finds that there was a commit, or before by a timer, and
let go when nobody asks: an open snapshot keeps every page that it can see from being used again, and the file grows.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final

import lmdb
import numpy as np
import numpy.typing as npt

from iyscheck.change import Position
from iyscheck.consent import RETAILER_BIT, UNREADABLE_STATE
from iyscheck.errors import StoreError
from iyscheck.kernel import Kernel
from iyscheck.store.environment import SYSTEM_ERRORS, Environment, translation
from iyscheck.store.index import PageTable, Taker, pages
from iyscheck.store.snapshot import BrandView, Decoded, Snapshot

TICK_S: Final = 0.02
IDLE_S: Final = 0.1
"""How long a view is kept that nobody asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexStats:
    """How whole the decision index is.

    Pages of the generation in use, how many of them could not be taken, and how many recipients have been answered
    from the records for that since the store was opened. Without an index: no pages, and everybody.
    """

    pages: int
    pages_not_taken: int
    recipients_from_records: int


class View:
    """One snapshot for columns; valid inside the `with` block that gave it. Safe from many threads at once."""

    def __init__(self, environment: Environment, before: PageTable | None) -> None:
        self.path = environment.path
        self.users = 0
        self.from_records = 0
        self._lock = threading.Lock()
        self._pin, self._txn = _pair(environment)
        try:
            self.transaction_id = int(self._txn.id())
            self.table = Taker(self._pin, environment, before).table()
            self._is_whole = not self.table.not_taken
            decoded = Decoded.read(self._txn, environment)
            self._snapshot = Snapshot(self._txn, environment.path, environment.databases, decoded, decoded.position)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let the snapshot go."""
        self._pin.abort()
        self._txn.abort()

    @property
    def position(self) -> Position:
        """Where the log stands."""
        return self._snapshot.position

    def brand(self, code: int) -> BrandView:
        """Return a brand's registration and watermark."""
        with self._lock:
            return self._snapshot.brand(code)

    @contextmanager
    def records(self) -> Iterator[Snapshot]:
        """Hold the snapshot itself, alone."""
        with self._lock:
            yield self._snapshot

    def states(
        self,
        where: tuple[int, int, int],
        tags: npt.NDArray[np.uint8],
        kernel: Kernel,
        nobody: bytes | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Return the state byte of each of N recipients, 0 where there is no record; tags uint8 (N, 16).

        `where` is brand, channel, recipient type. The tag `nobody` gets UNREADABLE_STATE. Those whose pages could not
        be taken are looked up in the records. Raises StoreCorruptError.
        """
        found = pages.look_up(self.table.memory, self.table.in_use, tags, pages.salts(*where), kernel, nobody)
        if self._is_whole:
            return found
        rest = np.flatnonzero(found == pages.UNANSWERED)
        self._answer_from_records(found, rest, lambda snapshot: snapshot.states(*where, tags[rest]))
        return found

    def _answer_from_records(
        self,
        found: npt.NDArray[np.uint8],
        rest: npt.NDArray[np.intp],
        states_of: Callable[[Snapshot], npt.NDArray[np.uint8]],
    ) -> None:
        """Fill in the states of those rows whose pages could not be taken."""
        if rest.size:
            with self._lock:
                states = states_of(self._snapshot)
                found[rest] = states | np.where(states, np.uint8(RETAILER_BIT), np.uint8(0))  # there may be one
                self.from_records += rest.size

    def mixed_states(
        self,
        contexts: Sequence[tuple[bytes, bytes]],
        group: npt.NDArray[np.int64],
        tags: npt.NDArray[np.uint8],
        kernel: Kernel,
        nobody: bytes,
    ) -> npt.NDArray[np.uint8]:
        """Return what `states` does, of recipients of many contexts.

        Each context is its salt and what its keys begin with; `group`, int64 (N,), says who is of which.
        """
        salts = np.frombuffer(b"".join([salt for salt, _ in contexts]), "<u8").reshape(-1, 2)
        placed = pages.in_one_context(tags, salts[group])
        found = pages.look_up(self.table.memory, self.table.in_use, placed, (0, 0), kernel)
        if nobody in tags.tobytes():  # wherever it begins; looking at all rows takes longer
            halves = np.ascontiguousarray(tags).view(np.uint64) == np.frombuffer(nobody, np.uint64)
            found[halves[:, 0] & halves[:, 1]] = UNREADABLE_STATE
        if not self._is_whole:
            rest = np.flatnonzero(found == pages.UNANSWERED)
            keys = [contexts[at][1] + tag.tobytes() for at, tag in zip(group[rest].tolist(), tags[rest], strict=True)]
            self._answer_from_records(found, rest, lambda snapshot: snapshot.states_at(keys))
        return found

    def meanings(
        self,
        where: tuple[int, int, int],
        tags: npt.NDArray[np.uint8],
        kernel: Kernel,
        nobody: bytes,
        by_state: npt.NDArray[np.uint8],
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Return what `by_state`, uint8 (256,), makes of each recipient's state: uint8 (N,), and how many of each."""
        if self._is_whole:
            salt = pages.salts(*where)
            return pages.meanings(self.table.memory, self.table.in_use, tags, salt, kernel, nobody, by_state)
        found = by_state.take(self.states(where, tags, kernel, nobody))
        return found, np.bincount(found, minlength=256)

    def retailer_listed(
        self, where: tuple[int, int, int], tags: npt.NDArray[np.uint8], retailer: int
    ) -> npt.NDArray[np.bool_]:
        """Say for each of N recipients whether the retailer may use the consent; no list means nobody may."""
        with self._lock:
            return self._snapshot.retailer_listed(*where, tags, retailer)


def _pair(environment: Environment) -> tuple[lmdb.Transaction, lmdb.Transaction]:
    """Open two read transactions of one snapshot: values as places in the map, and as bytes."""
    while True:
        pin = environment.lmdb.begin(buffers=True)
        txn = environment.lmdb.begin()
        if pin.id() == txn.id():
            return pin, txn
        pin.abort()
        txn.abort()


def _started(run: Callable[[], None]) -> threading.Thread | None:
    """Start the thread that renews and ends views; None if the system gives none now: the next view tries again."""
    thread = threading.Thread(target=run, name="iyscheck-view", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread


class Held:
    """One use of a view, for a `with` block. A class: what `contextmanager` makes takes 2 µs of each frame."""

    __slots__ = ("_view", "_views")

    def __init__(self, views: "Views", view: View) -> None:
        self._views = views
        self._view = view

    def __enter__(self) -> View:
        return self._view

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._views.give_back(self._view)
        if error is not None and isinstance(error, SYSTEM_ERRORS):
            raise translation(self._view.path, error) from error


class Views:
    """Keeps the newest view of a store for those who check columns."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._lock = threading.Lock()
        self._newest: View | None = None
        self._table: PageTable | None = None
        self._from_records = 0  # by views that are gone
        self._asked_s = 0.0
        self._closing = threading.Event()
        self._timer: threading.Thread | None = None
        environment.inheritors.add(self)

    def after_fork(self) -> None:
        """Forget the parent's view, unclosed, and its thread; whoever held the lock may not be here to give it back."""
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._newest, self._timer = None, None

    def view(self) -> "Held":
        """Hold a view of everything that is committed now.

        Raises StoreUnreadableError, StoreCorruptError, StoreClosedError.
        """
        with self._lock:
            view = self._renewed()
            view.users += 1
            self._asked_s = time.monotonic()
            if self._timer is None:
                self._timer = _started(self._tick)
            return Held(self, view)

    def give_back(self, view: View) -> None:
        """End one use of a view."""
        with self._lock:
            view.users -= 1
            if view is not self._newest and not view.users:
                self._end(view)

    def stats(self) -> IndexStats:
        """Tell how whole the index was when its pages were last taken."""
        with self._lock:
            table, now = self._table, self._newest.from_records if self._newest is not None else 0
            return IndexStats(
                pages=table.state.shards if table is not None else 0,
                pages_not_taken=table.not_taken if table is not None and table.state.generation else 0,
                recipients_from_records=self._from_records + now,
            )

    def close(self) -> None:
        """Let the view go for good: a use that goes on ends it, a new one is refused."""
        self._closing.set()
        with self._lock:
            timer = self._timer
        if timer is not None:
            timer.join()
        with self._lock:
            self._let_go()
            self._environment = self._environment.closed()

    def _renewed(self) -> View:
        """Return a view of the newest transaction."""
        environment, newest = self._environment, self._newest
        try:
            if newest is not None and newest.transaction_id == environment.last_transaction_id():
                return newest
            view = View(environment, self._table)  # opened before the old one is closed
        except SYSTEM_ERRORS as error:
            if environment.swept(error):
                return self._renewed()
            raise translation(environment.path, error) from error
        self._let_go()
        self._newest, self._table = view, view.table
        return view

    def _let_go(self) -> None:
        view, self._newest = self._newest, None
        if view is not None and not view.users:
            self._end(view)

    def _end(self, view: View) -> None:
        self._from_records += view.from_records
        view.close()

    def _tick(self) -> None:
        """Renew the view after each commit while somebody asks; end with it when nobody does."""
        while not self._closing.wait(TICK_S):
            with self._lock:
                if time.monotonic() - self._asked_s <= IDLE_S:
                    with suppress(StoreError, MemoryError):  # whoever asks next is told
                        self._renewed()
                        continue
                self._let_go()
                self._timer = None
                return
