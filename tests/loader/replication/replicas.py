"""Replicas for tests: a log that is read as NATS lets one read it, copies in a folder, and primaries that tell all."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from iyscheck.errors import IyscheckError, LogError, MessageRejectedError, SnapshotMissingError
from iyscheck.keys import SIGNATURE_BYTES, Signers, SigningKey, StreamKey
from iyscheck.store.copying import copy_to
from iyscheck.store.layout import LogState
from iyscheck.store.log_writer import LogWriter
from iyscheck.store.snapshot import Store
from iyscheck.store.writer import Writer
from loader.replication.codec import MAGIC, VERSION, BatchOpener, BatchSealer
from loader.replication.finding import CopyNeeded
from loader.replication.follow import State
from loader.replication.messages import Reader
from loader.replication.replicating import KeyIds
from tests.loader.replication.faulty import FaultyLog

STREAM_KEY, SIGNING_KEY = StreamKey(bytes(range(64, 96))), SigningKey(bytes(range(96, 128)))
STRANGER = SigningKey(bytes(range(128, 160)))
SEALER = BatchSealer(STREAM_KEY, SIGNING_KEY)
OPENER = BatchOpener(STREAM_KEY, Signers([SIGNING_KEY.public]))


class Primary(Writer, LogWriter):
    """A primary as loaders and as operators write it: LMDB opens a store once in a process."""

    def begin(self) -> None:
        """Become the primary, or the next one."""
        self.take_over(self.begin_term(SEALER), settings="")


class ReadableLog(FaultyLog):
    """A log that can be read, too, with the traps that NATS has: see `messages`. `before` is called at each call."""

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.before = before

    def publish(self, store: Store, first: int = 1) -> None:
        """Append what an outbox has from a batch on, whatever the log has."""
        with store.snapshot() as snapshot:
            for batch, _ in list(snapshot.outbox_batches(first)):
                for message in snapshot.outbox_messages(batch):
                    self.append(len(self.messages), message)

    def punch(self, number: int) -> None:
        """Lose a message where it lies."""
        self.messages[number - 1] = None

    def flip(self, number: int, place: int = 200) -> None:
        """Change one bit of a message."""
        message = bytearray(self.messages[number - 1] or b"")
        message[place % len(message)] ^= 1
        self.messages[number - 1] = bytes(message)

    def make_newer(self, first: int) -> None:
        """Let messages from a number on be of a version that this one does not know."""
        for number in range(first - 1, len(self.messages)):
            self.messages[number] = newer(self.messages[number] or b"")

    @contextmanager
    def reading(self, first: int) -> Iterator[Reader]:
        """Read on from a number, or from where that brings one."""
        self._asked()
        yield _Reader(self, max(first, self.first))

    def asked(self) -> None:
        """Fail as everything else does."""
        self._asked()

    def _asked(self) -> None:
        self.before()
        super()._asked()


def newer(message: bytes) -> bytes:
    """Make a message as of a version that this one does not know, and sign it."""
    signed = message[: len(MAGIC)] + bytes([VERSION + 1]) + message[len(MAGIC) + 1 : -SIGNATURE_BYTES]
    return signed + SIGNING_KEY.sign(signed)


class _Reader:
    def __init__(self, log: ReadableLog, first: int) -> None:
        self._log = log
        self._next = first
        self._created = log.created

    def fetch(self, timeout_s: float, most: int = 16) -> list[tuple[int, bytes]]:  # noqa: ARG002 - nothing takes time
        """Return what is there. A log that was made anew looks as if nothing came."""
        self._log.asked()
        if self._created != self._log.created:
            return []
        self._next = max(self._next, self._log.first)
        found: list[tuple[int, bytes]] = []
        while self._next <= len(self._log.messages) and len(found) < most:
            message = self._log.messages[self._next - 1]
            if message is not None:
                found.append((self._next, message))
            self._next += 1
        return found


@dataclass
class FolderCopies:
    """Copies of stores in a folder, as snapshots are: the newest one that fits is taken."""

    folder: Path
    before: Callable[[], None] = lambda: None
    made: list[tuple[LogState, bytes, Path]] = field(default_factory=list)

    def make(self, store: Store) -> LogState:
        """Copy a store that is open."""
        path = self.folder / str(len(self.made))
        path.mkdir(parents=True)
        copied = copy_to(store, path)
        assert copied.log is not None
        self.made.append((copied.log, copied.position.log_id, path))
        return copied.log

    def take(self, into: Path, need: CopyNeeded, key_ids: KeyIds | None, alive: Callable[[], None]) -> None:  # noqa: ARG002 - the keys are the same
        """Take the newest one that fits, in two steps."""
        alive()
        self.before()
        fit = [each for each in self.made if each[1] == need.log_id and each[0].batch >= need.batch]
        if not fit:
            raise SnapshotMissingError("No copy fits.")
        _, _, path = max(fit, key=lambda each: (each[0].term, each[0].batch))
        for left in into.iterdir():
            left.unlink()
        self.before()
        shutil.copy(path / "data.mdb", into / "data.mdb")
        self.before()
        with LogWriter.reopen(into) as writer:
            writer.become_replica()


class Told:
    """A `Watch` that remembers."""

    def __init__(self) -> None:
        self.states = [State.STARTING]
        self.whys: list[str] = []
        self.rejections: list[str] = []
        self.refusals: list[LogError] = []
        self.batches = 0
        self.served: LogState | None = None

    @property
    def state(self) -> State:
        """The newest one."""
        return self.states[-1]

    def serves(self, state: LogState) -> None:
        """Remember it."""
        self.served = state

    def became(self, state: State, why: str = "") -> None:
        """Remember it."""
        self.states.append(state)
        self.whys.append(why)

    def applied(self, batches: int, rows: int, state: LogState) -> None:  # noqa: ARG002 - as a Watch is told
        """Count them."""
        self.batches += batches
        self.served = state

    def rejected(self, number: int, error: MessageRejectedError) -> None:  # noqa: ARG002 - as a Watch is told
        """Remember why."""
        self.rejections.append(error.why)

    def refused(self, error: LogError) -> None:
        """Remember it."""
        self.refusals.append(error)

    def behind(self, rows: int, size: int) -> None:
        """Pass it over."""

    def not_copied(self, error: IyscheckError) -> None:
        """Fail."""
        raise AssertionError(error)
