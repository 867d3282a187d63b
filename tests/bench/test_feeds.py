"""What a population writes are rows of İYS, in proportions as they could be."""

import re
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import pytest

from iyscheck.change import KNOWN_SOURCES
from iyscheck.consent import REGISTERED_BEFORE, LegacyDeadline
from iyscheck.times import local_seconds
from tests.bench.populations import (
    BRANDS,
    CHANGES,
    CONSENTS,
    NOW,
    NOW_IN_TURKEY,
    Row,
    Written,
    faults,
    key_of,
    parsed,
    when,
)


class TestRows:
    """Every row is one that İYS could have written."""

    def test_first_feed(self, written: Written) -> None:
        """Each consent of the first feed is a valid İYS row, but for a few with a status that İYS has not."""
        wrong = Counter(fault for row in written.consents().values() for fault in faults(row))
        odd = [row for row in written.consents().values() if row["status"] not in ("ONAY", "RET")]

        assert not wrong
        assert 1 <= len(odd) <= 10
        assert len(odd) == written.feed.unknown

    def test_changes(self, written: Written) -> None:
        """Each row of the second wave is a valid İYS row, sorted as İYS sorts them."""
        rows = [row for row in written.changes if "kind" not in row]

        wrong = Counter(fault for row in rows for fault in faults(row))

        assert not wrong
        order = [(str(row["creationDate"]), str(row["transactionId"])) for row in rows]
        assert order == sorted(order)

    def test_daily_file(self, written: Written, tmp_path: Path) -> None:
        """A daily file has the eight columns, the rows of its day in order, and a line end at the end."""
        population, day = written.population, date(2026, 3, 3)

        summary = population.write_daily_csv(tmp_path / "day.csv", brand=population.largest_brand, day=day)

        text = summary.path.read_text(encoding="ascii")
        header, *lines = [line.split(",") for line in text.removesuffix("\n").split("\n")]
        rows = [Row(zip(header, line, strict=True), brandCode=population.largest_brand) for line in lines]
        assert text.startswith("creationDate,transactionId,recipient,recipientType,type,status,consentDate,source\n")
        assert text.endswith("\n")
        assert len(rows) == summary.rows >= 20
        assert not Counter(fault for row in rows for fault in faults(row))
        assert {when(row["creationDate"]).date() for row in rows} == {day}
        assert lines == sorted(lines)

    def test_keys(self, written: Written) -> None:
        """No two consents of the first feed have the same key."""
        rows = [row for row in written.rows if "kind" not in row]

        assert len(rows) == len(written.consents()) == CONSENTS

    def test_retailer_rows(self, written: Written) -> None:
        """Access lists come inside consents and as rows of their own, always of a consent that is an ONAY."""
        consents, apart = written.consents(), written.kind("retailerAccess")
        inside = [row for row in consents.values() if "retailerAccess" in row]

        assert inside
        assert len(apart) == written.feed.retailer_access > 0
        assert {consents[key_of(row)]["status"] for row in [*inside, *apart]} == {"ONAY"}
        assert all("retailerAccess" not in consents[key_of(row)] for row in apart)
        assert all(re.fullmatch(r"\[5555\d{4}(, 5555\d{4}){0,3}\]", str(row["retailerAccess"])) for row in apart)

    def test_old_spelling(self, written: Written) -> None:
        """A few numbers carry the extra zero of old rows at İYS."""
        old = [row for row in written.consents().values() if str(row["recipient"]).startswith("+900")]

        assert 1 <= len(old) <= CONSENTS / 500


class TestProportions:
    """The mixture is about what İYS's would be."""

    def test_consents(self, written: Written) -> None:
        """Statuses, recipient types and channels have the shares that were promised."""
        rows = list(written.consents().values())
        share = {
            value: sum(row[field] == value for row in rows) / len(rows)
            for field, values in {
                "status": ("ONAY", "RET"),
                "recipientType": ("BIREYSEL", "TACIR"),
                "type": ("ARAMA", "MESAJ", "EPOSTA"),
            }.items()
            for value in values
        }

        assert share["ONAY"] == pytest.approx(0.78, abs=0.015)
        assert share["RET"] == pytest.approx(0.22, abs=0.015)
        assert share["TACIR"] == pytest.approx(0.15, abs=0.015)
        assert 0.10 <= share["EPOSTA"] <= 0.15
        assert min(share["ARAMA"], share["MESAJ"]) > 0.2

    def test_addresses(self, written: Written) -> None:
        """Most phones are mobiles of many prefixes; there are landlines and a few foreign numbers."""
        phones = [key[3] for key in written.consents() if key[1] != "EPOSTA"]
        mobiles = [phone for phone in phones if phone.startswith("+905")]
        landlines = [phone for phone in phones if re.match(r"\+90[234]", phone)]

        assert len(mobiles) / len(phones) > 0.85
        assert 0.02 < len(landlines) / len(phones) < 0.15
        assert 0 < len(phones) - len(mobiles) - len(landlines) < 0.02 * len(phones)
        assert len({phone[3:6] for phone in mobiles}) > 20

    def test_times(self, written: Written) -> None:
        """Consents are of each year from 2015 to 2026, some of May 2015, some registered too late."""
        rows = [row for row in written.consents().values() if "consentDate" in row]
        years = Counter(when(row["consentDate"]).year for row in rows)
        last = REGISTERED_BEFORE[LegacyDeadline.UP_TO_150K]
        late = [
            row
            for row in rows
            if when(row["consentDate"]) < when("2020-12-01 00:00:00")
            and local_seconds(str(row["creationDate"])) >= last
            and row["status"] == "ONAY"
        ]

        assert set(years) == set(range(2015, 2027))
        assert any(row["source"] == "HS_2015" for row in rows)
        assert 0.001 * len(rows) < len(late) < 0.02 * len(rows)

    def test_sources(self, written: Written) -> None:
        """Almost every source code of İYS occurs."""
        used = {str(row.get("source", "")) for row in [*written.consents().values(), *written.changes]}

        assert len(used & set(KNOWN_SOURCES)) >= 20

    def test_brands(self, written: Written) -> None:
        """Brands are of very different sizes; every fifth person or so knows more than one of them."""
        sizes = Counter(key[0] for key in written.consents()).most_common()
        people = Counter(key[3] for key in written.consents())

        assert len(sizes) == BRANDS
        assert sizes[0][0] == written.population.largest_brand
        assert sizes[0][1] > 20 * sizes[-1][1]
        assert sum(count > 1 for count in people.values()) > len(people) / 5


