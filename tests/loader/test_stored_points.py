"""How far a source was loaded is read by later versions: what is stored of it keeps its bytes."""

import gzip
import json
from pathlib import Path

import pytest

from iyscheck.errors import SourceChangedError
from iyscheck.store import layout
from iyscheck.store.layout import RejectedRow, SourceState
from iyscheck.store.snapshot import Store
from iyscheck.store.verification import verify
from tests.builders import NOW
from tests.loader.feeds import Desk

STORE = Path(__file__).parents[1] / "golden" / "store-stopped-in-a-source.mdb.gz"
"""Written before there were points: DONE was loaded to its end, FEED was stopped behind its first four rows."""


def row(at: int, recipient: str = "", **fields: str) -> dict[str, object]:
    """Write the consent of one recipient, registered in that second."""
    return {
        "brandCode": 1,
        "recipient": recipient or f"+90532100{at:04}",
        "recipientType": "BIREYSEL",
        "type": "MESAJ",
        "status": "ONAY",
        "source": "HS_WEB",
        "consentDate": "2025-05-31 09:30:00",
        "creationDate": f"2025-06-01 12:00:{at:02}",
    } | fields


BRAND: dict[str, object] = {
    "kind": "brand",
    "brandCode": 1,
    "iysCode": 600000,
    "active": True,
    "creationDate": "2020-06-01 00:00:00",
}
WATERMARK: dict[str, object] = {"kind": "watermark", "completeUntil": "2026-01-01 03:00:00"}
DONE = (BRAND, *(row(at) for at in range(3)))
FEED = (
    row(10),
    row(11),
    row(12, "nobody"),
    row(13),
    row(0, status="RET", creationDate="2025-06-02 12:00:00"),
    row(14),
    row(15),
    WATERMARK,
)
REJECTS = "feed-c8bc2586cdd8.jsonl"
REJECTED = {
    "line": 3,
    "field": "recipient",
    "reason": "INVALID_ADDRESS",
    "message": "recipient is not an address of the form that its type asks for.",
    "row": row(12, "nobody"),
}

STATE = SourceState(
    name="/var/spool/iys/a.jsonl",
    rows=9,
    lines=10,
    bytes=2_000,
    sha256="ab" * 32,
    rejects_bytes=300,
    rejected=2,
    skipped=1,
    brands=(1, 7),
    rejected_brands=(7,),
    rejected_unknown=True,
    watermarks=((0, NOW),),
    finished=True,
    accepted=True,
    file_size=2_100,
    file_mtime_ns=1,
    file_ctime_ns=2,
    file_device=3,
    file_inode=4,
    earliest=5,
    latest=6,
    ends_whole=False,
    first_rejects=(RejectedRow(7, "recipient", "INVALID_ADDRESS"),),
    cursor="1597740617_ab",
    covered_from=7,
    covered_until=8,
    polled_at=9,
    doubt="DISORDER",
    doubted_at=10,
    lateness=11,
)
STORED = (
    b'{"name":"/var/spool/iys/a.jsonl","rows":9,"lines":10,"bytes":2000,"sha256":"' + b"ab" * 32 + b'",'
    b'"rejects_bytes":300,"rejected":2,"skipped":1,"brands":[1,7],"rejected_brands":[7],"rejected_unknown":true,'
    b'"watermarks":[[0,1767225600]],"finished":true,"accepted":true,"file_size":2100,"file_mtime_ns":1,'
    b'"file_ctime_ns":2,"file_device":3,"file_inode":4,"earliest":5,"latest":6,"ends_whole":false,'
    b'"first_rejects":[[7,"recipient","INVALID_ADDRESS"]],"cursor":"1597740617_ab","covered_from":7,"covered_until":8,'
    b'"polled_at":9,"doubt":"DISORDER","doubted_at":10,"lateness":11}'
)


class TestBytes:
    """What stands on disk of a source's state."""

    def test_golden(self) -> None:
        """Each field has its name and its place, behind four bytes of check."""
        assert layout.encode_source(STATE)[4:] == STORED

    def test_read(self) -> None:
        """They are read as what they were written from."""
        key = layout.source_key(STATE.name)

        assert layout.decode_source(key, layout.encode_source(STATE)) == STATE


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """The store of the older version, its rejects file beside it."""
    desk = Desk(tmp_path)
    desk.store.mkdir()
    (desk.store / "data.mdb").write_bytes(gzip.decompress(STORE.read_bytes()))
    desk.rejects.mkdir()
    (desk.rejects / REJECTS).write_bytes(json.dumps(REJECTED, separators=(",", ":")).encode() + b"\n")
    return desk


def states(desk: Desk) -> dict[str, SourceState]:
    """How far each source is."""
    with Store.open(desk.store) as store, store.snapshot() as snapshot:
        return {state.name: state for state in snapshot.sources()}


class TestOlderStore:
    """A store that a version before points stopped loading."""

    def test_goes_on(self, desk: Desk) -> None:
        """The load goes on behind the fourth row, finishes, holds what was rejected, and the store is sound."""
        report = desk.load(desk.file("feed.jsonl", *FEED), source="feed")

        assert (report.read, report.applied, report.rejected, report.unaccepted) == (4, 3, 0, 1)
        assert report.withheld == {1: NOW}
        assert states(desk)["feed"].finished
        assert [entry["line"] for entry in desk.rejected()] == [3]
        with Store.open(desk.store) as store:
            assert verify(store).faults == []
            assert store.stats().records == 8
        with desk.writer() as writer:
            assert writer.accept_rejects("feed").watermarks == {1: NOW}

    def test_same_as_undisturbed(self, desk: Desk, tmp_path: Path) -> None:
        """It leaves what a load without a stop leaves, of the source and of the rejects."""
        other = Desk(tmp_path / "other")
        other.path.mkdir()
        other.load(other.file("done.jsonl", *DONE), source="done")
        other.load(other.file("feed.jsonl", *FEED), source="feed")

        desk.load(desk.file("feed.jsonl", *FEED), source="feed")

        one, two = states(desk)["feed"], states(other)["feed"]
        told = ("rows", "lines", "bytes", "sha256", "rejects_bytes", "rejected", "brands", "earliest", "latest")
        assert [getattr(one, name) for name in told] == [getattr(two, name) for name in told]
        assert desk.rejected() == other.rejected()

    def test_other_beginning(self, desk: Desk) -> None:
        """Where the loaded beginning is another one, nothing is loaded."""
        with pytest.raises(SourceChangedError):
            desk.load(desk.file("feed.jsonl", row(9), *FEED[1:]), source="feed")

    def test_finished(self, desk: Desk) -> None:
        """The finished source is known again by its content, since the file is another one."""
        assert desk.load(desk.file("done.jsonl", *DONE), source="done").unchanged == 1

        with pytest.raises(SourceChangedError):
            desk.load(desk.file("done.jsonl", *DONE, row(4)), source="done")
