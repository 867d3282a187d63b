"""Consent keys: one, or a column of them."""

import struct
from typing import Final

import numpy as np
import numpy.typing as npt

from iyscheck.change import TAG_BYTES, ConsentColumns
from iyscheck.consent import Channel, RecipientType
from iyscheck.store.layout.checks import corrupt
from iyscheck.store.layout.rows import copy_bytes

_KEY: Final = struct.Struct(f">IBB{TAG_BYTES}s")
KEY_BYTES: Final = _KEY.size
_PREFIX: Final = struct.Struct(">IBB")
KEY_DTYPE: Final = np.dtype(
    [("brand", ">u4"), ("channel", "u1"), ("recipient_type", "u1"), ("tag", "u1", (TAG_BYTES,))]
)
"""A consent key as a numpy row; the same bytes as `_KEY`."""


def encode_key(brand: int, channel: int, recipient_type: int, tag: bytes) -> bytes:
    """Write the key of a consent: 22 bytes, one brand's consents lie together."""
    return _KEY.pack(brand, channel, recipient_type, tag)


def key_prefix(brand: int, channel: int, recipient_type: int) -> bytes:
    """Write what the keys of these consents begin with; the tag follows."""
    return _PREFIX.pack(brand, channel, recipient_type)


def decode_key(key: bytes) -> tuple[int, Channel, RecipientType, bytes]:
    """Read the key of a consent."""
    if len(key) != KEY_BYTES:
        corrupt("consent key")
    brand, channel, recipient_type, tag = _KEY.unpack(key)
    try:
        return brand, Channel(channel), RecipientType(recipient_type), tag
    except ValueError:
        corrupt("consent key")


def encode_keys(columns: ConsentColumns) -> npt.NDArray[np.void]:
    """Write the keys of N changes as a packed array of KEY_DTYPE."""
    keys = np.empty(len(columns), KEY_DTYPE)
    write_keys(keys, columns)
    return keys


def write_keys(keys: npt.NDArray[np.void], columns: ConsentColumns) -> None:
    """Write the keys of N changes into rows of KEY_DTYPE."""
    keys["brand"] = columns.brand
    keys["channel"] = columns.channel
    keys["recipient_type"] = columns.recipient_type
    copy_bytes(keys["tag"], columns.tag)


def column_of_keys(columns: ConsentColumns) -> list[bytes]:
    """Write the keys of N changes."""
    packed = encode_keys(columns).tobytes()
    return [packed[at : at + KEY_BYTES] for at in range(0, len(packed), KEY_BYTES)]


def column_keys(brand: int, channel: int, recipient_type: int, tags: npt.NDArray[np.uint8]) -> list[bytes]:
    """Write the keys of one frame's recipients; tags uint8 (N, 16)."""
    prefix = key_prefix(brand, channel, recipient_type)
    packed = tags.tobytes()
    return [prefix + packed[at : at + TAG_BYTES] for at in range(0, len(packed), TAG_BYTES)]
