"""The reconciliation of one day from end to end, for a command: asked, settled, and agreed to where that is wanted."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from iyscheck.times import rfc3339
from loader.reading import times
from loader.reports.days import AgreementReport, DayReport, DayState, watermark_text
from loader.sources.days.asking import Days, ask
from loader.sources.days.judgement import Why, is_in_reach
from loader.sources.days.settling import Settler

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


def reconcile_day(
    iys: Days,
    settler: Settler,
    *,
    iys_code: int,
    brand: int,
    day: date,
    folder: Path,
    agrees: bool = False,
    roots: Sequence["Certificate"] = (),
) -> DayReport:
    """Reconcile a brand's day. Raises IysFault, SourceUnreadableError, StoreError, OSError."""
    if not is_in_reach(day, settler.clock.now()):
        return out_of_reach(settler, iys_code=iys_code, brand=brand, day=day)
    answers = ask(iys, iys_code=iys_code, brand=brand, day=day, folder=folder, clock=settler.clock, roots=roots)
    try:
        report = settler.settle(answers)
    finally:
        answers.forget()
    return agreed(iys, settler, report) if agrees else report


def agreed(iys: Days, settler: Settler, report: DayReport) -> DayReport:
    """Agree to a day, if it may be and has not been: for ever. Raises IysFault, OSError."""
    if not report.may_be_agreed or report.agreement is None or report.agreement.agreed:
        return report
    taken = iys.agree(report.iys_code, report.brand, report.date)
    agreement = AgreementReport(state=report.agreement.state, agreed=taken)
    report = msgspec.structs.replace(report, agreement=agreement)
    settler.reports.keep(report)
    return report


def out_of_reach(settler: Settler, *, iys_code: int, brand: int, day: date) -> DayReport:
    """Report a day of which İYS gives nothing yet, or nothing any more: then it is a hole unless it is covered."""
    watermark, _, _ = settler.writer.coverage(brand)
    is_covered = watermark is not None and times.day_of(watermark) > day
    is_over = times.day_of(int(settler.clock.now())) > day
    return DayReport(
        iys_code=iys_code,
        brand=brand,
        date=day,
        state=DayState.HOLE if is_over and not is_covered else DayState.UNPROVED,
        why=(Why.OUT_OF_REACH.value if is_over else Why.TOO_EARLY.value,),
        watermark=watermark_text(watermark),
        reconciled=rfc3339(int(settler.clock.now())),
    )
