"""Pages of lists: how many are asked for, and the token that says behind what a page begins.

A token holds all that is needed to go on, so that any worker, replica or restarted server can: which list, what of it,
in what order, and the last key. It is no secret; its check finds mistakes.
"""

import base64
import binascii
import zlib
from enum import IntEnum
from typing import Final

from iyscheck.errors import PageError
from iyscheck.overview import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE

_VERSION: Final = 1
_HEAD_BYTES: Final = 4
_CHECK_BYTES: Final = 4
_LONGEST: Final = 256
_FIELD: Final = "page_token"
_FIX: Final = "Give next_page_token of the page before, or none to begin anew."


class Listed(IntEnum):
    """Of what a token is."""

    BRANDS = 1
    SOURCES = 2
    CALLERS = 3


def page_size_of(given: int) -> int:
    """Read how many are asked for; 0 leaves it to the server. Raises PageError."""
    if given > MAX_PAGE_SIZE:
        raise PageError("page_size", f"{given} is more than the maximum of {MAX_PAGE_SIZE}.", fix="Ask page by page.")
    return given or DEFAULT_PAGE_SIZE


def page_token(listed: Listed, key: bytes, *, state: int = 0, order: int = 0) -> str:
    """Write the token of the page behind a key, in a list of one state and order."""
    body = bytes((_VERSION, listed, state, order)) + key
    return base64.urlsafe_b64encode(body + _check(body)).decode().rstrip("=")


def page_key(token: str, listed: Listed, *, state: int = 0, order: int = 0) -> bytes | None:
    """Read behind what the page of a token begins; None where there is no token. Raises PageError."""
    if not token:
        return None
    body = _checked(token)
    if body[:2] != bytes((_VERSION, listed)):
        raise PageError(_FIELD, "is not of this list.", fix=_FIX)
    if body[2:_HEAD_BYTES] != bytes((state, order)):
        raise PageError(_FIELD, "is of a list with another state or order.", fix=_FIX)
    return body[_HEAD_BYTES:]


def no_such_place() -> PageError:
    """Say that a token's key is none of its list."""
    return PageError(_FIELD, "is not one that a server gave.", fix=_FIX)


def _checked(token: str) -> bytes:
    """Take a token apart: what its check vouches for. Exactly the text that was given is taken."""
    if len(token) > _LONGEST:
        raise no_such_place()
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise no_such_place() from None
    body, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
    if len(body) < _HEAD_BYTES or check != _check(body) or base64.urlsafe_b64encode(data).decode().rstrip("=") != token:
        raise no_such_place()
    return body


def _check(body: bytes) -> bytes:
    return zlib.crc32(b"iyscheck page" + body).to_bytes(_CHECK_BYTES)
