"""Snapshots: what is taken is what was made, and nothing that was changed, cut or made by others is taken."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import numpy as np
import pytest
from msgspec import structs

from iyscheck.errors import PlaceAwayError, SnapshotError, SnapshotMissingError, StoreFullError
from iyscheck.keys import SigningKey, StreamKey
from iyscheck.store import layout, log
from iyscheck.store.copying import copy_to
from iyscheck.store.environment import Environment
from iyscheck.store.layout import REPLICA
from iyscheck.store.log_writer import LogWriter
from iyscheck.store.snapshot import Store
from iyscheck.store.verification import verify
from loader.replication.maker import Maker
from loader.replication.manifest import Manifest, ManifestRefusedError, SignedManifest, manifests_at, new_id
from loader.replication.places import LEFT_S, LIST, DirectoryPlace
from loader.replication.snapshot import BEGUN, Wanted, install
from tests.builders import StoreBuilder
from tests.dice import often, thrown
from tests.embedding import PEOPLE, ask_all, open_engine
from tests.loader.replication.snapshots import (
    MAKER,
    OTHER_MAKER,
    SIGNERS,
    STRANGER,
    STREAM_KEY,
    Site,
    has_opened,
    load,
    opened,
)
from tests.logs import KEY_IDS, assert_same

ROOT = Path(__file__).parents[3]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A primary of some thousand consents."""
    return Site.make(tmp_path)


