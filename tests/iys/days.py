"""Daily files as İYS makes them: summaries, hashes and agreements."""

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from tests.iys.movements import COLUMNS, TURKISH_S, Movement
from tests.iys.quirks import Quirks

DAY_S = 86_400.0
BOM = "\ufeff".encode()


@dataclass(slots=True, kw_only=True)
class Told:
    """What İYS says of a day against the facts. None: the fact."""

    process_status: str | None = None
    hash_value: str | None = None
    """Empty: the agreement has none."""
    body: bytes | None = None
    """The file itself; its hash is still that of the real one unless `hash_value` says otherwise."""
    has_file: bool = True
    pending: int = 0
    """Added to `pending` and `total` of the first line of the first summary asked for."""
    total_extra: int = 0
    unlisted: frozenset[str] = frozenset()
    """Channels that the summaries leave out."""
    timestamp: bytes | None = None


@dataclass(slots=True)
class Days:
    """What was said against the facts, and which days somebody agreed to."""

    told: dict[tuple[int, date], Told] = field(default_factory=dict)
    agreed: set[tuple[int, date]] = field(default_factory=set)

    def of(self, brand: int, day: date) -> Told:
        """Give what is told of a day."""
        return self.told.get((brand, day)) or Told()


def day_of(at_s: float) -> date:
    """Give the day of a time in Türkiye."""
    return datetime.fromtimestamp(at_s + TURKISH_S, UTC).date()


def midnight_s(day: date) -> float:
    """Give when a day begins in Türkiye, seconds UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() - TURKISH_S


def ready_s(day: date, quirks: Quirks) -> float:
    """Give when the file of a day is made, seconds UTC."""
    return midnight_s(day + timedelta(1)) + quirks.file_after_s


def rows_of(movements: list[Movement], day: date, quirks: Quirks) -> list[Movement]:
    """Give the movements in the file of a day: what was registered in it, and written before the file was made."""
    begin, end, made = midnight_s(day), midnight_s(day + timedelta(1)), ready_s(day, quirks)
    return [m for m in movements if begin <= m.registered_s < end and m.written_s <= made]


def file_of(rows: list[Movement], quirks: Quirks) -> bytes:
    """Write the file of a day."""
    header = ",".join(COLUMNS) + "\n" if quirks.csv_header else ""
    body = (header + "".join(row.line() for row in rows)).encode()
    return BOM + body if quirks.csv_bom else body


def hash_of(body: bytes, quirks: Quirks) -> str:
    """Hash a file as this İYS does."""
    if quirks.hash_over == "without_final_newline":
        body = body.removesuffix(b"\n")
    elif quirks.hash_over == "without_header" and quirks.csv_header:
        body = body.partition(b"\n")[2]
    return hashlib.new(quirks.hash_method, body).hexdigest()
