"""How to load, and what may be asked of a load."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iyscheck.consent import CLOCK_TOLERANCE_S
from iyscheck.errors import WatermarkError
from iyscheck.kernel import Kernel
from iyscheck.store.deliveries import PROMISE_S, Delivery
from loader.loading.claims import Claim
from loader.loading.sorted_runs import RUN_ROWS
from loader.reading import times

COMMIT_ROWS: Final = 50_000
FILL_BYTES: Final = 2**24
"""From this size of a source on an empty store is filled in one sorted transaction: more than one commit's worth."""
ALL_BRANDS: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedTerms:
    """Which feed is loaded, and what is expected of it; the rest as in `Delivery`."""

    name: str
    every_s: int | None = None
    promise_s: int = PROMISE_S
    learns: bool = False

    def delivery(self, now_s: float) -> Delivery:
        """Make that of a commit."""
        return Delivery(
            feed=self.name,
            now_s=int(now_s),
            local_s=times.local_now(now_s),
            every_s=self.every_s,
            promise_s=self.promise_s,
            learns=self.learns,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to load. `watermarks` are (brand, or 0 for all, seconds UTC), moved when the last source is in.

    `claim` says of the one source that it is everything of a day. `memory` is how many bytes may be taken, None if
    nobody knows. Without `feed` the store keeps nothing of when and how late the rows came.
    """

    rejects: Path
    brand: int | None = None
    watermarks: tuple[tuple[int, int], ...] = ()
    claim: Claim | None = None
    commit_rows: int = COMMIT_ROWS
    fill_bytes: int = FILL_BYTES
    run_rows: int = RUN_ROWS
    memory: int | None = None
    kernel: Kernel = Kernel.NUMPY
    feed: FeedTerms | None = None


def check_watermark(until: int, now_s: float) -> None:
    """Refuse a watermark that lies ahead of the clock. Raises WatermarkError."""
    if until > now_s + CLOCK_TOLERANCE_S:
        raise WatermarkError(
            f"A watermark of {times.turkish_text(until)} is in the future: now it is {times.turkish_text(int(now_s))} "
            "in Turkey.",
            fix="Say until when the data is complete, not until when it should be; or correct this machine's clock.",
        )
