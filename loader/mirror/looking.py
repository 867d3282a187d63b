"""Accounts under way: what each has at İYS is looked at, the register follows, and with it which streams run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final

from iyscheck.change import Brand, ConsentColumns
from iyscheck.store.layout import SourceState
from iyscheck.store.snapshot import Store
from iyscheck.store.writer import Batch, Writer
from loader.iys.clock import Clock
from loader.iys.faults import AuthFailedFault, ForbiddenFault, IysFault, LockedFault
from loader.iys.messages import ListedBrand
from loader.mirror.accounts import Listing, Verdict, Waiting, judge
from loader.mirror.config import AccountConfig, AccountKind
from loader.mirror.discovery import HOUR_S, Discovery, remember
from loader.mirror.pulling import Pulling
from loader.mirror.tasks import Task, name_of
from loader.reading import times
from loader.sources.pull.steps import Stream

AGAIN_S: Final = 60.0
"""After so long an account is looked at again that could not be."""
CONFIRM_S: Final = 10.0
"""After so long İYS is asked once more what it does not list any more."""
SOONER_S: Final = 300.0
"""At most so often an account is looked at because İYS refused something of it."""
FEWER_SHARE: Final = 1.02
FEWER_LEAST: Final = 1_000
"""A store that has so many consents less than İYS counts was not seeded with all of them: pull is an hour behind."""


class AccountState(StrEnum):
    """How an account is."""

    UNKNOWN = "unknown"
    ACTIVE = "active"
    PAUSED = "paused"
    EXPIRED = "expired"
    CLOSED = "closed"
    ABSENT = "absent"
    AUTH_FAILED = "auth_failed"
    LOCKED = "locked"
    FAILING = "failing"


@dataclass(slots=True, kw_only=True)
class _Account:
    """One account; times are seconds UTC."""

    config: AccountConfig
    discovery: Discovery
    owned: frozenset[int]
    state: AccountState = AccountState.UNKNOWN
    next_s: float = 0.0
    looked_s: float = 0.0
    is_out: bool = False
    lost: frozenset[int] = frozenset()
    short: set[int] = field(default_factory=set)
    verdict: Verdict | None = None

    @property
    def is_integrator(self) -> bool:
        """Whether others say which channels it may read."""
        return self.config.kind is AccountKind.INTEGRATOR

    @property
    def listing(self) -> Listing | None:
        """What it had when it was looked at last, at any time."""
        return self.discovery.known

    @property
    def claims(self) -> frozenset[int]:
        """The brands that are its business: those listed, or where nobody could look yet, all it ever had."""
        listing = self.listing
        return self.owned if listing is None or listing.brands is None else frozenset(listing.shown)

    @property
    def mirrored(self) -> frozenset[int]:
        """Those of them that it is to mirror."""
        wanted = self.config.brands
        return self.claims if wanted is None else self.claims & wanted


class Looking:
    """All accounts, in the order of the configuration: of a brand that two list the earlier one takes care."""

    def __init__(
        self,
        accounts: Mapping[str, tuple[AccountConfig, Discovery]],
        *,
        writer: Writer,
        pulling: Pulling,
        clock: Clock,
        folder: Path,
        interval_s: float,
    ) -> None:
        """`interval_s`: how often a brand is asked for."""
        import structlog

        self._log = structlog.get_logger("mirror")
        self._writer = writer
        self._pulling = pulling
        self._clock = clock
        self._folder = folder
        self._interval_s = min(interval_s, HOUR_S)
        self._accounts = {
            name: _Account(config=config, discovery=discovery, owned=frozenset(self._source(name).brands))
            for name, (config, discovery) in accounts.items()
        }
        self._account_of: dict[Stream, str] = {}
        self._brands: tuple[tuple[str, ListedBrand], ...] = ()
        for account in self._accounts.values():  # as it was when it was looked at last: nothing is written by that
            if account.listing is not None:
                account.verdict = self._judged(account, account.listing)
        self._run_streams()

    @property
    def next_s(self) -> float | None:
        """When the next account is to be looked at."""
        return min((each.next_s for each in self._accounts.values() if not each.is_out), default=None)

    @property
    def is_settled(self) -> bool:
        """Whether every account was looked at, and nothing has to be asked twice."""
        return all(each.looked_s and not each.is_out and not each.lost for each in self._accounts.values())

    def look_again(self) -> None:
        """Have all accounts looked at now."""
        for account in self._accounts.values():
            account.next_s, account.looked_s = self._clock.now(), 0.0

    def next(self) -> Task | None:
        """Look at the next account that is due."""
        now = self._clock.now()
        for account in self._accounts.values():
            if not account.is_out and account.next_s <= now:
                account.is_out = True
                return Task(ask=account.discovery.look, take=partial(self._took, account))
        return None

    def account_of(self, stream: Stream) -> str | None:
        """Say which account asks for a stream; None where it does not run any more."""
        return self._account_of.get(stream)

    def states(self) -> Iterator[tuple[str, AccountState]]:
        """Give the accounts and how they are."""
        for name, account in self._accounts.items():
            yield name, account.state

    def waiting(self) -> tuple[Waiting, ...]:
        """Return what waits to be admitted."""
        return tuple(each for account in self._accounts.values() if account.verdict for each in account.verdict.waiting)

    def brands(self) -> Iterator[tuple[str, ListedBrand]]:
        """Give the brands whose streams run, each with its account."""
        yield from self._brands

    def noted(self, name: str, fault: IysFault | None) -> None:
        """Take note of what a request of an account ended in."""
        account = self._accounts[name]
        now = self._clock.now()
        if isinstance(fault, AuthFailedFault):
            self._set(account, AccountState.AUTH_FAILED)
        elif isinstance(fault, LockedFault):
            self._set(account, AccountState.LOCKED, until_s=fault.until_s)
        elif isinstance(fault, ForbiddenFault):
            # Only a complete listing, or the subscription, says what that means.
            account.discovery.hasten()
            account.next_s = min(account.next_s, max(now, account.looked_s + SOONER_S))
        elif fault is None and account.state in {AccountState.AUTH_FAILED, AccountState.LOCKED}:
            account.next_s = min(account.next_s, now)

    def _took(self, account: _Account, answer: object) -> None:
        """Take what İYS lists, or why it does not tell."""
        now = self._clock.now()
        account.is_out = False
        account.looked_s = now
        if isinstance(answer, Listing):
            account.next_s = now + (self._interval_s if account.is_integrator else HOUR_S)
            self._follow(account, answer)
            return
        account.next_s = now + AGAIN_S
        if isinstance(answer, AuthFailedFault):
            self._set(account, AccountState.AUTH_FAILED)
        elif isinstance(answer, LockedFault):
            self._set(account, AccountState.LOCKED, until_s=answer.until_s)
        elif isinstance(answer, IysFault):
            if isinstance(answer, ForbiddenFault):
                account.next_s = now + HOUR_S
            self._set(account, AccountState.FAILING, fault=name_of(answer), code=answer.code, status=answer.status)
        else:
            self._set(account, AccountState.FAILING, fault=type(answer).__name__)

    def _follow(self, account: _Account, listing: Listing) -> None:
        """Let the register follow a listing. What is lost has to be missing twice, a moment apart."""
        verdict = self._judged(account, listing)
        if not verdict.lost <= account.lost:
            account.lost = verdict.lost
            account.discovery.hasten()
            account.next_s = self._clock.now() + CONFIRM_S
            return
        account.lost = frozenset()
        before = account.verdict
        account.verdict = verdict
        if verdict.rows or not verdict.brands <= account.owned:
            account.owned = verdict.brands
            self._write(account, verdict)
        self._set(account, AccountState(listing.own.state.value.lower()))
        for waiting in verdict.waiting:
            if before is None or waiting not in before.waiting:
                names = sorted(channel.name for channel in waiting.channels)
                self._log.warning("brand_waits_for_admit", brand=waiting.brand, whole=waiting.whole, channels=names)
        self._compare_counts(account, listing)
        self._run_streams()
        if listing.brands is not None:  # the register has no channel now that this listing has not
            mine = [stream for stream, name in self._account_of.items() if name == account.config.name]
            self._pulling.confirm(mine, listing.asked_s)
        try:
            remember(self._folder, listing)
        except OSError as error:
            self._log.error("listing_not_remembered", account=account.config.name, why=error.strerror)

    def _judged(self, account: _Account, listing: Listing) -> Verdict:
        others = [each for each in self._accounts.values() if each is not account]
        earlier = list(self._accounts.values())[: list(self._accounts).index(account.config.name)]
        with Store(self._writer.environment).snapshot() as snapshot:
            stored = {brand.brand: brand for brand in snapshot.brands()}
        return judge(
            listing,
            stored=stored,
            owned=account.owned,
            taken={code for each in earlier for code in each.mirrored},
            elsewhere={code for each in others for code in each.claims},
            wanted=account.config.brands,
            local_now_s=times.local_now(listing.asked_s),
        )

    def _compare_counts(self, account: _Account, listing: Listing) -> None:
        """Tell of seeded brands of which İYS has clearly more consents than the store: their list was not all."""
        with Store(self._writer.environment).snapshot() as snapshot:
            for code, shown in listing.shown.items():
                if shown.consents is None or snapshot.brand(code).watermark is None:
                    continue
                stored = snapshot.records_of(code)
                is_short = shown.consents > stored * FEWER_SHARE + FEWER_LEAST
                if is_short and code not in account.short:
                    self._log.error("list_incomplete", brand=code, at_iys=shown.consents, stored=stored)
                (account.short.add if is_short else account.short.discard)(code)

    def _write(self, account: _Account, verdict: Verdict) -> None:
        """Write the register, and which brands the account ever had."""
        source = self._source(account.config.name, brands=tuple(sorted(verdict.brands)))
        nothing = ConsentColumns.of(())
        rows = len(verdict.rows)
        self._writer.apply(Batch(consents=nothing, access=(), brands=verdict.rows, rows=rows), source, finished=True)
        for row in verdict.rows:
            self._tell(row, is_lost=row.brand in verdict.lost)

    def _tell(self, row: Brand, *, is_lost: bool) -> None:
        names = sorted(channel.name for channel in row.channels)
        tell = self._log.error if is_lost else self._log.info
        tell("brand_registered", brand=row.brand, iys_code=row.iys_code, active=row.active, channels=names)

    def _source(self, name: str, brands: tuple[int, ...] | None = None) -> SourceState:
        source = f"iys:{name}:brands"
        state = self._writer.source(source) or SourceState(name=source)
        return state if brands is None else SourceState(name=source, brands=brands, rows=state.rows)

    def _run_streams(self) -> None:
        """Run the streams that the verdicts name, each for the first account that does."""
        wanted: dict[Stream, str] = {}
        for name, account in self._accounts.items():
            for stream in sorted(account.verdict.streams, key=_order) if account.verdict is not None else ():
                wanted.setdefault(stream, name)
        for stream in self._account_of.keys() - wanted.keys():
            self._pulling.remove(stream)
        self._account_of = wanted
        owners = {stream.brand: name for stream, name in wanted.items()}
        listings = {name: account.listing for name, account in self._accounts.items()}
        shown = {name: {} if listing is None else listing.shown for name, listing in listings.items()}
        self._brands = tuple((name, shown[name][code]) for code, name in owners.items() if code in shown[name])
        for stream, name in wanted.items():
            # What an integrator may not read any more is left out of pages without a word.
            self._pulling.add(stream, is_unsure=self._accounts[name].is_integrator)

    def _set(self, account: _Account, state: AccountState, **why: object) -> None:
        """Tell of an account that is not as it was."""
        if account.state is state:
            return
        account.state = state
        tell = self._log.info if state is AccountState.ACTIVE else self._log.error
        tell("account_state", account=account.config.name, state=state.value, **why)


def _order(stream: Stream) -> tuple[int, str]:
    return stream.brand, stream.source.value
