"""A whole mirror against a fake İYS, over real sockets, by a clock that runs as it is waited for."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from iyscheck.consent import Channel
from loader.iys.messages import FeedSource, SubscriptionState
from loader.iys.tokens import LOCK_S
from loader.mirror.admission import admit
from loader.mirror.config import AccountKind
from loader.mirror.looking import AccountState
from loader.mirror.running import Running
from loader.sources.pull.terms import SWEEP_ROWS
from tests.iys.accounts import Managed
from tests.iys.fake import FakeIys
from tests.iys.faults import Fault
from tests.loader.mirror.town import BRAND, DAY_S, HOUR_S, IYS_CODE, PASSWORD, Town

OTHER = BRAND + 1
INTEGRATOR = 900_001
FRESH_S = HOUR_S + 20 * 60
"""A brand that is asked for every ten minutes is not further behind."""
CONFIRMED_S = 1_800.0
"""So much later an integrator's claims are confirmed: by the first look behind a walk."""


@pytest.fixture(name="served", scope="module")
def _served() -> Iterator[FakeIys]:
    fake = FakeIys()
    with fake.running():
        yield fake


@pytest.fixture(name="town")
def _town(served: FakeIys, tmp_path: Path) -> Town:
    served.reset()
    return Town(tmp_path, served)


def is_fresh(town: Town, brand: int = BRAND, *, confirmed: bool = False) -> bool:
    """Say whether a brand is as fresh as pull can make it, and may be read; an integrator's is `confirmed` later."""
    lag_s, found = town.lag_s(brand), town.brand(brand).brand
    return (
        lag_s is not None
        and lag_s <= FRESH_S + (CONFIRMED_S if confirmed else 0)
        and found is not None
        and found.active
    )


def states(mirror: Running) -> dict[str, AccountState]:
    """Say how the accounts are."""
    return dict(mirror.looking.states())


def test_fresh(town: Town) -> None:
    """A seeded brand stays fresh: its watermark follows İYS by an hour, and the pause between two looks."""
    town.provider()
    town.seeded(BRAND)
    town.fake.move(BRAND, "IYS", status="RET")
    with town.running() as mirror:
        town.pass_time(mirror, 2 * HOUR_S)

    assert is_fresh(town)
    assert 'consent_feed_rows_total{outcome="applied"} 1.0' in town.scraped()
    assert not town.fake.broken_limits


class TestTokens:
    """What may happen to tokens; cases 2, 4 and 5."""

    @pytest.mark.parametrize("shape", ["errors", "top", "oauth"])
    def test_locked(self, town: Town, shape: str) -> None:
        """A lock of tokens outlives the process: nobody asks for 61 minutes, so İYS's hour does not begin anew."""
        town.provider()
        town.seeded(BRAND)
        town.fake.plan("token", Fault.token_locked(shape))  # type: ignore[arg-type] # one of the three
        began_s = town.clock.now()
        for _ in range(3):
            with town.running() as mirror:
                town.pass_time(mirror, 15 * 60)
                assert states(mirror) == {"acme": AccountState.LOCKED}
                assert "consent_iys_token_lock_timestamp_seconds 0.0" not in town.scraped()
            assert any("NO TOKENS until 20" in line for line in town.told())
        assert len(town.fake.asked("token")) == 1
        with town.running() as mirror:
            town.pass_time(mirror, 40 * 60)

            assert states(mirror) == {"acme": AccountState.ACTIVE}
        first, second = town.fake.asked("token")
        assert second.at_s - first.at_s >= LOCK_S
        assert second.at_s - began_s < LOCK_S + 300
        assert not town.fake.broken_limits
        assert is_fresh(town)

    def test_refresh_expired(self, town: Town) -> None:
        """Where İYS takes neither token any more, the password is sent once."""
        town.provider()
        town.seeded(BRAND)
        with town.running() as mirror:
            town.pass_time(mirror, HOUR_S)
            town.fake.expire_tokens(refresh_too=True)
            before = len(town.fake.asked("token"))
            town.pass_time(mirror, HOUR_S)

        assert [seen.status for seen in town.fake.asked("token")[before:]] == [400, 200]
        assert is_fresh(town)

    def test_wrong_password(self, town: Town) -> None:
        """A wrong password is tried once, the other accounts go on, and a new one is tried when it is written."""
        town.provider()
        town.fake.provider(IYS_CODE + 1, "other-api", PASSWORD, brands=[OTHER])
        other = town.account("other", AccountKind.PROVIDER, IYS_CODE + 1, password=PASSWORD[::-1])
        town.seeded(BRAND, OTHER)
        with town.running() as mirror:
            town.pass_time(mirror, 3 * HOUR_S)
            assert states(mirror) == {"acme": AccountState.ACTIVE, "other": AccountState.AUTH_FAILED}
        with town.running() as mirror:
            town.pass_time(mirror, HOUR_S)
            assert 'consent_iys_accounts{state="auth_failed"} 1.0' in town.scraped()
            assert sum(seen.status == 400 for seen in town.fake.asked("token")) == 1
            assert is_fresh(town)
            assert town.brand(OTHER).brand is None

            other.password_file.write_text(PASSWORD)
            town.pass_time(mirror, HOUR_S)

            assert states(mirror)["other"] is AccountState.ACTIVE
        assert is_fresh(town, OTHER)


