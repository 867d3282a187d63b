"""What İYS pushes: a body as rows, and which of them a credential may bring."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from loader.push.credentials import Credential
from loader.push.journal import Row

TEST_BRAND: Final = 121212
"""Of İYS's own test row, which comes when a push is registered. It is nobody's brand."""
MOST_ROWS: Final = 100_000
_NAME_OF_A_PERSON: Final = "citizen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorted:
    """The rows of a body: those that count, those of other brands than the credential's, and how many were a test."""

    rows: list[Row]
    foreign: list[Row]
    tests: int


def rows_of(body: bytes) -> list[Row] | None:
    """Read a body; None for one that is not of İYS's form."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    rows = value.get("list") if isinstance(value, dict) else None
    if not isinstance(rows, list) or len(rows) > MOST_ROWS or not all(isinstance(row, dict) for row in rows):
        return None
    return [_nameless(row) for row in rows]


def sorted_out(rows: Iterable[Row], credential: Credential) -> Sorted:
    """Say which rows a credential may bring. Both codes have to be there: without them a row might be anybody's."""
    good, foreign, tests = [], [], 0
    brands = frozenset(credential.brands)
    for row in rows:
        iys_code, brand = _code(row.get("iysCode")), _code(row.get("brandCode"))
        if brand == TEST_BRAND:
            tests += 1
        elif iys_code == credential.iys_code and brand in brands:
            good.append(row)
        else:
            foreign.append(row)
    return Sorted(rows=good, foreign=foreign, tests=tests)


def _nameless(row: Row) -> Row:
    """Drop whatever may name a person."""
    return {key: value for key, value in row.items() if _NAME_OF_A_PERSON not in key.casefold()}


def _code(value: object) -> int | None:
    """Read a code, which is a number or its digits."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
