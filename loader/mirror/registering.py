"""Where İYS pushes to: registered, looked at, and ended, for the brands of an account.

İYS calls the address while it is being registered, so the receiver has to run. It takes two addresses for each brand
and channel, so new credentials stand beside the old ones until they are known to work.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec

from iyscheck.consent import Channel
from iyscheck.keys import AddressKey
from loader.iys.faults import IysFault, TransientFault
from loader.iys.messages import ListedBrand, PushAddress
from loader.push.credentials import Credential, Credentials


class Pushes(Protocol):
    """What is asked of İYS about pushes."""

    def register_push(
        self, iys_code: int, brand: int, url: str, channel: Channel, username: str, password: str
    ) -> None:
        """Have a channel's changes pushed to an address."""
        ...

    def pushes(self, iys_code: int, brand: int) -> tuple[PushAddress, ...]:
        """Return where a brand's changes are pushed to."""
        ...

    def unregister_push(
        self, iys_code: int, brand: int, url: str, channel: Channel, username: str, password: str
    ) -> None:
        """Have nothing pushed to an address any more."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one brand and channel; `fault` is None where all went well."""

    brand: int
    channel: Channel
    fault: IysFault | None


def by_provider(brands: Iterable[ListedBrand]) -> Mapping[int, tuple[ListedBrand, ...]]:
    """Put brands together by their İYS code: a credential is for those of one."""
    found: dict[int, list[ListedBrand]] = {}
    for brand in brands:
        found.setdefault(brand.iys_code, []).append(brand)
    return {code: tuple(sorted(each, key=lambda brand: brand.brand)) for code, each in sorted(found.items())}


def not_pushed(iys: Pushes, brands: Iterable[ListedBrand], url: str) -> tuple[ListedBrand, ...]:
    """Return brands with the channels that are not pushed here yet, without those of which all are. Raises IysFault.

    İYS takes two addresses for a channel: to register again what is pushed would use up both.
    """
    lacking = ((each, missing(iys.pushes(each.iys_code, each.brand), each, url)) for each in brands)
    return tuple(replace(each, channels=channels) for each, channels in lacking if channels)


def register(
    iys: Pushes,
    credentials: Credentials,
    brands: Sequence[ListedBrand],
    *,
    account: str,
    url: str,
    key: AddressKey,
    now_s: float,
) -> tuple[Outcome, ...]:
    """Register an address for brands of one provider, by new credentials, which stay if any of it may have gone well.

    Raises SettingsError where the credentials cannot be kept.
    """
    codes = tuple(brand.brand for brand in brands)
    made = credentials.make(account, brands[0].iys_code, codes, key=key, now_s=now_s, url=url)
    name, password = made.credential.name, made.password
    outcomes = []
    for brand in brands:
        for channel in sorted(brand.channels):
            try:
                iys.register_push(brand.iys_code, brand.brand, url, channel, name, password)
            except IysFault as fault:
                outcomes.append(Outcome(brand=brand.brand, channel=channel, fault=fault))
            else:
                outcomes.append(Outcome(brand=brand.brand, channel=channel, fault=None))
    if not any(outcome.fault is None or isinstance(outcome.fault, TransientFault) for outcome in outcomes):
        credentials.remove(name)  # of an answer that did not come nobody knows; İYS would ask for the password again
    return tuple(outcomes)


def unregister(
    iys: Pushes, credentials: Credentials, credential: Credential, *, url: str, key: AddressKey, now_s: float
) -> tuple[Outcome, ...]:
    """End the pushes of a credential, which is gone when all of them have ended. Raises SettingsError.

    `url` is only for credentials that do not say where they are pushed to: the address may be another one by now.
    """
    password = credentials.password(credential, key)
    credentials.put(msgspec.structs.replace(credential, retired_s=now_s))
    outcomes = []
    for brand in credential.brands:
        for channel in Channel:
            try:
                iys.unregister_push(
                    credential.iys_code, brand, credential.url or url, channel, credential.name, password
                )
            except IysFault as fault:
                if fault.code == NOT_THERE:
                    continue
                outcomes.append(Outcome(brand=brand, channel=channel, fault=fault))
            else:
                outcomes.append(Outcome(brand=brand, channel=channel, fault=None))
    if all(outcome.fault is None for outcome in outcomes):
        credentials.remove(credential.name)
    return tuple(outcomes)


NOT_THERE = "H530"
"""What İYS says where an address could not be removed: it was not registered for that brand and channel."""


def missing(found: Iterable[PushAddress], brand: ListedBrand, url: str) -> frozenset[Channel]:
    """Say for which channels of a brand nothing is pushed here, or İYS cannot connect."""
    good = {each.channel for each in found if each.url == url and each.is_good}
    return frozenset(brand.channels - good)
