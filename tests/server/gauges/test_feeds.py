"""Feeds and sources as metrics."""

from dataclasses import replace
from typing import Any

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from iyscheck.server.gauges.feeds import feed_gauges
from iyscheck.store.layout import DELAYS_S, FeedState
from tests.server.gauges.test_brands import holdings

DELAYS = (3, 60, 61, 5_000, 700_000)
FEED = FeedState(
    name="daily",
    committed=11,
    succeeded=10,
    every=86_400,
    rhythm=90_000,
    refusals=5,
    late=1,
    delays=(2, 1, 0, 1, 0, 0, 0, 0, 1),
    delay_sum=sum(DELAYS),
)


def shown(*feeds: FeedState) -> dict[str, Metric]:
    """Make the metrics of feeds."""
    return {metric.name: metric for metric in feed_gauges(replace(holdings(), feeds=feeds))}


def test_sources() -> None:
    """Each source is in one state, finished ones are the rest, and the rows that wait stand beside them."""
    metrics = shown()

    states = {sample.labels["state"]: sample.value for sample in metrics["consent_sources"].samples}
    assert states == {"finished": 4, "unfinished": 1, "held": 2}
    assert [sample.value for sample in metrics["consent_rejected_rows_waiting"].samples] == [4]


def test_times() -> None:
    """Each feed has its times and its interval; what is unknown is not there, and is never 0."""
    metrics = shown(FEED, FeedState(name="new"))

    for name, value in (("last_applied_timestamp", 11), ("last_success_timestamp", 10), ("expected_interval", 86_400)):
        found = {sample.labels["feed"]: sample.value for sample in metrics[f"consent_feed_{name}_seconds"].samples}
        assert found == {"daily": value}


def test_refusals() -> None:
    """Counts begin at 0, and delays look as if each had been observed."""
    metrics = shown(FEED, FeedState(name="new"))
    observed: Any = Histogram("x", "x", buckets=DELAYS_S, registry=None)
    for delay in DELAYS:
        observed.observe(delay)

    (like,) = observed.collect()
    expected = [(sample.name[1:], sample.labels, sample.value) for sample in like.samples]
    delays = metrics["consent_feed_refusal_delay_seconds"]
    found = [
        (
            sample.name.removeprefix(delays.name),
            {"le": sample.labels["le"]} if "le" in sample.labels else {},
            float(sample.value),
        )
        for sample in delays.samples
        if sample.labels["feed"] == "daily"
    ]
    assert sorted(map(str, found)) == sorted(str(each) for each in expected if each[0] != "_created")
    for name, value in (("consent_feed_refusals", 5), ("consent_feed_refusals_late", 1)):
        assert {sample.labels["feed"]: sample.value for sample in metrics[name].samples} == {"daily": value, "new": 0}


class Shown(Collector):
    """Shows the metrics of a feed."""

    def collect(self) -> Any:  # noqa: ANN401 - an iterator of metrics
        """Give them."""
        return feed_gauges(replace(holdings(), feeds=(FEED,)))


def test_registered() -> None:
    """A registry takes them, and finds the counters by the names that Prometheus uses."""
    registry = CollectorRegistry()
    registry.register(Shown())

    assert registry.get_sample_value("consent_feed_refusals_late_total", {"feed": "daily"}) == 1
    assert registry.get_sample_value("consent_feed_refusal_delay_seconds_count", {"feed": "daily"}) == 5
