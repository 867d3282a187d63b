"""The log of all that happened to consents at İYS, and what of it each feed shows at a time."""

import bisect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

import msgspec

from iyscheck.times import local_text
from loader.iys.messages import FeedSource
from tests.iys.quirks import Quirks

TURKISH_S = 3 * 3600
"""How far Turkish time is ahead of UTC."""

COLUMNS = ("creationDate", "transactionId", "recipient", "recipientType", "type", "status", "consentDate", "source")
"""The cells of a line of a daily file."""

_CURSOR = re.compile(r"([0-9]{1,16})_(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """One movement of a consent. Times are seconds UTC; `row` is what İYS tells of it."""

    number: int
    brand: int
    source: FeedSource
    registered_s: float
    visible_s: float
    transaction_id: str
    row: Mapping[str, object]
    encoded: bytes = field(repr=False)
    key: tuple[int, str, int] = field(repr=False)
    """Where it stands in a feed: second of registration, transaction, arrival."""

    @property
    def written_s(self) -> float:
        """When İYS wrote it: later than its registration where it became visible late."""
        return max(self.registered_s, self.visible_s - 3600.0)

    @property
    def consent(self) -> tuple[object, object, object]:
        """Which consent of the brand it moved: channel, recipient type, recipient."""
        return self.row.get("type"), self.row.get("recipientType"), self.row.get("recipient")

    def line(self) -> str:
        """Write it as a line of a daily file."""
        return ",".join(str(self.row.get(column, "")) for column in COLUMNS) + "\n"


def turkish(at_s: float) -> str:
    """Write a time as İYS does."""
    return local_text(int(at_s) + TURKISH_S)


@dataclass(slots=True)
class Movements:
    """All movements of all brands, in order of arrival and of the feed."""

    arrived: list[Movement] = field(default_factory=list)
    _streams: dict[tuple[int, FeedSource], list[Movement]] = field(default_factory=dict)

    def add(
        self,
        *,
        brand: int,
        source: FeedSource,
        registered_s: float,
        visible_s: float,
        transaction_id: str | None,
        row: dict[str, object],
    ) -> Movement:
        """Write a movement down; `row` lacks what this adds: registration and transaction."""
        number = len(self.arrived)
        transaction = sha256(b"%d" % number).hexdigest() if transaction_id is None else transaction_id
        told: dict[str, object] = {"creationDate": turkish(registered_s), "transactionId": transaction} | row
        told = {name: value for name, value in told.items() if value is not None}
        movement = Movement(
            number=number,
            brand=brand,
            source=source,
            registered_s=registered_s,
            visible_s=visible_s,
            transaction_id=transaction,
            row=told,
            encoded=msgspec.json.encode(told),
            key=(int(registered_s), transaction, number),
        )
        self.arrived.append(movement)
        bisect.insort(self._streams.setdefault((brand, source), []), movement, key=_key)
        return movement

    def of(self, brand: int, source: FeedSource) -> list[Movement]:
        """Give a stream in the order of its feed."""
        return self._streams.get((brand, source), [])

    def of_brand(self, brand: int) -> list[Movement]:
        """Give a brand's movements in the order of daily files."""
        return sorted((m for source in FeedSource for m in self.of(brand, source)), key=_key)

    def visible(self, brand: int, source: FeedSource, at_s: float) -> tuple[Movement, ...]:
        """Give what was to be seen of a stream at that time or before, in the order of its feed."""
        return tuple(movement for movement in self.of(brand, source) if movement.visible_s <= at_s)


def _key(movement: Movement) -> tuple[int, str, int]:
    return movement.key


class CursorRefusedError(Exception):
    """İYS does not take this cursor."""


@dataclass(frozen=True, slots=True)
class Feed:
    """One stream as İYS shows it at a time, to somebody who may read some channels."""

    movements: list[Movement]
    now_s: float
    quirks: Quirks
    channels: frozenset[str]

    def page(self, after: str | None, limit: int) -> list[Movement]:
        """Give the rows behind a cursor. Raises CursorRefusedError."""
        most = limit if self.quirks.page_cap is None else min(limit, self.quirks.page_cap)
        rows: list[Movement] = []
        for movement in self._behind(after):
            if len(rows) == most:
                break
            if movement.visible_s <= self.now_s and str(movement.row.get("type")) in self.channels:
                rows.append(movement)
        return rows

    def cursor(self, movement: Movement) -> str:
        """Give the cursor behind a row."""
        second, transaction, number = movement.key
        if self.quirks.order == "arrival" or not self.quirks.twins_skipped:
            transaction = f"{transaction}:{number}"
        return f"{second * self._scale}_{transaction}"

    @property
    def _scale(self) -> int:
        return 1000 if self.quirks.cursor == "ms" else 1

    @property
    def _begin(self) -> tuple[int, str, int]:
        return (int(self.now_s - self.quirks.window_s), "", 0)

    def _behind(self, after: str | None) -> Iterator[Movement]:
        if self.quirks.order == "arrival":
            yield from self._arrived_behind(after)
            return
        begin = self._begin
        if after is not None:
            begin = max(begin, self._read(after))
        for index in range(bisect.bisect_right(self.movements, begin, key=_key), len(self.movements)):
            movement = self.movements[index]
            if movement.registered_s > self.now_s:
                return
            if movement.registered_s >= self.now_s - self.quirks.window_s:
                yield movement

    def _arrived_behind(self, after: str | None) -> Iterable[Movement]:
        begin = -1 if after is None else self._read(after)[2]
        rows = sorted(self.movements, key=lambda movement: movement.number)
        floor_s = self.now_s - self.quirks.window_s
        return (m for m in rows if m.number > begin and floor_s <= m.registered_s <= self.now_s)

    def _read(self, after: str) -> tuple[int, str, int]:
        found = _CURSOR.fullmatch(after)
        if found is None:
            return self._odd(self.quirks.bad_cursor)
        second, transaction = int(found[1]) // self._scale, found[2]
        if second < self.now_s - self.quirks.window_s and self.quirks.old_cursor != "resume":
            return self._odd(self.quirks.old_cursor)
        transaction, _, number = transaction.partition(":")
        # Behind all that share second and transaction: who asks for the rest of a pair gets nothing of it.
        return second, transaction, int(number) if number.isdecimal() else 2**63

    def _odd(self, how: str) -> tuple[int, str, int]:
        if how == "refuse":
            raise CursorRefusedError
        return self._begin
