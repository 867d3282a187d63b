"""The door: who is let in, what they may ask, and how much of it. Without a callers file it stands open.

A front says what a call has presented. `Gate.admit` makes an `Admission` of it, which holds the call to its caller's
scope and rate, and says whether the caller is still the same when the callers file has changed.
"""

import hmac
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec
import structlog
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from iyscheck.callers import scopes
from iyscheck.callers.identity import Callers, Identity, bearer_of
from iyscheck.callers.quotas import Quotas
from iyscheck.callers.scopes import Caller
from iyscheck.callers.watch import CallersWatch
from iyscheck.errors import (
    CallerRevokedError,
    CallersDisagreeError,
    CallerUnknownError,
    OverloadedError,
    RateLimitedError,
    ScopeError,
)
from iyscheck.question import Context
from iyscheck.server.metrics import CallerCounts, Outcome, Stranger
from iyscheck.server.refusals import our_frames

ANONYMOUS: Final = Caller.unlimited("anonymous")
"""Whoever calls a server without a callers file."""

SUPERVISOR: Final = Caller(name="supervisor", brands=frozenset(), calls=frozenset({"info"}))
"""Who asks a new worker whether it answers."""

MOST_LABELS: Final = 200
"""From so many callers on metrics do not tell them apart."""
MANY: Final = "many"
"""What metrics call each of them then."""

FRAME_WAIT_S: Final = 0.2
"""How long a frame waits for its caller's rate, and before it is refused: smooths bursts, and keeps the order."""

LOOK_S: Final = 0.2
"""How often the callers file is looked at; a change is read at the second look that sees it."""


class Presented(msgspec.Struct, frozen=True, kw_only=True):
    """What a call shows of its caller: the authorization header, and the names of a verified client certificate.

    Where there is no certificate, `names` is None.
    """

    authorization: str | None = None
    names: tuple[str, ...] | None = None


NOTHING: Final = Presented()


def only_key(authorizations: Sequence[str]) -> str | None:
    """Give the one authorization of a call. Two are none that is known: proxies differ on which one counts."""
    return " ".join(authorizations) if authorizations else None


class Admission:
    """A caller who was let in with a call, until that call ends."""

    __slots__ = ("_callers", "_gate", "_identity", "caller", "is_open")

    def __init__(self, caller: Caller, gate: "Gate", identity: Identity | None, callers: Callers | None) -> None:
        self.caller = caller
        self._gate = gate
        self._identity = identity
        self._callers = callers
        self.is_open = callers is None and caller is ANONYMOUS
        """Whether the caller may ask everything, and any number of it: there is no callers file."""

    @property
    def label(self) -> str:
        """What metrics call the caller; empty without a callers file. Of a file with very many each is MANY."""
        callers = self._callers
        if callers is None:
            return ""
        return self.caller.name if len(callers.entries) < MOST_LABELS else MANY

    def ensure_call(self, call: str) -> None:
        """Hold a call to the caller's scope; nobody knows how many it asks about, so it counts as one.

        Raises CallNotAllowedError.
        """
        try:
            scopes.ensure_call(self.caller, call)
        except ScopeError as error:
            self._refused(Outcome.SCOPE, 1, error)
            raise

    def ensure_question(self, context: Context, *, plaintext: bool, recipients: int = 1) -> None:
        """Hold a question, frame or group to the caller's scope. Raises ScopeError."""
        caller = self.caller
        if caller is ANONYMOUS:
            return
        try:
            scopes.ensure_question(caller, context.brand, context.channel, context.message_class, plaintext=plaintext)
        except ScopeError as error:
            self._refused(Outcome.SCOPE, recipients, error)
            raise

    def take(self, recipients: int, *, exempt: bool) -> None:
        """Take recipients from the caller's rate. Raises RateLimitedError."""
        if self._callers is not None and recipients:
            try:
                self._gate.take(self.caller, recipients, exempt=exempt)
            except RateLimitedError as error:
                self._refused(Outcome.QUOTA, recipients, error)
                raise

    def wait(self, recipients: int, *, exempt: bool) -> float:
        """Do as `take`, but wait a moment for them; returns for how many seconds. Raises RateLimitedError."""
        if self._callers is None or not recipients:
            return 0.0
        try:
            return self._gate.wait(self.caller, recipients, exempt=exempt)
        except RateLimitedError as error:
            self._refused(Outcome.QUOTA, recipients, error)
            raise

    def answered(self, recipients: int) -> None:
        """Count recipients that the caller got answers for."""
        if self._callers is not None:
            self._gate.answered(self.label, recipients)

    def _refused(self, outcome: Outcome, recipients: int, error: ScopeError | RateLimitedError) -> None:
        if self._callers is not None:
            self._gate.refused(self, outcome, recipients, error.reason)

    @property
    def stands(self) -> bool:
        """Whether the caller, and what named it, is what it was when it was let in."""
        callers = self._gate.callers
        if self._identity is None or callers is self._callers or callers is None:
            return True
        if not callers.still(self._identity):
            return False
        self._callers = callers
        return True

    def ensure_stands(self) -> None:
        """Raises CallerRevokedError where the caller is no longer what it was."""
        if not self.stands:
            raise self.revoked

    @property
    def revoked(self) -> CallerRevokedError:
        """What the caller is told when it is no longer what it was."""
        return CallerRevokedError(
            f"Caller {self.caller.name} was changed or removed while this stream was open.",
            fix="Open a new stream, with a key or certificate that the callers file lists.",
        )


