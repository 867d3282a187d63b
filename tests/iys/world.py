"""Everything that the fake knows, and the way of a request through it: limits, token, rights, faults, operation."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Literal, Protocol

from loader.iys.clock import Clock
from loader.iys.messages import SubscriptionState
from tests.iys.accounts import Account, Accounts, Tokens
from tests.iys.answers import Answer, refused
from tests.iys.days import Days
from tests.iys.faults import Fault, Plans
from tests.iys.limits import Limits
from tests.iys.movements import Movements
from tests.iys.pushes import Pushes
from tests.iys.quirks import Quirks
from tests.iys.stamps import StampAuthority

BRAND_PATH = "/sps/{iysCode}/brands/{brandCode}"

COUNTED_FAILURES = frozenset({400, 401, 403, 404, 422})
"""Statuses that count against a caller's share of successes."""


class MovableClock(Clock, Protocol):
    """A clock that tests may move."""

    def advance(self, seconds: float) -> float:
        """Let so much time pass; gives the time then."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A request as the journal has it: when (seconds UTC), what, and what it was answered. Without secrets."""

    at_s: float
    operation: str
    method: str
    path: str
    query: Mapping[str, str]
    status: int
    code: str = ""
    username: str = ""
    iys_code: int | None = None
    brand: int | None = None
    fault: str = ""
    body: bytes = b""
    """Empty for the operations whose bodies have passwords."""
    content_type: str = ""


@dataclass(slots=True, kw_only=True)
class Call:
    """A request as an operation sees it. `channels` are those of the brand that the account may read."""

    operation: "Operation"
    method: str
    path: str
    parameters: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    now_s: float
    account: Account | None = None
    channels: frozenset[str] = frozenset()

    @property
    def iys_code(self) -> int:
        """The provider or integrator in the path. Raises ValueError."""
        return int(self.parameters.get("iysCode") or self.parameters.get("integratorCode") or "x")

    @property
    def brand(self) -> int:
        """The brand in the path. Raises ValueError."""
        return int(self.parameters.get("brandCode", "x"))

    def number(self, name: str) -> int | None:
        """Give a number of the path, None where there is none."""
        try:
            return self.iys_code if name == "iysCode" else self.brand
        except ValueError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A call of İYS's API. `is_slow` ones wait for others and so never hold the lock."""

    name: str
    method: str
    path: str
    answer: "Callable[[World, Call], Answer]"
    needs: Literal["nothing", "account", "code", "brand", "integrator"] = "brand"
    while_paused: bool = False
    is_slow: bool = False


@dataclass(frozen=True, slots=True)
class Delivery:
    """An answer with the fault that befalls it on its way, and its `Date`."""

    answer: Answer
    fault: Fault | None
    date: str | None


