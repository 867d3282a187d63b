"""What got no answer: calls, frames and items, by why, and by whose fault it was."""

from collections import Counter as Counts
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final

from prometheus_client import CollectorRegistry, Counter

from iyscheck import errors
from iyscheck.server.refusals import CANCELED, FAULTS, HASTY, OVERLOADED, REQUEST_LATE, TOO_LATE, Ending, Fault
from iyscheck.server.shedding import HASTY_S


class Unit(Enum):
    """What was not answered."""

    CALL = "call"
    FRAME = "frame"
    ITEM = "item"
    """A question of a batch, or a group of a mixed frame."""


_ASKED_IN_PARTS: Final = (
    errors.QuestionError,
    errors.BrandNotInScopeError,
    errors.ChannelNotInScopeError,
    errors.AddressesNotAllowedError,
    errors.RateLimitedError,
    errors.AddressKeyNotHeldError,
    errors.AddressKeyMismatchError,
    errors.PositionOfOtherLogError,
    errors.NotYetAtPositionError,
    errors.StoreError,
)
_ENDINGS: Final[Mapping[Unit, frozenset[Ending]]] = {
    Unit.CALL: frozenset(
        {
            *(Ending(kind.reason, fault) for kind, fault in FAULTS.items()),
            Ending(errors.OverloadedError.reason, Fault.CALLER),
            CANCELED,
            TOO_LATE,
            HASTY,
            REQUEST_LATE,
        }
    ),
    Unit.FRAME: frozenset(
        Ending(kind.reason, FAULTS[kind])
        for kind in (
            *_ASKED_IN_PARTS,
            errors.BatchTooLargeError,
            errors.MalformedFrameError,
            errors.CallerRevokedError,
            errors.IyscheckError,
        )
    ),
    Unit.ITEM: frozenset(Ending(kind.reason, FAULTS[kind]) for kind in _ASKED_IN_PARTS),
}
"""What each may end by. A rule about a series that is not there never fires: these are, from the start."""


class NotAnswered:
    """Counts calls, frames and items that got no answer, by why, and by whose fault it was."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._units = Counter(
            "consent_not_answered",
            "Calls, frames and items that got no answer.",
            ("unit", "reason", "fault"),
            registry=registry,
        )
        for unit, endings in _ENDINGS.items():
            for ending in sorted(endings, key=lambda each: each.reason):
                self.count(unit, ending, 0)

    def count(self, unit: Unit, ending: Ending, units: int = 1) -> None:
        """Count units that ended so."""
        self._units.labels(unit.value, ending.reason, ending.fault.value).inc(units)

    def error(self, unit: Unit, error: Exception) -> None:
        """Count a unit that ended by an error."""
        self.count(unit, Ending.of(error))

    def left(self, *, late: bool, given_s: float) -> None:
        """Count a call that was over before it was answered.

        `late` says that its deadline had passed, `given_s` how long that was when it came.
        """
        self.count(Unit.CALL, CANCELED if not late else HASTY if given_s < HASTY_S else TOO_LATE)

    def items(self, reasons: Iterable[str]) -> None:
        """Count items that ended by the errors of these reasons."""
        for reason, items in Counts(reasons).items():
            self.count(Unit.ITEM, Ending.of_reason(reason), items)


class CallsGivenUp:
    """Counts calls that ended before they had a thread. `is_check` is false of calls of health, which are not ours."""

    REASONS: Final = ("late", "crowded", "heavy")

    def __init__(self, registry: CollectorRegistry, not_answered: NotAnswered) -> None:
        calls = Counter(
            "consent_requests_given_up", "Calls that ended before they had a thread.", ("reason",), registry=registry
        )
        self._calls = {reason: calls.labels(reason) for reason in self.REASONS}
        self._not_answered = not_answered

    def count(self, reason: str, *, is_check: bool) -> None:
        """Count a call that we ended."""
        self._calls[reason].inc()
        if is_check:
            self._not_answered.count(Unit.CALL, REQUEST_LATE if reason == "late" else OVERLOADED)

    def left(self, *, late: bool, given_s: float, is_check: bool) -> None:
        """Count a call whose caller left, or whose deadline passed, while its request waited for a thread."""
        if is_check:
            self._not_answered.left(late=late, given_s=given_s)
