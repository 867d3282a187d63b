"""Compares every answer with the only right one at its position, and counts what was seen in each act."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.cluster.changes import Changes
from bench.soak.model import REASONS, YES, Ask
from iyscheck.question import Envelope

FRESH_S: Final = 2.0
"""A server is fresh as long as it has everything that is older."""
_KEPT: Final = 10
"""Wrong answers that are kept to be shown; all are counted."""


@dataclass(kw_only=True)
class Act:
    """What was seen from one event to the next."""

    name: str
    begun_s: float = field(default_factory=time.monotonic)
    answers: int = 0
    wrong: int = 0
    wrong_permits: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """What senders were told instead of answers, by its code."""
    waited_s: float = 0.0
    """The longest time that one sender had no answer."""
    oldest_s: float = 0.0
    """For how long the oldest answer that a sender got had not been the newest one."""
    fresh_after_s: float | None = None
    """When all servers had everything again; None where it was not waited for."""
    _behind: set[str] = field(default_factory=set)


class Judge:
    """Judges for all threads."""

    def __init__(self, changes: Changes) -> None:
        self.acts = [Act(name="before")]
        self.faults: list[str] = []
        """What is wrong, as far as it is kept."""
        self.faulty = 0
        self.compared: Counter[str] = Counter()
        """Answers by who got them."""
        self.log_id = b""
        self._changes = changes
        self._lock = threading.Lock()
        self._last_s: dict[str, float] = {}
        self._newest: dict[str, int] = {}
        self._fresh_since: dict[str, float | None] = {}

    @property
    def act(self) -> Act:
        """The act that is being played."""
        return self.acts[-1]

    def begin(self, name: str) -> Act:
        """Begin the next act."""
        with self._lock:
            self.acts.append(Act(name=name))
            return self.act

    def answered(self, who: str, asks: Sequence[Ask], reasons: Sequence[int], envelope: Envelope) -> None:
        """Judge what a sender was answered."""
        self._judge(who, asks, reasons, envelope)
        age_s, now = self._changes.age_s(envelope.position.sequence), time.monotonic()
        with self._lock:
            act = self.act
            act.oldest_s = max(act.oldest_s, age_s)
            act.waited_s = max(act.waited_s, now - self._last_s.get(who, now))
            self._last_s[who] = now

    def failed(self, who: str, code: str, *, may_be: bool) -> None:
        """Count that a sender was not answered; with `may_be` that can happen where servers are killed."""
        with self._lock:
            self.act.errors[code] += 1
        if not may_be:
            self.fault(f"{who} was told {code}")

    def pauses(self, who: str) -> None:
        """Do not count what follows as waiting: the sender has nothing to ask."""
        with self._lock:
            self._last_s.pop(who, None)

    def watched(self, server: str, ask: Ask, reason: int, envelope: Envelope) -> None:
        """Judge what one server has answered, and how far it is."""
        self._judge(server, [ask], [reason], envelope)
        sequence = envelope.position.sequence
        self._changes.reached(sequence)
        is_fresh = self._changes.age_s(sequence) <= FRESH_S
        with self._lock:
            before = self._newest.get(server, 0)
            self._newest[server] = max(before, sequence)
            self._looked(server, is_fresh=is_fresh)
        if sequence < before:
            self.fault(f"{server} went back from position {before} to {sequence}")

    def unanswered(self, server: str) -> None:
        """Note that one server does not answer."""
        with self._lock:
            self._looked(server, is_fresh=False)

    def expect(self, server: str) -> None:
        """Count a server among those that are to be fresh, from now on."""
        with self._lock:
            self._fresh_since[server] = None
            self._looked(server, is_fresh=False)

    def forget(self, server: str) -> None:
        """Expect nothing of a server any more."""
        with self._lock:
            self._fresh_since.pop(server, None)
            self.act._behind.discard(server)  # noqa: SLF001 - it is this module's

    def settled(self, seconds: float) -> bool:
        """Say whether all servers have been fresh for so long, and note since when."""
        with self._lock:
            since = list(self._fresh_since.values())
            now = time.monotonic()
            if any(each is None or now - each < seconds for each in since):
                return False
            act = self.act
            behind = [self._fresh_since[server] for server in act._behind]  # noqa: SLF001 - it is this module's
            act.fresh_after_s = max((each - act.begun_s for each in behind if each is not None), default=0.0)
            return True

    def at(self, server: str) -> int:
        """Return the newest position that a server has shown."""
        return self._newest.get(server, 0)

    def fault(self, text: str) -> None:
        """Note what must not be."""
        with self._lock:
            self.faulty += 1
            if len(self.faults) < _KEPT:
                self.faults.append(text)

    def _looked(self, server: str, *, is_fresh: bool) -> None:
        if server not in self._fresh_since:
            return  # forgotten meanwhile
        if not is_fresh:
            self._fresh_since[server] = None
            self.act._behind.add(server)  # noqa: SLF001 - it is this module's
        elif self._fresh_since.get(server) is None:
            self._fresh_since[server] = time.monotonic()

    def _judge(self, who: str, asks: Sequence[Ask], reasons: Sequence[int], envelope: Envelope) -> None:
        sequence = envelope.position.sequence
        wrong, wrong_permits = 0, 0
        for ask, reason in zip(asks, reasons, strict=True):
            right, said = self._changes.model.reason(ask, sequence), REASONS.get(reason, f"reason {reason}")
            if said != right:
                wrong += 1
                wrong_permits += said in YES and right not in YES
                self.fault(f"{who}: {said} instead of {right} at {sequence} about {_without_address(ask)}")
        if any(not ask.exempt for ask in asks):  # what is exempt is not looked up
            self._judge_envelope(who, envelope)
        with self._lock:
            self.compared[who] += len(asks)
            act = self.act
            act.answers += len(asks)
            act.wrong += wrong
            act.wrong_permits += wrong_permits

    def _judge_envelope(self, who: str, envelope: Envelope) -> None:
        position, until = envelope.position, self._changes.watermark(envelope.position.sequence)
        if position.log_id != self.log_id:
            self.fault(f"{who}: an answer of another log")
        elif until is None:
            self.fault(f"{who}: an answer from {position.sequence}, where no commit ends")
        elif envelope.as_of not in {None, until}:
            self.fault(f"{who}: an answer as of {envelope.as_of} at {position.sequence}, which is as of {until}")


def _without_address(ask: Ask) -> str:
    parts = [f"recipient {ask.number}", str(ask.brand), ask.channel, ask.kind]
    parts += [] if ask.retailer is None else [f"retailer {ask.retailer}"]
    return " ".join(parts + ["exempt"] * ask.exempt + ["unreadable"] * (not ask.readable))
