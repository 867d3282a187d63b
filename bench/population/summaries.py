"""What a written file holds."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from bench.population.examples import Flip


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedSummary:
    """What a first feed holds. `complete_until` is its watermark as İYS text."""

    path: Path
    rows: int
    brands: int
    consents: int
    onay: int
    ret: int
    unknown: int
    retailer_access: int
    watermarks: int
    complete_until: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeSummary:
    """What a wave of changes holds, and up to 100 recipients to whom it turns CONSENTED into REFUSED."""

    path: Path
    rows: int
    changes: int
    refused: int
    refreshed: int
    closed: int
    renewed: int
    added: int
    watermarks: int
    complete_until: str
    flips: tuple[Flip, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DailySummary:
    """What a daily file holds; loading it with `--date` moves the watermark to the end of the day."""

    path: Path
    rows: int
    brand: int
    day: date
