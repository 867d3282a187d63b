"""What `status` tells of İYS: from the files beside the store, whether a mirror runs or not."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import msgspec

from iyscheck.store.snapshot import Snapshot
from iyscheck.times import rfc3339
from loader.iys.clock import Clock
from loader.iys.guard import Guard
from loader.iys.limits import NAME, Limits
from loader.mirror.accounts import ENDED, Listing, waiting_of
from loader.mirror.discovery import all_remembered
from loader.mirror.pushing import seen
from loader.reports.days import DayReports, DayState

_PROVED = frozenset({DayState.PROVED, DayState.HEALED, DayState.NO_MOVEMENTS})


class AccountStatus(msgspec.Struct, frozen=True, kw_only=True):
    """An account as it was looked at last, `asked_seconds` ago. `expires` is İYS's text."""

    name: str
    subscription: str
    expires: str
    brands: int | None
    asked_seconds: int


class MirroredBrand(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a listed brand beside the store: RFC 3339 in UTC, None where nobody knows.

    `to_admit` are channels that may not be read until `admit`; with `whole` nothing of the brand may.
    """

    brand_code: int
    account: str
    whole: bool
    to_admit: list[str]
    last_push: str | None
    last_day_proved: str | None
    days_unproved: list[str]


class IysStatus(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. `rate` (requests a second) is None where İYS never said "too fast", or long ago."""

    accounts: list[AccountStatus]
    brands: list[MirroredBrand]
    rate: float | None
    tokens_locked_until: str | None
    requests: int
    requests_failed: int


def iys_status(folder: Path, snapshot: Snapshot, clock: Clock) -> IysStatus | None:
    """Read it; None where the store was never filled from İYS, or the folder beside it is not this user's to read."""
    try:
        listings = all_remembered(folder)
        if not listings and not (folder / NAME).exists():
            return None
        limits = Limits(folder)
        limited = limits.seen()
        asked, failed = Guard(limits, clock).counts()
    except OSError:
        return None
    now = clock.now()
    locked = limited.locked_until_s > now
    return IysStatus(
        accounts=[_account(listing, now) for listing in listings],
        brands=list(_brands(listings, folder, snapshot)),
        rate=limited.rate,
        tokens_locked_until=rfc3339(limited.locked_until_s) if locked else None,
        requests=asked,
        requests_failed=failed,
    )


def _account(listing: Listing, now: float) -> AccountStatus:
    return AccountStatus(
        name=listing.account,
        subscription=listing.own.state.value,
        expires=listing.own.expires,
        brands=None if listing.brands is None else len(listing.brands),
        asked_seconds=round(now - listing.asked_s),
    )


def _brands(listings: list[Listing], folder: Path, snapshot: Snapshot) -> Iterator[MirroredBrand]:
    pushed = seen(folder / "push")
    reports = DayReports(folder / "days")
    for listing in listings:
        for code, shown in sorted(listing.shown.items()):
            registered = snapshot.brand(code).brand
            if registered is None or listing.state_of(shown.iys_code) in ENDED:
                continue
            waiting = waiting_of(shown, registered)
            days = reports.all(code)
            proved = [day for day, report in days.items() if report.state in _PROVED]
            yield MirroredBrand(
                brand_code=code,
                account=listing.account,
                whole=waiting is not None and waiting.whole,
                to_admit=[] if waiting is None else sorted(channel.name for channel in waiting.channels),
                last_push=rfc3339(pushed[code]) if code in pushed else None,
                last_day_proved=str(max(proved)) if proved else None,
                days_unproved=[str(day) for day in _unproved(proved, list(days))],
            )


def _unproved(proved: list[date], days: list[date]) -> list[date]:
    return sorted(set(days) - set(proved))


def lines_of(status: IysStatus) -> Iterator[str]:
    """Tell of İYS in lines for people."""
    for account in status.accounts:
        expires = f" until {account.expires}" if account.expires else ""
        brands = "" if account.brands is None else f", {account.brands:,} brands"
        yield (
            f"İYS account '{account.name}': {account.subscription}{expires}{brands}, "
            f"asked {account.asked_seconds:,} s ago"
        )
    share = status.requests_failed / status.requests if status.requests else 0.0
    rate = "" if status.rate is None else f"; slowed to {status.rate:.1f} requests a second"
    lock = "" if status.tokens_locked_until is None else f"; NO TOKENS until {status.tokens_locked_until}"
    yield f"İYS: {status.requests:,} requests in 24 hours, {share:.1%} failed{rate}{lock}"
    for brand in status.brands:
        told = [
            "came back and waits for admit" if brand.whole else "",
            "" if brand.whole or not brand.to_admit else f"{', '.join(brand.to_admit)} wait for admit",
            f"last push {brand.last_push}" if brand.last_push else "",
            f"last day proved {brand.last_day_proved}" if brand.last_day_proved else "",
            f"not proved: {', '.join(brand.days_unproved)}" if brand.days_unproved else "",
        ]
        if any(told):
            yield f"{brand.brand_code:>10} {'; '.join(filter(None, told))}"