@dataclass(slots=True, kw_only=True)
class World:
    """The state of a fake İYS. Whoever touches it holds its lock."""

    clock: Clock
    quirks: Quirks = field(default_factory=Quirks)
    accounts: Accounts = field(default_factory=Accounts)
    tokens: Tokens = field(default_factory=Tokens)
    movements: Movements = field(default_factory=Movements)
    limits: Limits = field(default_factory=Limits)
    plans: Plans = field(default_factory=Plans)
    days: Days = field(default_factory=Days)
    stamps: StampAuthority = field(default_factory=StampAuthority)
    pushes: Pushes = field(default_factory=Pushes)
    journal: list[Seen] = field(default_factory=list)
    pages: dict[tuple[int, int, str], Answer] = field(default_factory=dict)
    """The last page of each stream: what a repeated page repeats."""
    watch: "Callable[[Call, Answer], None] | None" = None
    """Told of each request and answer as they are, secrets and all."""
    lock: threading.Condition = field(default_factory=lambda: threading.Condition(threading.RLock()))
    """Told of each request that was answered."""

    def deliver(self, call: Call) -> Delivery:
        """Answer a request, and write it down."""
        with self.lock:
            call.now_s = self.clock.now()
            fault = None
            answer = self._before(call)
            if answer is None:
                source = call.query.get("source", self.quirks.default_source)
                fault = self.plans.due(call.operation.name, call.number("iysCode"), call.number("brand"), source)
                answer = self._instead(fault)
            if answer is None:
                answer = self._admitted(call)
            is_slow = answer is None and call.operation.is_slow
            if answer is None and not is_slow:
                answer = self._answered(call, fault)
        if answer is None:
            answer = self._answered(call, fault)
        with self.lock:
            self._note(call, answer, fault)
            return Delivery(answer, fault, self._date())

    def _before(self, call: Call) -> Answer | None:
        """Refuse what comes too fast, before anybody looks at what it is."""
        return None if self.limits.request(call.now_s, self.quirks) else refused(429, "H124")

    def _instead(self, fault: Fault | None) -> Answer | None:
        if fault is None:
            return None
        if fault.kind == "locked":
            self.limits.lock(self.clock.now())
        if fault.kind == "refuse":
            return Answer(0)
        return fault.instead()

    def _admitted(self, call: Call) -> Answer | None:
        """Refuse who may not ask this."""
        operation = call.operation
        if operation.needs == "nothing":
            return None
        call.account = self.tokens.holder(call.headers.get("authorization"), call.now_s)
        if call.account is None:
            return refused(401, "H351")
        if operation.needs == "account":
            return None
        for name, code in (("iysCode", "H190"), ("brand", "H191"))[: 2 if operation.needs == "brand" else 1]:
            if call.number(name) is None:
                return refused(422, code, location=(name,))
        return self._forbidden(call, call.account)

    def _forbidden(self, call: Call, account: Account) -> Answer | None:
        operation, odd = call.operation, self.quirks.odd_code_key
        if operation.needs == "integrator":
            if account.kind != "integrator":
                return refused(400, "H522" if operation.while_paused else "H363")
            if call.parameters["integratorCode"] != str(account.code):
                return refused(403, "H353", odd_code_key=odd)
        elif operation.needs == "brand":
            channels = account.channels(call.iys_code, call.brand)
            if channels is None:
                return refused(403, "H353", odd_code_key=odd)
            call.channels = channels
        elif not account.is_of(call.iys_code):
            return refused(403, "H353", odd_code_key=odd)
        if operation.while_paused:
            return None
        code = next(filter(None, map(self._suspended, {account.code, call.iys_code})), "")
        return refused(403, code, odd_code_key=odd) if code else None

    def _suspended(self, code: int) -> str:
        states = {
            SubscriptionState.ACTIVE: "",
            SubscriptionState.PAUSED: "H520",
            SubscriptionState.EXPIRED: "H520",
            SubscriptionState.CLOSED: "H521",
            SubscriptionState.ABSENT: "H524",
        }
        return states[self.accounts.state(code)] or ("H586" if code in self.accounts.without_api else "")

    def _answered(self, call: Call, fault: Fault | None) -> Answer:
        stream = (call.number("iysCode") or 0, call.number("brand") or 0, call.query.get("source", ""))
        if fault is not None and fault.kind == "repeat" and stream in self.pages:
            return self.pages[stream]
        answer = call.operation.answer(self, call)
        if fault is not None and fault.kind == "pass":
            # The answer is as old as the question: time passes while it is on its way.
            self.advance(fault.seconds)
        if call.operation.name == "changes" and answer.status == 200:
            self.pages[stream] = answer
        return answer if fault is None else fault.befall(answer)

    def advance(self, seconds: float) -> None:
        """Move the clock on, if it is one that can be moved."""
        clock = self.clock
        move = getattr(clock, "advance", None)
        if move is not None:
            move(seconds)

    def _note(self, call: Call, answer: Answer, fault: Fault | None) -> None:
        secret = call.operation.name in {"token", "register_push", "unregister_push"}
        self.journal.append(
            Seen(
                at_s=call.now_s,
                operation=call.operation.name,
                method=call.method,
                path=call.path,
                query=call.query,
                status=answer.status,
                code=answer.code,
                username=call.account.username if call.account else "",
                iys_code=call.number("iysCode"),
                brand=call.number("brand"),
                fault=fault.kind if fault else "",
                body=b"" if secret else call.body,
                content_type=call.headers.get("content-type", ""),
            )
        )
        if self.watch is not None:
            self.watch(call, answer)
        self.lock.notify_all()

    def _date(self) -> str | None:
        if not self.quirks.date_header:
            return None
        return formatdate(self.clock.now() + self.quirks.date_ahead_s, usegmt=True)

    def success_ratio(self, span_s: float = 86_400.0) -> tuple[int, float]:
        """Count the requests of the last day, and give the share of those that İYS does not count as failures."""
        since_s = self.clock.now() - span_s
        statuses = [seen.status for seen in self.journal if seen.at_s > since_s]
        failed = sum(status in COUNTED_FAILURES for status in statuses)
        return len(statuses), 1.0 - failed / len(statuses) if statuses else 1.0

    def change_quirks(self, changes: Mapping[str, object]) -> None:
        """Behave otherwise from now on."""
        self.quirks = replace(self.quirks, **changes)  # type: ignore[arg-type]  # names and values come from a test