class TestBrands:
    """Brands, channels and subscriptions that go and come; cases 23, 24 and 25."""

    def test_brand_removed_and_back(self, town: Town) -> None:
        """A brand that is not listed any more is closed within the hour; back again it stays so until admitted."""
        town.provider(brands=(BRAND, OTHER))
        town.seeded(BRAND, OTHER)
        with town.running() as mirror:
            town.pass_time(mirror, HOUR_S)
            town.fake.remove_brand("acme-api", BRAND)
            town.pass_time(mirror, HOUR_S + 900)
            gone = town.brand().brand
            assert gone is not None
            assert not gone.active
            town.fake.add_brand("acme-api", BRAND)
            town.pass_time(mirror, 2 * HOUR_S)
            back = town.brand().brand
            assert back is not None
            assert not back.active
            assert [waiting.brand for waiting in mirror.looking.waiting()] == [BRAND]
            assert "consent_iys_brands_to_admit 1.0" in town.scraped()
        assert any("600001 came back and waits for admit" in line for line in town.told())
        with town.desk.writer() as writer:
            admit(writer, town.folder, BRAND, frozenset(), now_s=town.clock.now())
        with town.running() as mirror:
            town.pass_time(mirror, 2 * HOUR_S)
            assert not mirror.looking.waiting()
        assert is_fresh(town)
        assert is_fresh(town, OTHER)

    def test_listing_that_errs_once(self, town: Town) -> None:
        """A brand has to be missing twice: one listing without it closes nothing."""
        town.provider()
        town.seeded(BRAND)
        with town.running() as mirror:
            town.pass_time(mirror, HOUR_S / 2)
            town.fake.plan("brands", Fault.said(200, "[]"))
            town.pass_time(mirror, 2 * HOUR_S)

        assert is_fresh(town)

    def test_provider_unknown(self, town: Town) -> None:
        """That İYS does not know a provider is no listing: nothing is closed, the account fails, and its data ages."""
        town.provider()
        town.seeded(BRAND)
        with town.running() as mirror:
            town.pass_time(mirror, HOUR_S / 4)
            town.fake.remove_brand("acme-api", BRAND)  # its only one
            town.pass_time(mirror, 2 * HOUR_S)

            assert states(mirror) == {"acme": AccountState.FAILING}
        lag_s, brand = town.lag_s(), town.brand().brand
        assert brand is not None
        assert brand.active
        assert lag_s is not None
        assert lag_s > 3 * HOUR_S

    def test_foreign_brand(self, town: Town) -> None:
        """İYS forbids a brand's changes: the listing is asked at once, and decides."""
        town.provider(brands=(BRAND, OTHER))
        town.seeded(BRAND, OTHER)
        with town.running() as mirror:
            town.pass_time(mirror, HOUR_S / 4)
            town.fake.remove_brand("acme-api", BRAND)
            town.pass_time(mirror, HOUR_S / 2)

        gone = town.brand().brand
        assert gone is not None
        assert not gone.active
        assert is_fresh(town, OTHER)

    def test_paused(self, town: Town) -> None:
        """While a subscription is paused nothing but it is asked for, the brand ages, and it catches up afterwards."""
        town.provider()
        town.seeded(BRAND)
        with town.running() as mirror:
            town.pass_time(mirror, HOUR_S)
            town.fake.subscription(IYS_CODE, SubscriptionState.PAUSED)
            town.pass_time(mirror, HOUR_S)
            assert states(mirror) == {"acme": AccountState.PAUSED}
            assert not list(mirror.pulling.schedule)
            before = len(town.fake.requests)
            town.pass_time(mirror, 9 * HOUR_S)
            assert {seen.operation for seen in town.fake.requests[before:]} <= {"subscription", "token"}
            lag_s, paused = town.lag_s(), town.brand().brand
            assert lag_s is not None
            assert lag_s > 9 * HOUR_S
            assert paused is not None
            assert paused.active
            town.fake.move(BRAND, "IYS", status="RET")

            town.fake.subscription(IYS_CODE, SubscriptionState.ACTIVE)
            town.pass_time(mirror, 3 * HOUR_S)

            assert states(mirror) == {"acme": AccountState.ACTIVE}
        assert is_fresh(town)
        assert 'consent_feed_rows_total{outcome="applied"} 1.0' in town.scraped()

    @pytest.mark.parametrize("state", [SubscriptionState.CLOSED, SubscriptionState.ABSENT])
    def test_closed(self, town: Town, state: SubscriptionState) -> None:
        """The brands of a subscription that is over are closed."""
        town.provider()
        town.seeded(BRAND)
        with town.running() as mirror:
            town.pass_time(mirror, HOUR_S)
            town.fake.subscription(IYS_CODE, state)
            town.pass_time(mirror, HOUR_S)

            assert states(mirror) == {"acme": AccountState(state.value.lower())}
        closed = town.brand().brand
        assert closed is not None
        assert not closed.active

    def test_integrator_loses_channel(self, town: Town) -> None:
        """A channel that an integrator may not read any more is closed, and does not come back by itself."""
        town.fake.provider(IYS_CODE, "sp", PASSWORD, brands=[BRAND])
        rights = {"ARAMA": "write", "MESAJ": "write", "EPOSTA": "write"}
        town.fake.integrator(INTEGRATOR, "group-api", PASSWORD, manages=[Managed(brand=BRAND, iys_code=IYS_CODE)])
        town.account("group", AccountKind.INTEGRATOR, INTEGRATOR)
        town.seeded(BRAND)
        with town.running() as mirror:
            town.pass_time(mirror, HOUR_S)
            assert channels(town) == frozenset(Channel)
            town.fake.rights("group-api", BRAND, {"ARAMA": "write", "MESAJ": "read"})
            town.pass_time(mirror, HOUR_S + 900)
            assert channels(town) == {Channel.ARAMA, Channel.MESAJ}
            town.fake.rights("group-api", BRAND, rights)
            town.pass_time(mirror, 2 * HOUR_S)
            assert channels(town) == {Channel.ARAMA, Channel.MESAJ}
        assert any("600001 EPOSTA wait for admit" in line for line in town.told())
        assert is_fresh(town, confirmed=True)
        with town.desk.writer() as writer:
            admit(writer, town.folder, BRAND, {Channel.EPOSTA}, now_s=town.clock.now())
        with town.running() as mirror:
            town.pass_time(mirror, HOUR_S)
        assert channels(town) == frozenset(Channel)


