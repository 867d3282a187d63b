"""A feed that goes on, and what a store says after each of its rows: no more than who reads the rows can work out."""

import json
import random
import threading
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from iyscheck.consent import Channel, Reason, RecipientType
from iyscheck.question import Answer, Context, ItemError, Question

BRAND: Final = 600123
PEOPLE: Final = 60
ROWS: Final = 30
"""Of a file."""
ADDRESSES: Final = [f"+90532{1_000_000 + person}" for person in range(PEOPLE)]
_CONTEXT: Final = Context(brand=BRAND, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)
QUESTIONS: Final = [Question(context=_CONTEXT, address=address) for address in ADDRESSES]
_TURKEY: Final = ZoneInfo("Europe/Istanbul")
_FIRST: Final = datetime(2024, 5, 2, tzinfo=_TURKEY)
_TEXT: Final = "%Y-%m-%d %H:%M:%S"


@dataclass
class _History:
    """What came of one thing, and with which row."""

    rows: list[int] = field(default_factory=list)
    said: list[tuple[Reason, str] | int] = field(default_factory=list)

    def add(self, row: int, said: "tuple[Reason, str] | int") -> None:
        """Take what a row says."""
        self.said.append(said)
        self.rows.append(row)

    def at(self, row: int) -> "tuple[Reason, str] | int | None":
        """Return what was said up to a row."""
        place = bisect_right(self.rows, row)
        return self.said[place - 1] if place else None


class Feed:
    """Writes files into a folder, one after the other, and knows what a store must say at every position.

    A store's position is the number of rows that are in it, and they come in the order of the files.
    """

    def __init__(self, folder: Path, dice: random.Random) -> None:
        self.folder = folder
        self.rows = 0
        self.may_be_late = False
        """Whether stores may take less for complete than is: where the loader's clock says that it is still to come."""
        self._dice = dice
        self._files = 0
        self._rebased: tuple[int, int] | None = None
        self._crowd = 0
        self._lock = threading.RLock()
        self._people = [_History() for _ in range(PEOPLE)]
        self._mark = _History()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        folder.mkdir()
        brand = {"kind": "brand", "brandCode": BRAND, "iysCode": 1, "active": True, "creationDate": _text(_FIRST)}
        self.write(range(PEOPLE), first=[brand])

    def write(self, people: "range | list[int]", *, first: "list[dict[str, object]] | None" = None) -> None:
        """Write one file: something new of each of these people, and that all is complete until now."""
        with self._lock:
            self._write(people, first or [])

    def _write(self, people: "range | list[int]", first: "list[dict[str, object]]") -> None:
        rows: list[Mapping[str, object]] = list(first)
        at = self.rows + len(rows)
        self._files += 1
        registered = _text(_FIRST + timedelta(seconds=self._files))
        for person in people:
            at += 1
            is_allowed = self._dice.random() < 0.5
            rows.append(
                {
                    "brandCode": BRAND,
                    "recipient": ADDRESSES[person],
                    "recipientType": "BIREYSEL",
                    "type": "MESAJ",
                    "status": "ONAY" if is_allowed else "RET",
                    "source": "IYS_WEB",
                    "consentDate": "2024-05-01 10:00:00",
                    "creationDate": registered,
                    "transactionId": f"{at:064x}",
                }
            )
            self._people[person].add(at, (Reason.CONSENTED if is_allowed else Reason.REFUSED, f"{at:064x}"))
        now = datetime.now(_TURKEY).replace(microsecond=0)
        rows.append({"kind": "watermark", "completeUntil": _text(now)})
        self._mark.add(at + 1, int(now.timestamp()))
        self._put(rows)

    def _put(self, rows: Sequence[Mapping[str, object]]) -> None:
        hidden = self.folder / f".{self._files:06}.jsonl"
        self.rows += len(rows)  # before anybody can read them
        hidden.write_text("".join(json.dumps(row) + "\n" for row in rows))
        hidden.rename(self.folder / hidden.name.removeprefix("."))

    def crowd(self, people: int) -> None:
        """Write a file about people of whom nobody asks, each of them once: what makes stores and logs grow."""
        with self._lock:
            self._write_crowd(people)

    def _write_crowd(self, people: int) -> None:
        self._files += 1
        registered = _text(_FIRST + timedelta(seconds=self._files))
        rows = [
            {
                "brandCode": BRAND,
                "recipient": f"+90533{self._crowd + person:07}",
                "recipientType": "BIREYSEL",
                "type": "MESAJ",
                "status": "ONAY",
                "source": "IYS_WEB",
                "consentDate": "2024-05-01 10:00:00",
                "creationDate": registered,
                "transactionId": self._dice.randbytes(32).hex(),
            }
            for person in range(people)
        ]
        self._crowd += people
        self._put(rows)

    def start(self, every_s: float) -> None:
        """Go on writing, beside all else, until told to stop."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, args=(every_s,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def rebased(self, position: int, rows: int) -> None:
        """Hear that a store that holds so many rows goes on as if it were at a later position."""
        self._rebased = (position, position - rows)

    def to_come(self) -> int:
        """Return the position of what will be written in a moment, if files are written; else of what there is."""
        return (
            self.rows
            + (self._rebased[1] if self._rebased is not None else 0)
            + (2 * ROWS if self._thread is not None else 0)
        )

    def _run(self, every_s: float) -> None:
        while not self._stop.wait(every_s):
            self.write(self._dice.sample(range(PEOPLE), ROWS))

    def wrong(self, person: int, answer: Answer | ItemError) -> str:
        """Say what is wrong with an answer, if anything is; that the data is stale never is."""
        if isinstance(answer, ItemError):
            return f"not answered: {answer}"
        position = answer.envelope.position.sequence
        row = position - self._rebased[1] if self._rebased is not None and position >= self._rebased[0] else position
        if row > self.rows:
            return f"position {position} where {self.rows} rows were fed"
        if answer.reason is Reason.DATA_STALE:
            return ""
        found, expected = self._found(answer, row), (self._people[person].at(row), self._mark.at(row))
        return "" if found == expected else f"{found} instead of {expected} at {position}"

    def _found(self, answer: Answer, row: int) -> tuple[object, object]:
        """Return what an answer says of a person, and until when all is complete."""
        evidence, as_of, mark = answer.evidence, answer.envelope.as_of, self._mark.at(row)
        if self.may_be_late and isinstance(mark, int) and (as_of is None or as_of < mark):
            as_of = mark
        return (answer.reason, evidence.transaction_id.lower() if evidence else ""), as_of


def _text(when: datetime) -> str:
    return when.strftime(_TEXT)
