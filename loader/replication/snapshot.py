"""Taking a snapshot: the newest one of a place that may be believed, into a directory of its own.

Nothing that lies at a place is believed. A manifest counts by its signature, a part by its SHA-256, which the manifest
says, before it is decrypted, and the data file as a whole before it gets the name by which LMDB opens it. What broke
off is taken up again where it was.
"""

import hashlib
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zstandard

from iyscheck.errors import (
    MessageRejectedError,
    PlaceAwayError,
    SnapshotError,
    SnapshotMissingError,
    StoreFullError,
)
from iyscheck.keys import Signers, StreamKey
from iyscheck.store import layout
from iyscheck.store.environment import DATA_FILE, files_translated
from iyscheck.store.layout import LogState
from iyscheck.store.log_writer import LogWriter
from loader.replication.codec import open_bytes
from loader.replication.manifest import (
    PART_KIND,
    Manifest,
    ManifestRefusedError,
    SignedManifest,
    manifests_at,
    part_context,
)
from loader.replication.places import Place, Progress, VanishedError, no_progress, write_whole

BEGUN: Final = "snapshot.json"
"""In a directory that a snapshot is taken into: its manifest, until it is installed."""
_NEW: Final = BEGUN + ".unfinished"
_DATA: Final = DATA_FILE + ".unfinished"
_PART: Final = "part-{:05}.unfinished"
_DONE: Final = "part-{:05}.done"
_THREADS: Final = 2
_PIECE_BYTES: Final = 2**20
_TRIES: Final = 4
"""How often a place is asked again that does not go on with a part, in a row."""
_PAUSE_S: Final = 0.5
"""Before it is asked again; twice as long each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a snapshot has to be: of a log, not before a batch, under keys (ids). None is not compared."""

    log_id: bytes | None = None
    batch: int = 0
    address_key_id: bytes | None = None
    store_key_id: bytes | None = None

    def refusal(self, manifest: Manifest, stream_key: StreamKey) -> str:
        """Say why a snapshot is not wanted, empty if it is."""
        if self.log_id is not None and manifest.log_id != self.log_id.hex():
            return "it is of another log"
        if manifest.batch < self.batch:
            return f"it is older than batch {self.batch}"
        if manifest.format > layout.FORMAT_VERSION:
            return "a newer iyscheck made it"
        for what, held, written in (
            ("stream", stream_key.key_id, manifest.stream_key),
            ("address", self.address_key_id, manifest.address_key),
            ("store", self.store_key_id, manifest.store_key),
        ):
            if held is not None and held.hex() != written:
                return f"it is under the {what} key {written}, not {held.hex()}"
        return ""


class _DamagedError(Exception):
    """A snapshot of which something is not what its manifest says; the text says what."""


