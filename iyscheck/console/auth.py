"""Who is let in: a key of the callers file opens a session, and what a session may do ends with the caller's right.

Sessions are kept in this process alone. What is tried too often waits: log-ins by where they come from, questions
about addresses by caller, since whoever may ask without end can try every number.
"""

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from iyscheck.callers.identity import Identity
from iyscheck.callers.scopes import Caller
from iyscheck.callers.watch import CallersWatch
from iyscheck.errors import CallNotAllowedError, RateLimitedError

LOOK: Final = "console"
EXPLAIN: Final = "explain"
SESSION_S: Final = 8 * 3600.0
"""A working day: after it the key is asked for again, whatever was done."""

_MOST_SESSIONS: Final = 1_000
_MOST_OF_ONE: Final = 20
_MOST_KNOWN: Final = 10_000
_ID_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Session:
    """One log-in. `number` is random and known to one browser only; it is in no text of this."""

    number: str = field(repr=False)
    identity: Identity
    ends: float

    @property
    def caller(self) -> Caller:
        """Who has logged in."""
        return self.identity.caller

    @property
    def may_look(self) -> bool:
        """Whether the screens about servers and data are shown."""
        return LOOK in self.caller.calls

    @property
    def may_explain(self) -> bool:
        """Whether addresses may be asked about."""
        return EXPLAIN in self.caller.calls


class Sessions:
    """All log-ins that hold. A session ends with its time, its log-out, or when the callers file says otherwise."""

    def __init__(self, callers: CallersWatch, clock: Callable[[], float]) -> None:
        self._callers = callers
        self._clock = clock
        self._open: OrderedDict[str, Session] = OrderedDict()

    def open(self, key: str) -> Session:
        """Let in who has this key. Raises CallerUnknownError, CallNotAllowedError."""
        identity = self._callers.callers.identify(key)
        caller = identity.caller
        if not {LOOK, EXPLAIN} & caller.calls:
            raise CallNotAllowedError(
                f"Caller {caller.name} may not use the console.",
                fix="Ask the operator to list `console` or `explain` under `calls` in the callers file.",
            )
        session = Session(secrets.token_urlsafe(_ID_BYTES), identity, self._clock() + SESSION_S)
        same = [known for known, each in self._open.items() if each.caller.name == caller.name]
        if len(same) >= _MOST_OF_ONE:
            del self._open[same[0]]
        if len(self._open) >= _MOST_SESSIONS:
            self._open.popitem(last=False)
        self._open[session.number] = session
        return session

    def find(self, number: str | None) -> Session | None:
        """Find the session of a cookie, if it still holds."""
        session = self._open.get(number or "")
        if session is None:
            return None
        if self._clock() >= session.ends or not self._callers.callers.still(session.identity):
            del self._open[session.number]
            return None
        return session

    def close(self, session: Session) -> None:
        """End a session."""
        self._open.pop(session.number, None)


class Allowance:
    """So many at once, and one more each `every_s` seconds, for each name. Names are forgotten when there are many."""

    def __init__(self, at_once: int, every_s: float, clock: Callable[[], float]) -> None:
        self._ahead_s = (at_once - 1) * every_s
        self._every_s = every_s
        self._clock = clock
        self._used_up_to: OrderedDict[str, float] = OrderedDict()

    def take(self, name: str) -> None:
        """Take one. Raises RateLimitedError, with the wait, where there is none."""
        self.ensure(name)
        now = self._clock()
        self._used_up_to[name] = max(self._used_up_to.pop(name, now), now) + self._every_s
        if len(self._used_up_to) > _MOST_KNOWN:
            self._used_up_to.popitem(last=False)

    def ensure(self, name: str) -> None:
        """Say whether there is one, without taking it. Raises RateLimitedError."""
        now = self._clock()
        wait_s = max(self._used_up_to.get(name, now), now) - now - self._ahead_s
        if wait_s > 0:
            raise RateLimitedError("That was asked too often.", wait_s=wait_s, fix="Wait, then try again.")
