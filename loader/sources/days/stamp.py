"""The time stamp of a day (RFC 3161): does it stamp this very file, and who signed it?

A stamp proves nothing about the store: it is for who has to show later what İYS said of a day. What it is of is read
here, since the library refuses stamps with certificates in another order than DER has them, which OpenSSL writes.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from loader.sources.days.facts import FileFacts

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_INTEGER, _OCTETS, _NAME, _SEQUENCE, _CONTENT = 0x02, 0x04, 0x06, 0x30, 0xA0
_STAMP: Final = bytes.fromhex("060b2a864886f70d0109100104")
"""The name of what is signed: id-ct-TSTInfo."""
_GRANTED: Final = b"\x30\x03\x02\x01\x00"
"""The status of an answer that holds a stamp."""
_LONG: Final = 0x80
_SIZE_BYTES_MAX: Final = 4
_SHA512_BYTES: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What a time stamp says: it is `bound` to the file, its `chain` leads to a known root. None: nobody can tell."""

    bound: bool | None = None
    chain: bool | None = None

    @classmethod
    def of(cls, answer: bytes | None, path: Path, file: FileFacts, roots: Sequence["Certificate"] = ()) -> "Stamp":
        """Compare a stamp as İYS gave it, in DER or base64 of it, with a file. Raises OSError for the file."""
        der = _der(answer or b"")
        digest = _digest(der)
        if not digest:
            return cls()
        if len(digest) == _SHA512_BYTES:
            with path.open("rb") as content:
                is_bound = hashlib.file_digest(content, "sha512").digest() == digest
        else:
            is_bound = file.meant_by(digest.hex()) is not None
        return cls(bound=is_bound, chain=_leads_to(roots, der, digest) if roots else None)


def _der(answer: bytes) -> bytes:
    if answer.startswith(bytes([_SEQUENCE])):
        return answer
    try:
        return base64.b64decode(b"".join(answer.split()), validate=True)
    except ValueError:
        return b""


def _digest(der: bytes) -> bytes:
    """Read what a stamp is of; nothing where it is none.

    TSTInfo begins: version INTEGER, policy OBJECT IDENTIFIER, messageImprint SEQUENCE {algorithm, digest OCTET STRING}.
    """
    place = der.find(_STAMP)
    if place < 0:
        return b""
    inside = der[place + len(_STAMP) :]
    for tag in (_CONTENT, _OCTETS, _SEQUENCE):
        inside = _element(inside, tag)[0]
    for tag in (_INTEGER, _NAME):
        inside = _element(inside, tag)[1]
    return _element(_element(_element(inside, _SEQUENCE)[0], _SEQUENCE)[1], _OCTETS)[0]


def _element(der: bytes, tag: int) -> tuple[bytes, bytes]:
    """Take the first element, which has this tag: its content, and what follows it; nothing where it has not."""
    if len(der) < 2 or der[0] != tag:  # noqa: PLR2004 - tag and size
        return b"", b""
    size, begin = der[1], 2
    if size >= _LONG:
        begin += size - _LONG
        if begin - 2 > _SIZE_BYTES_MAX:
            return b"", b""
        size = int.from_bytes(der[2:begin])
    return der[begin : begin + size], der[begin + size :]


def _leads_to(roots: Sequence["Certificate"], der: bytes, digest: bytes) -> bool | None:
    """Say whether the signature of a stamp, or of an answer with one in it, leads to a root; None if unreadable."""
    from rfc3161_client import VerificationError, VerifierBuilder, decode_timestamp_response

    for each in (der, _answered(der)):
        try:
            response = decode_timestamp_response(each)
        except ValueError:
            continue
        try:
            return VerifierBuilder(roots=list(roots)).build().verify(response, digest)
        except (VerificationError, ValueError):
            return False
    return None


def _answered(stamp: bytes) -> bytes:
    """Make an answer of a bare stamp."""
    content = _GRANTED + stamp
    size = len(content)
    if size < _LONG:
        return bytes([_SEQUENCE, size]) + content
    digits = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([_SEQUENCE, _LONG | len(digits)]) + digits + content
