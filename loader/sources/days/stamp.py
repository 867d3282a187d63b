"""The time stamp of a day (RFC 3161): does it stamp this very file, and who signed it?

A stamp proves nothing about the store. It is kept for who has to show later what İYS said of a day.
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
    from rfc3161_client import TimeStampResponse

_SHA512: Final = "2.16.840.1.101.3.4.2.3"
_SEQUENCE: Final = b"\x30"
_GRANTED: Final = b"\x30\x03\x02\x01\x00"
"""The status of an answer that holds a stamp."""
_SHORT: Final = 0x80


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What a time stamp says: it is `bound` to the file, its `chain` leads to a known root. None: nobody can tell."""

    bound: bool | None = None
    chain: bool | None = None

    @classmethod
    def of(cls, answer: bytes | None, path: Path, file: FileFacts, roots: Sequence["Certificate"] = ()) -> "Stamp":
        """Compare a stamp as İYS gave it, in DER or base64 of it, with a file. Raises OSError for the file."""
        response = None if answer is None else _response(answer)
        if response is None:
            return cls()
        imprint = response.tst_info.message_imprint
        digest = imprint.message.hex()
        if imprint.hash_algorithm.dotted_string == _SHA512:
            with path.open("rb") as content:
                is_bound = hashlib.file_digest(content, "sha512").hexdigest() == digest
        else:
            is_bound = file.meant_by(digest) is not None
        return cls(bound=is_bound, chain=_leads_to(roots, response, imprint.message) if roots else None)


def _response(answer: bytes) -> "TimeStampResponse | None":
    """Read a stamp, or an answer with one in it; None for what is neither."""
    from rfc3161_client import decode_timestamp_response

    try:
        der = answer if answer.startswith(_SEQUENCE) else base64.b64decode(b"".join(answer.split()), validate=True)
    except ValueError:
        return None
    for each in (der, _answered(der)):
        try:
            response = decode_timestamp_response(each)
            _ = response.tst_info.message_imprint  # an answer may hold no stamp
        except ValueError:
            continue
        return response
    return None


def _leads_to(roots: Sequence["Certificate"], response: "TimeStampResponse", digest: bytes) -> bool:
    from rfc3161_client import VerificationError, VerifierBuilder

    try:
        return VerifierBuilder(roots=list(roots)).build().verify(response, digest)
    except (VerificationError, ValueError):
        return False


def _answered(stamp: bytes) -> bytes:
    """Make an answer of a bare stamp."""
    content = _GRANTED + stamp
    size = len(content)
    if size < _SHORT:
        return _SEQUENCE + bytes([size]) + content
    digits = size.to_bytes((size.bit_length() + 7) // 8)
    return _SEQUENCE + bytes([_SHORT | len(digits)]) + digits + content