@contextmanager
def process(what: str, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Run what a process does for ever; it is killed at the end."""
    command = [sys.executable, "-m", "tests.loader.replication.snapshots", what, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


def heard(started: "subprocess.Popen[str]") -> str:
    """Wait for a line of a process."""
    assert started.stdout is not None
    line = started.stdout.readline()
    assert line, "the process ended"
    return line


def damage(path: Path, at: int, change: int = 1) -> None:
    """Change a byte of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= change
    path.write_bytes(content)


def sign(site: Site, manifest: Manifest, key: SigningKey = MAKER) -> None:
    """Put another manifest in the place of the newest one."""
    site.manifests()[-1].unlink()
    signed = SignedManifest.of(manifest, key)
    site.place.put(signed.name, [signed.content])
    site.place.settle()


# --- what is taken is what was made


def test_round_trip(site: Site) -> None:
    """A replica made of a snapshot has the records, answers and digest of the store that was copied, to the byte."""
    made = site.maker().make()
    state = site.boot()

    assert len(made.parts) > 3
    with opened(site.store) as source, opened(site.replica) as copy:
        assert_same(source, copy)
        assert verify(copy).faults == []
        assert (state.role, state.batch, state.digest.hex()) == (REPLICA, made.batch, made.digest)
        with copy.snapshot() as snapshot:
            assert snapshot.log == state
            assert list(snapshot.outbox_batches()) == []
    with open_engine(site.store) as source_engine, open_engine(site.replica) as engine:
        assert np.array_equal(ask_all(source_engine, PEOPLE), ask_all(engine, PEOPLE))
    assert not (site.replica / BEGUN).exists()


def test_of_a_replica(site: Site) -> None:
    """A snapshot that a replica made is as good as one of the primary."""
    site.maker().make()
    site.boot()
    terms = {"stream_key": STREAM_KEY, "signing_key": OTHER_MAKER, "signers": SIGNERS}
    made = Maker(site.replica, site.place, **terms).make()  # type: ignore[arg-type] # as they are
    again = Site(folder=site.folder / "again")
    install(again.replica, again.take(site.place))

    assert made.maker == OTHER_MAKER.public[:8].hex()
    with opened(site.store) as source, opened(again.replica) as copy:
        assert_same(source, copy)


def test_of_the_writing_process(site: Site) -> None:
    """A process that has the store open for writing copies it through what it has open."""
    maker = site.maker()
    with site.writer() as writer, maker.copied(Store(writer.environment)) as copied:
        load(writer, 10, seed=9)  # it goes on while the copy is sealed
        made = maker.placed(copied)
    state = site.boot()
    assert state.batch == made.batch
    with opened(site.store) as store, store.snapshot() as snapshot:
        assert snapshot.log is not None
        assert snapshot.log.batch == made.batch + 1


class CommittingEnvironment:
    """LMDB's environment, in which another batch is committed as soon as somebody has begun to read."""

    def __init__(self, env: lmdb.Environment, commit: Callable[[], None]) -> None:
        self._env = env
        self._commit = commit
        self.copy = env.copy

    def begin(self) -> lmdb.Transaction:
        """Begin to read."""
        txn = self._env.begin()
        self._commit()
        return txn


def test_of_one_moment(site: Site) -> None:
    """What is said of a copy is of the very transaction that was copied."""
    into = site.folder / "into"
    into.mkdir()
    with site.writer() as writer:
        env = CommittingEnvironment(writer.environment.lmdb, lambda: load(writer, 10, seed=9))
        open_env = Environment(site.store, env, writer.environment.databases)  # type: ignore[arg-type] # as much as it asks
        copied = copy_to(Store(open_env), into)
    with opened(into) as copy, copy.snapshot() as snapshot:
        assert (snapshot.log, snapshot.position) == (copied.log, copied.position)
    with opened(site.store) as store, store.snapshot() as snapshot:
        assert snapshot.position != copied.position


def test_while_loading(site: Site) -> None:
    """What is copied beside a writer is of one moment: its digest, read anew, is what the manifest says."""
    batches = set()
    with process("load", site.folder) as writer:
        for _ in range(3):
            heard(writer)
            made = site.maker().make()
            batches.add(made.batch)
            shutil.rmtree(site.replica, ignore_errors=True)
            site.boot()
            with opened(site.replica) as copy, copy.snapshot() as snapshot:
                assert snapshot.position.sequence == made.sequence
                assert log.digest_of(log.sums_of(snapshot.items)).hex() == made.digest
    assert len(batches) == 3


def test_nothing_readable(site: Site) -> None:
    """At the place lies no tag of anybody, and beside the store no copy is left."""
    site.maker().make()
    with opened(site.store) as store, store.snapshot() as snapshot:
        tags = {layout.decode_key(key)[3] for key, _ in snapshot.items(layout.RECORDS)}
    lying = b"".join(path.read_bytes() for path in site.directory.iterdir())

    assert len(tags) > 3000
    assert not any(tag[:8] in lying for tag in tags)
    assert [path.name for path in (site.folder / "store.copying").iterdir()] == ["lock"]


def test_keeps_three(site: Site) -> None:
    """The newest three snapshots of a log stay with their parts, and those of other logs are let alone."""
    other = Site.make(site.folder / "other")
    Maker(other.store, site.place, stream_key=STREAM_KEY, signing_key=MAKER, signers=SIGNERS).make()
    of_other = set(site.directory.iterdir()) - {site.directory / LIST}
    made = []
    for seed in range(1, 6):
        site.advance(seed)
        made.append(site.maker().make())

    kept = [
        signed.manifest for signed in manifests_at(site.place, SIGNERS)[0] if signed.manifest.log_id == made[0].log_id
    ]
    assert kept == made[:1:-1]
    assert of_other <= set(site.directory.iterdir())
    named = sum(len(manifest.parts) for manifest in kept)
    assert len(site.parts()) == named + len(of_other) - 1


def test_made_again(site: Site) -> None:
    """Of two snapshots that a maker made of the same batch the newer one stays, and nothing of the older one."""
    site.maker().make()
    made = site.maker().make()

    assert site.take().id == made.id
    assert len(site.manifests()) == 1
    assert len(site.parts()) == len(made.parts)


def test_broken_ones_do_not_count(site: Site) -> None:
    """A snapshot that lacks a part, or has a bad manifest, pushes no whole one out."""
    whole = site.maker(keep=1).make()
    for seed in (1, 2):
        site.advance(seed)
        site.maker(keep=3).make()
    next(path for path in site.parts() if site.manifests()[1].stem in path.name).unlink()
    damage(site.manifests()[2], 100)
    site.maker(keep=1).tidy(whole.log_id)

    assert len(site.manifests()) == 3
    assert site.take().id == whole.id


def test_newer_term_is_newer(site: Site) -> None:
    """After a promotion a snapshot of the new term goes before one of the old, whatever its batch."""
    site.advance(1)
    old = site.maker().make()
    late = SignedManifest.of(structs.replace(old, batch=old.batch - 1, term=old.term + 1), MAKER)
    site.place.put(late.name, [late.content])

    assert [signed.manifest.age for signed in manifests_at(site.place, SIGNERS)[0]] == [late.manifest.age, old.age]


# --- what is refused


@pytest.mark.thorough
def test_every_byte_of_a_manifest(site: Site) -> None:
    """A manifest with any bit flipped is refused."""
    site.maker().make()
    content = site.manifests()[0].read_bytes()
    for at in range(len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[at] ^= 1 << bit
            with pytest.raises(ManifestRefusedError):
                SignedManifest.read(bytes(changed), SIGNERS)
    for other in (content + b" ", content[:-1], b"", b"[" * 100_000):
        with pytest.raises(ManifestRefusedError):
            SignedManifest.read(other, SIGNERS)


def test_changed_bytes(site: Site) -> None:
    """A snapshot of which any byte was changed is not taken, and LMDB sees nothing of it."""
    dice = thrown()
    site.maker().make()
    files = [site.manifests()[0], *site.parts()]
    ends = [(path, at) for path in files[-2:] for at in (0, 5, 30, -1)]
    some = [(path, dice.randrange(path.stat().st_size)) for path in dice.choices(files, k=often(120))]
    for path, at in (*ends, *some):
        damage(path, at)
        with pytest.raises(SnapshotMissingError):
            site.take()
        assert not has_opened(site.replica)
        shutil.rmtree(site.replica)  # with what was taken and was good
        damage(path, at)
    site.boot()
    with opened(site.store) as source, opened(site.replica) as copy:
        assert_same(source, copy)


@pytest.mark.parametrize("how", ["vanished", "cut", "longer", "empty", "another"])
def test_next_older_one(site: Site, how: str) -> None:
    """Where a part is not what it was, the next older snapshot is taken, and what was wrong is said."""
    older = site.maker().make()
    before = site.parts()
    site.advance(1)
    newer = site.maker().make()
    part = next(path for path in site.parts() if path not in before and path.suffix == ".00002")
    content = part.read_bytes()
    match how:
        case "vanished":
            part.unlink()
        case "cut":
            part.write_bytes(content[:-1])
        case "longer":
            part.write_bytes(b"\0" + content)
        case "empty":
            part.write_bytes(b"")
        case _:
            part.write_bytes(part.with_suffix(".00001").read_bytes())

    assert site.take().id == older.id
    assert len(site.told) == 1
    assert f"{newer.batch:020}" in site.told[0]
    assert ("vanished" if how == "vanished" else "part 2 is not what its manifest says") in site.told[0]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"sha256": "0" * 64}, "the data file is not"),
        ({"bytes": 1}, "its parts are not all of it"),
        ({"stream_key": "00" * 8}, "under the stream key"),
        ({"format": layout.FORMAT_VERSION + 1}, "a newer iyscheck made it"),
        ({"id": "00" * 16}, "vanished"),
    ],
)
def test_signed_but_wrong(site: Site, change: dict[str, object], why: str) -> None:
    """Even what a maker signed is compared: whole file, sizes, keys, format."""
    made = site.maker().make()
    sign(site, structs.replace(made, **change))
    with pytest.raises(SnapshotMissingError, match=why):
        site.take()
    assert list(site.replica.iterdir()) == []


