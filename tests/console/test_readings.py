"""Pages of metrics: what was counted between two of them, and what share of observations took how long."""

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from iyscheck.consent import Channel, Reason
from iyscheck.console.readings import (
    BOUNDS_S,
    CALLS,
    CALLS_FAILED,
    CHECK,
    REASONS,
    Reading,
    bucket,
    columns,
    quantile,
    together,
)
from iyscheck.server.metrics import LATENCY_BUCKETS_S, Metrics

SERVICE = "iyscheck.v1.ConsentCheckService"


class Counted:
    """A server's metrics as far as the console reads them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("grpc_type", "grpc_service", "grpc_method", "front")
        self.handled = Counter("grpc_server_handled", "d", (*labels, "grpc_code"), registry=self.registry)
        self.seconds = Histogram(
            "grpc_server_handling_seconds", "d", labels, buckets=LATENCY_BUCKETS_S, registry=self.registry
        )
        self.decisions = Counter(
            "consent_check_decisions", "d", ("decision", "reason", "channel"), registry=self.registry
        )

    def call(self, seconds: float, code: str = "OK", service: str = SERVICE) -> None:
        """Count a call."""
        of = ("unary", service, "Check", "grpc")
        self.handled.labels(*of, code).inc()
        self.seconds.labels(*of).observe(seconds)

    def reading(self) -> Reading:
        """Read the page."""
        return Reading.of(generate_latest(self.registry).decode())


def test_bounds_are_the_servers() -> None:
    """What a server counts under a bound is counted under the same one here."""
    assert (*LATENCY_BUCKETS_S, math.inf) == BOUNDS_S


def test_names_are_the_servers() -> None:
    """The real page of a server has what is read."""
    metrics = Metrics()
    before = Reading.of(generate_latest(metrics.registry).decode())
    metrics.decisions.count(Channel.MESAJ, Reason.REFUSED, 5)
    metrics.decisions.count(Channel.EPOSTA, Reason.REFUSED, 2)

    counted = Reading.of(generate_latest(metrics.registry).decode()).since(before)

    assert counted[Reason.REFUSED.name] == 7
    assert set(counted) <= set(columns())
    names = {family.name for family in metrics.registry.collect()}
    assert names >= {"grpc_server_handled", "grpc_server_handling_seconds", "consent_check_decisions"}


def test_whose_fault() -> None:
    """Where a server says whose fault it was that counts, and not the code."""
    before = 'consent_not_answered_total{unit="call",reason="STORE",fault="server"} 1\n'
    after = before.replace(" 1", " 3") + (
        'consent_not_answered_total{unit="frame",reason="STORE",fault="server"} 9\n'
        'consent_not_answered_total{unit="call",reason="CANCELED",fault="caller"} 9\n'
        'grpc_server_handled_total{grpc_service="iyscheck.v1.ConsentCheckService",grpc_code="Internal"} 9\n'
    )

    counted = Reading.of(after).since(Reading.of(before))

    assert (counted[CALLS_FAILED], counted[CALLS]) == (2, 9)


def test_counted_between() -> None:
    """What was counted before the first of two pages is not counted again; other services count nowhere."""
    server = Counted()
    server.call(0.00005)
    server.decisions.labels("deny", "REFUSED", "MESAJ").inc(3)
    before = server.reading()
    server.call(0.003)
    server.call(0.3, "Unavailable")
    server.call(0.3, "Canceled")
    server.call(0.3, "Internal", "grpc.health.v1.Health")
    server.decisions.labels("deny", "REFUSED", "EPOSTA").inc(4)

    counted = server.reading().since(before)

    assert (counted["REFUSED"], counted[CALLS], counted[CALLS_FAILED]) == (4, 3, 1)
    assert counted[bucket(CHECK, BOUNDS_S.index(0.005))] == 1
    assert sum(counted[bucket(CHECK, place)] for place in range(len(BOUNDS_S))) == 4


def test_restarted() -> None:
    """After a server's start its totals count as a whole, and nothing is counted below zero."""
    old, new = Counted(), Counted()
    for _ in range(5):
        old.call(0.00005)
    new.call(0.00005)
    new.call(0.003)

    counted = new.reading().since(old.reading())

    assert counted[CALLS] == 2
    assert counted[bucket(CHECK, BOUNDS_S.index(50e-6))] == 1
    assert counted[bucket(CHECK, BOUNDS_S.index(0.005))] == 1


