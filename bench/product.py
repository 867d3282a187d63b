"""What benchmarks know of the insides of iyscheck, but for its logs: how stores are filled, changed, opened, started.

Everything else asks over the wire, or through this module and `bench.replication`. Its classes run in `bench.worker`
processes, also with the code of another commit (`--against`), so it may use only what older commits have too, or ask
whether it is there.
"""

import hashlib
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

import iyscheck
from bench.arrivals import percentiles
from bench.cohort import BRAND, CHANNEL, NEW, RECIPIENT_TYPE, Cohort, brand_of
from iyscheck.change import HEX_TRANSACTION, SOURCE_NUMBERS, TAG_BYTES, Brand, ConsentColumns
from iyscheck.consent import Channel, Status
from iyscheck.engine import Engine
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.question import Context, Question
from iyscheck.store import layout
from iyscheck.store.layout import SourceState
from iyscheck.store.snapshot import Store
from iyscheck.store.writer import Batch, Writer
from iyscheck.times import local_seconds

FILLING = 1
"""Raise it when `Builder.fill` fills otherwise: kept stores are made anew."""
FILL_ROWS = 200_000
CONTEXT = Context(brand=BRAND, channel=CHANNEL, recipient_type=RECIPIENT_TYPE)
NEW_SHARE = 0.1
"""Of random changes: consents that were not there before; the others change one that was."""
_FIRST_REGISTERED = local_seconds("2024-01-01 09:00:00")
_REGISTERED_WITHIN_S = 500 * 86_400
_CHANGED = local_seconds("2026-01-01 09:00:00")


# --- Keys and command lines -------------------------------------------------------------------------------


