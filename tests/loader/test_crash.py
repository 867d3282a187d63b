"""Real loads, killed at random moments."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iyscheck.keys import AddressKey, StoreKey
from iyscheck.store import layout
from iyscheck.store.snapshot import Store
from iyscheck.store.verification import verify
from iyscheck.store.writer import Writer
from loader.loading.loader import Loader
from loader.loading.options import FILL_BYTES, Options
from loader.sources.files.given import sources_of
from tests.builders import DERIVED
from tests.dice import often, thrown
from tests.loader.feeds import Command, brand_row, consent, lines, position, watermark_row

ROWS = often(50_000, least=25_000)
"""Too few to be worth sorting first: the loader commits as it reads."""
FILL_ROWS = 70_000
KILLS = often(30, least=9)
FILL_KILLS = often(12, least=4)
SPILLING = """
from loader.cli import app
from loader.loading import fill
in_memory = fill.Runs
fill.Runs = lambda path, run_rows, kernel: in_memory(path, run_rows=5_000, kernel=kernel)
app.main()
"""
"""The loader, but that what it sorts goes into files of its own long before a million rows."""
BAD_LINE = b'{"brandCode": 7, "recipient'


def a_feed(count: int) -> bytes:
    """Rows of many brands with changes of one consent, bad lines and watermarks all over the file."""
    dice = random.Random(7)
    rows: list[dict[str, object] | bytes] = [brand_row(brand) for brand in range(1, 21)]
    for number in range(count):
        if number % 997 == 0:
            rows.append(BAD_LINE if number % 2 else consent(number % 20 + 1, "nobody"))
        rows.append(
            consent(
                dice.randrange(1, 21),
                f"+90532{dice.randrange(40_000):07}",
                status=dice.choice(["ONAY", "RET"]),
                creationDate=f"2025-06-{dice.randrange(1, 29):02} 12:00:{dice.randrange(60):02}",
                transactionId=f"{number:064x}",
                retailerAccess=[1, number % 3 + 1] if number % 50 == 0 else None,
            )
        )
    return lines([*rows, watermark_row(brandCode=3)])


def dump(path: Path) -> dict[bytes, list[tuple[bytes, object]]]:
    """Everything in the store, positions too; the log id, the index and times and names of files apart."""
    found: dict[bytes, list[tuple[bytes, object]]] = {}
    with Store.open(path) as store, store.snapshot() as snapshot:
        for name in layout.DATABASES:
            found[name] = list(snapshot.items(name)) if name not in DERIVED else []
        assert verify(store).faults == []
        found[layout.SOURCES] = [
            (b"", {**{f: getattr(s, f) for f in s.__struct_fields__}, "name": "", "file_mtime_ns": 0})
            for s in snapshot.sources()
        ]
        found[layout.RECORDS] = [
            (key, layout.decode_record(key, value)) for key, value in snapshot.items(layout.RECORDS)
        ]
    kept = (layout.META_FORMAT, layout.META_SEQUENCE)
    found[layout.META] = [(key, value) for key, value in found[layout.META] if key in kept]
    return found


def rejects(store: Path) -> bytes:
    """The rejects file that belongs to a store."""
    (file,) = store.with_name(store.name + ".rejects").iterdir()
    return file.read_bytes()


def wait_for_a_moment(
    process: subprocess.Popen[bytes], store: Path, dice: random.Random, undisturbed_s: float, *, in_commits: bool
) -> None:
    """Wait for any moment of a load; with `in_commits` for one after it has written, however slow the machine is."""
    before = written_at(store)
    while in_commits and process.poll() is None and written_at(store) == before:
        time.sleep(0.002)
    time.sleep(dice.uniform(0, 0.15 if in_commits else 0.4) * undisturbed_s)


def written_at(store: Path) -> int:
    """When the store's file was last written; 0 if there is none."""
    file = store / "data.mdb"
    return file.stat().st_mtime_ns if file.exists() else 0


@pytest.mark.crash
@pytest.mark.slow
def test_killed_loads(tmp_path: Path) -> None:
    """Loads that are killed many times in all leave the store and the rejects file of one that never stopped."""
    command = Command(tmp_path)
    (tmp_path / "feed.jsonl").write_bytes(a_feed(ROWS))
    load = ("load", "feed.jsonl", "--source", "feed", "--commit-rows", "2000", "--store")
    began = time.monotonic()
    assert command.run(*load, "calm").returncode == 1
    undisturbed_s = time.monotonic() - began
    dice = thrown()  # other moments in each run
    kills, turn, stopped_at = 0, 0, set()

    while kills < KILLS:
        store = tmp_path / f"wild-{turn}"
        process = command.start(*load, store.name)
        wait_for_a_moment(process, store, dice, undisturbed_s, in_commits=kills % 4 > 0)
        if process.poll() is None:
            process.kill()
            process.communicate()
            kills += 1
            stopped_at.add(position(store))
            continue
        process.communicate()
        assert process.returncode == 1
        assert dump(tmp_path / f"wild-{turn}") == dump(tmp_path / "calm")
        assert rejects(tmp_path / f"wild-{turn}") == rejects(tmp_path / "calm")
        turn += 1
    command.run(*load, f"wild-{turn}")

    assert len(stopped_at) > KILLS // 3
    assert dump(tmp_path / f"wild-{turn}") == dump(tmp_path / "calm")
    assert rejects(tmp_path / f"wild-{turn}") == rejects(tmp_path / "calm")


@pytest.mark.crash
@pytest.mark.slow
@pytest.mark.thorough
def test_killed_fills(tmp_path: Path) -> None:
    """A first load that sorts everything leaves nothing when it is killed, and else what commits would have left."""
    command = Command(tmp_path, ("-c", SPILLING))
    feed = tmp_path / "feed.jsonl"
    feed.write_bytes(a_feed(FILL_ROWS))
    assert feed.stat().st_size > FILL_BYTES
    load_in_commits(feed, tmp_path / "calm")
    load = ("load", "feed.jsonl", "--source", "feed", "--commit-rows", "2000", "--store")
    began = time.monotonic()
    assert command.run(*load, "filled").returncode == 1
    undisturbed_s = time.monotonic() - began
    dice = thrown()  # other moments in each run
    rows = position(tmp_path / "calm")

    for _ in range(FILL_KILLS):
        process = command.start(*load, "wild")
        time.sleep(dice.uniform(0.2, 1) * undisturbed_s)
        process.kill()
        process.communicate()
        assert position(tmp_path / "wild") in (0, rows)
        assert {file.name for file in (tmp_path / "wild").glob("*")} <= {"data.mdb", "lock.mdb", "writer.lock"}
    command.run(*load, "wild")

    for store in (tmp_path / "filled", tmp_path / "wild"):
        assert dump(store) == dump(tmp_path / "calm")
        assert rejects(store) == rejects(tmp_path / "calm")


def load_in_commits(feed: Path, store: Path) -> None:
    """Load a feed into an empty store in commits, though it is large."""
    keys = AddressKey.load(feed.with_name("address.key")), StoreKey.load(feed.with_name("store.key"))
    options = Options(rejects=store.with_name(store.name + ".rejects"), fill_bytes=sys.maxsize)
    with Writer.open(store, address_key_id=keys[0].key_id, store_key_id=keys[1].key_id) as writer:
        Loader(writer, address_key=keys[0], store_key=keys[1], options=options).load(
            sources_of([str(feed)], name="feed")
        )
