"""Where in a callers file something stands: `tomllib` gives values without their lines.

Found by the look of the lines, for people to go to. A text over several lines can mislead it; nothing rests on it.
"""

import re
from typing import Final

_TABLE: Final = re.compile(r"""\s*\[\s*(?P<table>[^\[\]#]+?)\s*\]\s*(?:\#.*)?""")
_KEY: Final = re.compile(r"""\s*(?P<key>"[^"]*"|'[^']*'|[A-Za-z0-9_-]+(?:\s*\.\s*[A-Za-z0-9_"'-]+)*)\s*=""")
_PART: Final = re.compile(r""""([^"]*)"|'([^']*)'|([^\s."']+)""")


def line_of(text: str, path: tuple[str, ...]) -> int | None:
    """Find the line of a key, else that of the table it would stand in; counted from 1, None if there is neither."""
    table: tuple[str, ...] = ()
    best: tuple[int, int] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if found := _TABLE.fullmatch(line):
            table = _parts(found["table"])
            here = table
        elif found := _KEY.match(line):
            here = (*table, *_parts(found["key"]))
        else:
            continue
        if here == path[: len(here)] and (best is None or len(here) > best[0]):
            best = len(here), number
    return None if best is None else best[1]


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(next(part for part in found if part) for found in _PART.findall(dotted) if any(found))
