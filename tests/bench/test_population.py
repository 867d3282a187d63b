"""A population tells the truth about each consent, repeats itself, and refuses what cannot be."""

import gzip
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import typer.testing
import zstandard

from bench.population import Population
from bench.population.__main__ import main
from bench.population.rows import sink
from iyscheck.consent import (
    Channel,
    Reason,
    RecipientType,
    Status,
)
from tests.bench.populations import (
    CONSENTS,
    NEVER_BY_DEFAULT,
    NOW,
    NOW_IN_TURKEY,
    Written,
    key_of,
)

MESAJ, BIREYSEL = Channel.MESAJ, RecipientType.BIREYSEL


class TestTruth:
    """What the population says about a consent is what its feed says."""

    def test_consent(self, written: Written) -> None:
        """Any consent can be asked for, and is its row."""
        rows = [row for row in written.rows if "kind" not in row]
        apart = {key_of(row): row["retailerAccess"] for row in written.kind("retailerAccess")}
        codes = {"ONAY": Status.ONAY, "RET": Status.RET}

        for number in range(0, CONSENTS, 37):
            consent, row = written.population.consent(number), rows[number]
            retailers = row.get("retailerAccess", apart.get(key_of(row)))
            assert (consent.brand, consent.channel.name, consent.recipient_type.name, consent.address) == key_of(row)
            assert consent.status is codes.get(str(row["status"]), Status.UNKNOWN)
            assert consent.source == row.get("source", "")
            assert consent.consent_time == row.get("consentDate", "")
            assert consent.registration_time == row["creationDate"]
            assert consent.transaction_id == row["transactionId"]
            assert consent.retailers == (None if retailers is None else frozenset(retailers))  # type: ignore[call-overload] # a JSON list

    def test_columns(self, written: Written) -> None:
        """A stretch of columns says the same as the whole."""
        whole, part = written.population.columns(0, CONSENTS), written.population.columns(900, 1_000)

        assert (whole.person[900:1_000] == part.person).all()
        assert (whole.registered[900:1_000] == part.registered).all()
        assert (whole.transaction[900:1_000] == part.transaction).all()

    def test_summary(self, written: Written) -> None:
        """The summary counts what is in the file."""
        statuses = Counter(row["status"] for row in written.consents().values())

        assert written.feed.rows == len(written.rows)
        assert written.feed.consents == CONSENTS
        assert (written.feed.onay, written.feed.ret) == (statuses["ONAY"], statuses["RET"])
        assert written.wave.rows == len(written.changes)


class TestDeterminism:
    """The same seed and time give the same bytes; nothing else is read."""

    @pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
    def test_feed(self, tmp_path: Path, suffix: str) -> None:
        """Two populations of one seed write equal files in every packing, another seed writes others."""
        first, again, other = (tmp_path / f"{name}{suffix}" for name in ("first", "again", "other"))

        for path, seed in ((first, 1), (again, 1), (other, 2)):
            Population(seed=seed, consents=2_000, brands=12).write_feed(path, now=NOW)

        assert first.read_bytes() == again.read_bytes()
        assert unpacked(first) != unpacked(other)

    def test_packing(self, tmp_path: Path) -> None:
        """Packed files hold what the plain one holds, and no time of their own."""
        population = Population(seed=1, consents=2_000, brands=12)

        paths = [tmp_path / name for name in ("a.jsonl", "a.jsonl.gz", "a.jsonl.zst")]
        for path in paths:
            population.write_feed(path, now=NOW)

        plain, *packed = [unpacked(path) for path in paths]
        assert plain.count(b"\n") > 2_000
        assert packed == [plain, plain]
        assert paths[1].read_bytes()[4:8] == bytes(4)  # the gzip header's modification time

    def test_changes(self, tmp_path: Path) -> None:
        """Waves, daily files and campaigns repeat as well."""
        made = []
        for name in ("first", "again"):
            population = Population(seed=1, consents=2_000, brands=12)
            brand = population.largest_brand
            wave = population.write_changes(tmp_path / f"{name}.jsonl", now=NOW, changes=500)
            daily = population.write_daily_csv(tmp_path / f"{name}.csv", brand=brand, day=date(2026, 3, 1))
            campaign = population.campaign(99, brand=brand, channel=MESAJ, recipient_type=BIREYSEL, hit_rate=0.5)
            made.append((wave.path.read_bytes(), wave.flips, daily.path.read_bytes(), campaign))

        assert made[0] == made[1]

    def test_zones(self, tmp_path: Path) -> None:
        """A `now` without a zone is Turkish local time."""
        population = Population(seed=1, consents=2_000, brands=12)
        naive = NOW.astimezone(ZoneInfo("Europe/Istanbul")).replace(tzinfo=None)

        summaries = [population.write_feed(tmp_path / "feed", now=now) for now in (NOW, naive)]

        assert summaries[0] == summaries[1]
        assert summaries[0].complete_until == NOW_IN_TURKEY


