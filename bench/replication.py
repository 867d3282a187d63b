"""Primaries and replicas for the sections on replicas, in processes of `bench.worker`. Knows insides, as `product`.

A primary here is a kept store that was made one by its first batch; a replica begins as a copy of its file. Messages
are those that a publisher would send: they are read from the primary's outbox, verified and opened as in a replica.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bench.product import NEW_SHARE, Changer, commit
from iyscheck.kernel import Kernel
from iyscheck.keys import AddressKey, Signers, SigningKey, StoreKey, StreamKey
from iyscheck.store.log_batch import Received
from iyscheck.store.log_writer import LogWriter
from iyscheck.store.snapshot import Store
from iyscheck.store.writer import Writer
from loader.replication.codec import BatchOpener, BatchSealer, hash_of
from loader.replication.publish import AckFile

_STREAM: Final = "measured"


def make_log_keys(folder: Path) -> None:
    """Make the two keys of a log beside the others, once."""
    for name, kind in (("stream.key", StreamKey), ("signing.key", SigningKey)):
        if not (folder / name).exists():
            kind.create(folder / name)


def sealer(keys: Path) -> BatchSealer:
    """Return what makes a primary's messages."""
    return BatchSealer(StreamKey.load(keys / "stream.key"), SigningKey.load(keys / "signing.key"))


def opener(keys: Path) -> BatchOpener:
    """Return what opens them."""
    return BatchOpener(StreamKey.load(keys / "stream.key"), Signers([SigningKey.load(keys / "signing.key").public]))


def make_primary(store: Path, keys: Path, *, settings: str = "") -> None:
    """Make a store the primary of a log; one that is not there begins empty."""
    address_key, store_key = AddressKey.load(keys / "address.key"), StoreKey.load(keys / "store.key")
    with LogWriter.open(store, address_key_id=address_key.key_id, store_key_id=store_key.key_id) as writer:
        writer.take_over(writer.begin_term(sealer(keys)), settings=settings)


def make_empty(store: Path, keys: Path) -> None:
    """Make a store that is in no log and holds nothing: what `make_primary` begins with."""
    address_key, store_key = AddressKey.load(keys / "address.key"), StoreKey.load(keys / "store.key")
    LogWriter.open(store, address_key_id=address_key.key_id, store_key_id=store_key.key_id).close()


def make_replica(store: Path) -> None:
    """Make a copy of a primary's file a replica that stands where the primary stood."""
    with LogWriter.reopen(store) as writer:
        writer.become_replica()


def age_s(store: Path) -> float:
    """Return how old a replica's newest batch is, in seconds; its files may be exchanged at any moment."""
    with Store.open(store) as opened, opened.snapshot() as snapshot:
        return time.time() if snapshot.log is None else time.time() - snapshot.log.created_ms / 1000


