"""Which code runs the inner loops: compiled by numba where it is installed, numpy everywhere else.

A loop that numpy cannot express well has two forms with the same result, held together by the same tests: array
operations, and a plain loop over arrays that numba compiles to machine code and runs without the GIL. The choice is
made by who opens an engine (`Kernel.best` unless told otherwise) and shown in log, metrics and GetServerInfo.

Nothing is imported or compiled before it is first asked for: a process that checks single addresses never pays.
"""

import importlib.util
import logging
import threading
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final, Generic, ParamSpec, TypeVar

from iyscheck.errors import KernelError

P = ParamSpec("P")
R = TypeVar("R")

_LOG: Final = logging.getLogger(__name__)


class Kernel(StrEnum):
    """The two forms of every inner loop."""

    NUMPY = "numpy"
    NUMBA = "numba"

    @classmethod
    def best(cls) -> "Kernel":
        """Return the fastest one that this installation can run: numba comes with `pip install iyscheck[fast]`."""
        return cls.NUMBA if importlib.util.find_spec("numba") is not None else cls.NUMPY

    def usable(self) -> "Kernel":
        """Return this kernel, or numpy where this process cannot run it, which is logged as `kernel_not_usable`.

        Imports numba, which the first loop would do: not every system allows memory that is written and then run,
        and not every numba goes with every numpy.
        """
        if self is Kernel.NUMBA:
            try:
                import numba  # noqa: F401
            except Exception as error:  # noqa: BLE001 - a library's own; whatever it is, numpy answers the same
                warn_not_usable(error)
                return Kernel.NUMPY
        return self


def warn_not_usable(error: Exception) -> None:
    """Log why numpy runs the inner loops in numba's place."""
    why = type(error.__cause__ or error).__name__
    _LOG.warning(
        "The compiled loops cannot run here (%s). numpy gives the same answers, more slowly.",
        why,
        extra={"event": "kernel_not_usable", "error": why},
    )


class Compiled(Generic[P, R]):
    """A loop over arrays, compiled when it is first called and kept on disk for the next process.

    Use as a decorator. The loop sees only arrays and numbers and raises nothing: what comes out of a call comes from
    compiling, before the loop began. Where the files on disk are damaged, or none can be written, it is compiled
    without them, which is logged as `loops_not_kept`; where that fails too, a call raises KernelError.
    """

    def __init__(self, loop: Callable[P, R]) -> None:
        self._loop: Final = loop
        self._machine_code: Callable[P, R] | None = None
        self._lock = threading.Lock()
        self._is_kept = True
        self.__doc__ = loop.__doc__
        self.__wrapped__ = loop

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the loop. Compiles it first if this process has not yet."""
        try:
            return (self._machine_code or self._compiled())(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - of numba: a damaged file, a full disk, one that is read-only
            first = error
        try:
            return self._compiled_anew(first)(*args, **kwargs)
        except Exception as error:
            raise KernelError(
                f"A compiled loop cannot run here ({type(error).__name__}).",
                fix="Uninstall numba: numpy gives the same answers.",
            ) from error

    def _compiled(self) -> Callable[P, R]:
        with self._lock:
            if self._machine_code is None:
                self._machine_code = _compile(self._loop, cache=True)
            return self._machine_code

    def _compiled_anew(self, error: Exception) -> Callable[P, R]:
        """Compile without files, once for all threads."""
        with self._lock:
            if self._is_kept or self._machine_code is None:
                self._is_kept = False
                self._machine_code = self._without_files(error)
            return self._machine_code

    def _without_files(self, error: Exception) -> Callable[P, R]:
        _LOG.warning(
            "A loop is compiled at each start: its files cannot be read or written (%s). Give this user a folder of "
            "its own in NUMBA_CACHE_DIR, or empty the one that is there.",
            type(error).__name__,
            extra={"event": "loops_not_kept", "error": type(error).__name__, "loop": self._loop.__name__},
        )
        return _compile(self._loop, cache=False)


def _compile(loop: Callable[P, R], *, cache: bool) -> Callable[P, R]:
    import numba

    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    compiled: Callable[P, R] = numba.njit(cache=cache, **options)(loop)
    return compiled