@pytest.mark.parametrize("is_back", [False, True])
def test_channel_lost_between_looks(town: Town, *, is_back: bool) -> None:
    """What was registered while a channel might not be read is never claimed while the channel may be asked about.

    İYS leaves such rows out of its pages without a word.
    """
    town.fake.provider(IYS_CODE, "sp", PASSWORD, brands=[BRAND])
    town.fake.integrator(INTEGRATOR, "group-api", PASSWORD, manages=[Managed(brand=BRAND, iys_code=IYS_CODE)])
    town.account("group", AccountKind.INTEGRATOR, INTEGRATOR)
    town.seeded(BRAND)
    with town.running() as mirror:
        town.pass_time(mirror, HOUR_S)
        looks = len(town.fake.asked("providers"))
        while len(town.fake.asked("providers")) == looks:
            town.pass_time(mirror, 1)
        town.fake.rights("group-api", BRAND, {"ARAMA": "write", "EPOSTA": "write"})
        refused_s = town.clock.now() - HOUR_S + 60
        town.fake.move(BRAND, "HS", channel="MESAJ", status="RET", created_s=refused_s)
        for _ in range(40):
            town.pass_time(mirror, 60)
            for stream in [*mirror.pulling.schedule]:
                mirror.pulling.hasten(stream)
            found = town.brand()
            is_lost = found.watermark is not None and found.watermark > refused_s
            assert not (is_lost and Channel.MESAJ in channels(town))
        assert is_fresh(town, confirmed=True)
        if is_back:
            town.fake.rights("group-api", BRAND, dict.fromkeys(("ARAMA", "MESAJ", "EPOSTA"), "write"))
            town.pass_time(mirror, HOUR_S)
            assert Channel.MESAJ not in channels(town)


def channels(town: Town) -> frozenset[Channel]:
    """Return the channels of the brand that may be read."""
    brand = town.brand().brand
    assert brand is not None
    return brand.channels if brand.active else frozenset()


def test_one_brand_each(town: Town) -> None:
    """Of a brand that two accounts list the earlier one takes care, unless it is to leave it alone."""
    town.provider(brands=(BRAND, OTHER))
    town.accounts[0] = replace(town.accounts[0], brands=frozenset({BRAND}))
    managed = [Managed(brand=brand, iys_code=IYS_CODE) for brand in (BRAND, OTHER)]
    town.fake.integrator(INTEGRATOR + 1, "group-api", PASSWORD, manages=managed)
    town.account("group", AccountKind.INTEGRATOR, INTEGRATOR + 1)
    town.seeded(BRAND, OTHER)
    with town.running() as mirror:
        town.pass_time(mirror, HOUR_S)

        assert {(name, shown.brand) for name, shown in mirror.looking.brands()} == {("acme", BRAND), ("group", OTHER)}
    assert is_fresh(town)
    assert is_fresh(town, OTHER, confirmed=True)


