"""What a walk through a stream says: what to ask, what to commit, and how it ended."""

from dataclasses import dataclass
from enum import StrEnum

from loader.iys.faults import IysFault
from loader.iys.messages import FeedSource
from loader.sources.names import stream_name
from loader.sources.pull.terms import Doubt


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One half of a brand's changes."""

    iys_code: int
    brand: int
    source: FeedSource

    @property
    def name(self) -> str:
        """Under which its state, its rejects and its hold are kept."""
        return stream_name(self.iys_code, self.brand, self.source)

    @property
    def other(self) -> "Stream":
        """The other half."""
        source = FeedSource.IYS if self.source is FeedSource.HS else FeedSource.HS
        return Stream(iys_code=self.iys_code, brand=self.brand, source=source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A page that is wanted, when `delay_s` seconds have passed. `after` is a cursor, None for the window's start."""

    after: str | None
    limit: int
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """The end of a pass: everything that İYS showed was read.

    `until` is what may be claimed (seconds UTC), 0 where nothing may. The pass began at `began`, and as a sweep it read
    everything that was registered from `since` on. The latest of its rows was `late` by so many seconds. `clean` says
    that no doubt came up in it, `skewed` that the clocks differed too much for a claim.
    """

    until: int
    polled_at: int
    began: int
    sweep: bool
    since: int
    rows: int
    late: int
    clean: bool
    skewed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What belongs into one transaction: rows, and what they mean for the stream.

    `cursor` None leaves the one that is stored, an empty one drops it. `covered_from` (seconds UTC) is where coverage
    begins, of a stream that has none; with `gap` it begins there anew. `doubt` came up at `doubted_at`.
    """

    rows: tuple[dict[str, object], ...] = ()
    cursor: str | None = None
    covered_from: int = 0
    gap: bool = False
    doubt: Doubt | None = None
    doubted_at: int = 0
    reached: Reached | None = None


class Ending(StrEnum):
    """How a walk ended. Only the first means that everything was read."""

    COMPLETE = "COMPLETE"
    STUCK = "STUCK"
    OVERTAKEN = "OVERTAKEN"
    SLOWED = "SLOWED"
    FAILED = "FAILED"
    REFUSED = "REFUSED"
    FORBIDDEN = "FORBIDDEN"
    AUTH_FAILED = "AUTH_FAILED"
    LOCKED = "LOCKED"


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a walk ended, and what İYS said where it was for that."""

    ending: Ending
    fault: IysFault | None = None
