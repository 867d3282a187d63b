"""Who may ask the fake what: accounts with passwords and tokens, brands, rights and subscriptions."""

import base64
import hmac
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from loader.iys.messages import SubscriptionState
from tests.iys.quirks import Quirks

CHANNELS = frozenset({"ARAMA", "MESAJ", "EPOSTA"})


@dataclass(slots=True, kw_only=True)
class Managed:
    """A brand as an integrator may use it. `rights` are channels with what İYS says of them, such as `write`."""

    brand: int
    iys_code: int
    rights: dict[str, str] = field(default_factory=lambda: dict.fromkeys(sorted(CHANNELS), "write"))
    agreement_control: bool = True
    via_control: bool = False
    name: str = "A brand"
    master: bool = False

    @property
    def readable(self) -> frozenset[str]:
        """The channels that the integrator sees in feeds."""
        return frozenset(channel for channel, right in self.rights.items() if right in {"read", "write"})


@dataclass(slots=True, kw_only=True)
class Account:
    """An account: a provider has brands, an integrator manages those of others."""

    kind: Literal["provider", "integrator"]
    code: int
    username: str
    password: str
    brands: list[int] = field(default_factory=list)
    manages: list[Managed] = field(default_factory=list)

    def channels(self, iys_code: int, brand: int) -> frozenset[str] | None:
        """Say which channels of a brand this account sees, None where the brand is none of its business."""
        if self.kind == "provider":
            return CHANNELS if iys_code == self.code and brand in self.brands else None
        return next((m.readable for m in self.manages if (m.iys_code, m.brand) == (iys_code, brand)), None)

    def is_of(self, iys_code: int) -> bool:
        """Say whether this account may speak for a provider, or is it."""
        return iys_code == self.code or any(managed.iys_code == iys_code for managed in self.manages)


@dataclass(slots=True)
class Granted:
    """A token: whose, and until when (seconds UTC)."""

    account: Account
    until_s: float


@dataclass(slots=True)
class Tokens:
    """The tokens that were given."""

    access: dict[str, Granted] = field(default_factory=dict)
    refresh: dict[str, Granted] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def grant(self, account: Account, now_s: float, quirks: Quirks) -> dict[str, object]:
        """Give an account a pair of tokens, as İYS writes it."""
        access, refresh = self._write(account, now_s, "access"), self._write(account, now_s, "refresh")
        self.access[access] = Granted(account, now_s + quirks.token_s)
        self.refresh[refresh] = Granted(account, now_s + quirks.refresh_s)
        return {
            "access_token": access,
            "refresh_token": refresh,
            "expires_in": int(quirks.token_s),
            "refresh_expires_in": int(quirks.refresh_s),
            "token_type": "bearer",
        }

    def holder(self, header: str | None, now_s: float) -> Account | None:
        """Find whose token a request carries, None where it carries none that is good."""
        scheme, _, token = (header or "").partition(" ")
        granted = self.access.get(token) if scheme.lower() == "bearer" else None
        return None if granted is None or granted.until_s <= now_s else granted.account

    def refreshed(self, token: str, now_s: float) -> Account | None:
        """Take a refresh token, which is gone by that; give whose it was, None where it was none that is good."""
        granted = self.refresh.pop(token, None)
        return None if granted is None or granted.until_s <= now_s else granted.account

    def _write(self, account: Account, now_s: float, kind: str) -> str:
        """Write what looks like a JWT. Its codes are texts with zeros before them, as in İYS's."""
        claims = {
            "jti": f"{kind}-{next(self._numbers)}",
            "iat": int(now_s),
            "brands": [{"brandCode": f"{brand:06}", "name": "A brand"} for brand in account.brands],
            "serviceProvider": {"iysCode": f"{account.code:06}"},
        }
        parts = (_base64(msgspec.json.encode(part)) for part in ({"alg": "RS256", "typ": "JWT"}, claims))
        return ".".join((*parts, _base64(f"signature of nobody {account.code}".encode())))


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass(slots=True)
class Accounts:
    """All accounts, and the subscriptions of their codes."""

    by_name: dict[str, Account] = field(default_factory=dict)
    subscriptions: dict[int, SubscriptionState] = field(default_factory=dict)
    without_api: set[int] = field(default_factory=set)
    """Codes whose package has no API (H586)."""
    retailers: dict[tuple[object, ...], list[int]] = field(default_factory=dict)
    """Who may use a consent beside its brand: by brand, channel, recipient type, recipient."""
    told_consents: dict[int, int] = field(default_factory=dict)
    """Brands with how many consents İYS says they have, where it is not the count of what moved."""

    def add(self, account: Account) -> Account:
        """Open an account."""
        self.by_name[account.username] = account
        self.subscriptions.setdefault(account.code, SubscriptionState.ACTIVE)
        return account

    def entered(self, username: str, password: str) -> Account | None:
        """Find the account that this name and password open."""
        account = self.by_name.get(username)
        good = account is not None and hmac.compare_digest(account.password.encode(), password.encode())
        return account if good else None

    def of(self, code: int) -> list[Account]:
        """Give the accounts of a code."""
        return [account for account in self.by_name.values() if account.code == code]

    def state(self, code: int) -> SubscriptionState:
        """Say how the subscription of a code stands; of a code without account that somebody manages: active."""
        return self.subscriptions.get(code, SubscriptionState.ACTIVE)
