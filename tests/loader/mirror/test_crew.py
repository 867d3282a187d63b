"""Asking in several threads, taking in one."""

import threading

import pytest

from loader.mirror.crew import Crew

PATIENCE_S = 30.0


def test_beside_each_other() -> None:
    """As many tasks run beside each other as there are threads; the answer of a slow one holds up no other."""
    gate, all_in = threading.Event(), threading.Barrier(3)

    def ask(number: int) -> int:
        if number < 2:
            all_in.wait(PATIENCE_S)
            gate.wait(PATIENCE_S)
        return number

    crew: Crew[int] = Crew(ask, hands=3)
    for number in (0, 1):
        crew.send(number)
    all_in.wait(PATIENCE_S)
    crew.send(2)
    first = crew.take(PATIENCE_S)
    gate.set()
    others = [crew.take(PATIENCE_S) for _ in range(2)]

    assert first is not None
    assert first.value == 2
    assert {answer.value for answer in others if answer is not None} == {0, 1}
    crew.close(PATIENCE_S)


@pytest.mark.parametrize("hands", [0, 2])
def test_room(hands: int) -> None:
    """Room is made by taking, not by being done: nobody gets ahead of the one who writes."""
    crew: Crew[int] = Crew(lambda number: number, hands=hands)
    room = []
    for number in range(max(hands, 1)):
        room.append(crew.has_room)
        crew.send(number)
    room.append(crew.has_room)
    taken = crew.take(PATIENCE_S)
    room.append(crew.has_room)

    assert taken is not None
    assert room == [*[True] * max(hands, 1), False, True]
    for _ in range(max(hands, 1) - 1):
        crew.take(PATIENCE_S)
    assert crew.is_idle
    assert crew.take(0) is None
    crew.close(PATIENCE_S)


@pytest.mark.parametrize("hands", [0, 1])
def test_errors(hands: int) -> None:
    """Whatever is raised is an answer, and the next task is done."""
    crew: Crew[int] = Crew(lambda number: 1 // number, hands=hands)

    crew.send(0)
    broken = crew.take(PATIENCE_S)
    crew.send(1)
    good = crew.take(PATIENCE_S)

    assert broken is not None
    assert isinstance(broken.error, ZeroDivisionError)
    assert good is not None
    assert (good.task, good.value) == (1, 1)
    crew.close(PATIENCE_S)


def test_close() -> None:
    """Who closes waits for no request that takes longer."""
    never = threading.Event()
    crew: Crew[int] = Crew(lambda _: never.wait(PATIENCE_S), hands=1)
    crew.send(1)

    crew.close(0.01)

    assert not crew.is_idle
    never.set()
