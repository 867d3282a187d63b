"""Columns of recipients: cut into frames, kept in flight, put together again. Pure state, no socket.

A `Flight` owes exactly one reply per frame, in order. What is unanswered when a stream breaks is sent again on the
next one under the same frame ids, and a reply that is not the one owed ends the call: so no answer is ever missing,
doubled or given for somebody else.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from iyscheck.errors import QuestionError, ServiceFailedError
from iyscheck.keys import BLOCK_BYTES
from iyscheck.question import ColumnAnswer, FrameResult

FRAME_SIZE: Final = 10_000
WINDOW: Final = 4
ATTEMPTS: Final = 10
"""Streams in a row without any answer; their pauses add up to some three seconds, enough for a restart."""
FIRST_BACKOFF_S: Final = 0.05
LAST_BACKOFF_S: Final = 0.5
FRAME_HEAD_BYTES: Final = 256
"""More than everything of a frame but its recipients."""
TEXT_HEAD_BYTES: Final = 4
"""More than protobuf puts before a text of a few hundred bytes."""

Piece: TypeAlias = Sequence[str] | npt.NDArray[np.uint8]
RequestT = TypeVar("RequestT")


def cut(
    recipients: Iterable[str] | npt.NDArray[np.uint8], *, size: int, max_bytes: int, clean: Callable[[str], str]
) -> Iterator[Piece]:
    """Cut a column into pieces of at most `size` recipients that fit into messages of `max_bytes`.

    Each text goes through `clean` first. An iterable is read one piece ahead, so it may be without end.
    Raises QuestionError for a single text, and for an array that is not uint8 of shape (N, 16).
    """
    room = max(max_bytes - FRAME_HEAD_BYTES, 1)
    if isinstance(recipients, np.ndarray):
        rows = _token_rows(recipients)
        step = max(min(size, room // BLOCK_BYTES), 1)
        yield from (rows[first : first + step] for first in range(0, len(rows), step))
        return
    if isinstance(recipients, str | bytes):
        raise QuestionError("recipients", "is one text, not many.", fix="Put it into a list, or use check.")
    texts = map(clean, recipients)
    while piece := list(islice(texts, size)):
        yield from _fitting(piece, room)


def _token_rows(tokens: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if tokens.dtype != np.uint8 or tokens.ndim != 2 or tokens.shape[1] != BLOCK_BYTES:  # noqa: PLR2004 - rows, columns
        raise QuestionError("recipients", f"tokens must be uint8 of shape (N, {BLOCK_BYTES}).")
    return tokens


def _fitting(piece: list[str], room: int) -> Iterator[list[str]]:
    """Halve a piece until each part fits; a single text goes as it is."""
    if len(piece) <= 1 or sum(map(len, piece)) + TEXT_HEAD_BYTES * len(piece) <= room:
        yield piece
        return
    middle = len(piece) // 2
    yield from _fitting(piece[:middle], room)
    yield from _fitting(piece[middle:], room)


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed(Generic[RequestT]):
    """One frame whose reply is not in yet; `first` is the place of its first recipient in the column."""

    frame_id: int
    first: int
    recipients: int
    request: RequestT


class Flight(Generic[RequestT]):
    """The frames of one column on their way: at most `window` unanswered, each kept until its reply is in.

    `build` makes the request of a piece, given its frame id.
    """

    def __init__(self, pieces: Iterator[Piece], build: Callable[[int, Piece], RequestT], *, window: int) -> None:
        self._pieces = pieces
        self._build = build
        self._window = window
        self._owed: deque[Owed[RequestT]] = deque()
        self._launched = 0
        self._next_first = 0
        self._failures = 0
        self._exhausted = False

    @property
    def empty(self) -> bool:
        """Whether nothing is on its way."""
        return not self._owed

    def unanswered(self) -> list[RequestT]:
        """What a new stream must send before anything else."""
        return [owed.request for owed in self._owed]

    @property
    def over(self) -> bool:
        """Whether there is nothing left to ask, as far as was seen when there last was room."""
        return self._exhausted and not self._owed

    def launch(self) -> Iterator[RequestT]:
        """Make the requests there is room for."""
        while len(self._owed) < self._window and not self._exhausted:
            piece = next(self._pieces, None)
            if piece is None:
                self._exhausted = True
                return
            self._launched += 1
            request = self._build(self._launched, piece)
            self._owed.append(
                Owed(frame_id=self._launched, first=self._next_first, recipients=len(piece), request=request)
            )
            self._next_first += len(piece)
            yield request

    def expect(self, frame_id: int) -> Owed[RequestT]:
        """Tell which frame a reply belongs to. Raises ServiceFailedError unless it is the one whose turn it is."""
        if not self._owed or frame_id != self._owed[0].frame_id:
            raise ServiceFailedError("The server answered a frame whose turn it was not.", code="WRONG_FRAME")
        return self._owed[0]

    def land(self, answer: ColumnAnswer) -> FrameResult:
        """Take the answer to the frame whose turn it is."""
        owed = self._owed.popleft()
        self._failures = 0
        return FrameResult(first=owed.first, reasons=answer.reasons, envelope=answer.envelope)

    def backoff(self) -> float | None:
        """Count a broken stream: seconds to wait before the next one, None after too many without any answer."""
        self._failures += 1
        if self._failures >= ATTEMPTS:
            return None
        return min(FIRST_BACKOFF_S * float(2 ** (self._failures - 1)), LAST_BACKOFF_S)
