from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from iyscheck.change import Position
from iyscheck.cli.scrubbing import asking
from iyscheck.cli.scrubbing.asking import answered
from iyscheck.errors import ServiceUnavailableError
from iyscheck.question import Envelope, FrameResult

ENVELOPE = Envelope(position=Position(b"L" * 16, 1), as_of=1, valid_until=2.0, decision_id="d", policy_id="p")


class Server:
    """Answers frames of two, and refuses by turns: which call fails behind how many frames."""

    def __init__(self, code: str, fails: dict[int, int]) -> None:
        self.asked: list[list[str]] = []
        self._code = code
        self._fails = fails

    def ask(self, addresses: Sequence[str]) -> Iterator[FrameResult]:
        """Answer each address with its own number."""
        self.asked.append(list(addresses))
        left = self._fails.get(len(self.asked), 99)
        for first in range(0, len(addresses), 2):
            if not left:
                raise ServiceUnavailableError("not now", code=self._code)
            left -= 1
            reasons = np.array([int(each) for each in addresses[first : first + 2]], np.uint8)
            yield FrameResult(first=first, reasons=reasons, envelope=ENVELOPE)


def answers(server: Server) -> list[int]:
    """Ask about 0 to 6."""
    return [number for frame in answered([*"0123456"], server.ask) for number in frame.reasons.tolist()]


@pytest.mark.parametrize("code", ["RATE_LIMITED", "OVERLOADED", "UNAVAILABLE", "CANCELLED", "STREAM_ENDED"])
def test_goes_on(code: str) -> None:
    """What passes is waited for; what was answered is not asked again, and all answers are in order."""
    server = Server(code, {1: 1, 2: 0, 3: 1})

    assert answers(server) == [*range(7)]
    assert server.asked == [[*"0123456"], [*"23456"], [*"23456"], [*"456"]]


def test_not_passing() -> None:
    """What does not pass is told at once."""
    server = Server("STORE_KEYS_MISMATCH", {1: 1})

    with pytest.raises(ServiceUnavailableError):
        answers(server)
    assert len(server.asked) == 1


def test_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is answered for long, the wait ends."""
    monkeypatch.setattr(asking, "_PATIENCE_S", {"RATE_LIMITED": 0.3})
    server = Server("RATE_LIMITED", dict.fromkeys(range(1, 10_000), 0))

    with pytest.raises(ServiceUnavailableError):
        answers(server)
    assert len(server.asked) > 1
