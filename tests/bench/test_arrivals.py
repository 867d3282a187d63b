"""The laws of open-loop load, on a clock that only moves when it is told to."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.arrivals import Arrivals, Latencies, pace, percentiles


@dataclass
class Clock:
    """A clock for one lane: whoever works on it moves it."""

    now: float = 0.0

    def read(self) -> float:
        """Tell the time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time go by."""
        self.now += seconds


def latencies_of(service_s: list[float], rate: float) -> tuple[Latencies, list[float]]:
    """Ask a server that handles one request after the other, each in its time; latencies, and when each was sent."""
    clock = Clock()
    arrivals = Arrivals(start=0.0, rate=rate, count=len(service_s))
    latencies = Latencies(arrivals)
    sent = []

    def send(number: int) -> None:
        sent.append(clock.now)
        clock.sleep(service_s[number])
        latencies.answered(number, clock.now)

    pace(arrivals, send, clock.read, clock.sleep)
    return latencies, sent


class TestCoordinatedOmission:
    """A latency counts from when its request was due, whatever held it up."""

    def test_stall(self) -> None:
        """Every request that was due while the server stood still shows the rest of the stall."""
        latencies, _ = latencies_of([1.0] + [0.0] * 99, rate=100)

        np.testing.assert_allclose(latencies.seconds, [1.0 - due / 100 for due in range(100)])

    @given(service_s=st.lists(st.floats(0, 2), min_size=1, max_size=50), rate=st.floats(0.5, 100))
    def test_queue(self, service_s: list[float], rate: float) -> None:
        """Latencies are those of a queue: what was left of the one before, and one's own service."""
        latencies, _ = latencies_of(service_s, rate)

        free_at, expected = 0.0, []
        for number, service in enumerate(service_s):
            free_at = max(free_at, number / rate) + service
            expected.append(free_at - number / rate)
        np.testing.assert_allclose(latencies.seconds, expected, atol=1e-9)

    @given(service_s=st.lists(st.floats(0, 0.009), min_size=1, max_size=50))
    def test_schedule(self, service_s: list[float]) -> None:
        """While sending is fast enough each request leaves exactly when it is due, so nothing drifts."""
        _, sent = latencies_of(service_s, rate=100)

        np.testing.assert_allclose(sent, [number / 100 for number in range(len(service_s))], atol=1e-9)

    def test_unanswered(self) -> None:
        """A request that was never answered is an error, not a latency that is left out."""
        latencies = Latencies(Arrivals(start=0.0, rate=10, count=2))
        latencies.answered(0, 0.1)

        with pytest.raises(ValueError, match="1 requests were never answered"):
            latencies.summary()

    def test_warm_up(self) -> None:
        """Requests of the warm-up are sent and left out of the summary."""
        latencies, _ = latencies_of([5.0, 0.0, 0.0], rate=0.1)

        assert latencies.summary(skip=1)["max"] == 0


class TestPercentiles:
    """Latencies are summed up in ms."""

    def test_known(self) -> None:
        """Percentiles of 1 to 1,001 ms are what one counts by hand."""
        found = percentiles(np.arange(1, 1002) / 1e3)

        assert found == pytest.approx({"p50": 501, "p90": 901, "p99": 991, "p99.9": 1000, "max": 1001})

    def test_none(self) -> None:
        """No latencies have no percentiles."""
        assert percentiles(np.array([])) == {}
