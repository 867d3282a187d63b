import hashlib
from datetime import date, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from loader.sources.days.facts import FileFacts
from loader.sources.days.stamp import Stamp
from tests.iys.asking import BRAND, Asker
from tests.iys.days import day_of, midnight_s
from tests.iys.fake import FakeIys


@pytest.fixture
def day(fake: FakeIys) -> date:
    """Yesterday, with three movements of one consent and one of another, ready as a file."""
    day = day_of(fake.clock.now()) - timedelta(1)
    noon_s = midnight_s(day) + 12 * 3600
    for number, (status, source) in enumerate((("ONAY", "HS"), ("RET", "IYS"), ("ONAY", "IYS"))):
        fake.move(600_001, source, status=status, created_s=noon_s + number)
    fake.move(600_001, created_s=midnight_s(day), channel="EPOSTA", recipient="a@example.com")
    fake.move(600_001, created_s=midnight_s(day) - 1, channel="EPOSTA", recipient="b@example.com")
    return day


class TestFile:
    """The file of a day, its hash, its counts and its stamp."""

    def test_rows_of_the_day(self, day: date, asker: Asker) -> None:
        """The file has the movements of the Turkish day from midnight on, both sources, in order."""
        lines = asker.ask(f"{BRAND}/changes/{day}/file").text.splitlines()
        assert [line.split(",")[0] for line in lines] == [f"{day} 00:00:00"] + [f"{day} 12:00:0{n}" for n in range(3)]
        assert [line.rsplit(",", 1)[1] for line in lines] == ["HS_WEB", "HS_WEB", "IYS_MOBIL", "IYS_MOBIL"]

    @pytest.mark.parametrize("method", ["sha256", "sha384"])
    def test_hash(self, fake: FakeIys, day: date, asker: Asker, method: str) -> None:
        """The agreement has the hash of exactly these bytes, by whichever method."""
        fake.set_quirks(hash_method=method)
        body = asker.ask(f"{BRAND}/changes/{day}/file").content
        agreement = asker.ask(f"{BRAND}/agreements/{day}").json()
        assert agreement["hashValue"] == hashlib.new(method, body).hexdigest()
        assert body == fake.file(600_001, day)

    def test_not_ready(self, fake: FakeIys, asker: Asker) -> None:
        """Until its file is made, a day is queued and has no file."""
        day = day_of(fake.clock.now())
        fake.move(600_001)
        fake.advance(midnight_s(day + timedelta(1)) - fake.clock.now())
        asker.sign_in()
        assert asker.ask(f"{BRAND}/agreements/{day}").json()["processStatus"] == "queued"
        assert asker.ask(f"{BRAND}/changes/{day}/file").status_code == httpx.codes.NO_CONTENT
        fake.advance(fake.world.quirks.file_after_s)
        asker.sign_in()
        assert asker.ask(f"{BRAND}/changes/{day}/file").status_code == httpx.codes.OK

    def test_written_after_it(self, fake: FakeIys, day: date, asker: Asker) -> None:
        """A row that İYS wrote after it made the file is not in it."""
        before = asker.ask(f"{BRAND}/changes/{day}/file").content
        fake.move(600_001, created_s=midnight_s(day) + 60, visible_after_s=86_400.0 * 2)
        assert asker.ask(f"{BRAND}/changes/{day}/file").content == before

    def test_counts(self, day: date, asker: Asker) -> None:
        """Approvals are new or after a refusal, rejections after an approval, the total all that moved."""
        stats = asker.ask(f"{BRAND}/changes/{day}/recipients/BIREYSEL").json()["changeStats"]
        counts = {(s["type"], c["source"]): [*c.values()][1:] for s in stats for c in s["consents"]}
        assert counts["MESAJ", "HS"] == [1, 0, 0, 1]
        assert counts["MESAJ", "IYS"] == [1, 1, 0, 2]
        assert counts["EPOSTA", "HS"] == [1, 0, 0, 1]
        assert len(counts) == 6

    @pytest.mark.parametrize("form", ["der", "base64"])
    def test_stamp(self, fake: FakeIys, day: date, asker: Asker, tmp_path: Path, form: str) -> None:
        """The stamp is of the file, and others can follow its signature to the root."""
        fake.set_quirks(timestamp_form=form)
        path = tmp_path / "day.csv"
        path.write_bytes(asker.ask(f"{BRAND}/changes/{day}/file").content)
        facts = FileFacts.of(path)
        root = x509.load_pem_x509_certificate(fake.stamp_root)
        stamp = Stamp.of(asker.ask(f"{BRAND}/agreements/{day}/timestamp").content, path, facts, [root])
        assert (stamp.bound, stamp.chain) == (True, True)

    @pytest.mark.parametrize(("back", "code"), [(0, "H502"), (8, "H502"), (None, "H501")])
    def test_other_days(self, fake: FakeIys, asker: Asker, back: int | None, code: str) -> None:
        """Only the last seven days can be asked about, and only as dates."""
        day = "01.01.2026" if back is None else day_of(fake.clock.now()) - timedelta(back)
        for path in (f"changes/{day}/file", f"agreements/{day}", f"changes/{day}/recipients/TACIR"):
            assert asker.ask(f"{BRAND}/{path}").json()["errors"][0]["code"] == code

    def test_told_otherwise(self, fake: FakeIys, day: date, asker: Asker) -> None:
        """A test may have İYS tell another hash, another file, none, or counts that do not fit."""
        fake.tell_day(600_001, day, hash_value="00", body=b"other\n", pending=2)
        assert asker.ask(f"{BRAND}/agreements/{day}").json()["hashValue"] == "00"
        assert asker.ask(f"{BRAND}/changes/{day}/file").content == b"other\n"
        line = asker.ask(f"{BRAND}/changes/{day}/recipients/BIREYSEL").json()["changeStats"][0]["consents"][0]
        assert (line["pending"], line["total"]) == (2, 2)
        fake.tell_day(600_001, day, has_file=False, process_status="error")
        assert asker.ask(f"{BRAND}/changes/{day}/file").status_code == httpx.codes.NO_CONTENT
        assert "hashValue" not in asker.ask(f"{BRAND}/agreements/{day}").json()

    def test_agreeing(self, fake: FakeIys, day: date, asker: Asker) -> None:
        """Who agrees has agreed for good; who says anything else is refused."""
        path = f"{BRAND}/agreements/{day}"
        assert asker.ask(path, "PUT", json={"agreementStatus": False}).json()["errors"][0]["code"] == "H512"
        assert not fake.agreed
        assert asker.ask(path, "PUT", json={"agreementStatus": True}).json() == {"agreementCaptured": True}
        assert asker.ask(path).json()["agreementStatus"] is True
        assert fake.agreed == {(600_001, day)}
