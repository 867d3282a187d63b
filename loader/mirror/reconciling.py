"""Days as tasks: what İYS says of them is asked for beside all else, and settled by the one thread that writes."""

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from iyscheck.errors import SourceError, StoreFullError
from loader.iys.clock import Clock
from loader.iys.faults import IysFault
from loader.mirror.config import MirrorConfig
from loader.mirror.looking import Looking
from loader.mirror.nights import BrandDay, Nights
from loader.mirror.tasks import Task, name_of
from loader.reports.days import AgreementReport, DayReport
from loader.sources.days.asking import Answers, Days, ask
from loader.sources.days.settling import Settler

AT_ONCE: Final = 2
"""So many days are asked for at the same time: the streams go on beside them."""
LOOK_S: Final = 60.0
"""So often it is looked at which days are due."""


class Reconciling:
    """The part that compares days. `has_hole` says of a brand whether only files or people can close its hole.

    `done` is told what came of each day.
    """

    def __init__(
        self,
        settler: Settler,
        looking: Looking,
        iys: Mapping[str, Days],
        *,
        config: MirrorConfig,
        clock: Clock,
        folder: Path,
        has_hole: Callable[[int], bool],
        done: Callable[[DayReport], None],
    ) -> None:
        import structlog

        self._log = structlog.get_logger("mirror")
        self._settler = settler
        self._looking = looking
        self._iys = iys
        self._config = config
        self._clock = clock
        self._folder = folder
        self._has_hole = has_hole
        self._done = done
        self._nights = Nights(from_s=config.reconcile_from_s, until_s=config.reconcile_until_s)
        self._due: deque[tuple[str, BrandDay]] = deque()
        self._out = 0
        self._look_s = 0.0

    @property
    def next_s(self) -> float | None:
        """When days are to be looked at again."""
        if self._out >= AT_ONCE:
            return None
        return self._clock.now() if self._due else self._look_s

    def next(self) -> Task | None:
        """Ask for the next day that is due."""
        now = self._clock.now()
        if not self._due and self._look_s <= now:
            self._look_s = now + LOOK_S
            self._due.extend(self._find(now))
        if not self._due or self._out >= AT_ONCE:
            return None
        account, which = self._due.popleft()
        self._nights.tried(which, now)
        self._out += 1
        asked = partial(
            ask,
            self._iys[account],
            iys_code=which.iys_code,
            brand=which.brand,
            day=which.day,
            folder=self._folder,
            clock=self._clock,
        )
        return Task(ask=asked, take=partial(self._took, account, which))

    def _find(self, now: float) -> list[tuple[str, BrandDay]]:
        """Find the days that are due of all brands that run, oldest days first."""
        if not self._config.reconciles:
            return []
        found = [
            (account, which)
            for account, shown in self._looking.brands()
            if shown.reconciles
            for which in self._nights.due(
                shown.iys_code,
                shown.brand,
                now,
                settled=partial(self._settler.reports.settled, shown.brand),
                has_hole=self._has_hole(shown.brand),
            )
        ]
        return sorted(found, key=lambda each: each[1])

    def _took(self, account: str, which: BrandDay, answer: object) -> Task | None:
        """Settle a day, or tell why that is not possible now."""
        self._out -= 1
        if isinstance(answer, IysFault):
            self._looking.noted(account, answer)
            self._not_asked(which, name_of(answer), code=answer.code, status=answer.status)
            return None
        if not isinstance(answer, Answers):
            self._not_asked(which, type(answer).__name__)
            return None
        self._looking.noted(account, None)
        try:
            report = self._settler.settle(answer)
        except (SourceError, StoreFullError) as error:
            self._not_asked(which, error.reason)
            return None
        except OSError as error:
            self._not_asked(which, type(error).__name__)
            return None
        finally:
            answer.forget()
        self._tell(report)
        if not self._config.agrees or not report.may_be_agreed or report.agreement is None or report.agreement.agreed:
            return None
        agree = partial(self._iys[account].agree, which.iys_code, which.brand, which.day)
        return Task(ask=agree, take=partial(self._agreed, which, report))

    def _agreed(self, which: BrandDay, report: DayReport, answer: object) -> None:
        """Keep that a day was agreed to."""
        if report.agreement is None or not isinstance(answer, bool):
            self._not_asked(which, name_of(answer) if isinstance(answer, IysFault) else type(answer).__name__)
            return
        agreement = AgreementReport(state=report.agreement.state, agreed=answer)
        self._settler.reports.keep(msgspec.structs.replace(report, agreement=agreement))
        self._log.info("day_agreed", brand=which.brand, day=str(which.day), taken=answer)

    def _tell(self, report: DayReport) -> None:
        """Log what came of a day; a refusal that was missed is what to look at."""
        tell = self._log.error if report.missed.refusals else self._log.info
        tell(
            "day",
            brand=report.brand,
            day=str(report.date),
            state=report.state.value,
            why=list(report.why),
            missed_refusals=report.missed.refusals,
            missed=report.missed.total,
        )
        self._done(report)

    def _not_asked(self, which: BrandDay, why: str, **said: object) -> None:
        self._log.warning("day_not_settled", brand=which.brand, day=str(which.day), why=why, **said)
