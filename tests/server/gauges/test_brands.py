"""Brands by the state of their data, and watermarks as metrics."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from iyscheck.change import Position
from iyscheck.engine.inventory import Holdings
from iyscheck.server.gauges.brands import BrandGauges
from tests.builders import NOW

LIMIT_S = 1_000


def holdings(complete_until: Sequence[int] = (), watermarks: Mapping[int, int] | None = None) -> Holdings:
    """Make those of a store with active brands that are complete until then, and two inactive ones."""
    return Holdings(
        position=Position(b"l" * 16, 5),
        watermarks=watermarks or {},
        complete_until=np.array(complete_until, np.int64),
        inactive=2,
        withheld=3,
        rejected_rows=4,
        sources=7,
        unfinished=1,
        held=2,
        feeds=(),
    )


def gauges(named: Sequence[int] = ()) -> BrandGauges:
    """Make those of a limit of LIMIT_S at NOW."""
    return BrandGauges(limit_s=LIMIT_S, named=named, clock=lambda: NOW)


@pytest.mark.parametrize(
    ("age_s", "state"),
    [
        (-301, "stale"),
        (-300, "fresh"),
        (0, "fresh"),
        (800, "fresh"),
        (801, "late"),
        (1_000, "late"),
        (1_001, "stale"),
        (NOW, "none"),
    ],
)
def test_states(age_s: int, state: str) -> None:
    """Fresh and stale are as checks see them; late is older than four fifths of the limit; no watermark is none."""
    counts = gauges().states(holdings([NOW - age_s]))

    assert counts == {"fresh": 0, "late": 0, "stale": 0, "none": 0, "inactive": 2} | {state: 1}


def test_sum() -> None:
    """Each registered brand is in one state."""
    counts = gauges().states(holdings([0, NOW, NOW - 900, NOW - 5_000, NOW + 5_000]))

    assert counts == {"fresh": 1, "late": 1, "stale": 2, "none": 1, "inactive": 2}


def shown(found: Holdings, named: Sequence[int] = ()) -> dict[str, dict[str, float]]:
    """Show metrics by name, and their values by the only label."""
    return {
        metric.name: {"".join(sample.labels.values()): sample.value for sample in metric.samples}
        for metric in gauges(named).of(found)
    }


def test_watermarks() -> None:
    """Newest, median and oldest are of all brands; named ones have their own, where they have any."""
    metrics = shown(holdings(watermarks={1: NOW, 2: NOW - 10, 3: NOW - 4_000}), named=(3, 9))

    assert metrics["consent_watermark_timestamp_seconds"] == {"newest": NOW, "median": NOW - 10, "oldest": NOW - 4_000}
    assert metrics["consent_brand_watermark_timestamp_seconds"] == {"3": NOW - 4_000}
    assert metrics["consent_freshness_limit_seconds"] == {"": LIMIT_S}
    assert metrics["consent_brands_withheld"] == {"": 3}


def test_no_watermark() -> None:
    """Where no brand has one there is none to show, and no failure."""
    metrics = shown(holdings(), named=(1,))

    assert metrics["consent_watermark_timestamp_seconds"] == {}
    assert metrics["consent_brand_watermark_timestamp_seconds"] == {}
    assert metrics["consent_brands"]["none"] == 0