def make_keys(folder: Path) -> None:
    """Make the two key files, once."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, kind in (("address.key", AddressKey), ("store.key", StoreKey)):
        if not (folder / name).exists():
            kind.create(folder / name)


def address_key_id(keys: str) -> bytes:
    """Return the id that goes with tokens."""
    return AddressKey.load(Path(keys) / "address.key").key_id


def tokens(blocks: npt.NDArray[np.uint8], keys: str) -> npt.NDArray[np.uint8]:
    """Make tokens of blocks, both uint8 (N, 16)."""
    return AddressKey.load(Path(keys) / "address.key").tokens(blocks)


def key_flags(store: Path, keys: Path) -> list[str]:
    """Name store and keys to server and loader."""
    return [f"--store={store}", f"--address-key={keys / 'address.key'}", f"--store-key={keys / 'store.key'}"]


def serve_arguments(store: Path, keys: Path) -> list[str]:
    """Arguments of Python that start the real server with its defaults, on free ports."""
    listen = ["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"]
    return ["-m", "iyscheck", "serve", *key_flags(store, keys), *listen]


def loader_arguments(store: Path, keys: Path, *arguments: str) -> list[str]:
    """Arguments of Python that start the real loader."""
    return ["-m", "loader", *arguments, *key_flags(store, keys)]


def make_door(folder: Path, *, rate: int) -> None:
    """Write certificates and a callers file: `wide` may ask a thousand million a second, `narrow` only `rate`."""
    from iyscheck.callers.identity import NewKey

    subprocess.run([sys.executable, "-m", "iyscheck", "certs", "dev", str(folder)], check=True, capture_output=True)
    lines = []
    for name, most in (("wide", 10**9), ("narrow", rate)):
        made = NewKey.create()
        file = folder / f"{name}.key"
        file.touch(0o600)
        file.write_text(made.text)
        lines += [f"[caller.{name}]", f'keys = ["{made.key.line}"]', f"brands = [{BRAND}]", 'channels = ["MESAJ"]']
        lines += [f"rate = {most}"]
    callers = folder / "callers.toml"
    callers.touch(0o600)
    callers.write_text("\n".join(lines) + "\n")


# --- Filling ----------------------------------------------------------------------------------------------


class Builder:
    """Makes stores, and the plain LMDB files that they are compared with."""

    def recipe(self) -> str:
        """Name the code that decides what a store holds: a store of another recipe is made anew."""
        package = Path(iyscheck.__file__).parent
        sources = [*sorted((package / "store").rglob("*.py")), package / "change.py", package / "consent.py"]
        sources.append(Path(__file__).with_name("cohort.py"))
        digest = hashlib.sha256()
        for source in sources:
            digest.update(source.read_bytes())
        return f"format {layout.FORMAT_VERSION}, filling {FILLING}, {digest.hexdigest()[:16]}"

    def fill(self, path: str, keys: str, consents: int) -> dict[str, float]:
        """Fill a new store; returns seconds and bytes."""
        cohort = Cohort(consents)
        address_key, store_key = _keys(keys)
        tags = np.empty((consents, TAG_BYTES), np.uint8)
        for at in range(0, consents, FILL_ROWS):
            items = np.arange(at, min(at + FILL_ROWS, consents), dtype=np.int64)
            tags[items] = store_key.tags(address_key.tokens(cohort.blocks(items)))
        order = np.argsort(np.ascontiguousarray(tags[:, :8]).view(">u8")[:, 0].astype(np.uint64))
        started = time.perf_counter()
        with Writer.open(path, address_key_id=address_key.key_id, store_key_id=store_key.key_id) as writer:
            commit(writer, ConsentColumns.of([]), "brand", brands=(_brand(),), finished=True)
            parts = (order[at : at + FILL_ROWS].astype(np.int64) for at in range(0, consents, FILL_ROWS))
            chunks = (_first(cohort, items, tags[items]) for items in parts)
            if hasattr(writer, "filling"):
                fill(writer, chunks, rows=consents)
            else:  # an older build
                for number, chunk in enumerate(chunks):
                    commit(writer, chunk, f"fill {number}")
        return {"seconds": time.perf_counter() - started, "bytes": _bytes(path)}

    def spread(self, path: str, keys: str, consents: int, brands: int) -> dict[str, float]:
        """Register brands 1 to `brands` in a filled store, and give each its share of the consents once more."""
        cohort, watermark = Cohort(consents), int(time.time())
        address_key, store_key = _keys(keys)
        with Writer.open(path, address_key_id=address_key.key_id, store_key_id=store_key.key_id) as writer:
            for at in range(0, consents, FILL_ROWS):
                items = np.arange(at, min(at + FILL_ROWS, consents), dtype=np.int64)
                columns = _first(cohort, items, store_key.tags(address_key.tokens(cohort.blocks(items))))
                columns = replace(columns, brand=brand_of(items, brands).astype(np.uint32))
                commit(writer, columns, f"spread {at}")
            registered = tuple(replace(_brand(), brand=brand, iys_code=brand) for brand in range(1, brands + 1))
            watermarks = tuple((each.brand, watermark - each.brand) for each in registered)  # no two are the same
            state = SourceState(name="brands", watermarks=watermarks)
            batch = Batch(consents=ConsentColumns.of([]), access=(), brands=registered, rows=brands)
            writer.apply(batch, state, finished=True)
        return {}

    def freshen(self, path: str, keys: str) -> dict[str, float]:
        """Move the watermark to now: a store that was kept since yesterday would be stale."""
        address_key, store_key = _keys(keys)
        with Writer.open(path, address_key_id=address_key.key_id, store_key_id=store_key.key_id) as writer:
            commit(writer, ConsentColumns.of([]), f"watermark {time.time_ns()}", finished=True)
        return {}

    def plain(self, path: str, target: str) -> dict[str, float]:
        """Copy the records of a store, keys and values as they are, into an LMDB file that holds nothing else."""
        from bench.peers import plain

        with Store.open(path) as store, store.snapshot() as snapshot, plain.opened(target) as env:
            plain.fill(env, snapshot.items(layout.RECORDS))
        return {"bytes": _bytes(target)}


def fill(writer: Writer, chunks: Iterable[ConsentColumns], *, rows: int) -> None:
    """Fill a store without records from chunks of changes: keys rise within and between them."""
    from iyscheck.store.encoded import EncodedChanges  # older builds have none

    with writer.filling() as filling:
        for changes in chunks:
            filling.append(EncodedChanges.of(changes))
        filling.finish(SourceState(name="fill"), rows=rows)


def _keys(folder: str) -> tuple[AddressKey, StoreKey]:
    return AddressKey.load(Path(folder) / "address.key"), StoreKey.load(Path(folder) / "store.key")


def _bytes(path: str) -> float:
    return float((Path(path) / "data.mdb").stat().st_size)


def _brand() -> Brand:
    return Brand(
        brand=BRAND,
        iys_code=BRAND,
        active=True,
        channels=frozenset(Channel),
        legacy_deadline=0,
        registered=_FIRST_REGISTERED,
    )


def commit(
    writer: Writer, consents: ConsentColumns, source: str, *, brands: tuple[Brand, ...] = (), finished: bool = False
) -> int:
    """Commit one batch; `finished` moves the watermark to now. Returns the sequence afterwards."""
    state = SourceState(name=source, watermarks=((BRAND, int(time.time())),) if finished else ())
    batch = Batch(consents=consents, access=(), brands=brands, rows=len(consents) + len(brands))
    return writer.apply(batch, state, finished=finished).position.sequence


def _first(cohort: Cohort, items: npt.NDArray[np.int64], tags: npt.NDArray[np.uint8]) -> ConsentColumns:
    registered = _FIRST_REGISTERED + items * 7919 % _REGISTERED_WITHIN_S
    return _columns(tags, cohort.statuses(items), registered, items + 1)


def _columns(
    tags: npt.NDArray[np.uint8],
    statuses: npt.NDArray[np.uint8],
    registered: npt.NDArray[np.int64],
    sequence: npt.NDArray[np.int64],
) -> ConsentColumns:
    count = len(tags)
    transactions = np.random.default_rng(int(sequence[0]) if count else 0).bytes(32 * count)
    return ConsentColumns(
        brand=np.full(count, BRAND, np.uint32),
        channel=np.full(count, CHANNEL, np.uint8),
        recipient_type=np.full(count, RECIPIENT_TYPE, np.uint8),
        tag=tags,
        status=statuses,
        registered=registered,
        consented=registered - 60,
        source=np.full(count, SOURCE_NUMBERS["HS_WEB"], np.uint8),
        transaction_form=np.full(count, HEX_TRANSACTION, np.uint8),
        transaction=np.frombuffer(transactions, np.uint8).reshape(-1, 32),
        text=np.zeros(count, np.int32),
        sequence=sequence,
    )


# --- Changing ---------------------------------------------------------------------------------------------


def changed_items(consents: int, size: int, number: int, *, new_share: float = NEW_SHARE) -> npt.NDArray[np.int64]:
    """Draw the distinct recipients of commit `number`: nine of ten have a record already, unless told otherwise."""
    random = np.random.default_rng([number, consents])
    new = round(size * new_share)
    known = np.unique(random.integers(0, consents, size * 2 if size * 4 < consents else consents))
    chosen = random.permutation(known)[: size - new]
    return random.permutation(np.concatenate((chosen, np.unique(random.integers(NEW, NEW + 300_000_000, new)))))


class Changer:
    """Applies random changes to a store, and the same bytes to a plain LMDB file (`plain`, where given)."""

    def __init__(self, store: str, keys: str, consents: int, plain: str = "", *, new_share: float = NEW_SHARE) -> None:
        from bench.peers import plain as peer

        self._new_share = new_share
        self._cohort = Cohort(consents)
        self._statuses = self._cohort.statuses(np.arange(consents, dtype=np.int64))
        self._address_key, self._store_key = _keys(keys)
        self._writer = self.opened(store)
        self._path = store
        self._plain = peer.open_plain(plain) if plain else None
        self._last: list[tuple[bytes, bytes]] = []

    def opened(self, store: str) -> Writer:
        """Open the store for writing."""
        return Writer.open(store, address_key_id=self._address_key.key_id, store_key_id=self._store_key.key_id)

    def apply(self, size: int, number: int, *, keep: bool = False) -> dict[str, float]:
        """Commit `size` random changes in random order, durably; `at` is when that was done (seconds since 1970).

        With `keep` what was written is fetched afterwards, untimed, for `put`.
        """
        columns = self.changes(size, number)
        started = time.perf_counter()
        sequence = commit(self._writer, columns, f"changes {size} {number}")
        seconds, at = time.perf_counter() - started, time.time()
        if keep:
            self._last = self._written(columns)
        return {"seconds": seconds, "changes": len(columns), "sequence": sequence, "at": at}

    def put(self) -> dict[str, float]:
        """Put the records of the last `apply` with `keep` into the plain file: sorted already, one durable commit."""
        from bench.peers import plain as peer

        if self._plain is None:
            raise ValueError("there is no plain file")
        return {"seconds": peer.put(self._plain, self._last), "changes": len(self._last)}

    def close(self) -> None:
        """Close both files."""
        self._writer.close()
        if self._plain is not None:
            self._plain.close()

    def size(self) -> dict[str, float]:
        """Return the bytes on disk, and how many consents there are."""
        with Store(self._writer.environment).snapshot() as snapshot:
            consents = sum(snapshot.counts().values())
        return {"bytes": _bytes(self._path), "consents": consents}

    def changes(self, size: int, number: int) -> ConsentColumns:
        """Turn ONAY to RET and RET to ONAY, so that no change leaves a state as it was."""
        items = changed_items(self._cohort.consents, size, number, new_share=self._new_share)
        known = items < self._cohort.consents
        statuses = np.full(len(items), Status.ONAY, np.uint8)
        statuses[known] = Status.ONAY + Status.RET - self._statuses[items[known]]
        self._statuses[items[known]] = statuses[known]
        tags = self._store_key.tags(self._address_key.tokens(self._cohort.blocks(items)))
        registered = np.full(len(items), _CHANGED + number)
        return _columns(tags, statuses, registered, np.arange(len(items), dtype=np.int64) + 1)

    def _written(self, columns: ConsentColumns) -> list[tuple[bytes, bytes]]:
        packed = layout.encode_keys(columns).tobytes()
        keys = sorted(packed[at : at + layout.KEY_BYTES] for at in range(0, len(packed), layout.KEY_BYTES))
        environment = self._writer.environment
        with environment.lmdb.begin(db=environment.databases[layout.RECORDS]) as txn:
            return [(key, cast("bytes", txn.get(key))) for key in keys]


# --- Reading in process -----------------------------------------------------------------------------------


class Embedded:
    """An engine in this process: the embedded mode."""

    def __init__(self, store: str, keys: str, consents: int) -> None:
        self._keys = keys
        address_key, store_key = _keys(keys)
        self._cohort = Cohort(consents)
        items = self._cohort.drawn(10_000, hit_rate=0.9, seed=99)
        column = address_key.tokens(self._cohort.blocks(items))
        started = time.perf_counter()
        self.engine = Engine.open(store, store_key=store_key, address_key=address_key)
        opened = time.perf_counter()
        first = self.engine.check_column(CONTEXT, tokens=column, address_key_id=address_key.key_id)
        self._start = {"open": opened - started, "first_frame": time.perf_counter() - opened}
        _agree(first.reasons, self._cohort.reasons(items))
        self._key_id = address_key.key_id

    def start(self) -> dict[str, float]:
        """Return how many seconds it took to open the store and to answer the first frame of 10,000."""
        return self._start

    def singles(self, count: int, seed: int, hit_rate: float) -> dict[str, float]:
        """Check distinct tokens one by one; returns checks per second and latencies of a second pass."""
        items = self._cohort.drawn(count, hit_rate=hit_rate, seed=seed)
        packed = tokens(self._cohort.blocks(items), self._keys).tobytes()
        questions = [
            Question(context=CONTEXT, token=packed[at : at + 16], address_key_id=self._key_id)
            for at in range(0, len(packed), 16)
        ]
        check = self.engine.check
        started = time.perf_counter()
        answers = [check(question) for question in questions]
        seconds = time.perf_counter() - started
        _agree(np.array([answer.reason for answer in answers], np.uint8), self._cohort.reasons(items))
        taken = np.empty(count)
        for at, question in enumerate(questions):
            began = time.perf_counter()
            check(question)
            taken[at] = time.perf_counter() - began
        return {"rate": count / seconds, **percentiles(taken)}

    def column(self, size: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], list[str]]:
        """Make a column: its tokens, its reasons, and the same as phone numbers."""
        items = self._cohort.drawn(size, hit_rate=0.9, seed=size)
        phones = self._cohort.phones(items).tobytes().decode()
        texts = [phones[at : at + 13] for at in range(0, len(phones), 13)]
        return tokens(self._cohort.blocks(items), self._keys), self._cohort.reasons(items), texts


def _agree(found: npt.NDArray[np.uint8], expected: npt.NDArray[np.uint8]) -> None:
    wrong = int((found != expected).sum())
    if wrong:
        raise ValueError(f"{wrong} of {len(expected)} answers are wrong: nothing is measured")


# --- What a build may or may not have ---------------------------------------------------------------------


def index_bytes(store: str) -> int | None:
    """Return the bytes that the decision index of a store takes, tree and all; None where this build has none."""
    with suppress(AttributeError), Store.open(store) as opened, opened.environment.lmdb.begin() as txn:
        stat = txn.stat(opened.environment.databases[layout.INDEX])
        return int(stat["psize"]) * int(stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"])
    return None


def kernel() -> str:
    """Name the form of the inner loops that a default engine of this build takes."""
    from importlib.util import find_spec

    if find_spec("iyscheck.kernel") is None:
        return "numpy"
    from iyscheck.kernel import Kernel

    return Kernel.best().value
