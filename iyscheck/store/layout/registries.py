"""Everything beside the records that rows bring: brands, watermarks, lists of retailers, counts."""

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
import xxhash

from iyscheck.change import Brand
from iyscheck.consent import Channel, LegacyDeadline
from iyscheck.store.layout.checks import (
    NUMBER_BYTES,
    checked,
    corrupt,
    decode_code,
    decode_number,
    encode_code,
    encode_number,
    unchecked,
)

_LIST_ID_BYTES: Final = 16
_COUNT_KEY: Final = struct.Struct(">IBBB")
_BRAND: Final = struct.Struct(">QBBBI")
_ACCESS: Final = struct.Struct(f">I{_LIST_ID_BYTES}s")


def encode_count_key(brand: int, channel: int, recipient_type: int, status: int) -> bytes:
    """Write the key of a count."""
    return _COUNT_KEY.pack(brand, channel, recipient_type, status)


def decode_count_key(key: bytes) -> tuple[int, int, int, int]:
    """Read the key of a count: brand, channel, recipient type, status."""
    if len(key) != _COUNT_KEY.size:
        corrupt("count")
    brand, channel, recipient_type, status = _COUNT_KEY.unpack(key)
    return brand, channel, recipient_type, status


def encode_brand(brand: Brand) -> bytes:
    """Write a brand: İYS code, active, channels as bits, own legacy deadline, registration time; checked."""
    bits = sum(1 << channel for channel in brand.channels)
    return checked(
        encode_code(brand.brand),
        _BRAND.pack(brand.iys_code, brand.active, bits, brand.legacy_deadline, brand.registered),
    )


def decode_brand(key: bytes, value: bytes) -> Brand:
    """Read a brand."""
    body = unchecked(key, value, "brand")
    if len(body) != _BRAND.size:
        corrupt("brand")
    iys_code, active, bits, legacy_deadline, registered = _BRAND.unpack(body)
    if legacy_deadline > max(LegacyDeadline):
        corrupt("brand")
    return Brand(
        brand=decode_code(key),
        iys_code=iys_code,
        active=active == 1,
        channels=frozenset(channel for channel in Channel if bits >> channel & 1),
        legacy_deadline=legacy_deadline,
        registered=registered,
    )


def encode_watermark(brand: int, seconds: int) -> bytes:
    """Write a watermark in seconds since 1970 UTC; checked."""
    return checked(encode_code(brand), encode_number(seconds))


def decode_watermark(key: bytes, value: bytes) -> int:
    """Read a watermark."""
    return decode_number(unchecked(key, value, "watermark"))


def encode_access(key: bytes, registered: int, list_id: bytes) -> bytes:
    """Write which list of retailers may use the consent at `key`; checked."""
    return checked(key, _ACCESS.pack(registered, list_id))


def decode_access(key: bytes, value: bytes) -> tuple[int, bytes]:
    """Read registration time and list id."""
    body = unchecked(key, value, "retailer access")
    if len(body) != _ACCESS.size:
        corrupt("retailer access")
    registered, list_id = _ACCESS.unpack(body)
    return registered, list_id


@dataclass(frozen=True, slots=True, kw_only=True)
class RetailerList:
    """A list of retailer codes and how many consents use it."""

    users: int
    retailers: frozenset[int]


def list_id(retailers: frozenset[int]) -> bytes:
    """Name a list by its content, so that the same list has the same name whatever came first."""
    return xxhash.xxh3_128_digest(_retailers(retailers))


def encode_list(entry: RetailerList) -> bytes:
    """Write a retailer list; checked."""
    return checked(list_id(entry.retailers), encode_number(entry.users) + _retailers(entry.retailers))


def decode_list(key: bytes, value: bytes) -> RetailerList:
    """Read a retailer list."""
    body = unchecked(key, value, "retailer list")
    if len(body) % NUMBER_BYTES or not body:
        corrupt("retailer list")
    users, *retailers = np.frombuffer(body, ">u8").tolist()
    return RetailerList(users=users, retailers=frozenset(retailers))


def _retailers(retailers: frozenset[int]) -> bytes:
    return np.array(sorted(retailers), ">u8").tobytes()
