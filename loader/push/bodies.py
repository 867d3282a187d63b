"""What İYS pushes: a body as rows, and which of them a credential may bring.

Of a row only the keys that İYS documents are kept, and of those only texts and numbers. So nobody's name gets any
further, and nothing that a sender makes up can be more than a consent, or be of a form that the journal cannot hold.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from loader.push.credentials import Credential
from loader.push.journal import Row
from loader.reading import vocabulary as names
from loader.reading.json_lines import is_row

MOST_ROWS: Final = 100_000
KEYS: Final = (
    names.IYS_CODE,
    names.BRAND_CODE,
    names.RECIPIENT,
    names.RECIPIENT_TYPE,
    names.TYPE,
    names.STATUS,
    names.SOURCE,
    names.CONSENT_DATE,
    names.CREATION_DATE,
    names.TRANSACTION_ID,
)
"""Of a pushed row. Source: İYS API 3.2.0, push/registration."""
_MOST_DIGITS: Final = len(str(names.CODE_MAX))
_BODY: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ROWS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ROW: Final = msgspec.json.Decoder(Row)
_UNDECODABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorted:
    """The rows of a body: those that count, those of other brands than the credential's, and how many were a test."""

    rows: list[Row]
    foreign: list[Row]
    tests: int


def rows_of(body: bytes) -> list[Row] | None:
    """Read a body; None for one that is not of İYS's form."""
    try:
        rows = _ROWS.decode(_BODY.decode(body)[names.LIST])
        return None if len(rows) > MOST_ROWS else [_documented(bytes(row)) for row in rows]
    except (KeyError, *_UNDECODABLE):
        return None


def sorted_out(rows: Iterable[Row], credential: Credential) -> Sorted:
    """Say which rows a credential may bring. Both codes have to be there: without them a row might be anybody's."""
    good, foreign, tests = [], [], 0
    brands = frozenset(credential.brands)
    for row in rows:
        iys_code, brand = _code(row.get(names.IYS_CODE)), _code(row.get(names.BRAND_CODE))
        if brand == names.TEST_BRAND:
            tests += 1
        elif iys_code == credential.iys_code and brand in brands:
            good.append(row)
        else:
            foreign.append(row)
    return Sorted(rows=good, foreign=foreign, tests=tests)


def _documented(raw: bytes) -> Row:
    """Read a row. A key that stands there twice says nothing: without a status it denies. Raises ValueError."""
    row = _ROW.decode(raw) if is_row(raw) else _said_once(raw)
    return {key: _plain(row[key]) for key in KEYS if key in row}


def _said_once(raw: bytes) -> Row:
    last: list[tuple[str, object]] = []

    def kept(pairs: Sequence[tuple[str, object]]) -> Row:
        last[:] = pairs  # the outermost object comes last
        return dict(pairs)

    row = json.loads(raw, object_pairs_hook=kept)
    if not isinstance(row, dict):
        raise ValueError("no object")  # noqa: TRY004 - as a row that is no JSON
    keys = [key for key, _ in last]
    return {key: None if keys.count(key) > 1 else value for key, value in row.items()}


def _plain(value: object) -> object:
    """Leave a text or a number that fits; nothing else is documented, and nothing of it would be understood."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    is_plain = (
        value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) <= names.CODE_MAX)
    )
    return value if is_plain else "?"


def _code(value: object) -> int | None:
    """Read a code, which is a number or its digits."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
