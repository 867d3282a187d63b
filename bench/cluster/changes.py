"""Changes at a steady rate, as files that a loader follows; the model knows each row before a loader can have it.

A machine that is too slow for the rate gets them more slowly: what is shown is not how a queue grows.
"""

import json
import threading
import time
from bisect import bisect_right
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from bench.soak.model import Model
from bench.soak.world import World

EVERY_S: Final = 0.5
"""A file comes so often, if the one before the last is in somewhere."""
_PATIENCE_S: Final = 2.0
"""So often at least: changes do not wait for a primary that is dead."""
_TURKEY: Final = ZoneInfo("Europe/Istanbul")


class Changes:
    """Rows from a seed. A file is one commit, so an answer can only be from where a file ends."""

    def __init__(self, folder: Path, world: World, *, rows_per_s: int) -> None:
        self.model = Model()
        self.first = 0
        """Rows of the first file."""
        self._folder = folder
        self._world = world
        self._rows = round(rows_per_s * EVERY_S)
        self._marked: list[int] = []
        self._ends: list[int] = []
        self._begun: list[float] = []
        self._watermarks: dict[int, int] = {}
        """By the number of rows that are in."""
        self._reached = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="changes", daemon=True)

    @property
    def files(self) -> int:
        """How many files there are."""
        return len(self._ends)

    def write_first(self, path: Path) -> None:
        """Write the file that everything begins with."""
        now = datetime.now(_TURKEY)
        rows = self._world.first(_text(now))
        self._marked = [row["brandCode"] for row in rows if row.get("kind") == "watermark"]
        self._put(path, rows, now)
        self.first = len(rows)

    def start(self) -> None:
        """Let changes flow."""
        self._thread.start()

    def stop(self) -> None:
        """Let no more come."""
        self._over.set()
        self._thread.join()

    def reached(self, sequence: int) -> None:
        """Take note that somebody is as far as that."""
        self._reached = max(self._reached, sequence)

    def watermark(self, sequence: int) -> int | None:
        """Say until when the data of every fresh brand is complete where so many rows are in: seconds since 1970 UTC.

        None where no file ends there.
        """
        return self._watermarks.get(sequence)

    def age_s(self, sequence: int) -> float:
        """Say for how long there has been more than so many rows; 0 if there is no more."""
        place = bisect_right(self._ends, sequence)
        return time.monotonic() - self._begun[place] if place < len(self._begun) else 0.0

    def _work(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            self.write_next()
            self._over.wait(EVERY_S - (time.monotonic() - began))
            while self.age_s(self._reached) > EVERY_S and time.monotonic() - began < _PATIENCE_S:
                self._over.wait(0.02)

    def write_next(self) -> None:
        """Write the next file."""
        now = datetime.now(_TURKEY)
        rows = self._world.delta(self._rows)
        marks = [{"kind": "watermark", "brandCode": code, "completeUntil": _text(now)} for code in self._marked]
        self._put(self._folder / f"{self.files:06}.jsonl", rows + marks, now)

    def _put(self, path: Path, rows: list[dict[str, Any]], now: datetime) -> None:
        """Tell the model, then put the file into its place as a whole."""
        for row in rows:
            self.model.add(row)
        self._watermarks[self.model.rows] = int(now.timestamp())
        unfinished = path.with_suffix(".tmp")
        unfinished.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        self._begun.append(time.monotonic())  # before the other list, by which it is looked for
        self._ends.append(self.model.rows)
        unfinished.replace(path)


def _text(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M:%S")
