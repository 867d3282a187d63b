"""What loading asks of a source: pieces of rows, and with each the point from which the source can go on behind it.

Loading knows no kind of source. What belongs to one kind only (a place in a file, a cursor) is in its point, and the
source alone reads it again.
"""

from collections.abc import Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from iyscheck.kernel import Kernel
from iyscheck.store.layout import SourceState
from loader.reading.rows import Decoded, Format


class Point(Protocol):
    """Where a source can go on. Each kind of source has its own, and keeps it in fields of the stored state."""

    def kept_in(self, state: SourceState) -> SourceState:
        """Return the state with this point in it; all else stays."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """What is known of a source that was read to its end.

    `digest` (hex) is that of its bytes by the algorithm that was asked for, empty if there is none. `written_s` says
    when it was last written, seconds UTC, None where nobody can say.
    """

    digest: str = ""
    written_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Rows that are committed together, and the point behind them.

    They stand on `lines` lines, which are `data`: empty for one line that was too long to be kept. `decoded` is what
    `form` makes of them. The last piece has a `whole`, and may have no lines.
    """

    data: bytes
    lines: int
    decoded: Decoded
    form: Format
    point: Point
    whole: Whole | None = None

    @property
    def is_last(self) -> bool:
        """Whether the source ends here."""
        return self.whole is not None


class Source(Protocol):
    """Where rows come from. The stored state of the last load is its memory: it keeps none itself."""

    @property
    def name(self) -> str:
        """Under which its state, its rejects and its hold are kept."""
        ...

    @property
    def size(self) -> int | None:
        """About how many bytes it has, None if nobody can say. Raises SourceError."""
        ...

    @property
    def resumes(self) -> bool:
        """Whether it can go on from a point. Else each load begins at its beginning."""
        ...

    @property
    def may_be_silent(self) -> bool:
        """Whether its next piece may be long in coming, so that what is read must not wait for it."""
        ...

    def is_unchanged(self, state: SourceState) -> bool:
        """Say of a source that was finished whether nothing has come since.

        Raises SourceChangedError where what was loaded is not the same any more.
        """
        ...

    def read_again(self, state: SourceState, *, digest: str) -> Whole:
        """Read a finished source to its end once more. `digest` names an algorithm of hashlib, or nothing.

        Raises SourceChangedError where it is not the same any more.
        """
        ...

    def opened(
        self, state: SourceState, *, rows: int, digest: str, kernel: Kernel
    ) -> AbstractContextManager[Generator[Piece, None, None]]:
        """Begin at the point in a state: give pieces of at most `rows` lines, and in any case a last one.

        `digest` names an algorithm of hashlib, or nothing. Raises SourceError, here or at any piece.
        """
        ...
