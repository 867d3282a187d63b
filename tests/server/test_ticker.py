"""A thread that is late tells of what stopped it."""

import gc
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from iyscheck.server.metrics import PAUSE_BUCKETS_S, WAITING_BUCKETS_S
from iyscheck.server.ticker import EVERY_S, Pauses, Ticker
from tests.server.processes.running import eventually


class Ticking:
    """A ticker on a clock that the test turns, and what it has noted."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.registry = CollectorRegistry()
        self.delays = Histogram("d", "d", buckets=WAITING_BUCKETS_S, registry=self.registry)
        self.pauses = Pauses(Histogram("p", "p", buckets=PAUSE_BUCKETS_S, registry=self.registry))
        self.ticker = Ticker(self.delays, self.pauses, clock=lambda: self.now_s)

    def shown(self, name: str, **labels: str) -> float:
        """Give a sample."""
        return self.registry.get_sample_value(name, labels) or 0.0


class TestTicker:
    """How late it is."""

    def test_in_time(self) -> None:
        """One that runs when it is due notes no delay."""
        ticking = Ticking()
        for number in range(1, 21):
            ticking.now_s = number * EVERY_S + 1e-6
            ticking.ticker.tick()

        assert 19 <= ticking.shown("d_count") <= 20
        assert ticking.shown("d_bucket", le="0.0001") == ticking.shown("d_count")

    def test_stopped(self) -> None:
        """A second without a turn is twenty delays, up to a second long: the share of delays is a share of time."""
        ticking = Ticking()
        ticking.now_s = 1.0 + EVERY_S
        ticking.ticker.tick()

        assert ticking.shown("d_count") == pytest.approx(21, abs=1)
        assert ticking.shown("d_count") - ticking.shown("d_bucket", le="0.5") == pytest.approx(10, abs=1)
        assert ticking.shown("d_bucket", le="1.0") >= 19

    @given(st.lists(st.floats(0, 10), max_size=30))
    def test_as_many_as_due(self, pauses_s: list[float]) -> None:
        """Whatever it slept over, it notes each due time once."""
        ticking = Ticking()
        for pause_s in pauses_s:
            ticking.now_s += pause_s
            ticking.ticker.tick()

        assert ticking.shown("d_count") == pytest.approx(ticking.now_s / EVERY_S, abs=1)

    def test_for_days(self) -> None:
        """After a very long stop it goes on at once."""
        ticking = Ticking()
        ticking.now_s = 1e6
        ticking.ticker.tick()

        assert ticking.shown("d_count") < 2_000

    def test_runs(self) -> None:
        """Its thread notes delays by itself, and ends."""
        registry = CollectorRegistry()
        delays = Histogram("d", "d", registry=registry)
        before = threading.active_count(), len(gc.callbacks)
        with Ticker(delays, Pauses(Histogram("p", "p", registry=None))):
            eventually(lambda: (registry.get_sample_value("d_count") or 0) >= 3, "it does not tick")

        assert (threading.active_count(), len(gc.callbacks)) == before


class TestPauses:
    """What the garbage collector takes."""

    def test_counted(self) -> None:
        """Each collection is counted once, with its time."""
        ticking = Ticking()
        gc.disable()
        try:
            ticking.pauses.begin()
            for _ in range(5):
                gc.collect()
            ticking.pauses.show()
            ticking.pauses.show()
            ticking.pauses.end()
            gc.collect()
            ticking.pauses.show()
        finally:
            gc.enable()

        assert ticking.shown("p_count") == 5
        assert 0 < ticking.shown("p_sum") < 60

    def test_times(self) -> None:
        """Short ones, which are counted together, and long ones have their own times, each once."""
        now_s, registry = 0.0, CollectorRegistry()
        pauses = Pauses(Histogram("p", "p", buckets=PAUSE_BUCKETS_S, registry=registry), clock=lambda: now_s)
        for took_s in (20e-6, 40e-6, 0.5, 60e-6):
            pauses._note("start", {})  # as Python calls it
            now_s += took_s
            pauses._note("stop", {})
            pauses.show()
        pauses.show()

        assert registry.get_sample_value("p_count") == 4
        assert registry.get_sample_value("p_sum") == pytest.approx(0.50012)
        assert registry.get_sample_value("p_bucket", {"le": "0.0001"}) == 3
        assert registry.get_sample_value("p_bucket", {"le": "0.1"}) == 3

    def test_in_the_middle_of_counting(self) -> None:
        """A collection that comes while something is counted does not wait for that: it would for ever."""
        ticking = Ticking()
        ticking.pauses.begin()
        try:
            with ticking.pauses._seconds._sum._lock:  # what counting holds
                gc.collect()
        finally:
            ticking.pauses.end()
        ticking.pauses.show()

        assert ticking.shown("p_count") >= 1
