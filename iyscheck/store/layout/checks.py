"""What all values share: a check that binds each to its key, numbers and brand codes, and what is said of damage."""

import struct
from typing import Final, NoReturn

import xxhash

from iyscheck.errors import RESTORE, StoreCorruptError

CHECK: Final = struct.Struct(">I")
CHECKED_FROM: Final = CHECK.size
"""Where the body of a value begins: all behind its check."""
_NUMBER: Final = struct.Struct(">Q")
_CODE: Final = struct.Struct(">I")
NUMBER_BYTES: Final = _NUMBER.size
CODE_BYTES: Final = _CODE.size


def corrupt(what: str) -> NoReturn:
    """Raise the error for a value that is not what was written."""
    raise StoreCorruptError(
        f"The store holds a damaged {what}.",
        fix=f"Run 'iyscheck-loader verify'. {RESTORE}",
    )


def record_check(key: bytes, body: bytes) -> int:
    """Return the 32 bits that bind a value's body to its key, so that no torn or moved value is believed."""
    return xxhash.xxh3_64_intdigest(key + body) & 0xFFFFFFFF


def checked(key: bytes, body: bytes) -> bytes:
    """Put the check before a body."""
    return CHECK.pack(record_check(key, body)) + body


def unchecked(key: bytes, value: bytes, what: str) -> bytes:
    """Return the body of a value. Raises StoreCorruptError where it is not what was written for this key."""
    body = value[CHECKED_FROM:]
    if len(value) < CHECKED_FROM or CHECK.unpack_from(value)[0] != record_check(key, body):
        corrupt(what)
    return body


def encode_number(number: int) -> bytes:
    """Write an unsigned number of 8 bytes."""
    return _NUMBER.pack(number)


def decode_number(value: bytes) -> int:
    """Read an unsigned number of 8 bytes."""
    if len(value) != NUMBER_BYTES:
        corrupt("number")
    return int(_NUMBER.unpack(value)[0])


def encode_code(brand: int) -> bytes:
    """Write a brand code as key."""
    return _CODE.pack(brand)


def decode_code(key: bytes) -> int:
    """Read a brand code from a key."""
    if len(key) != CODE_BYTES:
        corrupt("brand code")
    return int(_CODE.unpack(key)[0])
