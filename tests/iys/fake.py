"""A faithful fake of İYS: what tests and demonstrations do with it."""

import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path

import trustme

from iyscheck.consent import Channel, RecipientType
from loader.iys.clock import Clock
from loader.iys.messages import FeedSource, SubscriptionState
from tests.iys import control
from tests.iys.accounts import Account, Managed
from tests.iys.clock import VirtualClock
from tests.iys.days import file_of, rows_of
from tests.iys.faults import Fault, Planned
from tests.iys.limits import BrokenLimit
from tests.iys.movements import Movement, turkish
from tests.iys.operations import changes, days, listings, pushes, questions, tokens
from tests.iys.pushes import Sent, bodies, client_of, send
from tests.iys.quirks import Quirks
from tests.iys.server import Site, serving
from tests.iys.world import Seen, World

OPERATIONS = (
    *tokens.OPERATIONS,
    *changes.OPERATIONS,
    *listings.OPERATIONS,
    *days.OPERATIONS,
    *pushes.OPERATIONS,
    *questions.OPERATIONS,
)
"""All that the fake can be asked."""


class FakeIys:
    """A fake İYS. Its methods may be called from any thread, before and while it serves.

    A fake that serves is expensive to start and cheap to reset: one a test module, `reset` before each example.
    """

    def __init__(self, *, clock: Clock | None = None, quirks: Quirks | None = None) -> None:
        self.clock: Clock = VirtualClock() if clock is None else clock
        self.world = World(clock=self.clock, quirks=quirks or Quirks())
        self.url = ""
        self.authority = trustme.CA()
        self._held = threading.Event()

    @contextmanager
    def running(self, *, tls: bool = False, port: int = 0) -> Iterator[str]:
        """Serve on 127.0.0.1 until the end of the block; gives `url`. By TLS under `authority`."""
        site = Site(
            world=lambda: self.world,
            operations=OPERATIONS,
            control=lambda name, body: control.answer(self, name, body),
            held=lambda: self._held,
        )
        with serving(site.app(), self.authority if tls else None, port) as self.url:
            try:
                yield self.url
            finally:
                self._held.set()

    def reset(self, quirks: Quirks | None = None) -> None:
        """Forget everything: accounts, movements, tokens, limits, plans, journal. The clock goes on."""
        self._held.set()
        self._held = threading.Event()
        old = self.world
        self.world = World(clock=self.clock, quirks=quirks or Quirks(), stamps=old.stamps)
        self.world.pushes.trust = old.pushes.trust

    @property
    def now(self) -> float:
        """The time, seconds UTC."""
        return self.clock.now()

    def advance(self, seconds: float) -> float:
        """Let so much time pass, by a clock that can be moved; gives the time then."""
        self.world.advance(seconds)
        return self.clock.now()

    # --- who is there

    def provider(self, iys_code: int, username: str, password: str, brands: Iterable[int] = ()) -> Account:
        """Open the account of a provider."""
        account = Account(kind="provider", code=iys_code, username=username, password=password, brands=list(brands))
        with self.world.lock:
            return self.world.accounts.add(account)

    def integrator(self, code: int, username: str, password: str, manages: Iterable[int | Managed] = ()) -> Account:
        """Open the account of an integrator. A brand given by number alone is a provider's, and wholly readable."""
        with self.world.lock:
            managed = [m if isinstance(m, Managed) else Managed(brand=m, iys_code=self._owner(m)) for m in manages]
            return self.world.accounts.add(
                Account(kind="integrator", code=code, username=username, password=password, manages=managed)
            )

    def _owner(self, brand: int) -> int:
        return next(a.code for a in self.world.accounts.by_name.values() if brand in a.brands)

    def add_brand(self, username: str, brand: int) -> None:
        """Give a provider one more brand."""
        with self.world.lock:
            self.world.accounts.by_name[username].brands.append(brand)

    def remove_brand(self, username: str, brand: int) -> None:
        """Take a brand away from a provider, or from an integrator."""
        with self.world.lock:
            account = self.world.accounts.by_name[username]
            account.brands = [other for other in account.brands if other != brand]
            account.manages = [managed for managed in account.manages if managed.brand != brand]

    def rights(self, username: str, brand: int, rights: dict[str, str]) -> None:
        """Set what an integrator may do with the channels of a brand."""
        with self.world.lock:
            for managed in self.world.accounts.by_name[username].manages:
                if managed.brand == brand:
                    managed.rights = dict(rights)

    def subscription(self, code: int, state: SubscriptionState | str) -> None:
        """Set how the subscription of a provider or integrator stands."""
        with self.world.lock:
            self.world.accounts.subscriptions[code] = SubscriptionState(state)

    def set_password(self, username: str, password: str) -> None:
        """Change a password at İYS. Tokens go on."""
        with self.world.lock:
            self.world.accounts.by_name[username].password = password

    def tell_consents(self, brand: int, count: int) -> None:
        """Let the listing say that a brand has so many consents."""
        with self.world.lock:
            self.world.accounts.told_consents[brand] = count

    def expire_tokens(self, *, refresh_too: bool = False) -> None:
        """Let no token that was given be good any more."""
        with self.world.lock:
            self.world.tokens.access.clear()
            if refresh_too:
                self.world.tokens.refresh.clear()

    def lock_tokens(self) -> None:
        """Give nobody a token for an hour, as if too many had been asked for."""
        with self.world.lock:
            self.world.limits.lock(self.clock.now())

    # --- what happens

    def move(  # noqa: PLR0913 - a movement has that many facts
        self,
        brand: int,
        source: FeedSource | str = FeedSource.HS,
        *,
        recipient: str = "+905321000001",
        channel: Channel | str = "MESAJ",
        recipient_type: RecipientType | str = "BIREYSEL",
        status: str | None = "ONAY",
        created_s: float | None = None,
        consented_s: float | None = None,
        consent_date: str | None = None,
        visible_after_s: float | None = None,
        transaction_id: str | None = None,
        citizen_name: str | None = None,
        code: str | None = None,
        overrides: dict[str, object] | None = None,
    ) -> Movement:
        """Let a consent move, now unless said otherwise. Times are seconds UTC.

        `code` is its source as İYS spells it, HS_WEB or IYS_MOBIL if not given. `consent_date` is written as it is.
        `overrides` are fields of the row that say something else; None leaves a field out.
        """
        with self.world.lock:
            now_s = self.clock.now()
            registered_s = now_s if created_s is None else created_s
            feed = FeedSource(source)
            if consent_date is None:
                consent_date = turkish(registered_s - 1 if consented_s is None else consented_s)
            row: dict[str, object] = {
                "consentDate": consent_date,
                "source": code or ("HS_WEB" if feed is FeedSource.HS else "IYS_MOBIL"),
                "recipient": recipient,
                "recipientType": _word(recipient_type),
                "status": status,
                "type": _word(channel),
                "citizenName": citizen_name,
            }
            hidden_s = self.world.quirks.hidden_s if visible_after_s is None else visible_after_s
            return self.world.movements.add(
                brand=brand,
                source=feed,
                registered_s=registered_s,
                visible_s=registered_s + hidden_s,
                transaction_id=transaction_id,
                row=row | (overrides or {}),
            )

    def visible_rows(self, brand: int, source: FeedSource | str, at: float | None = None) -> tuple[Movement, ...]:
        """Give the movements that pull could see at that time (seconds UTC, now if not given) or before: the oracle."""
        with self.world.lock:
            return self.world.movements.visible(brand, FeedSource(source), self.clock.now() if at is None else at)

    @property
    def movements(self) -> tuple[Movement, ...]:
        """All that ever moved, as it came to İYS."""
        with self.world.lock:
            return tuple(self.world.movements.arrived)

    def tell_day(self, brand: int, day: date, **told: object) -> None:
        """Tell a day of a brand against the facts: names and values of `days.Told`."""
        with self.world.lock:
            self.world.days.told[brand, day] = replace(self.world.days.of(brand, day), **told)  # type: ignore[arg-type]

    def file(self, brand: int, day: date) -> bytes:
        """Give the file of a day as it is or will be, with all channels."""
        with self.world.lock:
            rows = rows_of(self.world.movements.of_brand(brand), day, self.world.quirks)
            return file_of(rows, self.world.quirks)

    @property
    def agreed(self) -> frozenset[tuple[int, date]]:
        """The brands and days that somebody agreed to."""
        with self.world.lock:
            return frozenset(self.world.days.agreed)

    @property
    def stamp_root(self) -> bytes:
        """The certificate that all time stamps lead to, as PEM."""
        return self.world.stamps.root_pem

    def give_retailers(self, brand: int, recipient: str, retailers: Iterable[int]) -> None:
        """Let retailers use a consent: of an individual, on the channel that the address is for (a phone: MESAJ)."""
        channel = "EPOSTA" if "@" in recipient else "MESAJ"
        with self.world.lock:
            self.world.accounts.retailers[brand, channel, "BIREYSEL", recipient] = list(retailers)

    # --- push

    def trust(self, authority: Path | str | None) -> None:
        """Check the certificates of push addresses by an authority in a file of PEM; by nothing if None."""
        self.world.pushes.trust = False if authority is None else ssl.create_default_context(cafile=authority)

    def push_all(self, *, again: bool = False) -> list[Sent]:
        """Send what citizens moved since the last time to each address that is good; `again`: all that ever moved.

        What an address does not take is lost, as far as İYS's documentation goes.
        """
        with self.world.lock:
            movements = list(self.world.movements.arrived)
            addresses = [registered for registered in self.world.pushes.registered if registered.is_good]
        sent = []
        with client_of(self.world.pushes, self.world.quirks) as http:
            for address in addresses:
                begin = 0 if again else address.pushed_until
                address.pushed_until = len(movements)
                sent += [send(http, address, rows) for rows in bodies(address, movements[begin:])]
        with self.world.lock:
            self.world.pushes.sent += sent
        return sent

    def break_push(self, brand: int, *, gone: bool = False) -> None:
        """Let İYS say that it cannot reach the addresses of a brand any more, or forget them."""
        with self.world.lock:
            for registered in self.world.pushes.registered:
                registered.is_good &= registered.brand != brand
            if gone:
                self.world.pushes.registered = [r for r in self.world.pushes.registered if r.brand != brand]

    # --- what goes wrong

    def plan(
        self,
        operation: str,
        fault: Fault,
        *,
        nth: int = 1,
        count: int | None = 1,
        iys_code: int | None = None,
        brand: int | None = None,
        source: FeedSource | str | None = None,
    ) -> None:
        """Plan a fault: for `count` requests (None: all) from the `nth` on that comes from now on and fits.

        `operation` is a name as in the journal, `*` any.
        """
        planned = Planned(
            operation=operation,
            fault=fault,
            nth=nth,
            count=count,
            iys_code=iys_code,
            brand=brand,
            source=None if source is None else str(source),
        )
        with self.world.lock:
            self.world.plans.planned.append(planned)

    def clear_plans(self) -> None:
        """Let nothing more go wrong."""
        with self.world.lock:
            self.world.plans.planned.clear()

    def let_go(self) -> None:
        """Answer the requests that a fault holds, and hold none any more."""
        self._held.set()

    def set_quirks(self, **changes: object) -> None:
        """Behave otherwise from now on: names and values of `Quirks`."""
        with self.world.lock:
            self.world.change_quirks(changes)

    # --- what was asked

    @property
    def requests(self) -> tuple[Seen, ...]:
        """The journal: every request so far."""
        with self.world.lock:
            return tuple(self.world.journal)

    def forget_requests(self) -> None:
        """Begin the journal anew. Limits are still counted."""
        with self.world.lock:
            self.world.journal.clear()

    def asked(self, operation: str, **facts: object) -> list[Seen]:
        """Give the requests of an operation, and of those the ones of which these facts are true."""
        return [
            seen
            for seen in self.requests
            if seen.operation == operation and all(getattr(seen, name) == value for name, value in facts.items())
        ]

    @property
    def broken_limits(self) -> tuple[BrokenLimit, ...]:
        """What was asked too fast, by the fake's own counting."""
        with self.world.lock:
            return tuple(self.world.limits.broken)

    @property
    def tokens_locked_until_s(self) -> float:
        """Until when no token is given, seconds UTC; in the past where one is."""
        return self.world.limits.tokens_locked_until_s

    @property
    def success(self) -> tuple[int, float]:
        """How many requests the last 24 hours had, and the share that İYS does not hold against the caller."""
        with self.world.lock:
            return self.world.success_ratio()

    def until(self, true: Callable[[], bool], timeout_s: float = 30.0) -> bool:
        """Block until something is true, looking after each request; say whether it is."""
        with self.world.lock:
            return self.world.lock.wait_for(true, timeout_s)


def _word(code: Channel | RecipientType | str) -> str:
    return code if isinstance(code, str) else code.name