def test_incomplete_list(town: Town) -> None:
    """Where İYS has clearly more consents of a seeded brand than the store, that is told, once."""
    town.provider(brands=(BRAND, OTHER))
    town.seeded(BRAND)
    for brand in (BRAND, OTHER):
        town.fake.tell_consents(brand, 5_000)
    with capture_logs() as told, town.running() as mirror:
        town.pass_time(mirror, 3 * HOUR_S)

    said = [(each["brand"], each["at_iys"], each["stored"]) for each in told if each["event"] == "list_incomplete"]
    assert said == [(BRAND, 5_000, 0)]


class TestOutage:
    """İYS, or this machine, is away for long; case 21."""

    def test_five_days(self, town: Town) -> None:
        """After five days everything is caught up, and nothing was claimed meanwhile."""
        town.provider()
        town.seeded(BRAND)
        with town.running() as mirror:
            town.pass_time(mirror, HOUR_S)
        town.fake.move(BRAND, "IYS", status="RET")
        town.clock.advance(5 * DAY_S)
        with town.running() as mirror:
            town.pass_time(mirror, HOUR_S / 2)

        assert is_fresh(town)
        assert 'consent_feed_rows_total{outcome="applied"} 1.0' in town.scraped()

    def test_nine_days(self, town: Town) -> None:
        """After nine days rows are lost: there is a hole, the watermark stays, and new rows are loaded all the same."""
        town.provider()
        town.seeded(BRAND)
        with town.running() as mirror:
            town.pass_time(mirror, HOUR_S)
        before = town.brand().watermark
        town.clock.advance(9 * DAY_S)
        town.fake.move(BRAND, "IYS", status="RET")
        with town.running() as mirror:
            town.pass_time(mirror, 2 * HOUR_S)

            assert BRAND in mirror.holes
            assert "consent_iys_holes 1.0" in town.scraped()
            assert "consent_iys_gaps_total 2.0" in town.scraped()
        assert town.brand().watermark == before
        assert 'consent_feed_rows_total{outcome="applied"} 1.0' in town.scraped()


class TestSweeps:
    """Rows that come late, behind the cursor, of brands that no file is compared with; case 15."""

    def late(self, town: Town, mirror: Running) -> None:
        """Let a refusal come five hours late, when the cursor is behind it."""
        town.fake.move(BRAND, "HS", status="RET", visible_after_s=5 * HOUR_S)
        town.pass_time(mirror, 60)
        town.fake.move(BRAND, "HS", recipient="+905321000009")
        town.pass_time(mirror, 6 * HOUR_S)
        assert 'consent_feed_rows_total{outcome="applied"} 1.0' in town.scraped()

    def test_at_night(self, town: Town) -> None:
        """Each night the whole window is read once, and what is late is found."""
        town.clock.advance(DAY_S - (town.clock.now() + 3 * HOUR_S) % DAY_S + 12.5 * HOUR_S)  # past noon in Turkey
        town.provider()
        town.seeded(BRAND)
        with town.running() as mirror:
            self.late(town, mirror)
            town.pass_time(mirror, 12 * HOUR_S)

        assert 'consent_feed_rows_total{outcome="applied"} 2.0' in town.scraped()
        swept = [seen for seen in town.fake.asked("changes") if seen.query["limit"] == str(SWEEP_ROWS)]
        assert sum("after" not in seen.query for seen in swept) == len(FeedSource)
        lag_s = town.lag_s()
        assert lag_s is not None
        assert 5 * HOUR_S < lag_s < 6 * HOUR_S, "what came so late may do so again"

    def test_by_command(self, town: Town) -> None:
        """`pull --sweep` finds it at once; without, the command reads on from the cursor."""
        town.clock.advance(DAY_S - (town.clock.now() + 3 * HOUR_S) % DAY_S + 12.5 * HOUR_S)
        town.provider()
        town.seeded(BRAND)
        with town.running() as mirror:
            self.late(town, mirror)
        with town.running() as mirror:
            began_s = town.clock.now()
            mirror.run_once()
            assert town.clock.now() - began_s < 60
            assert mirror.is_complete
            assert 'consent_feed_rows_total{outcome="applied"} 0.0' in town.scraped()
        with town.running() as mirror:
            mirror.run_once(sweep=True)

        assert 'consent_feed_rows_total{outcome="applied"} 1.0' in town.scraped()