def test_exchanged_parts(site: Site) -> None:
    """A part is sealed for its place: it opens at no other, though a maker had signed that."""
    made = site.maker().make()
    first, second = site.parts()[:2]
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    sign(site, structs.replace(made, parts=(made.parts[1], made.parts[0], *made.parts[2:])))
    with pytest.raises(SnapshotMissingError, match="part 0 cannot be opened"):
        site.take()


@pytest.mark.parametrize(("plain", "why"), [(-1, "is longer"), (1, "is shorter")])
def test_signed_but_of_other_size(site: Site, plain: int, why: str) -> None:
    """A part is never decompressed beyond what its manifest says."""
    made = site.maker().make()
    parts = [structs.replace(made.parts[0], plain=made.parts[0].plain + plain), *made.parts[1:]]
    parts[1] = structs.replace(parts[1], plain=parts[1].plain - plain)
    sign(site, structs.replace(made, parts=tuple(parts)))
    with pytest.raises(SnapshotMissingError, match=why):
        site.take()


def test_other_than_its_manifest(site: Site) -> None:
    """A copy that stands elsewhere in its log than the signed manifest says becomes no replica."""
    made = site.maker().make()
    sign(site, structs.replace(made, sequence=made.sequence + 1))
    with pytest.raises(SnapshotError, match="elsewhere"):
        site.boot()


