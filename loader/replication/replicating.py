"""A replica for as long as it runs: its store follows the log, and boots from a copy by itself where that ends.

While another store grows beside it, the old one answers, honestly old. It is exchanged only for one that is at least
as far, so that no position that a client has seen goes back, and only when that one has come to the end of the log.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypedDict

from iyscheck.change import Position
from iyscheck.errors import (
    LogDivergedError,
    LogForkError,
    SettingsError,
    SnapshotError,
    StoreError,
    StoreFullError,
    StoreRoleError,
)
from iyscheck.kernel import Kernel
from iyscheck.store import layout
from iyscheck.store.environment import DATA_FILE, WriterLock
from iyscheck.store.log import digest_of, sums_of
from iyscheck.store.log_writer import LogWriter
from iyscheck.store.snapshot import Store
from loader.replication.assembling import CopyNeededError
from loader.replication.finding import CopyNeeded, Opener, Place, find, newest
from loader.replication.follow import ROWS_AT_ONCE, Follower, State, Watch, lag_s
from loader.replication.messages import Log, LogAwayError, LogMissingError
from loader.replication.staging import Staging
from loader.replication.swap import refuse_mount

WAIT_S: Final = 0.5
"""How long the next message is waited for before it is looked what else is to be done."""
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 5.0
_COPY_PAUSE_S: Final = 30.0
"""Before copies are looked for again, where none was of use."""
_MAKERS_PAUSE_S: Final = 30.0
"""Before it is looked again whether a copy is due."""
_PLACING_S: Final = 5.0
"""How long the end of the process waits for a copy that is on its way to its place."""
_NEAR_S: Final = 2.0
"""A store that grew takes the place of the old one when its newest batch is not older."""


class KeyIds(TypedDict):
    """Which keys a store is written with: 8 bytes each."""

    address_key_id: bytes
    store_key_id: bytes


class Copies(Protocol):
    """Where copies of the store are taken from."""

    def take(self, into: Path, need: CopyNeeded, key_ids: KeyIds | None, alive: Callable[[], None]) -> None:
        """Put a copy that fits into a directory, as a replica; what broke off there is taken up again.

        `alive` is called often, and may end it by raising. Raises SnapshotError, StoreError.
        """
        ...


class Makers(Protocol):
    """Who makes copies of a store for others."""

    def is_due(self) -> bool:
        """Say whether it is time for one. Raises SnapshotError."""
        ...

    def copying(self, store: Store) -> AbstractContextManager[Callable[[], None]]:
        """Copy a store, which nobody writes meanwhile; what is given puts the copy to its place, and takes its time.

        Raises SnapshotError, StoreFullError.
        """
        ...


class Stopped(Exception):  # noqa: N818 - it is no error
    """The replica was told to end while a copy was taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaOptions:
    """How a store is replicated: `key_ids` are those of a store that begins with nothing.

    `rejoin`: whatever the store is, and wherever its log went another way, a copy may take its place. `makers` make
    copies of it for others. With `check` all is summed up once after each copy. `clock` tells seconds UTC, `now`
    monotonic ones. `kernel` runs the inner loops of what is written.
    """

    key_ids: KeyIds | None = None
    rejoin: bool = False
    makers: Makers | None = None
    rows_at_once: int = ROWS_AT_ONCE
    kernel: Kernel = Kernel.NUMPY
    check: bool = True
    clock: Callable[[], float] = time.time
    now: Callable[[], float] = time.monotonic