class Gate:
    """Admits callers by the callers file of the moment. `watch` None: everybody, to everything.

    `own` is the authorization of this server's own supervisor, which may ask for information only.
    """

    def __init__(
        self,
        watch: CallersWatch | None = None,
        quotas: Quotas | None = None,
        counts: CallerCounts | None = None,
        *,
        own: str | None = None,
    ) -> None:
        self.watch = watch
        """The callers file; None without one."""
        self._counts = counts
        self._own = own
        self._supervisor = Admission(SUPERVISOR, self, None, None)
        self._quotas = quotas
        self._open = Admission(ANONYMOUS, self, None, None)
        self._streams: Counter[str] = Counter()
        self._refusals: dict[str, Counter[str]] = {}
        self._counting = threading.Lock()
        self._expect_callers()

    @property
    def asks(self) -> bool:
        """Whether callers must show who they are."""
        return self.watch is not None

    @property
    def callers(self) -> Callers | None:
        """The callers of the moment; None without a callers file."""
        return None if self.watch is None else self.watch.callers

    @property
    def file_usable(self) -> bool:
        """Whether the callers file, if there is one, can be used as it is."""
        return self.watch is None or self.watch.error is None

    def admit(self, presented: Presented) -> Admission:
        """Let a call in. Raises CallerUnknownError, CallersDisagreeError."""
        callers = self.callers
        if callers is None:
            return self._open
        if self._own is not None and _same(presented.authorization, self._own):
            return self._supervisor
        try:
            identity = callers.identify(bearer_of(presented.authorization), presented.names)
        except CallerUnknownError as error:
            if self._counts is not None:
                self._counts.stranger(_stranger(presented, error))
            raise
        return Admission(identity.caller, self, identity, callers)

    def answered(self, label: str, recipients: int) -> None:
        """Count what a caller got answers for."""
        if self._counts is not None:
            self._counts.answered(label, recipients)

    def refused(self, admission: Admission, outcome: Outcome, recipients: int, reason: str) -> None:
        """Count what a caller was refused for being who it is."""
        if self._counts is not None:
            self._counts.refused(admission.label, outcome, recipients)
        self._note(admission.caller.name, reason)

    def _note(self, name: str, reason: str) -> None:
        """Keep a refusal of a caller for whoever asks; of callers that are gone only while they are few."""
        callers = self.callers
        with self._counting:
            self._refusals.setdefault(name, Counter())[reason] += 1
            if callers is not None and len(self._refusals) > 2 * len(callers.entries):
                self._refusals = {each: found for each, found in self._refusals.items() if each in callers.entries}

    def refusals(self, name: str) -> dict[str, int]:
        """Say how often this process has refused a caller since it started, by reason."""
        with self._counting:
            return dict(self._refusals.get(name, ()))

    def take(self, caller: Caller, recipients: int, *, exempt: bool) -> None:
        """Take recipients from a caller's rate. Raises RateLimitedError."""
        wait_s = None if self._quotas is None else self._quotas.take(caller, recipients, exempt=exempt)
        if wait_s is not None:
            raise _limited(caller, wait_s)

    def wait(self, caller: Caller, recipients: int, *, exempt: bool) -> float:
        """Take recipients from a caller's rate, waiting up to FRAME_WAIT_S for them; returns for how long.

        Raises RateLimitedError. Who is refused has waited, too: else a program that sends on whatever comes back would
        keep the server busy with refusing.
        """
        if self._quotas is None:
            return 0.0
        reservation = self._quotas.reserve(caller, recipients, exempt=exempt, within_s=FRAME_WAIT_S)
        if reservation.granted:
            began_s = time.perf_counter()
            if reservation.wait_s > 0:
                time.sleep(reservation.wait_s)
            return time.perf_counter() - began_s
        time.sleep(FRAME_WAIT_S)
        wait_s = self._quotas.take(caller, recipients, exempt=exempt)
        if wait_s is not None:
            raise _limited(caller, wait_s)
        return FRAME_WAIT_S

    @contextmanager
    def stream(self, caller: Caller) -> Iterator[None]:
        """Count a caller's stream while it is open. Raises OverloadedError where there are as many as allowed."""
        if caller.streams is None:
            yield
            return
        with self._counting:
            if self._streams[caller.name] >= caller.streams:
                raise OverloadedError(
                    f"Caller {caller.name} has as many streams open as it may ({caller.streams}).",
                    of_caller=True,
                    fix="Send frames in an open stream, or ask the operator for more `streams`.",
                )
            self._streams[caller.name] += 1
        try:
            yield
        finally:
            with self._counting:
                self._streams[caller.name] -= 1
                if not self._streams[caller.name]:
                    del self._streams[caller.name]  # names come and go with the callers file

    def keeper(
        self, log: structlog.typing.FilteringBoundLogger, changed: Callable[[threading.Event], None]
    ) -> "GateKeeper | None":
        """Make who looks at the callers file, if there is one."""

        def all_changed(over: threading.Event) -> None:
            self._expect_callers()
            changed(over)

        return None if self.watch is None else GateKeeper(self.watch, log, all_changed)

    def _expect_callers(self) -> None:
        """Have all callers of the moment shown before they ask."""
        callers = self.callers
        if callers is not None and self._counts is not None:
            names = callers.entries
            self._counts.expect(names if len(names) < MOST_LABELS else (MANY,))


