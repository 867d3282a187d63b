"""What was last good of the files that an operator edits while a server runs.

A worker that takes the place of another one starts from it where the files cannot be used as they are now: so an edit
with a mistake changes nothing, whoever dies meanwhile. It holds a private key, so it travels in a file without a name.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Self

import msgspec

from iyscheck.server.nameless import nameless


class PairBytes(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate chain and its key as PEM, and the CA of clients if they must have a certificate."""

    cert: bytes
    key: bytes
    client_ca: bytes | None

    def __repr__(self) -> str:
        return "PairBytes(...)"


class LastGood(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the callers file and the server's pair; None for what the server does not have."""

    callers: bytes | None = None
    pair: PairBytes | None = None

    def __repr__(self) -> str:
        return "LastGood(...)"

    @contextmanager
    def handed(self) -> Iterator[int]:
        """Lend a descriptor for one process that inherits it. Raises OSError."""
        with nameless(msgspec.msgpack.encode(self)) as descriptor:
            yield descriptor

    @classmethod
    def taken(cls, descriptor: int) -> Self:
        """Read what was handed, and close it."""
        with os.fdopen(descriptor, "rb") as file:
            return msgspec.msgpack.decode(file.read(), type=cls)


NOTHING: Final = LastGood()
"""What the first start of a server has: it refuses files that cannot be used."""
