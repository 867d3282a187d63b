"""Days over real sockets: what İYS leaves open, what is cut on the way, and what it says against the facts."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from loader.iys.faults import TransientFault
from loader.mirror.config import AccountConfig, AccountKind, Config, MirrorConfig
from loader.mirror.connecting import connected
from loader.reports.days import DayReport, DayState
from loader.sources.days.asking import Days as Asked
from loader.sources.days.reconciling import reconcile_day
from tests.iys.clock import START_S, VirtualClock
from tests.iys.days import day_of, midnight_s
from tests.iys.fake import FakeIys
from tests.iys.faults import Cut, Fault
from tests.iys.quirks import Quirks
from tests.loader.sources.days.test_settling import BRAND, IYS_CODE, Days

DAY = day_of(START_S) - timedelta(days=1)
BEGIN = int(midnight_s(DAY))
END = BEGIN + 86_400


@pytest.fixture(scope="module", name="served")
def _served() -> Iterator[FakeIys]:
    fake = FakeIys(clock=VirtualClock())
    with fake.running():
        yield fake


class Site:
    """A store whose brand is complete until the day, and İYS, where things moved on it."""

    def __init__(self, path: Path, fake: FakeIys, iys: Asked) -> None:
        self.days = Days(path, watermark=BEGIN, now_s=fake.clock.now())
        self.path = path
        self.fake = fake
        self.iys = iys

    def reconcile(self) -> DayReport:
        """Reconcile the day."""
        return reconcile_day(
            self.iys,
            self.days.settler(clock=self.fake.clock),
            iys_code=IYS_CODE,
            brand=BRAND,
            day=DAY,
            folder=self.path / "fetched",
        )


@pytest.fixture(name="site")
def _site(served: FakeIys, tmp_path: Path) -> Iterator[Site]:
    assert isinstance(served.clock, VirtualClock)
    served.clock.set(START_S)
    served.reset()
    served.provider(IYS_CODE, "acme", "made up", brands=[BRAND])
    (tmp_path / "password").write_text("made up")
    (tmp_path / "password").chmod(0o600)
    account = AccountConfig(
        name="acme",
        kind=AccountKind.PROVIDER,
        code=IYS_CODE,
        username="acme",
        password_file=tmp_path / "password",
    )
    config = Config(accounts=(account,), mirror=MirrorConfig(url=served.url))
    with connected(config, tmp_path / "iys", clock=served.clock, stop=threading.Event()) as (iys, _):
        site = Site(tmp_path, served, iys["acme"])
        for number, (source, status) in enumerate((("HS", "ONAY"), ("IYS", "RET"), ("HS", "RET"), ("IYS", None))):
            served.move(
                BRAND,
                source,
                status=status,
                created_s=BEGIN + 20_000.0 * number,
                recipient=f"+90532100000{number}",
                citizen_name="Ayşe Özel",
            )
        yield site
        site.days.writer.close()


class TestQuirks:
    """What the documentation leaves open."""

    @pytest.mark.parametrize(
        ("quirks", "variant"),
        [
            (Quirks(), "as it is"),
            (Quirks(hash_method="sha256", csv_header=True), "as it is"),
            (Quirks(csv_header=True, hash_over="without_header"), "with a header, or without the one it has"),
            (Quirks(hash_over="without_final_newline"), "without the last line end"),
            (Quirks(csv_header=True, csv_bom=True, timestamp_form="base64"), "as it is"),
        ],
    )
    def test_proved(self, site: Site, quirks: Quirks, variant: str) -> None:
        """A day is proved whatever its digest is over, and by whatever algorithm; one that İYS misnames is told."""
        site.fake.world.quirks = quirks

        report = site.reconcile()

        assert (report.state, report.proved_by, report.hash.variant) == (DayState.PROVED, "hash", variant)
        assert report.hash.contradicts is (quirks.hash_method == "sha256")
        assert (report.rows, report.applied.total, site.days.watermark) == ({"HS": 2, "IYS": 2}, 4, END)
        assert report.timestamp.bound is True
        kept = [path.read_bytes() for path in site.path.rglob("*") if path.is_file()]
        assert not any("Özel".encode() in each for each in kept)


class TestCut:
    """What is cut on the way."""

    @pytest.mark.parametrize("how", ["length", "chunk", "close", "gzip"])
    def test_file(self, site: Site, how: Cut) -> None:
        """Of a file that is cut nothing is loaded and nothing is left; the next one proves the day."""
        site.fake.plan("file", Fault.cut(how))
        if how == "close":  # it ends with the connection: as far as HTTP goes it came whole
            assert site.reconcile().state is DayState.UNPROVED
        else:
            with pytest.raises(TransientFault):
                site.reconcile()
        assert (site.days.records(), site.days.watermark) == (0, BEGIN)
        assert not [*(site.path / "fetched").iterdir()]

        assert site.reconcile().state is DayState.PROVED

    def test_at_a_line_end(self, site: Site) -> None:
        """A file that ends too early at a line end looks whole, and proves nothing by digest or by counts."""
        half = b"".join(site.fake.file(BRAND, DAY).splitlines(keepends=True)[:2])
        site.fake.tell_day(BRAND, DAY, body=half)
        by_hash = site.reconcile()
        records = site.days.records()
        site.fake.tell_day(BRAND, DAY, process_status="error")

        by_count = site.reconcile()

        assert (by_hash.why, records) == (("OTHER_HASH",), 0)
        assert by_count.why == ("OTHER_ROWS",)
        assert site.days.watermark == BEGIN


class TestAgainstTheFacts:
    """What İYS says against the facts, or not yet."""

    def test_pending_without_file(self, site: Site) -> None:
        """No file and something pending is no quiet day."""
        site.fake.reset()
        site.fake.provider(IYS_CODE, "acme", "made up", brands=[BRAND])
        site.fake.tell_day(BRAND, DAY, pending=1)
        pending = site.reconcile()
        site.fake.tell_day(BRAND, DAY, pending=0, unlisted=frozenset({"ARAMA"}))
        unlisted = site.reconcile()
        site.fake.tell_day(BRAND, DAY, unlisted=frozenset())

        quiet = site.reconcile()

        assert [pending.why, unlisted.why, quiet.why] == [("NO_FILE",), ("NO_FILE",), ()]
        assert (quiet.state, site.days.watermark) == (DayState.NO_MOVEMENTS, END)

    def test_file_withheld(self, site: Site) -> None:
        """No file of a day with movements proves nothing."""
        site.fake.tell_day(BRAND, DAY, has_file=False)

        assert (site.reconcile().why, site.days.watermark) == (("NO_FILE",), BEGIN)

    def test_changed_after_its_digest(self, site: Site) -> None:
        """A file that has one more row than when its digest was made is not loaded, until İYS gives its new digest."""
        whole = site.fake.file(BRAND, DAY)
        site.fake.tell_day(BRAND, DAY, body=whole + whole.splitlines(keepends=True)[0])
        changed = site.reconcile()
        site.fake.tell_day(BRAND, DAY, body=None)

        assert (changed.why, changed.applied.total) == (("OTHER_HASH",), 0)
        assert site.reconcile().state is DayState.PROVED

    def test_in_error(self, site: Site) -> None:
        """Where İYS gave up on a day exact counts prove it, and its state is told."""
        site.fake.tell_day(BRAND, DAY, process_status="error")

        report = site.reconcile()

        assert (report.state, report.proved_by) == (DayState.PROVED, "count")
        assert report.agreement is not None
        assert (report.agreement.state, report.hash.equal) == ("error", None)

    def test_queued(self, site: Site) -> None:
        """A file in the making is waited for."""
        site.fake.tell_day(BRAND, DAY, process_status="inprogress")
        assert isinstance(site.fake.clock, VirtualClock)
        site.fake.clock.set(END + 4 * 3600.0)

        report = site.reconcile()

        assert (report.why, site.fake.asked("file")) == (("FILE_IN_THE_MAKING",), [])
