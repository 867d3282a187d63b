"""Builders that several test modules share: keys, a fixed clock, stores filled in one line."""

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from iyscheck import address
from iyscheck.change import Brand, ConsentChange, ConsentColumns, RetailerAccess
from iyscheck.consent import Channel, Policy, RecipientType, Status
from iyscheck.engine import Engine
from iyscheck.kernel import Kernel
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.store import layout
from iyscheck.store.encoded import EncodedChanges
from iyscheck.store.layout import SourceState
from iyscheck.store.log_batch import Sealer
from iyscheck.store.snapshot import Store
from iyscheck.store.verification import verify
from iyscheck.store.writer import Applied, Batch, Writer
from iyscheck.times import local_seconds

DERIVED = (layout.INDEX, layout.INDEX_CHANGES)
"""Databases whose content follows from the records, and whose bytes depend on the way that they came."""

ADDRESS_SECRET, STORE_SECRET = bytes(range(32)), bytes(range(32, 64))
ADDRESS_KEY, STORE_KEY = AddressKey(ADDRESS_SECRET), StoreKey(STORE_SECRET)
SECRETS = {ADDRESS_KEY.kind: ADDRESS_SECRET, STORE_KEY.kind: STORE_SECRET}

NOW = 1_767_225_600
"""2026-01-01 00:00:00 UTC, the clock of engines built by `StoreBuilder.engine`."""

REGISTERED = local_seconds("2025-06-01 12:00:00")
"""When the builder's rows were registered at İYS, unless a test says otherwise."""

CONSENTED = local_seconds("2025-05-31 09:30:00")


def tag_of(recipient: str, channel: Channel) -> bytes:
    """Return the tag of an address under the test keys."""
    token = address.tokens([recipient], channel, ADDRESS_KEY)
    return STORE_KEY.tags(token).tobytes()


def a_change(  # noqa: PLR0913 - a consent has that many facts
    *,
    brand: int = 1,
    recipient: str = "+905321000001",
    tag: bytes | None = None,
    channel: Channel = Channel.MESAJ,
    recipient_type: RecipientType = RecipientType.BIREYSEL,
    status: Status = Status.ONAY,
    registered: int = REGISTERED,
    consented: int = CONSENTED,
    source: str = "HS_WEB",
    transaction_id: str = "",
    sequence: int = 1,
) -> ConsentChange:
    """Make a consent change of which a test names only what it is about."""
    return ConsentChange(
        brand=brand,
        channel=channel,
        recipient_type=recipient_type,
        tag=tag_of(recipient, channel) if tag is None else tag,
        status=status,
        registered=registered,
        consented=consented,
        source=source,
        transaction_id=transaction_id,
        sequence=sequence,
    )


def a_brand(
    brand: int = 1,
    *,
    iys_code: int = 600_000,
    active: bool = True,
    channels: Iterable[Channel] = tuple(Channel),
    legacy_deadline: int = 0,
    registered: int = REGISTERED,
) -> Brand:
    """Make a brand that may do everything unless a test says otherwise."""
    return Brand(
        brand=brand,
        iys_code=iys_code,
        active=active,
        channels=frozenset(channels),
        legacy_deadline=legacy_deadline,
        registered=registered,
    )


def an_access(change: ConsentChange, retailers: Iterable[int], *, registered: int = REGISTERED) -> RetailerAccess:
    """Say which retailers may use a consent."""
    return RetailerAccess(
        brand=change.brand,
        channel=change.channel,
        recipient_type=change.recipient_type,
        tag=change.tag,
        registered=registered,
        retailers=frozenset(retailers),
    )


def a_batch(
    consents: Sequence[ConsentChange] = (),
    access: Sequence[RetailerAccess] = (),
    brands: Sequence[Brand] = (),
    *,
    rows: int | None = None,
) -> Batch:
    """Make a batch; by default each change was one feed row."""
    counted = len(consents) + len(access) + len(brands)
    return Batch(
        consents=ConsentColumns.of(consents), access=access, brands=brands, rows=counted if rows is None else rows
    )


def supersedes(new: ConsentChange, stored: ConsentChange) -> bool:
    """Say whether a change takes the place of another: an equal one does not."""
    return new.precedence > stored.precedence


