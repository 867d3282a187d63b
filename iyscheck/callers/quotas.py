"""How much a caller may ask: token buckets in recipients a second that hold one second, shared by worker processes.

What is shared of a bucket is one number: up to when the caller's time is sold. A recipient takes 1/rate of a second of
that time. Time is sold from now on, or from where the last sale ended, and at most one second ahead of now. So in t
seconds no more than t + 1 seconds are sold, which is a bucket's own law. (This is the generic cell rate algorithm.)

A worker buys a little more than it needs, and serves single checks from that *lease* without asking anybody. It uses
the time of a lease only while that lies ahead, as the law demands: what passes unused has lapsed. Busy workers buy up
to 10 ms of a caller's time at once, rare ones what they need. So a worker that falls idle or is killed takes at most
10 ms with it. Where a caller is at its limit nothing is left to buy ahead, so then it takes nothing.

Because time is sold and not recipients, a rate may change, and workers may know different ones for a while.

More recipients at once than the rate can only pass where the bucket is full, and are paid for afterwards. A number that
is further ahead than any frame can bring it was not written by us, or by another rate: it counts as an empty bucket.
"""

import os
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from iyscheck.callers.scopes import Caller
from iyscheck.callers.table import Table
from iyscheck.question import MAX_FRAME_RECIPIENTS

BURST_NS: Final = 10**9
LEASE_NS: Final = 10**7
"""The most of a caller's time that a worker holds: one percent of a second."""

_BUSY_NS: Final = 10**7
_RARE_NS: Final = 10**8
MOST_WAIT_NS: Final = BURST_NS
"""How far ahead `reserve` may take."""


class Reservation(NamedTuple):
    """`granted`: the recipients are taken, and may be answered in `wait_s` seconds. Else nothing is, until then."""

    granted: bool
    wait_s: float


class _Lease:
    """What this process holds of one number of the table; its lock keeps the threads of the process apart.

    It begins at the moment `start`. From there on it is used up to `used`, and ours up to `length`; all in seconds.
    """

    __slots__ = ("bought_ns", "length", "lock", "number", "start", "used", "want_ns")

    def __init__(self, number: int) -> None:
        self.number = number
        self.lock = threading.Lock()
        self.start = 0.0
        self.used = 0.0
        self.length = 0.0
        self.bought_ns = 0
        self.want_ns = 0


class Quotas:
    """The rates of all callers, in one worker process. Safe to share between threads; to be opened in each process."""

    def __init__(self, table: Table, clock: Callable[[], float] = time.monotonic) -> None:
        self._table = table
        self._clock = clock
        self._opening = threading.Lock()
        self._commercial: dict[str, _Lease] = {}
        self._exempt: dict[str, _Lease] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Quotas":
        """Open the table that all workers share, made if it is not there. Raises QuotaTableError."""
        return cls(Table.open(path))

    def close(self) -> None:
        """Close the table. Nobody may ask any more."""
        self._table.close()

    def take(self, caller: Caller, recipients: int, *, exempt: bool = False) -> float | None:
        """Take so many recipients from a caller's bucket: None where they were there.

        Else nothing is taken, and the result is after how many seconds they will be there, if nobody comes before.
        """
        recipient_s = caller.recipient_s
        if recipient_s is None:
            return None
        try:
            lease = self._exempt[caller.name] if exempt else self._commercial[caller.name]
        except KeyError:
            lease = self._lease(caller.name, exempt=exempt)
        cost = recipients * recipient_s
        lock = lease.lock
        lock.acquire()  # a `with` block takes 80 ns more, and `max` below 60, of 250
        try:
            used = self._clock() - lease.start
            if used < lease.used:  # noqa: PLR1730 - see above
                used = lease.used
            used += cost
            if used <= lease.length:
                lease.used = used
                return None
            wait_ns = self._buy(lease, cost, recipient_s, 0)
        finally:
            lock.release()
        return None if wait_ns <= 0 else wait_ns / 1e9

    def reserve(self, caller: Caller, recipients: int, *, exempt: bool = False, within_s: float) -> Reservation:
        """Take so many recipients that will be there within some seconds; who gets them waits before answering.

        `within_s` is one second at most. Those who come later wait behind them: a large frame is not overtaken for ever
        by single checks.
        """
        recipient_s = caller.recipient_s
        if recipient_s is None:
            return Reservation(granted=True, wait_s=0.0)
        leases = self._exempt if exempt else self._commercial
        lease = leases.get(caller.name) or self._lease(caller.name, exempt=exempt)
        within_ns = min(int(within_s * 1e9), MOST_WAIT_NS)
        with lease.lock:
            wait_ns = self._buy(lease, recipients * recipient_s, recipient_s, within_ns)
        return Reservation(granted=wait_ns <= within_ns, wait_s=max(0, wait_ns) / 1e9)

    def _lease(self, name: str, *, exempt: bool) -> _Lease:
        leases = self._exempt if exempt else self._commercial
        with self._opening:
            if name not in leases:
                leases[name] = _Lease(self._table.number(name, exempt=exempt))
            return leases[name]

    def _buy(self, lease: _Lease, cost: float, recipient_s: float, within_ns: int) -> int:
        """Use what is left of a lease, and buy the rest and a new lease. Say how long to wait, in nanoseconds.

        Where that is more than `within_ns`, nothing was bought.
        """
        clock = self._clock()
        now = round(clock * 1e9)
        used = max(lease.used, clock - lease.start)
        need = round((cost - max(0.0, lease.length - used)) * 1e9)  # up would be less than the rate, down more
        if need <= 0:
            lease.used = used + cost
            return 0
        latest = now + max(BURST_NS, round(cost * 1e9))  # where what is sold now must end
        furthest = now + max(BURST_NS, int(MAX_FRAME_RECIPIENTS * recipient_s * 1e9)) + MOST_WAIT_NS
        sold = self._table.sold(lease.number)
        wait = max(sold, now) + need - latest
        if wait > within_ns and sold <= furthest:
            return wait  # seen without the lock: at its limit a caller costs the others nothing
        with self._table.locked(lease.number):
            sold = self._table.sold(lease.number)
            if sold > furthest:
                sold = now + BURST_NS
                self._table.sell(lease.number, sold)
            start = max(sold, now)
            wait = start + need - latest
            if wait > within_ns:
                return wait
            length = need + _more(lease, now, need, -wait)
            self._table.sell(lease.number, start + length)
        lease.start, lease.used, lease.length = start / 1e9, need / 1e9, length / 1e9
        return wait


def _more(lease: _Lease, now: int, need: int, room: int) -> int:
    """Say how much to buy beyond what is needed: twice as much each time for the busy, nothing for the rare."""
    since, lease.bought_ns = now - lease.bought_ns, now
    if since <= _BUSY_NS:
        lease.want_ns = min(2 * max(lease.want_ns, need), LEASE_NS)
    elif since > _RARE_NS:
        lease.want_ns = 0
    return max(0, min(lease.want_ns, room))
