"""The body of an answer: read up to a limit, and never taken for whole where it was cut.

A compressed body that is cut looks like a shorter one to common libraries; here its end is looked for.
"""

import zlib
from collections.abc import Callable, Iterable
from typing import Final

from loader.iys.faults import TransientFault

_GZIP: Final = 31
"""The number by which zlib means gzip, and nothing else."""
_STEP: Final = 1 << 18
"""So much is decompressed at a time (bytes), however small what it is made of."""


def received(pieces: Iterable[bytes], encoding: str, most: int, take: Callable[[bytes], object]) -> int:
    """Give a body piece by piece to `take`, decompressed; return its size in bytes.

    Args:
        pieces: as they came from the network.
        encoding: the header Content-Encoding.
        most: bytes that it may have at most, before and after decompression.
        take: called with each piece that is not empty.

    Raises TransientFault where it is larger, cut, damaged or encoded in another way.
    """
    match encoding.strip().lower():
        case "" | "identity":
            plain: Iterable[bytes] = pieces
        case "gzip" | "x-gzip":
            plain = _decompressed(pieces, most)
        case _:
            raise TransientFault("İYS's answer is encoded in a way that nobody asked for.")
    size = 0
    for piece in plain:
        size += len(piece)
        if size > most:
            raise too_large(most)
        if piece:
            take(piece)
    return size


def too_large(most: int) -> TransientFault:
    """Say that a body is larger than `most` bytes."""
    return TransientFault(f"İYS's answer is larger than {most} bytes; the rest was not read.")


def _decompressed(pieces: Iterable[bytes], most: int) -> Iterable[bytes]:
    """Decompress gzip, one member after the other."""
    member, is_begun, came = zlib.decompressobj(_GZIP), False, 0
    for piece in pieces:
        came += len(piece)
        if came > most:
            raise too_large(most)
        rest = piece
        while rest:
            is_begun = True
            try:
                yield member.decompress(rest, _STEP)
            except zlib.error:
                raise TransientFault("İYS's answer is damaged: its gzip cannot be read.") from None
            rest = member.unconsumed_tail
            if member.eof:
                rest, member, is_begun = member.unused_data, zlib.decompressobj(_GZIP), False
    if is_begun or not came:
        raise TransientFault("İYS's answer was cut: its gzip has no end.")
