"""One address by regular expressions: its canonical text, its block and its token."""

import hashlib
import re
from typing import Final

from iyscheck.address.countries import COUNTRY_CODES, TRUNKS, ZERO_FOLLOWS
from iyscheck.address.loops import LONG_GROUP, LONGEST_EMAIL, SHORTEST_EMAIL
from iyscheck.consent import Channel
from iyscheck.keys import BLOCK_BYTES, AddressKey

UNREADABLE: Final = bytes(BLOCK_BYTES)
"""Block and token of an address that is unreadable, or of the wrong form for its channel."""

EMAIL_BIT: Final = 0x80
"""Set in byte 0 of an e-mail's block, never of a phone's (ASCII), so that the two never share a block."""

WITHOUT_SEPARATORS: Final = str.maketrans("", "", " -.()")
_ASCII_LOWER: Final = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
_ASCII_SPACE: Final = " \t\n\r\v\f"
MARK: Final = "\ufeff"
_CANONICAL_TURKISH: Final = re.compile(r"\+90[2-9][0-9]{9}")
_TURKISH_PREFIX: Final = r"(?:\+900?|0{0,2}900?|0|)"
_TURKISH: Final = re.compile(f"{_TURKISH_PREFIX}([2-9][0-9]{{9}})")
_COMPANY: Final = re.compile(f"{_TURKISH_PREFIX}(444[0-9]{{4}})")
OF_TWO_MEANINGS: Final = re.compile("0?900444[0-9]{4}")
FOREIGN: Final = re.compile(r"(?:\+|00)(?!90)(?!5[0-9]{9}\Z)([0-9]{7,15})")
COUNTRY: Final = re.compile(f"(?:{'|'.join(map(str, COUNTRY_CODES))})")
TRUNK: Final = re.compile(
    "|".join(
        [f"(?!{'|'.join(map(str, ZERO_FOLLOWS))})(?:{'|'.join(map(str, COUNTRY_CODES))})0"]
        + [f"{code}[{digits}][0-9]{{{size - len(f'{code}.')},}}" for code, (digits, size) in TRUNKS.items()]
    )
)
_GROUPS: Final = re.compile("[0-9]+")
_EMAIL: Final = re.compile(
    r"[a-z0-9._+-]+@"
    r"(?![a-z0-9_-]\.[a-z0-9_-]+\Z)"  # one character before the only dot is too few
    r"(?:[a-z0-9_-]+\.)+[a-z][a-z0-9_-]+"
)


def canonical(address: str, channel: Channel) -> str | None:
    """Spell an address the one way it is known by: E.164 with `+`, or folded e-mail; None if unreadable."""
    if channel is Channel.EPOSTA:
        email = trimmed(address).translate(_ASCII_LOWER)
        fits = SHORTEST_EMAIL <= len(email) <= LONGEST_EMAIL and _EMAIL.fullmatch(email)
        return email if fits else None
    if _CANONICAL_TURKISH.fullmatch(address):  # as most are spelt, and half the work
        return address
    text = trimmed(address)
    number = text.translate(WITHOUT_SEPARATORS)
    if turkish := _TURKISH.fullmatch(number) or _COMPANY.fullmatch(number):
        return None if OF_TWO_MEANINGS.fullmatch(number) else f"+90{turkish[1]}"
    foreign = FOREIGN.fullmatch(number)
    return f"+{foreign[1]}" if foreign and _is_written_whole(text, foreign[1]) else None


def trimmed(address: str) -> str:
    """Leave out white space, and one byte order mark at each end."""
    return address.strip(_ASCII_SPACE).removeprefix(MARK).removesuffix(MARK).strip(_ASCII_SPACE)


def _is_written_whole(text: str, digits: str) -> bool:
    """Say of a foreign number whether nothing of its spelling makes it another one when it is dialled from here."""
    *before, last = map(len, _GROUPS.findall(text))
    grouped = last > 1 and all(size < LONG_GROUP for size in before)
    return bool(grouped and "(" not in text and ")" not in text and COUNTRY.match(digits) and not TRUNK.match(digits))


def block(address: str, channel: Channel) -> bytes:
    """Make the block of one address: 16 bytes, `UNREADABLE` if not accepted; no text raises an error."""
    text = canonical(address, channel)
    if text is None:
        return UNREADABLE
    if channel is Channel.EPOSTA:
        digest = hashlib.sha256(text.encode("ascii")).digest()
        return bytes([digest[0] | EMAIL_BIT]) + digest[1:BLOCK_BYTES]
    return text.encode("ascii").ljust(BLOCK_BYTES, b"\0")


def token(address: str, channel: Channel, key: AddressKey) -> bytes:
    """Make the token of one address: 16 bytes, `UNREADABLE` if it is not accepted."""
    return key.token(block(address, channel))
