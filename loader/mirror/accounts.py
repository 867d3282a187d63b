"""What an account's brands are now, and what follows for the register: pure, from what İYS lists and the store has.

Only a complete listing says anything. What is lost is lost at once: a brand that is not listed any more becomes
inactive, a channel that is not listed is taken away. What comes back does not come back by itself: what was registered
while it was away was never seen, and the brand's watermark does not tell of that. It waits until somebody admits it
(decision 107).
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Final

from iyscheck.change import Brand
from iyscheck.consent import Channel
from loader.iys.messages import FeedSource, ListedBrand, Subscription, SubscriptionState
from loader.sources.pull.steps import Stream

ENDED: Final = frozenset({SubscriptionState.CLOSED, SubscriptionState.ABSENT})
"""The brands of such a subscription are nobody's to write for any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All that İYS lists for an account, as asked at `asked_s` (seconds UTC); `brands` None: İYS did not tell.

    `own` is the account's own subscription, `subscriptions` are those of the providers that it serves, by iysCode. One
    that is not there is not known, and taken for active: where it is not, İYS refuses what is asked for.
    """

    account: str
    asked_s: float
    brands: tuple[ListedBrand, ...] | None
    own: Subscription
    subscriptions: Mapping[int, Subscription]

    @property
    def shown(self) -> Mapping[int, ListedBrand]:
        """The brands by their codes; none where İYS did not tell."""
        return {shown.brand: shown for shown in self.brands or ()}

    def state_of(self, iys_code: int) -> SubscriptionState:
        """Say whether a provider's brands may be served: what is worse of its own state and the account's."""
        found = self.subscriptions.get(iys_code)
        states = {self.own.state, SubscriptionState.ACTIVE if found is None else found.state}
        for worse in (*ENDED, SubscriptionState.EXPIRED, SubscriptionState.PAUSED):
            if worse in states:
                return worse
        return SubscriptionState.ACTIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What of a brand is listed and not admitted: channels, or (`whole`) the brand itself, which came back."""

    brand: int
    channels: frozenset[Channel]
    whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What follows of a listing: rows for the register, what waits to be admitted, and the streams that run.

    `lost` are brands that become inactive or lose a channel by these rows: worth asking İYS twice.
    """

    rows: tuple[Brand, ...]
    lost: frozenset[int]
    waiting: tuple[Waiting, ...]
    streams: frozenset[Stream]
    brands: frozenset[int]


def judge(
    listing: Listing,
    *,
    stored: Mapping[int, Brand],
    owned: AbstractSet[int],
    taken: AbstractSet[int],
    elsewhere: AbstractSet[int],
    wanted: AbstractSet[int] | None,
    local_now_s: int,
) -> Verdict:
    """Compare a complete listing with the register.

    Args:
        listing: what İYS lists now.
        stored: the register, by brand code.
        owned: brands that this account listed at any time.
        taken: brands that an earlier account brings: this one leaves them alone.
        elsewhere: brands that any other account lists, or may list: they are not gone.
        wanted: the only brands to mirror; None for all.
        local_now_s: when it was asked, Turkish local seconds.
    """
    listed = {
        code: shown for code, shown in listing.shown.items() if code not in taken and (wanted is None or code in wanted)
    }
    rows, waiting, streams = [], [], set()
    for code, shown in sorted(listed.items()):
        state = listing.state_of(shown.iys_code)
        old = stored.get(code)
        new = _registered(shown, old, is_ended=state in ENDED)
        if new is not None and new != old:
            rows.append(replace(new, registered=_newer(old, local_now_s)))
        if state is SubscriptionState.ACTIVE:
            streams |= {Stream(iys_code=shown.iys_code, brand=code, source=source) for source in FeedSource}
            if new is not None and (lacking := waiting_of(shown, new)) is not None:
                waiting.append(lacking)
    is_told = listing.brands is not None or listing.own.state in ENDED
    for code in sorted(owned - listing.shown.keys() - elsewhere if is_told else ()):
        old = stored.get(code)
        if old is not None and old.active:
            rows.append(replace(old, active=False, registered=_newer(old, local_now_s)))
    return Verdict(
        rows=tuple(rows),
        lost=frozenset(row.brand for row in rows if _loses(stored.get(row.brand), row)),
        waiting=tuple(waiting),
        streams=frozenset(streams),
        brands=frozenset(listed) | owned,
    )


def waiting_of(shown: ListedBrand, registered: Brand) -> Waiting | None:
    """Say what of a listed brand waits to be admitted; None where nothing does."""
    missing = shown.channels - registered.channels
    if registered.active and not missing:
        return None
    return Waiting(brand=shown.brand, channels=missing, whole=not registered.active)


def admitted(old: Brand, shown: ListedBrand, channels: AbstractSet[Channel], local_now_s: int) -> Brand:
    """Admit channels of a listed brand; of one that came back, these alone."""
    return replace(
        old,
        iys_code=shown.iys_code,
        active=True,
        channels=((old.channels if old.active else frozenset()) | channels) & shown.channels,
        registered=_newer(old, local_now_s),
    )


def _registered(shown: ListedBrand, old: Brand | None, *, is_ended: bool) -> Brand | None:
    """Say how a listed brand is to be registered; None where a new one is not to be."""
    if old is None:
        if is_ended:
            return None
        return Brand(
            brand=shown.brand,
            iys_code=shown.iys_code,
            active=True,
            channels=shown.channels,
            legacy_deadline=0,
            registered=0,
        )
    return replace(
        old,
        iys_code=shown.iys_code,
        active=old.active and not is_ended,
        channels=old.channels & shown.channels,
    )


def _loses(old: Brand | None, new: Brand) -> bool:
    return old is not None and (old.active > new.active or bool(old.channels - new.channels))


def _newer(old: Brand | None, local_now_s: int) -> int:
    """Give a row a time by which it wins, also over one whose time is a little ahead of the clock."""
    return local_now_s if old is None else max(local_now_s, old.registered + 1)
