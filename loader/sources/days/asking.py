"""What İYS says of a day: asked, and its file fetched. The store is not touched, so any thread may do this."""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from iyscheck.consent import RecipientType
from loader.iys.clock import Clock
from loader.iys.faults import ForbiddenFault, RefusedFault, TransientFault
from loader.iys.messages import Agreement, AgreementState, SummaryLine
from loader.sources.days.facts import FileFacts
from loader.sources.days.judgement import Evidence
from loader.sources.days.stamp import Stamp

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_FETCHED: Final = re.compile(r"\d+-\d{4}-\d\d-\d\d\.csv.*")
"""How files are called while they are here, and what a client may write beside them first."""


class Days(Protocol):
    """What is asked of İYS about days."""

    def summary(
        self, iys_code: int, brand: int, day: date, recipient_type: RecipientType, /
    ) -> tuple[SummaryLine, ...]:
        """Count a day's movements."""
        ...

    def agreement(self, iys_code: int, brand: int, day: date, /) -> Agreement:
        """Say how far the day's file is."""
        ...

    def agree(self, iys_code: int, brand: int, day: date, /) -> bool:
        """Agree to a day, for ever; say whether İYS took note."""
        ...

    def day_file(self, iys_code: int, brand: int, day: date, into: Path, /) -> bool:
        """Fetch a day's file; say whether there is one."""
        ...

    def timestamp(self, iys_code: int, brand: int, day: date, /) -> bytes | None:
        """Fetch a day's time stamp."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What İYS said of a brand's day at `evidence.asked_s`; `path` is where its file lies, None without one."""

    iys_code: int
    brand: int
    evidence: Evidence
    path: Path | None
    stamp: Stamp

    def forget(self) -> None:
        """Delete the file: it has addresses in it."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def ask(
    iys: Days, *, iys_code: int, brand: int, day: date, folder: Path, clock: Clock, roots: Sequence["Certificate"] = ()
) -> Answers:
    """Ask for all that İYS knows of a day in reach, and fetch its file into a folder.

    Raises IysFault, SourceUnreadableError, OSError; then nothing is left in the folder.
    """
    asked_s = clock.now()
    summary = [line for kind in RecipientType for line in iys.summary(iys_code, brand, day, kind)]
    agreement = iys.agreement(iys_code, brand, day)
    evidence = Evidence(day=day, asked_s=asked_s, summary=tuple(summary), agreement=agreement, file=None)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{brand}-{day}.csv"
    if evidence.is_in_the_making or not iys.day_file(iys_code, brand, day, path):
        return Answers(iys_code=iys_code, brand=brand, evidence=evidence, path=None, stamp=Stamp())
    try:
        file = FileFacts.of(path)
        answer = _timestamp(iys, iys_code, brand, agreement)
        return Answers(
            iys_code=iys_code,
            brand=brand,
            evidence=Evidence(day=day, asked_s=asked_s, summary=tuple(summary), agreement=agreement, file=file),
            path=path,
            stamp=Stamp.of(answer, path, file, roots),
        )
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def forget_left(folder: Path) -> None:
    """Delete files that a crash left: they have addresses in them. Nobody may be asking meanwhile."""
    if folder.is_dir():
        for path in folder.iterdir():
            if _FETCHED.fullmatch(path.name):
                path.unlink(missing_ok=True)


def _timestamp(iys: Days, iys_code: int, brand: int, agreement: Agreement) -> bytes | None:
    """Fetch the time stamp, which nothing depends on."""
    if agreement.state is AgreementState.COMPLETED:
        with suppress(TransientFault, RefusedFault, ForbiddenFault):
            return iys.timestamp(iys_code, brand, agreement.day)
    return None
