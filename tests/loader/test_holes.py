"""Holes in a brand's data, against a model of single seconds."""

from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.store.layout import Span
from loader.loading.holes import hole_of
from tests.dice import often

TIMES = st.integers(1, 12)
SPANS = st.lists(
    st.tuples(TIMES, st.integers(1, 4)).map(lambda span: Span(brand=5, start=span[0], end=sum(span))), max_size=4
)


@given(watermark=TIMES, spans=SPANS)
@settings(max_examples=often(600), deadline=None)
def test_hole(watermark: int, spans: list[Span]) -> None:
    """A hole begins where what is in without a break ends, and ends where the next thing that is in begins."""
    covered = {second for span in spans for second in range(span.start, span.end)}
    end = watermark
    while end in covered:
        end += 1
    later = [second for second in covered if second > end]

    hole = hole_of(watermark, spans)

    assert hole == (Span(brand=5, start=end, end=min(later)) if later else None)


def test_no_watermark() -> None:
    """A brand without a watermark lacks all that was before: that is no hole that anybody could fill."""
    assert hole_of(None, [Span(brand=5, start=1, end=2)]) is None