class Replica:
    """Keeps a store what the primary's is. Call `step` again and again, or `run`. For one thread."""

    def __init__(
        self,
        path: Path,
        log: Log,
        opener: Opener,
        watch: Watch,
        *,
        copies: Copies | None = None,
        options: ReplicaOptions | None = None,
        stop: threading.Event | None = None,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._path = path.resolve()  # what a link leads to changes places, not the link
        self._log = log
        self._opener = opener
        self._watch = watch
        self._copies = copies
        self._options = options or ReplicaOptions()
        self._stop = stop or threading.Event()
        self._alive = alive
        self._staging = Staging(self._path)
        self._lock: WriterLock | None = None
        self._served: Follower | None = None
        self._grown: Follower | None = None
        self._need: CopyNeeded | None = None
        self._pause_s = 0.0
        self._check: _Check | None = None
        self._placing: threading.Thread | None = None
        self._is_tidy = False
        self._is_forked = False
        self._ask_makers = 0.0

    def open(self) -> None:
        """Open the store, or hold its place until there is one.

        Raises StoreBusyError, StoreRoleError, SettingsError where it cannot be a replica's.
        """
        try:
            refuse_mount(self._path)
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                "--store",
                f"'{self._path}' cannot be made: {error.strerror}.",
                fix="Name a directory where this user may make directories.",
            ) from None
        self._staging.mend()
        if (self._path / DATA_FILE).exists():
            writer = LogWriter.reopen(self._path, kernel=self._options.kernel)
            if writer.log is not None or writer.position.sequence or self._options.key_ids is None:
                self._serve(writer)
                return
            writer.close()  # begun, and no batch was in when it ended: it begins when the log says with what
        self._lock = WriterLock(self._path)

    def close(self) -> None:
        """Let everything go; what is not in yet comes again."""
        self._end_check()
        for follower in (self._served, self._grown):
            if follower is not None:
                follower.close()
        self._served = self._grown = None
        if self._lock is not None:
            self._lock.release()
        if self._placing is not None:
            self._placing.join(_PLACING_S)  # what is not at its place then is removed by the next maker

    def run(self) -> None:
        """Go on until told to end. Raises what no waiting mends: StoreReplacedError, StoreBusyError and their like."""
        while not self._stop.is_set():
            self._alive()
            pause_s = self.step()
            if pause_s:
                self._stop.wait(pause_s)

    def step(self, wait_s: float = WAIT_S) -> float:
        """Do what is to be done next; return for how many seconds there is nothing to do."""
        try:
            pause_s = self._boot() if self._need is not None else self._follow(wait_s)
        except (LogAwayError, LogMissingError) as error:
            self._watch.became(State.AWAY, str(error))
        except LogForkError as error:
            self._forked(error)
        except StoreFullError as error:
            self._watch.became(State.FULL, f"{error.message} It goes on by itself as soon as there is room.")
        except SnapshotError as error:
            self._watch.became(self._state_of_need(), str(error))
            if self._may_go_on():
                self._need = None  # perhaps the log is whole again by then
            return _COPY_PAUSE_S
        except Stopped:
            return 0.0
        else:
            self._pause_s, self._is_forked = 0.0, False
            return pause_s
        self._pause_s = min(_LONGEST_PAUSE_S, 2 * self._pause_s or _FIRST_PAUSE_S)
        return self._pause_s

    # Following.

    def _follow(self, wait_s: float) -> float:
        """Apply what comes next to the store."""
        served = self._served or self._begun()
        if served is None:
            return 0.0 if self._need is not None else _FIRST_PAUSE_S * 5
        if served.state.untrusted:
            state = served.state
            self._watch.became(State.UNTRUSTED, state.untrusted)
            batch = 1 if self._options.rejoin else state.batch + 1  # an older one would come to the same batch again
            self._need = CopyNeeded(why=state.untrusted, log_id=served.position.log_id, batch=batch)
            return 0.0
        self._look_at_check()
        try:
            served.step(wait_s)
        except CopyNeededError as error:
            self._need = error.need
            self._watch.became(State.GAP, error.need.why)
            return 0.0
        except LogDivergedError as error:
            self._distrust(served, error)
            return 0.0
        if served.is_at_end:
            if not self._is_tidy:
                self._staging.clear()
                self._is_tidy = True
            if self._options.makers is not None and time.monotonic() >= self._ask_makers:
                self._make(self._options.makers)
        return 0.0 if served.is_reading else 1.0

    def _begun(self) -> Follower | None:
        """Begin a store with the first batch of its log; None where a copy is needed, or the log is empty."""
        found = newest(self._log, self._opener)
        header = found.header
        if header is None:
            self._watch.became(State.WAITING, found.why)
            return None
        nothing = layout.LogState(role=layout.REPLICA)
        place = find(self._log, self._opener, nothing, Position(header.log_id, 0))
        key_ids = self._options.key_ids
        if isinstance(place, Place) and key_ids is not None:
            if self._lock is not None:
                self._lock.release()
                self._lock = None
            writer = LogWriter.open(self._path, **key_ids, kernel=self._options.kernel)
            try:
                writer.become_replica(log_id=header.log_id)
            except BaseException:
                writer.close()  # a full disk: it is opened again
                raise
            return self._serve(writer)
        why = place.why if isinstance(place, CopyNeeded) else "There is no store yet, and no key ids to begin one with."
        batch = place.batch if isinstance(place, CopyNeeded) else 1
        self._need = CopyNeeded(why=why, log_id=header.log_id, batch=batch)
        return None

    def _serve(self, writer: LogWriter) -> Follower:
        """Follow into a store, if it is a replica's."""
        try:
            self._check_role(writer)
        except BaseException:
            writer.close()
            raise
        self._served = self._follower(writer, self._watch)
        if writer.log is not None:
            self._watch.serves(writer.log)
        return self._served

    def _check_role(self, writer: LogWriter) -> None:
        """Refuse what is no replica, but for what may be given up."""
        state = writer.log
        if state is not None and state.role == layout.REPLICA:
            return
        if not self._options.rejoin:
            raise StoreRoleError(
                f"The store at '{self._path}' is {'the primary' if state else 'in no log'}, and no replica.",
                fix="Give the replica a directory of its own. Or say --rejoin: then what only this store has is given "
                "up for a copy of the log's.",
            )
        if state is not None:
            writer.become_replica()
        else:
            self._need = CopyNeeded(why="The store is in no log.", log_id=self._log_id(), batch=1)

    def _log_id(self) -> bytes:
        """Return which log lies in the stream. Raises LogAwayError where none does yet."""
        found = newest(self._log, self._opener)
        if found.header is None:
            raise LogAwayError(found.why)
        return found.header.log_id

    def _follower(self, writer: LogWriter, watch: Watch) -> Follower:
        options = self._options
        return Follower(writer, self._log, self._opener, watch, now=options.now, rows_at_once=options.rows_at_once)

    def _distrust(self, follower: Follower, error: LogDivergedError) -> None:
        """Permit nothing commercial by a store that is not what the primary's is, and boot from a copy."""
        self._watch.refused(error)
        state, position = follower.state, follower.position
        follower.writer.distrust(error.message)
        self._watch.became(State.UNTRUSTED, str(error))
        self._need = CopyNeeded(why=error.message, log_id=position.log_id, batch=state.batch + 1)

    def _forked(self, error: LogForkError) -> None:
        """Stop, and go on answering; only a person decides that the other way is the right one."""
        if not self._is_forked:
            self._watch.refused(error)
        self._is_forked = True
        self._watch.became(State.FORK, f"{error} Look which is right; 'replicate --rejoin' takes a copy of the log's.")
        if self._options.rejoin and self._need is None and self._served is not None:
            self._need = CopyNeeded(why=error.message, log_id=self._served.position.log_id, batch=1)

    # Booting.

    def _state_of_need(self) -> State:
        """Say how it is called that a copy is needed."""
        if self._may_go_on():
            return State.GAP
        state = self._served.writer.log if self._served is not None else None
        return State.UNTRUSTED if state is not None and state.untrusted else State.BOOTING

    def _may_go_on(self) -> bool:
        """Say whether the store could go on without a copy, if what is missing came into the log."""
        state = self._served.writer.log if self._served is not None else None
        return state is not None and state.role == layout.REPLICA and not state.untrusted

    def _boot(self) -> float:
        """Let a store grow from a copy, and put it into the place of the old one when it has come far enough."""
        need = self._need
        assert need is not None  # noqa: S101 - who calls has looked
        if self._grown is None:
            self._grown = self._follower(self._copied(need), _Quiet(self._watch))
        grown = self._grown
        try:
            grown.step(WAIT_S)
        except CopyNeededError as error:
            self._give_up(error.need)
            return _COPY_PAUSE_S
        except LogDivergedError as error:
            self._watch.refused(error)
            self._give_up(CopyNeeded(why=error.message, log_id=need.log_id, batch=grown.state.batch + 1))
            return _COPY_PAUSE_S
        except LogForkError:
            self._give_up(CopyNeeded(why=need.why, log_id=need.log_id, batch=grown.state.batch + 1))
            raise
        self._watch.became(State.BOOTING, need.why)
        if self._may_serve(grown):
            self._exchange()
            return 0.0
        return 0.0 if grown.is_reading else 1.0

    def _copied(self, need: CopyNeeded) -> LogWriter:
        """Take a copy, or go on with one that was taken."""
        if self._copies is None:
            raise SnapshotError(
                f"{need.why} Only a copy of the store leads on.",
                fix="Name a place of snapshots in the cluster file; 'iyscheck-loader snapshot' makes one there.",
            )
        self._watch.became(State.BOOTING, need.why)
        self._is_tidy = False
        served = self._served
        key_ids = _key_ids(served.writer) if served is not None else self._options.key_ids
        if not self._staging.begin(need):
            self._copies.take(self._staging.store, need, key_ids, self._still)
            self._staging.taken()
        return LogWriter.reopen(self._staging.store, kernel=self._options.kernel)

    def _still(self) -> None:
        """Give a sign of life while a copy is taken; end that when told to."""
        self._alive()
        if self._stop.is_set():
            raise Stopped

    def _give_up(self, need: CopyNeeded) -> None:
        """Take another copy: this one leads nowhere."""
        if self._grown is not None:
            self._grown.close()
            self._grown = None
        self._staging.clear()
        self._need = need
        self._watch.became(self._state_of_need(), need.why)

    def _may_serve(self, grown: Follower) -> bool:
        """Say whether a store that grew is at the log's end, and not behind the old one: no position may go back."""
        if not grown.is_at_end and lag_s(grown.state, self._options.clock()) > _NEAR_S:
            return False
        served = self._served
        if served is None:
            return True
        here, there = grown.position, served.position
        return here.log_id != there.log_id or here.sequence >= there.sequence

    def _exchange(self) -> None:
        """Put the grown store into its place."""
        self._end_check()
        for follower in (self._grown, self._served):
            if follower is not None:
                follower.close()
        self._grown = self._served = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        self._staging.exchange()
        self._need = None
        served = self._serve(LogWriter.reopen(self._path, kernel=self._options.kernel))
        if self._options.check:
            self._check = _Check(served.writer)

    # What is done beside it.

    def _look_at_check(self) -> None:
        """See what the sums over everything said, after a boot."""
        check = self._check
        if check is None or check.is_running:
            return
        self._check = None
        if check.wrong and self._served is not None:
            self._distrust(self._served, LogDivergedError(check.wrong, fix="It boots from another copy by itself."))

    def _end_check(self) -> None:
        if self._check is not None:
            self._check.end()
            self._check = None

    def _make(self, makers: Makers) -> None:
        """Make a copy for others if it is time; nothing is applied while it is copied, so that the file stays small."""
        self._ask_makers = time.monotonic() + _MAKERS_PAUSE_S
        if self._placing is not None and self._placing.is_alive():
            return
        if self._served is None or self._check is not None:
            return
        try:
            if not makers.is_due():
                return
            with ExitStack() as stack:
                place = stack.enter_context(makers.copying(Store(self._served.writer.environment)))
                self._placing = threading.Thread(
                    target=_placed, args=(stack.pop_all(), place, self._watch), daemon=True
                )
                self._placing.start()
        except (SnapshotError, StoreFullError) as error:
            self._watch.not_copied(error)


