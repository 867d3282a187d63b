"""An archive of pushed rows says no more, when it is loaded, than the rows did when they were pushed."""

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from iyscheck.consent import Status
from iyscheck.store import layout
from iyscheck.store.snapshot import Store
from loader.archive.folder import Archive, Kind
from loader.loading.loader import Loader
from loader.loading.options import Options
from loader.sources.files.given import sources_of
from tests.builders import ADDRESS_KEY, STORE_KEY, content
from tests.dice import often
from tests.loader.sources.test_pushed import Bench, rows


def loaded(folder: Path, bench: Bench) -> dict[bytes, list[tuple[bytes, object]]]:
    """Load an archive of what a bench kept into a store of its own."""
    with Archive(folder / "archive", ADDRESS_KEY, clock=bench.clock.now) as archive:
        archive.add(Kind.PUSH, bench.kept)
    other = Bench(folder / "other")
    other.folder.mkdir()
    with other.writer() as writer:
        options = Options(rejects=folder / "rejects-of-the-archive")
        loader = Loader(writer, address_key=ADDRESS_KEY, store_key=STORE_KEY, options=options, clock=bench.clock.now)
        if bench.kept:
            loader.load(sources_of([str(folder / "archive")], archive_key=ADDRESS_KEY))
        return content(Store(writer.environment))


REFUSAL = {
    "brandCode": 600_001,
    "recipient": "+905321000001",
    "recipientType": "BIREYSEL",
    "type": "MESAJ",
    "status": "RET",
    "creationDate": "2026-01-05 10:00:00",
    "retailerAccess": [1234],
}


@example(pushed=[REFUSAL], applies_all=False)
@example(pushed=[REFUSAL | {"kind": "consent"}], applies_all=True)
@settings(max_examples=often(60, least=10), deadline=None)
@given(pushed=st.lists(rows, min_size=1, max_size=8), applies_all=st.booleans())
def test_no_more(pushed: list[dict[str, Any]], *, applies_all: bool) -> None:
    """A forged permission, brand, watermark or list of retailers that a push could not bring is in no archive of it."""
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), applies_all=applies_all)
        bench.push(pushed)
        bench.read()

        found, stored = loaded(Path(name), bench), bench.stored()

    compared = (layout.RECORDS, layout.COUNTS, layout.ACCESS, layout.BRANDS, layout.WATERMARKS, layout.HOLDS)
    assert {name: found[name] for name in compared} == {name: stored[name] for name in compared}
    counts = {layout.decode_count_key(key)[3] for key, _ in found[layout.COUNTS]}
    assert applies_all or Status.ONAY not in counts
