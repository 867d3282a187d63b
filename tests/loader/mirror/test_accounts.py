"""What follows of a listing: laws, for any listing and any register."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.change import Brand, merge_brand
from iyscheck.consent import Channel
from loader.iys.messages import FeedSource, ListedBrand, Subscription, SubscriptionState
from loader.mirror.accounts import ENDED, Listing, Verdict, Waiting, admitted, judge
from loader.sources.pull.steps import Stream
from tests.dice import often

NOW = 1_000_000
"""Turkish local seconds."""
CODES = (1, 2, 3, 4)
CHANNELS = st.frozensets(st.sampled_from(Channel))
SOME = st.frozensets(st.sampled_from(CODES))
STATES = st.sampled_from(SubscriptionState)
LISTED = st.builds(
    ListedBrand,
    brand=st.sampled_from(CODES),
    iys_code=st.sampled_from((70, 71)),
    name=st.just(""),
    channels=CHANNELS,
)
STORED = st.builds(
    Brand,
    brand=st.just(0),
    iys_code=st.sampled_from((70, 71)),
    active=st.booleans(),
    channels=CHANNELS,
    legacy_deadline=st.integers(0, 2),
    registered=st.integers(NOW - 5, NOW + 5),
)
LISTINGS = st.builds(
    Listing,
    account=st.just("acme"),
    asked_s=st.just(5.0),
    brands=st.none() | st.lists(LISTED, max_size=4, unique_by=lambda shown: shown.brand).map(tuple),
    own=STATES.map(lambda state: Subscription(state=state)),
    subscriptions=st.dictionaries(
        st.sampled_from((70, 71)), STATES.map(lambda state: Subscription(state=state)), max_size=2
    ),
)
REGISTERS = st.dictionaries(st.sampled_from(CODES), STORED).map(
    lambda register: {code: replace(brand, brand=code) for code, brand in register.items()}
)
ALWAYS = settings(max_examples=often(600), deadline=None)


def judged(
    listing: Listing,
    stored: dict[int, Brand],
    owned: frozenset[int],
    taken: frozenset[int] = frozenset(),
    elsewhere: frozenset[int] = frozenset(),
    wanted: frozenset[int] | None = None,
) -> Verdict:
    """Judge at NOW."""
    return judge(
        listing,
        stored=stored,
        owned=owned,
        taken=taken,
        elsewhere=taken | elsewhere,
        wanted=wanted,
        local_now_s=NOW,
    )


def applied(stored: dict[int, Brand], rows: tuple[Brand, ...]) -> dict[int, Brand]:
    """Apply rows as the store does."""
    register = dict(stored)
    for row in rows:
        old = register.get(row.brand)
        register[row.brand] = row if old is None else merge_brand(old, row)
    return register


@given(listing=LISTINGS, stored=REGISTERS, owned=SOME, taken=SOME, elsewhere=SOME, wanted=st.none() | SOME)
@ALWAYS
def test_laws(
    listing: Listing,
    stored: dict[int, Brand],
    owned: frozenset[int],
    taken: frozenset[int],
    elsewhere: frozenset[int],
    wanted: frozenset[int] | None,
) -> None:
    """A listing never widens what is permitted; what it lacks is closed; and said again it changes nothing."""
    verdict = judged(listing, stored, owned, taken, elsewhere, wanted)
    register = applied(stored, verdict.rows)
    shown = listing.shown
    is_unknown = listing.brands is None and listing.own.state not in ENDED
    mine = (shown.keys() - taken) & (shown.keys() if wanted is None else wanted)

    for code, old in stored.items():
        assert register[code].active <= old.active
        assert register[code].channels <= old.channels
        assert register[code].legacy_deadline == old.legacy_deadline
    for code in register.keys() - stored.keys():
        assert code in mine
        assert register[code].channels == shown[code].channels
    for code, brand in register.items():
        if code in mine:
            assert brand.channels <= shown[code].channels
            assert not (brand.active and listing.state_of(shown[code].iys_code) in ENDED)
        elif code in owned - shown.keys() - taken - elsewhere and not is_unknown:
            assert not brand.active
        else:
            assert brand == stored[code]
    again = judged(listing, register, owned | verdict.brands, taken, elsewhere, wanted)
    assert not again.rows
    assert (again.waiting, again.streams) == (verdict.waiting, verdict.streams)
    assert verdict.lost == {
        code
        for code, old in stored.items()
        if register[code].active < old.active or register[code].channels < old.channels
    }


@given(listing=LISTINGS, stored=REGISTERS, owned=SOME, taken=SOME, wanted=st.none() | SOME)
@ALWAYS
def test_streams(
    listing: Listing,
    stored: dict[int, Brand],
    owned: frozenset[int],
    taken: frozenset[int],
    wanted: frozenset[int] | None,
) -> None:
    """Both halves run of each listed brand that is wanted and this account's, while its subscription is active."""
    verdict = judged(listing, stored, owned, taken, wanted=wanted)

    assert verdict.streams == {
        Stream(iys_code=shown.iys_code, brand=shown.brand, source=source)
        for shown in listing.shown.values()
        for source in FeedSource
        if shown.brand not in taken
        and (wanted is None or shown.brand in wanted)
        and listing.own.state is SubscriptionState.ACTIVE
        and listing.subscriptions.get(shown.iys_code, listing.own).state is SubscriptionState.ACTIVE
    }


