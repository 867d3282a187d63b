"""One day from end to end, against what İYS may say. What travels by HTTP is tested with the fake İYS."""

import hashlib
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import pytest

from iyscheck.consent import RecipientType
from loader.iys.faults import AuthFailedFault, IysFault, RefusedFault, TransientFault
from loader.iys.messages import Agreement, AgreementState, SummaryLine
from loader.reports.days import DayReport, DayState
from loader.sources.days.asking import forget_left
from loader.sources.days.reconciling import reconcile_day
from tests.loader.sources.days.days import DAY, summary
from tests.loader.sources.days.test_settling import BRAND, END, IYS_CODE, ROWS, Days, days
from tests.loader.sources.days.test_stamp import STAMPS

__all__ = ["days"]  # a fixture


@dataclass
class Iys:
    """What İYS says of the day; `asked` are the operations, in their order."""

    rows: list[str] | None
    state: AgreementState = AgreementState.COMPLETED
    agreed: bool = False
    stamp: bytes | IysFault | None = None
    fault: IysFault | None = None
    asked: list[str] = field(default_factory=list)

    @property
    def content(self) -> bytes:
        """The file."""
        return "".join(self.rows or ()).encode()

    def summary(self, iys_code: int, brand: int, day: date, kind: RecipientType) -> tuple[SummaryLine, ...]:
        """Count."""
        assert (iys_code, brand, day) == (IYS_CODE, BRAND, DAY)
        self.asked.append(f"summary {kind.name}")
        return tuple(line for line in summary(self.rows or ()) if line.recipient_type is kind)

    def agreement(self, _iys_code: int, _brand: int, day: date) -> Agreement:
        """Say how far the file is."""
        self.asked.append("agreement")
        digest = "" if self.rows is None else hashlib.sha384(self.content).hexdigest()
        return Agreement(day=day, state=self.state, hash=digest, method="SHA-384", agreed=self.agreed)

    def agree(self, _iys_code: int, _brand: int, _day: date) -> bool:
        """Take note."""
        self.asked.append("agree")
        self.agreed = True
        return True

    def day_file(self, _iys_code: int, _brand: int, _day: date, into: Path) -> bool:
        """Give the file."""
        self.asked.append("file")
        if self.fault is not None:
            raise self.fault
        if self.rows is not None:
            into.write_bytes(self.content)
        return self.rows is not None

    def timestamp(self, _iys_code: int, _brand: int, _day: date) -> bytes | None:
        """Give the stamp."""
        self.asked.append("timestamp")
        if isinstance(self.stamp, IysFault):
            raise self.stamp
        return self.stamp


def reconcile(days: Days, iys: Iys, day: date = DAY, *, agrees: bool = False) -> DayReport:
    """Reconcile the day; no file is left behind."""
    folder = days.path / "fetched"
    try:
        return reconcile_day(iys, days.settler(), iys_code=IYS_CODE, brand=BRAND, day=day, folder=folder, agrees=agrees)
    finally:
        assert not folder.exists() or not [*folder.iterdir()]


class TestReconciling:
    """What is asked for, and what for."""

    def test_all(self, days: Days) -> None:
        """Everything is asked for once, the file last but the stamp; it is deleted, and the day is proved."""
        iys = Iys(ROWS, stamp=(STAMPS / "sha384.tsr").read_bytes())

        report = reconcile(days, iys)

        assert iys.asked == ["summary BIREYSEL", "summary TACIR", "agreement", "file", "timestamp"]
        assert (report.state, days.watermark, report.timestamp.bound) == (DayState.PROVED, END, False)
        assert (days.path / "fetched").stat().st_mode & 0o777 == 0o700

    def test_in_the_making(self, days: Days) -> None:
        """A file in the making is not fetched, until noon; then it is looked at whether counts prove it."""
        iys = Iys(ROWS[:3], state=AgreementState.QUEUED)

        early = reconcile(days, iys)
        days.clock.now_s += 5 * 3600
        late = reconcile(days, iys)

        assert (early.why, late.proved_by) == (("FILE_IN_THE_MAKING",), "count")
        assert iys.asked.count("file") == 1
        assert "timestamp" not in iys.asked

    @pytest.mark.parametrize("fault", [TransientFault("x"), AuthFailedFault("x")])
    def test_faults(self, days: Days, fault: IysFault) -> None:
        """Where the file cannot be had the fault is told, and the store stays as it was."""
        position = days.writer.position

        with pytest.raises(type(fault)):
            reconcile(days, Iys(ROWS, fault=fault))
        assert days.writer.position == position
        assert not days.reports.all(BRAND)

    def test_stamp_faults(self, days: Days) -> None:
        """Nothing depends on the stamp, unless the account is barred."""
        assert reconcile(days, Iys(ROWS, stamp=RefusedFault("x", status=404))).state is DayState.PROVED
        with pytest.raises(AuthFailedFault):
            reconcile(days, Iys(ROWS, stamp=AuthFailedFault("x")))

    def test_agree(self, days: Days) -> None:
        """İYS is agreed with once, where that is wanted, and only to what was there before."""
        iys = Iys(ROWS)

        reports = [reconcile(days, iys, agrees=agrees) for agrees in (True, False, True)]
        kept = days.reports.all(BRAND)[DAY]
        again = reconcile(days, iys, agrees=True)

        assert [report.agreement and report.agreement.agreed for report in reports] == [False, False, True]
        assert kept == reports[-1]
        assert again.agreement == kept.agreement
        assert iys.asked.count("agree") == 1

    @pytest.mark.parametrize(("back", "why"), [(-1, "TOO_EARLY"), (0, "TOO_EARLY"), (8, "OUT_OF_REACH")])
    def test_out_of_reach(self, days: Days, back: int, why: str) -> None:
        """A day that is not over, or that İYS has forgotten, is not asked for."""
        iys = Iys(ROWS)

        report = reconcile(days, iys, DAY + timedelta(days=1 - back))

        assert (report.state, report.why) == (DayState.UNPROVED, (why,))
        assert not iys.asked


def test_left(tmp_path: Path) -> None:
    """Files that a crash left are deleted, and nothing else."""
    for name in ("600001-2025-06-01.csv", "600001-2025-06-01.csv.part", "600001.csv", "x-2025-06-01.csv"):
        (tmp_path / name).write_bytes(b"")

    forget_left(tmp_path)
    forget_left(tmp_path / "none")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["600001.csv", "x-2025-06-01.csv"]
