"""What was pushed and is not taken: bodies that are none of İYS's, and rows of brands that are not the credential's.

They are kept for whoever looks into it, encrypted as the journal is, and only so many bytes of them.
"""

import time
from pathlib import Path
from typing import Final

import msgspec

from iyscheck.keys import AddressKey
from loader.archive.log import Log

MOST_BYTES: Final = 16 * 2**20
"""Of all together: a stranger with a leaked password must not fill the disk."""
_BODY_CHARS: Final = 64 * 1024
"""So much of a body is kept."""


class Quarantine:
    """Keeps what is not taken. For one thread at a time."""

    def __init__(self, folder: Path, key: AddressKey) -> None:
        """`folder` is made with the first that comes."""
        self._folder = folder
        self._key = key
        self._log: Log | None = None
        self._bytes = sum(path.stat().st_size for path in folder.glob("*.archive*")) if folder.exists() else 0

    def keep(self, why: str, credential: str, content: bytes) -> bool:
        """Keep something that came with a credential; say whether there was room. Raises OSError."""
        if self._bytes >= MOST_BYTES:
            return False
        if self._log is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._log = Log.new(self._folder / f"{time.time_ns() // 1_000_000:020}.archive.part", self._key)
        text = content.decode("utf-8", "replace")
        may_name = "citizen" in text.casefold() or "\\u" in text  # as in a rejects file: nobody's name is kept
        kept = {"why": why, "credential": credential, "content": "" if may_name else text[:_BODY_CHARS]}
        try:
            self._bytes += self._log.append(msgspec.json.encode(kept) + b"\n", time.time())
            self._log.settle()
        except OSError:
            self.close()
            raise
        return True

    def close(self) -> None:
        """Begin another file with the next that comes."""
        if self._log is not None:
            self._log.close()
            self._log = None
