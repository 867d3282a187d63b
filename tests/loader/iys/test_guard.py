"""The guard: most requests succeed, whatever İYS forbids."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from loader.iys.faults import ForbiddenFault, IysFault, RefusedFault
from loader.iys.guard import COUNTED, FAILED_MOST, PROBE_EVERY_S, WATCHED_FROM, Guard
from loader.iys.limits import Limits
from tests.iys.clock import VirtualClock
from tests.iys.fake import FakeIys
from tests.iys.faults import Fault
from tests.loader.iys.client import Client

WATCHED_BY_IYS = 20_000
LEAST_SHARE = 0.7
INTERVAL_S = 600.0


class Streams:
    """A thousand streams that are asked for every ten minutes, of which every third or so is forbidden."""

    def __init__(self, folder: Path, *, forbidden: int, streams: int = 1000) -> None:
        self.clock = VirtualClock()
        self.guard = Guard(Limits(folder), self.clock)
        self.forbidden = forbidden
        self.streams = streams
        self.asked = self.failed = self.held_wrongly = 0

    def turn(self) -> None:
        """Ask once for all; each that was asked for and forbidden."""
        for number in range(self.streams):
            self.clock.advance(INTERVAL_S / self.streams)
            stream = f"GET {number}"
            is_forbidden = number < self.forbidden
            try:
                self.guard.admit(stream)
            except ForbiddenFault:
                self.held_wrongly += not is_forbidden
                continue
            self.asked += 1
            self.failed += is_forbidden
            fault_ = ForbiddenFault("no", status=403, code="H353") if is_forbidden else None
            self.guard.answered(stream, 403 if is_forbidden else 200, fault_)

    @property
    def share(self) -> float:
        """The share of what succeeded."""
        return 1 - self.failed / self.asked


def test_third_is_forbidden(tmp_path: Path) -> None:
    """500 brands with two streams each, 30 % forbidden: seven tenths succeed when İYS begins to look (case 30)."""
    streams = Streams(tmp_path, forbidden=300)
    while streams.asked < WATCHED_BY_IYS:
        streams.turn()
    assert streams.share >= LEAST_SHARE
    assert streams.guard.is_holding()
    assert not streams.held_wrongly
    assert streams.guard.counts() == (streams.asked, streams.failed)


@pytest.mark.thorough
@pytest.mark.parametrize("forbidden", [300, 999])
def test_two_days(tmp_path: Path, forbidden: int) -> None:
    """Whatever part is forbidden: where so much is asked that İYS looks, seven tenths succeed, for two days."""
    streams = Streams(tmp_path, forbidden=forbidden)
    for _ in range(2 * 24 * 6):
        streams.turn()
        asked, failed = streams.guard.counts()
        assert asked < WATCHED_BY_IYS or 1 - failed / asked >= LEAST_SHARE
    assert not streams.held_wrongly


class TestHolding:
    """What is held back."""

    @pytest.fixture
    def guard(self, tmp_path: Path) -> Guard:
        """A guard with so many failures that it holds back what fails."""
        self.clock = VirtualClock()
        self.limits = Limits(tmp_path)
        guard = Guard(self.limits, self.clock)
        guard.answered("bad", 422, RefusedFault("no", status=422, code="H506", location=("source",)))
        guard.answered("good", 200, None)
        with self.limits.held() as limited:
            limited.hours[0].asked, limited.hours[0].failed = WATCHED_FROM, WATCHED_FROM // 8
        return guard

    def test_same_fault(self, guard: Guard) -> None:
        """Who is held back is told what the last request was, and what succeeds goes on."""
        guard.admit("good")
        guard.admit("never asked")
        with pytest.raises(RefusedFault) as told:
            guard.admit("bad")
        assert (told.value.status, told.value.code, told.value.location) == (422, "H506", ("source",))

    def test_probe(self, guard: Guard) -> None:
        """Once an hour one probe goes; when it succeeds the stream is free."""
        self.clock.advance(PROBE_EVERY_S)
        guard.admit("bad")
        with pytest.raises(RefusedFault):
            guard.admit("bad")
        guard.answered("bad", 200, None)
        guard.admit("bad")

    def test_clock_set_back(self, guard: Guard) -> None:
        """A clock that was set back holds nothing back for longer than an hour."""
        self.clock.set(self.clock.now() - 86_400)
        with self.limits.held() as limited:
            limited.hours[0].hour -= 24
        guard.admit("bad")

    def test_not_even_a_probe(self, guard: Guard) -> None:
        """Beyond a quarter there are no probes either; when those hours are a day ago there are again."""
        with self.limits.held() as limited:
            limited.hours[0].failed = max(FAILED_MOST, WATCHED_FROM // 4)
        self.clock.advance(PROBE_EVERY_S)
        with pytest.raises(RefusedFault):
            guard.admit("bad")
        self.clock.advance(26 * PROBE_EVERY_S)
        guard.admit("bad")

    def test_few(self, guard: Guard) -> None:
        """Below the number from which on it is watched, nothing is held back."""
        with self.limits.held() as limited:
            limited.hours[0].asked, limited.hours[0].failed = WATCHED_FROM - 1, FAILED_MOST - 1
        guard.admit("bad")

    def test_nameless(self, guard: Guard) -> None:
        """What has no stream is counted, and never held back."""
        guard.answered("", 400, RefusedFault("no", status=400))
        guard.admit("")
        assert guard.counts() == (WATCHED_FROM + 1, WATCHED_FROM // 8 + 1)


@pytest.mark.parametrize("status", [200, 204, 400, 401, 403, 404, 422, 429, 500, 502])
def test_counted(fake: FakeIys, client: Client, status: int) -> None:
    """What is counted as failed is what İYS counts; the guard and the fake count the same."""
    fake.plan("changes", Fault.said(status, '{"after":null,"list":[]}'))
    with suppress(IysFault):
        client.changes()
    asked, failed = client.guard.counts()
    assert asked == len(fake.requests)
    assert failed == (status in COUNTED)
    assert failed / asked == pytest.approx(1 - fake.success[1])


def test_all_are_counted(tmp_path: Path) -> None:
    """No answer is lost of what many count at once."""
    guards = [Guard(Limits(tmp_path), VirtualClock()) for _ in range(4)]

    def count(guard: Guard) -> None:
        for _ in range(100):
            guard.answered("a", 200, None)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, guards))
    assert guards[0].counts() == (400, 0)


def test_restart(tmp_path: Path) -> None:
    """Counts outlive the process and those of other processes are seen, for a day."""
    clock = VirtualClock()
    for _ in range(3):
        Guard(Limits(tmp_path), clock).answered("a", 403, ForbiddenFault("no", status=403))
    assert Guard(Limits(tmp_path), clock).counts() == (3, 3)
    clock.advance(26 * 3600)
    assert Guard(Limits(tmp_path), clock).counts() == (0, 0)
