"""Signals may break off what the ledger does at any line."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from iyscheck.client.batching import ledger as ledger_module
from iyscheck.client.batching.ledger import Kinds, Ledger
from tests.client.batching.ledger_calls import Caller, key_of, served


class Interrupted(BaseException):
    """What the handler of a signal raises."""


def stopped_at(line: int, step: Callable[[], object]) -> bool:
    """Let a signal come before the given line of the ledger that a step reaches; says whether it came."""

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        nonlocal line
        if frame.f_code.co_filename != ledger_module.__file__:
            return None
        if event == "line":
            line -= 1
            if line < 0:
                raise Interrupted
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        step()
    except Interrupted:
        return True
    finally:
        sys.settrace(before)
    return False


class TestSignals:
    """The handler of a signal may raise anywhere in the thread that asks, and end what it does there."""

    @pytest.mark.parametrize("step", ["put", "room", "take"])
    def test_interrupted(self, step: str) -> None:
        """Wherever a step of the ledger ends, nobody gets the answer of another, and all room comes back."""
        at = 0
        while self.broken_off(step, at):
            at += 1

        assert at > 3

    def broken_off(self, step: str, at: int) -> bool:
        """Break a step off, go on, and see who is answered what; says whether the step went so far."""
        ledger: Ledger[Caller] = Ledger(capacity=6, window=9)
        ledger.frame_size = 2
        key = key_of(0)
        callers = [Caller(key, f"{number}", 9) for number in range(7)]

        def put(caller: Caller) -> None:
            ledger.put(key, Kinds().of(key), caller.recipient, caller, 9)

        for caller in callers[:6]:
            put(caller)
        callers[0].left = callers[3].left = True
        if step == "room":
            broken = stopped_at(at, ledger.room)
        elif step == "take":
            broken = stopped_at(at, lambda: ledger.take(0, 0))
            ledger.give_back(0)
        else:
            ledger.room()
            broken = stopped_at(at, lambda: put(callers[6]))
            callers[6].left = broken

        ledger.room()
        callers[1].left = True
        later = [Caller(key, f"later {number}", 9) for number in range(8)]
        for caller in later:
            if ledger.room():
                put(caller)
        later[0].left = True
        while (frame := ledger.take(0, 0)) is not None:
            for caller, answer in zip(frame.waiters, served(frame), strict=True):
                assert answer == f"{key} {caller.recipient!r}"
            assert all(len(batch.recipients) == len(batch.deadlines) for batch in frame.batches)
            ledger.land(0, frame.frame_id)
        for _ in range(6):
            assert ledger.room() > 0
            put(Caller(key, "last", 9))
        return broken