def _stranger(presented: Presented, error: CallerUnknownError) -> Stranger:
    """Say what somebody presented who was not let in."""
    if isinstance(error, CallersDisagreeError):
        return Stranger.TWO_CALLERS
    if presented.authorization is not None:
        return Stranger.KEY
    return Stranger.NOTHING if presented.names is None else Stranger.CERTIFICATE


def _same(given: str | None, own: str) -> bool:
    return given is not None and hmac.compare_digest(given.encode(), own.encode())


def _limited(caller: Caller, wait_s: float) -> RateLimitedError:
    return RateLimitedError(
        f"Caller {caller.name} may ask about {caller.rate:,} recipients a second, and has.",
        wait_s=wait_s,
        fix=f"Try again in {wait_s:.3f} s.",
    )


class CallersState(Collector):
    """What a scrape shows of the callers file, which somebody else looks at."""

    def __init__(self, watch: CallersWatch) -> None:
        self._watch = watch

    def describe(self) -> Iterable[Metric]:
        """Name nothing before the first scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Tell whether the file can be used as it is, and how many callers are in force."""
        yield GaugeMetricFamily(
            "consent_callers_file_usable",
            "1 while the callers file can be used as it is; at 0 the callers of before stay in force.",
            value=float(self._watch.error is None),
        )
        yield GaugeMetricFamily("consent_callers", "Callers in force.", value=len(self._watch.callers.entries))


class GateKeeper:
    """Looks at the callers file from a thread of its own, and says what came of it.

    `changed` is called, in that thread, whenever other callers are in force; the event is set when the thread must end.
    A file that is refused changes nothing.
    """

    def __init__(
        self,
        watch: CallersWatch,
        log: structlog.typing.FilteringBoundLogger,
        changed: Callable[[threading.Event], None],
    ) -> None:
        self._watch = watch
        self._log = log
        self._changed = changed
        self._over = threading.Event()
        self.thread = threading.Thread(target=self._run, name="gate", daemon=True)

    def stop(self) -> None:
        """End the thread."""
        self._over.set()
        if self.thread.is_alive():
            self.thread.join()

    def _run(self) -> None:
        told: Exception | None = None
        while not self._over.wait(LOOK_S):
            try:
                changes = self._watch.look()
            except Exception as error:  # noqa: BLE001 - a thread that died would keep yesterday's callers for good
                self._log.error("callers_not_looked_at", error=type(error).__name__, at=our_frames(error))
                continue
            refused = self._watch.error
            if refused is not None and refused is not told:
                self._log.error("callers_file_refused", field=refused.field, line=refused.line, message=str(refused))
            told = refused
            if changes is not None:
                self._log.info(
                    "callers_changed",
                    added=sorted(changes.added),
                    changed=sorted(changes.changed),
                    gone=sorted(changes.gone),
                )
                self._changed(self._over)