def fill(writer: Writer, chunks: Iterable[ConsentColumns], *, rows: int) -> Applied:
    """Fill a store without records from chunks of changes, as a loader does with its sorted feed."""
    with writer.filling() as filling:
        for changes in chunks:
            filling.append(EncodedChanges.of(changes))
        return filling.finish(SourceState(name="x"), rows=rows)


class StoreBuilder:
    """Fills a store: collect changes, `commit` them, then read through `store` or `engine` or close and open it.

    The keys are ADDRESS_KEY and STORE_KEY.
    """

    def __init__(
        self, path: str | os.PathLike[str], kernel: Kernel = Kernel.NUMPY, *, sealer: Sealer | None = None
    ) -> None:
        self.path = Path(path)
        self.writer = Writer.open(
            path, address_key_id=ADDRESS_KEY.key_id, store_key_id=STORE_KEY.key_id, kernel=kernel, sealer=sealer
        )
        self._consents: list[ConsentChange] = []
        self._access: list[RetailerAccess] = []
        self._brands: list[Brand] = []
        self._watermarks: list[tuple[int, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def brand(self, brand: int = 1, *, watermark: int | None = NOW, now: bool = False, **fields: object) -> Self:
        """Register a brand (fields of `a_brand`) with its watermark; `now` takes the real clock's."""
        self._brands.append(a_brand(brand, **fields))  # type: ignore[arg-type]  # the fields of a_brand, passed on
        if now or watermark is not None:
            self._watermarks.append((brand, int(time.time()) if now else watermark or 0))
        return self

    def consent(self, *, retailers: Iterable[int] | None = None, **fields: object) -> Self:
        """Add a consent change (fields of `a_change`), if wanted with the retailers that may use it."""
        change = a_change(**fields)  # type: ignore[arg-type]  # the fields of a_change, passed on
        self._consents.append(change)
        if retailers is not None:
            self._access.append(an_access(change, retailers, registered=change.registered))
        return self

    def commit(self, source: str = "test") -> Applied:
        """Write what was collected as one finished batch of a source."""
        batch = a_batch(self._consents, self._access, self._brands)
        state = SourceState(name=source, rows=batch.rows, watermarks=tuple(self._watermarks))
        applied = self.writer.apply(batch, state, finished=True)
        self._consents, self._access, self._brands, self._watermarks = [], [], [], []
        return applied

    @property
    def store(self) -> Store:
        """A reader beside the open writer; do not close it."""
        return Store(self.writer.environment)

    def engine(
        self,
        *,
        policy: Policy | None = None,
        now: float = NOW,
        takes_addresses: bool = True,
        answer_ttl_s: int = 300,
        kernel: Kernel | None = None,
    ) -> Engine:
        """Build an engine beside the open writer, whose clock stands at `now`; do not close it."""
        return Engine(
            self.store,
            store_key=STORE_KEY,
            address_key=ADDRESS_KEY if takes_addresses else None,
            policy=policy or Policy(),
            answer_ttl_s=answer_ttl_s,
            clock=lambda: now,
            kernel=kernel,
        )

    def close(self) -> None:
        """Close the writer, so that the store can be opened by its path."""
        self.writer.close()


def content(store: Store) -> dict[bytes, list[tuple[bytes, object]]]:
    """Return everything a store holds that does not depend on the order of arrival or on chance.

    Left out: the log id, when the feeds came, and the position inside each record (of two equal rows the first to
    arrive is kept). Where a word of the index stands depends on the order too, so instead of its pages stands whether
    they say what the records say.
    """
    with store.snapshot() as snapshot:
        found: dict[bytes, list[tuple[bytes, object]]] = {
            name: list(snapshot.items(name)) for name in layout.DATABASES if name not in (layout.RECORDS, *DERIVED)
        }
        found[layout.RECORDS] = [
            (key, replace(layout.decode_record(key, value), sequence=0))
            for key, value in snapshot.items(layout.RECORDS)
        ]
    left_out = (layout.META_LOG_ID, layout.META_INDEX)
    meta = [(key, value) for key, value in found[layout.META] if not key.startswith(layout.META_FEED)]
    found[layout.META] = [(key, value) for key, value in meta if key not in left_out]
    found[layout.INDEX] = [(b"faults", verify(store).faults)]
    return found
