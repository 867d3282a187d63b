"""Parts of lists, as İYS cuts and counts them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from tests.iys.answers import Answer, refused
from tests.iys.world import Call

MOST_LISTED = 100
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of a list is wanted."""

    offset: int
    limit: int

    def of(self, listed: Sequence[T]) -> Sequence[T]:
        """Cut it out."""
        return listed[self.offset : self.offset + self.limit]

    def told(self, listed: Sequence[object]) -> dict[str, object]:
        """Say which part of a list was given, as İYS does."""
        return {"offset": self.offset, "pageSize": len(self.of(listed)), "totalCount": len(listed)}


def part_of(call: Call) -> Part | Answer:
    """Read which part of a list is wanted, or refuse."""
    offset, limit = call.query.get("offset", "0"), call.query.get("limit", str(MOST_LISTED))
    if not offset.isdecimal():
        return refused(422, "H183", location=("offset",), value=offset)
    code = "" if limit.isdecimal() else "H182"
    if not code and not 1 <= int(limit) <= MOST_LISTED:
        code = "H186" if int(limit) else "H187"
    if code:
        return refused(422, code, location=("limit",), value=limit)
    return Part(int(offset), int(limit))
