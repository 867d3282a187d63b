"""What İYS says instead of an answer, as one of our faults.

Its errors come in many shapes (keys with a colon, strings for integers, HTML from what stands before it), so
everything is optional but the status. Nothing of a body is repeated, but for İYS's own code and the names of fields:
a `value` may be an address.
"""

import json
import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

from loader.iys.faults import AuthFailedFault, ForbiddenFault, IysFault, RefusedFault, SlowedFault, TransientFault

BUSY: Final = "H123"
"""Told with 400: too busy now."""
NO_SUBSCRIPTION: Final = frozenset({"H437", "H524"})
CLOSED: Final = "H521"

_CODE: Final = re.compile(r"H[0-9]{3,4}")
_ANYWHERE: Final = re.compile(rb"(?<![A-Za-z0-9])H[0-9]{3,4}(?![A-Za-z0-9])")
_FIELD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,39}")
_MAY_GO_BETTER: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY})
_DEPTH: Final = 8


def fault_of(what: str, status: int, body: bytes) -> IysFault:
    """Make a fault of an answer that is not the one asked for.

    Args:
        what: the operation, for people; no address, no name.
        status: of HTTP.
        body: as received; may be anything.
    """
    code = code_of(body)
    said = f"HTTP {status}" + (f", {code}" if code else "")
    match status:
        case HTTPStatus.UNAUTHORIZED:
            return AuthFailedFault(f"İYS does not take the token for {what} ({said}).", status=status, code=code)
        case HTTPStatus.FORBIDDEN:
            return ForbiddenFault(f"İYS forbids {what} ({said}).", status=status, code=code)
        case HTTPStatus.TOO_MANY_REQUESTS:
            return SlowedFault(f"İYS was asked too often for {what} ({said}).", status=status, code=code)
        case _ if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
            if code == BUSY or status in _MAY_GO_BETTER:
                return TransientFault(f"İYS is too busy for {what} ({said}).", status=status, code=code)
            location = location_of(body)
            where = f": {', '.join(location)}" if location else ""
            return RefusedFault(f"İYS refuses {what} ({said}{where}).", status=status, code=code, location=location)
        case _:
            return TransientFault(f"İYS could not answer {what} ({said}).", status=status, code=code)


def code_of(body: bytes) -> str:
    """Return İYS's code in an error, such as H353; empty where there is none."""
    for key, value in _pairs(_tree(body)):
        if key.strip(" :").lower() == "code" and isinstance(value, str) and _CODE.fullmatch(value.strip()):
            return value.strip()
    found = _ANYWHERE.search(body)
    return found.group().decode() if found else ""


def location_of(body: bytes) -> tuple[str, ...]:
    """Return the names of the fields that İYS finds wrong, each once."""
    named: dict[str, None] = {}
    for key, value in _pairs(_tree(body)):
        if key.strip(" :").lower() == "location":
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, str) and _FIELD.fullmatch(part):
                    named[part] = None
    return tuple(named)


def _tree(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _pairs(tree: object, depth: int = 0) -> Iterator[tuple[str, object]]:
    """Give all keys and values of objects, outer ones first."""
    if depth > _DEPTH:
        return
    if isinstance(tree, dict):
        yield from tree.items()
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    for value in inner:
        yield from _pairs(value, depth + 1)
