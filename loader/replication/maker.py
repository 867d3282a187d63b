"""Making snapshots: a compacted copy of the store, cut into parts that are compressed and sealed, and a manifest.

The copy lies beside the store, in a directory of its own that only its user can read, and never at the place. The
manifest is put there last: before it nobody sees a snapshot, and a maker that is killed leaves only what the next one
removes.
"""

import fcntl
import hashlib
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from io import BytesIO
from pathlib import Path
from typing import Final

import zstandard
from msgspec import structs

from iyscheck.errors import PlaceAwayError, SnapshotError
from iyscheck.keys import Signers, SigningKey, StreamKey
from iyscheck.store.copying import Copied, copy_to
from iyscheck.store.environment import files_translated
from iyscheck.store.layout import LogState
from iyscheck.store.snapshot import Store
from loader.replication.codec import seal_bytes
from loader.replication.manifest import (
    PART_KIND,
    Manifest,
    ManifestRefusedError,
    Part,
    SignedManifest,
    made_ms,
    maker_of,
    manifest_at,
    manifests_at,
    new_id,
    part_context,
    part_of,
)
from loader.replication.places import LEFT_S, MakersPlace, Progress, VanishedError, no_progress

PART_BYTES: Final = 2**28
"""Of the data file, in one part. Each thread that seals holds what its part is compressed to, twice."""
KEEP: Final = 3
THREADS: Final = 2
_LEVEL: Final = 1
_PIECE_BYTES: Final = 2**20


