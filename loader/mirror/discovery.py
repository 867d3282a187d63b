"""What an account has at İYS: asked for every hour, and remembered beside the store.

What is remembered decides nothing about the register. It lets streams run at once after a restart, and tells `admit`
and `status` what is listed.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

import msgspec

from loader.iys.clock import Clock
from loader.iys.faults import IysFault
from loader.iys.messages import ListedBrand, Subscription, SubscriptionState
from loader.mirror.accounts import Listing
from loader.mirror.config import AccountConfig, AccountKind

HOUR_S: Final = 3_600.0
_DAY_S: Final = 86_400.0
_FILE_MODE: Final = 0o600


class Asked(Protocol):
    """What is asked of İYS here."""

    def brands(self, iys_code: int) -> tuple[ListedBrand, ...]:
        """Return all brands of a provider."""
        ...

    def providers(self, integrator: int) -> tuple[ListedBrand, ...]:
        """Return all brands that an integrator serves."""
        ...

    def subscription(self, iys_code: int) -> Subscription:
        """Return a provider's subscription."""
        ...

    def integrator_subscription(self, code: int) -> Subscription:
        """Return an integrator's own subscription."""
        ...


class Discovery:
    """Looks for what one account has. Its `known` is what it found last, None if nothing ever. For one thread."""

    def __init__(self, account: AccountConfig, iys: Asked, clock: Clock, folder: Path) -> None:
        self._account = account
        self._iys = iys
        self._clock = clock
        self._asked_s: dict[int, float] = {}
        self.known = remembered(folder, account.name)

    def look(self) -> Listing:
        """Ask İYS. Raises IysFault where it does not answer.

        While a subscription is not active İYS tells of nothing else, so brands are then those that were known.
        """
        now = self._clock.now()
        own = self._own(now)
        if own.state is SubscriptionState.ACTIVE:
            brands: tuple[ListedBrand, ...] | None = self._listed()
        else:
            brands = None if self.known is None else self.known.brands
        found = Listing(
            account=self._account.name, asked_s=now, brands=brands, own=own, subscriptions=self._served(brands or ())
        )
        self.known = found
        return found

    def hasten(self) -> None:
        """Have all subscriptions asked for again at the next look."""
        self._asked_s.clear()

    def _own(self, now: float) -> Subscription:
        code = self._account.code
        known = None if self.known is None else self.known.own
        if known is not None and not self._is_due(code, known, now):
            return known
        is_integrator = self._account.kind is AccountKind.INTEGRATOR
        found = self._iys.integrator_subscription(code) if is_integrator else self._iys.subscription(code)
        self._asked_s[code] = now
        return found

    def _listed(self) -> tuple[ListedBrand, ...]:
        code = self._account.code
        return self._iys.providers(code) if self._account.kind is AccountKind.INTEGRATOR else self._iys.brands(code)

    def _served(self, brands: tuple[ListedBrand, ...]) -> Mapping[int, Subscription]:
        """Ask for the subscriptions of an integrator's providers; what cannot be had stays as it was."""
        known = {} if self.known is None else dict(self.known.subscriptions)
        found = {}
        for code in sorted({shown.iys_code for shown in brands} - {self._account.code}):
            before = known.get(code)
            now = self._clock.now()
            if before is None or self._is_due(code, before, now):
                try:
                    before = self._iys.subscription(code)
                    self._asked_s[code] = now
                except IysFault:
                    pass
            if before is not None:
                found[code] = before
        return found

    def _is_due(self, code: int, known: Subscription, now: float) -> bool:
        """Say whether a subscription is to be asked for: each hour while it is not active, each day otherwise."""
        asked_s = self._asked_s.get(code)
        pause_s = _DAY_S if known.state is SubscriptionState.ACTIVE else HOUR_S
        return asked_s is None or not 0 <= now - asked_s < pause_s * _PUNCTUAL


_PUNCTUAL: Final = 0.9
"""Looks come at about each hour: one that comes a little early must not wait for another."""


def listing_path(folder: Path, account: str) -> Path:
    """Say where the listing of an account is remembered."""
    return folder / f"listing-{account}.json"


def remember(folder: Path, listing: Listing) -> None:
    """Keep a listing beside the store. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = listing_path(folder, listing.account)
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        # Names of brands are of no use here.
        brands = None if listing.brands is None else tuple(replace(shown, name="") for shown in listing.brands)
        file.write(msgspec.json.encode(replace(listing, brands=brands)))
    new.rename(path)


def remembered(folder: Path, account: str) -> Listing | None:
    """Return what was listed last for an account; None where nothing is known, or it cannot be read."""
    try:
        found = msgspec.json.decode(listing_path(folder, account).read_bytes(), type=Listing)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return found if found.account == account else None


def all_remembered(folder: Path) -> list[Listing]:
    """Return what was listed last for every account that was ever asked for."""
    names = sorted(path.name for path in folder.glob(listing_path(folder, "*").name))
    prefix, suffix = listing_path(folder, "*").name.split("*")
    found = (remembered(folder, name.removeprefix(prefix).removesuffix(suffix)) for name in names)
    return [listing for listing in found if listing is not None]
