"""The machine of a primary in one folder: store, keys and cluster file, as `create-log` finds them."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from iyscheck.keys import AddressKey, SigningKey, StoreKey, StreamKey
from iyscheck.store.log_batch import Kind
from iyscheck.store.snapshot import Store
from iyscheck.store.writer import Writer
from loader.replication.cluster import Cluster
from loader.replication.codec import header_of
from tests.loader.feeds import Command

PATIENCE_S = 60.0


def until(condition: Callable[[], object], what: str = "it") -> None:
    """Wait until something is true."""
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end_s:
            pytest.fail(f"{what} never came true")
        time.sleep(0.02)


def write_cluster(folder: Path, servers: Sequence[str] = ("nats://127.0.0.1:1",), *, more: str = "") -> Path:
    """Make stream key, signing key and a cluster file that goes by them; `more` is added to it."""
    if not (folder / "stream.key").exists():
        StreamKey.create(folder / "stream.key")
        SigningKey.create(folder / "signing.key")
    public = SigningKey.load(folder / "signing.key").public.hex()
    file = folder / "cluster.toml"
    file.write_text(
        f'stream_key = "stream.key"\nsigning_key = "signing.key"\n\n[nats]\nservers = {json.dumps(list(servers))}\n'
        f'name = "publisher"\n\n[signers.primary]\npublic = "{public}"\nmay = ["changes", "snapshots"]\n{more}'
    )
    file.chmod(0o600)
    return file


@contextmanager
def primary_at(folder: Path) -> Iterator[Writer]:
    """Open the primary of a machine for writing, as a loader does."""
    keys = AddressKey.load(folder / "address.key"), StoreKey.load(folder / "store.key")
    with Writer.open(
        folder / "store",
        address_key_id=keys[0].key_id,
        store_key_id=keys[1].key_id,
        sealer=Cluster.read(folder / "cluster.toml").sealer(),
    ) as writer:
        yield writer


class PrimarySite:
    """A primary and its commands."""

    def __init__(self, command: Command, servers: Sequence[str] = ("nats://127.0.0.1:1",), *, more: str = "") -> None:
        self.path = command.path
        self.store = command.path / "store"
        self.command = command
        self.cluster = write_cluster(command.path, servers, more=more)

    def writer(self) -> AbstractContextManager[Writer]:
        """Open the primary for writing, as a loader does."""
        return primary_at(self.path)

    def commit(self, times: int = 1) -> None:
        """Commit batches."""
        with self.writer() as writer:
            for _ in range(times):
                writer.heartbeat(0)

    def outbox(self) -> list[bytes]:
        """Return all messages of the outbox."""
        with Store.open(self.store) as store, store.snapshot() as snapshot:
            return [message for batch, _ in snapshot.outbox_batches() for message in snapshot.outbox_messages(batch)]

    def kinds(self) -> list[Kind]:
        """Return what the batches of the outbox are."""
        return [Kind(header_of(message).kind) for message in self.outbox()]

    def batch(self) -> int:
        """Return the number of the newest batch."""
        with Store.open(self.store) as store, store.snapshot() as snapshot:
            assert snapshot.log is not None
            return snapshot.log.batch