def unpacked(path: Path) -> bytes:
    """Read a feed file whatever its packing."""
    raw = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(raw)
    return zstandard.ZstdDecompressor().decompressobj().decompress(raw) if path.suffix == ".zst" else raw


class TestRefusals:
    """What cannot be made is refused with a sentence."""

    @pytest.mark.parametrize(("consents", "brands"), [(10_000, 11), (599, 12), (10**10, 12)])
    def test_sizes(self, consents: int, brands: int) -> None:
        """Too few brands, too few consents and too many consents are refused."""
        with pytest.raises(ValueError, match=r"brands|consents"):
            Population(seed=1, consents=consents, brands=brands)

    def test_smallest(self, tmp_path: Path) -> None:
        """The smallest population has every example and a flip."""
        population = Population(seed=1, consents=600, brands=12)

        summary = population.write_changes(tmp_path / "wave", now=NOW, changes=1)

        assert {example.reason for example in population.examples()} == set(Reason) - NEVER_BY_DEFAULT
        assert [flip.brand for flip in summary.flips] == [population.largest_brand]

    def test_early(self, tmp_path: Path) -> None:
        """Feeds and daily files from before the population's last consent are refused, and leave no file."""
        population = Population(seed=1, consents=600, brands=12)

        with pytest.raises(ValueError, match="now"):
            population.write_feed(tmp_path / "feed", now=datetime(2026, 2, 8, tzinfo=UTC))
        with pytest.raises(ValueError, match="9 February 2026"):
            population.write_daily_csv(tmp_path / "day", brand=population.largest_brand, day=date(2026, 2, 8))

        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(("changes", "skip"), [(0, 0), (601, 0), (300, 301), (1, -1)])
    def test_too_many_changes(self, tmp_path: Path, changes: int, skip: int) -> None:
        """A wave beyond the last consent is refused."""
        population = Population(seed=1, consents=600, brands=12)

        with pytest.raises(ValueError, match="600 consents"):
            population.write_changes(tmp_path / "wave", now=NOW, changes=changes, skip=skip)

    def test_strangers(self) -> None:
        """Numbers and codes that the population does not have are refused."""
        population = Population(seed=1, consents=600, brands=12)

        with pytest.raises(ValueError, match="600 consents"):
            population.consent(600)
        with pytest.raises(ValueError, match="no brand 1"):
            population.brand(1)

    def test_unfinished(self, tmp_path: Path) -> None:
        """A file that is not whole never stands under its name."""
        path = tmp_path / "feed.jsonl"

        with pytest.raises(TypeError), sink(path) as out:
            out.write(["a row", None])  # type: ignore[list-item] # breaks in the middle

        assert not list(tmp_path.iterdir())


class TestCommand:
    """`python -m bench.population` writes the files of a population."""

    app = typer.Typer()
    app.command()(main)

    def test_files(self, tmp_path: Path) -> None:
        """It writes the same bytes as the population does."""
        arguments = "--consents 2000 --brands 12 --seed 5 --changes 100 --now 2026-03-04T09:30:00 --suffix .jsonl"

        result = typer.testing.CliRunner().invoke(self.app, [*arguments.split(), "--out", str(tmp_path / "out")])

        population = Population(seed=5, consents=2_000, brands=12)
        feed = population.write_feed(tmp_path / "feed", now=NOW).path
        wave = population.write_changes(tmp_path / "wave", now=NOW, changes=100).path
        assert result.exit_code == 0, result.output
        assert (tmp_path / "out" / "1-consents.jsonl").read_bytes() == feed.read_bytes()
        assert (tmp_path / "out" / "2-changes.jsonl").read_bytes() == wave.read_bytes()

    def test_refusal(self, tmp_path: Path) -> None:
        """What cannot be made is told in a sentence, without a traceback."""
        result = typer.testing.CliRunner().invoke(self.app, ["--brands", "3", "--out", str(tmp_path)])

        assert result.exit_code == 2
        assert "at least 12 brands" in " ".join(result.output.split())
