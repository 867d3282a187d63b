"""The table of faults: what failed, what those saw who asked meanwhile, and how long it took until all was well."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

FILE: Final = "TEST_REPLICAS_ROWS"
"""Names the file to which rows are appended, a line of JSON each."""
_HEADS: Final = (
    "fault",
    "times",
    "senders: answered",
    "senders: errors",
    "one server: errors",
    "stale answers",
    "longest not fresh, s",
    "longest without news, s",
    "well again after, s",
    "what was seen",
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One fault. Senders ask all servers at once; `server_errors` saw who asks one only, whichever had most.

    Times are seconds, the longest of all servers; `times` is how often it was caused.
    """

    fault: str
    times: int
    answered: int
    errors: int
    server_errors: int
    stale: int
    not_fresh_s: float
    gap_s: float
    recovered_s: float
    note: str = ""


def keep(row: Row) -> None:
    """Keep a row where somebody asked for it."""
    if name := os.environ.get(FILE):
        with Path(name).open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")


def kept(path: Path) -> list[Row]:
    """Return the rows of a file, if it is there."""
    return [Row(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def drawn(rows: Sequence[Row]) -> str:
    """Draw a table in Markdown."""
    lines = [" | ".join(_HEADS), " | ".join("---" for _ in _HEADS)]
    for row in rows:
        numbers = (row.not_fresh_s, row.gap_s, row.recovered_s)
        cells = [row.fault, row.times, row.answered, row.errors, row.server_errors, row.stale]
        cells += [f"{each:.1f}" for each in numbers]
        lines.append(" | ".join(map(str, [*cells, row.note])))
    return "".join(f"| {line} |\n" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(drawn(kept(Path(sys.argv[1]))))
