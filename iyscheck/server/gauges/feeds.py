"""Feeds and sources, as the store remembers them: so a load from a timer shows too, and no restart loses anything."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from iyscheck.engine.inventory import Holdings
from iyscheck.store.layout import DELAYS_S, FeedState

_BOUNDS: Final = (*(str(float(bound)) for bound in DELAYS_S), "+Inf")


def feed_gauges(holdings: Holdings) -> Iterator[Metric]:
    """Show the sources by state, and of each feed when it came, how often it should, and how late its refusals were."""
    sources = GaugeMetricFamily("consent_sources", "Sources in the store.", labels=("state",))
    loaded = holdings.sources - holdings.unfinished - holdings.held
    for state, number in (("finished", loaded), ("unfinished", holdings.unfinished), ("held", holdings.held)):
        sources.add_metric([state], number)
    yield sources
    yield GaugeMetricFamily(
        "consent_rejected_rows_waiting", "Rejected rows that nobody has accepted yet.", holdings.rejected_rows
    )
    feeds = holdings.feeds
    yield from _times(feeds)
    yield from _refusals(feeds)


def _times(feeds: Sequence[FeedState]) -> Iterator[Metric]:
    labels = ("feed",)
    applied = GaugeMetricFamily(
        "consent_feed_last_applied_timestamp_seconds", "When the feed's last commit was made, UTC.", labels=labels
    )
    succeeded = GaugeMetricFamily(
        "consent_feed_last_success_timestamp_seconds",
        "When a source of the feed was last loaded to its end, UTC.",
        labels=labels,
    )
    interval = GaugeMetricFamily(
        "consent_feed_expected_interval_seconds", "How long may lie between two of these.", labels=labels
    )
    for feed in feeds:
        for metric, value in ((applied, feed.committed), (succeeded, feed.succeeded), (interval, feed.interval)):
            if value:  # 0 is unknown
                metric.add_metric([feed.name], value)
    yield from (applied, succeeded, interval)


def _refusals(feeds: Sequence[FeedState]) -> Iterator[Metric]:
    labels = ("feed",)
    delay = HistogramMetricFamily(
        "consent_feed_refusal_delay_seconds",
        "From a live refusal's registration to the commit that made it visible.",
        labels=labels,
    )
    all_of_them = CounterMetricFamily("consent_feed_refusals", "Live refusals that became visible.", labels=labels)
    late = CounterMetricFamily("consent_feed_refusals_late", "Those later than was promised.", labels=labels)
    for feed in feeds:
        counts = zip(_BOUNDS, map(float, accumulate(feed.delays)), strict=True)
        delay.add_metric([feed.name], buckets=list(counts), sum_value=feed.delay_sum)
        all_of_them.add_metric([feed.name], feed.refusals)
        late.add_metric([feed.name], feed.late)
    yield from (delay, all_of_them, late)