def fetch(
    place: Place,
    into: Path,
    *,
    wanted: Wanted,
    stream_key: StreamKey,
    signers: Signers,
    progress: Progress = no_progress,
    tell: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Take the newest snapshot that is wanted into a directory that is empty, or where it broke off before.

    What broke off is taken up again, if it still lies at the place. `tell` is told what is wrong with any other; the
    place is asked from one thread. The data file is there at the end, but no role in the log yet: see `install`.

    Raises SnapshotMissingError, PlaceAwayError (try again: it goes on where it was), StoreFullError, and SnapshotError
    where something else lies in the directory.
    """
    with files_translated(into):
        into.mkdir(mode=0o700, parents=True, exist_ok=True)
        taking = _Taking(place, into, stream_key, progress)
        begun = taking.begun(signers)
    if begun is not None and (into / DATA_FILE).exists() and not wanted.refusal(begun.manifest, stream_key):
        return begun.manifest
    found, wrong = manifests_at(place, signers)
    for signed in sorted(found, key=lambda each: begun is not None and each.content == begun.content, reverse=True):
        if why := wanted.refusal(signed.manifest, stream_key):
            wrong.append(f"{signed.name}: {why}")
            continue
        try:
            with files_translated(into):
                if begun is None or begun.content != signed.content:
                    taking.begin(signed)
                taking.take(signed)
        except (_DamagedError, VanishedError) as error:
            wrong.append(f"{signed.name}: {error}")
            tell(f"A snapshot cannot be used, the next older one is tried. {wrong[-1]}.")
            taking.forget()
            begun = None
        else:
            return signed.manifest
    raise SnapshotMissingError(
        f"No snapshot at {place} can be taken.{''.join(f' {each}.' for each in wrong)}",
        fix="Look whether a maker runs: 'iyscheck-loader snapshot' makes one now, with --list it shows what is there.",
    )


def install(into: Path, manifest: Manifest) -> LogState:
    """Make a store of what `fetch` put into a directory: a replica, where the manifest says. Return how it stands.

    Raises SnapshotError where the copy stands elsewhere in its log than its manifest says.
    """
    keys = bytes.fromhex(manifest.address_key), bytes.fromhex(manifest.store_key)
    with LogWriter.open(into, address_key_id=keys[0], store_key_id=keys[1]) as writer:
        log, position = writer.log, writer.position
        stands = log and (position.log_id, position.sequence, log.term, log.batch, log.chain, log.digest)
        said = bytes.fromhex(manifest.log_id), manifest.sequence, manifest.term, manifest.batch
        if stands != (*said, bytes.fromhex(manifest.chain), bytes.fromhex(manifest.digest)):
            raise SnapshotError(
                "The copy of the store stands elsewhere in its log than its manifest says.", fix="Please report it."
            )
        state = writer.become_replica()
    with files_translated(into):
        (into / BEGUN).unlink(missing_ok=True)
        _sync(into)
    return state


class _Taking:
    """Takes snapshots into a directory."""

    def __init__(self, place: Place, into: Path, stream_key: StreamKey, progress: Progress) -> None:
        self._place = place
        self._into = into
        self._stream_key = stream_key
        self._progress = progress
        self._arrived = 0

    def begun(self, signers: Signers) -> SignedManifest | None:
        """Return what was begun here, None if nothing was. Raises SnapshotError where something else lies here."""
        with suppress(FileNotFoundError, ManifestRefusedError):
            return SignedManifest.read((self._into / BEGUN).read_bytes(), signers)
        if any(not _is_unfinished(path.name) for path in self._into.iterdir()):
            raise SnapshotError(
                f"'{self._into}' is not empty, so no snapshot is put there.", fix="Name another directory."
            )
        return None

    def forget(self) -> None:
        """Forget what was begun, and whatever of it is good."""
        for path in self._into.iterdir():
            if path.name != BEGUN:
                path.unlink()
        (self._into / BEGUN).unlink(missing_ok=True)  # last: it says that all the rest is ours

    def begin(self, signed: SignedManifest) -> None:
        """Note what is taken now, in place of what was begun."""
        self.forget()
        new = self._into / _NEW
        new.write_bytes(signed.content)
        new.replace(self._into / BEGUN)

    def take(self, signed: SignedManifest) -> None:
        """Take all parts that are not there yet. Raises _DamagedError, VanishedError and what `fetch` raises."""
        manifest = signed.manifest
        if sum(part.plain for part in manifest.parts) != manifest.bytes or any(
            min(part.plain, part.bytes) <= 0 for part in manifest.parts
        ):
            raise _DamagedError("its parts are not all of it")
        self._refuse_short(manifest)
        data = os.open(self._into / _DATA, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        whole = hashlib.sha256()
        try:
            with ThreadPoolExecutor(_THREADS) as opening, ThreadPoolExecutor(1) as hashing:
                hashed: deque[Future[None]] = deque()
                at = self._arrived = 0
                for number, part in enumerate(manifest.parts):
                    if len(hashed) == _THREADS:
                        hashed.popleft().result()
                    opened: Future[None] | None = None
                    if (self._into / _DONE.format(number)).exists():
                        self._arrive(part.bytes, manifest)
                    else:
                        self._download(signed, number)
                        opened = opening.submit(self._open, manifest, number, data, at)
                    hashed.append(hashing.submit(_hash, whole, opened, data, at, part.plain))
                    at += part.plain
                while hashed:
                    hashed.popleft().result()
            os.ftruncate(data, manifest.bytes)
            if whole.hexdigest() != manifest.sha256:
                raise _DamagedError("the data file is not what its manifest says")
            os.fsync(data)
        finally:
            os.close(data)
        for path in self._into.glob("part-*"):
            path.unlink()
        (self._into / _DATA).rename(self._into / DATA_FILE)
        _sync(self._into)

    def _refuse_short(self, manifest: Manifest) -> None:
        """Refuse to begin what the disk has no room for."""
        there = sum(path.stat().st_blocks * 512 for path in self._into.iterdir())
        largest = sorted((part.bytes for part in manifest.parts), reverse=True)[: _THREADS + 1]
        short = manifest.bytes + sum(largest) - there - shutil.disk_usage(self._into).free
        if short > 0:
            raise StoreFullError(
                f"A snapshot of {manifest.bytes:,} bytes does not fit at '{self._into}': {short:,} bytes are missing.",
                fix="Free space, or give the store a larger disk.",
            )

    def _arrive(self, size: int, manifest: Manifest) -> None:
        self._arrived += size
        self._progress(self._arrived, manifest.sent_bytes)

    def _download(self, signed: SignedManifest, number: int) -> None:
        """Take a part, from where it broke off. One that is not what it should be is taken anew, once."""
        manifest, path = signed.manifest, self._into / _PART.format(number)
        part, before = manifest.parts[number], self._arrived
        for _ in range(2):
            self._arrived = before
            digest = hashlib.sha256()
            with path.open("a+b", buffering=0) as file:
                file.seek(0)
                while piece := file.read(_PIECE_BYTES):
                    digest.update(piece)
                    self._arrive(len(piece), manifest)
                left = part.bytes - file.tell()
                for piece in self._pieces(signed.part_name(number), file.tell(), left):
                    write_whole(file.fileno(), piece)
                    digest.update(piece)
                    self._arrive(len(piece), manifest)
            if digest.hexdigest() == part.sha256:
                return
            path.unlink()
        raise _DamagedError(f"part {number} is not what its manifest says")

    def _pieces(self, name: str, first: int, left: int) -> Iterator[bytes]:
        """Give `left` bytes of a file from a byte on, fewer if it ends. A place that breaks off is asked again."""
        failed = 0
        while left > 0:
            before = left
            try:
                for piece in self._place.read(name, first):
                    taken = piece[:left]
                    first, left = first + len(taken), left - len(taken)
                    yield taken
                    if not left:
                        return
                if left == before:
                    return
            except PlaceAwayError:
                failed = failed + 1 if left == before else 1
                if failed > _TRIES:
                    raise
                time.sleep(_PAUSE_S * 2 ** (failed - 1))

    def _open(self, manifest: Manifest, number: int, data: int, at: int) -> None:
        """Decrypt and decompress a part to its place in the data file, durably."""
        path, part = self._into / _PART.format(number), manifest.parts[number]
        try:
            plain = open_bytes(self._stream_key, PART_KIND, part_context(manifest.id, number), path.read_bytes())
            end = at + part.plain
            for piece in zstandard.ZstdDecompressor().read_to_iter(plain, write_size=_PIECE_BYTES):
                if at + len(piece) > end:
                    raise _DamagedError(f"part {number} is longer than its manifest says")
                _write_at(data, piece, at)
                at += len(piece)
        except (MessageRejectedError, zstandard.ZstdError):
            raise _DamagedError(f"part {number} cannot be opened") from None
        if at != end:
            raise _DamagedError(f"part {number} is shorter than its manifest says")
        os.fdatasync(data)
        (self._into / _DONE.format(number)).touch()
        path.unlink()


def _hash(whole: "hashlib._Hash", opened: Future[None] | None, data: int, at: int, size: int) -> None:
    """Take a part of the data file into its SHA-256, once it is opened."""
    if opened is not None:
        opened.result()
    while size:
        piece = os.pread(data, min(size, _PIECE_BYTES), at)
        if not piece:
            raise _DamagedError("a part that was taken before is gone")
        whole.update(piece)
        at, size = at + len(piece), size - len(piece)


def _write_at(data: int, piece: bytes, at: int) -> None:
    left = memoryview(piece)
    while left:
        written = os.pwrite(data, left, at)  # of a disk that is almost full only some
        left, at = left[written:], at + written


def _is_unfinished(name: str) -> bool:
    """Say whether a file is what only a snapshot leaves that was begun."""
    return name in {BEGUN, _NEW, _DATA} or name.startswith("part-")


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
