"""Snapshots for tests: keys, a primary to copy, a maker and a taker of its snapshots; as a process a maker to kill."""

import sys
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random

from iyscheck.keys import Signers, SigningKey, StreamKey
from iyscheck.store.layout import LogState, SourceState
from iyscheck.store.snapshot import Store
from iyscheck.store.writer import Writer
from loader.replication.maker import KEEP, Maker
from loader.replication.manifest import Manifest
from loader.replication.places import DirectoryPlace, Place
from loader.replication.snapshot import Wanted, fetch, install
from tests.builders import ADDRESS_KEY, NOW, STORE_KEY, a_batch, a_brand, a_change
from tests.embedding import make_store
from tests.logs import begin, primary

STREAM_KEY = StreamKey(bytes(range(64, 96)))
MAKER, OTHER_MAKER, STRANGER = (SigningKey(bytes([number] * 32)) for number in (1, 2, 3))
SIGNERS = Signers([MAKER.public, OTHER_MAKER.public])
PART_BYTES = 100_000
WANTED = Wanted(address_key_id=ADDRESS_KEY.key_id, store_key_id=STORE_KEY.key_id)


def load(writer: Writer, records: int, *, seed: int = 0) -> None:
    """Put so many consents with tags by chance into a store, as one batch."""
    dice = Random(seed)
    changes = [
        a_change(brand=1 + number % 3, tag=dice.randbytes(16), transaction_id=dice.randbytes(16).hex())
        for number in range(records)
    ]
    batch = a_batch(changes, brands=[a_brand(brand) for brand in (1, 2, 3)])
    state = SourceState(name=f"seed {seed}", rows=batch.rows, watermarks=((1, NOW), (2, NOW)))
    writer.apply(batch, state, finished=True)


@dataclass(kw_only=True)
class Site:
    """A primary with some thousand consents, and a directory for snapshots."""

    folder: Path
    told: list[str] = field(default_factory=list)

    @classmethod
    def make(cls, folder: Path, records: int = 3000) -> "Site":
        """Fill the primary."""
        site = cls(folder=folder)
        make_store(site.store)
        begin(site.store)
        with site.writer() as writer:
            load(writer, records)
        return site

    @property
    def store(self) -> Path:
        """The primary's store."""
        return self.folder / "store"

    @property
    def directory(self) -> Path:
        """Where the snapshots lie."""
        return self.folder / "place"

    @property
    def place(self) -> DirectoryPlace:
        """The same as a place."""
        return DirectoryPlace(self.directory)

    @property
    def replica(self) -> Path:
        """Where a snapshot is taken to."""
        return self.folder / "replica"

    def writer(self) -> Writer:
        """Open the primary for loading."""
        return primary(self.store)

    def advance(self, seed: int, records: int = 10) -> None:
        """Let the primary make another batch."""
        with self.writer() as writer:
            load(writer, records, seed=seed)

    def maker(self, key: SigningKey = MAKER, **options: object) -> Maker:
        """Make a maker that takes small parts."""
        terms = {"stream_key": STREAM_KEY, "signers": SIGNERS, "part_bytes": PART_BYTES, "keep": KEEP} | options
        return Maker(self.store, self.place, signing_key=key, **terms)  # type: ignore[arg-type] # of those options

    def take(self, place: Place | None = None, into: Path | None = None, **options: object) -> Manifest:
        """Take the newest snapshot, but do not install it."""
        terms = {"wanted": WANTED, "stream_key": STREAM_KEY, "signers": SIGNERS, "tell": self.told.append} | options
        return fetch(place or self.place, into or self.replica, **terms)  # type: ignore[arg-type] # of those options

    def boot(self, place: Place | None = None, **options: object) -> LogState:
        """Take the newest snapshot and make a replica of it."""
        return install(self.replica, self.take(place, None, **options))

    def parts(self) -> list[Path]:
        """All parts of all snapshots at the directory."""
        return sorted(path for path in self.directory.iterdir() if path.suffix[1:].isdigit())

    def manifests(self) -> list[Path]:
        """All manifests there, the oldest first."""
        return sorted(self.directory.glob("snapshot-*.json"))


def has_opened(directory: Path) -> bool:
    """Say whether LMDB was ever let at what was taken into a directory."""
    return (directory / "data.mdb").exists() or (directory / "lock.mdb").exists()


def opened(path: Path) -> Store:
    """Open a store for reading."""
    return Store.open(path, address_key_id=ADDRESS_KEY.key_id, store_key_id=STORE_KEY.key_id)


def _load_for_ever(folder: Path) -> None:
    with Site(folder=folder).writer() as writer:
        for seed in count(1):
            load(writer, 200, seed=seed)
            print(seed, flush=True)  # noqa: T201 - to whoever kills this process


def _make_for_ever(folder: Path) -> None:
    site = Site(folder=folder)
    while True:
        print(site.maker().make().id, flush=True)  # noqa: T201 - to whoever kills this process


def _take_for_ever(folder: Path) -> None:
    site = Site(folder=folder)

    def tell(done: int, _total: int) -> None:
        print(done, flush=True)  # noqa: T201 - as above

    while True:
        print(site.take(progress=tell).id, flush=True)  # noqa: T201 - as above
        for path in site.replica.iterdir():
            path.unlink()


if __name__ == "__main__":
    {"load": _load_for_ever, "make": _make_for_ever, "take": _take_for_ever}[sys.argv[1]](Path(sys.argv[2]))
