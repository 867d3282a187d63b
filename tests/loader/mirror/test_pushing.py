"""What of pushes goes on where something fails: the tail of the journal, registrations, new credentials."""

import dataclasses
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from iyscheck.consent import Channel
from iyscheck.errors import StoreFullError
from iyscheck.store.writer import Writer
from loader.iys.faults import IysFault, RefusedFault, TransientFault
from loader.iys.messages import ListedBrand, PushAddress
from loader.mirror.pushing import AGAIN_MAX_S, HOUR_S, Registrations, Tail
from loader.mirror.registering import not_pushed, register, unregister
from loader.push.credentials import Credentials
from loader.reports.push import PushedMetrics
from tests.builders import ADDRESS_KEY
from tests.iys.clock import RunningClock, VirtualClock
from tests.iys.fake import FakeIys
from tests.iys.faults import Fault
from tests.loader.push.receiving import BRAND, IYS_CODE, received
from tests.loader.sources import test_pushed
from tests.loader.sources.test_pushed import NOW, Bench

ROW = test_pushed.TestPushed.ROW
URL = "https://push.example.com/push"
LISTED = ListedBrand(brand=BRAND, iys_code=IYS_CODE, name="", channels=frozenset({Channel.MESAJ, Channel.EPOSTA}))


class Office:
    """What İYS knows of pushes; `faults` come before it does anything."""

    def __init__(self) -> None:
        self.known: set[tuple[int, Channel, str]] = set()
        self.broken: set[Channel] = set()
        self.faults: list[IysFault] = []
        self.asked = 0

    def register_push(
        self, _iys_code: int, brand: int, url: str, channel: Channel, username: str, password: str
    ) -> None:
        """Register an address."""
        self._fail()
        assert url == URL
        assert password
        self.known.add((brand, channel, username))
        self.broken.discard(channel)

    def pushes(self, _iys_code: int, brand: int) -> tuple[PushAddress, ...]:
        """List addresses."""
        self.asked += 1
        self._fail()
        here = sorted((channel, name) for each, channel, name in self.known if each == brand)
        return tuple(PushAddress(url=URL, channel=channel, is_good=channel not in self.broken) for channel, _ in here)

    def unregister_push(
        self, _iys_code: int, brand: int, url: str, channel: Channel, username: str, password: str
    ) -> None:
        """Forget an address."""
        self._fail()
        assert (url, bool(password)) == (URL, True)
        if (brand, channel, username) not in self.known:
            raise RefusedFault("not there", status=422, code="H530")
        self.known.remove((brand, channel, username))

    def _fail(self) -> None:
        if self.faults:
            raise self.faults.pop(0)


@pytest.fixture(name="credentials")
def _credentials(tmp_path: Path) -> Credentials:
    return Credentials.of(tmp_path / "push")


def registered(office: Office, credentials: Credentials) -> list[IysFault | None]:
    """Register the brand; gives the fault of each channel."""
    done = register(office, credentials, [LISTED], account="acme", url=URL, key=ADDRESS_KEY, now_s=NOW)
    return [outcome.fault for outcome in done]


class TestCredentials:
    """When credentials stay, and when they go."""

    def test_refused(self, credentials: Credentials) -> None:
        """Where İYS refuses all of it, the credentials go."""
        office = Office()
        office.faults = [RefusedFault("no", status=422, code="H530")] * 2

        assert all(registered(office, credentials))
        assert not credentials.all()

    def test_unanswered(self, credentials: Credentials) -> None:
        """Where İYS may have registered and only its answer was lost, they stay: their password will be asked for."""
        office = Office()
        office.faults = [TransientFault("no answer")] * 2

        assert all(registered(office, credentials))
        assert len(credentials.all()) == 1

    def test_ended(self, credentials: Credentials) -> None:
        """They go when İYS has forgotten all of their addresses, and stay, retired, while it has not."""
        office = Office()
        registered(office, credentials)
        (credential,) = credentials.all()
        office.faults = [TransientFault("no answer")]
        unregister(office, credentials, credential, url=URL, key=ADDRESS_KEY, now_s=NOW)
        assert [each.retired_s for each in credentials.all()] == [NOW]

        unregister(office, credentials, credential, url=URL, key=ADDRESS_KEY, now_s=NOW)
        assert not credentials.all()
        assert not office.known

    def test_moved(self, credentials: Credentials) -> None:
        """They are ended at the address that İYS was told, whatever the feeds file says now."""
        office = Office()
        registered(office, credentials)
        (credential,) = credentials.all()
        elsewhere = "https://elsewhere.example.com/push"
        unregister(office, credentials, credential, url=elsewhere, key=ADDRESS_KEY, now_s=NOW)

        assert not office.known


class Watching:
    """The part that looks each hour, and the clock."""

    def __init__(self, office: Office, credentials: Credentials) -> None:
        self.clock = VirtualClock(NOW)
        self.registry = CollectorRegistry()
        self.listed: ListedBrand | None = LISTED
        self.others: list[ListedBrand] = []
        self.part = Registrations(
            credentials,
            {"acme": office},
            url=URL,
            key=ADDRESS_KEY,
            listed=lambda: [("acme", each) for each in (self.listed, *self.others) if each is not None],
            metrics=PushedMetrics(self.registry),
            clock=self.clock,
        )

    def look(self) -> bool:
        """Do what is due; say whether anything was."""
        task = self.part.next()
        if task is None:
            return False
        try:
            answer = task.ask()
        except IysFault as fault:
            answer = fault
        task.take(answer)
        return True

    def broken(self) -> float | None:
        """Return how many connections the metrics say are broken."""
        return self.registry.get_sample_value("consent_push_connections", {"state": "broken"})