def test_what_is_not_there_is_not_known() -> None:
    """A page without a metric says nothing of it, rather than zero."""
    assert Reading.of("# nothing\n").since(Reading.of("")) == {}


@pytest.mark.parametrize("page", ["<html>no</html>", "consent_check_decisions_total{reason= 1"])
def test_no_page_of_metrics(page: str) -> None:
    """What is no page of metrics is told as that."""
    with pytest.raises(ValueError, match="no page of metrics"):
        Reading.of(page)


@given(st.text(alphabet='abc_total{}"=\\ 1eN+-.#\n', max_size=40))
def test_any_page(page: str) -> None:
    """Whatever a page says, it is read or told to be none."""
    with suppress(ValueError):
        Reading.of(page)


@pytest.mark.parametrize("odd", ["+Inf", "-Inf", "NaN", "1e308", "-1"])
def test_odd_numbers(odd: str) -> None:
    """What nobody can have counted is not taken, and what is beside it is."""
    pages = [
        f'consent_check_decisions_total{{reason="REFUSED"}} {odd}\n'
        f'consent_check_decisions_total{{reason="MERCHANT_NOT_REFUSED"}} {count}\n'
        f'grpc_server_handling_seconds_bucket{{grpc_method="Check",le="0.001"}} {odd}\n'
        f'grpc_server_handling_seconds_bucket{{grpc_method="Check",le="0.002"}} {count}\n'
        f'grpc_server_handling_seconds_bucket{{grpc_method="Check",le="NaN"}} {count}\n'
        for count in (1, 3)
    ]
    counted = Reading.of(pages[1]).since(Reading.of(pages[0]))

    assert counted["MERCHANT_NOT_REFUSED"] == 2.0
    assert "REFUSED" not in counted
    assert sum(counted[bucket(CHECK, place)] for place in range(len(BOUNDS_S))) == 2.0


def test_together() -> None:
    """Servers add up; what only one of them has is kept."""
    assert together([{"a": 1.0, "b": 2.0}, {"a": 3.0}]) == {"a": 4.0, "b": 2.0}


@given(st.lists(st.floats(1e-6, 50), min_size=1, max_size=60), st.sampled_from([0.5, 0.9, 0.99]))
def test_quantile(times: list[float], share: float) -> None:
    """It lies under the same bound as the true one does; beyond the last bound it is that bound."""
    places = sorted(next(at for at, bound in enumerate(BOUNDS_S) if time <= bound) for time in times)
    counts = [float(places.count(place)) for place in range(len(BOUNDS_S))]
    place = places[max(0, math.ceil(share * len(places)) - 1)]

    found = quantile(share, counts)

    assert found is not None
    lower, upper = BOUNDS_S[place - 1] if place else 0.0, BOUNDS_S[place]
    assert lower <= found <= min(upper, BOUNDS_S[-2]) * (1 + 1e-9)


def test_no_quantile() -> None:
    """Where nothing was observed there is none."""
    assert quantile(0.99, [math.nan] * len(BOUNDS_S)) is None
    assert quantile(0.99, [0.0] * len(BOUNDS_S)) is None


def test_every_reason_is_read() -> None:
    """Every reason that a server may give has its column."""
    assert set(REASONS) == {reason.name for reason in Reason} - {"UNSPECIFIED"}
    assert set(REASONS) <= set(columns())
