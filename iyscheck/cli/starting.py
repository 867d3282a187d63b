"""A server that is just starting is waited for, as long as the user allows."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

import typer

from iyscheck.cli.failing import waiting
from iyscheck.errors import ServiceUnavailableError
from iyscheck.sentences import Language

_PAUSE_S: Final = 0.1
_PATIENT_S: Final = 1.0
"""From when on to say what is being waited for."""

AnsweredT = TypeVar("AnsweredT")


def asked(ask: Callable[[float], AnsweredT], timeout_s: float, language: Language = Language.ENGLISH) -> AnsweredT:
    """Ask with the seconds that are left, and ask again while nobody is there. Raises what `ask` raises."""
    began = time.monotonic()
    said, nobody = False, None
    while True:
        try:
            return ask(max(began + timeout_s - time.monotonic(), _PAUSE_S))
        except ServiceUnavailableError as error:
            if error.code != "UNAVAILABLE":  # out of time is said of who is there
                raise nobody or error from None
            nobody, passed = error, time.monotonic() - began
            if passed + _PAUSE_S >= timeout_s:
                raise
            if passed >= _PATIENT_S and not said:
                said = True
                typer.echo(f"iyscheck: {waiting(error, timeout_s, language)}", err=True)
        time.sleep(_PAUSE_S)
