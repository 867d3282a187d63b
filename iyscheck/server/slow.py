"""Tells the log of slow calls by the decision ids of their answers: a few a second, whatever happens.

With the id an operator finds the answer that the caller was given. No metric can hold one.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog
from google.protobuf.message import Message

from iyscheck.v1 import consent_check_pb2 as v1

SLOW_S: Final = 0.1
"""From here on a call or a frame is told of."""
MOST_A_SECOND: Final = 3


def decision_id_of(answer: Message | bytes | None) -> str:
    """Give what an answer is referred to by; empty where it has none, and where there was no answer."""
    message = v1.CheckResponse.FromString(answer) if isinstance(answer, bytes) else answer
    return str(getattr(getattr(message, "envelope", None), "decision_id", ""))


class SlowCalls:
    """Tells of the first few slow ones of each second, and how many there were before that nobody was told of.

    Safe to share between threads. One of it is for one kind of call: streams of slow frames hide no slow checks.
    """

    def __init__(
        self,
        method: str,
        log: structlog.typing.FilteringBoundLogger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._method = method
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._second = -1
        self._told = self._untold = 0

    def took(
        self, seconds: float, waited_s: float, caller: str, code: str, answer: Message | bytes | None, calls: int = 1
    ) -> None:
        """Note a slow call, or several that were answered together, of which `answer` is the first one's.

        `seconds` is how long it took since it was given to us, of which it waited `waited_s` for its turn.
        """
        with self._lock:
            second = int(self._clock())
            if second != self._second:
                self._second, self._told = second, 0
            if self._told >= MOST_A_SECOND:
                self._untold += calls
                return
            self._told += 1
            untold, self._untold = self._untold, 0
        self._log.info(
            "slow_call",
            method=self._method,
            caller=caller,
            code=code,
            decision_id=decision_id_of(answer),
            seconds=round(seconds, 3),
            waited_s=round(waited_s, 3),
            calls=calls,
            untold=untold,
        )
