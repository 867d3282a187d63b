"""What is done in two steps: asked in any thread, and taken by the one that writes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Union

from loader.iys.faults import IysFault


class Failed(Exception):  # noqa: N818 - it is told, not raised
    """What was asked broke in a way that is nobody's answer: `what` is the kind of error, never its text."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """`ask` raises whatever it likes; `take` gets what it gave or raised, and gives what is to be asked at once."""

    ask: Callable[[], object]
    take: Callable[[object], Union["Task", None]]


class Part(Protocol):
    """What has tasks from time to time."""

    def next(self) -> Task | None:
        """Give the next task that is due, None where none is."""
        ...

    @property
    def next_s(self) -> float | None:
        """When the next one will be due, seconds UTC; None where nobody knows."""
        ...


def name_of(fault: IysFault) -> str:
    """Name a kind of fault for logs and metrics."""
    return type(fault).__name__.removesuffix("Fault").lower()