@given(listing=LISTINGS, stored=REGISTERS, owned=SOME)
@ALWAYS
def test_waiting(listing: Listing, stored: dict[int, Brand], owned: frozenset[int]) -> None:
    """What waits is what is listed and not readable; once all of it is admitted nothing waits, and no more is readable.

    Only what is listed can be admitted.
    """
    verdict = judged(listing, stored, owned)
    register = applied(stored, verdict.rows)
    shown = listing.shown
    for waiting in verdict.waiting:
        old = register[waiting.brand]
        readable = old.channels if old.active else frozenset()
        assert waiting.whole == (not old.active)
        assert waiting.channels == shown[waiting.brand].channels - old.channels
        assert readable != shown[waiting.brand].channels or not old.active
        new = admitted(old, shown[waiting.brand], frozenset(Channel), NOW)
        assert new.channels == shown[waiting.brand].channels
        register[waiting.brand] = merge_brand(old, new)
        assert register[waiting.brand] == new

    after = judged(listing, register, owned)
    assert not after.waiting
    assert not after.rows


def listing(*brands: ListedBrand, state: SubscriptionState = SubscriptionState.ACTIVE) -> Listing:
    """Make a listing of a provider."""
    return Listing(account="acme", asked_s=5.0, brands=brands, own=Subscription(state=state), subscriptions={})


def test_channel_comes_back() -> None:
    """A channel that was lost and is listed again waits, and the others go on."""
    all_three = ListedBrand(brand=1, iys_code=70, name="", channels=frozenset(Channel))
    register = applied({}, judged(listing(all_three), {}, frozenset()).rows)

    less = judged(listing(replace(all_three, channels=frozenset({Channel.MESAJ}))), register, frozenset({1}))
    register = applied(register, less.rows)
    back = judged(listing(all_three), register, frozenset({1}))

    assert less.lost == {1}
    assert not less.waiting
    assert not back.rows
    assert back.waiting == (Waiting(brand=1, channels=frozenset({Channel.ARAMA, Channel.EPOSTA}), whole=False),)
    assert len(back.streams) == 2
    one = admitted(register[1], all_three, {Channel.EPOSTA}, NOW)
    assert one.channels == {Channel.MESAJ, Channel.EPOSTA}


def test_brand_comes_back() -> None:
    """A brand that was gone waits as a whole while its rows flow, and comes back with the channels that are named."""
    shown = ListedBrand(brand=1, iys_code=70, name="", channels=frozenset(Channel))
    register = applied({}, judged(listing(shown), {}, frozenset()).rows)

    gone = judged(listing(), register, frozenset({1}))
    register = applied(register, gone.rows)
    back = judged(listing(shown), register, frozenset({1}))

    assert gone.lost == {1}
    assert not gone.streams
    assert (back.rows, back.waiting) == ((), (Waiting(brand=1, channels=frozenset(), whole=True),))
    assert len(back.streams) == 2
    assert admitted(register[1], shown, {Channel.MESAJ}, NOW).channels == {Channel.MESAJ}


def test_moved_to_another_account() -> None:
    """A brand that another account lists is not gone."""
    stored = applied(
        {},
        judged(listing(ListedBrand(brand=1, iys_code=70, name="", channels=frozenset(Channel))), {}, frozenset()).rows,
    )

    assert not judged(listing(), stored, frozenset({1}), elsewhere=frozenset({1})).rows
