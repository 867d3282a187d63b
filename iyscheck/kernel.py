"""Which code runs the inner loops: compiled by numba where it is installed, numpy everywhere else.

A loop that numpy cannot express well has two forms with the same result, held together by the same tests: array
operations, and a plain loop over arrays that numba compiles to machine code and runs without the GIL. The choice is
made by who opens an engine (`Kernel.best` unless told otherwise) and shown in log, metrics and GetServerInfo.

Nothing is imported or compiled before it is first asked for: a process that checks single addresses never pays.
"""

import importlib.util
import threading
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Kernel(StrEnum):
    """The two forms of every inner loop."""

    NUMPY = "numpy"
    NUMBA = "numba"

    @classmethod
    def best(cls) -> "Kernel":
        """Return the fastest one that this installation can run: numba comes with `pip install iyscheck[fast]`."""
        return cls.NUMBA if importlib.util.find_spec("numba") is not None else cls.NUMPY


class Compiled(Generic[P, R]):
    """A loop over arrays, compiled when it is first called and kept on disk for the next process.

    Use as a decorator. The loop sees only arrays and numbers and raises nothing.
    """

    def __init__(self, loop: Callable[P, R]) -> None:
        self._loop: Final = loop
        self._machine_code: Callable[P, R] | None = None
        self._lock = threading.Lock()
        self.__doc__ = loop.__doc__
        self.__wrapped__ = loop

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the loop. Compiles it first if this process has not yet."""
        if self._machine_code is None:
            with self._lock:
                if self._machine_code is None:
                    self._machine_code = _compile(self._loop)
        return self._machine_code(*args, **kwargs)


def _compile(loop: Callable[P, R]) -> Callable[P, R]:
    import numba

    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        compiled: Callable[P, R] = numba.njit(cache=True, **options)(loop)
    except RuntimeError:  # neither beside the source nor in the user's cache may be written: compile each time
        compiled = numba.njit(**options)(loop)
    return compiled
