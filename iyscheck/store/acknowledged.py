"""What a publisher says beside a primary: up to which batch the log has it, or that it is the primary no more."""

from pathlib import Path
from typing import Final

ACKNOWLEDGED: Final = "acknowledged"
"""The file: a number of 8 bytes."""
NOT_THE_PRIMARY: Final = 2**64 - 1
"""In place of a batch: the log has what another primary made, or another store in this one's name. It is not to be
written until a person has decided."""


def read_acknowledged(store: Path) -> int:
    """Return up to which batch the log has it, or NOT_THE_PRIMARY; 0 where nobody said. Raises OSError."""
    try:
        return int.from_bytes((store / ACKNOWLEDGED).read_bytes()[:8])
    except FileNotFoundError:
        return 0


def is_primary_no_more(store: Path) -> bool:
    """Say whether the publisher found that; where its file cannot be read it is not known, so no."""
    try:
        return read_acknowledged(store) == NOT_THE_PRIMARY
    except OSError:  # whoever only answers does not depend on this file
        return False
