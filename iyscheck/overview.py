"""What a server tells whoever operates it: value types shared by engine, wire, client and command line.

Nothing in them is an address, a token, a tag, a key, or what a rejected row held. Times are seconds since 1970 UTC.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from iyscheck.change import LogStanding, Position
from iyscheck.consent import CLOCK_TOLERANCE_S, Channel, Policy

MAX_PAGE_SIZE: Final = 1_000
DEFAULT_PAGE_SIZE: Final = 100
LATE_SHARE: Final = 0.8
"""Of the limit of freshness: data older than that is late, and will soon be stale."""

ItemT = TypeVar("ItemT")


class BrandState(IntEnum):
    """How a brand stands with commercial messages; the numbers are those of the wire."""

    UNSPECIFIED = 0  # what a client does not know of a newer server
    FRESH = 1
    LATE = 2
    STALE = 3
    NONE = 4
    INACTIVE = 5
    UNREGISTERED = 6


BRAND_STATES: Final = tuple(state for state in BrandState if state)


class BrandOrder(IntEnum):
    """In what order brands are listed: by code, or the oldest watermark first, before all those without one."""

    CODE = 1
    WATERMARK = 2


NEVER: Final = -1
"""Stands for no watermark in the order of watermarks: before all there are."""


def states_of_data(watermarks: npt.NDArray[np.int64], now_s: float, limit_s: int) -> npt.NDArray[np.uint8]:
    """Say for watermarks, `NEVER` where there is none, whether the data is FRESH, LATE, STALE or NONE: shape (N,).

    Ahead of the clock a watermark is as good as none (decision 12).
    """
    age = now_s - watermarks
    stale = (age > limit_s) | (age < -CLOCK_TOLERANCE_S)
    late = age > LATE_SHARE * limit_s
    given = [np.uint8(state) for state in (BrandState.NONE, BrandState.STALE, BrandState.LATE)]
    return np.select([watermarks == NEVER, stale, late], given, np.uint8(BrandState.FRESH))


class AfterBrand(NamedTuple):
    """The last brand of a page: its watermark, `NEVER` where it has none, and its code."""

    watermark: int
    code: int


class Loaded(IntEnum):
    """How far a source was loaded: to its end, not to it, or with rejected rows that hold watermarks back."""

    UNSPECIFIED = 0
    FINISHED = 1
    UNFINISHED = 2
    HELD = 3


class Watermarks(msgspec.Struct, frozen=True, kw_only=True):
    """The watermarks of all brands that have one; of an even number the median is the older of the middle two."""

    newest: int | None = None
    median: int | None = None
    oldest: int | None = None


class Feed(msgspec.Struct, frozen=True, kw_only=True):
    """A way in which rows come: when it last committed and last came to an end, and how often it should.

    `refusals` are live ones that became visible, `late` those of them later than was promised. None: not known.
    """

    name: str
    committed_at: int | None
    succeeded_at: int | None
    expected_interval_s: int | None
    refusals: int
    late: int


class StoreSize(msgspec.Struct, frozen=True, kw_only=True):
    """The store's files: bytes, bytes free beside them, consents, reader slots in use and in all."""

    size_bytes: int
    disk_free_bytes: int
    records: int
    readers: int
    max_readers: int


class StoreOverview(msgspec.Struct, frozen=True, kw_only=True):
    """What a glance shows of a store, from one snapshot. `brands` has every state, also those of none."""

    position: Position
    watermarks: Watermarks
    brands: Mapping[BrandState, int]
    withheld_brands: int
    sources_held: int
    rejected_rows_waiting: int
    size: StoreSize
    feeds: tuple[Feed, ...] = ()
    standing: LogStanding | None = None
    """How it stands in the log that replicas follow; None: it is in none."""


class IndexCondition(msgspec.Struct, frozen=True, kw_only=True):
    """The decision index as one process found it, and how many recipients it answered past pages it did not take."""

    pages: int
    pages_not_taken: int
    recipients_from_records: int


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """Which versions of what a server is made of."""

    version: str
    kernel: str
    rule_version: int
    address_form: int
    store_format: int
    grpc_version: str
    python_version: str


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """Which of how many processes answered, and since when it is there."""

    number: int
    workers: int
    started_at: float


class CallersInForce(msgspec.Struct, frozen=True, kw_only=True):
    """How many callers are in force, and whether the callers file can be used as it is."""

    callers: int
    file_usable: bool


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """What a glance shows of a server.

    `store` is None where the store cannot be read, and `store_error` says why. `callers` is None where there is no
    callers file. `serving` has each name that health knows; `settings` are numbers and switches, by name, as text.
    """

    answered_at: float
    store_error: str
    store: StoreOverview | None
    index: IndexCondition
    serving: Mapping[str, bool]
    build: Build
    policy: Policy
    answer_ttl_s: int
    limits: Mapping[str, int]
    settings: Mapping[str, str]
    worker: Worker
    callers: CallersInForce | None


class BrandOverview(msgspec.Struct, frozen=True, kw_only=True):
    """How one brand stands, and what holds its watermark back.

    `iys_code` is None where it is not registered. Its data is stale from `stale_from` on. `withheld` is a watermark
    that waits. `held_by` names the first of the `sources_holding` sources. `proved_spans` wait for what was before
    them; `accepted_gaps` are times of which an operator accepted that rows are missing.
    """

    brand: int
    iys_code: int | None
    state: BrandState
    channels: tuple[Channel, ...]
    watermark: int | None
    stale_from: int | None
    withheld: int | None
    held_by: tuple[str, ...]
    sources_holding: int
    records: int
    proved_spans: int
    accepted_gaps: int


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """Where a row stands that was not loaded, and what is wrong with it; `field` is empty for the whole line."""

    line: int
    field: str
    reason: str


class SourceOverview(msgspec.Struct, frozen=True, kw_only=True):
    """How far one source was loaded, and which of its rows were rejected.

    `loaded` counts rows that were applied or superseded. `earliest` and `latest` are when its rows were registered, as
    the 19-character İYS texts, empty if none was readable. `held_brands` are the first of the `brands_held` brands
    whose watermarks it holds back, `rejects` the first of the rejected rows that wait.
    """

    name: str
    state: Loaded
    finished: bool
    rows: int
    loaded: int
    skipped: int
    rejected: int
    rejects_accepted: bool
    earliest: str
    latest: str
    held_brands: tuple[int, ...]
    brands_held: int
    rejects: tuple[Rejected, ...]


class CallerOverview(msgspec.Struct, frozen=True, kw_only=True):
    """What one caller may ask. `brand_count` is None for all brands, `brands` are the first of them.

    `rate` None: no limit. `streams` None: as many as the server takes. `refusals` are those of the answering process,
    by reason, since it started.
    """

    name: str
    calls: tuple[str, ...]
    brand_count: int | None
    brands: tuple[int, ...]
    channels: tuple[Channel, ...]
    addresses: bool
    rate: int | None
    streams: int | None
    keys: int
    certificates: int
    refusals: Mapping[str, int]


class Page(msgspec.Struct, Generic[ItemT], frozen=True, kw_only=True):
    """One page of a list; `next_token` asks for the one behind it and is empty where there is none."""

    items: tuple[ItemT, ...]
    next_token: str
