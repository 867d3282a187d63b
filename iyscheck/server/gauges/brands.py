"""Brands and their watermarks: how many are fresh, and until when each is complete that was named."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric

from iyscheck.engine.inventory import Holdings
from iyscheck.overview import BRAND_STATES, BrandState, states_of_data

STATES: Final = tuple(state for state in BRAND_STATES if state is not BrandState.UNREGISTERED)
"""Of registered brands."""


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
            found = sorted(watermarks.values())  # of an even number the median is the older of the middle two
            for agg, value in (("newest", found[-1]), ("median", found[(len(found) - 1) // 2]), ("oldest", found[0])):
                all_of_them.add_metric([agg], value)
        yield all_of_them
        each = GaugeMetricFamily(
            "consent_brand_watermark_timestamp_seconds", "Until when a brand is complete, UTC.", labels=("brand",)
        )
        for brand in self.named:
            if brand in watermarks:
                each.add_metric([str(brand)], watermarks[brand])
        yield each

    def states(self, holdings: Holdings) -> dict[str, int]:
        """Count the registered brands by state."""
        active = Counter(states_of_data(holdings.complete_until, self.clock(), self.limit_s).tolist())
        active[BrandState.INACTIVE] = holdings.inactive
        return {state.name.lower(): active[state] for state in STATES}
