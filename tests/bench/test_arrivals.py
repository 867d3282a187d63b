"""The laws of open-loop load, on a clock that only moves when it is told to."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.arrivals import Arrivals, Outcomes, pace, percentiles


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


def latencies_of(service_s: list[float], rate: float, warm: int = 0) -> tuple[Outcomes, list[float]]:
    """Ask a server that handles one request after the other, each in its time; latencies, and when each was sent."""
    clock = Clock()
    arrivals = Arrivals(start=0.0, rate=rate, count=len(service_s), warm=warm)
    latencies = Outcomes(arrivals)
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

    def test_warm_up(self) -> None:
        """Requests of the warm-up are sent and left out of the summary, those without an answer among them too."""
        latencies, _ = latencies_of([5.0, 0.0, 0.0], rate=0.1, warm=1)

        assert latencies.summary() == pytest.approx(
            {"rate": 0.1, "asked": 2} | dict.fromkeys(("p50", "p90", "p99", "p99.9", "max"), 0)
        )

    def test_soon(self) -> None:
        """A schedule begins after now and holds the requests of the warm-up and of the measured time."""
        arrivals = Arrivals.soon(rate=10, seconds=2, warm_s=1, clock=lambda: 5.0)

        assert (arrivals.count, arrivals.warm) == (30, 10)
        assert arrivals.start > 5.0


class TestUnanswered:
    """A request without an answer is a result: counted by the status that it ended with."""

    def test_statuses(self) -> None:
        """Failures are counted by status, what never ended as lost, and the rate is of answers."""
        outcomes = Outcomes(Arrivals(start=0.0, rate=10, count=6, warm=1))
        outcomes.failed(0, "CANCELLED")
        outcomes.failed(1, "CANCELLED")
        outcomes.failed(2, "UNAVAILABLE")
        outcomes.failed(3, "CANCELLED")
        outcomes.answered(4, 0.9)

        found = outcomes.summary()

        assert found["asked"] == 5
        assert found["rate"] == 2
        assert found["max"] == pytest.approx(500)
        assert {name: count for name, count in found.items() if name.startswith("unanswered")} == {
            "unanswered CANCELLED": 2,
            "unanswered UNAVAILABLE": 1,
            "unanswered LOST": 1,
        }

    def test_none(self) -> None:
        """Where nothing was answered there is no measurement, and the error says why."""
        outcomes = Outcomes(Arrivals(start=0.0, rate=10, count=2))
        outcomes.failed(0, "UNAVAILABLE")

        with pytest.raises(ValueError, match=r"none of 2 requests .*'UNAVAILABLE': 1, 'LOST': 1"):
            outcomes.summary()


class TestPercentiles:
    """Latencies are summed up in ms."""

    def test_known(self) -> None:
        """Percentiles of 1 to 1,001 ms are what one counts by hand."""
        found = percentiles(np.arange(1, 1002) / 1e3)

        assert found == pytest.approx({"p50": 501, "p90": 901, "p99": 991, "p99.9": 1000, "max": 1001})

    def test_none(self) -> None:
        """No latencies have no percentiles."""
        assert percentiles(np.array([])) == {}