class Clock:
    """Seconds UTC that move when they are told to."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        """Tell them."""
        return self.now


class Loading(Changer):
    """Applies random changes as a loader does, with the loops that a loader takes; `primary` says whether to a log."""

    def __init__(
        self,
        store: str,
        keys: str,
        consents: int,
        *,
        primary: bool,
        new_share: float = NEW_SHARE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sealer = sealer(Path(keys)) if primary else None
        self._clock = clock
        super().__init__(store, keys, consents, new_share=new_share)

    def opened(self, store: str) -> Writer:
        """Open the store for writing."""
        return Writer.open(
            store,
            address_key_id=self._address_key.key_id,
            store_key_id=self._store_key.key_id,
            kernel=Kernel.best().usable(),
            sealer=self._sealer,
            clock=self._clock,
        )

    def timed(self, size: int, number: int, source: str = "changes") -> dict[str, float]:
        """Commit random changes of a source as `apply` does; also `processor_s`, and which `batch` it became."""
        columns = self.changes(size, number)
        before, started = time.process_time(), time.perf_counter()
        commit(self._writer, columns, source)
        seconds, at = time.perf_counter() - started, time.time()
        taken = time.process_time() - before
        return {"seconds": seconds, "processor_s": taken, "changes": len(columns), "at": at, **self.state()}

    def paced(self, size: int, first: int, commits: int, every_s: float) -> dict[str, list[float]]:
        """Commit `size` changes each `every_s` seconds, made beforehand: each batch, and when it was durable."""
        made = [self.changes(size, number) for number in range(first, first + commits)]
        batches, ats, due = [], [], time.monotonic()
        for columns in made:
            time.sleep(max(0.0, due - time.monotonic()))
            commit(self._writer, columns, "changes")
            ats.append(time.time())
            batches.append(self.state()["batch"])
            due += every_s
        return {"batches": batches, "ats": ats}

    def state(self) -> dict[str, float]:
        """Return which batch was made last, 0 in no log."""
        return {"batch": 0 if self._writer.log is None else self._writer.log.batch}

    def reader(self) -> Store:
        """Return the same store for reading."""
        return Store(self._writer.environment)


class Applying:
    """A replica that takes batches from the outbox of a primary on the same machine."""

    def __init__(self, store: str, primary: str, keys: str) -> None:
        self._writer = LogWriter.reopen(store, kernel=Kernel.best().usable())
        self._primary = Store.open(primary)
        self._opener = opener(Path(keys))

    def follow(self, first: int, last: int) -> dict[str, float]:
        """Apply batches in one transaction; seconds for opening their messages, and for all of it."""
        with self._primary.snapshot() as snapshot:
            messages = [snapshot.outbox_messages(batch) for batch in range(first, last + 1)]
        before, started = time.process_time(), time.perf_counter()
        received = received_of(self._opener, messages)
        opened = time.perf_counter()
        followed = self._writer.follow(received, stream_created=_STREAM)
        seconds = time.perf_counter() - started
        return {
            "opened_s": opened - started,
            "seconds": seconds,
            "processor_s": time.process_time() - before,
            "changes": followed.applied,
        }

    def close(self) -> None:
        """Close both stores."""
        self._writer.close()
        self._primary.close()


class Watching:
    """Sees when batches become visible in replicas: it looks at their files, as a server does, each `POLL_S`."""

    POLL_S: Final = 0.002

    def __init__(self, stores: Sequence[str]) -> None:
        self._stores = [Store.open(store) for store in stores]

    def until(self, batch: int, seconds: float) -> dict[str, list[list[float]]]:
        """Look until all have a batch, or time is over: for each store pairs of a batch and when it was seen."""
        seen: list[list[float]] = [[] for _ in self._stores]
        newest = [self._batch(store) for store in self._stores]
        deadline = time.monotonic() + seconds
        while min(newest) < batch and time.monotonic() < deadline:
            for number, store in enumerate(self._stores):
                found = self._batch(store)
                if found > newest[number]:
                    newest[number] = found
                    seen[number] += [found, time.time()]
            time.sleep(self.POLL_S)
        return {"seen": seen}

    def close(self) -> None:
        """Close them."""
        for store in self._stores:
            store.close()

    @staticmethod
    def _batch(store: Store) -> int:
        with store.snapshot() as snapshot:
            return 0 if snapshot.log is None else snapshot.log.batch


def received_of(batch_opener: BatchOpener, batches: Sequence[Sequence[bytes]]) -> list[Received]:
    """Open the messages of batches, as they come to a replica."""
    return [
        Received(batch=batch_opener.opened(messages), chain=hash_of(messages[-1]), number=number)
        for number, messages in enumerate(batches, 1)
    ]


class Hour:
    """A primary and its replica on a clock in hand: commits are real and durable, only time between them is not spent.

    All changes are updates, and each batch counts as published when the next is made.
    """

    def __init__(self, store: str, replica: str, keys: str, consents: int, rows: int, every_s: float) -> None:
        self._clock = Clock()
        self._began = self._clock.now
        self._rows, self._every_s = rows, every_s
        self._done = 0
        self._files = {name: Path(path) / "data.mdb" for name, path in (("primary", store), ("replica", replica))}
        self._primary = Loading(store, keys, consents, primary=True, new_share=0.0, clock=self._clock)
        self._reading = self._primary.reader()
        self._replica = LogWriter.reopen(replica, kernel=Kernel.best().usable())
        self._opener = opener(Path(keys))
        self._acknowledged = AckFile(Path(store))

    def run(self, commits: int) -> dict[str, float]:
        """Make so many commits and apply each; the clock's seconds since the beginning, and bytes of everything."""
        for _ in range(commits):
            self._clock.now += self._every_s
            self._done += 1
            batch = int(self._primary.timed(self._rows, self._done)["batch"])
            with self._reading.snapshot() as snapshot:
                messages = snapshot.outbox_messages(batch)
            self._replica.follow(received_of(self._opener, [messages]), stream_created=_STREAM)
            self._acknowledged.write(batch)
        with self._reading.snapshot() as snapshot:
            outbox = snapshot.outbox_bytes()
        sizes = {name: file.stat().st_size for name, file in self._files.items()}
        return {"clock_s": self._clock.now - self._began, "commits": self._done, "outbox": outbox, **sizes}

    def close(self) -> None:
        """Close everything."""
        self._replica.close()
        self._primary.close()