def test_signers(site: Site) -> None:
    """What a stranger signed is not taken, nor does it take a whole one's place."""
    made = site.maker().make()
    site.advance(1)
    site.maker(STRANGER).make()

    assert site.take().id == made.id
    site.manifests()[0].unlink()
    shutil.rmtree(site.replica)
    with pytest.raises(SnapshotMissingError, match="nobody who may make snapshots has signed it"):
        site.take()


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (Wanted(address_key_id=bytes(8)), "address key"),
        (Wanted(store_key_id=bytes(8)), "store key"),
        (Wanted(log_id=bytes(16)), "another log"),
        (Wanted(batch=1000), "older than batch 1000"),
    ],
)
def test_not_wanted(site: Site, wanted: Wanted, why: str) -> None:
    """A snapshot under other keys, of another log or older than asked is not taken."""
    site.maker().make()
    with pytest.raises(SnapshotMissingError, match=why):
        site.take(wanted=wanted)
    assert list(site.replica.iterdir()) == []


def test_wrong_stream_key(site: Site) -> None:
    """Who holds another stream key takes nothing."""
    site.maker().make()
    with pytest.raises(SnapshotMissingError, match="stream key"):
        site.take(stream_key=StreamKey(bytes(32)))


def test_renamed_manifest(site: Site) -> None:
    """A manifest under the name of another one is refused: names say which is newer."""
    site.maker().make()
    manifest = site.manifests()[0]
    manifest.rename(manifest.with_name(manifest.name.replace("-0000", "-0001")))
    with pytest.raises(SnapshotMissingError, match="name of another"):
        site.take()


def test_full_directory(site: Site) -> None:
    """Into a directory that holds something else nothing is taken, and nothing is lost there."""
    site.maker().make()
    with pytest.raises(SnapshotError, match="not empty"):
        site.take(into=site.store)
    (site.store / BEGUN).write_text("not of ours")
    with pytest.raises(SnapshotError, match="not empty"):
        site.take(into=site.store)

    with opened(site.store) as store:
        assert verify(store).faults == []


def test_without_a_role(tmp_path: Path) -> None:
    """A store that is in no log, and one that may not be believed, are not copied."""
    StoreBuilder(tmp_path / "store").close()
    site = Site(folder=tmp_path)
    with pytest.raises(SnapshotError, match="in no log"):
        site.maker().make()
    with LogWriter.open(site.store, **KEY_IDS) as writer:
        writer.become_replica(log_id=bytes(range(16)))
        writer.distrust("a test")
    with pytest.raises(SnapshotError, match="may be believed"):
        site.maker().make()
    assert not site.directory.exists()


def test_one_at_a_time(site: Site) -> None:
    """Of one store one snapshot is made at a time."""
    with site.maker().copied(), pytest.raises(SnapshotError, match="being made already"):
        site.maker().make()
    site.maker().make()


# --- what breaks off


def test_stopped_maker(site: Site) -> None:
    """A make that is stopped leaves nothing at the place."""

    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        site.maker().make(stop)
    assert list(site.directory.iterdir()) == []
    site.maker().make()
    site.boot()


class Forgetful(DirectoryPlace):
    """A directory that takes a manifest, and then says that it does not answer."""

    def put(self, name: str, content: Iterable[bytes]) -> None:
        """Put a file there."""
        super().put(name, content)
        if name.endswith(".json"):
            raise PlaceAwayError("the answer is lost")


def test_answer_is_lost(site: Site) -> None:
    """Where nobody knows whether a manifest is there, none stays that names parts which do not."""
    terms = {"stream_key": STREAM_KEY, "signing_key": MAKER, "signers": SIGNERS}
    with pytest.raises(PlaceAwayError):
        Maker(site.store, Forgetful(site.directory), **terms).make()  # type: ignore[arg-type] # as they are
    assert list(site.directory.iterdir()) == []