class TestBrands:
    """Each way in which a brand can be special occurs."""

    def test_registered(self, written: Written) -> None:
        """Every brand but one is registered; some have sub-brands, restrictions, or are closed."""
        rows = written.kind("brand")
        codes = {row["brandCode"] for row in rows}
        strangers = {key[0] for key in written.consents()} - codes

        assert len(codes) == len(rows) == BRANDS - 1 == written.feed.brands
        assert len(strangers) == 1
        assert 121212 not in codes | strangers
        assert any(row["iysCode"] != row["brandCode"] for row in rows)
        assert {row["iysCode"] for row in rows} <= codes | strangers
        assert any(not row["active"] for row in rows)
        assert any("channels" in row for row in rows)
        assert [row["legacyDeadline"] for row in rows if "legacyDeadline" in row] == ["OVER_150K"]
        assert all(when("2020-01-01 00:00:00") < when(row["creationDate"]) < when(NOW_IN_TURKEY) for row in rows)

    def test_watermarks(self, written: Written) -> None:
        """Every registered brand is complete until now, but one that is 40 hours behind and one that never was."""
        marks = {row["brandCode"]: row["completeUntil"] for row in written.kind("watermark")}

        behind = sorted(str(until) for until in marks.values() if until != NOW_IN_TURKEY)

        assert written.feed.complete_until == NOW_IN_TURKEY
        assert len(marks) == BRANDS - 2 == written.feed.watermarks
        assert behind == ["2026-03-02 20:30:00"]

    def test_later_watermarks(self, written: Written) -> None:
        """The second wave moves on the brands that were up to date, as its last rows."""
        marks = written.changes[CHANGES:]

        assert {row.get("kind") for row in marks} == {"watermark"}
        assert {row["completeUntil"] for row in marks} == {NOW_IN_TURKEY}
        assert len(marks) == BRANDS - 3 == written.wave.watermarks


class TestChanges:
    """The second wave is what could have happened after the first feed."""

    def test_each(self, written: Written) -> None:
        """Refusals follow approvals, refreshed approvals are newer, closed lines repeat the consent time."""
        before = written.consents()
        seen: Counter[str] = Counter()

        for row in written.changes[:CHANGES]:
            old = before.get(key_of(row))
            story = self.story(row, old)
            seen[story] += 1
            assert old is None or str(row["creationDate"]) > str(old["creationDate"])

        wave = written.wave
        assert seen == {
            "refused": wave.refused,
            "refreshed": wave.refreshed,
            "closed": wave.closed,
            "renewed": wave.renewed,
            "added": wave.added,
        }
        assert min(seen.values()) > CHANGES / 20

    def story(self, row: Row, old: Row | None) -> str:
        """Say what a change does, and insist on its consent time."""
        if old is None:
            assert row["status"] == "ONAY"
            return "added"
        if row.get("source") == "IYS_AHS_HAT_KAPATMA":
            assert (old["status"], row["status"]) == ("ONAY", "RET")
            assert row["consentDate"] == old.get("consentDate", "")
            return "closed"
        assert str(row["consentDate"]) > str(old.get("consentDate", ""))
        if row["status"] == "RET":
            assert old["status"] == "ONAY"
            return "refused"
        return "refreshed" if old["status"] == "ONAY" else "renewed"

    def test_dateless_closures(self, written: Written) -> None:
        """The closed line of a merchant whose consent had no date carries an empty one."""
        empty = [row for row in written.changes if row.get("consentDate") == ""]

        assert empty
        assert {(row["recipientType"], row["source"]) for row in empty} == {("TACIR", "IYS_AHS_HAT_KAPATMA")}

    def test_once(self, written: Written) -> None:
        """No consent changes twice in a wave."""
        assert len({key_of(row) for row in written.changes[:CHANGES]}) == CHANGES

    def test_flips(self, written: Written) -> None:
        """The first flip is of the largest brand's MESAJ individuals; each was an ONAY and becomes a RET."""
        before, flips = written.consents(), written.wave.flips
        after = {key_of(row): row for row in written.changes[:CHANGES]}
        keys = [(flip.brand, flip.channel.name, flip.recipient_type.name, flip.address) for flip in flips]

        assert keys[0][:3] == (written.population.largest_brand, "MESAJ", "BIREYSEL")
        assert len(set(keys)) == len(flips) == 100
        assert {(before[key]["status"], after[key]["status"]) for key in keys} == {("ONAY", "RET")}

    def test_later_waves(self, written: Written, tmp_path: Path) -> None:
        """A wave that skips the one before it touches other consents."""
        later = NOW + timedelta(days=1)

        summary = written.population.write_changes(tmp_path / "third", now=later, changes=CHANGES, skip=CHANGES)

        third = {key_of(row) for row in parsed(summary.path)[:CHANGES]}
        assert not third & {key_of(row) for row in written.changes[:CHANGES]}
