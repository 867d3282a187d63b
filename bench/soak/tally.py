"""What came of every call: right, wrong, an error, too late. All callers share it."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from bench.soak.model import REASONS, YES, Ask, Consent, Model
from iyscheck.change import Position
from iyscheck.errors import ServiceError, ServiceUnavailableError
from iyscheck.question import Evidence

SLACK_S: Final = 15.0
"""How much later than its deadline a call may end. The callers share the machine with what they ask, with the faults
and with whoever else is there, so a thread that is due may have to wait."""
WRONG_YES: Final = "wrong yes"
"""Who may not be written to was permitted: the worst that there is."""
_KEPT: Final = 20
"""Wrong answers that are kept to be shown; all are counted."""
_STATUSES: Final = {"ONAY": 1, "UNKNOWN": 2, "RET": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """An answer that is not the right one. The recipient is named by its number only."""

    what: str
    caller: str
    number: int
    question: str
    said: str
    right: str
    sequence: int
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Call:
    """A call on its way: from where its answer may be at the earliest, and when it must be over."""

    caller: str
    least: int
    due_s: float


@dataclass(slots=True)
class Tally:
    """Judges answers by the model and counts everything; safe to share between threads."""

    model: Model
    log_id: bytes = b""
    least: int = 0
    """So many rows are surely committed: no answer to a call that begins now may be from before them."""
    checks: Counter[str] = field(default_factory=Counter)
    """By caller."""
    reasons: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    wrongs: Counter[str] = field(default_factory=Counter)
    wrong: list[Wrong] = field(default_factory=list)
    told: int = 0
    """Statuses that watchers of the health were told."""
    late: list[str] = field(default_factory=list)
    """Calls that did not end within their deadline."""
    failed: list[str] = field(default_factory=list)
    """What no caller must ever meet."""
    boundaries: set[int] = field(default_factory=set)
    """Where commits end: between them there is no state."""
    answered_s: float = 0.0
    longest_silence_s: float = 0.0
    _open: dict[int, Call] = field(default_factory=dict)
    _calls: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def call(self, caller: str, limit_s: float) -> Iterator[Call]:
        """Watch one call, and count the error that it ends with."""
        call = Call(caller, self.least, time.monotonic() + limit_s)
        with self._lock:
            self._calls += 1
            number = self._calls
            self._open[number] = call
        try:
            yield call
        except ServiceError as error:
            with self._lock:
                self.errors[error.code] += 1
                if not isinstance(error, ServiceUnavailableError):
                    self.failed.append(f"{caller}: {type(error).__name__} {error.code}: {error.message}")
        finally:
            with self._lock:
                if self._open.pop(number, None) is not None:  # else it was told already
                    self._is_late(call)

    def overdue(self) -> int:
        """Count the calls that are open and should be over, and tell each once."""
        with self._lock:
            found = [number for number, call in self._open.items() if self._is_late(call)]
            for number in found:
                del self._open[number]
        return len(found)

    def heard(self) -> None:
        """Count a status that a watcher was told."""
        with self._lock:
            self.told += 1

    def refused(self, caller: str, reason: str) -> None:
        """Count a question that was not answered, though its batch was."""
        with self._lock:
            self.errors[reason] += 1
            self.failed.append(f"{caller}: a question ended with {reason}")

    def judge(self, call: Call, ask: Ask, reason: int, position: Position) -> None:
        """Compare an answer with the right one at its position."""
        said, at = REASONS.get(reason, f"reason {reason}"), position.sequence
        right = self.model.reason(ask, at)
        what = ""
        if said != right:
            what = WRONG_YES if said in YES and right not in YES else "wrong answer"
        elif position.log_id != self.log_id:
            what = "answer of another log"
        elif at > self.model.rows or (not ask.exempt and (at < call.least or at not in self.boundaries)):
            what = "answer from a place that was not committed, or had been left"
        self._judged(call, ask, what, said, right, at)

    def judge_evidence(self, call: Call, ask: Ask, evidence: Evidence | None, position: Position) -> None:
        """Compare the evidence of an answer with what stands at its position."""
        asks_nobody = ask.exempt or not ask.readable
        right = None if asks_nobody else self.model.consent(ask, position.sequence)
        said = None if evidence is None else _consent_of(evidence)
        if said != right:
            self._judged(call, ask, "wrong evidence", str(said), str(right), position.sequence)

    def _judged(self, call: Call, ask: Ask, what: str, said: str, right: str, at: int) -> None:
        now = time.monotonic()
        with self._lock:
            self.checks[call.caller] += 1
            self.reasons[said] += 1
            self.longest_silence_s = max(self.longest_silence_s, now - self.answered_s if self.answered_s else 0.0)
            self.answered_s = now
            if not what:
                return
            self.wrongs[what] += 1
            if len(self.wrong) < _KEPT:
                self.wrong.append(
                    Wrong(
                        what=what,
                        caller=call.caller,
                        number=ask.number,
                        question=_without_address(ask),
                        said=said,
                        right=right,
                        sequence=at,
                        least=call.least,
                        most=self.model.rows,
                    )
                )

    def silence(self) -> float:
        """Return the longest time that nobody was answered, since this was last asked."""
        with self._lock:
            now = time.monotonic()
            longest = max(self.longest_silence_s, now - self.answered_s)
            self.longest_silence_s, self.answered_s = 0.0, now
            return longest

    def _is_late(self, call: Call) -> bool:
        late_s = time.monotonic() - call.due_s - SLACK_S
        if late_s > 0:
            self.late.append(f"{call.caller}: {late_s + SLACK_S:.1f} s after its deadline")
        return late_s > 0


def _consent_of(evidence: Evidence) -> Consent:
    return Consent(
        evidence.registration_time,
        _STATUSES.get(evidence.status.name, 0),
        evidence.consent_time,
        evidence.source,
        evidence.transaction_id,
    )


def _without_address(ask: Ask) -> str:
    parts = [str(ask.brand), ask.channel, ask.kind]
    parts += [] if ask.retailer is None else [f"retailer {ask.retailer}"]
    parts += ["exempt"] * ask.exempt + ["unreadable"] * (not ask.readable)
    return " ".join(parts)
