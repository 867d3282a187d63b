"""Where a brand's data has a hole: something behind its watermark is in, and what lies between is not."""

from collections.abc import Iterable

from iyscheck.store.layout import Span


def hole_of(watermark: int | None, spans: Iterable[Span]) -> Span | None:
    """Find the first time of which nobody has proved that it is in, though something later is; seconds UTC.

    Args:
        watermark: the brand's, seconds UTC; None if it has none: then it lacks all that was before, which is no hole.
        spans: its proved spans.
    """
    if watermark is None:
        return None
    end = watermark
    for span in sorted(spans, key=lambda span: span.start):
        if span.start > end:
            return Span(brand=span.brand, start=end, end=span.start)
        end = max(end, span.end)
    return None
