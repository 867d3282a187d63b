"""Addresses to answers: a column at a time, in the order asked, with patience where the server asks for it."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from iyscheck.errors import ServiceUnavailableError
from iyscheck.question import FrameResult

Ask = Callable[[Sequence[str]], Iterator[FrameResult]]

_PATIENCE_S: Final = {
    **dict.fromkeys(("RATE_LIMITED", "OVERLOADED"), 120.0),
    **dict.fromkeys(("UNAVAILABLE", "CANCELLED", "STREAM_ENDED"), 30.0),
}
"""How long to go on without any answer, by what the server says. A restart takes some seconds."""
_PAUSE_S: Final = 0.2


def answered(addresses: Sequence[str], ask: Ask) -> Iterator[FrameResult]:
    """Ask about a column, and go on behind the last answer where the server cannot answer for a moment.

    Raises what `ask` raises, as soon as it is no passing thing or lasts too long.
    """
    done, moved = 0, time.monotonic()
    while done < len(addresses):
        try:
            for frame in ask(addresses[done:]):
                done, moved = done + len(frame.reasons), time.monotonic()
                yield frame
        except ServiceUnavailableError as error:
            if time.monotonic() - moved >= _PATIENCE_S.get(error.code, 0):
                raise
            time.sleep(_PAUSE_S)