class Maker:
    """Makes snapshots of a store at a place, and keeps the newest `keep` of its log there.

    `signers` say whose snapshots at the place count. `clock` tells seconds UTC.
    """

    def __init__(
        self,
        store: Path,
        place: MakersPlace,
        *,
        stream_key: StreamKey,
        signing_key: SigningKey,
        signers: Signers,
        keep: int = KEEP,
        part_bytes: int = PART_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._place = place
        self._stream_key = stream_key
        self._signing_key = signing_key
        self._signers = signers
        self._keep = keep
        self._part_bytes = part_bytes
        self._clock = clock

    def make(self, progress: Progress = no_progress) -> Manifest:
        """Make a snapshot of what is committed now. It works beside a writer, but lets the store's file grow.

        Raises SnapshotError, PlaceAwayError, and StoreFullError where there is no room for the copy.
        """
        with self.copied() as copied:
            return self.placed(copied, progress)

    @contextmanager
    def copied(self, opened: Store | None = None) -> Iterator[Copied]:
        """Copy the store; the copy is gone at the end. Who applies batches to the store waits for this only.

        `opened` is the store in a process that has it open for writing: there it is opened once.
        """
        with nullcontext(opened) if opened else Store.open(self._store) as store:
            with store.snapshot() as snapshot:
                _fit(snapshot.log)
            with _room_beside(self._store) as room:
                yield copy_to(store, room)

    def placed(self, copied: Copied, progress: Progress = no_progress) -> Manifest:
        """Put a copy to the place as a snapshot, and remove what is too old there."""
        begun = self._begun(copied)
        parts: list[Part] = []
        try:
            with ThreadPoolExecutor(THREADS + 1) as pool:
                whole = pool.submit(_sha256, copied.path)
                for part, sealed in self._sealed(pool, copied.path, begun.manifest.id):
                    self._place.put(begun.part_name(len(parts)), [sealed])
                    parts.append(part)
                    progress(sum(each.plain for each in parts), begun.manifest.bytes)
                manifest = structs.replace(begun.manifest, sha256=whole.result(), parts=tuple(parts))
            signed = SignedManifest.of(manifest, self._signing_key)
            replaced = self._of_same_name(signed.name)
            self._place.put(signed.name, [signed.content])
        except BaseException:
            with suppress(PlaceAwayError):  # what stays is removed as any leftover is
                self._withdraw(begun, len(parts) + 1)
            raise
        self.tidy(manifest.log_id, replaced)
        return manifest

    def tidy(self, log_id: str, replaced: Iterable[str] = ()) -> None:
        """Remove snapshots of a log that are older than the newest whole ones, and what broken makes left.

        `replaced` are ids of those whose manifests another one took the place of.
        """
        names = set(self._place.names())
        long_ago_ms = (self._clock() - LEFT_S) * 1000
        kept: set[str] = set()
        dropped = set(replaced)
        whole = 0
        for signed in manifests_at(self._place, self._signers)[0]:
            if signed.manifest.log_id == log_id:
                is_whole = names >= set(signed.part_names)
                if whole < self._keep and (is_whole or signed.manifest.made_ms > long_ago_ms):
                    whole += is_whole
                    kept.add(signed.manifest.id)
                else:
                    self._place.remove(signed.name)
                    dropped.add(signed.manifest.id)
        self._place.settle()  # before the parts go, so that nobody is sent to them
        for name in names:
            found = part_of(name, log_id)
            if found and found not in kept and (found in dropped or made_ms(found) <= long_ago_ms):
                self._place.remove(name)

    def _withdraw(self, begun: SignedManifest, parts: int) -> None:
        """Take away what was put there of a snapshot. The manifest may be there though the place did not say so."""
        if begun.manifest.id in self._of_same_name(begun.name):
            self._place.remove(begun.name)
        for number in range(parts):
            self._place.remove(begun.part_name(number))

    def _of_same_name(self, name: str) -> list[str]:
        """Return the id of the snapshot whose manifest has a name: this maker made one at the same batch."""
        try:
            return [manifest_at(self._place, name, self._signers).manifest.id]
        except (VanishedError, ManifestRefusedError):
            return []

    def _begun(self, copied: Copied) -> SignedManifest:
        """Make the manifest of a snapshot that has no parts yet."""
        log = _fit(copied.log)
        manifest = Manifest(
            id=new_id(self._clock()),
            maker=maker_of(self._signing_key),
            log_id=copied.position.log_id.hex(),
            term=log.term,
            batch=log.batch,
            chain=log.chain.hex(),
            sequence=copied.position.sequence,
            digest=log.digest.hex(),
            created_ms=log.created_ms,
            stream_created=log.stream_created,
            stream_sequence=log.stream_sequence,
            format=copied.format,
            address_key=copied.address_key_id.hex(),
            store_key=copied.store_key_id.hex(),
            stream_key=self._stream_key.key_id.hex(),
            bytes=copied.path.stat().st_size,
            sha256="",
            parts=(),
        )
        return SignedManifest(manifest=manifest, content=b"")

    def _sealed(self, pool: ThreadPoolExecutor, path: Path, snapshot_id: str) -> Iterator[tuple[Part, bytes]]:
        """Give the parts of a file in their order, as many at work at once as there are threads."""
        begun: deque[Future[tuple[Part, bytes]]] = deque()
        for number, first in enumerate(range(0, path.stat().st_size, self._part_bytes)):
            if len(begun) == THREADS:
                yield begun.popleft().result()
            begun.append(pool.submit(self._part, path, snapshot_id, number, first))
        while begun:
            yield begun.popleft().result()

    def _part(self, path: Path, snapshot_id: str, number: int, first: int) -> tuple[Part, bytes]:
        """Compress and seal a part of a file."""
        compressor = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
        compressed = BytesIO()  # gives its bytes without a copy of them
        plain = 0
        with path.open("rb", buffering=0) as file:
            file.seek(first)
            while piece := file.read(min(_PIECE_BYTES, self._part_bytes - plain)):
                plain += len(piece)
                compressed.write(compressor.compress(piece))
        compressed.write(compressor.flush())
        sealed = seal_bytes(self._stream_key, PART_KIND, part_context(snapshot_id, number), compressed.getvalue())
        return Part(plain=plain, bytes=len(sealed), sha256=hashlib.sha256(sealed).hexdigest()), sealed


def _fit(log: LogState | None) -> LogState:
    """Refuse what no replica could go on from, or should."""
    if log is None:
        raise SnapshotError(
            "This store is in no log, so no replica could go on from a snapshot of it.",
            fix="Make it a primary with 'iyscheck-loader create-log', or a replica with 'iyscheck-loader replicate'.",
        )
    if log.untrusted:
        raise SnapshotError(
            "Nothing in this store may be believed, so nobody is given a snapshot of it.",
            fix="Let 'iyscheck-loader replicate' take a snapshot itself first.",
        )
    return log


@contextmanager
def _room_beside(store: Path) -> Iterator[Path]:
    """Give an empty directory beside a store, to one process at a time. What a killed one left there is removed."""
    where = store.absolute().with_name(store.absolute().name + ".copying")
    room = where / "copy"
    with files_translated(where):
        where.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(where / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SnapshotError("A snapshot of this store is being made already.", fix="Wait for it.") from None
        with files_translated(where):
            shutil.rmtree(room, ignore_errors=True)
            room.mkdir(mode=0o700)
        try:
            yield room
        finally:
            shutil.rmtree(room, ignore_errors=True)
    finally:
        os.close(lock)


def _sha256(path: Path) -> str:
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
