"""Where a brand's data has a hole: something behind its watermark is in, and what lies between is not."""

from collections.abc import Iterable

from iyscheck.errors import GapError
from iyscheck.store.layout import Span
from iyscheck.store.writer import Writer


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


def end_of_hole(writer: Writer, brand: int) -> int:
    """Find where a brand's hole ends, seconds UTC. Raises GapError where it has none."""
    watermark, spans, _ = writer.coverage(brand)
    hole = hole_of(watermark, spans)
    if hole is not None:
        return hole.end
    if watermark is None:
        return 0  # the store refuses whatever end, and says why
    raise GapError(f"Brand {brand} has no hole.", fix="'iyscheck-loader status' shows those that have one.")