def _key_ids(writer: LogWriter) -> KeyIds:
    """Return with which keys a store was written."""
    address_key_id, store_key_id = writer.key_ids
    return KeyIds(address_key_id=address_key_id, store_key_id=store_key_id)


def _placed(open_: ExitStack, place: Callable[[], None], watch: Watch) -> None:
    """Put a copy to its place, in a thread of its own."""
    with open_:
        try:
            place()
        except (SnapshotError, StoreError) as error:
            watch.not_copied(error)


class _Quiet:
    """Hears of a store that grows, and tells only what is said of the log."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self.rejected = watch.rejected
        self.refused = watch.refused
        self.behind = watch.behind
        self.not_copied = watch.not_copied

    def became(self, state: State, why: str = "") -> None:
        """Pass it over: the store that answers is booting."""

    def serves(self, state: layout.LogState) -> None:
        """Pass it over."""

    def applied(self, batches: int, rows: int, state: layout.LogState) -> None:
        """Pass it over: what answers is as old as it was."""


class _Check:
    """Sums up a store that came by a copy, beside all else, and compares it with what its log says.

    `wrong` is a sentence if they differ.
    """

    def __init__(self, writer: LogWriter) -> None:
        self.wrong = ""
        self._store = Store(writer.environment)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="iyscheck-check", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether it is not done yet."""
        return self._thread.is_alive()

    def end(self) -> None:
        """Let it go."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        with suppress(Stopped), self._store.snapshot() as snapshot:
            sums = sums_of(lambda name: self._until_ended(snapshot.items(name)))
            state = snapshot.log
            if state is None or sums != snapshot.sums() or digest_of(sums) != state.digest:
                self.wrong = "What this store holds is not what its digest says."

    def _until_ended(self, items: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        for number, item in enumerate(items):
            if number % 1000 == 0 and self._ended.is_set():
                raise Stopped
            yield item