@pytest.mark.thorough
@pytest.mark.crash
def test_killed_maker(site: Site) -> None:
    """Whenever a maker is killed, what it had finished is whole, the next one works, and what is left goes in a day."""
    dice = thrown()
    whole = {site.maker().make().id}
    for _ in range(often(30, least=5)):
        with process("make", site.folder) as maker:
            whole.add(heard(maker).strip())
            time.sleep(dice.random() * 0.2)
            maker.send_signal(signal.SIGKILL)
            assert maker.stdout is not None
            whole.update(maker.stdout.read().split())
        found, wrong = manifests_at(site.place, SIGNERS)
        assert found
        assert wrong == []
        assert site.take().id == found[0].manifest.id
        shutil.rmtree(site.replica)
    site.advance(1)
    for path in site.directory.glob(".*"):
        os.utime(path, (0, 0))
    site.maker(clock=lambda: time.time() + LEFT_S + 60).make()
    named = {name for signed in manifests_at(site.place, SIGNERS)[0] for name in (signed.name, *signed.part_names)}

    assert {path.name for path in site.directory.iterdir()} == named | {LIST}
    assert [path.name for path in (site.folder / "store.copying").iterdir()] == ["lock"]


class Counting(DirectoryPlace):
    """A directory that counts what is taken of parts, and breaks off after so many bytes, always anew."""

    def __init__(self, directory: Path, most: int = 2**60) -> None:
        super().__init__(directory)
        self.taken = 0
        self._most = most

    def read(self, name: str, first: int = 0) -> Iterator[bytes]:
        """Read as a directory does."""
        for piece in super().read(name, first):
            if not name.endswith(".json"):
                if self.taken >= self._most:
                    raise PlaceAwayError("it broke off")
                piece = piece[: self._most - self.taken]  # noqa: PLW2901 - all that comes before it breaks
                self.taken += len(piece)
            yield piece


@pytest.mark.thorough
@pytest.mark.crash
def test_killed_taker(site: Site) -> None:
    """Whenever a taker is killed, the next one takes what is missing and nothing twice."""
    dice = thrown()
    made = site.maker(part_bytes=20_000).make()
    sent = sum(part.bytes for part in made.parts)
    for _ in range(often(30, least=5)):
        with process("take", site.folder) as taker:
            for _ in range(dice.randrange(len(made.parts))):
                heard(taker)
            time.sleep(dice.random() * 0.02)
            taker.send_signal(signal.SIGKILL)
        there = 0
        for number, part in enumerate(made.parts):
            if (site.replica / f"part-{number:05}.done").exists():
                there += part.bytes
            elif (unfinished := site.replica / f"part-{number:05}.unfinished").exists():
                there += unfinished.stat().st_size
        is_there = (site.replica / "data.mdb").exists()
        place = Counting(site.directory)
        site.boot(place)
        assert place.taken == (0 if is_there else sent - there)
        with opened(site.store) as source, opened(site.replica) as copy:
            assert_same(source, copy)
        shutil.rmtree(site.replica)


