"""Brands and their watermarks: how many are fresh, and until when each is complete that was named."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from prometheus_client.core import GaugeMetricFamily, Metric

from iyscheck.consent import CLOCK_TOLERANCE_S
from iyscheck.engine.inventory import Holdings

LATE_SHARE: Final = 0.8
"""A brand is late whose watermark is older than so much of the limit: it answers, but not for long."""
STATES: Final = ("fresh", "late", "stale", "none", "inactive")


@dataclass(frozen=True, slots=True, kw_only=True)
class BrandGauges:
    """Makes the metrics of brands. `limit_s` is the freshness limit, `named` those that have a metric each."""

    limit_s: int
    named: Sequence[int]
    clock: Callable[[], float]

    def of(self, holdings: Holdings) -> Iterator[Metric]:
        """Show how many brands are in which state, and the watermarks that say so."""
        yield GaugeMetricFamily(
            "consent_freshness_limit_seconds", "How old a brand's watermark may be.", float(self.limit_s)
        )
        brands = GaugeMetricFamily("consent_brands", "Registered brands by the state of their data.", labels=("state",))
        for state, number in self.states(holdings).items():
            brands.add_metric([state], number)
        yield brands
        yield GaugeMetricFamily(
            "consent_brands_withheld",
            "Brands that have a watermark which waits for rejected rows to be accepted.",
            holdings.withheld,
        )
        watermarks = holdings.watermarks
        all_of_them = GaugeMetricFamily(
            "consent_watermark_timestamp_seconds", "Until when the brands are complete, UTC.", labels=("agg",)
        )
        if watermarks:
            found = np.fromiter(watermarks.values(), np.int64, len(watermarks))
            for agg, value in (("newest", found.max()), ("median", np.median(found)), ("oldest", found.min())):
                all_of_them.add_metric([agg], float(value))
        yield all_of_them
        each = GaugeMetricFamily(
            "consent_brand_watermark_timestamp_seconds", "Until when a brand is complete, UTC.", labels=("brand",)
        )
        for brand in self.named:
            if brand in watermarks:
                each.add_metric([str(brand)], watermarks[brand])
        yield each

    def states(self, holdings: Holdings) -> dict[str, int]:
        """Count the registered brands by state; ahead of the clock a watermark is as good as none (decision 12)."""
        until = holdings.complete_until
        age = self.clock() - until
        none = until == 0
        stale = ~none & ((age > self.limit_s) | (age < -CLOCK_TOLERANCE_S))
        late = ~none & ~stale & (age > LATE_SHARE * self.limit_s)
        counts = {"late": int(late.sum()), "stale": int(stale.sum()), "none": int(none.sum())}
        counts |= {"inactive": holdings.inactive, "fresh": len(until) - sum(counts.values())}
        return {state: counts[state] for state in STATES}