@pytest.fixture(name="office")
def _office() -> Office:
    return Office()


@pytest.fixture(name="watching")
def _watching(office: Office, credentials: Credentials) -> Watching:
    registered(office, credentials)
    return Watching(office, credentials)


class TestRegistrations:
    """Whether İYS still pushes."""

    def test_hourly(self, office: Office, watching: Watching) -> None:
        """It is asked at once and then each hour, and nothing is registered that is."""
        before = set(office.known)
        assert watching.look()
        assert not watching.look()
        watching.clock.advance(HOUR_S)
        assert watching.look()
        assert (office.asked, office.known, watching.broken()) == (2, before, 0)

    @pytest.mark.parametrize("is_gone", [True, False])
    def test_again(self, office: Office, watching: Watching, *, is_gone: bool) -> None:
        """What İYS has forgotten, or cannot connect to, is registered again."""
        before = set(office.known)
        if is_gone:
            office.known = {each for each in office.known if each[1] is not Channel.MESAJ}
        else:
            office.broken = {Channel.MESAJ}
        watching.look()
        assert (office.known, office.broken, watching.broken()) == (before, set(), 0)

    def test_less_and_less(self, office: Office, watching: Watching) -> None:
        """What cannot be registered is told of, and tried after one, two, four hours, and then each six."""
        pauses = []
        for _ in range(5):
            office.faults = [TransientFault("no answer")]
            assert watching.look()
            assert watching.broken() == 2
            due = watching.part.next_s
            assert due is not None
            pauses.append(due - watching.clock.now())
            watching.clock.advance(pauses[-1])
        assert pauses == [HOUR_S, 2 * HOUR_S, 4 * HOUR_S, AGAIN_MAX_S, AGAIN_MAX_S]
        watching.look()
        assert watching.broken() == 0

    def test_not_ours_any_more(self, office: Office, watching: Watching, credentials: Credentials) -> None:
        """A brand that İYS does not list, and credentials that are retired, are not asked for."""
        watching.listed = None
        watching.look()
        assert office.asked == 0
        (credential,) = credentials.all()
        credentials.put(msgspec.structs.replace(credential, retired_s=NOW))
        watching.clock.advance(HOUR_S)
        assert not watching.look()

    def test_new_brand(self, watching: Watching) -> None:
        """A brand that comes to an account whose others are pushed counts as not pushed, until it is registered."""
        watching.look()
        assert watching.broken() == 0
        watching.others.append(dataclasses.replace(LISTED, brand=BRAND + 1))
        watching.clock.advance(HOUR_S)
        watching.look()
        assert watching.broken() == 2

    def test_not_pushed(self, office: Office, credentials: Credentials) -> None:
        """Only what is not pushed here yet is registered: İYS has two places for a channel."""
        new = dataclasses.replace(LISTED, brand=BRAND + 1)
        registered(office, credentials)
        assert not_pushed(office, [LISTED], URL) == ()
        office.broken = {Channel.MESAJ}
        some = dataclasses.replace(LISTED, channels=frozenset({Channel.MESAJ}))
        assert not_pushed(office, [LISTED, new], URL) == (some, new)


class TestTail:
    """What brings pushed rows into the store."""

    def test_full(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A full disk ends nothing: when there is room again, what was pushed meanwhile is in the store."""
        bench = Bench(tmp_path)
        bench.push([ROW])
        registry = CollectorRegistry()
        with bench.writer() as writer:
            tail = Tail(bench.pushed(writer), PushedMetrics(registry), folder=tmp_path, clock=bench.clock)
            with monkeypatch.context() as full:
                full.setattr(Writer, "apply", _full)
                tail()
                tail()
            assert _applied(registry) == 0
            tail()
        assert _applied(registry) == 1
        assert bench.kept == [ROW]


def _full(*_: object, **__: object) -> None:
    raise StoreFullError("The disk is full.")


def _applied(registry: CollectorRegistry) -> float | None:
    return registry.get_sample_value("consent_push_read_rows_total", {"outcome": "applied"})


@pytest.mark.thorough
@pytest.mark.slow
def test_rotated_by_halves(tmp_path: Path) -> None:
    """New credentials that İYS takes for a part only are taken back: the old ones stay, and the next try has room."""
    with received(tmp_path) as receiving:
        fake = FakeIys(clock=RunningClock())
        fake.provider(IYS_CODE, "acme", "secret", brands=[BRAND])
        with fake.running() as url:
            receiving.authority.cert_pem.write_to_path(tmp_path / "authority.pem")
            fake.trust(tmp_path / "authority.pem")
            receiving.configure(url)
            assert receiving.said("register", "acme")[0] == 0
            (old,) = Credentials.of(receiving.push).all()
            for _ in range(3):
                fake.plan("register_push", Fault.forbidden(), nth=2)
                assert receiving.said("rotate", "acme")[0] == 1
                assert [each.name for each in Credentials.of(receiving.push).all()] == [old.name]
                assert [each.username for each in fake.world.pushes.registered] == [old.name] * 3
            assert receiving.said("rotate", "acme")[0] == 0
            (new,) = Credentials.of(receiving.push).all()
            assert new.name != old.name
            assert [each.username for each in fake.world.pushes.registered] == [new.name] * 3