def test_begun_goes_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was begun is taken to its end though a newer one lies there, but not once it is gone."""
    monkeypatch.setattr("loader.replication.snapshot._PAUSE_S", 0.0)
    for is_gone in (False, True):
        begun = site.maker().make()
        with pytest.raises(PlaceAwayError):
            site.take(Counting(site.directory, begun.sent_bytes // 2))
        site.advance(2 + is_gone)
        newer = site.maker(keep=1 if is_gone else 3).make()
        taken = site.take()
        assert taken.id == (newer.id if is_gone else begun.id)
        install(site.replica, taken)
        shutil.rmtree(site.replica)


def test_damaged_meanwhile(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was damaged on this disk after it was taken is taken anew."""
    monkeypatch.setattr("loader.replication.snapshot._PAUSE_S", 0.0)
    made = site.maker().make()
    with pytest.raises(PlaceAwayError):
        site.take(Counting(site.directory, made.parts[0].bytes // 2))
    damage(site.replica / "part-00000.unfinished", 10)
    site.boot()


def test_installed_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is killed between taking and installing, or in the middle of that, installs what is there."""
    made = site.maker().make()
    taken = site.take()
    shutil.rmtree(site.directory)
    assert site.take() == taken == made
    with monkeypatch.context() as patched:
        patched.setattr(LogWriter, "become_replica", lambda _: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            install(site.replica, taken)
    assert install(site.replica, site.take()).batch == made.batch
    with pytest.raises(SnapshotError, match="not empty"):
        site.take()


def test_under_way(site: Site) -> None:
    """What another maker is just putting there stays."""
    made = site.maker().make()
    other = f"snapshot-{made.log_id}-{made.batch:020}-{OTHER_MAKER.public[:8].hex()}-{new_id(time.time())}.00000"
    site.place.put(other, [b"sealed"])
    site.advance(1)
    site.maker().make()
    assert (site.directory / other).exists()
    site.maker(clock=lambda: time.time() + LEFT_S + 60).make()
    assert not (site.directory / other).exists()


def test_two_makers(site: Site) -> None:
    """Two makers at one place: the newest three stay whole, and the list names just what lies there."""
    site.maker().make()
    site.boot()
    terms = {"stream_key": STREAM_KEY, "signing_key": OTHER_MAKER, "signers": SIGNERS, "part_bytes": 50_000}
    other = Maker(site.replica, site.place, **terms)  # type: ignore[arg-type] # as they are
    failed: list[BaseException] = []

    def make(maker: Maker) -> None:
        try:
            for _ in range(8):
                maker.make()
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(error)

    threads = [threading.Thread(target=make, args=[maker]) for maker in (site.maker(), other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found, wrong = manifests_at(site.place, SIGNERS)

    assert (failed, wrong) == ([], [])
    listed = json.loads((site.directory / LIST).read_bytes())
    assert listed == {"manifests": sorted((path.name for path in site.manifests()), reverse=True)}
    assert {signed.manifest.maker for signed in found} <= {key.public[:8].hex() for key in (MAKER, OTHER_MAKER)}
    assert all((site.directory / name).exists() for signed in found for name in signed.part_names)
    again = Site(folder=site.folder / "again")
    again.boot(site.place)


@contextmanager
def small_disk(at: Path, size: int) -> Iterator[None]:
    """Mount a small disk of memory."""
    at.mkdir()
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk: run this test as root once")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(at)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount: run this test outside of a container without CAP_SYS_ADMIN once")
    try:
        yield
    finally:
        subprocess.run(["umount", str(at)], check=True)


def test_full_place(site: Site) -> None:
    """A place without room keeps what it had, and a later make works."""
    first = site.maker().make()
    lying = sum(path.stat().st_size for path in site.directory.iterdir())
    kept = site.folder / "kept"
    site.directory.rename(kept)
    with small_disk(site.directory, lying * 3 // 2):
        shutil.copytree(kept, site.directory, dirs_exist_ok=True)
        site.advance(1)
        with pytest.raises(PlaceAwayError, match="No space left"):
            site.maker().make()
        assert site.take().id == first.id
        assert [signed.manifest for signed in manifests_at(site.place, SIGNERS)[0]] == [first]
        assert len(site.parts()) == len(first.parts)


def test_full_disk(site: Site) -> None:
    """Where a snapshot has no room nothing is begun; where the room goes meanwhile, it goes on once there is some."""
    made = site.maker().make()
    disk = site.folder / "disk"
    filler, into = disk / "filler", disk / "replica"

    def fill(_done: int, _total: int) -> None:
        if not filler.exists():
            filler.write_bytes(bytes(2 * 2**20))

    with small_disk(disk, made.bytes + 2**21):
        filler.write_bytes(bytes(2 * 2**20))
        with pytest.raises(StoreFullError, match="are missing"):
            site.take(into=into)
        assert [path.name for path in into.iterdir()] == [BEGUN]
        filler.unlink()
        with pytest.raises(StoreFullError, match="disk is full"):
            site.take(into=into, progress=fill)
        assert not has_opened(into)
        filler.unlink()
        assert install(into, site.take(into=into)).batch == made.batch
